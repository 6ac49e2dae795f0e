//! Inputs that are no regular files: pipes and devices are copied into an unnamed file before anything is submitted.
//!
//! So a slow producer occupies no worker and no descriptor of the daemon, and a retried job reads the same bytes again.
//! The copy has no name: the kernel frees it with its last descriptor. It never grows beyond a limit, since some
//! devices have no end, and a watched signal ends it. Driven by the command line.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_sys::unnamed_file;

use crate::atomic_file;
use crate::interrupt::{Interrupts, wait_readable};
use crate::permission::name_user;

/// Bytes of one read.
const PIECE_BYTES: usize = 1 << 20;
/// The timeout of one poll for input. The copy then polls again: a producer may be silent for ever.
const SILENCE: Duration = Duration::from_secs(3600);
/// The folder of copies unless `TMPDIR` names another. It lies on a disk, unlike `/tmp` on many machines.
const FOLDER: &str = "/var/tmp";

/// An input that was opened.
#[derive(Debug)]
pub enum InputSource {
    /// A regular file, which a job can read as it is.
    Plain(File),
    /// A pipe, socket or device, to be copied.
    Stream(File),
}

impl InputSource {
    /// Opens an input. Opening a FIFO does not wait for a writer.
    ///
    /// # Errors
    /// It cannot be opened, or is a folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_fifo = path.metadata().map_err(name_user)?.file_type().is_fifo();
        let file =
            if is_fifo { unnamed_file::open_at_once(path) } else { File::open(path) }.map_err(name_user)?;
        let found = file.metadata()?;
        if found.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(if found.is_file() { Self::Plain(file) } else { Self::Stream(file) })
    }

    /// The standard input of this process. A regular file whose offset is not 0 is copied from its offset on.
    ///
    /// # Errors
    /// It is closed, or is a folder.
    pub fn stdin() -> io::Result<Self> {
        let mut file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let found = file.metadata()?;
        if found.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let is_whole = found.is_file() && file.stream_position()? == 0;
        Ok(if is_whole { Self::Plain(file) } else { Self::Stream(file) })
    }
}

/// Why an input could not be copied.
#[derive(Debug)]
pub enum InputCopyError {
    /// It cannot be read.
    Read(io::Error),
    /// The copy cannot be written.
    Write {
        /// The folder of the copy.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is longer than it may be.
    TooLong {
        /// The limit.
        limit_bytes: u64,
    },
    /// A signal arrived that [`Interrupts`] watches.
    Interrupted,
}

impl fmt::Display for InputCopyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(out),
            Self::Write { folder, error } => {
                let folder = folder.display();
                write!(out, "its copy cannot be written to {folder}: {error}; set TMPDIR to another folder")
            }
            Self::TooLong { limit_bytes } => {
                write!(out, "it is longer than the limit of {limit_bytes} bytes")
            }
            Self::Interrupted => out.write_str("interrupted"),
        }
    }
}

impl std::error::Error for InputCopyError {}

