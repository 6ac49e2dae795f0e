//! Attacks by output descriptors: of another length than announced, still mapped, or never sealed; and questions for outputs
//! that the worker may not have.
//!
//! A client must get only an output that can never change again. Driven by `hostile::main` when a worker gets a bait
//! whose output goes into a descriptor, or may (`demand-`).

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use bulkhead_link::worker::Finish;
use bulkhead_proto::ids::Seq;
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
    ("demand-twice", Deed::Claimed(|puppet, task, _| ask(puppet, &[task.seq.0, task.seq.0]))),
    ("demand-of-the-next", Deed::Claimed(|puppet, task, _| ask(puppet, &[task.seq.0 + 1]))),
    ("demand-of-the-last", Deed::Claimed(|puppet, task, _| ask(puppet, &[task.seq.0 - 1]))),
    ("demand-of-nobody", Deed::Claimed(|puppet, _, _| ask(puppet, &[u64::MAX >> 3]))),
    ("output-and-another-one", Deed::Claimed(|puppet, task, _| ask(puppet, &[task.seq.0]))),
    ("demand-before-the-claim", Deed::Offered(|puppet, task| ask(puppet, &[task.seq.0]))),
    ("demand-after-the-end", Deed::Claimed(ask_after_the_end)),
    ("demand-of-another-length", Deed::Claimed(of_another_length)),
    ("demand-never-made", Deed::Claimed(report_unasked)),
    ("inline-and-a-demand", Deed::Claimed(|puppet, task, _| ask(puppet, &[task.seq.0]))),
];

/// Asks for the outputs of these offers, and waits for no answer.
fn ask(puppet: &mut Puppet, seqs: &[u64]) -> After {
    seqs.iter().for_each(|seq| puppet.ask(Seq(*seq)));
    After::Sit
}

fn ask_after_the_end(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    puppet.finish(task);
    puppet.ask(task.seq);
    After::Sit
}

fn of_another_length(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    puppet.ask(task.seq);
    let (file, room_bytes) = puppet.take_given(task.seq);
    assert!(room_bytes > BYTES as u64, "it is told how much it may write");
    say(puppet, task, Some(file), BYTES as u64 + 1, seal)
}

fn report_unasked(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    puppet.ring.finish(task.seq, &Finish::Descriptor { bytes: 5 });
    puppet.ring_if_asleep();
    After::Sit
}

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
