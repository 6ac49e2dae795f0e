//! A file that appears under its name only when it is complete (a write to a temporary file, then a rename).
//!
//! It is made with `O_TMPFILE` and has no name until [`AtomicFile::publish`], so a killed process leaves nothing
//! behind. An older file under the name stays as it is until then; how it is replaced stands in `destination.rs`. A file
//! that cannot have its name is kept beside it. Where the file system has no `O_TMPFILE` (NFS, some overlays), the file
//! has a temporary name that begins with `.bulkhead-`, which a kill leaves behind.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_sys::held_folder::FileIdentity;
use bulkhead_sys::unnamed_file;

use crate::destination::{Destination, NotPlaced};
use crate::inheritance::NotKept;
use crate::input_file;
use crate::kept_file;
use crate::permission::name_user;

/// The permissions of a new file, before the umask.
const MODE: u32 = 0o666;
/// Those of a file that replaces another, until it gets the ones of that.
const PRIVATE_MODE: u32 = 0o600;

/// A file that has not got its name yet. If it is dropped before [`AtomicFile::publish`], nothing is left of it.
#[derive(Debug)]
pub struct AtomicFile {
    file: Arc<File>,
    destination: Destination,
    /// Its temporary name, if it has one.
    temporary: Option<PathBuf>,
}

impl AtomicFile {
    /// Creates the file in the folder of `path`. If `path` is a symbolic link to a file, that file will be replaced.
    ///
    /// # Errors
    /// No file can be created in the folder, or `path` is no regular file, such as a dangling link, or one that can
    /// neither be replaced nor written through ([`Destination::look`]).
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::at(Destination::look(path)?)
    }

    /// Creates the file for this destination.
    pub(crate) fn at(destination: Destination) -> io::Result<Self> {
        let folder = destination.folder();
        let mode = if destination.has_older() { PRIVATE_MODE } else { MODE };
        let (file, temporary) = match unnamed_file::create(folder, mode) {
            Ok(file) if !unnamed_file::can_be_linked(&file) => {
                named(folder, mode).map(|(file, path)| (file, Some(path)))
            }
            Err(_) if destination.is_written_through() => input_file::scratch().map(|file| (file, None)),
            Err(error) if unnamed_file::is_unknown(&error) => {
                named(folder, mode).map(|(file, path)| (file, Some(path)))
            }
            other => other.map(|file| (file, None)),
        }
        .map_err(|error| in_folder(error, folder))?;
        Ok(Self { file: Arc::new(file), destination, temporary })
    }

    /// The file, to be written to.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Syncs the file to the disk, gives it owner, permissions and labels of the file that it replaces and then its
    /// name, and syncs the folder. Returns what of the older file could not be kept.
    ///
    /// # Errors
    /// [`NotPlaced`]: the disk is full or fails, or the name cannot be set. The finished file is then beside its path.
    pub fn publish(mut self) -> Result<Vec<NotKept>, NotPlaced> {
        self.destination.place(&self.file, self.temporary.take())
    }

    /// Keeps a file that is not complete: under its path with `.partial` after it, while the older file stays. Returns
    /// its path.
    ///
    /// # Errors
    /// No folder takes it.
    pub fn keep_partial(mut self) -> io::Result<PathBuf> {
        kept_file::keep(&self.file, self.temporary.take(), self.destination.path(), "partial")
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            remove_own(&self.file, path);
        }
    }
}

/// Removes the file if its path still leads to it. It does not matter if it is gone already.
pub(crate) fn remove_own(file: &File, path: &Path) {
    if matches!((FileIdentity::of(file), FileIdentity::at(path)), (Ok(own), Ok(found)) if own == found) {
        drop(std::fs::remove_file(path));
    }
}

/// The older file is replaced and not written to, so the permission that counts is that of the folder. The error says
/// so.
pub(crate) fn in_folder(error: io::Error, folder: &Path) -> io::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    let text = format!("{}: the folder {} must take a new file", name_user(error), folder.display());
    io::Error::new(ErrorKind::PermissionDenied, text)
}

/// Creates a file with a temporary name in `folder`. Returns both.
pub(crate) fn named(folder: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    kept_file::hidden(folder, |path| options.open(path))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::destination::FinishedFile;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn write(atomic: &AtomicFile, text: &str) {
        atomic.file().as_ref().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn it_appears_when_it_is_whole_and_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let atomic = AtomicFile::create(&path).unwrap();
        write(&atomic, "first");
        assert_eq!(names(folder.path()), [""; 0], "nobody sees it");
        atomic.publish().unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let atomic = AtomicFile::create(&path).unwrap();
        write(&atomic, "second");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        atomic.publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        drop(AtomicFile::create(&path).unwrap());
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_replaced_and_a_link_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("out"), folder.path().join("link"));
        let atomic = AtomicFile::create(&path).unwrap();
        write(&atomic, "mine");
        std::fs::write(&path, "theirs").unwrap();
        // A name of ours that somebody left is passed over.
        std::fs::write(folder.path().join(format!(".bulkhead-{}-0", std::process::id())), "").unwrap();
        atomic.publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::os::unix::fs::symlink("out", &link).unwrap();
        let atomic = AtomicFile::create(&link).unwrap();
        write(&atomic, "through");
        atomic.publish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"through");
        assert_eq!(names(folder.path()).len(), 3);
    }

    #[test]
    fn what_cannot_be_replaced_is_told_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let atomic = AtomicFile::create(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        write(&atomic, "finished");
        let FinishedFile::Kept(kept) = atomic.publish().unwrap_err().finished else { panic!("it is kept") };
        assert_eq!(names(folder.path()), ["out", "out.done"]);
        assert_eq!(std::fs::read(kept).unwrap(), b"finished");
        assert_eq!(AtomicFile::create(&path).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(AtomicFile::create(Path::new("/dev/null")).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(AtomicFile::create(&folder.path().join("a/b")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Two containers may give their processes one number, and so their files one name.
    #[test]
    fn what_took_the_place_of_its_temporary_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::look(&folder.path().join("out")).unwrap();
        let (file, path) = named(folder.path(), MODE).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        drop(AtomicFile { file: Arc::new(file), destination, temporary: Some(path.clone()) });
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn what_is_not_complete_is_kept_beside_the_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "older").unwrap();
        let atomic = AtomicFile::create(&path).unwrap();
        write(&atomic, "a part");
        let kept = atomic.keep_partial().unwrap();
        assert_eq!(names(folder.path()), ["out", "out.partial"]);
        assert_eq!(std::fs::read(kept).unwrap(), b"a part");
        assert_eq!(std::fs::read(path).unwrap(), b"older");
    }

    #[test]
    fn with_a_name_meanwhile_it_is_the_same_and_given_up_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        for publish in [true, false] {
            let destination = Destination::look(&target).unwrap();
            let (file, path) = named(folder.path(), MODE).unwrap();
            let atomic = AtomicFile { file: Arc::new(file), destination, temporary: Some(path) };
            assert_eq!(names(folder.path()).len(), if publish { 1 } else { 2 });
            if publish {
                atomic.publish().unwrap();
            } else {
                drop(atomic);
            }
            assert_eq!(names(folder.path()), ["out"]);
        }
    }
}
