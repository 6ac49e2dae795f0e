//! The target of `-o` and `--out`: a file that appears when it is complete, or a pipe or device that is written to.
//!
//! A regular file is replaced in one step; until then the older file stays as it was. What of it could not be kept is
//! told on stderr. `-` is stdout. A job cannot be given a pipe, terminal or device, and bytes that were written to one
//! cannot be taken back. So for those the job writes into an unnamed file, which is copied to the target when the job is
//! done. If that copy fails, it is kept, unless its reader has gone. Errors name the file as the user does.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_client::{
    AtomicFile, Error, FinishedFile, HiddenFolder, InterruptFd, Interrupts, JobFile, NotKept, NotPlaced,
    input_file, keep_finished, name_user, wait_readable,
};

use crate::stdio::say;
use crate::write_wait::{self, WriteWait};

/// Bytes of one read.
const PIECE_BYTES: usize = 1 << 20;
/// The descriptors that every command has.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
/// Symbolic links on the way to a descriptor of this process.
const LINKS_MAX: u32 = 8;
/// The timeout of one poll while a copy runs. The command then polls again: a reader may be silent for ever.
const SILENCE: Duration = Duration::from_secs(3600);

/// A file, pipe or device that is being written.
#[derive(Debug)]
pub(crate) struct OutputTarget {
    inner: TargetKind,
    name: String,
    /// Its path, if a program is to make the file.
    made_at: Option<PathBuf>,
    write_wait: WriteWait,
    /// Bytes that were written by this command.
    written: u64,
}

#[derive(Debug)]
enum TargetKind {
    Whole(AtomicFile),
    /// A program makes the file, in a folder beside the path.
    Made {
        folder: HiddenFolder,
        name: String,
    },
    /// Stdout, a pipe, terminal or device. This command writes to it at once; the output of a job is copied to it at
    /// the end. It is never replaced.
    Special {
        file: Arc<File>,
        copied_to: Option<File>,
    },
}

