//! Several users of one daemon: a system daemon that all of them reach, their connections, and commands that they run.
//!
//! Only root can be several users: a test asks `raid::may_become_others` first. Connections and commands are of the user and
//! of [`GROUP`] alone, so none of them is an administrator. Nothing here is kept: what a test starts, the test ends.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bulkhead_sys::hostile_peer;

use crate::daemon::{Daemon, Setup, binary};
use crate::program_file::copy_program;
use crate::wire::Wire;

/// An ordinary user.
pub const ALICE: u32 = 60_001;
/// Another one.
pub const BOB: u32 = 60_002;
/// A third one.
pub const CAROL: u32 = 60_003;
/// The group of all of them, `nogroup`, which every machine has.
pub const GROUP: u32 = 65_534;

/// The configuration of a system daemon for everybody in [`GROUP`], with no administrators but root, and `more` keys.
pub fn system_config(more: &str) -> String {
    format!("mode = \"system\"\ngroup = \"nogroup\"\nadmin_group = \"bulkhead-test-none\"\n{more}")
}

/// A daemon with that configuration, whose folder all users reach.
pub fn system_daemon(more: &str) -> Daemon {
    let daemon = Daemon::start_with(&Setup { config: system_config(more), ..Setup::default() });
    open_to_all(&daemon);
    daemon
}

/// Lets all users reach the socket of a daemon.
pub fn open_to_all(daemon: &Daemon) {
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(daemon.folder(), everybody).expect("it is ours");
}

/// A connection of this user, before any hello.
pub fn connect_as(daemon: &Daemon, uid: u32) -> Wire {
    Wire::on(hostile_peer::connect_as(&daemon.socket(), uid, GROUP).expect("the daemon listens"))
}

/// A copy of the command in the daemon's folder, which all users may run.
pub fn command_for_all(daemon: &Daemon) -> PathBuf {
    let command = daemon.folder().join("bulkhead");
    copy_program(&binary("bulkhead"), &command);
    command
}

/// What that command does for this user, when it is called with these arguments.
pub fn run_as(uid: u32, (command, daemon): (&Path, &Daemon), arguments: &[&str]) -> Output {
    let mut setpriv = Command::new("setpriv");
    setpriv.args([format!("--reuid={uid}"), format!("--regid={GROUP}"), "--clear-groups".to_owned()]);
    setpriv.arg(command).arg("--socket").arg(daemon.socket()).args(arguments);
    setpriv.output().expect("setpriv runs, it is part of every Debian")
}
