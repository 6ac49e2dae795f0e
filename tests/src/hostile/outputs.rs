//! Attacks by output descriptors: of another length than announced, still mapped, or never sealed.
//!
//! A client must get only an output that can never change again. Driven by `hostile::main` when a worker gets a bait
//! whose output goes into a descriptor.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use bulkhead_link::worker::Finish;
use bulkhead_proto::worker::message::TaskMessage;
use bulkhead_sys::memfd;
use bulkhead_sys::shared_page::SharedPage;

use super::puppet::{After, Puppet};
use super::{Attack, Deed};

const BYTES: usize = 8192;

pub(super) const ATTACKS: &[Attack] = &[
    (
        "output-shorter-than-it-says",
        Deed::Claimed(|puppet, task, file| say(puppet, task, file, BYTES as u64 + 1, seal)),
    ),
    (
        "output-longer-than-it-says",
        Deed::Claimed(|puppet, task, file| say(puppet, task, file, BYTES as u64 - 1, seal)),
    ),
    (
        "output-still-mapped",
        Deed::Claimed(|puppet, task, file| say(puppet, task, file, BYTES as u64, keep_mapped)),
    ),
    (
        "output-never-sealed",
        Deed::Claimed(|puppet, task, file| say(puppet, task, file, BYTES as u64, |_| ())),
    ),
    ("output-cut-after-the-answer", Deed::Claimed(cut_after_the_answer)),
];

/// Writes an output, does this with it, and says that it is so many bytes long.
fn say(puppet: &mut Puppet, task: &TaskMessage, file: Option<File>, bytes: u64, spoil: fn(&File)) -> After {
    let mut file = file.expect("a descriptor came with the bait");
    file.write_all(&[b'x'; BYTES]).expect("it can be written");
    spoil(&file);
    puppet.ring.finish(task.seq, &Finish::Descriptor { bytes });
    puppet.ring_if_asleep();
    std::mem::forget(file);
    After::Sit
}

fn seal(file: &File) {
    memfd::seal_output(file.as_fd()).expect("nobody else has it");
}

fn keep_mapped(file: &File) {
    memfd::fix_size(file.as_fd()).expect("nobody sealed it");
    std::mem::forget(SharedPage::map_shared(file.as_fd(), BYTES).expect("it can be mapped"));
}

/// Changes the size of the output as long as it can.
fn cut_after_the_answer(puppet: &mut Puppet, task: &TaskMessage, file: Option<File>) -> After {
    let file = file.expect("a descriptor came with the bait");
    file.set_len(0).expect("nobody sealed it");
    puppet.ring.finish(task.seq, &Finish::Descriptor { bytes: BYTES as u64 });
    puppet.ring_if_asleep();
    while file.set_len(3).is_ok() {}
    After::Sit
}
