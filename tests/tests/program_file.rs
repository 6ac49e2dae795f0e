//! A program that a test puts into a folder can be run at once, whatever other threads start at that moment.
//!
//! The children are started by fork, as those of tests that become another user are: between fork and exec each holds a
//! copy of every descriptor of this process.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bulkhead_tests::daemon::new_folder;
use bulkhead_tests::program_file::{copy_program, write_program};

/// Ends the threads that start children, also when the test fails.
struct EndOfChildren<'a>(&'a AtomicBool);

impl Drop for EndOfChildren<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_program_runs_at_once_while_other_threads_start_children() {
    let folder = new_folder();
    let (script, copy) = (folder.path().join("script"), folder.path().join("copy"));
    let uid = std::fs::metadata("/proc/self").expect("proc is mounted").uid();
    // Becoming a user, even the same, makes std fork instead of calling posix_spawn.
    let start = || Command::new("true").uid(uid).status().expect("true runs");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    start();
                }
            });
        }
        let _end = EndOfChildren(&ended);
        for _ in 0..100 {
            write_program(&script, "#!/bin/sh\nexit 7\n", 0o755);
            assert_eq!(Command::new(&script).status().expect("the script runs").code(), Some(7));
            copy_program("/bin/true".as_ref(), &copy);
            assert!(Command::new(&copy).status().expect("the copy runs").success());
        }
    });
}
