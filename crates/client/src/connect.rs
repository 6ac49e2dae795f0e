//! Connects to a daemon's socket: connect, ask who listens, exchange hellos, read the daemon's verdict.
//!
//! Every step has a deadline. The kernel accepts connections for a daemon that is stopped, so only the missing hello
//! shows that nobody will answer.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_proto::client::frame::{Frames, Hello};
use bulkhead_proto::client::message::{Reply, ReplyFrame};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::codec;
use bulkhead_proto::limits::PROTOCOL_VERSION;

use crate::client::DaemonClient;
use crate::closed_gate::ClosedGate;
use crate::error::ConnectFailure;
use crate::frame_socket::FrameSocket;
use crate::listener_trust::ListenerTrust;

/// How long a daemon may take to send its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the daemon that listens at `path`, whichever user it runs as: the caller's word names it.
///
/// # Errors
/// [`ConnectFailure`], after 10 s at the latest. It names the path and what to do.
pub fn connect(path: &Path) -> Result<DaemonClient, ConnectFailure> {
    connect_within(path, ListenerTrust::Anybody, HELLO_TIMEOUT)
}

/// As [`connect`], with another deadline for the daemon's hello, and if the user who listens there is trusted.
///
/// # Errors
/// As [`connect`], after `timeout` at the latest.
pub fn connect_within(
    path: &Path,
    trust: ListenerTrust,
    timeout: Duration,
) -> Result<DaemonClient, ConnectFailure> {
    greet(dial(path, trust)?, path, timeout)
}

/// Exchanges hellos on a connected socket.
pub(crate) fn greet(
    mut socket: UnixStream,
    path: &Path,
    timeout: Duration,
) -> Result<DaemonClient, ConnectFailure> {
    let failed = |error: std::io::Error| ConnectFailure::Io { path: path.to_owned(), error };
    let until = Instant::now() + timeout;
    let hello = exchange(&mut socket, path, (until, timeout))?;
    if hello.verdict == Hello::BUSY {
        let why = goodbye(&mut socket, until);
        return Err(ConnectFailure::Busy { path: path.to_owned(), why });
    }
    if hello.verdict == Hello::DENIED {
        // Words of another version may mean something else.
        let is_ours = hello.version == PROTOCOL_VERSION;
        let why = is_ours.then(|| goodbye(&mut socket, until)).flatten();
        return Err(ConnectFailure::Denied { path: path.to_owned(), why });
    }
    judge(hello, path)?;
    Ok(DaemonClient::new(FrameSocket::new(socket).map_err(failed)?))
}

/// Connects, and asks whose process listens there before a byte is sent.
pub(crate) fn dial(path: &Path, trust: ListenerTrust) -> Result<UnixStream, ConnectFailure> {
    let socket = dial_anybody(path)?;
    trust.check(socket.as_fd(), path)?;
    Ok(socket)
}

fn dial_anybody(path: &Path) -> Result<UnixStream, ConnectFailure> {
    let path = path.to_owned();
    bulkhead_sys::dial::dial(&path).map_err(|error| match error.kind() {
        // connect(2) fails with ECONNREFUSED for a regular file, as for a socket without a listener.
        ErrorKind::ConnectionRefused if is_no_socket(&path) => {
            ConnectFailure::Io { path, error: std::io::Error::other("it is not a socket") }
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ConnectFailure::Nobody { path },
        ErrorKind::PermissionDenied => ConnectFailure::NoPermission { gate: ClosedGate::of(&path), path },
        ErrorKind::WouldBlock => ConnectFailure::Busy { path, why: None },
        _ => ConnectFailure::Io { path, error },
    })
}

fn is_no_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

/// Sends our hello and reads the daemon's. A daemon may send its verdict and close the connection before it reads our
/// hello. Our write then fails with EPIPE, but the daemon's hello can still be read.
fn exchange(
    socket: &mut UnixStream,
    path: &Path,
    (until, timeout): (Instant, Duration),
) -> Result<Hello, ConnectFailure> {
    let failed = |error: std::io::Error| ConnectFailure::Io { path: path.to_owned(), error };
    let silent = || ConnectFailure::NoAnswer { path: path.to_owned(), waited: timeout };
    let ended = || ConnectFailure::NotADaemon { path: path.to_owned() };
    // The empty buffer of a new socket has room for the sixteen bytes, so this write does not block.
    if let Err(error) = socket.write_all(&Hello::new(Hello::WELCOME).to_bytes())
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(failed(error));
    }
    let mut bytes = [0; Hello::BYTES];
    let mut count = 0;
    while count < bytes.len() {
        match read_until(socket, &mut bytes[count..], until) {
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

/// Reads what has come, or waits for it.
///
/// # Errors
/// Those of read(2); [`ErrorKind::TimedOut`] or [`ErrorKind::WouldBlock`]: nothing has come until then.
fn read_until(socket: &mut UnixStream, buffer: &mut [u8], until: Instant) -> std::io::Result<usize> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    socket.set_read_timeout(Some(left))?;
    socket.read(buffer)
}

/// The reason that a daemon gives after a hello that turns us away. `None`: it gives none, or it did not arrive in time.
fn goodbye(socket: &mut UnixStream, until: Instant) -> Option<Refusal> {
    let (mut frames, mut buffer) = (Frames::default(), [0; 4096]);
    loop {
        if let Some(frame) = frames.next_frame().ok()? {
            let frame = codec::decode::<ReplyFrame>(frame).ok()?;
            let Reply::Goodbye(why) = frame.reply else { return None };
            return Some(why);
        }
        match read_until(socket, &mut buffer, until) {
            Ok(0) => return None,
            Ok(count) => frames.feed(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn judge(hello: Hello, path: &Path) -> Result<(), ConnectFailure> {
    let path = path.to_owned();
    match hello.verdict {
        _ if hello.version != PROTOCOL_VERSION => {
            Err(ConnectFailure::WrongVersion { path, daemon: hello.version })
        }
        Hello::WELCOME => Ok(()),
        _ => Err(ConnectFailure::NotADaemon { path }),
    }
}
