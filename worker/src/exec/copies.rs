//! Copies of files between a client and a program that cannot reach them under the client's path.
//!
//! They lie in a locked folder on the daemon's disk, one for each job that needs any; it goes when the job ends. If this
//! worker dies, the supervisor removes it (`sys/locked_folder.rs`). Each copy is a file `NAME.EXT`, as the client names
//! it, in a folder of its own, so that a program has room beside it. Bytes that go in are bounded by `copies_bytes_max`,
//! and every step counts as progress and hears a cancel. Nothing here follows a symbolic link. Driven by
//! `placed_files.rs`.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bulkhead_proto::worker::copies::{FOLDER_PREFIX, MAX_BYTES_USUAL, MAX_KEY, MAX_VARIABLE, PLACE_VARIABLE};
use bulkhead_sys::file_copy::{CopyError, FileCopy};
use bulkhead_sys::locked_folder::LockedFolder;
use bulkhead_sys::process;
use bulkhead_task::{TaskContext, TaskFailure};

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// The folder for the copies of one job, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct CopyFolder(LockedFolder);

impl CopyFolder {
    pub(super) fn make() -> Result<Self, TaskFailure> {
        let place = place();
        let made = LockedFolder::make_in(&place, FOLDER_PREFIX);
        made.map(Self).map_err(|error| {
            TaskFailure::new(format!(
                "there is no folder in {} for copies of the job's files: {error}",
                place.display()
            ))
        })
    }

    /// The path of a copy that is not there yet, in a new folder. `file` is the name of the file for the job, and
    /// `name` that of the copy.
    pub(super) fn path_for(&self, file: &str, name: &OsStr) -> Result<PathBuf, TaskFailure> {
        let folder = self.0.path().join(file);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => Ok(folder.join(name)),
            Err(error) => Err(no_room(file, 0, self.0.path(), &error)
                .unwrap_or_else(|| TaskFailure::new(format!("cannot make {}: {error}", folder.display())))),
        }
    }
}

/// How many bytes may still go in.
#[derive(Debug)]
pub(super) struct CopyRoom {
    left: u64,
    most: u64,
}

impl CopyRoom {
    /// The limit of the daemon, all of it.
    pub(super) fn whole() -> Self {
        let told = std::env::var(MAX_VARIABLE).ok().and_then(|text| text.parse().ok());
        let most = told.unwrap_or(MAX_BYTES_USUAL);
        Self { left: most, most }
    }

    /// No limit.
    pub(super) fn endless() -> Self {
        Self { left: u64::MAX, most: u64::MAX }
    }

    /// The limit in bytes.
    pub(super) fn most(&self) -> u64 {
        self.most
    }

    /// Refuses a file that is known to be too long before a byte of it is copied.
    pub(super) fn check(&self, file: &str, found: &Metadata) -> Result<(), TaskFailure> {
        let limit = process::file_size_limit().unwrap_or(u64::MAX);
        if found.len() > limit {
            let bytes = found.len();
            return Err(TaskFailure::new(format!(
                "file {file:?} has {bytes} bytes and has to be copied, but a file may have {limit} bytes here (RLIMIT_FSIZE)"
            )));
        }
        let bytes = found.len().min(found.blocks().saturating_mul(BLOCK_BYTES));
        if bytes > self.left { Err(self.too_long(file)) } else { Ok(()) }
    }

    fn too_long(&self, file: &str) -> TaskFailure {
        TaskFailure::new(format!(
            "file {file:?} has to be copied for the program, and with it the job's copies in {} would have more than \
             {} bytes, the limit: raise {MAX_KEY} in the daemon's configuration, or give a path that the daemon's \
             programs can open",
            place().display(),
            self.most
        ))
    }
}

