//! Where a finished file goes: looked at before the job runs, and given the file when it is finished.
//!
//! An older file under the name is replaced in one step (rename), or written through, or the path is refused. What goes
//! wrong later leaves the finished file beside the path, under a name that the error tells; it must never be lost here.
//! Driven by `atomic_file.rs` and `hidden_folder.rs`, and open to any code that has a finished file.
//!
//! | what stands under the path | what is done |
//! |---|---|
//! | nothing, or a file that may be renamed over | renamed |
//! | a file with something mounted on it (EBUSY), one that a sticky folder holds, one in a folder that takes no new names or loses none | written through, if this user may write to it; else refused |
//! | another user's file in a sticky folder that all may write to, whose owner it does not belong to | refused, as by the kernel's `fs.protected_regular`: it may be a trap |
//! | a file that is immutable or only appended to (`chattr +i`, `+a`) | refused |
//! | a folder, a pipe or device, a link to nothing, a name with `/` at its end | refused |
//! | what is found at the rename only to be held | written through then, if this user may |

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_sys::held_folder::FileIdentity;
use bulkhead_sys::{inode_flags, open_flags, socket, unnamed_file};

use crate::atomic_file::remove_own;
use crate::inheritance::{self, NotKept};
use crate::kept_file;
use crate::permission::name_user;

/// The bit of a folder in which only its owner, and the owner of a file, may remove the file.
const STICKY: u32 = 0o1000;
/// The permission of all users to write.
const ALL_WRITE: u32 = 0o002;

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
    /// Whether the older file was written to, and holds a part of the new one now.
    pub is_damaged: bool,
    /// Where it is.
    pub finished: FinishedFile,
}

/// Where a finished file is that did not reach its path, or did and is not safe there.
#[derive(Debug)]
pub enum FinishedFile {
    /// There is none.
    Missing,
    /// Under its path.
    Placed,
    /// Beside its path, or in the folder of temporary files.
    Kept(PathBuf),
    /// No folder took it.
    Lost(io::Error),
}

impl fmt::Display for NotPlaced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.error)?;
        if self.is_damaged {
            out.write_str("; the older file is damaged: a part of it was written over")?;
        }
        match &self.finished {
            FinishedFile::Missing | FinishedFile::Placed => Ok(()),
            FinishedFile::Kept(path) => write!(out, "; the finished file is {}", path.display()),
            FinishedFile::Lost(error) => write!(out, "; the finished file could not be kept: {error}"),
        }
    }
}

impl std::error::Error for NotPlaced {}

impl From<io::Error> for NotPlaced {
    /// There is no finished file.
    fn from(error: io::Error) -> Self {
        Self { error, is_damaged: false, finished: FinishedFile::Missing }
    }
}

/// A failure to give a file its path, while the file is still to be kept.
struct Failure {
    error: io::Error,
    is_damaged: bool,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error, is_damaged: false }
    }
}

