//! Programs that become another user, by a set-uid helper that root makes for the test.
//!
//! They can be neither signalled nor ended by the user who started them. Without root, `setpriv` or a file system that
//! honours the set-uid bit the test is skipped.

use super::*;

/// A set-uid program of root that becomes root wholly and then runs its arguments, as `sudo` does; for the user of this
/// process from now on. `None`: this process is not root, or there is no `setpriv`.
fn become_user_with_helper() -> Option<tempfile::TempDir> {
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/setpriv").exists() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("/bin/sh")
        .args(["-c", "chmod 711 . && install -m 4755 /usr/bin/setpriv helper"])
        .current_dir(folder.path())
        .status();
    assert!(made.unwrap().success());
    nix::unistd::setgid(BOMBER.into()).unwrap();
    nix::unistd::setuid(BOMBER.into()).unwrap();
    let probe = std::process::Command::new(folder.path().join("helper")).args(AS_ROOT).arg("true").status();
    probe.is_ok_and(|status| status.success()).then_some(folder)
}

const AS_ROOT: [&str; 3] = ["--reuid=0", "--regid=0", "--clear-groups"];

#[test]
fn a_program_that_has_become_another_user_is_heard_to_its_end_and_named_if_it_lives_on() {
    let name = "program::tests::other_users::a_program_that_has_become_another_user_is_heard_to_its_end_and_named_if_it_lives_on";
    in_child(name, || {
        let Some(folder) = become_user_with_helper() else {
            skip!(
                "no set-uid program can be made here: that needs root, setpriv, and a file system without nosuid"
            );
        };
        let helper = format!("{}/helper {}", folder.path().display(), AS_ROOT.join(" "));
        let ended = ran(&format!("exec {helper} sh -c 'echo on; exit 3'"), b"", 1 << 20);
        assert_eq!((ended.status.unwrap(), text(&ended.out)), (ExitStatus::Code(3), "on\n"));
        assert!(ended.survivors.is_empty());
        // The shell and its children of ours end; those of root live on.
        let cases = [
            ("exec HELPER sh -c 'echo on; exec sleep 60'", SURVIVED),
            (
                "HELPER sh -c 'echo on; exec sleep 60' & sleep 3000 & wait",
                ExitStatus::Signal { signal: libc::SIGTERM, core: false },
            ),
            ("exec HELPER sh -c 'echo on; exec yes'", SURVIVED),
        ];
        // One that has to be killed is dead at another moment each time.
        let killed = (
            "trap '' TERM; HELPER sh -c 'echo on; exec sleep 60' & exec sleep 3000",
            ExitStatus::Signal { signal: libc::SIGKILL, core: false },
        );
        for (script, status) in cases.into_iter().chain(std::iter::repeat_n(killed, 10)) {
            let ended = ran_with_grace(&script.replace("HELPER", &helper), SHORT);
            assert_eq!(ended.status.unwrap(), status, "{script}");
            assert!(text(&ended.out).starts_with("on\n"), "{script}");
            let [survivor] = ended.survivors[..] else { panic!("{script}: {:?}", ended.survivors) };
            assert_eq!(crate::process_identity::ProcessIdentity::of(survivor).uid, Some(0), "{script}");
            let kill = format!("exec {helper} kill -KILL {survivor}");
            assert!(std::process::Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
            while reap_any().is_ok() {
                let _ = crate::exit::wait_for_any();
            }
        }
    });
}
