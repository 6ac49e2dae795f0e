//! The folders in which a program makes its output files: emptied before it starts, looked into when it has ended.
//!
//! A client passes such a folder open, and the path of the file as a word. The folder is used by its descriptor; the
//! word is believed only if its folder is that of the descriptor, as this worker sees it. The client gives the finished
//! file its path. A cancelled job may have lost its client, so the worker then removes the folder itself. It must never
//! remove anything but this folder and what is in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_proto::file::Way;
use bulkhead_sys::locked_folder::remove_open;
use bulkhead_sys::remove_tree::empty;
use bulkhead_task::{PositionedFile, TaskFailure};

/// One folder of the client.
pub(super) struct OutputFolder {
    folder: Arc<dyn PositionedFile>,
    /// The file in it by the client's path, if that leads into the folder.
    path: Option<PathBuf>,
    /// The file's name.
    name: PathBuf,
}

impl OutputFolder {
    /// The folder of a file that the client passed as one. `told` is the client's path of the file, unchecked.
    pub(super) fn new(file: &Arc<dyn PositionedFile>, told: Option<&[u8]>) -> Option<Self> {
        if file.way() != Way::Folder {
            return None;
        }
        let told = told.map(|told| Path::new(OsStr::from_bytes(told))).filter(|told| told.is_absolute());
        let own_name = || PathBuf::from(file.name());
        let name = told.and_then(Path::file_name).map_or_else(own_name, PathBuf::from);
        let is_there = |told: &&Path| told.parent().is_some_and(|above| is_at(file.as_fd(), above));
        let path = told.filter(is_there).map(PathBuf::from);
        Some(Self { folder: Arc::clone(file), path, name })
    }

    /// The path that the program writes; `None` if it cannot reach the folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    /// Makes the file in it, for this worker to write. It must not be there.
    pub(super) fn create(&self) -> io::Result<File> {
        let path = by_descriptor(self.folder.as_fd()).join(&self.name);
        File::options().write(true).create_new(true).mode(0o600).open(path)
    }

    /// Removes what is in it: an earlier attempt may have left the output, and tools refuse a file that is there.
    pub(super) fn empty(&self) -> Result<(), TaskFailure> {
        let emptied = empty(self.folder.as_fd());
        emptied.map_err(|error| {
            TaskFailure::new(format!(
                "the folder for file {:?} cannot be emptied: {error}",
                self.folder.name()
            ))
        })
    }

    /// Fails if the program, which reports success, has not left a regular file.
    pub(super) fn expect_file(&self) -> Result<(), TaskFailure> {
        let found = by_descriptor(self.folder.as_fd()).join(&self.name).symlink_metadata();
        not_left(self.folder.name(), found)
    }

    /// Removes the folder with its content, wherever it is now.
    pub(super) fn remove(&self) {
        let removed = empty(self.folder.as_fd()).and_then(|()| remove_open(self.folder.as_fd()));
        if let Err(error) = removed {
            log::debug!(
                "the folder of an output is left to its client name={} error={error}",
                self.folder.name()
            );
        }
    }
}

/// Fails if a program, which reports success, has left no regular file. `found` is what was found where it is to be.
pub(super) fn not_left(file: &str, found: io::Result<fs::Metadata>) -> Result<(), TaskFailure> {
    let what = match found {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(_) => "something else than a regular file".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "no file".to_owned(),
        Err(error) => format!("a file that cannot be examined ({error})"),
    };
    let text = format!(
        "the program ended with code 0 and left {what} for {file:?}: it has to write the path in {{{file}}} or ${file}"
    );
    Err(TaskFailure::new(text).with_output())
}

fn by_descriptor(folder: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// Whether this folder lies under the path.
fn is_at(folder: BorrowedFd<'_>, path: &Path) -> bool {
    let own = folder.try_clone_to_owned().and_then(|folder| File::from(folder).metadata());
    let (Ok(own), Ok(found)) = (own, path.symlink_metadata()) else { return false };
    found.is_dir() && (own.dev(), own.ino()) == (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::task_files::CheckedFile;

    fn passed(path: &Path) -> Arc<dyn PositionedFile> {
        Arc::new(CheckedFile::new("b", Way::Folder, File::open(path).unwrap()))
    }

    fn told(folder: &Arc<dyn PositionedFile>, path: &Path) -> OutputFolder {
        OutputFolder::new(folder, Some(path.as_os_str().as_bytes())).unwrap()
    }

    #[test]
    fn a_path_counts_only_if_it_leads_into_the_folder_that_was_passed() {
        let place = tempfile::tempdir().unwrap();
        let (own, other) = (place.path().join("own"), place.path().join("other"));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink("own", place.path().join("link")).unwrap();
        let folder = passed(&own);
        assert_eq!(told(&folder, &own.join("old.db")).path(), Some(own.join("old.db")));
        for elsewhere in [other.join("old.db"), place.path().join("link/old.db"), PathBuf::from("own/old.db")]
        {
            assert_eq!(told(&folder, &elsewhere).path(), None, "{elsewhere:?}");
        }
        let file = Arc::new(CheckedFile::new("b", Way::Out, File::open(&own).unwrap()));
        assert!(OutputFolder::new(&(file as Arc<dyn PositionedFile>), None).is_none());
    }

    #[test]
    fn it_is_emptied_and_removed_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let own = place.path().join("own");
        fs::create_dir_all(own.join("side/deep")).unwrap();
        fs::write(own.join("b"), "x").unwrap();
        fs::write(place.path().join("precious"), "x").unwrap();
        std::os::unix::fs::symlink("../precious", own.join("link")).unwrap();
        let output = told(&passed(&own), &own.join("b"));
        assert!(output.expect_file().is_ok());
        fs::set_permissions(&own, Permissions::from_mode(0o000)).unwrap();
        output.empty().unwrap();
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
        let said = output.expect_file().unwrap_err().to_string();
        assert!(said.contains("left no file for \"b\"") && said.contains("{b} or $b"), "{said}");
        std::os::unix::fs::symlink("../precious", own.join("b")).unwrap();
        assert!(output.expect_file().unwrap_err().to_string().contains("something else"));
        fs::rename(&own, place.path().join("moved")).unwrap();
        fs::create_dir_all(own.join("theirs")).unwrap();
        output.remove();
        assert!(own.join("theirs").is_dir() && !place.path().join("moved").exists());
        assert!(place.path().join("precious").is_file());
    }
}
