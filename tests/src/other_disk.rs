//! Clients whose files the programs of their daemon cannot reach: a user's daemon, and commands in a mount namespace.
//!
//! Each command finds a tmpfs where the daemon sees an empty folder. It needs root, to mount and to become the user. The
//! daemon ends with the test. Driven by the tests of copied files.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use bulkhead_proto::worker::copies::FOLDER_PREFIX;

use crate::daemon::{binary, new_folder};

/// The user `nobody`.
pub const NOBODY: u32 = 65534;

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether these tests may become other users.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| text(&output.stdout).trim() == "0")
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$1\" >/dev/null", "sh", program]).status();
    found.is_ok_and(|it| it.success())
}

/// Whether this machine lets root mount a tmpfs in a namespace of its own.
pub fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    is_root() && tried.is_ok_and(|output| output.status.success())
}

/// A daemon of one user, and the folder `disk`, which each command finds as it is in a mount namespace of its own.
#[derive(Debug)]
pub struct OtherDisk {
    folder: tempfile::TempDir,
    uid: u32,
    daemon: Child,
    stdin: Option<ChildStdin>,
}

impl OtherDisk {
    /// For a daemon with the usual settings.
    pub fn of(uid: u32) -> Self {
        Self::with(uid, "")
    }

    /// For a daemon with this config.
    pub fn with(uid: u32, config: &str) -> Self {
        let folder = new_folder();
        for program in ["bulkhead", "bulkhead-supervisor", "bulkhead-worker"] {
            let copied = Command::new("cp").arg(binary(program)).arg(folder.path()).status();
            assert!(copied.expect("cp runs").success(), "{program} is copied");
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its permissions");
        for name in ["disk", "home", "source"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            chown(folder.path().join(name), Some(uid), Some(uid)).expect("it is root's to give");
        }
        let home = folder.path().join("home");
        fs::write(home.join("config"), config).expect("a file");
        let mut daemon = Command::new(folder.path().join("bulkhead-supervisor"));
        daemon.uid(uid).gid(uid).env("HOME", &home).args(["--private", "--workers", "1", "--config"]);
        daemon
            .arg(home.join("config"))
            .arg("--socket")
            .arg(home.join("s"))
            .arg("--state")
            .arg(home.join("state"));
        daemon.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut daemon = daemon.spawn().expect("it runs");
        let mut ready = [0; 6];
        daemon.stdout.take().expect("a pipe").read_exact(&mut ready).expect("it gets ready");
        let stdin = daemon.stdin.take();
        Self { folder, uid, daemon, stdin }
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the user in `source`, which each command finds on its own `disk`.
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.path("source").join(name);
        fs::write(&path, content).expect("a file");
        chown(&path, Some(self.uid), Some(self.uid)).expect("it is root's to give");
    }

    /// Runs `bulkhead run exec` where `disk` is a tmpfs with the files of `source`, then takes those of `disk` to
    /// `source`. `mount` are options of the tmpfs.
    pub fn run_with(&self, mount: &str, words: &[&str]) -> Output {
        let script = "mount -t tmpfs -o \"$MOUNT\" none \"$DISK\" && cp -a \"$SOURCE\"/. \"$DISK\" || exit 77; cd \"$DISK\"; \
                      setpriv --reuid \"$UID_OF\" --regid \"$UID_OF\" --clear-groups \"$BULKHEAD\" --socket \"$S\" run exec \"$@\"; \
                      code=$?; rm -rf \"$SOURCE\"/*; cp -a \"$DISK\"/. \"$SOURCE\"; exit $code";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).args(words).stdin(Stdio::null());
        let options = format!("mode=755,uid={0},gid={0},{mount}", self.uid);
        command.env("MOUNT", options).env("DISK", self.path("disk")).env("SOURCE", self.path("source"));
        command.env("UID_OF", self.uid.to_string()).env("BULKHEAD", self.path("bulkhead"));
        command.env("S", self.path("home/s")).output().expect("unshare is there")
    }

    /// The output of a command that must succeed.
    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run_with("size=100m", words);
        assert!(output.status.success(), "uid {} {words:?}: {}", self.uid, text(&output.stderr));
        text(&output.stdout)
    }

    /// A command of root for this user's daemon, with the file `a`.
    pub fn run_as_root(&self, a: &Path, words: &[&str]) -> Command {
        let mut run = Command::new(binary("bulkhead"));
        run.arg("--socket").arg(self.path("home/s")).args(["run", "exec", "--in"]);
        run.arg(format!("a={}", a.display())).args(words).stdin(Stdio::null());
        run
    }

    /// The names in `source`, and how many folders of copies there are.
    pub fn left(&self) -> (Vec<String>, usize) {
        (names(&self.path("source")), copies(&self.path("home/state")))
    }
}

impl Drop for OtherDisk {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.daemon.wait();
    }
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        all.map(|one| text(one.expect("an entry").file_name().as_encoded_bytes())).collect();
    names.sort();
    names
}

/// How many folders of copies there are in a state folder.
pub fn copies(state: &Path) -> usize {
    names(state).iter().filter(|name| name.starts_with(FOLDER_PREFIX)).count()
}

/// Calls `test` as root and as an unprivileged user.
pub fn as_both(test: impl Fn(&OtherDisk)) {
    test(&OtherDisk::of(0));
    test(&OtherDisk::of(NOBODY));
}
