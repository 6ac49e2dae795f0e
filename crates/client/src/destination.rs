//! Where a finished file goes: looked at before the job runs, and given the file when it is finished.
//!
//! An older file under the name is replaced in one step (rename). Where that cannot be, it is found before the job
//! runs, and the older file is written through, or the path refused. What goes wrong later leaves the finished file
//! beside the path, under a name that the error tells; it must never be lost here. Driven by `atomic_file.rs`, and open
//! to any code that has a finished file ([`Destination::place`]).
//!
//! | what stands under the path | what is done |
//! |---|---|
//! | nothing, or a file that may be renamed over | renamed |
//! | a file with something mounted on it (EBUSY), another user's in a sticky folder, one in a folder that takes no new names or loses none | written through, if this user may write to it; else refused |
//! | a file that is immutable or only appended to (`chattr +i`, `+a`) | refused |
//! | a folder, a pipe or device, a link to nothing | refused |

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_sys::{inode_flags, socket, unnamed_file};

use crate::inheritance::{self, NotKept};
use crate::kept_file;
use crate::permission::name_user;

/// The bit of a folder in which only its owner, and the owner of a file, may remove the file.
const STICKY: u32 = 0o1000;

/// A path that was found to take a finished file.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    has_older: bool,
    /// The older file, open for writing, if it cannot be replaced.
    through: Option<File>,
}

/// A finished file that did not reach its path.
#[derive(Debug)]
pub struct NotPlaced {
    /// Why.
    pub error: io::Error,
    /// Where it is now; `None` if it could not be kept anywhere, or is in its place and only the sync of its folder
    /// failed.
    pub kept: Option<PathBuf>,
}

impl fmt::Display for NotPlaced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.error)?;
        self.kept.as_ref().map_or(Ok(()), |kept| write!(out, "; the finished file is {}", kept.display()))
    }
}

impl std::error::Error for NotPlaced {}

impl From<io::Error> for NotPlaced {
    /// There is no finished file.
    fn from(error: io::Error) -> Self {
        Self { error, kept: None }
    }
}

