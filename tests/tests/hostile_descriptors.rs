//! Clients that send descriptors to a daemon that takes none: of every odd kind, in every place, too many of them.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use bulkhead_proto::client::Request;
use bulkhead_proto::frame::Hello;
use bulkhead_sys::memfd;
use bulkhead_sys::odd::{self, ATTACHED_MAX, Manner};
use bulkhead_tests::daemon::{eventually, send_signal};
use bulkhead_tests::raid::{Attack, assert_answers, body, frame, framed, withstand};
use bulkhead_tests::siege::Siege;
use bulkhead_tests::systemd::tell_skipped;
use bulkhead_tests::wire::{Wire, submit};

const O_PATH: i32 = 0o10_000_000;

const PLACES: &[Attack] = &[
    ("with the hello", with_the_hello),
    ("with half a hello", with_half_a_hello),
    ("with every request", with_every_request),
    ("with half a frame", with_half_a_frame),
    ("with the rest of a frame", with_the_rest_of_a_frame),
    ("253 with one byte", |siege| refused(siege, &[null().as_fd(); ATTACHED_MAX], b"x")),
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
    ("a folder", |siege| refuse_all(siege, vec![File::open("/").unwrap().into()])),
    ("a path that is not open", path_only),
    ("sockets of every kind", sockets),
    ("its own connection", own_connection),
    ("an epoll and an io_uring", epoll_and_ring),
    ("the daemon, as a pidfd", daemon_as_pidfd),
    ("memory that shrinks", shrinking_memory),
    ("devices", devices),
    ("the daemon's own files", files_of_the_daemon),
];

#[test]
fn odd_descriptors() {
    withstand(KINDS);
}

