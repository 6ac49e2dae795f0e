//! Tests: attached descriptors are seen and never closed by a read; a close that can block is reported.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::hostile_peer::lingering;
use crate::socket::send_with_fd;
use crate::testing::{PATIENCE, nobody_spawns};

/// Both ends; ours is non-blocking with SO_OOBINLINE.
fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    set_inline_oob(ours.as_fd()).unwrap();
    (ours, theirs)
}

fn read_some(socket: &UnixStream) -> SocketRead {
    read(socket.as_fd(), &mut [0; 64]).unwrap()
}

#[test]
fn bytes_come_and_what_is_attached_stays() {
    let _last_closes = nobody_spawns();
    let (ours, mut theirs) = pair();
    assert_eq!(read(ours.as_fd(), &mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    theirs.write_all(b"plain").unwrap();
    theirs.write_all(b"more").unwrap();
    let mut buffer = [0; 64];
    assert_eq!(read(ours.as_fd(), &mut buffer).unwrap(), SocketRead::Bytes(9));
    assert_eq!(&buffer[..9], b"plainmore");
    let (kept, sent) = UnixStream::pair().unwrap();
    send_with_fd(theirs.as_fd(), b"attached", Some(sent.as_fd())).unwrap();
    drop(sent);
    theirs.write_all(b"after").unwrap();
    for _ in 0..3 {
        assert_eq!(read_some(&ours), SocketRead::Attached);
    }
    (&kept).write_all(b"it is open still").unwrap();
    assert!(!hang_up(ours.as_fd(), &mut [0; 64]));
    theirs.write_all(b"x").unwrap_err();
    (&kept).write_all(b"it is open still").unwrap();
    drop(ours);
    assert_eq!((&kept).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn all_that_a_message_can_have_is_received_and_its_bytes_with_it() {
    let _last_closes = nobody_spawns();
    let (ours, mut theirs) = pair();
    let (kept, sent) = UnixStream::pair().unwrap();
    theirs.write_all(b"before").unwrap();
    crate::hostile_peer::send(
        theirs.as_fd(),
        b"attached",
        &[sent.as_fd(); ATTACHED_MAX],
        crate::hostile_peer::SendMode::Plain,
    )
    .unwrap();
    drop(sent);
    theirs.write_all(b"after").unwrap();
    let (mut buffer, mut into) = ([0; 64], Vec::new());
    assert_eq!(read_some(&ours), SocketRead::Attached);
    assert_eq!(receive(ours.as_fd(), &mut buffer, &mut into).unwrap(), 14);
    assert_eq!((&buffer[..14], into.len()), (&b"beforeattached"[..], ATTACHED_MAX));
    assert_eq!(read_some(&ours), SocketRead::Bytes(5), "what follows is read as ever");
    into.truncate(1);
    (&kept).write_all(b"it is open still").unwrap();
    drop(into);
    assert_eq!((&kept).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(hang_up(ours.as_fd(), &mut buffer), "nothing is left in it");
}

#[test]
fn what_looks_forgotten_and_is_a_strangers_is_left_alone() {
    crate::testing::in_child(
        "untrusted::tests::what_looks_forgotten_and_is_a_strangers_is_left_alone",
        || {
            let (ours, theirs) = pair();
            let socket = crate::hostile_peer::sequential().unwrap();
            send_with_fd(theirs.as_fd(), b"x", Some(socket.as_fd())).unwrap();
            drop(socket);
            let mut into = Vec::new();
            receive(ours.as_fd(), &mut [0; 8], &mut into).unwrap();
            assert_eq!(crate::descriptors::close_orphans().unwrap(), 0);
            assert!(into[0].access().unwrap().read, "it was closed behind its owner's back");
            drop(into);
            let _forgotten = std::os::fd::IntoRawFd::into_raw_fd(crate::hostile_peer::sequential().unwrap());
            assert_eq!(crate::descriptors::close_orphans().unwrap(), 1, "its number is free again");
        },
    );
}

#[test]
fn what_is_attached_to_urgent_bytes_is_seen_too() {
    let _last_closes = nobody_spawns();
    let (ours, theirs) = pair();
    let (kept, sent) = UnixStream::pair().unwrap();
    message::send(theirs.as_fd(), b"!", &[sent.as_fd()], libc::MSG_OOB).unwrap();
    drop(sent);
    send_with_fd(theirs.as_fd(), b"after", None).unwrap();
    assert_eq!(read_some(&ours), SocketRead::Attached);
    (&kept).write_all(b"it is open still").unwrap();
}

#[test]
fn a_connection_that_ended_well_can_be_closed_at_once() {
    let (ours, mut theirs) = pair();
    theirs.write_all(&[7; 1000]).unwrap();
    assert!(hang_up(ours.as_fd(), &mut [0; 64]), "bytes alone hold nobody up");
    let (mut ours, theirs) = pair();
    ours.write_all(b"never read").unwrap();
    drop(theirs);
    assert!(hang_up(ours.as_fd(), &mut [0; 64]), "reset is an end");
}

/// Why this module exists: a plain read or close blocks with the descriptor that it drops.
#[test]
fn a_read_does_not_wait_for_a_connection_that_lingers() {
    let _last_closes = nobody_spawns();
    let (ours, theirs) = pair();
    let (lingers, reader) = lingering().unwrap();
    send_with_fd(theirs.as_fd(), b"x", Some(lingers.as_fd())).unwrap();
    drop(lingers);
    assert_eq!(read_some(&ours), SocketRead::Attached);
    assert!(!hang_up(ours.as_fd(), &mut [0; 64]));
    let (done, closed) = mpsc::channel();
    let closer = std::thread::spawn(move || {
        drop(ours);
        done.send(()).unwrap();
    });
    assert_eq!(
        closed.recv_timeout(Duration::from_millis(300)),
        Err(mpsc::RecvTimeoutError::Timeout),
        "a close does not wait on this kernel: the thread for it is not needed"
    );
    drop(reader);
    closed.recv_timeout(PATIENCE).expect("a reset ends the wait");
    closer.join().unwrap();
}

/// A lane: `SOCK_SEQPACKET` on both sides.
fn frames() -> (crate::lane::Lane, std::os::fd::OwnedFd) {
    crate::lane::Lane::pair().unwrap()
}

#[test]
fn what_lies_behind_empty_frames_is_found() {
    let _last_closes = nobody_spawns();
    let buffer = &mut [0; 64];
    let (ours, theirs) = frames();
    assert!(hang_up_frames(ours.as_fd(), buffer), "nothing is in it");
    drop(theirs);
    let (ours, theirs) = frames();
    message::send(theirs.as_fd(), b"x", &[], 0).unwrap();
    drop(theirs);
    assert!(hang_up_frames(ours.as_fd(), buffer), "bytes alone hold nobody up");
    let (ours, theirs) = frames();
    ours.send(b"never read", &[]).unwrap();
    drop(theirs);
    assert!(hang_up_frames(ours.as_fd(), buffer), "reset is an end");
    for empty in [0, 1, 2, 100] {
        let (ours, theirs) = frames();
        let (kept, sent) = UnixStream::pair().unwrap();
        for _ in 0..empty {
            message::send(theirs.as_fd(), b"", &[], 0).unwrap();
        }
        message::send(theirs.as_fd(), b"", &[sent.as_fd()], 0).unwrap();
        drop((sent, theirs));
        assert!(!hang_up_frames(ours.as_fd(), buffer), "{empty} empty frames hide it");
        (&kept).write_all(b"it is open still").unwrap();
    }
}
