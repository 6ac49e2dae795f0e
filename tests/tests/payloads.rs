//! Jobs with files, end to end: what is read is what the client has, whatever file it is and whatever dies meanwhile,
//! and no descriptor of it stays with anybody.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::file::{FileUse, IN, OUT, Way};
use bulkhead_proto::ids::JobId;
use bulkhead_sys::{hostile_peer, memfd};
use bulkhead_tests::daemon::{DEADLINE, Daemon, eventually, send_signal};
use bulkhead_tests::payload::{COPY, ENDS, Gate, PAUSE, SUM, daemon, end, failure, result, submit, sum_of};
use bulkhead_tests::siege::Belongings;
use bulkhead_tests::skip;
use bulkhead_tests::wire::Wire;
use tempfile::TempDir;

fn named<'a>(name: &str, way: Way, file: &'a impl AsFd) -> (FileUse, BorrowedFd<'a>) {
    (FileUse::new(name, way), file.as_fd())
}

fn input(file: &impl AsFd) -> (FileUse, BorrowedFd<'_>) {
    named(IN, Way::In, file)
}

/// Bytes that are the same nowhere.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 31 + place / 251) as u8).collect()
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn deed(gate: &Gate) -> String {
    format!("{PAUSE}{}", gate.path().display())
}

/// Waits for the end of a stream whose other end was attached to a job: nobody has that any more.
fn assert_let_go(mut watched: &UnixStream) {
    watched.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut rest = Vec::new();
    watched.read_to_end(&mut rest).expect("somebody has the attached descriptor still");
    assert_eq!(rest, b"");
}

#[test]
fn what_is_read_is_what_the_client_has() {
    let daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let bytes = pattern(1_000_003);
    let sealed = memfd::filled("sealed", &bytes).unwrap();
    for (file, holds) in
        [(file_of(&bytes), &bytes[..]), (File::from(sealed), &bytes[..]), (file_of(b""), &b""[..])]
    {
        submit(&mut wire, SUM, &[input(&file)]);
        assert_eq!(String::from_utf8_lossy(result(&end(&mut wire))), sum_of(holds));
    }
    let (from, to) = (file_of(&bytes), file_of(b""));
    submit(&mut wire, COPY, &[input(&from), named(OUT, Way::Out, &to)]);
    result(&end(&mut wire));
    let mut copied = vec![0; bytes.len()];
    to.read_exact_at(&mut copied, 0).unwrap();
    assert!(copied == bytes && to.metadata().unwrap().len() == bytes.len() as u64);
}

#[test]
fn a_sparse_file_of_64_gib_costs_what_is_read_of_it() {
    let daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let sparse = file_of(b"the head");
    sparse.set_len(64 << 30).unwrap();
    sparse.write_all_at(b"the tail", (64 << 30) - 8).unwrap();
    submit(&mut wire, ENDS, &[input(&sparse)]);
    assert_eq!(result(&end(&mut wire)), b"the headthe tail");
}

#[test]
fn what_is_no_regular_file_is_named_by_the_task() {
    let daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let null = File::open("/dev/null").unwrap();
    let folder = File::open("/").unwrap();
    let (pipe, _other) = UnixStream::pair().unwrap();
    for (file, kind) in [(null.as_fd(), "device"), (folder.as_fd(), "directory"), (pipe.as_fd(), "socket")] {
        submit(&mut wire, SUM, &[(FileUse::new(IN, Way::In), file)]);
        let ended = end(&mut wire);
        let said = failure(&ended);
        assert!(said.contains("file \"in\"") && said.contains(kind), "{said}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_fails_the_job() {
    let daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let changes: [fn(&File); 3] = [
        |file| file.set_len(100_000).unwrap(),
        |file| file.write_all_at(b"new", 10).unwrap(),
        |file| file.set_len(2_000_000).unwrap(),
    ];
    for change in changes {
        let (file, gate) = (file_of(&pattern(1_000_000)), Gate::new());
        submit(&mut wire, &deed(&gate), &[input(&file)]);
        gate.worker();
        change(&file);
        gate.open();
        let ended = end(&mut wire);
        assert!(failure(&ended).contains("changed while it was read"), "{}", failure(&ended));
    }
    let died = daemon.ok(&["deaths"]);
    assert!(!died.contains("SIGBUS"), "{died}");
}

/// A small disk that is unmounted in the end.
struct Disk(TempDir);

impl Disk {
    fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|done| done.status.success()).then(|| Self(folder))
    }

    fn file(&self) -> File {
        let path = self.0.path().join("out");
        File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0.path()).output());
    }
}

#[test]
fn an_output_on_a_full_disk_fails_the_job_that_writes_it() {
    let Some(disk) = Disk::mount("size=256k") else { skip!("no right to mount a small disk") };
    let daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let (from, to) = (file_of(&pattern(1_000_000)), disk.file());
    submit(&mut wire, COPY, &[input(&from), named(OUT, Way::Out, &to)]);
    let ended = end(&mut wire);
    let said = failure(&ended);
    assert!(said.contains("\"out\"") && said.contains("space"), "{said}");
    let kept = to.metadata().unwrap().len();
    assert!(kept <= 256 << 10, "what was written before is there: {kept}");
    submit(&mut wire, SUM, &[input(&from)]);
    result(&end(&mut wire));
}

