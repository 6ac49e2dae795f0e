//! A free name for a file: hidden while it is being made, or beside its path if it cannot have that.
//!
//! A name that is taken is passed over, never replaced and never followed. What is kept lies in the folder of its path
//! (`PATH.done`, `PATH.partial`), or, if that takes no file, in the folder of temporary files, with a word before its
//! name that says whose it is, and for its user alone. Driven by `destination.rs`, `atomic_file.rs` and the command line.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bulkhead_sys::unnamed_file;

use crate::atomic_file::remove_own;
use crate::destination::folder_of;
use crate::input_file;

/// Names that are tried; more are taken only by somebody who wants that.
const TRIES: u32 = 10_000;
/// Bytes of a file's own name before the suffix: a name has at most 255 bytes on most file systems.
const STEM_MAX_BYTES: usize = 200;
/// Bytes of one read.
const PIECE_BYTES: usize = 1 << 20;

/// Calls `make` with one hidden name in `folder` after the other until one is free.
pub(crate) fn hidden<T>(folder: &Path, make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    let pid = std::process::id();
    first_free((0..TRIES).map(|number| folder.join(format!(".bulkhead-{pid}-{number}"))), make)
}

/// Gives `file` a name for good: beside `path` with `suffix` after its name, or else in the folder of temporary files,
/// as a copy if it must be. `name` is the name that it has now, if it has one, which goes; if no folder takes the file,
/// it keeps that. Returns where it is, as an absolute path.
///
/// # Errors
/// No folder takes it, and it has no name.
pub(crate) fn keep(file: &File, name: Option<PathBuf>, path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let kept = match move_beside(file, name.as_deref(), path, suffix) {
        Ok(free) => free,
        Err(_) => match copy_to_spare(file, path, suffix) {
            Ok(free) => {
                if let Some(name) = name {
                    remove_own(file, &name);
                }
                free
            }
            Err(error) => name.ok_or(error)?,
        },
    };
    Ok(std::path::absolute(&kept).unwrap_or(kept))
}

/// As [`keep`], without a copy and without an error: if no folder takes the file by a mere name, it has the name that
/// it had.
pub(crate) fn named(file: &File, name: Option<PathBuf>, path: &Path, suffix: &str) -> Option<PathBuf> {
    move_beside(file, name.as_deref(), path, suffix).ok().or(name)
}

/// Keeps the finished file of a target that is no file, such as a device, in the folder of temporary files: as
/// `bulkhead-TARGET.done`, where `target` is the name of it. Returns its path.
///
/// # Errors
/// The folder does not take it.
pub fn keep_finished(file: &File, target: &Path) -> io::Result<PathBuf> {
    let spare = spare_of(target);
    let linked = first_free(names_beside(&spare, "done"), |free| unnamed_file::link(file, free));
    linked.map(|((), free)| free).or_else(|_| copy_to_spare(file, target, "done"))
}

fn move_beside(file: &File, name: Option<&Path>, path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let move_to = |free: &Path| match name {
        Some(name) if name == free => Ok(()),
        Some(name) => unnamed_file::rename_to_free_name(name, free),
        None => unnamed_file::link(file, free),
    };
    if let Ok(((), free)) = first_free(names_beside(path, suffix), move_to) {
        return Ok(free);
    }
    make_private(file);
    first_free(names_beside(&spare_of(path), suffix), move_to).map(|((), free)| free)
}

fn copy_to_spare(file: &File, path: &Path, suffix: &str) -> io::Result<PathBuf> {
    first_free(names_beside(&spare_of(path), suffix), |free| copy(file, free)).map(|((), free)| free)
}

/// The path in the folder of temporary files that stands for this path.
fn spare_of(path: &Path) -> PathBuf {
    input_file::folder().join(format!("bulkhead-{}", path.file_name().unwrap_or_default().display()))
}

/// All users may look into the folder of temporary files. That a file cannot be made private is no reason to lose it.
fn make_private(file: &File) {
    drop(file.set_permissions(Permissions::from_mode(0o600)));
}

/// `PATH.suffix`, `PATH.suffix-2` and so on.
fn names_beside(path: &Path, suffix: &str) -> impl Iterator<Item = PathBuf> {
    let folder = folder_of(path).to_owned();
    let name = path.file_name().unwrap_or_default().as_bytes();
    let name = OsStr::from_bytes(&name[..name.len().min(STEM_MAX_BYTES)]).to_owned();
    let suffix = suffix.to_owned();
    (1..TRIES).map(move |number| {
        let mut free = OsString::from(&name);
        free.push(if number == 1 { format!(".{suffix}") } else { format!(".{suffix}-{number}") });
        folder.join(free)
    })
}

fn first_free<T>(
    names: impl Iterator<Item = PathBuf>,
    mut make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(T, PathBuf)> {
    for path in names {
        match make(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|made| (made, path)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

fn copy(file: &File, free: &Path) -> io::Result<()> {
    let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(free)?;
    let copied = copy_bytes(file, &copy).and_then(|()| copy.sync_all());
    // A part of it is worth nothing.
    copied.inspect_err(|_| drop(std::fs::remove_file(free)))
}

/// Copies all bytes of one file to the beginning of another. The offsets of both stay.
pub(crate) fn copy_bytes(from: &File, to: &File) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    loop {
        match from.read_at(&mut piece, at)? {
            0 => return Ok(()),
            count => {
                to.write_all_at(&piece[..count], at)?;
                at += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_taken_name_is_passed_over_and_a_missing_folder_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(folder.path().join("out.partial"), "theirs").unwrap();
        let mut file = unnamed_file::create(folder.path(), 0o600).unwrap();
        file.write_all(b"mine").unwrap();
        let kept = keep(&file, None, &path, "partial").unwrap();
        assert_eq!(kept, folder.path().join("out.partial-2"));
        let elsewhere = keep(&file, None, &folder.path().join("gone/out"), "partial").unwrap();
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"mine");
        let name = elsewhere.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::remove_file(&elsewhere).unwrap();
        assert!(name.starts_with("bulkhead-out.partial"), "{name}");
    }

    #[test]
    fn another_file_system_gets_a_copy() {
        let mut file = unnamed_file::in_memory("test").unwrap();
        file.write_all(b"mine").unwrap();
        let kept = keep_finished(&file, Path::new("/dev/full")).unwrap();
        let content = std::fs::read(&kept);
        let mode = kept.metadata().unwrap().permissions().mode();
        std::fs::remove_file(&kept).unwrap();
        assert_eq!((content.unwrap(), mode & 0o777), (b"mine".to_vec(), 0o600));
    }

    #[test]
    fn a_file_that_has_a_name_leaves_it_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let (name, path) = (folder.path().join("hidden"), folder.path().join("x".repeat(250)));
        std::fs::write(&name, "mine").unwrap();
        let kept = keep(&File::open(&name).unwrap(), Some(name.clone()), &path, "done").unwrap();
        assert_eq!(kept, folder.path().join(format!("{}.done", "x".repeat(STEM_MAX_BYTES))));
        assert!(!name.exists() && std::fs::read(&kept).unwrap() == b"mine");
        let gone = folder.path().join("gone/out");
        let elsewhere = keep(&File::open(&kept).unwrap(), Some(kept.clone()), &gone, "done").unwrap();
        let content = std::fs::read(&elsewhere);
        std::fs::remove_file(&elsewhere).unwrap();
        assert_eq!(content.unwrap(), b"mine");
        assert!(!kept.exists());
    }
}
