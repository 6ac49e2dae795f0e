//! The instance lock: at most one living daemon serves a socket path.
//!
//! It is a flock(2) on a file that the daemon never removes, because otherwise two daemons could lock two files of one
//! name. A cleaner of temporary files may remove it: the daemon's boot folder is locked too (`held_folder.rs`).
//! The kernel drops the lock when its holder dies. The file's text is the holder's pid, for people. Driven by the
//! supervisor's `setup.rs`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use crate::held_folder::FileIdentity;

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another living process holds it.
    Held {
        /// Its pid, if it has written it yet.
        pid: Option<u32>,
    },
    /// The file cannot be opened, locked or written. ELOOP: it is a symbolic link, which this program never creates.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { pid: Some(pid) } => write!(out, "locked by process {pid}"),
            Self::Held { pid: None } => out.write_str("locked by another process"),
            Self::Io(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for LockError {}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl InstanceLock {
    /// Takes the lock, or returns at once who holds it. Creates the file if it is missing, with mode 0600.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        loop {
            if let Some(lock) = Self::take_opened(open(path)?, path)? {
                return Ok(lock);
            }
        }
    }

    /// `None`: a cleaner removed the file since it was opened, so that a lock on it has no name.
    fn take_opened(mut file: File, path: &Path) -> Result<Option<Self>, LockError> {
        match lock_file(&file) {
            Err(LockError::Held { pid }) => {
                return Err(LockError::Held { pid: holder(&mut file).or(pid) });
            }
            result => result?,
        }
        if !is_at(&file, path)? {
            return Ok(None);
        }
        if !was_a_lock(&mut file)? {
            let text = "it exists and is no lock file: remove it or choose another place";
            return Err(LockError::Io(io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        file.rewind()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Self { _file: file }))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// Locks an open file or folder until its last descriptor is closed.
pub(crate) fn lock_file(file: &File) -> Result<(), LockError> {
    // SAFETY: flock takes a descriptor, which `file` keeps open, and an integer.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match Errno::result(result) {
        Ok(_) => Ok(()),
        Err(Errno::EWOULDBLOCK) => Err(LockError::Held { pid: locker(file) }),
        Err(error) => Err(LockError::Io(error.into())),
    }
}

/// The process that holds a flock(2) on this file, from `/proc/locks`, if that names it.
fn locker(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF`: the third number of the sixth word is the inode.
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, place) = (words.next()?, words.nth(2)?, words.next()?);
        let is_it = kind == "FLOCK" && place.rsplit(':').next() == Some(inode.as_str());
        pid.parse().ok().filter(|pid| is_it && *pid > 0)
    })
}

/// Whether the path leads to this open file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match FileIdentity::at(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found? == FileIdentity::of(file)?),
    }
}

/// Whether the file holds at most a number, as a lock file of ours does; other content is data of another program.
fn was_a_lock(file: &mut File) -> io::Result<bool> {
    let mut bytes = Vec::new();
    file.take(33).read_to_end(&mut bytes)?;
    Ok(bytes.len() <= 32 && bytes.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace()))
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::testing::{nobody_spawns, spawning};

    #[test]
    fn a_held_lock_names_its_holder_and_a_dead_holder_frees_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 9>\"$0\"; flock 9; echo $$ >&9; echo; read line"]).arg(&path);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = spawning(|| shell.spawn()).unwrap();
        holder.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        match InstanceLock::take(&path) {
            Err(LockError::Held { pid: Some(pid) }) => assert_eq!(pid, holder.id()),
            other => panic!("{other:?}"),
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        let _quiet = nobody_spawns();
        let lock = InstanceLock::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(lock);
        InstanceLock::take(&path).unwrap();
    }

    /// Between open(2) and flock(2): the file is removed, or removed and made again.
    #[test]
    fn a_lock_on_a_file_that_was_removed_is_taken_again() {
        let _quiet = nobody_spawns();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let early = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(InstanceLock::take_opened(early, &path).unwrap().is_none());
        let early = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lock = InstanceLock::take(&path).unwrap();
        assert!(InstanceLock::take_opened(early, &path).unwrap().is_none(), "two would serve one path");
        assert!(path.exists());
        drop(lock);
    }

    #[test]
    fn a_file_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        for data in ["precious", "12345678901234567890123456789012345"] {
            std::fs::write(&path, data).unwrap();
            assert!(matches!(InstanceLock::take(&path), Err(LockError::Io(_))), "{data}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), data);
        }
    }

    #[test]
    fn the_file_is_private_and_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let _lock = InstanceLock::take(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        match InstanceLock::take(&link) {
            Err(LockError::Io(error)) => assert_eq!(error.raw_os_error(), Some(libc::ELOOP)),
            other => panic!("{other:?}"),
        }
    }
}