impl OutputTarget {
    /// Opens `path` to be written by this command. A symbolic link is followed.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Self::open(path, |special| Ok(TargetKind::Special { file: Arc::new(special), copied_to: None }))
    }

    /// Opens `path` to be written by a job.
    pub(crate) fn for_job(path: &Path) -> Result<Self> {
        Self::open(path, |special| {
            Ok(TargetKind::Special { file: Arc::new(input_file::scratch()?), copied_to: Some(special) })
        })
    }

    fn open(path: &Path, special: impl FnOnce(File) -> io::Result<TargetKind>) -> Result<Self> {
        let is_stdout = path == Path::new("-");
        let name = if is_stdout { "stdout".to_owned() } else { path.display().to_string() };
        let own = if is_stdout { Some(STDOUT) } else { own_descriptor(path) };
        let open = || match path.metadata() {
            _ if own.is_some() => special(open_own(own, path)?),
            Ok(found) if !found.is_file() && !found.is_dir() => {
                special(OpenOptions::new().write(true).open(path).map_err(name_user)?)
            }
            _ => AtomicFile::create(path).map(TargetKind::Whole),
        };
        let inner = open().with_context(|| format!("cannot write to {name}"))?;
        Ok(Self { inner, name, made_at: None, write_wait: WriteWait::default(), written: 0 })
    }

    /// Opens `path` to be written by a program, which has the file as `name`.
    pub(crate) fn for_program(path: &Path, name: &str) -> Result<Self> {
        let stdout = Path::new("/dev/stdout");
        let made_at = std::path::absolute(if path == Path::new("-") { stdout } else { path }).ok();
        let this = Self { made_at, ..Self::for_job(path)? };
        let TargetKind::Whole(_) = this.inner else { return Ok(this) };
        let folder = HiddenFolder::create(path).with_context(|| format!("cannot write to {}", this.name))?;
        Ok(Self { inner: TargetKind::Made { folder, name: name.to_owned() }, ..this })
    }

    /// Replaces a folder, in which a program would make the file, by the file itself.
    pub(crate) fn without_folder(self) -> Result<Self> {
        let inner = match self.inner {
            TargetKind::Made { folder, .. } => {
                let file = folder.into_file();
                TargetKind::Whole(file.with_context(|| format!("cannot write to {}", self.name))?)
            }
            inner => inner,
        };
        Ok(Self { inner, ..self })
    }

    /// The file or folder as a file of a job, and the path of a file that a program makes.
    pub(crate) fn job_file(&self, name: &str) -> (JobFile, Option<PathBuf>) {
        match &self.inner {
            TargetKind::Made { folder, .. } => {
                (JobFile::folder(name, Arc::clone(folder.folder())), Some(folder.file_path()))
            }
            _ => (JobFile::written(name, Arc::clone(self.file())), self.made_at.clone()),
        }
    }

    /// From now on a signal ends a write that waits for the reader of a pipe.
    pub(crate) fn heed(&mut self, interrupt_fd: InterruptFd) -> Result<()> {
        self.write_wait = WriteWait::with(self.file().as_fd(), interrupt_fd)?;
        Ok(())
    }

    /// Whether bytes are where they are to go as soon as they are written, and not only when [`OutputTarget::finish`] has
    /// given them a name.
    pub(crate) fn is_written_through(&self) -> bool {
        matches!(self.inner, TargetKind::Special { copied_to: None, .. })
    }

    /// The file that is written into.
    pub(crate) fn file(&self) -> &Arc<File> {
        match &self.inner {
            TargetKind::Whole(atomic) => atomic.file(),
            TargetKind::Made { folder, .. } => folder.folder(),
            TargetKind::Special { file, .. } => file,
        }
    }

    /// Gives the file its name, or copies the job's output to the pipe or device. A signal ends the copy.
    pub(crate) fn finish(self, interrupts: Option<&mut Interrupts>) -> Result<()> {
        let write = || format!("cannot write to {}", self.name);
        match self.inner {
            TargetKind::Whole(atomic) => atomic.publish().map(|lost| tell(&lost)).with_context(write),
            TargetKind::Made { folder, name } => {
                folder.publish(&name).map(|lost| tell(&lost)).with_context(write)
            }
            TargetKind::Special { copied_to: None, .. } => Ok(()),
            TargetKind::Special { file, copied_to: Some(to) } => {
                match copy_out(Arc::clone(&file), to, interrupts) {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => Err(Error::Interrupted.into()),
                    // The reader has as much as it wants.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(error).with_context(write),
                    Err(error) => Err(kept(error, &file, &self.name)).with_context(write),
                }
            }
        }
    }

    /// The name that the user gave.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes this command has written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Keeps the first `bytes` of a file that will not be complete, beside its path, and returns where. A pipe or device
    /// has what was written to it.
    pub(crate) fn keep_partial(self, bytes: u64) -> Result<Option<PathBuf>> {
        match self.inner {
            TargetKind::Whole(atomic) => {
                atomic.file().set_len(bytes)?;
                Ok(Some(atomic.keep_partial()?))
            }
            TargetKind::Made { .. } | TargetKind::Special { .. } => Ok(None),
        }
    }
}

/// The descriptor of this process that the path names, such as `/dev/stdout` or `/dev/fd/3`. What is written there goes
/// on where the shell has left off, also if it is a regular file, which is then not replaced.
fn own_descriptor(path: &Path) -> Option<u32> {
    let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
    let mut path = std::path::absolute(path).ok()?;
    for _ in 0..LINKS_MAX {
        let folder = path.parent()?.canonicalize().ok()?;
        if folder == own {
            return path.file_name()?.to_str()?.parse().ok();
        }
        path = folder.join(path.read_link().ok()?);
    }
    None
}

fn open_own(own: Option<u32>, path: &Path) -> io::Result<File> {
    Ok(File::from(match own {
        Some(STDOUT) => io::stdout().as_fd().try_clone_to_owned()?,
        Some(STDERR) => io::stderr().as_fd().try_clone_to_owned()?,
        _ => OpenOptions::new().append(true).open(path).map_err(name_user)?.into(),
    }))
}

/// The failure to copy a finished file to a device: the file is kept.
fn kept(error: io::Error, file: &File, name: &str) -> NotPlaced {
    let finished = keep_finished(file, Path::new(name)).map_or_else(FinishedFile::Lost, FinishedFile::Kept);
    NotPlaced { error, is_damaged: false, finished }
}

/// Tells what of the older file could not be kept.
fn tell(not_kept: &[NotKept]) {
    not_kept.iter().for_each(|what| say(format_args!("bulkhead: {what}")));
}

