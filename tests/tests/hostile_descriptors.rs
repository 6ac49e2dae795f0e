//! Clients that send descriptors as nobody honest does: of every odd kind, in every place, too many of them.
//!
//! The daemon takes what belongs to a submit that names it, and whatever it takes it gives back to the kernel where
//! nobody waits for that. Each attack runs beside a neighbour; afterwards all descriptors and threads are gone.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use bulkhead_proto::client::frame::Hello;
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_sys::hostile_peer::{self, ATTACHED_MAX, SendMode};
use bulkhead_sys::memfd;
use bulkhead_tests::daemon::{eventually, send_signal};
use bulkhead_tests::raid::{Attack, assert_answers, body, frame, framed, withstand};
use bulkhead_tests::siege::Siege;
use bulkhead_tests::skip;
use bulkhead_tests::wire::{Wire, submit};

const O_PATH: i32 = 0o10_000_000;

const PLACES: &[Attack] = &[
    ("with the hello", with_the_hello),
    ("with half a hello", with_half_a_hello),
    ("with a request that names none", with_every_request),
    ("with half a frame", with_half_a_frame),
    ("with the rest of a frame", with_the_rest_of_a_frame),
    ("fewer than named", fewer_than_named),
    ("more than named", more_than_named),
    ("for one that is refused", for_one_that_is_refused),
    ("253 with one byte", |siege| turned_out(siege, &[null().as_fd(); ATTACHED_MAX], b"x", "at most 8 may")),
    ("16 with each of 1000 messages", many_messages),
    ("with an urgent byte", urgent),
    ("with an urgent byte that another one follows", two_urgent),
    ("after the goodbye", after_the_goodbye),
    ("from one who is not let speak yet, and then an end", left_behind),
];

#[test]
fn descriptors_in_the_wrong_place() {
    withstand(PLACES);
}

const KINDS: &[Attack] = &[
    ("a named pipe", named_pipe),
    ("a folder", |siege| carry_all(siege, vec![File::open("/").unwrap().into()])),
    ("a path that is not open", path_only),
    ("sockets of every kind", sockets),
    ("its own connection", own_connection),
    ("an epoll and an io_uring", epoll_and_ring),
    ("the daemon, as a pidfd", daemon_as_pidfd),
    ("memory that shrinks", shrinking_memory),
    ("more memory than there is", sparse_memory),
    ("devices", devices),
    ("the daemon's own files", files_of_the_daemon),
];

#[test]
fn odd_descriptors() {
    withstand(KINDS);
}

const LINGERING: &[Attack] = &[
    ("with the hello", |siege| linger(siege, |wire, odd| attach(wire, &Hello::new(0).to_bytes(), odd))),
    ("with a request that names none", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            attach(wire, &frame(1, Request::Ping), odd);
        });
    }),
    ("with a job", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            attach(wire, &with_files(&[Way::In]), odd);
            assert!(matches!(outcome(wire), Ok(Outcome::Done)));
            wire.send(&framed(&[0xff]));
        });
    }),
    ("with a job that is refused", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            attach(wire, &with_files(&[Way::Out, Way::In]), odd);
        });
    }),
    ("with an urgent byte", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            drop(hostile_peer::send(wire.socket.as_fd(), b"!", &[odd; 9], SendMode::Urgent));
        });
    }),
    ("behind a malformed frame", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            wire.send(&framed(&[0xff]));
            attach(wire, b"x", odd);
        });
    }),
    ("behind what is no hello", |siege| {
        linger(siege, |wire, odd| {
            wire.send(&[0; 16]);
            attach(wire, b"x", odd);
        });
    }),
];

/// The last close of such a descriptor waits for an hour, wherever it happens: here it must hold up nobody.
#[test]
fn connections_that_linger() {
    withstand(LINGERING);
}

