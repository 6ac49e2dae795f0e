//! A daemon made by hand: a thread behind a real socket that plays a script, frame by frame.
//!
//! It knows the wire format and nothing of jobs. A script that fails closes its socket, so the client under test
//! ends too; [`Fake::finish`] then shows the script's own panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use bulkhead_client::{DaemonClient, connect};
use bulkhead_proto::client::frame::{Frames, Hello, push_frame};
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, RequestFrame, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::codec;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::Payload;

/// Against a script or client that hangs; no test comes near it.
const DEADLINE: Duration = Duration::from_secs(60);

/// The thread, and the folder of its socket.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    script: JoinHandle<()>,
}

impl Fake {
    /// Takes one connection and gives it to the script as it is.
    pub(crate) fn raw(script: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        Self::raw_each(vec![Box::new(script)])
    }

    /// Takes a connection for each script, one after the other, and gives it to the script as it is.
    fn raw_each(scripts: Vec<Box<dyn FnOnce(UnixStream) + Send>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let script = std::thread::spawn(move || {
            for script in scripts {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.set_write_timeout(Some(DEADLINE)).unwrap();
                script(stream);
            }
        });
        Self { folder, script }
    }

    /// Takes one connection, says welcome, and plays the script.
    pub(crate) fn serve(script: impl FnOnce(Peer) + Send + 'static) -> Self {
        Self::raw(|stream| script(welcome(stream)))
    }

    /// Plays a script for each connection, one after the other, as a daemon that is started again after its death.
    pub(crate) fn serve_each(scripts: Vec<Box<dyn FnOnce(Peer) + Send>>) -> Self {
        let greeted = scripts.into_iter().map(|script| {
            let script: Box<dyn FnOnce(UnixStream) + Send> = Box::new(|stream| script(welcome(stream)));
            script
        });
        Self::raw_each(greeted.collect())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn client(&self) -> DaemonClient {
        connect::connect(&self.path()).unwrap()
    }

    /// Ends the script; the client must be gone.
    pub(crate) fn finish(self) {
        if let Err(panic) = self.script.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Reads the hello of the client, and says welcome.
fn welcome(mut stream: UnixStream) -> Peer {
    let mut hello = [0; Hello::BYTES];
    stream.read_exact(&mut hello).unwrap();
    stream.write_all(&Hello::new(Hello::WELCOME).to_bytes()).unwrap();
    Peer { stream, frames: Frames::default(), descriptors: Vec::new() }
}

/// The client, as the script sees it.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    frames: Frames,
    /// What came with the frames so far.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Peer {
    /// The next request; `None` when the client has left.
    pub(crate) fn request(&mut self) -> Option<RequestFrame> {
        loop {
            if let Some(bytes) = self.frames.next_frame().unwrap() {
                return Some(codec::decode(bytes).unwrap());
            }
            let mut buffer = [0; 4096];
            let fd = self.stream.as_fd();
            match bulkhead_sys::socket::recv_with_fds(fd, &mut buffer, &mut self.descriptors) {
                Ok(0) => return None,
                Ok(count) => self.frames.feed(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A socket with a deadline is not waited on again by the kernel: signal(7).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("script waits for a request: {error}"),
            }
        }
    }

    /// The next request, which must be a submit.
    pub(crate) fn submit(&mut self) -> Option<(Tag, Submit)> {
        self.request().map(|frame| match frame.request {
            Request::Submit(submit) => (frame.tag, submit),
            other => panic!("a submit was expected: {other:?}"),
        })
    }

    /// Whether nothing of another request is there.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let quiet =
            matches!(self.stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).unwrap();
        quiet && !self.frames.is_partial()
    }

    pub(crate) fn reply(&mut self, tag: Tag, reply: Reply) {
        self.stream.write_all(&frame(tag, reply)).unwrap();
    }

    pub(crate) fn accept(&mut self, tag: Tag, first: u64, count: usize) {
        let count = u32::try_from(count).unwrap();
        self.reply(tag, Reply::Accepted { first: JobId(first), count, refused: None });
    }

    /// Sends a reply with a descriptor on its first byte.
    pub(crate) fn reply_with(&mut self, tag: Tag, reply: Reply, descriptor: BorrowedFd<'_>) {
        let bytes = frame(tag, reply);
        let sent =
            bulkhead_sys::socket::send_with_fd(self.stream.as_fd(), &bytes[..1], Some(descriptor)).unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
    }
}

/// A reply as it travels.
pub(crate) fn frame(tag: Tag, reply: Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_frame(&ReplyFrame { tag, reply }, &mut bytes).unwrap();
    bytes
}

/// The end of a job that is done.
pub(crate) fn done(job: u64, output: &[u8]) -> JobEnded {
    let output = JobOutput::Inline(Payload::from(output.to_vec()));
    JobEnded { job: JobId(job), outcome: Outcome::Done, output, attempts: 1, survivors: Vec::new() }
}

/// The end of a job whose output is in a descriptor.
pub(crate) fn done_in_file(job: u64, bytes: u64) -> JobEnded {
    let output = JobOutput::Descriptor { bytes };
    JobEnded { job: JobId(job), outcome: Outcome::Done, output, attempts: 1, survivors: Vec::new() }
}

/// A path at which nobody listens, in a folder that lives as long as the first of the two.
pub(crate) fn nowhere() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new(folder.path()).join("nobody");
    (folder, path)
}