#[test]
fn a_killed_worker_costs_a_retry_that_reads_the_same() {
    let daemon = daemon();
    let mut wire = Wire::connect(&daemon.socket());
    let (bytes, gate) = (pattern(500_000), Gate::new());
    let (file, (watched, attached)) = (file_of(&bytes), UnixStream::pair().unwrap());
    let job = submit(&mut wire, &deed(&gate), &[input(&file), named("tail", Way::Out, &attached)]);
    drop((file, attached));
    send_signal(gate.worker(), "KILL");
    assert_eq!(String::from_utf8_lossy(result(&end(&mut wire))), sum_of(&bytes));
    assert_let_go(&watched);
    let attempts = daemon.ok(&["events", "--json"]);
    assert!(attempts.contains("SIGKILL") || attempts.contains("\"signal\":9"), "job {job}: {attempts}");
}

#[test]
fn a_client_that_is_gone_leaves_nothing_once_its_job_has_ended() {
    let daemon = daemon();
    let before = settled(&daemon);
    let (watched, attached) = UnixStream::pair().unwrap();
    let gate = Gate::new();
    let mut wire = Wire::connect(&daemon.socket());
    let file = file_of(&pattern(500_000));
    let job = submit(&mut wire, &deed(&gate), &[input(&file), named("tail", Way::Out, &attached)]);
    drop((wire, attached, file));
    gate.worker();
    cancel(&daemon, job);
    assert_let_go(&watched);
    eventually("the daemon has what it had before", || (settled(&daemon) == before).then_some(()));
}

#[test]
fn a_killed_supervisor_leaves_no_descriptor_with_anybody() {
    let mut daemon = daemon();
    let (watched, attached) = UnixStream::pair().unwrap();
    let gate = Gate::new();
    let mut wire = Wire::connect(&daemon.socket());
    let file = file_of(&pattern(500_000));
    for deed in [deed(&gate), SUM.to_owned()] {
        submit(&mut wire, &deed, &[input(&file), named("tail", Way::Out, &attached)]);
    }
    drop(attached);
    gate.worker();
    daemon.end("KILL");
    assert_let_go(&watched);
}

/// Files wait with their jobs; what is above the budget is told to try again, and finds room when they have ended.
#[test]
fn files_above_the_budget_are_busy_until_jobs_end() {
    let config =
        format!("worker_program = {:?}\nfiles_max = 9\n", bulkhead_tests::daemon::binary("payload-worker"));
    let setup = bulkhead_tests::daemon::Setup { config, ..Default::default() };
    let daemon = Daemon::start_with(&setup);
    let mut wire = Wire::connect(&daemon.socket());
    let (file, gate) = (file_of(&pattern(500_000)), Gate::new());
    let extra: Vec<_> = (0..5).map(|place| named_place(place, &file)).collect();
    let held: Vec<_> = [input(&file)].into_iter().chain(extra).collect();
    submit(&mut wire, &deed(&gate), &held);
    gate.worker();
    let mut other = Wire::connect(&daemon.socket());
    let refused = refusal(&mut other, &file);
    assert!(refused.contains("files that come with jobs"), "{refused}");
    gate.open();
    result(&end(&mut wire));
    submit(&mut other, SUM, &[input(&file)]);
    result(&end(&mut other));
}

fn named_place(place: usize, file: &File) -> (FileUse, BorrowedFd<'_>) {
    named(&format!("file{place}"), Way::In, file)
}

/// Why a submit with four files is refused.
fn refusal(wire: &mut Wire, file: &File) -> String {
    let one = bulkhead_tests::wire::submit("noop", &[SUM], true);
    let files = ["a", "b", "c", IN].map(|name| FileUse::new(name, Way::In)).to_vec();
    let submit = bulkhead_proto::client::message::Submit { files, ..one };
    let bytes = bulkhead_tests::raid::frame(1, Request::Submit(submit));
    hostile_peer::send(wire.socket.as_fd(), &bytes, &[file.as_fd(); 4], hostile_peer::SendMode::Plain)
        .unwrap();
    match wire.next_reply().unwrap().reply {
        Reply::Refused(why) | Reply::Accepted { refused: Some(why), .. } => why.to_string(),
        other => panic!("it was not refused: {other:?}"),
    }
}

fn cancel(daemon: &Daemon, job: JobId) {
    let mut wire = Wire::connect(&daemon.socket());
    let reply = wire.call(Request::Cancel { jobs: vec![job] });
    assert!(matches!(reply, Reply::Changed { count: 1, .. }), "{reply:?}");
}

/// What the daemon has when its pool is calm.
fn settled(daemon: &Daemon) -> Belongings {
    eventually("the pool is calm", || {
        let first = Belongings::of(daemon);
        let calm = daemon.workers().len() == 3 && first == Belongings::of(daemon);
        calm.then_some(first)
    })
}
