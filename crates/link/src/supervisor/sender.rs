//! The sending end of a worker's ipc-channel. Nothing is ever received on it.
//!
//! Its socket is non-blocking, so a full channel is an error and no wait. A message is sent whole or not at all, as
//! long as it is smaller than the size from which the library splits messages. Driven by the supervisor's
//! `worker_table.rs`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_proto::codec;
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::TASK_MESSAGE_MAX_BYTES;
use bulkhead_proto::worker::message::Tasks;
use bulkhead_sys::descriptors::default_send_buffer;
use bulkhead_sys::untrusted;
use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcSender, channel};

use crate::wire::Wire;

/// An upper bound of what the library and the kernel use of a socket's buffer for themselves.
const OVERHEAD_BYTES: usize = 8 << 10;
/// An upper bound of a task's encoded fields without its input, and of a message's own fields.
const TASK_BYTES: usize = 83;
/// Size of the buffer for the last reads when the channel ends.
const LAST_READ_BYTES: usize = 4 << 10;

/// Why tasks were not sent. None of them was.
#[derive(Debug)]
pub enum SendError {
    /// The channel is full: the worker has not received what was sent.
    Full,
    /// The worker has closed its end or is dead.
    Closed,
    /// `InvalidInput`: the message is over the limit. ENOMEM, ENOBUFS: the kernel lacks memory.
    Io(io::Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => out.write_str("the worker's channel is full"),
            Self::Closed => out.write_str("the worker's channel is closed"),
            Self::Io(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for SendError {}

/// The sending end of a worker's channel. Dropping it asks the worker to exit, and can block in the last close of
/// descriptors that the worker left in it, see [`Sender::hang_up`].
#[derive(Debug)]
pub struct Sender {
    channel: IpcSender<Wire>,
    /// A second descriptor of the channel's socket, because the library does not expose its own.
    socket: OwnedFd,
}

impl Sender {
    /// `channel`'s socket is non-blocking.
    pub(crate) fn new(channel: IpcSender<Wire>, socket: OwnedFd) -> Self {
        Self { channel, socket }
    }

    /// Shuts the channel down in both directions, which asks the worker to exit. Returns `true` if its queue is
    /// empty, so that a close cannot block; otherwise drop it in a thread that may block.
    pub fn hang_up(&self) -> bool {
        untrusted::hang_up_frames(self.socket.as_fd(), &mut [0; LAST_READ_BYTES])
    }

    /// Sends a message of tasks, in the order of their seq. Never blocks.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent then.
    pub fn send(&self, tasks: &Tasks) -> Result<(), SendError> {
        let bytes = codec::encode(tasks);
        if bytes.len() > TASK_MESSAGE_MAX_BYTES {
            let text =
                format!("message of {} bytes is over the limit of {TASK_MESSAGE_MAX_BYTES}", bytes.len());
            return Err(SendError::Io(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        match self.channel.send(Wire(bytes)) {
            Ok(()) => Ok(()),
            Err(IpcError::Disconnected) => Err(SendError::Closed),
            #[allow(clippy::wildcard_enum_match_arm)] // std's list of kinds is open
            Err(IpcError::Io(error)) => Err(match error.kind() {
                io::ErrorKind::WouldBlock => SendError::Full,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SendError::Closed,
                _ => SendError::Io(error),
            }),
            Err(IpcError::SerializationError(error)) => Err(SendError::Io(io::Error::other(error))),
        }
    }
}

/// An upper bound of what a task with this input adds to a message, in bytes. Tasks whose sum stays within
/// [`TASK_MESSAGE_MAX_BYTES`] fit one message.
pub fn encoded_size(input: &Payload) -> usize {
    TASK_BYTES + input.as_bytes().len()
}

/// Makes the library measure its socket buffer while descriptors are available: its first message creates a socket
/// pair for that, and panics if none can be created.
///
/// # Errors
/// EMFILE, ENFILE: no descriptor is free. `InvalidInput`: `net.core.wmem_default` is so small that messages would be
/// split, and the send of a fragment can block; the text gives the smallest value that works.
pub fn warm_up() -> io::Result<()> {
    check_send_buffer(default_send_buffer()?)?;
    let failed = |error: IpcError| match error {
        IpcError::Io(error) => error,
        other @ (IpcError::Disconnected | IpcError::SerializationError(_)) => io::Error::other(other),
    };
    let (sender, receiver) = channel()?;
    sender.send(Wire(Vec::new())).map_err(failed)?;
    let Wire(_) = receiver.recv().map_err(failed)?;
    Ok(())
}

/// Whether a socket whose buffer has so many bytes takes the largest message whole.
fn check_send_buffer(bytes: usize) -> io::Result<()> {
    let needed = TASK_MESSAGE_MAX_BYTES + OVERHEAD_BYTES;
    if bytes < needed {
        let text = format!("net.core.wmem_default is {bytes}, Bulkhead needs at least {needed}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

const _: () = assert!(TASK_BYTES + bulkhead_proto::limits::INLINE_MAX_BYTES < TASK_MESSAGE_MAX_BYTES);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use bulkhead_proto::ids::{Fence, JobId, KindId, Seq};
    use bulkhead_proto::job::OutputMode;
    use bulkhead_proto::limits::INLINE_MAX_BYTES;
    use bulkhead_proto::worker::message::{OutputRoom, TaskMessage};
    use bulkhead_proto::worker::stage::Stage;
    use bulkhead_sys::socket::send_with_fd;

    use super::*;
    use crate::supervisor::connect;
    use crate::worker::{Channel, Server};

    /// A task with the largest numbers there are, and this much input.
    fn task(input: usize) -> TaskMessage {
        TaskMessage {
            seq: Seq(u64::MAX),
            job: JobId(u64::MAX),
            fence: Fence(u32::MAX),
            kind: KindId(u16::MAX),
            stage: Stage::Run { part: u32::MAX, parts: u32::MAX },
            has_files: true,
            memory_bytes: Some(u64::MAX),
            grace_ms: 0,
            output: OutputMode::Descriptor,
            room: OutputRoom { own_bytes: u64::MAX, shared_bytes: u64::MAX },
            uses: None,
            input: Payload::from(vec![255; input]),
        }
    }

    fn pair() -> (Sender, Server) {
        let (server, path) = Channel::listen().unwrap();
        let folder = std::path::Path::new(&path).parent().unwrap().to_owned();
        (connect(&path, &folder, std::process::id()).unwrap(), server)
    }

    #[test]
    fn the_size_of_a_task_is_never_underestimated() {
        for input in [0, 1, 250, 251, 300, INLINE_MAX_BYTES] {
            let tasks = Tasks { tasks: vec![task(input)] };
            assert!(codec::encode(&tasks).len() <= encoded_size(&tasks.tasks[0].input), "input={input}");
        }
    }

    #[test]
    fn a_full_channel_says_so_and_loses_nothing() {
        let (sender, server) = pair();
        let message = Tasks { tasks: (0..7).map(|_| task(INLINE_MAX_BYTES)).collect() };
        let mut sent = 0;
        let error = loop {
            match sender.send(&message) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SendError::Full) && sent > 0, "{error} after {sent}");
        let channel = server.accept().unwrap();
        for _ in 0..sent {
            assert_eq!(channel.recv().unwrap().as_ref(), Some(&message));
        }
        sender.send(&message).unwrap();
        assert_eq!(channel.recv().unwrap(), Some(message));
    }

    #[test]
    fn a_closed_channel_says_so() {
        let (sender, server) = pair();
        drop(server.accept().unwrap());
        assert!(matches!(sender.send(&Tasks::default()), Err(SendError::Closed)));
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let (sender, server) = pair();
        let large = Tasks { tasks: (0..9).map(|_| task(INLINE_MAX_BYTES)).collect() };
        assert!(
            matches!(sender.send(&large), Err(SendError::Io(error)) if error.kind() == io::ErrorKind::InvalidInput)
        );
        sender.send(&Tasks::default()).unwrap();
        assert_eq!(server.accept().unwrap().recv().unwrap(), Some(Tasks::default()));
    }

    #[test]
    fn a_message_as_long_as_the_limit_arrives() {
        let (sender, server) = pair();
        let mut tasks: Vec<_> = (0..7).map(|_| task(INLINE_MAX_BYTES)).collect();
        tasks.push(task(300));
        let mut message = Tasks { tasks };
        let missing = TASK_MESSAGE_MAX_BYTES - codec::encode(&message).len();
        message.tasks[7] = task(300 + missing);
        assert_eq!(codec::encode(&message).len(), TASK_MESSAGE_MAX_BYTES);
        sender.send(&message).unwrap();
        assert_eq!(server.accept().unwrap().recv().unwrap(), Some(message));
    }

    #[test]
    fn a_hang_up_ends_the_channel_and_says_whether_a_close_can_block() {
        let ((sender, server), (other_sender, other_server)) = (pair(), pair());
        let (channel, other) = (server.accept().unwrap(), other_server.accept().unwrap());
        for _ in 0..2 {
            send_with_fd(channel.as_fd(), b"nobody reads this", None).unwrap();
        }
        let (_kept, left) = UnixStream::pair().unwrap();
        send_with_fd(other.as_fd(), b"x", Some(left.as_fd())).unwrap();
        assert!(sender.hang_up(), "bytes alone hold nobody up");
        assert!(!other_sender.hang_up(), "the close of what the worker left in it can block");
        assert_eq!(channel.recv().unwrap(), None);
        assert_eq!(other.recv().unwrap(), None);
    }

    #[test]
    fn each_failure_says_what_is_the_matter() {
        assert_eq!(SendError::Full.to_string(), "the worker's channel is full");
        assert_eq!(SendError::Closed.to_string(), "the worker's channel is closed");
        let (sender, _server) = pair();
        let large = Tasks { tasks: (0..9).map(|_| task(INLINE_MAX_BYTES)).collect() };
        let text = sender.send(&large).unwrap_err().to_string();
        let sizes = [codec::encode(&large).len(), TASK_MESSAGE_MAX_BYTES];
        assert!(sizes.iter().all(|size| text.contains(&size.to_string())), "{text}");
    }

    #[test]
    fn a_socket_buffer_that_would_split_a_message_is_refused_with_the_size_that_works() {
        // What the library and the kernel use of it for themselves comes on top of a message.
        let error = check_send_buffer(TASK_MESSAGE_MAX_BYTES).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let text = error.to_string();
        let needed: usize = text.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(text.contains(&format!("is {TASK_MESSAGE_MAX_BYTES},")), "{text}");
        assert!(check_send_buffer(needed - 1).is_err());
        check_send_buffer(needed).unwrap();
    }

    #[test]
    fn warming_up_twice_is_fine() {
        warm_up().unwrap();
        warm_up().unwrap();
    }
}
