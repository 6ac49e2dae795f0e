//! Output that does not fit the box: into which file it goes, and when the task asks the supervisor for one.
//!
//! A file of the supervisor gets all of the output, from its first byte on. A reserve is used until the output outgrows it; then what is in
//! it moves into the file that the task asks for. A task asks once. Called by `output.rs`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bulkhead_proto::limits::INLINE_MAX_BYTES;
use bulkhead_proto::worker::stage::Stage;
use bulkhead_task::{FileError, TaskFailure};

use crate::output::TaskOutput;
use crate::task_files::CheckedFile;

const FILE_BUFFER_BYTES: usize = 256 << 10;

pub(super) type AskForOutput<'a> = &'a dyn Fn() -> io::Result<(File, u64)>;

/// Where output goes that does not fit the box.
pub(super) enum OverflowTarget {
    /// Nowhere.
    None,
    /// Into a file of the supervisor.
    Ours(Arc<CheckedFile>),
    /// Into the reserve, until the output outgrows it.
    Reserve(Arc<CheckedFile>),
    /// Into the client's file: all of the output.
    Clients,
    /// Into a file of the supervisor, for which the task has not asked.
    OnDemand,
    /// Into the arena, or as `OnDemand`.
    Arena,
}

impl TaskOutput<'_> {
    /// A file for an output of `bytes` bytes that does not fit the box: the reserve, or one that the task asks for.
    pub(super) fn place_for(&mut self, bytes: u64) -> io::Result<Arc<CheckedFile>> {
        match self.reserve.take().filter(|reserve| reserve.takes(bytes)) {
            Some(reserve) => {
                self.place = OverflowTarget::Reserve(Arc::clone(&reserve));
                Ok(self.files.use_output(reserve))
            }
            None => self.ask_for_file(),
        }
    }

    /// Moves what is in the reserve into a file that the task asks for.
    fn outgrow_reserve(&mut self, reserve: &CheckedFile) -> io::Result<Arc<CheckedFile>> {
        let mut written = vec![0; usize::try_from(self.spilled).map_err(io::Error::other)?];
        if let Some(mut cursor) = self.file.take() {
            cursor.flush()?;
        }
        reserve.read_exact_at(&mut written, 0)?;
        let file = self.ask_for_file()?;
        self.file_for(&file).write_all(&written)?;
        Ok(file)
    }

    /// The buffer of this file, which has the output from its first byte on.
    fn file_for(&mut self, file: &Arc<CheckedFile>) -> &mut BufWriter<FileCursor> {
        let cursor = || FileCursor { file: Arc::clone(file), at: 0 };
        self.file.get_or_insert_with(|| BufWriter::with_capacity(FILE_BUFFER_BYTES, cursor()))
    }

    /// Asks the supervisor for a file. It does so once: without one there is no place for more output.
    fn ask_for_file(&mut self) -> io::Result<Arc<CheckedFile>> {
        self.place = OverflowTarget::None;
        // With the question the reserve is gone for the supervisor.
        self.files.output = None;
        let none = || io::Error::other("nobody can be asked");
        let (file, room_bytes) = self.ask.map_or_else(|| Err(none()), |ask| ask()).map_err(|why| {
            io::Error::other(format!(
                "longer than the {INLINE_MAX_BYTES} bytes that fit inline, and its task gets no output: {why}"
            ))
        })?;
        let file = self.files.add_output(file, room_bytes);
        self.place = OverflowTarget::Ours(Arc::clone(&file));
        Ok(file)
    }

    pub(super) fn spill(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = self.spilled + (self.inline.len() + bytes.len()) as u64;
        let file = match &self.place {
            OverflowTarget::OnDemand | OverflowTarget::Arena => self.place_for(length)?,
            OverflowTarget::Ours(file) => Arc::clone(file),
            OverflowTarget::Reserve(file) if file.takes(length) => Arc::clone(file),
            OverflowTarget::Reserve(file) => {
                let reserve = Arc::clone(file);
                self.outgrow_reserve(&reserve)?
            }
            OverflowTarget::Clients => self
                .files
                .out()
                .map_err(|failure| FileError::of_kind(io::ErrorKind::InvalidInput, failure.to_string()))?,
            OverflowTarget::None => return Err(self.too_long()),
        };
        let inline = std::mem::take(&mut self.inline);
        let file = self.file_for(&file);
        file.write_all(&inline)?;
        file.write_all(bytes)?;
        self.spilled = length;
        Ok(())
    }

    /// Moves the inline bytes to the file and flushes its buffer.
    pub(super) fn move_inline_to_file(&mut self) -> Result<(), TaskFailure> {
        let inline = std::mem::take(&mut self.inline);
        self.spill(&inline)?;
        if let Some(file) = &mut self.file {
            file.flush()?;
        }
        Ok(())
    }

    fn too_long(&self) -> io::Error {
        let advice = match self.stage {
            Stage::Run { .. } => "write what is longer into the output that all parts share",
            _ => "ask for an output descriptor (--large)",
        };
        io::Error::other(format!("longer than the {INLINE_MAX_BYTES} bytes that fit inline: {advice}"))
    }
}

/// Writes a file from byte 0 on by position, whatever the offset of its descriptor.
pub(super) struct FileCursor {
    file: Arc<CheckedFile>,
    at: u64,
}

impl Write for FileCursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
