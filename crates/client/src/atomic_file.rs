//! A file that appears under its name only when it is complete (a write to a temporary file, then a rename).
//!
//! It is made with `O_TMPFILE` and has no name until [`AtomicFile::publish`], so a killed process leaves nothing
//! behind. An older file under the name stays as it is and is replaced in one step (`rename`); this code must never
//! write to it. Where the file system has no `O_TMPFILE` (NFS, some overlays), the file has a temporary name that
//! begins with `.bulkhead-`, which a kill leaves behind.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_sys::unnamed_file;

use crate::permission::name_user;

/// The permissions of a new file, before the umask.
const MODE: u32 = 0o666;

/// A file that has not got its name yet. If it is dropped before [`AtomicFile::publish`], nothing is left of it.
#[derive(Debug)]
pub struct AtomicFile {
    file: Arc<File>,
    target: PathBuf,
    /// The permissions of the file that it replaces.
    mode: Option<u32>,
    /// Its temporary name, if it has one.
    temporary: Option<PathBuf>,
}

impl AtomicFile {
    /// Creates the file in the folder of `path`. If `path` is a symbolic link to a file, that file will be replaced.
    ///
    /// # Errors
    /// No file can be created in the folder, or `path` is no regular file, such as a dangling link.
    pub fn create(path: &Path) -> io::Result<Self> {
        let (target, mode) = match path.metadata() {
            Ok(found) if found.is_file() => (path.canonicalize()?, Some(found.permissions().mode() & 0o7777)),
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            Ok(_) => return Err(io::Error::new(ErrorKind::InvalidInput, "it is no plain file")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(name_user(error)),
            Err(_) => (unless_link(path)?, None),
        };
        let folder = folder_of(&target);
        let (file, temporary) = match unnamed_file::create(folder, MODE) {
            Err(error) if unnamed_file::is_unknown(&error) => {
                named(folder).map(|(file, path)| (file, Some(path)))
            }
            other => other.map(|file| (file, None)),
        }
        .map_err(|error| in_folder(error, folder))?;
        Ok(Self { file: Arc::new(file), target, mode, temporary })
    }

    /// The file, to be written to.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The path under which it will appear.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Takes a finished file in place of its own, which is dropped. `path` names it, on the same file system.
    pub(crate) fn finished_as(mut self, file: File, path: PathBuf) -> Self {
        if let Some(own) = self.temporary.replace(path) {
            drop(std::fs::remove_file(own));
        }
        self.file = Arc::new(file);
        self
    }

    /// Syncs the file to the disk, gives it the permissions of the file that it replaces and then its name, and syncs
    /// the folder.
    ///
    /// # Errors
    /// The disk is full or fails, or the name cannot be set. The older file is then unchanged, unless only the sync of
    /// the folder failed.
    pub fn publish(mut self) -> io::Result<()> {
        self.put()?;
        sync_folder(folder_of(&self.target))
    }

    fn put(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(mode) = self.mode {
            self.file.set_permissions(Permissions::from_mode(mode))?;
        }
        if self.temporary.is_none() {
            match unnamed_file::link(&self.file, &self.target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => return other,
            }
            let folder = folder_of(&self.target);
            let (_, path) = free_name(folder, |path| unnamed_file::link(&self.file, path))?;
            self.temporary = Some(path);
        }
        let temporary = self.temporary.as_ref().expect("it was given a name just now, if it had none");
        std::fs::rename(temporary, &self.target)?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            // It does not matter if the file is gone already.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Syncs the folder's entries to the disk, unless this user may not open it or its file system cannot do that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).map(|folder| folder.sync_all()) {
        Ok(Err(error)) if error.kind() != ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

/// Accepts a path where no file is, and refuses a dangling link: another user may have set it as a trap, and the link
/// itself must not be replaced.
fn unless_link(path: &Path) -> io::Result<PathBuf> {
    match path.read_link() {
        Ok(target) => Err(io::Error::new(
            ErrorKind::NotFound,
            format!(
                "it is a link to {}, which is not there: make that file, or remove the link",
                target.display()
            ),
        )),
        Err(_) => Ok(path.to_owned()),
    }
}

/// The older file is replaced and not written to, so the permission that counts is that of the folder. The error says
/// so.
fn in_folder(error: io::Error, folder: &Path) -> io::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    let text = format!("{}: the folder {} must take a new file", name_user(error), folder.display());
    io::Error::new(ErrorKind::PermissionDenied, text)
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a file with a temporary name in `folder`. Returns both.
pub(crate) fn named(folder: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(MODE);
    free_name(folder, |path| options.open(path))
}

/// Calls `make` with one temporary name after the other until one is free.
fn free_name<T>(folder: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    let pid = std::process::id();
    let mut tries = (0_u32..).map(|number| folder.join(format!(".bulkhead-{pid}-{number}")));
    loop {
        let path = tries.next().ok_or(ErrorKind::AlreadyExists)?;
        match make(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|made| (made, path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

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
        atomic.publish().unwrap_err();
        assert_eq!(names(folder.path()), ["out"], "nothing is left beside it");
        assert_eq!(AtomicFile::create(&path).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(AtomicFile::create(Path::new("/dev/null")).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(AtomicFile::create(&folder.path().join("a/b")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn with_a_name_meanwhile_it_is_the_same_and_given_up_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        for publish in [true, false] {
            let (file, path) = named(folder.path()).unwrap();
            let (mode, temporary) = (None, Some(path));
            let atomic = AtomicFile { file: Arc::new(file), target: target.clone(), mode, temporary };
            assert_eq!(names(folder.path()).len(), if publish { 1 } else { 2 });
            if publish {
                atomic.publish().unwrap()
            } else {
                drop(atomic)
            }
            assert_eq!(names(folder.path()), ["out"]);
        }
    }
}
