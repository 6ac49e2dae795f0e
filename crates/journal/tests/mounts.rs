//! File systems that these tests mount: one that another program answers for is refused, and a full one loses nothing.

#![allow(clippy::unwrap_used)]

mod common;
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
#[allow(unreachable_pub)]
mod skip;
/// What the next module knows of the tests of daemons.
mod daemon {
    pub(crate) use crate::common::PATIENCE as DEADLINE;
}
#[path = "../../../tests/src/dead_disk.rs"]
#[allow(unreachable_pub, dead_code)]
mod dead_disk;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_facts::fact::Fact;
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::JournalReader;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, accept, end, payload, settings, submit};

/// One test at a time: a program that one of them starts has the lock of the other one's folder until its exec.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_folder_that_another_program_answers_for_is_refused() {
    let _alone = alone();
    let disk = or_skip!(dead_disk::DeadDisk::mount_silent());
    let file = disk.file();
    let folder = file.parent().unwrap();
    let text = OpenJournal::open(settings(folder)).unwrap_err().to_string();
    assert!(text.contains("is on FUSE, which SQLite's log cannot use: choose one on a disk"), "{text}");
    disk.leave();
}

/// A small file system in memory; unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Result<Self, &'static str> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "bulkhead-test"])
            .arg(folder.path());
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if is_mounted { Ok(Self(folder)) } else { Err("no right to mount") }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(umount.is_ok_and(|status| status.success()) || std::thread::panicking(), "cannot unmount");
    }
}

#[test]
fn a_full_disk_refuses_submits_and_keeps_results_until_there_is_room() {
    let _alone = alone();
    let disk = or_skip!(SmallDisk::mount("3m"));
    let folder = disk.0.path().join("state");
    let mut desk = Desk::open(&folder);
    desk.push(accept(1));
    assert_eq!(desk.await_stored(), []);
    let ballast = disk.0.path().join("ballast");
    let file = fs::File::create(&ballast).unwrap();
    drop(std::io::copy(&mut std::io::Read::take(std::io::repeat(7), 64 << 20), &mut &file));
    drop(file);
    let mut job = 2;
    let why = loop {
        let input = payload(&"x".repeat(4000));
        desk.push(Fact::Accepted(Box::new(submit(job, 1000, None, vec![input; 8]))));
        job += 8;
        match desk.answer() {
            JournalAnswer::Degraded { why } => break why,
            JournalAnswer::NotStored { .. } => break desk.await_degraded(),
            JournalAnswer::Stored { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why, "the disk is full");
    let result = desk.push(end(1, Some(1), Outcome::Done, bulkhead_sys::clock::wall_us()));
    fs::remove_file(&ballast).unwrap();
    loop {
        match desk.answer() {
            JournalAnswer::Stored { up_to, .. } if up_to == result => break,
            JournalAnswer::Stored { .. } => {}
            JournalAnswer::NotStored { .. } | JournalAnswer::Degraded { .. } | JournalAnswer::Recovered => {}
            other => panic!("{other:?}"),
        }
    }
    let reader = JournalReader::open(&folder).unwrap();
    assert_eq!(reader.result(JobId(1)).unwrap().unwrap().end.outcome, Outcome::Done);
    assert!(reader.job(JobId(job - 8)).unwrap().is_none(), "the refused submit is not stored");
    drop(reader);
    assert!(desk.close());
    let journal = OpenJournal::open(settings(&folder)).unwrap();
    assert!(journal.before().unwrap().ended_us.is_some());
}
