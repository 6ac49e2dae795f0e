//! Attacks by ending or stopping: at each step of the bootstrap, when connected, and in the middle of a task.
//!
//! A stopped worker sends nothing and does not die; only a deadline finds it. Driven by `hostile::main`.

use bulkhead_sys::raise::{fault, raise};

use super::puppet::{After, Newborn, Puppet};
use super::{Attack, Deed};

const KILL: Way = Way::Signal(9);
const STOP: Way = Way::Signal(19);

pub(super) const ATTACKS: &[Attack] = &[
    ("exit-0-at-once", Deed::Boot(|| end(Step::Start, Way::Exit(0)))),
    ("exit-1-at-once", Deed::Boot(|| end(Step::Start, Way::Exit(1)))),
    ("kill-at-once", Deed::Boot(|| end(Step::Start, KILL))),
    ("stop-at-once", Deed::Boot(|| end(Step::Start, STOP))),
    ("exit-0-after-setup", Deed::Boot(|| end(Step::Setup, Way::Exit(0)))),
    ("exit-1-after-setup", Deed::Boot(|| end(Step::Setup, Way::Exit(1)))),
    ("kill-after-setup", Deed::Boot(|| end(Step::Setup, KILL))),
    ("stop-after-setup", Deed::Boot(|| end(Step::Setup, STOP))),
    ("exit-0-after-hello", Deed::Boot(|| end(Step::Hello, Way::Exit(0)))),
    ("exit-1-after-hello", Deed::Boot(|| end(Step::Hello, Way::Exit(1)))),
    ("kill-after-hello", Deed::Boot(|| end(Step::Hello, KILL))),
    ("stop-after-hello", Deed::Boot(|| end(Step::Hello, STOP))),
    ("exit-0-when-up", Deed::Boot(|| end(Step::Up, Way::Exit(0)))),
    ("exit-1-when-up", Deed::Boot(|| end(Step::Up, Way::Exit(1)))),
    ("kill-when-up", Deed::Boot(|| end(Step::Up, KILL))),
    ("stop-when-up", Deed::Boot(|| end(Step::Up, STOP))),
    ("exit-0-before-the-claim", Deed::Offered(|_, _| go(Way::Exit(0)))),
    ("stop-before-the-claim", Deed::Offered(|_, _| go(STOP))),
    ("exit-0-in-a-task", Deed::Claimed(|_, _, _| go(Way::Exit(0)))),
    ("kill-in-a-task", Deed::Claimed(|_, _, _| go(KILL))),
    ("fault-in-a-task", Deed::Claimed(|_, _, _| go(Way::Fault))),
    ("stop-in-a-task", Deed::Claimed(|_, _, _| go(STOP))),
    (
        "kill-after-the-answer",
        Deed::Claimed(|puppet, task, _| {
            puppet.finish(task);
            go(KILL)
        }),
    ),
];

/// How far a worker gets.
enum Step {
    Start,
    Setup,
    Hello,
    Up,
}

/// How it ends, or does not.
#[derive(Clone, Copy)]
enum Way {
    Exit(i32),
    Signal(i32),
    Fault,
}

fn go(way: Way) -> After {
    match way {
        Way::Exit(code) => std::process::exit(code),
        Way::Fault => fault(),
        Way::Signal(signal) => raise(signal).expect("it is a signal"),
    }
    After::Sit
}

/// Ends after this step; what it has by then it keeps.
fn end(step: Step, way: Way) {
    match step {
        Step::Start => drop(go(way)),
        Step::Setup => {
            let _kept = Newborn::take();
            go(way);
        }
        Step::Hello => {
            let newborn = Newborn::take();
            let _kept = (newborn.listen(), newborn);
            go(way);
        }
        Step::Up => {
            let _kept = Puppet::come_up();
            go(way);
        }
    }
}