const LINGERING: &[Attack] = &[
    ("with the hello", |siege| linger(siege, |wire, odd| attach(wire, &Hello::new(0).to_bytes(), odd))),
    ("with a request", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            attach(wire, &frame(1, Request::Ping), odd);
        });
    }),
    ("with an urgent byte", |siege| {
        linger(siege, |wire, odd| {
            greet(wire);
            drop(odd::send(wire.socket.as_fd(), b"!", &[odd], Manner::Urgent));
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
    let (odd, _reader) = odd::lingering().unwrap();
    let mut wire = siege.connect();
    // Stopped, so that it cannot be through before our descriptor is gone, which would be the last one then and keep us.
    let pid = siege.daemon.pid();
    send_signal(pid, "STOP");
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    eventually("the daemon is stopped", || stat().contains(") T ").then_some(()));
    attach(&wire, b"x", odd.as_fd());
    drop(odd);
    send_signal(pid, "CONT");
    assert!(wire.goodbye().contains("descriptors"));
    assert!(siege.daemon.end("TERM").success());
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

/// It may be cut off before all is sent.
fn attach(wire: &Wire, bytes: &[u8], odd: BorrowedFd<'_>) {
    drop(odd::send(wire.socket.as_fd(), bytes, &[odd], Manner::Plain));
}

fn greet(wire: &mut Wire) {
    wire.send(&Hello::new(0).to_bytes());
    assert_eq!(wire.hello().verdict, Hello::WELCOME);
}

/// Sends these with some bytes and gets a goodbye that says why.
fn refused(siege: &Siege, attached: &[BorrowedFd<'_>], bytes: &[u8]) {
    let mut wire = siege.connect();
    odd::send(wire.socket.as_fd(), bytes, attached, Manner::Plain).unwrap();
    let said = wire.goodbye();
    assert!(said.contains("descriptors"), "{said}");
}

/// The same for each of these, of which the daemon then has the only ones.
fn refuse_all(siege: &Siege, odd: Vec<OwnedFd>) {
    for odd in odd {
        let mut wire = siege.connect();
        attach(&wire, &frame(1, Request::Ping), odd.as_fd());
        drop(odd);
        assert!(wire.goodbye().contains("descriptors"));
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
        Request::Drain { grace_ms: Some(0) },
        Request::Ping,
    ] {
        refused(siege, &[null().as_fd()], &frame(1, request));
    }
}

fn with_half_a_frame(siege: &Siege) {
    let whole = frame(1, Request::Submit(submit("noop", &["abcdef"], true)));
    for end in 1..whole.len() {
        refused(siege, &[null().as_fd()], &whole[..end]);
    }
}

fn with_the_rest_of_a_frame(siege: &Siege) {
    let whole = framed(&body(Request::Ping));
    let mut wire = siege.connect();
    wire.send(&whole[..3]);
    attach(&wire, &whole[3..], null().as_fd());
    assert!(wire.goodbye().contains("descriptors"));
}

fn many_messages(siege: &Siege) {
    let mut wire = siege.connect();
    let null = null();
    for _ in 0..1000 {
        if odd::send(wire.socket.as_fd(), b"x", &[null.as_fd(); 16], Manner::Plain).is_err() {
            break;
        }
    }
    assert!(wire.goodbye().contains("descriptors"));
}

fn urgent(siege: &Siege) {
    let mut wire = siege.connect();
    match odd::send(wire.socket.as_fd(), b"!", &[null().as_fd()], Manner::Urgent) {
        Ok(_) => assert!(wire.goodbye().contains("descriptors")),
        Err(error) => tell_skipped("urgent", &format!("this kernel has no urgent bytes here: {error}")),
    }
}

fn two_urgent(siege: &Siege) {
    let mut wire = siege.connect();
    for _ in 0..2 {
        drop(odd::send(wire.socket.as_fd(), b"!", &[null().as_fd()], Manner::Urgent));
    }
    drop(wire.socket.write_all(&frame(1, Request::Ping)));
    while wire.next_reply().is_some() {}
}

fn after_the_goodbye(siege: &Siege) {
    for _ in 0..50 {
        let mut wire = siege.connect();
        wire.send(&framed(&[0xff]));
        while odd::send(wire.socket.as_fd(), b"x", &[null().as_fd()], Manner::Plain).is_ok() {}
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
    odd::make_fifo(&path).unwrap();
    let both = File::options().read(true).write(true).open(&path).unwrap();
    refuse_all(siege, vec![both.into()]);
    std::fs::remove_file(path).unwrap();
}

fn path_only(siege: &Siege) {
    let open = |path| File::options().read(true).custom_flags(O_PATH).open(path).unwrap().into();
    refuse_all(siege, vec![open("/"), open("/proc/self/exe")]);
}

fn sockets(siege: &Siege) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = siege.daemon.folder().join("other");
    let sockets = vec![
        TcpStream::connect(listener.local_addr().unwrap()).unwrap().into(),
        listener.into(),
        UnixDatagram::unbound().unwrap().into(),
        UnixListener::bind(&unix).unwrap().into(),
        UnixStream::connect(siege.daemon.socket()).unwrap().into(),
    ];
    refuse_all(siege, sockets);
    std::fs::remove_file(unix).unwrap();
}

/// What the daemon gets is the other end of the connection that it gets it on.
fn own_connection(siege: &Siege) {
    for _ in 0..20 {
        let mut wire = siege.connect();
        attach(&wire, &frame(1, Request::Ping), wire.socket.as_fd());
        assert!(wire.goodbye().contains("descriptors"));
        let wire = siege.connect();
        attach(&wire, &frame(1, Request::Ping), wire.socket.as_fd());
    }
}

fn epoll_and_ring(siege: &Siege) {
    refuse_all(siege, vec![odd::epoll().unwrap()]);
    let ring = match odd::io_uring() {
        Ok(ring) => ring,
        Err(error) => return tell_skipped("io_uring", &format!("this machine has none: {error}")),
    };
    let mut wire = siege.connect();
    // Kernels from 6.7 on do not let one be sent.
    match odd::send(wire.socket.as_fd(), b"x", &[ring.as_fd()], Manner::Plain) {
        Ok(_) => assert!(wire.goodbye().contains("descriptors")),
        Err(_) => assert_answers(&mut wire),
    }
}

fn daemon_as_pidfd(siege: &Siege) {
    let daemon = odd::pidfd(siege.daemon.pid()).unwrap();
    refused(siege, &[daemon.as_fd()], &frame(1, Request::Ping));
}

fn shrinking_memory(siege: &Siege) {
    let memory = File::from(memfd::output_file("shrinks").unwrap());
    memory.set_len(1 << 20).unwrap();
    let mut wire = siege.connect();
    attach(&wire, &frame(1, Request::Ping), memory.as_fd());
    memory.set_len(0).unwrap();
    assert!(wire.goodbye().contains("descriptors"));
}

fn devices(siege: &Siege) {
    let open = |path: &&str| File::options().read(true).open(path).map(OwnedFd::from).ok();
    let paths =
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/fuse", "/dev/tty", "/proc/self/mem"];
    refuse_all(siege, paths.iter().filter_map(open).collect());
}

fn files_of_the_daemon(siege: &Siege) {
    let folder = siege.daemon.folder();
    let open = |name: &str| File::open(folder.join(name)).unwrap().into();
    refuse_all(siege, vec![open("log"), open("state"), open("s.lock")]);
}

/// Sends a connection that lingers as `how` says, keeps no other descriptor of it, and looks whether it has been
/// closed where that may wait: the daemon serves on (the neighbour's word), and everything is over with the reader.
fn linger(siege: &Siege, how: fn(&mut Wire, BorrowedFd<'_>)) {
    let (odd, mut reader) = odd::lingering().unwrap();
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
