//! Whether a path that a client named leads to the file that it passed.
//!
//! The descriptor says which file is meant, the path is only a word: in another mount namespace, or after a rename, it
//! leads elsewhere or nowhere. It is believed only if this worker, with its own rights, opens a regular file of the same
//! device and inode for reading under it. The path may be replaced between this check and its use, by nobody but those
//! who may write its folder; a program then finds what any command line would find there. Called only by the worker, in
//! the time of the task: both calls may block on a dead file server.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether `path` is absolute, and this process can read the regular file of `descriptor` under it.
pub(super) fn leads_to(path: &[u8], descriptor: BorrowedFd<'_>) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    path.is_absolute() && is_same(path, descriptor).unwrap_or(false)
}

/// Looks before it opens: to open a FIFO or a device may block or have an effect.
fn is_same(path: &Path, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    let meant = File::from(descriptor.try_clone_to_owned()?).metadata()?;
    let is_it =
        |found: &Metadata| found.is_file() && (found.dev(), found.ino()) == (meant.dev(), meant.ino());
    Ok(is_it(&fs::metadata(path)?) && is_it(&File::open(path)?.metadata()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_the_file_that_was_passed_proves_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
        let leads = |path: &Path, file: &File| leads_to(path.as_os_str().as_bytes(), file.as_fd());
        for name in [&b"plain"[..], b"with blank\nand line", b"\xff\xfe", b"{a}"] {
            fs::write(at(name), "x").unwrap();
            let file = File::open(at(name)).unwrap();
            assert!(leads(&at(name), &file), "{name:?}");
            assert!(leads(
                &at(b"../").join(folder.path().file_name().unwrap()).join(OsStr::from_bytes(name)),
                &file
            ));
        }
        let file = File::open(at(b"plain")).unwrap();
        symlink("plain", at(b"link")).unwrap();
        fs::hard_link(at(b"plain"), at(b"second")).unwrap();
        assert!(leads(&at(b"link"), &file) && leads(&at(b"second"), &file));
        make_fifo(&at(b"fifo"));
        for other in [&b"\xff\xfe"[..], b"missing", b"fifo", b"", b"plain/x"] {
            assert!(!leads(&at(other), &file), "{other:?}");
        }
        assert!(!leads_to(b"plain", file.as_fd()) && !leads_to(b"", file.as_fd()));
        assert!(!leads_to(b"/a\0b", file.as_fd()) && !leads_to(&[b'/'; 5000], file.as_fd()));
        let folder_itself = File::open(folder.path()).unwrap();
        assert!(!leads(folder.path(), &folder_itself), "a folder is no file");
        fs::write(at(b"new"), "y").unwrap();
        fs::rename(at(b"new"), at(b"plain")).unwrap();
        assert!(!leads(&at(b"plain"), &file) && !leads(&at(b"link"), &file), "another file is there now");
        assert!(leads(&at(b"second"), &file));
    }

    fn make_fifo(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }
}
