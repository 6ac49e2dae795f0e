//! A machine for one test: a real systemd as PID 1 of fresh namespaces, on a temporary overlay of this machine's root,
//! so that units are tested for real without touching the host.
//!
//! It writes and stops nothing of the host. However the test ends, the machine ends with it: it dies with the thread
//! that booted it, and its drop removes its cgroup and its folder. If it cannot be booted, the test prints the reason
//! and skips itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::DEADLINE;

/// The script that runs inside the new namespaces until systemd starts.
const BOOT: &str = include_str!("../systemd/boot.sh");

/// Enters the machine's cgroup first, so that the cgroup namespace begins there; dies with the thread that
/// started it, and everything inside dies with it.
const START: &str = r#"
echo $$ >"$1/cgroup.procs"
exec setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net \
    --propagation private bash "$2/boot.sh" "$2"
"#;

/// The programs that booting a machine needs.
const PROGRAMS: [&str; 7] = [
    "/lib/systemd/systemd",
    "/usr/bin/systemctl",
    "/usr/bin/unshare",
    "/usr/bin/nsenter",
    "/usr/bin/setpriv",
    "/bin/mount",
    "/bin/bash",
];

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    cgroup: PathBuf,
    outer: Child,
    init: u32,
}

impl Machine {
    /// Boots one. `Err` is the reason why this host cannot.
    ///
    /// # Panics
    /// If the host can, and the machine does not come up all the same.
    pub fn boot() -> Result<Self, String> {
        let hierarchy = able()?;
        let folder = tempfile::Builder::new().prefix("bulkhead-boot-").tempdir_in("/tmp").unwrap();
        let cgroup = hierarchy.join(folder.path().file_name().unwrap());
        fs::create_dir(&cgroup)
            .map_err(|error| format!("no cgroup can be made at {}: {error}", cgroup.display()))?;
        fs::write(folder.path().join("boot.sh"), BOOT).unwrap();
        let console = fs::File::create(folder.path().join("console")).unwrap();
        let outer = Command::new("bash")
            .args(["-euc", START, "start"])
            .args([&cgroup, folder.path()])
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .process_group(0)
            .spawn()
            .unwrap();
        let mut machine = Self { folder, cgroup, outer, init: 0 };
        machine.wait_for_init();
        machine.eventually("the machine to boot", |machine| {
            machine.try_run(&["systemctl", "is-system-running"]).status.success()
        });
        Ok(machine)
    }

    /// The host's folder that is visible inside at the same path.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command inside, as root, to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn try_run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net", "--root", "--wd"])
            .args([
                "env",
                "-i",
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root",
                "LANG=C.UTF-8",
            ])
            .args(["SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0", "timeout", "--signal=KILL"])
            .arg(DEADLINE.as_secs().to_string())
            .args(command)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command inside that must succeed, and gives what it printed.
    ///
    /// # Panics
    /// If it fails; then with what it said.
    pub fn run(&self, command: &[&str]) -> String {
        let output = self.try_run(command);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?} failed inside ({}):\n{out}{error}", output.status);
        out.into_owned()
    }

    /// Runs a command inside as another user, with the groups that user has.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn try_run_as(&self, user: &str, command: &[&str]) -> Output {
        let mut words = vec!["setpriv", "--reuid", user, "--regid", user, "--init-groups"];
        words.extend(command);
        self.try_run(&words)
    }

    /// Calls `is_so` until it is true.
    ///
    /// # Panics
    /// If it is not so within the deadline; then with the machine's console and journal.
    pub fn eventually(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !is_so(self) {
            if Instant::now() > until {
                let console = fs::read_to_string(self.folder().join("console")).unwrap_or_default();
                let journal = self.try_run(&["journalctl", "--no-pager", "-n", "50"]);
                panic!("waited in vain for {what}\n{console}\n{}", String::from_utf8_lossy(&journal.stdout));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until unshare has a child, the first process inside.
    fn wait_for_init(&mut self) {
        let outer = self.outer.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        let until = Instant::now() + DEADLINE;
        while self.init == 0 {
            let text = fs::read_to_string(&children).unwrap_or_default();
            let inside =
                text.split_whitespace().find_map(|pid| pid.parse().ok().filter(|&pid| is_inside(pid)));
            self.init = inside.unwrap_or(0);
            let ended = self.outer.try_wait().unwrap();
            let console = || fs::read_to_string(self.folder.path().join("console")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < until, "the machine did not start:\n{}", console());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Removes the machine's cgroup, once the kernel has buried what was in it.
    fn remove_cgroup(&self) {
        let until = Instant::now() + DEADLINE;
        while self.cgroup.exists() && Instant::now() < until {
            for folder in deepest_first(&self.cgroup) {
                drop(fs::remove_dir(folder));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // unshare takes PID 1 with it, and the kernel everything else in its namespace.
        drop(self.outer.kill());
        drop(self.outer.wait());
        self.remove_cgroup();
        if self.cgroup.exists() && !std::thread::panicking() {
            panic!("{} was left behind", self.cgroup.display());
        }
    }
}

/// Whether a machine can be booted here: the cgroup to make it in, or the reason why not.
fn able() -> Result<PathBuf, String> {
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        return Err("only root can boot a systemd of its own; run as root to have it".to_owned());
    }
    if let Some(missing) = PROGRAMS.iter().find(|program| !Path::new(program).exists()) {
        return Err(format!("{missing} is not there; `cargo xtask setup` as root installs it"));
    }
    let spaces =
        Command::new("unshare").args(["--mount", "--pid", "--fork", "--cgroup", "--net", "true"]).output();
    if !spaces.is_ok_and(|output| output.status.success()) {
        return Err("new namespaces are forbidden here (in a container?)".to_owned());
    }
    let overlay = Command::new("unshare").args(["--mount", "bash", "-c", OVERLAY_PROBE]).output();
    if !overlay.is_ok_and(|output| output.status.success()) {
        return Err("no overlay of / can be mounted here".to_owned());
    }
    own_cgroup().ok_or_else(|| "there is no cgroup v2 hierarchy here".to_owned())
}

/// Mounts what `boot.sh` mounts, in a mount namespace that is gone at once.
const OVERLAY_PROBE: &str = r#"
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
"#;

/// The folder of our own cgroup in the v2 hierarchy, wherever that is mounted.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let mut fields = mount.split(' ').skip(3);
    let (top, point) = (fields.next()?, fields.next()?);
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = Path::new(path).strip_prefix(top).unwrap_or(Path::new("")).to_owned();
    let folder = Path::new(point).join(below.strip_prefix("/").unwrap_or(&below));
    folder.join("cgroup.procs").exists().then_some(folder)
}

/// Whether a process lives in another pid namespace than ours.
fn is_inside(pid: u32) -> bool {
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs = space(&pid.to_string());
    theirs.is_some() && theirs != space("self")
}

/// A folder and all below it, children before their parents.
fn deepest_first(folder: &Path) -> Vec<PathBuf> {
    let children = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let folders = children.map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut found: Vec<PathBuf> = folders.flat_map(|path| deepest_first(&path)).collect();
    found.push(folder.to_owned());
    found
}