/// The daemon leaves although a descriptor of a client's would keep it for an hour.
#[test]
fn a_daemon_with_a_lingering_descriptor_can_stop() {
    let mut siege = Siege::by_clients();
    let (odd, _reader) = hostile_peer::lingering().unwrap();
    let mut wire = siege.connect();
    // Stopped, so that it cannot be through before our descriptor is gone, which would be the last one then and keep us.
    let pid = siege.daemon.pid();
    send_signal(pid, "STOP");
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    eventually("the daemon is stopped", || stat().contains(") T ").then_some(()));
    attach(&wire, &with_files(&[Way::In]), odd.as_fd());
    drop(odd);
    send_signal(pid, "CONT");
    assert!(matches!(outcome(&mut wire), Ok(Outcome::Done)));
    assert!(siege.daemon.end("TERM").success());
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// It may be cut off before all is sent.
fn attach(wire: &Wire, bytes: &[u8], odd: BorrowedFd<'_>) {
    drop(hostile_peer::send(wire.socket.as_fd(), bytes, &[odd], SendMode::Plain));
}

fn greet(wire: &mut Wire) {
    wire.send(&Hello::new(0).to_bytes());
    assert_eq!(wire.hello().verdict, Hello::WELCOME);
}

/// The submit of a job that reads none of its files.
fn naming(ways: &[Way]) -> Submit {
    let file = |(place, way): (usize, &Way)| FileUse::new(&format!("file{place}"), *way);
    let files = ways.iter().enumerate().map(file).collect();
    Submit { files, ..submit("noop", &["x"], true) }
}

fn with_files(ways: &[Way]) -> Vec<u8> {
    frame(1, Request::Submit(naming(ways)))
}

/// How the one job of this connection ended, or why it was refused.
fn outcome(wire: &mut Wire) -> Result<Outcome, String> {
    loop {
        match wire.next_reply().map(|frame| frame.reply) {
            Some(Reply::Accepted { refused: None, .. }) => {}
            Some(Reply::Ended(ended)) => return Ok(ended[0].outcome.clone()),
            Some(Reply::Refused(why)) => return Err(why.to_string()),
            other => panic!("unexpected reply: {other:?}"),
        }
    }
}

/// The reason of the goodbye that comes after whatever was asked before.
fn reason(wire: &mut Wire) -> String {
    loop {
        match wire.next_reply() {
            Some(ReplyFrame { reply: Reply::Goodbye(why), .. }) => {
                assert!(wire.next_reply().is_none(), "the connection ends after a goodbye");
                return why.to_string();
            }
            Some(_) => {}
            None => panic!("it ended without a goodbye"),
        }
    }
}

/// Sends these with some bytes and gets a goodbye that says why.
fn turned_out(siege: &Siege, attached: &[BorrowedFd<'_>], bytes: &[u8], why: &str) {
    let mut wire = siege.connect();
    hostile_peer::send(wire.socket.as_fd(), bytes, attached, SendMode::Plain).unwrap();
    let said = reason(&mut wire);
    assert!(said.contains(why), "{said}");
}

/// Each of these comes with a job that does not look at it, is carried, and is closed with it: the daemon has the only
/// one then.
fn carry_all(siege: &Siege, odd: Vec<OwnedFd>) {
    for odd in odd {
        let mut wire = siege.connect();
        attach(&wire, &with_files(&[Way::In]), odd.as_fd());
        drop(odd);
        let ended = outcome(&mut wire);
        assert!(matches!(ended, Ok(Outcome::Done)), "{ended:?}");
        assert_answers(&mut wire);
    }
}

fn with_the_hello(siege: &Siege) {
    let mut wire = Wire::silent(&siege.daemon.socket());
    attach(&wire, &Hello::new(0).to_bytes(), null().as_fd());
    assert_eq!(wire.hello().verdict, Hello::WRONG_VERSION);
    assert!(wire.next_reply().is_none());
}

fn with_half_a_hello(siege: &Siege) {
    let mut wire = Wire::silent(&siege.daemon.socket());
    let hello = Hello::new(0).to_bytes();
    wire.send(&hello[..5]);
    attach(&wire, &hello[5..9], null().as_fd());
    assert_eq!(wire.hello().verdict, Hello::WRONG_VERSION);
    assert!(wire.next_reply().is_none());
}

fn with_every_request(siege: &Siege) {
    for request in [
        Request::Submit(submit("noop", &["x"], true)),
        Request::Wait { jobs: Vec::new() },
        Request::Cancel { jobs: Vec::new() },
        Request::Workers,
        Request::Status,
        Request::Kinds,
        Request::Events { after: 0, follow: true },
        Request::Ping,
    ] {
        turned_out(siege, &[null().as_fd()], &frame(1, request), "1 descriptors came that no submit names");
    }
}

/// They wait with it, as long as the connection lives.
fn with_half_a_frame(siege: &Siege) {
    let whole = with_files(&[Way::In]);
    let mut halves = Vec::new();
    for end in 1..whole.len() {
        let mut wire = siege.connect();
        attach(&wire, &whole[..end], null().as_fd());
        if end % 2 == 0 {
            wire.send(&whole[end..]);
            assert!(matches!(outcome(&mut wire), Ok(Outcome::Done)), "cut at {end}");
        }
        halves.push(wire);
    }
}

fn with_the_rest_of_a_frame(siege: &Siege) {
    let whole = with_files(&[Way::In]);
    let mut wire = siege.connect();
    wire.send(&whole[..3]);
    attach(&wire, &whole[3..], null().as_fd());
    assert!(matches!(outcome(&mut wire), Ok(Outcome::Done)));
    wire.send(&framed(&body(Request::Ping))[..3]);
    attach(&wire, &framed(&body(Request::Ping))[3..], null().as_fd());
    assert!(reason(&mut wire).contains("no submit names"));
}

fn fewer_than_named(siege: &Siege) {
    let null = null();
    for came in 0..3 {
        let attached = vec![null.as_fd(); came];
        let why = format!("names 3 files, and {came} descriptors came");
        turned_out(siege, &attached, &with_files(&[Way::In; 3]), &why);
    }
}

fn more_than_named(siege: &Siege) {
    let null = null();
    for came in [3, 9, ATTACHED_MAX] {
        let why = format!("{} descriptors came that no submit names", came - 2);
        turned_out(siege, &vec![null.as_fd(); came], &with_files(&[Way::In; 2]), &why);
    }
}

/// They are gone with the refusal, and the connection goes on.
fn for_one_that_is_refused(siege: &Siege) {
    let readable = null();
    let appending = File::options().append(true).open("/dev/null").unwrap();
    let twice = Submit { inputs: submit("noop", &["x", "y"], true).inputs, ..naming(&[Way::In]) };
    let unnamed = Submit { files: vec![FileUse::new("a/b", Way::In)], ..naming(&[]) };
    let unknown = Submit { kind: "nothing".to_owned(), ..naming(&[Way::In]) };
    let mut wire = siege.connect();
    for (submit, file, why) in [
        (naming(&[Way::Out]), &readable, "\"file0\" was not opened for writing"),
        (naming(&[Way::Out]), &appending, "\"file0\" was opened for appending"),
        (naming(&[Way::In]), &appending, "\"file0\" was not opened for reading"),
        (twice, &readable, "2 inputs"),
        (unnamed, &readable, "cannot name a file"),
        (unknown, &readable, "nothing"),
    ] {
        attach(&wire, &frame(1, Request::Submit(submit)), file.as_fd());
        let said = outcome(&mut wire).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    assert_answers(&mut wire);
}

fn many_messages(siege: &Siege) {
    let mut wire = siege.connect();
    let null = null();
    for _ in 0..1000 {
        if hostile_peer::send(wire.socket.as_fd(), b"x", &[null.as_fd(); 16], SendMode::Plain).is_err() {
            break;
        }
    }
    assert!(reason(&mut wire).contains("at most 8 may"));
}

/// It is the last byte of a frame: what is attached to it is the frame's.
fn urgent(siege: &Siege) {
    let mut wire = siege.connect();
    let whole = with_files(&[Way::In]);
    match hostile_peer::send(wire.socket.as_fd(), &whole, &[null().as_fd()], SendMode::Urgent) {
        Ok(_) => assert!(matches!(outcome(&mut wire), Ok(Outcome::Done))),
        Err(error) => skip!("this kernel has no urgent bytes here: {error}"),
    }
}

fn two_urgent(siege: &Siege) {
    let mut wire = siege.connect();
    for _ in 0..2 {
        drop(hostile_peer::send(wire.socket.as_fd(), b"!", &[null().as_fd()], SendMode::Urgent));
    }
    drop(wire.socket.write_all(&frame(1, Request::Ping)));
    drop(wire.socket.shutdown(Shutdown::Write));
    while wire.next_reply().is_some() {}
}

fn after_the_goodbye(siege: &Siege) {
    for _ in 0..50 {
        let mut wire = siege.connect();
        wire.send(&framed(&[0xff]));
        while hostile_peer::send(wire.socket.as_fd(), b"x", &[null().as_fd()], SendMode::Plain).is_ok() {}
        while wire.next_reply().is_some() {}
    }
}

fn left_behind(siege: &Siege) {
    for _ in 0..100 {
        let wire = Wire::silent(&siege.daemon.socket());
        attach(&wire, b"x", null().as_fd());
    }
}

fn named_pipe(siege: &Siege) {
    let path = siege.daemon.folder().join("fifo");
    hostile_peer::make_fifo(&path).unwrap();
    let both = File::options().read(true).write(true).open(&path).unwrap();
    carry_all(siege, vec![both.into()]);
    std::fs::remove_file(path).unwrap();
}

fn path_only(siege: &Siege) {
    for path in ["/", "/proc/self/exe"] {
        let named = File::options().read(true).custom_flags(O_PATH).open(path).unwrap();
        let mut wire = siege.connect();
        attach(&wire, &with_files(&[Way::In]), named.as_fd());
        assert!(outcome(&mut wire).unwrap_err().contains("not opened for reading"));
    }
}

fn sockets(siege: &Siege) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = siege.daemon.folder().join("other");
    let sockets = vec![
        TcpStream::connect(listener.local_addr().unwrap()).unwrap().into(),
        listener.into(),
        UnixDatagram::unbound().unwrap().into(),
        hostile_peer::sequential().unwrap(),
        UnixListener::bind(&unix).unwrap().into(),
        UnixStream::connect(siege.daemon.socket()).unwrap().into(),
    ];
    carry_all(siege, sockets);
    std::fs::remove_file(unix).unwrap();
}

/// What the daemon gets is the other end of the connection that it gets it on: as long as its job runs, no end of it is
/// seen.
fn own_connection(siege: &Siege) {
    for _ in 0..20 {
        let mut wire = siege.connect();
        attach(&wire, &with_files(&[Way::In]), wire.socket.as_fd());
        assert!(matches!(outcome(&mut wire), Ok(Outcome::Done)));
        let wire = siege.connect();
        attach(&wire, &with_files(&[Way::In]), wire.socket.as_fd());
    }
}

fn epoll_and_ring(siege: &Siege) {
    carry_all(siege, vec![hostile_peer::epoll().unwrap()]);
    let ring = match hostile_peer::io_uring() {
        Ok(ring) => ring,
        Err(error) => skip!("this machine has no io_uring: {error}"),
    };
    let mut wire = siege.connect();
    // Kernels from 6.7 on do not let one be sent.
    match hostile_peer::send(wire.socket.as_fd(), &with_files(&[Way::In]), &[ring.as_fd()], SendMode::Plain) {
        Ok(_) => assert!(matches!(outcome(&mut wire), Ok(Outcome::Done))),
        Err(_) => assert_answers(&mut wire),
    }
}

fn daemon_as_pidfd(siege: &Siege) {
    carry_all(siege, vec![hostile_peer::pidfd(siege.daemon.pid()).unwrap()]);
}

/// Its size changes while it is counted, carried and closed.
fn shrinking_memory(siege: &Siege) {
    let memory = File::from(memfd::output_file("shrinks").unwrap());
    for _ in 0..20 {
        memory.set_len(1 << 20).unwrap();
        let mut wire = siege.connect();
        attach(&wire, &with_files(&[Way::In]), memory.as_fd());
        memory.set_len(0).unwrap();
        assert!(matches!(outcome(&mut wire), Ok(Outcome::Done)));
    }
}

/// It is not there, but it could be filled while it is held: it counts as long as it says.
fn sparse_memory(siege: &Siege) {
    let memory = File::from(memfd::output_file("sparse").unwrap());
    memory.set_len(1 << 50).unwrap();
    let mut wire = siege.connect();
    attach(&wire, &with_files(&[Way::In]), memory.as_fd());
    let why = outcome(&mut wire).unwrap_err();
    assert!(why.contains("bytes of memory in files"), "{why}");
    assert_answers(&mut wire);
}

fn devices(siege: &Siege) {
    let open = |path: &&str| File::options().read(true).open(path).map(OwnedFd::from).ok();
    let paths =
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/fuse", "/dev/tty", "/proc/self/mem"];
    carry_all(siege, paths.iter().filter_map(open).collect());
}

fn files_of_the_daemon(siege: &Siege) {
    let folder = siege.daemon.folder();
    let open = |name: &str| File::open(folder.join(name)).unwrap().into();
    carry_all(siege, vec![open("log"), open("state"), open("s.lock")]);
}

/// Sends a connection that lingers as `how` says, keeps no other descriptor of it, and looks whether it has been
/// closed where that may wait: the daemon serves on (the neighbour's word), and everything is over with the reader.
fn linger(siege: &Siege, how: fn(&mut Wire, BorrowedFd<'_>)) {
    let (odd, mut reader) = hostile_peer::lingering().unwrap();
    let mut wire = Wire::silent(&siege.daemon.socket());
    how(&mut wire, odd.as_fd());
    // The daemon may be through with its own by now: then this is the last close, and waits for the reader.
    let ours = std::thread::spawn(move || drop(odd));
    // It may be told why, or be cut off in the middle of what it sends.
    let mut rest = Vec::new();
    drop(wire.socket.read_to_end(&mut rest));
    assert_answers(&mut siege.connect());
    // What it sent can still be read, up to the end that the close put there.
    let mut all = vec![0; 1 << 20];
    while reader.read(&mut all).is_ok_and(|count| count > 0) {}
    ours.join().unwrap();
}
