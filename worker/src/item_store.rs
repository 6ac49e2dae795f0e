//! Item stores of clients, as this worker maps them: where the results of chunks go.
//!
//! A store comes as a registration of files with one file of a known name. It is mapped once, and the mapping is kept with the
//! registration until the supervisor says that it is forgotten. Its seals are checked before it is mapped, so no access to it can
//! fault. Driven by `runtime.rs`, before the memory limit of a task is set, and by `item_writer.rs`.

use std::sync::Arc;

use bulkhead_proto::chunk::STORE_FILE;
use bulkhead_sys::shared_page::{SharedPage, UNLOAD_UNIT_BYTES};
use bulkhead_task::{RegisteredContext, TaskContext, TaskFailure};

/// Most bytes of a store that stay in the resident memory of this worker while a chunk writes there.
const LOADED_MAX_BYTES: usize = 1 << 20;

/// A store, mapped for writing.
#[derive(Debug)]
pub(crate) struct MappedStore {
    pub(crate) page: SharedPage,
}

/// What one writer has touched of a store, from front to back. Pages of a mapping that were touched count as resident memory of
/// this worker, and so against the memory limit of its task, although they are memory of the client. Each time
/// [`LOADED_MAX_BYTES`] were written, and at the end, it unloads the whole units of [`UNLOAD_UNIT_BYTES`] among them; the pages of a
/// shorter chunk stay.
#[derive(Debug)]
pub(crate) struct StoreWriter {
    store: Arc<MappedStore>,
    /// From here to `end` pages may be loaded.
    start: usize,
    end: usize,
}

impl StoreWriter {
    /// Nothing was written; the writer begins at this place of the store.
    pub(crate) fn new(store: Arc<MappedStore>, start: usize) -> Self {
        Self { store, start, end: start }
    }

    /// The words of the store.
    pub(crate) fn page(&self) -> &SharedPage {
        &self.store.page
    }

    /// Writes these bytes at `at`, a multiple of 8 that is not before what was written.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        for (number, piece) in bytes.chunks(LOADED_MAX_BYTES).enumerate() {
            let at = at + number * LOADED_MAX_BYTES;
            self.page().write_bytes(at, piece);
            self.end = at + piece.len();
            if self.end - self.start >= LOADED_MAX_BYTES {
                self.unload();
            }
        }
    }

    fn unload(&mut self) {
        // If the kernel refuses it, the pages count until the next time, or until the registration is forgotten.
        let _ = self.store.page.unload(self.start..self.end);
        self.start = self.end / UNLOAD_UNIT_BYTES * UNLOAD_UNIT_BYTES;
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        if self.end - self.start >= UNLOAD_UNIT_BYTES {
            self.unload();
        }
    }
}

/// The store of a context; `None`: the context is none. It is mapped if that was not done.
///
/// # Errors
/// [`TaskFailure`]: it lacks a seal, or there is no memory.
pub(crate) fn store_of(context: &RegisteredContext) -> Option<Result<Arc<MappedStore>, TaskFailure>> {
    if let Some(mapped) = context.loaded::<MappedStore>() {
        return Some(Ok(mapped));
    }
    let file = context.file(STORE_FILE).filter(|_| !context.is_loaded())?;
    let mapped = SharedPage::map_for_writing(file).map(|page| Arc::new(MappedStore { page }));
    if let Ok(mapped) = &mapped {
        context.keep(Arc::<MappedStore>::clone(mapped));
    }
    Some(
        mapped.map_err(|error| {
            TaskFailure::new(format!("the item store of the job cannot be mapped: {error}"))
        }),
    )
}

/// The store that the job of a task names.
///
/// # Errors
/// [`TaskFailure`]: it names none, or it cannot be mapped.
pub(crate) fn store_of_task(task: &dyn TaskContext) -> Result<Arc<MappedStore>, TaskFailure> {
    let mut contexts = (0..).map_while(|at| task.context(at).ok());
    contexts.find_map(|context| store_of(&context)).unwrap_or_else(|| {
        Err(TaskFailure::new(
            "the job is a chunk of items and names no item store: submit it with the store's spec",
        ))
    })
}
