//! Which user a process runs as, and the name of its program, from /proc/PID/status.
//!
//! That file needs no right to trace, so it shows processes of other users too, unless /proc has `hidepid`. Nothing here
//! waits for the process. The pid must be reserved, by a child that is not reaped, or the answer may be about another
//! process. Driven by the supervisor, to name what it cannot end.

/// The user and the name of a process; empty if /proc does not show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Its effective uid.
    pub uid: Option<u32>,
    /// The name that the kernel shows for its program: at most 15 bytes, some escaped.
    pub name: String,
    /// Its parent.
    pub parent: Option<u32>,
}

impl ProcessIdentity {
    /// Of the process that has this pid now.
    pub fn of(pid: u32) -> Self {
        let text = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
        parse(&String::from_utf8_lossy(&text))
    }
}

fn parse(text: &str) -> ProcessIdentity {
    let mut found = ProcessIdentity::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once(":\t")) {
        match key {
            "Name" => value.clone_into(&mut found.name),
            "PPid" => found.parent = value.parse().ok(),
            // Real, effective, saved, and that for files.
            "Uid" => found.uid = value.split_ascii_whitespace().nth(1).and_then(|uid| uid.parse().ok()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reap, shell};

    #[test]
    fn a_process_is_named_with_its_effective_user() {
        let shown = parse("Name:\tsu\\n\nPPid:\t7\nUid:\t1001\t0\t0\t0\n");
        assert_eq!(shown, ProcessIdentity { uid: Some(0), name: "su\\n".to_owned(), parent: Some(7) });
        let process = shell("read line");
        let seen = ProcessIdentity::of(process.pid());
        assert_eq!(
            (seen.uid, seen.parent),
            (Some(nix::unistd::geteuid().as_raw()), Some(std::process::id()))
        );
        process.kill(9).unwrap();
        reap(&process);
        assert_eq!(ProcessIdentity::of(u32::MAX), ProcessIdentity::default());
    }
}
