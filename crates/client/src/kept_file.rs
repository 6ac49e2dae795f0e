//! A free name for a file: hidden while it is being made, or beside its path if it cannot have that.
//!
//! A name that is taken is passed over, never replaced and never followed. What is kept lies in the folder of its path
//! (`PATH.done`, `PATH.partial`), or, if that takes no file, in the folder of temporary files, with a word before its
//! name that says whose it is. Driven by `destination.rs` and `atomic_file.rs`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bulkhead_sys::unnamed_file;

use crate::destination::folder_of;
use crate::input_file;

/// Names that are tried; more are taken only by somebody who wants that.
const TRIES: u32 = 10_000;
/// Bytes of one read.
const PIECE_BYTES: usize = 1 << 20;

/// Calls `make` with one hidden name in `folder` after the other until one is free.
pub(crate) fn hidden<T>(folder: &Path, make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<(T, PathBuf)> {
    let pid = std::process::id();
    first_free((0..TRIES).map(|number| folder.join(format!(".bulkhead-{pid}-{number}"))), make)
}

/// Keeps `file` beside `path`, with `suffix` after its name. `name` is the name that the file has now, if it has one;
/// if it cannot be given another, it keeps that. Returns where it is.
///
/// # Errors
/// No folder takes it.
pub(crate) fn keep(file: &File, name: Option<PathBuf>, path: &Path, suffix: &str) -> io::Result<PathBuf> {
    if let Some(name) = name {
        let renamed =
            first_free(names_beside(path, suffix), |free| unnamed_file::rename_to_free_name(&name, free));
        return Ok(renamed.map_or(name, |((), free)| free));
    }
    if let Ok(((), free)) = first_free(names_beside(path, suffix), |free| unnamed_file::link(file, free)) {
        return Ok(free);
    }
    let spare = input_file::folder();
    let beside = spare.join(format!("bulkhead-{}", path.file_name().unwrap_or_default().display()));
    first_free(names_beside(&beside, suffix), |free| link_or_copy(file, free)).map(|((), free)| free)
}

/// `PATH.suffix`, `PATH.suffix-2` and so on.
fn names_beside(path: &Path, suffix: &str) -> impl Iterator<Item = PathBuf> {
    let folder = folder_of(path).to_owned();
    let name = path.file_name().unwrap_or_default().to_owned();
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

fn link_or_copy(file: &File, free: &Path) -> io::Result<()> {
    match unnamed_file::link(file, free) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(free)?;
            let copied = copy_bytes(file, &copy).and_then(|()| copy.sync_all());
            // A part of it is worth nothing.
            copied.inspect_err(|_| drop(std::fs::remove_file(free)))
        }
        linked => linked,
    }
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
        let folder = tempfile::tempdir().unwrap();
        let mut file = unnamed_file::in_memory("test").unwrap();
        file.write_all(b"mine").unwrap();
        let free = folder.path().join("free");
        link_or_copy(&file, &free).unwrap();
        assert_eq!(std::fs::read(&free).unwrap(), b"mine");
        assert_eq!(link_or_copy(&file, &free).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