impl Destination {
    /// Looks at `path`. A symbolic link to a file is followed, and that file will be replaced.
    ///
    /// # Errors
    /// No file can come there: see the table in the header. Whether the folder takes a new file is found out by the
    /// caller, who makes one in it.
    pub fn look(path: &Path) -> io::Result<Self> {
        let (path, older) = match path.metadata() {
            Ok(found) if found.is_file() => (path.canonicalize()?, Some(found)),
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            Ok(_) => return Err(io::Error::new(ErrorKind::InvalidInput, "it is no plain file")),
            Err(error) if error.kind() == ErrorKind::NotFound => (new_name(path)?, None),
            Err(error) => return Err(name_user(error)),
        };
        let through = older.as_ref().map_or(Ok(None), |found| open_unless_replaceable(&path, found))?;
        Ok(Self { path, has_older: older.is_some(), through })
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
    /// [`NotPlaced`]: the older file is unchanged, unless the error says that it is damaged.
    pub fn place(&self, file: &File, name: Option<PathBuf>) -> Result<Vec<NotKept>, NotPlaced> {
        let mut name = name;
        let placed = match &self.through {
            Some(older) => self.write_through(file, older, &mut name),
            None => self.replace(file, &mut name).or_else(|error| {
                let older = open_held(&self.path).filter(|_| is_held(&error));
                older.map_or(Err(error.into()), |older| self.write_through(file, &older, &mut name))
            }),
        };
        match placed {
            Ok(not_kept) => {
                // Written through: the copy is not needed any more.
                if let Some(name) = name {
                    remove_own(file, &name);
                }
                sync_folder(self.folder()).map(|()| not_kept).map_err(|error| NotPlaced {
                    error: explained(
                        "it is in its place, and its folder could not be synced to the disk",
                        error,
                    ),
                    is_damaged: false,
                    finished: FinishedFile::Placed,
                })
            }
            Err(Failure { error, is_damaged }) => {
                let kept = kept_file::keep(file, name, &self.path, "done");
                let finished = kept.map_or_else(FinishedFile::Lost, FinishedFile::Kept);
                Err(NotPlaced { error: name_user(error), is_damaged, finished })
            }
        }
    }

    /// Gives the file the path by a link, or by a rename of its name, which is then `None`.
    fn replace(&self, file: &File, name: &mut Option<PathBuf>) -> io::Result<Vec<NotKept>> {
        file.sync_all().map_err(|error| explained("not all of it reached the disk", error))?;
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

    /// Copies the finished file into the older one: the finished one gets a name beside it, all blocks are reserved, the
    /// bytes are copied; the caller removes the name. So a kill or a full disk in between leaves the finished file, and
    /// what fails before the first byte leaves the older one too. An older file that the path does not lead to any more
    /// is not written to: nobody would find the bytes.
    fn write_through(
        &self,
        finished: &File,
        older: &File,
        name: &mut Option<PathBuf>,
    ) -> Result<Vec<NotKept>, Failure> {
        if !matches!(FileIdentity::at(&self.path), Ok(found) if found == FileIdentity::of(older)?) {
            let text =
                "the older file, which was to be written over, was removed or replaced while the job ran";
            return Err(io::Error::new(ErrorKind::NotFound, text).into());
        }
        let (length, before) = (finished.metadata()?.len(), older.metadata()?.len());
        *name = kept_file::named(finished, name.take(), &self.path, "done");
        if let Err(error) = unnamed_file::reserve(older, length) {
            // Gives back what was reserved.
            drop(older.set_len(before));
            return Err(error.into());
        }
        let copied = kept_file::copy_bytes(finished, older)
            .and_then(|()| older.set_len(length))
            .and_then(|()| older.sync_all());
        copied.map(|()| Vec::new()).map_err(|error| Failure { error, is_damaged: true })
    }
}

/// Whether a rename failed because of the file that stands under the name, or of its folder, and not of the new file.
fn is_held(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::CrossesDevices
    )
}

fn explained(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The regular file under this path, open for writing; a link is not followed any more.
fn open_held(path: &Path) -> Option<File> {
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
    is_file.then(|| open_flags::open_to_write(path).ok()).flatten()
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
        let text = "it is append-only and cannot be replaced: `chattr -a` takes that from it, or append to it with \
                    `-o - >> FILE`";
        return refuse(ErrorKind::PermissionDenied, text.to_owned());
    }
    let folder = folder_of(path);
    let folder_flags = inode_flags::look(folder).unwrap_or_default();
    let why = if flags.is_mounted_on {
        "it is a mount of its own, so it cannot be replaced".to_owned()
    } else if let Some(sticky) = folder.metadata().ok().filter(|folder| is_held_by_sticky(folder, found)) {
        let why = format!("it belongs to user {} in the sticky folder {}", found.uid(), folder.display());
        if sticky.mode() & ALL_WRITE != 0 && found.uid() != sticky.uid() {
            let text = format!("{why}, which all may write to: choose another name");
            return refuse(ErrorKind::PermissionDenied, text);
        }
        why
    } else if folder_flags.is_immutable || folder_flags.is_append_only {
        format!(
            "the folder {} is immutable or append-only, so no file in it can be replaced",
            folder.display()
        )
    } else if !inode_flags::takes_names(folder) {
        // If neither can be written, the folder is told, where a new file is tried.
        return Ok(open_flags::open_to_write(path).ok());
    } else {
        return Ok(None);
    };
    match open_flags::open_to_write(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) => {
            refuse(error.kind(), format!("{why}, and it cannot be written to: {}", name_user(error)))
        }
    }
}

