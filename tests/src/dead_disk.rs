//! A file system that does not answer, as a dead NFS server's: whoever opens a file on it waits in the kernel, and not
//! even SIGKILL ends that.
//!
//! It is a FUSE mount whose server says hello and takes every request, and answers none. The wait ends when the server
//! leaves. Driven by the tests.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use crate::daemon::DEADLINE;

/// Requests begin with length, code and number (fuse(4)).
const INIT: u32 = 26;
/// The answer to INIT: version 7.31, and nothing more wanted.
const INIT_OUT_BYTES: usize = 64;

/// A mounted one.
#[derive(Debug)]
pub struct DeadDisk {
    folder: TempDir,
    taken: Receiver<u32>,
}

impl DeadDisk {
    /// Mounts one; `None` where that cannot be done, which is said.
    pub fn mount() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("bh-dead-").tempdir().expect("a temporary folder");
        let server = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok();
        let mounted = server.filter(|server| mount(server, folder.path()));
        let Some(server) = mounted else {
            println!("skipped: no FUSE here, or no right to mount");
            return None;
        };
        let (tell, taken) = channel();
        std::thread::spawn(move || serve(server, |code| tell.send(code).is_ok()));
        Some(Self { folder, taken })
    }

    /// A file on it.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    /// Waits until somebody waits for it.
    pub fn await_victim(&self) {
        loop {
            if self.taken.recv_timeout(DEADLINE).expect("nobody asked for the file") != INIT {
                return;
            }
        }
    }

    /// The server leaves: all waits end with an error.
    pub fn leave(self) {
        drop(self);
    }
}

impl Drop for DeadDisk {
    fn drop(&mut self) {
        // By force, which aborts the connection: the server's thread and everybody who waits get an error. Its path must
        // not be looked at: that would wait as well.
        let umount = Command::new("umount").args(["-i", "-c", "-f", "-l"]).arg(self.folder.path()).status();
        if !umount.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.folder.path().display());
        }
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

fn serve(mut requests: File, take: impl Fn(u32) -> bool) {
    let mut request = vec![0; 1 << 18];
    while let Ok(length) = requests.read(&mut request) {
        let word = |at: usize| request[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
        if length < 40 || !take(word(4)) {
            return;
        }
        if word(4) == INIT {
            let mut answer = Vec::new();
            answer.extend((16 + INIT_OUT_BYTES as u32).to_ne_bytes());
            answer.extend(0_u32.to_ne_bytes());
            answer.extend(&request[8..16]);
            answer.extend(7_u32.to_ne_bytes());
            answer.extend(31_u32.to_ne_bytes());
            answer.resize(16 + INIT_OUT_BYTES, 0);
            requests.write_all(&answer).expect("the kernel takes the hello");
        }
    }
}
