//! The receiving end of the channel: the worker creates the server, the supervisor connects.
//!
//! The server's socket is in a folder of its own below `TMPDIR`, and is removed after the accept. Driven by the
//! worker runtime, which may block here.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{UnwindSafe, catch_unwind};
use std::path::Path;

use bulkhead_proto::codec::{self, CodecError};
use bulkhead_proto::worker::message::Tasks;
use bulkhead_sys::descriptors::find_connection;
use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver};

use crate::ipc_connect::while_sharing;
use crate::wire::Wire;

/// Why no tasks were received.
#[derive(Debug)]
pub enum RecvError {
    /// The message cannot be decoded.
    Malformed(CodecError),
    /// The socket failed, or the library could not decode a message.
    Io(io::Error),
}

impl fmt::Display for RecvError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(out),
            Self::Io(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for RecvError {}

impl From<IpcError> for RecvError {
    fn from(error: IpcError) -> Self {
        match error {
            IpcError::Io(error) => Self::Io(error),
            other @ (IpcError::Disconnected | IpcError::SerializationError(_)) => {
                Self::Io(io::Error::other(other))
            }
        }
    }
}

/// A server to which the supervisor will connect.
pub struct Server {
    server: IpcOneShotServer<Wire>,
    path: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The receiving end. Its descriptor is readable when a message has arrived or the channel has ended.
#[derive(Debug)]
pub struct Channel {
    receiver: IpcReceiver<Wire>,
    /// A second descriptor of the channel's socket, because the library does not expose its own.
    socket: OwnedFd,
}

impl Channel {
    /// Creates a server. Returns the path that the hello must name.
    ///
    /// # Errors
    /// The folder or socket below `TMPDIR` cannot be created.
    pub fn listen() -> io::Result<(Server, String)> {
        // ipc-channel panics if it cannot make a folder there; the try tells the error.
        tempfile::tempdir()?.close()?;
        let (server, path) = while_sharing(|| made(IpcOneShotServer::new))?;
        Ok((Server { server, path: path.clone() }, path))
    }

    /// Blocks until the next message. `None`: the supervisor has closed the channel.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn recv(&self) -> Result<Option<Tasks>, RecvError> {
        loop {
            match self.receiver.recv() {
                Ok(Wire(bytes)) => return codec::decode(&bytes).map(Some).map_err(RecvError::Malformed),
                Err(IpcError::Disconnected) => return Ok(None),
                Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Server {
    /// Blocks until the supervisor has connected and sent its first message, which is empty.
    ///
    /// # Errors
    /// [`RecvError`]: the supervisor closed the channel, or its first message is not an empty one.
    pub fn accept(self) -> Result<Channel, RecvError> {
        let (receiver, Wire(first)) = self.server.accept()?;
        let first: Tasks = codec::decode(&first).map_err(RecvError::Malformed)?;
        if !first.tasks.is_empty() {
            return Err(RecvError::Io(io::Error::new(
                io::ErrorKind::InvalidData,
                "tasks before the greeting",
            )));
        }
        let socket = while_sharing(|| accepted(&self.path)).map_err(RecvError::Io)?;
        Ok(Channel { receiver, socket })
    }
}

/// What `make` makes. Its panic is `NotFound`: `TMPDIR` was removed since the try, as at the end of a daemon.
fn made<T>(make: impl FnOnce() -> io::Result<T> + UnwindSafe) -> io::Result<T> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the folder for the task channel was removed");
    catch_unwind(make).unwrap_or_else(|_| Err(gone()))
}

/// Finds the accepted socket by its server's name; the server accepts one connection only.
fn accepted(path: &str) -> io::Result<OwnedFd> {
    let ours = find_connection(&|names| names.own.as_deref() == Some(Path::new(path)))?;
    ours.map(|found| found.socket).ok_or_else(|| io::Error::other("the accepted socket is not to be found"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bulkhead_sys::descriptors::set_nonblocking;
    use bulkhead_sys::interrupt_timer::InterruptTimer;
    use bulkhead_sys::socket::send_with_fd;

    use super::*;
    use crate::supervisor::{Sender, connect};

    fn pair() -> (Sender, Channel) {
        let (server, path) = Channel::listen().unwrap();
        let folder = Path::new(&path).parent().unwrap();
        (connect(&path, folder, std::process::id()).unwrap(), server.accept().unwrap())
    }

    /// How often a thread of this process has gone to sleep in the kernel; `None`: it has ended.
    fn sleeps(thread: &Path) -> Option<u64> {
        let status = std::fs::read_to_string(thread.join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().last()?.parse().ok()
    }

    #[test]
    fn a_signal_does_not_end_a_wait_for_tasks() {
        let (sender, channel) = pair();
        let (say, waits) = mpsc::channel();
        let receiver = std::thread::spawn(move || {
            let _timer = InterruptTimer::start().unwrap();
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            say.send(Path::new("/proc").join(thread)).unwrap();
            channel.recv()
        });
        let thread = waits.recv().unwrap();
        let before = sleeps(&thread).unwrap_or(0);
        // Each signal wakes it, so it has been interrupted when it has slept some more times.
        while sleeps(&thread).is_some_and(|now| now < before + 5) {
            std::thread::yield_now();
        }
        let _sent = sender.send(&Tasks::default());
        assert_eq!(receiver.join().unwrap().unwrap(), Some(Tasks::default()));
    }

    #[test]
    fn a_channel_that_ends_with_unread_bytes_has_ended_and_not_failed() {
        let (sender, channel) = pair();
        send_with_fd(channel.as_fd(), b"nobody reads this", None).unwrap();
        drop(sender);
        assert_eq!(channel.recv().unwrap(), None);
    }

    #[test]
    fn another_failure_of_the_socket_is_not_taken_for_the_end() {
        let (_sender, channel) = pair();
        set_nonblocking(channel.as_fd()).unwrap();
        let error = channel.recv().unwrap_err();
        assert!(
            matches!(&error, RecvError::Io(error) if error.kind() == io::ErrorKind::WouldBlock),
            "{error}"
        );
    }

    #[test]
    fn a_panic_of_the_library_is_an_error() {
        let error = made(|| -> io::Result<()> { panic!("no folder") }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(made(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn an_error_says_what_was_wrong() {
        let error = codec::decode::<Tasks>(&[0xff]).unwrap_err();
        assert_eq!(RecvError::Malformed(error.clone()).to_string(), error.to_string());
        assert_eq!(RecvError::from(IpcError::Io(io::Error::other("no luck"))).to_string(), "no luck");
    }
}
