//! Files of clients: descriptors attached to submits, from their arrival until their last close.
//!
//! The client decides what such a descriptor is (a file on FUSE, a lingering TCP connection, an epoll), so each
//! operation on it may block for hours. The loop therefore makes only calls that the kernel answers from its own
//! tables: F_GETFL, F_GET_SEALS, and fstat of a file that has seals. It never reads, maps or closes one. The
//! descriptors are sent to the workers of their job; the background closer closes our copies. Each counts in its
//! user's account until it is closed, and where that has no room nothing is received. The core decides which are
//! kept, and how long. Used by `connection.rs` and `perform.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_core::account::{AccountId, Resource};
use bulkhead_core::event::Attached;
use bulkhead_proto::client::message::{Register, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{self, FileUse, Way};
use bulkhead_proto::ids::FileId;
use bulkhead_proto::limits::FILES_MAX;
use bulkhead_proto::registration::RegistrationKind;
use bulkhead_sys::clock;
use bulkhead_sys::untrusted::{Access, UntrustedFd};

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::client_socket::ClientSocket;
use crate::rate_limit::{self, LineAbout};
use crate::shell_ledger::{HeldShare, ShellLedger};

/// When a client should retry that found no room.
const RETRY_AFTER_MS: u64 = 1000;

/// One descriptor of a client.
///
/// A message can carry 253 descriptors. The kernel closes those that it cannot install on behalf of the receiver, so
/// `descriptor_budget.rs` keeps 253 numbers free, and the descriptor table is grown at the start so that it needs no
/// memory later. A user who has no room gets a goodbye before anything is received. Received descriptors wait
/// in the connection for the frame that names them; the connection ends if more or fewer arrive than its frames name.
/// Then the core refers to them by number. The loop never drops the last reference:
///
/// | a reference in | is dropped by |
/// |---|---|
/// | a connection, a stored file, a refused submit | the drop of [`ClientFile`]: the closer's thread of its user |
/// | a client's socket, unread | the close of that socket, by the same thread if its queue is not empty |
/// | a lane, on its way to the worker | the last holder of the worker's end: the worker, or a process that got that end from it. Our copy of that end is closed at the spawn, and closing our own end does not drop sent files (tested in `sys/lane.rs`) |
/// | a failed send | the kernel, but the sender still holds its own reference, so it is not the last one |
/// | a lane, sent by a worker | the closer's thread for workers, with the lane |
/// | a worker | the worker: a close that blocks is within its task's time; of a file that no task has any more, its closer's |
#[derive(Debug)]
pub(crate) struct ClientFile {
    inner: Option<(UntrustedFd, HeldShare)>,
    uid: u32,
    closer: BackgroundCloser,
}

impl ClientFile {
    fn descriptor(&self) -> &UntrustedFd {
        &self.inner.as_ref().expect("only dropping it takes it out").0
    }

    /// Why it cannot be used as `wanted` says, or `None`.
    fn fault(&self, wanted: &FileUse) -> Option<String> {
        let name = &wanted.name;
        match (self.descriptor().access(), wanted.way) {
            (Ok(Access { read: true, .. }), Way::In | Way::Folder)
            | (Ok(Access { write: true, .. }), Way::Out) => None,
            (Ok(Access { append: true, .. }), Way::Out) => Some(format!(
                "file {name:?} was opened for appending, and a job writes where it wants to: open it without O_APPEND"
            )),
            (Ok(_), Way::In | Way::Folder) => {
                Some(format!("file {name:?} was not opened for reading: open it with O_RDONLY"))
            }
            (Ok(_), Way::Out) => {
                Some(format!("file {name:?} was not opened for writing: open it with O_RDWR"))
            }
            (Err(error), _) => Some(format!("file {name:?} cannot be asked how it was opened: {error}")),
        }
    }
}

impl AsFd for ClientFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor().as_fd()
    }
}

impl Drop for ClientFile {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.closer.close(CloseOwner::User(self.uid), inner);
        }
    }
}

/// All files of clients, and the ledger that counts them.
#[derive(Debug)]
pub(crate) struct ClientFileStore {
    files: BTreeMap<FileId, ClientFile>,
    last: u64,
    ledger: ShellLedger,
    closer: BackgroundCloser,
}

impl ClientFileStore {
    /// An empty store.
    pub(crate) fn new(ledger: ShellLedger, closer: BackgroundCloser) -> Self {
        Self { files: BTreeMap::new(), last: 0, ledger, closer }
    }

    /// Why no descriptors can be received from this user now, or `None`.
    pub(crate) fn shortage(&self, account: AccountId) -> Option<Refusal> {
        let room = self.ledger.room(account, Resource::Descriptors);
        (room.left() == 0).then(|| room.refusal(Resource::Descriptors, RETRY_AFTER_MS))
    }

