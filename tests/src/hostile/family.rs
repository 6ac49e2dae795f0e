//! Attacks by children: they keep lane and channel open, leave the process group, or are orphaned in large numbers.
//!
//! Every process that a worker leaves behind has to be gone before its death counts as proven. Driven by
//! `hostile::main`, which also runs the children: the program starts itself with the name of a role.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use bulkhead_link::worker::Channel;
use bulkhead_proto::worker::message::TaskMessage;
use bulkhead_sys::raise::raise;

use super::puppet::{After, Newborn, Puppet};
use super::{Attack, Deed, sit};

const SIGKILL: i32 = 9;

pub(super) const ATTACKS: &[Attack] = &[
    ("child-holds-everything", Deed::Claimed(|puppet, _, _| leave(puppet, Where::Group))),
    ("child-in-a-group-of-its-own", Deed::Claimed(|puppet, _, _| leave(puppet, Where::OwnGroup))),
    ("grandchild-in-a-session-of-its-own", Deed::Claimed(|puppet, _, _| leave(puppet, Where::OwnSession))),
    ("twenty-children", Deed::Claimed(twenty_children)),
    ("child-of-the-unborn", Deed::Boot(child_of_the_unborn)),
    ("stray-while-it-lives", Deed::Claimed(stray_while_it_lives)),
    ("heap-of-orphans", Deed::Claimed(heap_of_orphans)),
];

/// Where a child goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Group,
    OwnGroup,
    OwnSession,
}

/// This program, by a path that lasts.
pub(super) fn own_program() -> PathBuf {
    std::env::current_exe().expect("/proc is there")
}

/// What a child of an attack does.
pub(super) fn play(role: &str, rest: &[String]) -> ExitCode {
    match role {
        "sit" => sit(),
        "listen" => {
            let server = Channel::listen().expect("a server");
            print!("{}", server.1);
            std::io::stdout().flush().expect("somebody reads");
            sit()
        }
        // Starts a child of its own and leaves it behind.
        "leave" => {
            let child = Command::new(own_program()).args(rest).process_group(0).spawn();
            drop(child.expect("a child"));
            ExitCode::SUCCESS
        }
        _ => ExitCode::SUCCESS,
    }
}

/// A child that holds the lane as its standard input and the box as its standard output.
fn child(lane: &impl AsFd, page: &impl AsFd, place: Where) {
    let dup = |fd: BorrowedFd<'_>| Stdio::from(fd.try_clone_to_owned().expect("a descriptor"));
    let mut command = match place {
        Where::OwnSession => Command::new("setsid"),
        _ => Command::new(own_program()),
    };
    if place == Where::OwnSession {
        command.arg("--fork").arg(own_program());
    }
    if place == Where::OwnGroup {
        command.process_group(0);
    }
    command.arg("sit").stdin(dup(lane.as_fd())).stdout(dup(page.as_fd()));
    if place == Where::OwnSession {
        command.status().expect("setsid leaves");
    } else {
        // Its parent is about to die and does not wait for it.
        std::mem::forget(command.spawn().expect("a child"));
    }
}

/// Leaves a child behind, dies.
fn leave(puppet: &mut Puppet, place: Where) -> After {
    child(&puppet.lane, &puppet.channel, place);
    raise(SIGKILL).expect("it does not return");
    After::Sit
}

fn twenty_children(puppet: &mut Puppet, _: &TaskMessage, _: Option<File>) -> After {
    for index in 0..20 {
        child(&puppet.lane, &puppet.channel, if index % 2 == 0 { Where::Group } else { Where::OwnGroup });
    }
    leave(puppet, Where::Group)
}

fn child_of_the_unborn() {
    let newborn = Newborn::take();
    for place in [Where::Group, Where::OwnGroup, Where::OwnSession] {
        child(&newborn.lane, &newborn.pages[0], place);
    }
    std::process::exit(1);
}

/// The task ends well, the child lives on, and then the worker dies.
fn stray_while_it_lives(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    child(&puppet.lane, &puppet.channel, Where::OwnSession);
    puppet.finish(task);
    raise(SIGKILL).expect("it does not return");
    After::Sit
}

/// Children whose parents are gone and who end at once: the daemon inherits every one.
fn heap_of_orphans(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    for _ in 0..20 {
        let mut parent = Command::new(own_program());
        parent.args(["leave", "end"]).stdin(Stdio::null()).stdout(Stdio::null());
        parent.spawn().expect("a child").wait().expect("it leaves");
    }
    puppet.finish(task);
    After::Serve
}