/// Copies all of a file into an empty one. `folder` is where the new file lies, for messages.
pub(super) fn copy(
    file: &str,
    (from, to): (&File, &File),
    folder: &Path,
    room: &mut CopyRoom,
    task: &mut dyn TaskContext,
) -> Result<(), TaskFailure> {
    let unread = |error| TaskFailure::new(format!("file {file:?} cannot be read: {error}"));
    let mut copy = FileCopy::new(from, to).map_err(unread)?;
    if copy.share() {
        return Ok(());
    }
    let (mut done, total) = (0, copy.length());
    loop {
        task.progress(done, total);
        if task.is_cancelled() {
            return Err(TaskFailure::new(format!("ended while file {file:?} was copied")));
        }
        match copy.step(room.left.saturating_add(1)) {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) if bytes > room.left => return Err(room.too_long(file)),
            Ok(Some(bytes)) => {
                room.left -= bytes;
                done += bytes;
            }
            Err(CopyError::Read(error)) => return Err(unread(error)),
            Err(CopyError::Write(error)) => {
                let other = || {
                    let folder = folder.display();
                    TaskFailure::new(format!("file {file:?} cannot be copied to {folder}: {error}"))
                };
                return Err(no_room(file, total, folder, &error).unwrap_or_else(other));
            }
        }
    }
}

/// The failure for a disk that is full.
fn no_room(file: &str, bytes: u64, folder: &Path, error: &io::Error) -> Option<TaskFailure> {
    let what = match error.kind() {
        ErrorKind::StorageFull => "no space is left",
        ErrorKind::QuotaExceeded => "the quota is used up",
        _ => return None,
    };
    Some(TaskFailure::new(format!(
        "{what} in {}, where file {file:?} ({bytes} bytes) is copied to: free some there",
        folder.display()
    )))
}

/// Gives a finished copy the permissions and times of its original. The worker must be able to read it.
pub(super) fn finish(copy: &File, original: &Metadata) -> io::Result<()> {
    let times = fs::FileTimes::new().set_accessed(original.accessed()?).set_modified(original.modified()?);
    copy.set_times(times)?;
    copy.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(original.mode() & 0o777 | 0o400))
}

fn place() -> PathBuf {
    std::env::var_os(PLACE_VARIABLE).map_or_else(std::env::temp_dir, PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task that is to end, or not.
    struct CopyingTask(bool);

    impl io::Write for CopyingTask {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl TaskContext for CopyingTask {
        fn progress(&mut self, _: u64, _: u64) {}

        fn say(&mut self, _: &str) {}

        fn last_breath(&mut self) {}

        fn is_cancelled(&self) -> bool {
            self.0
        }
    }

    fn copied(room: &mut CopyRoom, is_cancelled: bool) -> Result<u64, String> {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("from"), [7; 1000]).unwrap();
        let from = File::open(place.path().join("from")).unwrap();
        let to = File::create(place.path().join("to")).unwrap();
        let result = copy("a", (&from, &to), place.path(), room, &mut CopyingTask(is_cancelled));
        result.map(|()| to.metadata().unwrap().len()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_limit_holds_for_all_copies_together_and_a_cancel_ends_one() {
        let mut room = CopyRoom { left: 2500, most: 2500 };
        assert_eq!((copied(&mut room, false), copied(&mut room, false)), (Ok(1000), Ok(1000)));
        let said = copied(&mut room, false).unwrap_err();
        assert!(said.contains("more than 2500 bytes, the limit: raise copies_bytes_max"), "{said}");
        assert_eq!(
            copied(&mut CopyRoom::endless(), true),
            Err("ended while file \"a\" was copied".to_owned())
        );
    }

    #[test]
    fn a_full_disk_is_told_with_the_file_its_bytes_and_the_folder() {
        let said = |error: i32| no_room("a", 7, Path::new("/x"), &io::Error::from_raw_os_error(error));
        let text = said(28).unwrap().to_string();
        assert_eq!(text, "no space is left in /x, where file \"a\" (7 bytes) is copied to: free some there");
        assert!(said(122).unwrap().to_string().starts_with("the quota is used up in /x"));
        assert!(said(13).is_none());
    }
}