/// Whether the folder's sticky bit keeps this user from renaming over the file.
fn is_held_by_sticky(folder: &Metadata, file: &Metadata) -> bool {
    let user = socket::own_uid();
    folder.mode() & STICKY != 0 && user != 0 && user != file.uid() && user != folder.uid()
}

/// Syncs the folder's entries to the disk, unless this user may not open it or its file system cannot do that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).map(|folder| folder.sync_all()) {
        Ok(Err(error))
            if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::ReadOnlyFilesystem) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Accepts a path where no file is. Refuses one that names a folder, and a dangling link: another user may have set it
/// as a trap, and the link itself must not be replaced.
fn new_name(path: &Path) -> io::Result<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    if path.file_name().is_none() || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        return Err(io::Error::new(ErrorKind::NotFound, "it names a folder that is not there"));
    }
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
    use std::fs::{OpenOptions, Permissions};
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
        let FinishedFile::Kept(kept) = &not_placed.finished else { panic!("{not_placed}") };
        assert_eq!(kept, &folder.path().join("out.done"));
        assert!(not_placed.to_string().ends_with(&format!("; the finished file is {}", kept.display())));
        assert_eq!(std::fs::read(kept).unwrap(), b"new");
        assert!(!name.exists());
    }

    #[test]
    fn a_name_that_no_file_can_have_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        for name in ["new/", "new/.", "", "file/new", "loop", &"x".repeat(256)] {
            let path = [folder.path().as_os_str().as_bytes(), b"/", name.as_bytes()].concat();
            let looked = Destination::look(Path::new(std::ffi::OsStr::from_bytes(&path)));
            assert!(looked.is_err(), "{name}: {looked:?}");
        }
    }

    #[test]
    fn an_older_file_that_its_path_does_not_lead_to_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for is_replaced in [false, true] {
            std::fs::write(&path, "older").unwrap();
            let through = Some(OpenOptions::new().write(true).open(&path).unwrap());
            std::fs::remove_file(&path).unwrap();
            if is_replaced {
                std::fs::write(&path, "theirs").unwrap();
            }
            let (file, name) = finished(folder.path());
            let destination = Destination { path: path.clone(), has_older: true, through };
            let not_placed = destination.place(&file, Some(name)).unwrap_err();
            assert!(!not_placed.is_damaged && not_placed.to_string().contains("was removed or replaced"));
            let FinishedFile::Kept(kept) = &not_placed.finished else { panic!("{not_placed}") };
            assert_eq!(std::fs::read(kept).unwrap(), b"new");
            assert!(!is_replaced || std::fs::read(&path).unwrap() == b"theirs");
        }
    }

    /// The file of /proc reserves nothing, and takes numbers alone.
    #[test]
    fn a_disk_that_fails_in_the_middle_is_said_to_have_damaged_the_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = PathBuf::from("/proc/self/oom_score_adj");
        let through = Some(open_flags::open_to_write(&path).unwrap());
        let destination = Destination { path, has_older: true, through };
        let (file, name) = finished(folder.path());
        let not_placed = destination.place(&file, Some(name)).unwrap_err();
        assert!(not_placed.is_damaged, "{not_placed}");
        let FinishedFile::Kept(kept) = &not_placed.finished else { panic!("{not_placed}") };
        let content = std::fs::read(kept);
        std::fs::remove_file(kept).unwrap();
        assert_eq!(content.unwrap(), b"new");
        let (text, end) = (not_placed.to_string(), format!("; the finished file is {}", kept.display()));
        assert!(text.contains("the older file is damaged") && text.ends_with(&end), "{text}");
    }
}
