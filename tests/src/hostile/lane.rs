//! Attacks on the lane: invalid frames, too many frames, descriptors where only bytes are allowed, and ends that are
//! closed while their worker lives.
//!
//! Driven by `hostile::main`, most of them when the worker is connected and idle.

use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_proto::codec;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::worker::message::{LaneUp, StackText};

use super::puppet::{Newborn, Puppet};
use super::{Attack, Deed, sit};

pub(super) const ATTACKS: &[Attack] = &[
    ("lane-garbage", Deed::Boot(|| say(&[0xff; 64]))),
    ("lane-empty", Deed::Boot(|| say(&[]))),
    ("lane-oversized", Deed::Boot(|| say(&[0; 5000]))),
    ("lane-cut", Deed::Boot(|| say(&hello()[..20]))),
    ("lane-more-than-a-frame", Deed::Boot(|| say(&[ask(), vec![0]].concat()))),
    ("lane-hello-when-up", Deed::Boot(|| say(&hello()))),
    ("lane-garbage-before-hello", Deed::Boot(garbage_before_hello)),
    ("lane-flood-of-garbage", Deed::Boot(|| flood(&[0xaa; 4096]))),
    ("doorbell-before-hello", Deed::Boot(doorbell_before_hello)),
    // More often than the loop can have slept so far.
    ("doorbell-unasked", Deed::Boot(|| ring_and_sit(64))),
    ("doorbell-flood", Deed::Boot(|| ring_and_sit(u32::MAX))),
    ("doorbell-flood-in-a-task", Deed::Claimed(|puppet, _, _| ring_on(puppet, u32::MAX))),
    ("descriptor", Deed::Boot(|| pass(1, 1))),
    ("descriptors-3", Deed::Boot(|| pass(3, 1))),
    ("descriptors-200", Deed::Boot(|| pass(10, 20))),
    ("descriptor-before-hello", Deed::Boot(descriptor_before_hello)),
    ("lane-closed", Deed::Boot(close_the_lane)),
    ("lane-closed-before-hello", Deed::Boot(close_before_hello)),
    ("channel-closed", Deed::Boot(close_the_channel)),
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

/// Comes up and sends one frame.
fn say(bytes: &[u8]) {
    let puppet = Puppet::come_up();
    puppet.lane.send(bytes, &[]).expect("the daemon holds its end");
    std::mem::forget(puppet);
}

fn garbage_before_hello() {
    let newborn = Newborn::take();
    newborn.lane.send(b"not a frame at all", &[]).expect("the daemon holds its end");
    std::mem::forget(newborn);
}

fn doorbell_before_hello() {
    let newborn = Newborn::take();
    newborn.doorbell.ring();
    std::mem::forget(newborn);
}

/// Comes up and sends frames as fast as they go.
fn flood(bytes: &[u8]) {
    let puppet = Puppet::come_up();
    while puppet.lane.send(bytes, &[]).is_ok() {}
    sit();
}

fn ring_and_sit(rings: u32) {
    ring_on(&Puppet::come_up(), rings)
}

fn ring_on(puppet: &Puppet, rings: u32) -> ! {
    (0..rings).for_each(|_| puppet.doorbell.ring());
    sit()
}

/// Starts and passes descriptors up, in a number of frames with a number of descriptors each.
fn pass(descriptors: usize, frames: usize) {
    let puppet = Puppet::come_up();
    let passed: Vec<BorrowedFd<'_>> = (0..descriptors).map(|_| puppet.channel.as_fd()).collect();
    for _ in 0..frames {
        if puppet.lane.send(&ask(), &passed).is_err() {
            break;
        }
    }
    sit();
}

fn descriptor_before_hello() {
    let newborn = Newborn::take();
    let _ = newborn.lane.send(&hello(), &[newborn.pages[0].as_fd()]);
    sit();
}

fn close_the_lane() {
    let Puppet { lane, channel, .. } = Puppet::come_up();
    drop(lane);
    std::mem::forget(channel);
}

fn close_before_hello() {
    drop(Newborn::take());
}

fn close_the_channel() {
    let Puppet { lane, channel, .. } = Puppet::come_up();
    drop(channel);
    std::mem::forget(lane);
}
