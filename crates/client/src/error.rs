//! The errors of a client, in words that say what to do.
//!
//! Two enums: [`ConnectFailure`] until the daemon has accepted the connection, [`Error`] afterwards. Each text is a
//! fragment that names the path, the limit or the version that it is about.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_proto::client::frame::Oversized;
use bulkhead_proto::client::places::SYSTEM_SOCKET;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::codec::CodecError;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::limits::{INLINE_MAX_BYTES, KEY_MAX_BYTES, PROTOCOL_VERSION};
use bulkhead_proto::plain::Plain;
use bulkhead_sys::user_namespace::name_of;

use crate::closed_gate::ClosedGate;
use crate::discovery::SkippedPlace;

/// Why there is no connection to a daemon.
#[derive(Debug)]
pub enum ConnectFailure {
    /// No process listens on this socket.
    Nobody {
        /// The path.
        path: PathBuf,
    },
    /// No process listens on any of the usual sockets.
    NoDaemon {
        /// Their paths, in the order in which they were tried.
        tried: Vec<PathBuf>,
        /// The usual places that were passed over, because something of another user is there.
        skipped: Vec<SkippedPlace>,
    },
    /// The permissions of the socket do not let this user connect.
    NoPermission {
        /// The path.
        path: PathBuf,
        /// What shuts the user out, if it can be seen.
        gate: Option<ClosedGate>,
    },
    /// The daemon does not serve this user.
    Denied {
        /// The path.
        path: PathBuf,
        /// Whom it serves. `None`: it did not say.
        why: Option<Refusal>,
    },
    /// The daemon has as many connections as its limit allows, or as it allows this user.
    Busy {
        /// The path.
        path: PathBuf,
        /// The bound that was met. `None`: the daemon named none, or its queue of new connections is full.
        why: Option<Refusal>,
    },
    /// The daemon speaks another version of the protocol than [`PROTOCOL_VERSION`].
    WrongVersion {
        /// The path.
        path: PathBuf,
        /// The daemon's version.
        daemon: u32,
    },
    /// The process that listens there is no Bulkhead daemon.
    NotADaemon {
        /// The path.
        path: PathBuf,
    },
    /// A process listens there and sends no hello.
    NoAnswer {
        /// The path.
        path: PathBuf,
        /// How long the client waited.
        waited: Duration,
    },
    /// The folder of the user's own socket belongs to another user.
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
        /// The uid of its owner.
        owner: u32,
        /// The user.
        uid: u32,
    },
    /// `XDG_RUNTIME_DIR` names a folder of another user.
    ForeignRuntimeFolder {
        /// The folder.
        folder: PathBuf,
        /// The uid of its owner.
        owner: u32,
        /// The user.
        uid: u32,
    },
    /// A process of a user listens there who is not trusted with this socket.
    ForeignListener {
        /// The path.
        path: PathBuf,
        /// The uid of that user.
        uid: u32,
    },
    /// A process of a user listens there whom the user namespace of this process does not map.
    UnmappedListener {
        /// The path.
        path: PathBuf,
        /// The uid that stands for all such users.
        shown_as: u32,
    },
    /// A system call failed.
    Io {
        /// The path.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody { path } => {
                let path = path.display();
                write!(
                    out,
                    "no daemon listens on {path}: start one with `bulkhead-supervisor --socket {path}`"
                )
            }
            Self::NoDaemon { tried, skipped } => no_daemon(out, tried, skipped),
            Self::NoPermission { path, gate } => {
                write!(out, "no permission to connect to {}", path.display())?;
                gate.iter().try_for_each(|gate| write!(out, ": {gate}"))
            }
            Self::Denied { path, why: Some(Refusal::Denied { needed }) } => {
                write!(out, "the daemon on {} does not serve this user: {}", path.display(), Plain(needed))
            }
            Self::Denied { path, .. } => write!(
                out,
                "the daemon on {} does not serve this user: a user's own daemon serves that user and root, the \
                 system's the members of its group, never the user it runs as",
                path.display()
            ),
            Self::Busy { path, why: Some(why) } => write!(
                out,
                "the daemon on {} takes no further connection of this user: {why}, or close some of your connections",
                path.display()
            ),
            Self::Busy { path, why: None } => write!(
                out,
                "the daemon on {} takes no connection now: it has too many, or too many wait to be taken: try again later",
                path.display()
            ),
            Self::WrongVersion { path, daemon } => write!(
                out,
                "the daemon on {} speaks protocol version {daemon}, this program speaks version \
                 {PROTOCOL_VERSION}: use the `bulkhead` that came with that daemon, or restart the daemon after an \
                 upgrade",
                path.display()
            ),
            Self::NotADaemon { path } => {
                write!(
                    out,
                    "the process that listens on {} is no Bulkhead daemon: give another --socket",
                    path.display()
                )
            }
            Self::NoAnswer { path, waited } => write!(
                out,
                "the daemon on {} did not answer within {} s: it is stopped or hangs",
                path.display(),
                waited.as_secs_f32()
            ),
            Self::ForeignFolder { .. }
            | Self::ForeignRuntimeFolder { .. }
            | Self::ForeignListener { .. }
            | Self::UnmappedListener { .. } => self.name_foreigner(out),
            Self::Io { path, error } => write!(out, "cannot connect to {}: {error}", path.display()),
        }
    }
}

