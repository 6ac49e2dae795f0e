//! Item stores of clients, as this worker maps them: where the results of chunks go.
//!
//! A store comes as a registration of files with one file of a known name. It is mapped once, and the mapping is kept with the
//! registration until the supervisor says that it is forgotten. Its seals are checked before it is mapped, so no access to it can
//! fault. Driven by `runtime.rs`, before the memory limit of a task is set, and by `item_writer.rs`.

use std::sync::Arc;

use bulkhead_proto::chunk::STORE_FILE;
use bulkhead_sys::shared_page::SharedPage;
use bulkhead_task::{RegisteredContext, TaskContext, TaskFailure};

/// A store, mapped for writing.
#[derive(Debug)]
pub(crate) struct MappedStore {
    pub(crate) page: SharedPage,
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
