//! Tests of a task's files, against real ones of every sort.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use bulkhead_proto::file::FileUse;

use super::*;

fn named(name: &str, way: Way, file: impl Into<OwnedFd>) -> (FileRole, OwnedFd) {
    (FileRole::Named(FileUse::new(name, way)), file.into())
}

/// A file of these bytes as `in`, and another hold on it.
fn input(bytes: &[u8]) -> (TaskFiles, File) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let kept = file.try_clone().unwrap();
    (TaskFiles::new(vec![named("in", Way::In, file)], OutputRoom::LARGEST), kept)
}

/// Makes sure that a change gets another time than what was before: the kernel's clock ticks every few milliseconds.
fn change(file: &File, change: impl Fn(&File)) {
    let before = file.metadata().unwrap().modified().unwrap();
    loop {
        change(file);
        if file.metadata().unwrap().modified().unwrap() != before {
            return;
        }
    }
}

#[test]
fn what_is_no_file_is_named_with_what_to_do() {
    let (pipe, _writer) = std::io::pipe().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cases: [(OwnedFd, &str); 4] = [
        (pipe.into(), "file \"in\" is a pipe, which cannot be read at a position; copy"),
        (socket.into(), "file \"in\" is a socket, which cannot be read at a position; copy"),
        (File::open(folder.path()).unwrap().into(), "file \"in\" is a directory: give a regular file"),
        (
            File::open("/dev/zero").unwrap().into(),
            "file \"in\" is a device, which cannot be read at a position: give",
        ),
    ];
    for (descriptor, text) in cases {
        let files = TaskFiles::new(vec![named("in", Way::In, descriptor)], OutputRoom::LARGEST);
        assert_eq!(files.all().len(), 1, "it can still be handed on");
        let failure = files.named("in").unwrap_err().to_string();
        assert!(failure.starts_with(text), "{failure}");
        assert!(files.seen().is_empty() && files.fault().is_none());
    }
}

#[test]
fn a_file_that_did_not_come_is_named_with_those_that_did() {
    let (files, _kept) = input(b"x");
    let failure = files.named("inn").unwrap_err().to_string();
    assert_eq!(failure, "the job comes without a file \"inn\", only \"in\": give it one");
    assert!(TaskFiles::default().named("in").unwrap_err().to_string().ends_with("\"in\": give it one"));
}

#[test]
fn a_file_is_read_by_position_and_its_end_is_told_by_its_place() {
    let (files, _kept) = input(b"0123456789");
    let file = files.named("in").unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 3).unwrap();
    assert_eq!((&bytes, file.length(), file.way()), (b"3456", 10, Way::In));
    let failure = TaskFailure::from(file.read_exact_at(&mut bytes, 8).unwrap_err()).to_string();
    assert_eq!(failure, "file \"in\" ends at byte 10, 2 bytes early");
    let failure = TaskFailure::from(file.write_all_at(b"x", 0).unwrap_err()).to_string();
    assert_eq!(failure, "file \"in\" cannot be written: it is one that the job reads");
}

#[test]
fn a_change_while_it_is_read_is_noticed_and_one_before_is_not() {
    let (files, kept) = input(b"0123456789");
    change(&kept, |file| file.write_all_at(b"x", 0).unwrap());
    files.named("in").unwrap();
    assert_eq!(files.fault(), None);
    change(&kept, |file| file.write_all_at(b"y", 0).unwrap());
    let fault = files.fault().unwrap().to_string();
    assert!(fault.starts_with("file \"in\" changed while it was read, it has the same length"), "{fault}");

    let (files, kept) = input(b"0123456789");
    files.named("in").unwrap();
    kept.set_len(4).unwrap();
    let fault = files.fault().unwrap().to_string();
    assert!(fault.contains("changed while it was read, it had 10 bytes and has 4: run it again"), "{fault}");
}

#[test]
fn a_file_that_loses_its_name_or_rights_has_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip");
    std::fs::write(&path, b"0123456789").unwrap();
    let files = TaskFiles::new(vec![named("in", Way::In, File::open(&path).unwrap())], OutputRoom::LARGEST);
    files.named("in").unwrap();
    let changed = || std::fs::metadata(&path).map(|stat| (stat.ctime(), stat.ctime_nsec())).unwrap();
    let before = changed();
    while changed() == before {
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(files.fault(), None);
}

#[test]
fn a_file_that_nobody_asked_for_may_change() {
    let (files, kept) = input(b"0123456789");
    kept.set_len(4).unwrap();
    assert_eq!(files.fault(), None);
}

#[test]
fn later_tasks_hold_a_file_to_what_the_plan_saw() {
    let (files, kept) = input(b"0123456789");
    let seen = files.seen();
    assert_eq!((seen.len(), seen[0].length), (1, 10));
    let again = TaskFiles::new(vec![named("in", Way::In, kept.try_clone().unwrap())], OutputRoom::LARGEST);
    assert_eq!(again.expect(&seen), Ok(()));
    kept.set_len(11).unwrap();
    let later = TaskFiles::new(vec![named("in", Way::In, kept)], OutputRoom::LARGEST);
    let fault = later.expect(&seen).unwrap_err().to_string();
    assert!(fault.contains("it had 10 bytes and has 11"), "{fault}");
}

#[test]
fn an_output_that_is_open_for_appending_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::options().create(true).append(true).open(folder.path().join("out")).unwrap();
    let files = TaskFiles::new(vec![named(OUT, Way::Out, file)], OutputRoom::LARGEST);
    let failure = files.in_place(Stage::Merge { parts: 1 }).unwrap_err().to_string();
    assert!(failure.contains("\"out\" is open for appending"), "{failure}");
}
