//! From a path to a client: connect, exchange hellos, read the verdict.
//!
//! Every step has a deadline. A daemon that is stopped still has a listening socket, and its kernel still takes
//! connections: only the missing hello tells.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_proto::client::frame::Hello;
use bulkhead_proto::limits::PROTOCOL_VERSION;

use crate::client::DaemonClient;
use crate::error::ConnectFailure;
use crate::frame_socket::FrameSocket;

/// How long a daemon may take to say hello.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the daemon that listens at `path`.
///
/// # Errors
/// [`ConnectFailure`] names the path and what to do; it comes after 10 s at the latest.
pub fn connect(path: &Path) -> Result<DaemonClient, ConnectFailure> {
    connect_within(path, HELLO_TIMEOUT)
}

/// As [`connect`], for a daemon that may take this long to say hello.
///
/// # Errors
/// As [`connect`], after `timeout` at the latest.
pub fn connect_within(path: &Path, timeout: Duration) -> Result<DaemonClient, ConnectFailure> {
    let failed = |error: std::io::Error| ConnectFailure::Io { path: path.to_owned(), error };
    let mut socket = dial(path)?;
    let hello = exchange(&mut socket, path, timeout)?;
    judge(hello, path)?;
    Ok(DaemonClient::new(FrameSocket::new(socket).map_err(failed)?))
}

fn dial(path: &Path) -> Result<UnixStream, ConnectFailure> {
    let path = path.to_owned();
    bulkhead_sys::dial::dial(&path).map_err(|error| match error.kind() {
        // The kernel refuses a connection to a plain file as it does one to a socket that nobody listens on.
        ErrorKind::ConnectionRefused if is_no_socket(&path) => {
            ConnectFailure::Io { path, error: std::io::Error::other("it is not a socket") }
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ConnectFailure::Nobody { path },
        ErrorKind::PermissionDenied => ConnectFailure::NoPermission { path },
        ErrorKind::WouldBlock => ConnectFailure::Busy { path },
        _ => ConnectFailure::Io { path, error },
    })
}

fn is_no_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

/// Says hello and reads the daemon's. Its verdict may come before ours was read, and the connection be closed: then
/// our write fails, and its hello is there all the same.
fn exchange(socket: &mut UnixStream, path: &Path, timeout: Duration) -> Result<Hello, ConnectFailure> {
    let until = Instant::now() + timeout;
    let failed = |error: std::io::Error| ConnectFailure::Io { path: path.to_owned(), error };
    let silent = || ConnectFailure::NoAnswer { path: path.to_owned(), waited: timeout };
    let ended = || ConnectFailure::NotADaemon { path: path.to_owned() };
    // Sixteen bytes always fit the empty buffer of a new socket: this does not block.
    if let Err(error) = socket.write_all(&Hello::new(Hello::WELCOME).to_bytes())
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(failed(error));
    }
    let mut bytes = [0; Hello::BYTES];
    let mut count = 0;
    while count < bytes.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silent());
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        match socket.read(&mut bytes[count..]) {
            Ok(0) => return Err(ended()),
            Ok(more) => count += more,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(silent()),
                ErrorKind::ConnectionReset => return Err(ended()),
                _ => return Err(failed(error)),
            },
        }
    }
    Hello::from_bytes(&bytes).ok_or_else(ended)
}

fn judge(hello: Hello, path: &Path) -> Result<(), ConnectFailure> {
    let path = path.to_owned();
    match hello.verdict {
        Hello::BUSY => Err(ConnectFailure::Busy { path }),
        Hello::DENIED => Err(ConnectFailure::Denied { path }),
        _ if hello.version != PROTOCOL_VERSION => {
            Err(ConnectFailure::WrongVersion { path, daemon: hello.version })
        }
        Hello::WELCOME => Ok(()),
        _ => Err(ConnectFailure::NotADaemon { path }),
    }
}