/// Whose daemon should listen on a usual socket.
fn rightful(path: &Path) -> &'static str {
    if path == Path::new(SYSTEM_SOCKET) {
        "is for root and the owner of its folder"
    } else {
        "is for your own daemon"
    }
}

fn no_daemon(out: &mut fmt::Formatter<'_>, tried: &[PathBuf], skipped: &[SkippedPlace]) -> fmt::Result {
    let tried: Vec<_> = tried.iter().map(|path| path.display().to_string()).collect();
    let tried = if tried.is_empty() { "any place that is trusted".to_owned() } else { tried.join(" or ") };
    write!(
        out,
        "no daemon listens on {tried}: start your own with `bulkhead-supervisor`, or the system's with `systemctl start \
         bulkhead`"
    )?;
    skipped.iter().try_for_each(|place| write!(out, "; {place}"))
}

impl std::error::Error for ConnectFailure {}

impl ConnectFailure {
    /// Whose thing stands where a daemon was looked for, and what to do.
    fn name_foreigner(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignFolder { folder, owner, uid } => write!(
                out,
                "the folder {} belongs to {}, not to you (user {uid}), so no socket in it is trusted: remove it or have \
                 it removed, set XDG_RUNTIME_DIR, or give --socket",
                folder.display(),
                name_of(*owner)
            ),
            Self::ForeignRuntimeFolder { folder, owner, uid } => write!(
                out,
                "XDG_RUNTIME_DIR is {}, which belongs to {}, not to you (user {uid}): unset it (su and sudo may keep it), \
                 or give --socket for that user's daemon",
                folder.display(),
                name_of(*owner)
            ),
            Self::ForeignListener { path, uid } => write!(
                out,
                "a process of user {uid} listens on {}, which {}: if you trust it, give --socket",
                path.display(),
                rightful(path)
            ),
            Self::UnmappedListener { path, shown_as } => write!(
                out,
                "the process that listens on {} runs as a user whom this user namespace does not map (shown as \
                 {shown_as}), so nothing tells whose it is: if you trust it, give --socket",
                path.display()
            ),
            _ => Ok(()),
        }
    }

    /// Whether something of another user stands where a daemon was looked for.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::ForeignFolder { .. }
                | Self::ForeignRuntimeFolder { .. }
                | Self::ForeignListener { .. }
                | Self::UnmappedListener { .. }
        )
    }
}

/// What went wrong on a connection.
#[derive(Debug)]
pub enum Error {
    /// The daemon refused the request.
    Refused(Refusal),
    /// The daemon closed the connection and gave this reason.
    Goodbye(Refusal),
    /// The connection ended without a goodbye: the daemon died, or this client closed it after a protocol error.
    Closed {
        /// Whether it ended in the middle of a frame.
        in_a_frame: bool,
    },
    /// The daemon broke the protocol.
    Protocol(ProtocolError),
    /// The connection is open and the daemon sends nothing.
    NoReply {
        /// How long we waited.
        waited: Duration,
    },
    /// A signal arrived that [`crate::Interrupts`] watches.
    Interrupted,
    /// An input is longer than an inline input may be.
    InputTooLong {
        /// Its index among the inputs, from 0.
        index: u64,
        /// Its length.
        bytes: usize,
    },
    /// An input is in an arena, and the jobs of this call have no session.
    InputInArena {
        /// Its index among the inputs, from 0.
        index: u64,
    },
    /// The key of a durable submit is empty, or too long.
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The most that this submit may have: less if it is sent in several requests, whose keys are numbered.
        limit: usize,
    },
    /// The request does not fit a frame.
    TooLong(Oversized),
    /// More replies to other requests arrived on this connection than the client buffers.
    ReplyBufferFull {
        /// The limit.
        limit_bytes: usize,
    },
    /// The callback that gets log entries returned an error.
    Callback(io::Error),
    /// A system call failed.
    Io(io::Error),
}

