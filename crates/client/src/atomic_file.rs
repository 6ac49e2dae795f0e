//! A file that appears under its name only when it is whole.
//!
//! Until then it has no name at all, so that whoever is killed leaves nothing; an older file stays as it was, and is
//! replaced in one step. Where the file system knows no files without a name (NFS, some overlays), it has one that
//! begins with `.bulkhead-`, which a kill leaves behind. Nothing here may write to the older file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_sys::unnamed_file;

use crate::permission::name_user;

/// What anybody may do with a new file, before the umask.
const MODE: u32 = 0o666;

/// A file on its way to its name. Dropped before [`AtomicFile::publish`], it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    file: Arc<File>,
    target: PathBuf,
    /// Permissions of the older file.
    mode: Option<u32>,
    /// The name that it has temporary, if it needs one.
    temporary: Option<PathBuf>,
}

impl AtomicFile {
    /// Begins a file for `path`, in the same folder. A link to a file is followed.
    ///
    /// # Errors
    /// The folder takes no file, or `path` is something else than a plain file, such as a link to nothing.
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

    /// The file, for whoever fills it.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Brings it to the disk and gives it its name, with the permissions of the file that it replaces; then brings the
    /// name to the disk, too.
    ///
    /// # Errors
    /// The disk is full or fails, or the name cannot be had. An older file is then as it was, unless only the last
    /// step failed.
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
            // One that is gone already is what is wanted.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Brings the names in a folder to the disk, where we may open it and it can do that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).map(|folder| folder.sync_all()) {
        Ok(Err(error)) if error.kind() != ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

/// A path where nothing is. What a link points to that is not there may be anybody's trap, and the link is not ours to
/// replace.
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

/// An older file is replaced, not written to: it is the folder that must allow that.
fn in_folder(error: io::Error, folder: &Path) -> io::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    let text = format!("{}: the folder {} must take a new file", name_user(error), folder.display());
    io::Error::new(ErrorKind::PermissionDenied, text)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file with a name that nobody has, and that name.
pub(crate) fn named(folder: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(MODE);
    free_name(folder, |path| options.open(path))
}

/// Tries names until one is free.
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
