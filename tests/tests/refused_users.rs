//! Users whom a daemon does not let in: each is told whom it serves, with the groups that this daemon has.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use bulkhead_tests::daemon::Daemon;
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, command_for_all, open_to_all, system_daemon};
use bulkhead_tests::raid::may_become_others;

/// A group that no daemon of a test serves.
const OTHER_GROUP: u32 = 60_099;

/// `bulkhead ping` by a user who is in no group of the daemon.
fn ping(daemon: &Daemon) -> Output {
    let mut setpriv = Command::new("setpriv");
    setpriv.args([format!("--reuid={ALICE}"), format!("--regid={OTHER_GROUP}"), "--clear-groups".to_owned()]);
    setpriv.arg(command_for_all(daemon)).arg("--socket").arg(daemon.socket()).arg("ping");
    setpriv.output().unwrap()
}

fn said(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_user_outside_the_group_is_told_the_group_of_the_configuration() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let told = said(&ping(&daemon));
    let group =
        "is for user 0 and the members of group nogroup (join it with `sudo usermod -aG nogroup $USER`";
    assert!(told.contains("no permission to connect") && told.contains(group), "{told}");
}

#[test]
fn a_user_who_passes_the_socket_of_another_is_told_whose_daemon_it_is() {
    or_skip!(may_become_others());
    let daemon = Daemon::start();
    open_to_all(&daemon);
    std::fs::set_permissions(daemon.socket(), Permissions::from_mode(0o666)).unwrap();
    let told = said(&ping(&daemon));
    assert!(told.contains("does not serve this user: it serves root alone"), "{told}");
}
