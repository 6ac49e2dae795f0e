//! How many tasks (processes and threads) the cgroups of this process may have: TasksMax of a unit, for one.
//!
//! Read from the files that the kernel shows, once at the start of the daemon. What cannot be read bounds nothing. No decision
//! about a task depends on it.

use std::fs;
use std::path::Path;

/// The lowest limit of the cgroup of this process and of those above it; `None`: no limit is set, or none can be read.
pub fn of_own_cgroups() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest(Path::new("/sys/fs/cgroup"), &membership)
}

/// The lowest limit along the cgroups of `membership`, which has the form of `/proc/self/cgroup`: a line `0::/path` for version
/// 2, a line with the controller `pids` for version 1.
fn lowest(root: &Path, membership: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let root = match controllers {
            "" => root.to_owned(),
            _ => controllers.split(',').any(|name| name == "pids").then(|| root.join("pids"))?,
        };
        let own = root.join(path.trim_start_matches('/'));
        let levels = own.ancestors().take_while(|level| level.starts_with(&root));
        let limit =
            |level: &Path| fs::read_to_string(level.join("pids.max")).ok()?.trim().parse::<u64>().ok();
        levels.filter_map(limit).min()
    };
    membership.lines().filter_map(of_line).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_counts() {
        let folder = std::env::temp_dir().join(format!("bulkhead-cgroups-{}", std::process::id()));
        let own = folder.join("system.slice/bulkhead.service");
        fs::create_dir_all(&own).expect("a folder");
        let limits = |above: &str, below: &str| {
            fs::write(folder.join("system.slice/pids.max"), above).expect("a file");
            fs::write(own.join("pids.max"), below).expect("a file");
            lowest(&folder, "1:name=systemd:/x\n0::/system.slice/bulkhead.service\n")
        };
        let found = [limits("max\n", "4096\n"), limits("100\n", "4096\n"), limits("max\n", "max\n")];
        let first = folder.join("pids/here");
        fs::create_dir_all(&first).expect("a folder");
        fs::write(first.join("pids.max"), "7\n").expect("a file");
        let of_first = lowest(&folder, "4:cpu,pids:/here\n3:memory:/here\n");
        fs::remove_dir_all(&folder).expect("the folder goes");
        assert_eq!((found, of_first), ([Some(4096), Some(100), None], Some(7)));
    }
}
