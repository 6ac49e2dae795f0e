//! The receiving end of the channel: the worker makes the server, the supervisor connects.
//!
//! The server's socket lies in a folder of its own below `TMPDIR`, and is removed when the connection stands.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// The message is not one of ours.
    Malformed(CodecError),
    /// The socket failed, or the library could not make sense of what came.
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
            other => Self::Io(io::Error::other(other)),
        }
    }
}

/// Waits for the supervisor to connect.
pub struct Server {
    server: IpcOneShotServer<Wire>,
    path: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The receiving end. Its descriptor is readable when a message or the end is there.
#[derive(Debug)]
pub struct Channel {
    receiver: IpcReceiver<Wire>,
    /// Another descriptor of the same socket: the library does not show its own.
    socket: OwnedFd,
}

impl Channel {
    /// Makes a server, and tells the path that the supervisor must be told.
    ///
    /// # Errors
    /// Whatever making a folder or a socket below `TMPDIR` says.
    pub fn listen() -> io::Result<(Server, String)> {
        let (server, path) = while_sharing(IpcOneShotServer::new)?;
        Ok((Server { server, path: path.clone() }, path))
    }

    /// Blocks for the next message; `None`: the channel is closed, there will be no more.
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
    /// [`RecvError`]: it closed the channel again, or its first message is not what it should be.
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

/// The accepted socket has its server's name, and is alone with it: the server takes one connection.
fn accepted(path: &str) -> io::Result<OwnedFd> {
    let ours = find_connection(&|names| names.own.as_deref() == Some(Path::new(path)))?;
    ours.map(|found| found.socket).ok_or_else(|| io::Error::other("the accepted socket is not to be found"))
}
