//! Attacks on the bootstrap: hellos that never arrive, or that name a socket that is not the worker's own.
//!
//! The supervisor has to ask the kernel, and not the worker, which process listens there. Driven by `hostile::main`.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_link::worker::Channel;
use bulkhead_proto::ids::KindId;
use bulkhead_proto::worker::message::{LaneUp, StackText};
use bulkhead_sys::hostile_peer;

use super::puppet::{Newborn, boot_folder};
use super::{Attack, Deed, family, program_folder, sit};

pub(super) const ATTACKS: &[Attack] = &[
    ("silent", Deed::Boot(|| drop_nothing(Newborn::take()))),
    ("hello-without-accept", Deed::Boot(hello_without_accept)),
    ("hello-twice", Deed::Boot(hello_twice)),
    ("hello-missing-kinds", Deed::Boot(missing_kinds)),
    ("hello-full-queue", Deed::Boot(full_queue)),
    ("hello-outside", Deed::Boot(outside)),
    ("hello-dot-dot", Deed::Boot(|| name(&format!("{}/../../s", boot_folder().display())))),
    ("hello-relative", Deed::Boot(|| name("socket"))),
    ("hello-empty", Deed::Boot(|| name(""))),
    ("hello-symlink", Deed::Boot(link_to_elsewhere)),
    ("hello-linked-folder", Deed::Boot(linked_folder)),
    ("hello-file", Deed::Boot(file)),
    ("hello-nothing-there", Deed::Boot(|| name(&inside("missing")))),
    ("hello-nul", Deed::Boot(|| name(&inside("a\0b")))),
    ("hello-long", Deed::Boot(|| name(&inside(&"x".repeat(300))))),
    ("hello-10-kilobytes", Deed::Boot(|| name(&inside(&"x".repeat(10_000))))),
    ("hello-dead-socket", Deed::Boot(dead_socket)),
    ("hello-stream-socket", Deed::Boot(stream_socket)),
    ("hello-of-another-process", Deed::Boot(another_process)),
];

/// Keeps a value for ever.
fn drop_nothing<T>(kept: T) {
    std::mem::forget(kept);
}

/// A path in this worker's folder.
fn inside(file: &str) -> String {
    boot_folder().join(file).display().to_string()
}

/// Says hello with this path.
fn name(path: &str) {
    let newborn = Newborn::take();
    newborn.hello(path);
    drop_nothing(newborn);
}

fn hello_without_accept() {
    let newborn = Newborn::take();
    drop_nothing((newborn.listen(), newborn));
}

fn hello_twice() {
    let newborn = Newborn::take();
    let server = newborn.listen();
    drop_nothing((newborn.listen(), server, newborn));
}

fn missing_kinds() {
    let newborn = Newborn::take();
    let (server, path) = Channel::listen().expect("a server");
    newborn.say(&LaneUp::Hello {
        path,
        missing: vec![KindId(0), KindId(7), KindId(u16::MAX)],
        stack_text: StackText::Never,
    });
    drop_nothing((server, newborn));
}

/// Fills the queue of its own server, so that the next connect has to wait.
fn full_queue() {
    let newborn = Newborn::take();
    let (server, path) = Channel::listen().expect("a server");
    let queue = hostile_peer::fill_queue(Path::new(&path)).expect("a server");
    newborn.hello(&path);
    drop_nothing((queue, server, newborn));
}

/// A socket of its own, but not in its folder.
fn outside() {
    let newborn = Newborn::take();
    let path = program_folder().join("socket");
    let listener = UnixListener::bind(&path);
    newborn.hello(&path.display().to_string());
    drop_nothing((listener, newborn));
}

fn link_to_elsewhere() {
    let newborn = Newborn::take();
    let (server, path) = Channel::listen().expect("a server");
    symlink(path, inside("link")).expect("a link");
    newborn.hello(&inside("link"));
    drop_nothing((server, newborn));
}

/// A good server, through a link to the folder that it is in.
fn linked_folder() {
    let newborn = Newborn::take();
    let (server, path) = Channel::listen().expect("a server");
    let (folder, file) = path.rsplit_once('/').expect("it is in a folder");
    symlink(folder, inside("link")).expect("a link");
    newborn.hello(&inside(&format!("link/{file}")));
    drop_nothing((server, newborn));
}

fn file() {
    std::fs::write(inside("file"), "no socket").expect("a file");
    name(&inside("file"));
}

fn dead_socket() {
    drop(UnixListener::bind(inside("dead")));
    name(&inside("dead"));
}

fn stream_socket() {
    let listener = UnixListener::bind(inside("stream"));
    name(&inside("stream"));
    drop_nothing(listener);
}

/// The server is a child's.
fn another_process() {
    let newborn = Newborn::take();
    let mut command = Command::new(family::own_program());
    let child = command.arg("listen").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut told = child.expect("a child").stdout.take().expect("it is piped");
    let mut path = [0; 256];
    let length = told.read(&mut path).expect("the child names its server");
    newborn.hello(&String::from_utf8_lossy(&path[..length]));
    sit();
}