    /// Reads from a client of this user. Attached descriptors go to `unclaimed`. To be called only if
    /// [`Self::shortage`] returns `None`.
    ///
    /// # Errors
    /// As [`ClientSocket::receive`].
    pub(crate) fn receive(
        &mut self,
        socket: &ClientSocket,
        (uid, account): (u32, AccountId),
        buffer: &mut [u8],
        unclaimed: &mut UnclaimedFiles,
    ) -> io::Result<usize> {
        let mut descriptors = Vec::new();
        let received = socket.receive(buffer, &mut descriptors);
        for descriptor in descriptors {
            let held = self.ledger.hold(account, Resource::Descriptors, 1);
            let closer = self.closer.clone();
            unclaimed.0.push_back(ClientFile { inner: Some((descriptor, held)), uid, closer });
        }
        received
    }

    /// Stores files until the core drops them.
    pub(crate) fn hold(&mut self, files: Vec<ClientFile>) -> Vec<Attached> {
        let hold = |file: ClientFile| {
            self.last += 1;
            let number = FileId(self.last);
            let pinned_bytes = file.descriptor().pinned_bytes().unwrap_or_else(|error| {
                if rate_limit::may_log(LineAbout::Client(file.uid), clock::monotonic_ns()) {
                    log::error!("cannot tell how much memory a file takes uid={} error={error}", file.uid);
                }
                0
            });
            self.files.insert(number, file);
            Attached { file: number, pinned_bytes }
        };
        files.into_iter().map(hold).collect()
    }

    /// A stored file.
    pub(crate) fn get(&self, file: FileId) -> Option<&ClientFile> {
        self.files.get(&file)
    }

    /// Drops one file.
    pub(crate) fn let_go(&mut self, file: FileId) {
        self.files.remove(&file);
    }
}

/// Descriptors that arrived on a connection and that no frame has named yet.
#[derive(Debug, Default)]
pub(crate) struct UnclaimedFiles(VecDeque<ClientFile>);

/// What happens to a submit that names files.
#[derive(Debug)]
pub(crate) enum FileClaim {
    /// As many descriptors arrived as it names.
    Granted(Vec<ClientFile>),
    /// One descriptor cannot be used as the submit says. The submit is refused and the files are dropped.
    Refused(Refusal),
    /// Fewer descriptors arrived than it names. The connection ends, because the later ones cannot be matched to
    /// frames.
    Lost(Refusal),
}

impl UnclaimedFiles {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the descriptors of a request, one for each file that it names.
    pub(crate) fn claim_for(&mut self, request: &Request) -> FileClaim {
        let claim = self.claim(request.files());
        let is_arena = matches!(request, Request::Register(Register { kind: RegistrationKind::Arena, .. }));
        match &claim {
            FileClaim::Granted(files) if is_arena && !files.iter().all(|file| file.descriptor().is_arena()) => {
                FileClaim::Refused(Refusal::Invalid {
                    why: "an arena is a memfd with the seals F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_FUTURE_WRITE, and this file \
                          lacks one: add them (fcntl F_ADD_SEALS) before it is registered"
                        .to_owned(),
                })
            }
            FileClaim::Granted(_) | FileClaim::Refused(_) | FileClaim::Lost(_) => claim,
        }
    }

    /// Takes one descriptor for each name.
    fn claim(&mut self, named: &[FileUse]) -> FileClaim {
        let (count, came) = (named.len(), self.0.len());
        if count > came {
            let why = format!(
                "the submit names {count} files, and {came} descriptors came with it: attach one for each to its bytes"
            );
            return FileClaim::Lost(Refusal::Invalid { why });
        }
        let files: Vec<_> = self.0.drain(..count).collect();
        // The core refuses bad names; such a submit is not checked further here.
        let mut pairs = files.iter().zip(named).filter(|_| file::fault(named).is_none());
        match pairs.find_map(|(file, wanted)| file.fault(wanted)) {
            Some(why) => FileClaim::Refused(Refusal::Invalid { why }),
            None => FileClaim::Granted(files),
        }
    }

    /// What is wrong after all whole frames have taken their descriptors, or `None`. Those of a partial frame may
    /// wait.
    pub(crate) fn fault(&self, is_partial: bool) -> Option<Refusal> {
        let came = self.0.len();
        let why = if came > 0 && !is_partial {
            format!(
                "{came} descriptors came that no submit names: attach them to the submit whose files they are"
            )
        } else if came > FILES_MAX {
            format!("{came} descriptors came with one request, at most {FILES_MAX} may")
        } else {
            return None;
        };
        Some(Refusal::Invalid { why })
    }

    /// Drops all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
