//! Attacks with a descriptor whose last close waits for an hour: a TCP connection with SO_LINGER, to a peer that does
//! not read and does not die with its worker.
//!
//! It is passed up wherever a worker can pass descriptors, at each stage of its life, behind frames that hide it, and
//! left in a socket that the daemon is about to close. If the daemon's loop closed it, all clients would wait. Driven
//! by `hostile::main`.

use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::worker::message::{LaneUp, StackText};
use bulkhead_sys::hostile_peer::{self, ATTACHED_MAX, SendMode};
use bulkhead_sys::lane::Lane;
use bulkhead_sys::process;

use super::puppet::{Newborn, Puppet};
use super::{After, Attack, Deed, READER_FILE, program_folder, sit};

pub(super) const ATTACKS: &[Attack] = &[
    ("linger-before-setup", Deed::Boot(before_setup)),
    ("linger-before-hello", Deed::Boot(|| before_hello(&ask()))),
    ("linger-with-hello", Deed::Boot(|| before_hello(&hello()))),
    ("linger-while-connecting", Deed::Boot(while_connecting)),
    ("linger-on-channel-while-connecting", Deed::Boot(channel_while_connecting)),
    ("linger-when-up", Deed::Boot(|| when_up(1, 1))),
    ("linger-759-when-up", Deed::Boot(|| when_up(ATTACHED_MAX, 3))),
    ("linger-urgent", Deed::Boot(urgent)),
    ("linger-behind-garbage", Deed::Boot(|| behind(&[0xff; 64], 1))),
    ("linger-behind-empty-frames", Deed::Boot(|| behind(&[], 20))),
    ("linger-on-channel", Deed::Boot(on_channel)),
    ("linger-and-be-killed", Deed::Boot(and_be_killed)),
    ("linger-in-a-task", Deed::Claimed(|puppet, _, _| lane_in_a_task(puppet))),
    ("linger-on-channel-in-a-task", Deed::Claimed(|puppet, _, _| channel_in_a_task(puppet))),
];

fn ask() -> Vec<u8> {
    codec::encode(&LaneUp::NeedOutput { seq: Seq(1) })
}

fn hello() -> Vec<u8> {
    codec::encode(&LaneUp::Hello {
        path: "/a/path/that/is/not/there".to_owned(),
        missing: Vec::new(),
        stack_text: StackText::Never,
    })
}

/// Passes a connection that lingers, so often in each of so many frames, and keeps no descriptor of it.
fn pass(socket: BorrowedFd<'_>, bytes: &[u8], copies: usize, frames: usize) {
    let port =
        std::fs::read_to_string(program_folder().join(READER_FILE)).expect("a test that reads nothing");
    let odd = hostile_peer::lingering_to(port.parse().expect("a port")).expect("a connection");
    for _ in 0..frames {
        // It may be killed for the first already.
        let _ = hostile_peer::send(socket, bytes, &vec![odd.as_fd(); copies], SendMode::Plain);
    }
}

fn before_setup() {
    process::die_with_parent().expect("it may be asked for");
    let lane = Lane::from_stdin().expect("a daemon started this process");
    pass(lane.as_fd(), &hello(), 1, 1);
    std::mem::forget(lane);
}

fn before_hello(bytes: &[u8]) {
    let newborn = Newborn::take();
    pass(newborn.lane.as_fd(), bytes, 1, 1);
    std::mem::forget(newborn);
}

fn while_connecting() {
    let newborn = Newborn::take();
    let server = newborn.listen();
    pass(newborn.lane.as_fd(), &ask(), 1, 1);
    std::mem::forget((server, newborn));
}

/// The channel stands, and by the time that the daemon's thread brings it to the loop its worker may have broken the protocol.
fn channel_while_connecting() {
    let newborn = Newborn::take();
    let server = newborn.listen();
    let channel = server.accept().expect("the daemon connects");
    pass(channel.as_fd(), b"x", 1, 1);
    let _ = newborn.lane.send(b"garbage", &[]);
    std::mem::forget((channel, newborn));
}

fn when_up(copies: usize, frames: usize) {
    let puppet = Puppet::come_up();
    pass(puppet.lane.as_fd(), &ask(), copies, frames);
    std::mem::forget(puppet);
}

/// Linux has no urgent bytes on a socket with frames; where it had, they would be tried first.
fn urgent() {
    let puppet = Puppet::come_up();
    let file = hostile_peer::epoll().expect("an epoll");
    drop(hostile_peer::send(puppet.lane.as_fd(), b"!", &[file.as_fd()], SendMode::Urgent));
    pass(puppet.lane.as_fd(), &ask(), 1, 1);
    std::mem::forget(puppet);
}

/// The frame in front is a protocol violation, so what comes behind it is still there when the lane is closed.
fn behind(bytes: &[u8], frames: usize) {
    let puppet = Puppet::come_up();
    let lane = puppet.lane.as_fd();
    for _ in 0..frames {
        let _ = puppet.lane.send(bytes, &[]);
    }
    pass(lane, &[], 1, 1);
    std::mem::forget(puppet);
}

/// Nothing is ever read from the channel; it is closed when the worker breaks the protocol.
fn on_channel() {
    let puppet = Puppet::come_up();
    leave_on_channel(&puppet);
    let _ = puppet.lane.send(b"garbage", &[]);
    std::mem::forget(puppet);
}

fn leave_on_channel(puppet: &Puppet) {
    for _ in 0..3 {
        let _ = hostile_peer::send(puppet.channel.as_fd(), &[], &[], SendMode::Plain);
    }
    pass(puppet.channel.as_fd(), &[], ATTACHED_MAX, 2);
}

fn and_be_killed() {
    let puppet = Puppet::come_up();
    leave_on_channel(&puppet);
    pass(puppet.lane.as_fd(), &ask(), 1, 1);
    drop(bulkhead_sys::raise::raise(9));
}

fn lane_in_a_task(puppet: &Puppet) -> After {
    pass(puppet.lane.as_fd(), &ask(), 1, 1);
    sit()
}

fn channel_in_a_task(puppet: &Puppet) -> After {
    leave_on_channel(puppet);
    let _ = puppet.lane.send(b"garbage", &[]);
    sit()
}