/// Copies in a thread of its own: the reader may stop reading for ever, and a signal must end the command all the same.
fn copy_out(scratch: Arc<File>, to: File, interrupts: Option<&mut Interrupts>) -> io::Result<()> {
    let (ended, held) = io::pipe()?;
    let copier = std::thread::spawn(move || {
        let copied = copy(&scratch, to);
        // Closing this end wakes the poll below.
        drop(held);
        copied
    });
    let mut interrupts = interrupts;
    while !copier.is_finished() {
        match wait_readable(ended.as_fd(), SILENCE, interrupts.as_deref_mut())? {
            Err(_) => return Err(ErrorKind::Interrupted.into()),
            Ok(is_ended) if is_ended => break,
            Ok(_) => {}
        }
    }
    copier.join().unwrap_or_else(|_| Err(io::Error::other("the thread that copies has panicked")))
}

fn copy(scratch: &File, mut to: File) -> io::Result<()> {
    let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
    loop {
        match scratch.read_at(&mut piece, at)? {
            0 => return Ok(()),
            count => {
                to.write_all(&piece[..count])?;
                at += count as u64;
            }
        }
    }
}

impl Write for OutputTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = Arc::clone(self.file());
        let written = self.write_wait.write(&mut file.as_ref(), bytes);
        self.written += written.as_ref().map_or(0, |count| *count as u64);
        // The kind stays the same: BrokenPipe decides the exit code, and an Interrupted write is tried again.
        written.map_err(|error| match write_wait::is_interrupted(&error) {
            true => error,
            false => io::Error::new(error.kind(), format!("{}: {error}", self.name)),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is buffered here.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_client::ReceivedOutput;

    use super::*;
    use crate::output::write_exact;

    #[test]
    fn a_file_appears_when_it_is_whole_and_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let mut file = OutputTarget::create(&path).unwrap();
        write_exact(&ReceivedOutput::Inline(b"new".to_vec()), &mut file).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "given up: nothing is left");
        let file = OutputTarget::for_job(&path).unwrap();
        file.file().as_ref().write_all(b"new").unwrap();
        file.finish(None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn errors_name_the_file_that_the_user_named() {
        let error = format!("{:#}", OutputTarget::create(Path::new("/nowhere/at/all")).unwrap_err());
        assert!(error.starts_with("cannot write to /nowhere/at/all: "), "{error}");
        assert!(!error.contains(".bulkhead-"), "{error}");
        let mut full = OutputTarget::create(Path::new("/dev/full")).unwrap();
        let error = write_exact(&ReceivedOutput::Inline(b"x".to_vec()), &mut full).unwrap_err();
        assert!(format!("{error:#}").contains("/dev/full: No space"), "{error:#}");
        let full = OutputTarget::for_job(Path::new("/dev/full")).unwrap();
        full.file().as_ref().write_all(b"x").unwrap();
        let error = format!("{:#}", full.finish(None).unwrap_err());
        assert!(error.starts_with("cannot write to /dev/full: No space"), "{error}");
        let (_, kept) = error.rsplit_once("; the finished file is ").unwrap();
        let content = std::fs::read(kept);
        std::fs::remove_file(kept).unwrap();
        assert_eq!(content.unwrap(), b"x");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let file = OutputTarget::create(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = format!("{:#}", file.finish(None).unwrap_err());
        assert!(error.contains(path.to_str().unwrap()) && !error.contains("temporary"), "{error}");
        let error = format!("{:#}", OutputTarget::for_job(&path).unwrap_err());
        assert!(error.contains("is a directory"), "{error}");
    }

    #[test]
    fn a_descriptor_of_this_process_is_known_by_any_name() {
        for (path, number) in [("/dev/stdout", 1), ("/dev/fd/2", 2), ("/proc/self/fd/7", 7)] {
            assert_eq!(own_descriptor(Path::new(path)), Some(number), "{path}");
        }
        for path in ["/dev/null", "/dev/full", "/proc/1/fd/1", "out", "/nowhere/1"] {
            assert_eq!(own_descriptor(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_device_is_written_and_not_replaced() {
        for make in [OutputTarget::create, OutputTarget::for_job] {
            let mut file = make(Path::new("/dev/null")).unwrap();
            file.write_all(b"x").unwrap();
            file.finish(None).unwrap();
            assert!(!Path::new("/dev/null").is_file());
        }
    }
}
