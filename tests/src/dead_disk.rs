//! File systems that do not answer: FUSE mounts whose servers are these tests.
//!
//! A dead one behaves like a dead NFS server: it answers the first message and no later request, so a process that
//! opens a file on it waits in the kernel, and not even SIGKILL ends that wait. A silent one lets its file be opened
//! and never answers the flush that each close of a descriptor sends: every exec and every exit that closes one waits.
//! All waits end when the server ends. Driven by the tests.
//!
//! While a process has the file of a silent disk open, it must start no other process: that one would wait in its exec.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use crate::daemon::DEADLINE;

/// Requests begin with length, code and number (fuse(4)).
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
/// The answer to INIT: version 7.31, and nothing more wanted.
const INIT_OUT_BYTES: usize = 64;
/// The answer to STATFS.
const STATFS_OUT_BYTES: usize = 80;
/// Bytes before what is particular to a request: after this come the arguments.
const HEADER_BYTES: usize = 40;
/// A lookup of this name asks the server to end.
const LEAVE: &str = "leave";
/// The number of the folder, and of the file in it.
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Dead,
    Silent,
}

/// A mounted file system that does not answer.
#[derive(Debug)]
pub struct DeadDisk {
    folder: TempDir,
    manner: Manner,
    taken: Receiver<u32>,
    has_left: Cell<bool>,
}

impl DeadDisk {
    /// Mounts one that answers nothing.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn mount() -> Result<Self, &'static str> {
        Self::mount_as(Manner::Dead)
    }

    /// Mounts one that answers all but a flush.
    ///
    /// # Errors
    /// Why that cannot be done here.
    pub fn mount_silent() -> Result<Self, &'static str> {
        Self::mount_as(Manner::Silent)
    }

    fn mount_as(manner: Manner) -> Result<Self, &'static str> {
        let folder = tempfile::Builder::new().prefix("bh-dead-").tempdir().expect("a temporary folder");
        let server = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok();
        let mounted = server.filter(|server| mount(server, folder.path()));
        let server = mounted.ok_or("no FUSE here, or no right to mount")?;
        let (tell, taken) = channel();
        std::thread::spawn(move || serve(server, manner, |code| tell.send(code).is_ok()));
        Ok(Self { folder, manner, taken, has_left: Cell::new(false) })
    }

    /// A file on it.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    /// Waits until a process waits for a dead one.
    pub fn await_victim(&self) {
        loop {
            if self.taken.recv_timeout(DEADLINE).expect("nobody asked for the file") != INIT {
                return;
            }
        }
    }

    /// Waits until a process closes a descriptor of the file and waits for the answer that never comes.
    pub fn await_flush(&self) {
        while self.taken.recv_timeout(DEADLINE).expect("nobody closed the file") != FLUSH {}
    }

    /// How many more closes have begun to wait since the last call.
    pub fn flushes(&self) -> usize {
        self.taken.try_iter().filter(|code| *code == FLUSH).count()
    }

    /// Ends the server: all waits end with an error.
    pub fn leave(&self) {
        if self.has_left.replace(true) {
            return;
        }
        // The server of a silent one is asked to: until it has left, nothing may be started that could have the file.
        if self.manner == Manner::Silent {
            drop(std::fs::symlink_metadata(self.folder.path().join(LEAVE)));
        }
        // By force, which aborts the connection: the server's thread and everybody who waits get an error. The path of
        // a dead one must not be looked at: that would wait as well.
        let umount = Command::new("umount").args(["-i", "-c", "-f", "-l"]).arg(self.folder.path()).status();
        if !umount.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.folder.path().display());
        }
    }
}

impl Drop for DeadDisk {
    fn drop(&mut self) {
        self.leave();
    }
}

fn mount(server: &File, folder: &Path) -> bool {
    let stdin = Stdio::from(server.try_clone().expect("a descriptor"));
    let status = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "bulkhead-test"])
        .arg(folder)
        .stdin(stdin)
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Takes requests until the mount is gone or `take` has had enough, or it is asked to leave. The end of the last
/// descriptor of the server aborts the connection.
fn serve(mut requests: File, manner: Manner, take: impl Fn(u32) -> bool) {
    let mut request = vec![0; 1 << 18];
    while let Ok(length) = requests.read(&mut request) {
        let request = &request[..length];
        if length < HEADER_BYTES {
            return;
        }
        let code = u32::from_ne_bytes(request[4..8].try_into().expect("four bytes"));
        let asked_to_leave = code == LOOKUP && request[HEADER_BYTES..].starts_with(LEAVE.as_bytes());
        if !take(code) || (manner == Manner::Silent && asked_to_leave) {
            return;
        }
        if let Some(answer) = answer(manner, code, request) {
            // The process that sent the request may be gone.
            drop(requests.write_all(&answer));
        }
    }
}

/// What is answered, if anything.
fn answer(manner: Manner, code: u32, request: &[u8]) -> Option<Vec<u8>> {
    let node = u64::from_ne_bytes(request[16..24].try_into().expect("eight bytes"));
    let mut body = Vec::new();
    match (manner, code) {
        (_, INIT) => {
            body.extend(7_u32.to_ne_bytes());
            body.extend(31_u32.to_ne_bytes());
            body.resize(INIT_OUT_BYTES, 0);
        }
        (Manner::Dead, _) | (_, FLUSH) => return None,
        (_, LOOKUP) => {
            // Number and generation, then for how long that and the rest holds.
            [FILE, 0, 0, 0, 0].iter().for_each(|word| body.extend(word.to_ne_bytes()));
            body.extend(attributes(FILE));
        }
        (_, GETATTR) => {
            [0_u64, 0].iter().for_each(|word| body.extend(word.to_ne_bytes()));
            body.extend(attributes(node));
        }
        (_, OPEN) => body.resize(16, 0),
        // No blocks and no files.
        (_, STATFS) => body.resize(STATFS_OUT_BYTES, 0),
        (_, RELEASE) => {}
        // Not implemented: some of them want no answer, and get none by that either.
        _ => return Some(framed(request, -38, &[])),
    }
    Some(framed(request, 0, &body))
}

fn framed(request: &[u8], error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("answers are short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(error.to_ne_bytes());
    bytes.extend(&request[8..16]);
    bytes.extend(body);
    bytes
}

/// `fuse_attr`: all zero but number, size, mode and links.
fn attributes(node: u64) -> Vec<u8> {
    let mut bytes = vec![0; 88];
    let mode: u32 = if node == ROOT { 0o040_755 } else { 0o100_666 };
    bytes[0..8].copy_from_slice(&node.to_ne_bytes());
    bytes[8..16].copy_from_slice(&4096_u64.to_ne_bytes());
    bytes[60..64].copy_from_slice(&mode.to_ne_bytes());
    bytes[64..68].copy_from_slice(&1_u32.to_ne_bytes());
    bytes
}