/// Copies `head` and then all of `source` into an unnamed file, and returns that file with its offset at 0. `copied` is
/// called with the number of bytes so far.
///
/// # Errors
/// [`InputCopyError`]; the copy is gone then.
pub fn copy(
    head: &[u8],
    source: &File,
    limit_bytes: u64,
    mut interrupts: Option<&mut Interrupts>,
    mut copied: impl FnMut(u64),
) -> Result<File, InputCopyError> {
    let folder = folder();
    let failed = |error| InputCopyError::Write { folder: folder.clone(), error };
    let mut file = make(&folder).map_err(failed)?;
    file.write_all(head).map_err(failed)?;
    let (mut total, mut piece) = (head.len() as u64, vec![0; PIECE_BYTES]);
    loop {
        // Checked apart from the poll: a source that is always ready would hide the signal.
        if interrupts.as_deref_mut().is_some_and(Interrupts::take) {
            return Err(InputCopyError::Interrupted);
        }
        match wait_readable(source.as_fd(), SILENCE, interrupts.as_deref_mut()) {
            Ok(Err(_)) => return Err(InputCopyError::Interrupted),
            Ok(Ok(is_ready)) if !is_ready => continue,
            other => drop(other.map_err(InputCopyError::Read)?),
        }
        let mut source = source;
        let count = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(InputCopyError::Read(error)),
        };
        total += count as u64;
        if total > limit_bytes {
            return Err(InputCopyError::TooLong { limit_bytes });
        }
        file.write_all(&piece[..count]).map_err(failed)?;
        copied(total);
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// An empty unnamed file in the folder of copies, for data that passes through this process.
///
/// # Errors
/// The folder takes no file, and no memfd can be made in its place.
pub fn scratch() -> io::Result<File> {
    let folder = folder();
    make(&folder).map_err(|error| {
        let kind = error.kind();
        io::Error::new(kind, InputCopyError::Write { folder, error }.to_string())
    })
}

/// The folder of copies: `TMPDIR` if it is an absolute path, else `/var/tmp`.
pub(crate) fn folder() -> PathBuf {
    let named = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    named.unwrap_or_else(|| PathBuf::from(FOLDER))
}

fn make(folder: &Path) -> io::Result<File> {
    match unnamed_file::create(folder, 0o600) {
        Err(error) if unnamed_file::is_unknown(&error) => {
            let (file, path) = atomic_file::named(folder, 0o600)?;
            std::fs::remove_file(path)?;
            Ok(file)
        }
        // Without the usual folder the copy goes into a memfd. A folder that TMPDIR names is never replaced so: the
        // input may be too long for memory.
        Err(error) if error.kind() == ErrorKind::NotFound && folder == Path::new(FOLDER) => {
            unnamed_file::in_memory("bulkhead-input")
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::Command;

    use super::*;

    /// A pipe that this shell script writes to.
    fn producer(script: &str) -> (File, std::process::Child) {
        let (reader, writer) = io::pipe().unwrap();
        let child = Command::new("sh").args(["-c", script]).stdout(writer).spawn().unwrap();
        (File::from(OwnedFd::from(reader)), child)
    }

    #[test]
    fn all_of_a_slow_pipe_is_copied_behind_the_head() {
        let (pipe, mut child) = producer("printf a; sleep 0.1; head -c 3000000 /dev/zero; printf z");
        let mut told = Vec::new();
        let mut copy = copy(b"head", &pipe, 1 << 30, None, |bytes| told.push(bytes)).unwrap();
        child.wait().unwrap();
        let mut bytes = Vec::new();
        copy.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 4 + 1 + 3_000_000 + 1);
        assert!(bytes.starts_with(b"heada\0") && bytes.ends_with(b"\0z"));
        assert!(told.is_sorted() && told.last() == Some(&(bytes.len() as u64)));
    }

    #[test]
    fn what_has_no_end_meets_the_limit() {
        let InputSource::Stream(zero) = InputSource::open(Path::new("/dev/zero")).unwrap() else {
            panic!("a device is no plain file")
        };
        let error = copy(b"", &zero, 5 << 20, None, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than the limit of 5242880 bytes");
        let InputSource::Stream(null) = InputSource::open(Path::new("/dev/null")).unwrap() else {
            panic!("a device is no plain file")
        };
        assert_eq!(copy(b"", &null, 0, None, |_| {}).unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn files_folders_and_fifos_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, fifo) = (folder.path().join("plain"), folder.path().join("fifo"));
        std::fs::write(&plain, "x").unwrap();
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(matches!(InputSource::open(&plain).unwrap(), InputSource::Plain(_)));
        assert_eq!(InputSource::open(folder.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(InputSource::open(&folder.path().join("no")).unwrap_err().kind(), ErrorKind::NotFound);
        let InputSource::Stream(reader) = InputSource::open(&fifo).unwrap() else {
            panic!("a FIFO is no plain file")
        };
        let mut writer =
            Command::new("sh").arg("-c").arg("sleep 0.1; printf late > \"$0\"").arg(&fifo).spawn();
        let text = io::read_to_string(copy(b"", &reader, 99, None, |_| {}).unwrap()).unwrap();
        writer.as_mut().unwrap().wait().unwrap();
        assert_eq!(text, "late");
    }
}
