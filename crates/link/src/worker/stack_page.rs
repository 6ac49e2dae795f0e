//! The page in which a worker's own runtime writes its stack as text, from the worker's side.
//!
//! The runtime writes through the descriptor, at its position, whatever code it is: Python's faulthandler calls write(2)
//! in a handler. This side empties the page and sets the position back, right before each claim and after each result, and
//! stores the seq of the task at its start: a text is its task's alone. A page to which nothing was written costs a task
//! two stores and two loads. Driven by the worker runtime; the supervisor's side is `supervisor/stack_page.rs`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::{STACK_PAGE_BYTES, STACK_TEXT_MAX_BYTES};
use bulkhead_proto::worker::boxes::{
    ORDERS_BYTES, STACK_ASKED_AT, STACK_SEQ_AT, STACK_SIGNAL, STACK_TEXT_AT,
};
use bulkhead_sys::shared_page::SharedPage;
use bulkhead_sys::thread_stacks::{self, SharedWord};

/// The page for the text of this worker's stack. What is written goes behind what was written before for the same task; what
/// does not fit is refused. It is closed in programs that the worker starts.
#[derive(Debug)]
pub struct StackPage {
    page: SharedPage,
    file: File,
}

impl StackPage {
    /// Maps the page that the supervisor sent.
    ///
    /// # Errors
    /// EINVAL: it is no page of this version. ENOMEM. ESPIPE: it has no position.
    pub fn map(descriptor: OwnedFd) -> io::Result<Self> {
        let page = SharedPage::map_shared(descriptor.as_fd(), STACK_PAGE_BYTES)?;
        let made = Self { page, file: File::from(descriptor) };
        made.rewind()?;
        Ok(made)
    }

    /// A task is about to be claimed: from now on the text is that of its stack.
    pub fn begin(&self, seq: Seq) {
        self.empty();
        self.page.store(STACK_SEQ_AT, seq.0, Ordering::Release);
    }

    /// A task has ended: what is written from now on is nobody's.
    pub fn end(&self) {
        self.page.store(STACK_SEQ_AT, 0, Ordering::Release);
        self.empty();
    }

    /// Installs a handler of [`STACK_SIGNAL`] that writes the stacks of all threads into the page, if the supervisor asks for
    /// the task that runs. `orders` is the second descriptor of the setup. Once per process.
    ///
    /// # Errors
    /// As [`thread_stacks::install`]; EINVAL, ENOMEM: a page cannot be mapped again. EMFILE.
    pub fn write_when_asked(&self, orders: BorrowedFd<'_>) -> io::Result<()> {
        let asked = SharedWord { page: SharedPage::map_read_only(orders, ORDERS_BYTES)?, at: STACK_ASKED_AT };
        let own = SharedPage::map_shared(self.file.as_fd(), STACK_PAGE_BYTES)?;
        let into = self.file.as_fd().try_clone_to_owned()?;
        thread_stacks::install(STACK_SIGNAL, asked, SharedWord { page: own, at: STACK_SEQ_AT }, into)
    }

    fn empty(&self) {
        if self.page.load(STACK_TEXT_AT, Ordering::Relaxed) != 0 {
            self.page.write_bytes(STACK_TEXT_AT, &[0; STACK_TEXT_MAX_BYTES]);
            // A memfd has a position, so this cannot fail.
            drop(self.rewind());
        }
    }

    fn rewind(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::Start(STACK_TEXT_AT as u64))
    }
}

impl AsFd for StackPage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Write for &StackPage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
