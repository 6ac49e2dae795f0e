//! Bytes in memory behind a descriptor (memfd), as Python holds them.
//!
//! An object of the stable ABI of CPython 3.10 cannot offer its memory as a buffer. So Python gets the descriptor, and maps or
//! reads it. Used by both halves.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use bulkhead_sys::memfd;
use bulkhead_sys::shared_page::SharedPage;
use pyo3::prelude::*;

/// Bytes in memory behind a descriptor.
#[pyclass(frozen, module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct MemoryFile {
    file: Arc<File>,
    bytes: u64,
}

impl MemoryFile {
    /// Over an open file, whose length is asked for.
    pub(crate) fn over(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), bytes })
    }

    /// Over a file of a known length.
    pub(crate) fn of_length(file: File, bytes: u64) -> Self {
        Self { file: Arc::new(file), bytes }
    }

    /// The file, which nobody changes from now on, if the kernel can forbid it: a file that was sealed before is left as it is.
    pub(crate) fn sealed(&self) -> Arc<File> {
        let fd = self.file.as_fd();
        let _ = memfd::fix_size(fd).and_then(|()| SharedPage::seal_future_writes(fd));
        Arc::clone(&self.file)
    }
}

#[pymethods]
impl MemoryFile {
    #[new]
    #[pyo3(signature = (length = 0))]
    fn new(length: u64) -> PyResult<Self> {
        let file = File::from(memfd::output_file("bulkhead call")?);
        file.set_len(length)?;
        Ok(Self { file: Arc::new(file), bytes: length })
    }

    fn fileno(&self) -> i32 {
        self.file.as_raw_fd()
    }

    #[getter]
    fn length(&self) -> PyResult<u64> {
        // A file that Python fills may have grown since.
        Ok(self.bytes.max(self.file.metadata()?.len()))
    }
}
