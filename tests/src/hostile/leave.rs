//! Attacks by workers that were asked to leave: they answer, write garbage, ring and stay.
//!
//! The daemon must believe nothing that they write, and must kill them in the end. Driven by `hostile::main` when the
//! channel is closed.

use bulkhead_link::worker::Finish;
use bulkhead_proto::ids::Seq;

use super::puppet::Puppet;
use super::{Attack, Deed};

pub(super) const ATTACKS: &[Attack] = &[
    ("answers-after-its-time", Deed::Retired(answer)),
    ("stays-after-its-time", Deed::Retired(|_| ())),
    ("exit-7-after-its-time", Deed::Retired(|_| std::process::exit(7))),
];

fn answer(puppet: &mut Puppet) {
    for seq in 1..1000 {
        puppet.ring.finish(Seq(seq), &Finish::Inline(b"too late"));
        puppet.ring_now();
        let _ = puppet.lane.send(b"garbage", &[]);
    }
}