/// How a daemon can break the protocol.
#[derive(Debug)]
pub enum ProtocolError {
    /// A frame above the size limit.
    Frame(Oversized),
    /// A frame that cannot be decoded as a reply.
    Codec(CodecError),
    /// A reply to a request that was never made.
    Tag(Tag),
    /// A reply of a kind that does not answer its request; the word names the kind.
    Reply(&'static str),
    /// An answer for more or fewer jobs than were submitted.
    Count {
        /// Jobs asked for.
        asked: usize,
        /// Jobs answered for.
        answered: u64,
    },
    /// A job that this request is not about, or that ended twice.
    Job(JobId),
    /// A reply that announces a descriptor came without one.
    NoDescriptor(JobId),
    /// Descriptors that no reply announced.
    StrayDescriptors(usize),
    /// A result in an arena that cannot be read.
    Block {
        /// The job whose output it is.
        job: JobId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A descriptor of another size than its reply announced.
    DescriptorSize {
        /// The job whose output it is.
        job: JobId,
        /// Bytes announced.
        announced: u64,
        /// Bytes in the file.
        there: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(out),
            Self::Goodbye(refusal) => write!(out, "the daemon ended the connection: {refusal}"),
            Self::Closed { in_a_frame: false } => {
                out.write_str("the daemon is gone: it closed the connection")
            }
            Self::Closed { in_a_frame: true } => {
                out.write_str("the daemon is gone: the connection ended in the middle of a reply")
            }
            Self::Protocol(fault) => write!(out, "the daemon broke the protocol: {fault}"),
            Self::NoReply { waited } => {
                write!(
                    out,
                    "the daemon did not answer within {} s: it is stopped or hangs",
                    waited.as_secs_f32()
                )
            }
            Self::Interrupted => out.write_str("interrupted"),
            Self::InputTooLong { index, bytes } => {
                write!(out, "input {index} is {bytes} bytes long, the limit is {INLINE_MAX_BYTES} bytes")
            }
            Self::InputInArena { index } => {
                write!(out, "input {index} is in an arena: submit it in the session that the arena is of")
            }
            Self::KeyTooLong { bytes, limit: KEY_MAX_BYTES } => {
                write!(out, "the key is {bytes} bytes long, it may have from 1 to {KEY_MAX_BYTES} bytes")
            }
            Self::KeyTooLong { bytes, limit } => write!(
                out,
                "the key is {bytes} bytes long, it may have from 1 to {limit} bytes for so many jobs, which are sent in \
                 several requests with numbered keys"
            ),
            Self::TooLong(oversized) => write!(out, "the request is too long: {oversized}"),
            Self::ReplyBufferFull { limit_bytes } => {
                write!(
                    out,
                    "more than {limit_bytes} bytes of replies to other requests are waiting to be read"
                )
            }
            Self::Callback(error) => write!(out, "cannot write what the job logged: {error}"),
            Self::Io(error) => write!(out, "connection to the daemon failed: {error}"),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(oversized) => oversized.fmt(out),
            Self::Codec(error) => error.fmt(out),
            Self::Tag(tag) => write!(out, "a reply to request {tag}, which was never sent"),
            Self::Reply(word) => write!(out, "a reply of the wrong kind ({word})"),
            Self::Count { asked, answered } => {
                write!(out, "{asked} jobs were submitted, the reply is about {answered}")
            }
            Self::Job(job) => write!(out, "the end of job {job}, which this request is not about"),
            Self::NoDescriptor(job) => write!(out, "the output of job {job} arrived without its descriptor"),
            Self::StrayDescriptors(count) => write!(out, "{count} descriptors that no reply announced"),
            Self::Block { job, why } => write!(out, "the output of job {job} cannot be read: {why}"),
            Self::DescriptorSize { job, announced, there } => {
                write!(out, "the output of job {job} has {there} bytes, {announced} were announced")
            }
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Whether the connection ended and the daemon gave no reason: it died, perhaps before it answered. A daemon that is started
    /// again may answer.
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            }
            _ => false,
        }
    }
}

impl From<ProtocolError> for Error {
    fn from(fault: ProtocolError) -> Self {
        Self::Protocol(fault)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