impl Destination {
    /// Looks at `path`. A symbolic link to a file is followed, and that file will be replaced.
    ///
    /// # Errors
    /// No file can come there: see the table in the header. Whether the folder takes a new file is found out by the
    /// caller, who makes one in it.
    pub fn look(path: &Path) -> io::Result<Self> {
        let (path, has_older) = match path.metadata() {
            Ok(found) if found.is_file() => (path.canonicalize()?, Some(found)),
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            Ok(_) => return Err(io::Error::new(ErrorKind::InvalidInput, "it is no plain file")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(name_user(error)),
            Err(_) => (unless_link(path)?, None),
        };
        let through = has_older.as_ref().map_or(Ok(None), |found| open_unless_replaceable(&path, found))?;
        Ok(Self { path, has_older: has_older.is_some(), through })
    }

    /// The path, free of links if a file stands under it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the path.
    pub fn folder(&self) -> &Path {
        folder_of(&self.path)
    }

    /// Whether a file stood under the path.
    pub fn has_older(&self) -> bool {
        self.has_older
    }

    /// Whether the older file cannot be replaced and will be written to. The new file need not be in its folder then.
    pub fn is_written_through(&self) -> bool {
        self.through.is_some()
    }

    /// Syncs `file`, gives it what the older file had, and puts it under the path. `name` is the name that it has now
    /// on the file system of [`Self::folder`], if it has one. Returns what of the older file was not kept.
    ///
    /// # Errors
    /// [`NotPlaced`]: the older file is unchanged, unless it was being written through, or only the sync of the folder
    /// failed.
    pub fn place(&self, file: &File, name: Option<PathBuf>) -> Result<Vec<NotKept>, NotPlaced> {
        let mut name = name;
        let placed = match &self.through {
            Some(older) => write_through(file, older).map(|()| Vec::new()),
            None => self.replace(file, &mut name),
        };
        match placed {
            Ok(not_kept) => {
                // Written through: the copy is not needed any more. It may be gone already.
                name.map(std::fs::remove_file);
                sync_folder(self.folder()).map_err(|error| NotPlaced { error, kept: None })?;
                Ok(not_kept)
            }
            Err(error) => {
                Err(NotPlaced { error, kept: kept_file::keep(file, name, &self.path, "done").ok() })
            }
        }
    }

    /// Gives the file the path by a link, or by a rename of its name, which is then `None`.
    fn replace(&self, file: &File, name: &mut Option<PathBuf>) -> io::Result<Vec<NotKept>> {
        file.sync_all()?;
        let not_kept = inheritance::take_over(&self.path, file)?;
        if name.is_none() {
            match unnamed_file::link(file, &self.path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                linked => return linked.map(|()| not_kept),
            }
            let (_, path) = kept_file::hidden(self.folder(), |path| unnamed_file::link(file, path))?;
            *name = Some(path);
        }
        if let Some(from) = name.as_ref() {
            std::fs::rename(from, &self.path)?;
        }
        *name = None;
        Ok(not_kept)
    }
}

/// Copies the finished file into the older one. All blocks are reserved first, so that a full disk is found before a
/// byte of the older file is lost.
fn write_through(finished: &File, older: &File) -> io::Result<()> {
    let length = finished.metadata()?.len();
    unnamed_file::reserve(older, length)?;
    kept_file::copy_bytes(finished, older)?;
    older.set_len(length)?;
    older.sync_all()
}

/// Returns the older file open for writing if it cannot be renamed over, or `None` if it can, as far as can be seen.
fn open_unless_replaceable(path: &Path, found: &Metadata) -> io::Result<Option<File>> {
    let refuse = |kind, text: String| Err(io::Error::new(kind, text));
    // A system without statx shows no flags; the rename then finds out.
    let flags = inode_flags::look(path).unwrap_or_default();
    if flags.is_immutable {
        let text = "it is immutable and cannot be replaced or written: `chattr -i` takes that from it";
        return refuse(ErrorKind::PermissionDenied, text.to_owned());
    }
    if flags.is_append_only {
        let text = "it is append-only and cannot be replaced: `chattr -a` takes that from it, or append to it with `-o - >> FILE`";
        return refuse(ErrorKind::PermissionDenied, text.to_owned());
    }
    let folder = folder_of(path);
    let folder_flags = inode_flags::look(folder).unwrap_or_default();
    let why = if flags.is_mounted_on {
        "it is a mount of its own, so it cannot be replaced".to_owned()
    } else if is_held_by_sticky(folder, found) {
        format!("it belongs to user {} in the sticky folder {}", found.uid(), folder.display())
    } else if folder_flags.is_immutable || folder_flags.is_append_only {
        format!(
            "the folder {} is immutable or append-only, so no file in it can be replaced",
            folder.display()
        )
    } else if !inode_flags::takes_names(folder) {
        // If neither can be written, the folder is told, where a new file is tried.
        return Ok(OpenOptions::new().write(true).open(path).ok());
    } else {
        return Ok(None);
    };
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) => {
            refuse(error.kind(), format!("{why}, and it cannot be written to: {}", name_user(error)))
        }
    }
}

/// Whether the folder's sticky bit keeps this user from renaming over the file.
fn is_held_by_sticky(folder: &Path, file: &Metadata) -> bool {
    let user = socket::own_uid();
    let Ok(folder) = folder.metadata() else { return false };
    folder.mode() & STICKY != 0 && user != 0 && user != file.uid() && user != folder.uid()
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

/// The folder of a path; `.` for a bare name.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn finished(folder: &Path) -> (File, PathBuf) {
        let path = folder.join("finished");
        std::fs::write(&path, "new").unwrap();
        (OpenOptions::new().read(true).write(true).open(&path).unwrap(), path)
    }

    #[test]
    fn a_named_file_replaces_the_older_one_and_takes_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "older").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let destination = Destination::look(&path).unwrap();
        assert!(destination.has_older() && !destination.is_written_through());
        let (file, name) = finished(folder.path());
        assert!(destination.place(&file, Some(name.clone())).unwrap().is_empty());
        assert!(!name.exists());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_is_written_through_has_the_new_bytes_and_its_own_inode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "a longer older one").unwrap();
        let through = Some(OpenOptions::new().write(true).open(&path).unwrap());
        let before = path.metadata().unwrap().ino();
        let (file, name) = finished(folder.path());
        let destination = Destination { path: path.clone(), has_older: true, through };
        destination.place(&file, Some(name.clone())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().ino(), before);
        assert!(!name.exists());
    }

    #[test]
    fn a_finished_file_that_finds_no_place_stays_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let destination = Destination::look(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let (file, name) = finished(folder.path());
        let not_placed = destination.place(&file, Some(name.clone())).unwrap_err();
        let kept = not_placed.kept.as_ref().unwrap();
        assert_eq!(kept, &folder.path().join("out.done"));
        assert!(not_placed.to_string().ends_with(&format!("; the finished file is {}", kept.display())));
        assert_eq!(std::fs::read(kept).unwrap(), b"new");
        assert!(!name.exists());
    }
}
