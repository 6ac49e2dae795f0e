//! Files of clients: descriptors that came with submits, from their arrival until their last close.
//!
//! Nothing is known of them, and nothing is done with them that could wait: they are asked how they were opened, sent to
//! the workers that run their job, and handed to the disposal of their user when nobody wants them any more, whatever
//! the way. Each has a seat until it is closed; without a free one nothing more is received. Which are held, and how
//! long, the core decides. Used by `connection.rs` and `perform.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_core::event::Attached;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{self, FileUse, Way};
use bulkhead_proto::ids::FileId;
use bulkhead_proto::limits::FILES_MAX;
use bulkhead_sys::untrusted::{Access, UntrustedFd};

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::client_socket::ClientSocket;
use crate::user_quota::{QuotaPermit, UserQuota};

/// When to ask again for room that others have.
const RETRY_AFTER_MS: u64 = 1000;

/// One descriptor of a client's.
#[derive(Debug)]
pub(crate) struct ClientFile {
    inner: Option<(UntrustedFd, QuotaPermit)>,
    uid: u32,
    closer: BackgroundCloser,
}

impl ClientFile {
    fn descriptor(&self) -> &UntrustedFd {
        &self.inner.as_ref().expect("only dropping it takes it out").0
    }

    /// Why it is of no use for this, in words, or `None`.
    fn fault(&self, wanted: &FileUse) -> Option<String> {
        let name = &wanted.name;
        match (self.descriptor().access(), wanted.way) {
            (Ok(Access { read: true, .. }), Way::In) | (Ok(Access { write: true, .. }), Way::Out) => None,
            (Ok(Access { append: true, .. }), Way::Out) => Some(format!(
                "file {name:?} was opened for appending, and a job writes where it wants to: open it without O_APPEND"
            )),
            (Ok(_), Way::In) => {
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

/// All files of clients, and the room for more.
#[derive(Debug)]
pub(crate) struct ClientFileStore {
    files: BTreeMap<FileId, ClientFile>,
    last: u64,
    open_max: usize,
    quota: UserQuota,
    closer: BackgroundCloser,
}

impl ClientFileStore {
    /// Room for `open_max`, three quarters of it for one user if there are `several` users.
    pub(crate) fn new(open_max: usize, several: bool, closer: BackgroundCloser) -> Self {
        Self { files: BTreeMap::new(), last: 0, open_max, quota: UserQuota::new(open_max, several), closer }
    }

    /// Why nothing that is attached can be received from this user now, or `None`.
    pub(crate) fn shortage(&self, uid: u32) -> Option<Refusal> {
        self.quota.is_full(uid).then(|| Refusal::Busy {
            what: "the room for descriptors of clients".to_owned(),
            limit: self.open_max as u64,
            retry_after_ms: RETRY_AFTER_MS,
        })
    }

    /// Reads from a client of this user with what is attached, all of which goes into `waiting`. Call it only if there is no
    /// [`Self::shortage`].
    ///
    /// # Errors
    /// As [`ClientSocket::receive`].
    pub(crate) fn receive(
        &mut self,
        socket: &ClientSocket,
        uid: u32,
        buffer: &mut [u8],
        unclaimed: &mut UnclaimedFiles,
    ) -> io::Result<usize> {
        let mut descriptors = Vec::new();
        let received = socket.receive(buffer, &mut descriptors);
        for descriptor in descriptors {
            let (permit, _) = self.quota.acquire(uid);
            let closer = self.closer.clone();
            unclaimed.0.push_back(ClientFile { inner: Some((descriptor, permit)), uid, closer });
        }
        received
    }

    /// Holds files for the core, until it has them dropped.
    pub(crate) fn hold(&mut self, files: Vec<ClientFile>) -> Vec<Attached> {
        let hold = |file: ClientFile| {
            self.last += 1;
            let number = FileId(self.last);
            let pinned_bytes = file.descriptor().pinned_bytes().unwrap_or_else(|error| {
                log::error!("cannot tell what a file pins uid={} error={error}", file.uid);
                0
            });
            self.files.insert(number, file);
            Attached { file: number, pinned_bytes }
        };
        files.into_iter().map(hold).collect()
    }

    /// One that is held.
    pub(crate) fn get(&self, file: FileId) -> Option<&ClientFile> {
        self.files.get(&file)
    }

    /// Lets go of one.
    pub(crate) fn let_go(&mut self, file: FileId) {
        self.files.remove(&file);
    }
}

/// Descriptors that came on a connection and that no frame has claimed yet.
#[derive(Debug, Default)]
pub(crate) struct UnclaimedFiles(VecDeque<ClientFile>);

/// What becomes of a submit that names files.
#[derive(Debug)]
pub(crate) enum FileClaim {
    /// They came with it.
    Granted(Vec<ClientFile>),
    /// One of them cannot be what it is for: the submit is refused, and they are gone.
    Refused(Refusal),
    /// They did not come: nobody can tell any more what belongs to what.
    Lost(Refusal),
}

impl UnclaimedFiles {
    /// Takes as many as these name.
    pub(crate) fn claim(&mut self, named: &[FileUse]) -> FileClaim {
        let (count, came) = (named.len(), self.0.len());
        if count > came {
            let why = format!(
                "the submit names {count} files, and {came} descriptors came with it: attach one for each to its bytes"
            );
            return FileClaim::Lost(Refusal::Invalid { why });
        }
        let files: Vec<_> = self.0.drain(..count).collect();
        // Bad names are the core's to refuse; no text here speaks of them.
        let mut pairs = files.iter().zip(named).filter(|_| file::fault(named).is_none());
        match pairs.find_map(|(file, wanted)| file.fault(wanted)) {
            Some(why) => FileClaim::Refused(Refusal::Invalid { why }),
            None => FileClaim::Granted(files),
        }
    }

    /// What is wrong when all whole frames have taken theirs, or `None`. Those of an unfinished frame may wait.
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

    /// Lets go of all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
