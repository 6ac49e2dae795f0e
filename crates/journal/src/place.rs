//! The folder of the journal: whose it is, what file system holds it, and the paths in it.
//!
//! Everything here is looked at before a database is opened, and each reason to refuse the folder is an [`OpenFault`]. A folder
//! that is missing is made, closed to others. Nothing else is changed. Driven by `opening.rs`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bulkhead_sys::file_system::{self, FileSystemSort};
use bulkhead_sys::lock::{InstanceLock, LockError};
use bulkhead_sys::socket::own_uid;

use crate::fault::{OpenFault, OpenNote};

/// The paths of a journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalPlace {
    pub(crate) folder: PathBuf,
    pub(crate) database: PathBuf,
    /// What SQLite appends commits to.
    pub(crate) log: PathBuf,
    pub(crate) numbers: PathBuf,
    lock: PathBuf,
}

impl JournalPlace {
    /// The paths below a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name);
        Self {
            folder: folder.to_owned(),
            database: at("journal.db"),
            log: at("journal.db-wal"),
            numbers: at("numbers"),
            lock: at("lock"),
        }
    }

    /// Makes the folder if it is missing, and checks it.
    ///
    /// # Errors
    /// [`OpenFault`].
    pub(crate) fn prepare(&self, room_min_bytes: u64) -> Result<Vec<OpenNote>, OpenFault> {
        let folder = || self.folder.clone();
        let io = |error| OpenFault::Io { path: folder(), error };
        let missing: Vec<&Path> = self.folder.ancestors().take_while(|path| !path.exists()).collect();
        match DirBuilder::new().recursive(true).mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        // A new folder is durable once the folder that holds its name is synced.
        for parent in missing.iter().filter_map(|path| path.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| OpenFault::Io { path: parent.to_owned(), error })?;
        }
        let seen = std::fs::metadata(&self.folder).map_err(io)?;
        if !seen.is_dir() {
            return Err(OpenFault::NoFolder { folder: folder() });
        }
        if seen.uid() != own_uid() {
            return Err(OpenFault::NotOwn { folder: folder(), owner: seen.uid(), uid: own_uid() });
        }
        if seen.mode() & 0o022 != 0 {
            return Err(OpenFault::OpenToOthers { folder: folder(), mode: seen.mode() & 0o7777 });
        }
        let system = file_system::look(&self.folder).map_err(io)?;
        let notes = match system.sort {
            FileSystemSort::Disk => Vec::new(),
            FileSystemSort::Memory => vec![OpenNote::InMemory { folder: folder() }],
            FileSystemSort::Remote(name) => return Err(OpenFault::Remote { folder: folder(), name }),
        };
        if system.free_bytes < room_min_bytes {
            let free_bytes = system.free_bytes;
            return Err(OpenFault::NoRoom { folder: folder(), free_bytes, room_min_bytes });
        }
        Ok(notes)
    }

    /// Whether a journal is in the folder, or cannot be ruled out: the folder cannot be looked into, or is a link to what is not there,
    /// such as a disk that is not mounted.
    pub(crate) fn may_hold_journal(&self) -> bool {
        let is_there = |path: &Path| match std::fs::metadata(path) {
            // An empty database has no numbers in it.
            Ok(found) => path != self.database || found.len() > 0,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        let leads_nowhere = self.folder.is_symlink() && !self.folder.exists();
        leads_nowhere || is_there(&self.database) || is_there(&self.numbers)
    }

    /// Makes an empty database that other users cannot read, because it holds the inputs and results of all. SQLite's other files get
    /// the same permissions.
    ///
    /// # Errors
    /// [`OpenFault::Io`].
    pub(crate) fn make_database(&self) -> Result<(), OpenFault> {
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.database);
        made.map(drop).map_err(|error| OpenFault::Io { path: self.database.clone(), error })
    }

    /// Takes the lock of the folder.
    ///
    /// # Errors
    /// [`OpenFault::InUse`], [`OpenFault::Io`].
    pub(crate) fn lock(&self) -> Result<InstanceLock, OpenFault> {
        InstanceLock::take(&self.lock).map_err(|error| match error {
            LockError::Held { pid } => OpenFault::InUse { folder: self.folder.clone(), pid },
            LockError::Io(error) => OpenFault::Io { path: self.lock.clone(), error },
        })
    }
}
