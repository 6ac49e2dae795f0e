//! The worker half: the worker runtime with two kinds, `call` and `chunk`, whose handlers are Python callables.
//!
//! The runtime waits without the GIL; each call attaches to the interpreter. The handler in Python catches what the called function
//! raises, so an error that arrives here is one of that handler's own, and ends the call as failed. What is longer than inline
//! is written without the GIL.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use bulkhead_proto::limits::INLINE_MAX_BYTES;
use bulkhead_sys::heap;
use bulkhead_sys::passed_descriptor;
use bulkhead_task::TaskFailure;
use bulkhead_worker::{ChunkInput, ItemWriter, PositionedFile, RegisteredContext, Registry, TaskContext};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::call_task::CallTask;
use crate::chunk_task::{ChunkResults, OpenChunk};
use crate::input_places::KEPT_BLOCK_BYTES;
use crate::memory_file::MemoryFile;

/// The kind of all calls.
pub(crate) const CALL: &str = "call";
/// The kind of all chunks of calls.
pub(crate) const CHUNK: &str = "chunk";
/// The name of the file with the input of a call, or with the content of a context.
pub(crate) const CONTENT: &str = "content";

/// The names of the descriptors of a context begin with this.
pub(crate) const PASSED: &str = "passed";

/// What the handler returned, where the rest is done without the GIL.
enum CallResult {
    /// It is written.
    Written,
    /// These bytes are to be written.
    Long(PyBackedBytes),
    /// This function fills a file of this length.
    Filled(u64, Py<PyAny>),
}

/// The Python code of a worker.
struct CallCode {
    handler: Py<PyAny>,
    chunk: Option<Py<PyAny>>,
    load: Option<Py<PyAny>>,
}

impl CallCode {
    fn run(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        match self.call(input, task)? {
            CallResult::Written => Ok(()),
            CallResult::Long(bytes) => Ok(task.write_all(&bytes)?),
            CallResult::Filled(length, fill) => {
                let file = task.long_output(length)?;
                file.set_length(length)?;
                let fd = file.as_fd().as_raw_fd();
                Python::attach(|py| fill.call1(py, (fd,)).map(drop).map_err(|error| failure(py, &error)))
            }
        }
    }

    fn call(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<CallResult, TaskFailure> {
        let file = content(&task.files()).map_err(|error| TaskFailure::new(error.to_string()))?;
        let contexts: Vec<_> =
            (0..task.context_count()).map(|at| task.context(at)).collect::<Result<_, _>>()?;
        let reporter = task.reporter();
        Python::attach(|py| {
            let called = || {
                let input = match file {
                    Some(file) => Bound::new(py, file)?.into_any(),
                    None => PyBytes::new(py, input).into_any(),
                };
                let values = contexts.iter().map(|context| value_of(py, context));
                let values = PyTuple::new(py, values.collect::<Vec<_>>())?;
                self.handler.bind(py).call1((input, values, CallTask(reporter)))
            };
            called().and_then(|result| taken(&result, task)).map_err(|error| failure(py, &error))
        })
    }

    /// Runs the calls of a chunk. The output of its task is a result that has no room in the region, or how long the calls took, in
    /// nanoseconds.
    fn run_chunk(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        let begun = Instant::now();
        let handler = self.chunk.as_ref().ok_or_else(|| TaskFailure::new("this worker runs no chunks"))?;
        let chunk = ChunkInput::read(input).map_err(TaskFailure::new)?;
        let writer = ItemWriter::open(&chunk, &*task)?;
        // The last context is the item store.
        let contexts = (0..task.context_count().saturating_sub(1)).map(|at| task.context(at));
        let contexts: Vec<_> = contexts.collect::<Result<_, _>>()?;
        let reporter = task.reporter();
        let open = Python::attach(|py| {
            let results = Bound::new(
                py,
                ChunkResults::over(OpenChunk { writer, reporter: reporter.clone(), long: None }),
            )?;
            let items: Vec<_> = chunk.items().map(|item| PyBytes::new(py, item)).collect();
            let (head, items) = (PyBytes::new(py, chunk.head), PyList::new(py, items)?);
            let values: Vec<_> = contexts.iter().map(|context| value_of(py, context)).collect();
            let values = PyTuple::new(py, values)?;
            let called = handler.bind(py).call1((head, items, values, CallTask(reporter), &results));
            let open = results.get().end();
            called.map(|_| open)
        });
        let open = open.map_err(|error| Python::attach(|py| failure(py, &error)))?;
        let OpenChunk { mut writer, long, .. } =
            open.ok_or_else(|| TaskFailure::new("the results of the chunk were taken away"))?;
        match long {
            Some((result, is_failed)) => writer.store(&result, is_failed, task)?,
            None if writer.is_over() => {
                let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                task.write_all(&took.to_le_bytes())?;
            }
            None => {}
        }
        writer.finish()
    }

    /// Makes the value of a context.
    fn load(&self, context: &RegisteredContext) -> Result<Py<PyAny>, TaskFailure> {
        let load = self.load.as_ref().ok_or_else(|| TaskFailure::new("this worker loads no contexts"))?;
        let file = context.file(CONTENT).map(|fd| MemoryFile::over(File::from(fd.try_clone_to_owned()?)));
        let file = file.transpose().map_err(|error: io::Error| TaskFailure::new(error.to_string()))?;
        let passed = context.files().filter(|(file, _)| file.name.starts_with(PASSED));
        let passed: Vec<i32> = passed.map(|(_, fd)| fd.as_raw_fd()).collect();
        Python::attach(|py| {
            let loaded = PyTuple::new(py, passed).and_then(|passed| match file {
                Some(file) => load.call1(py, (file, passed)),
                None => load.call1(py, (PyBytes::new(py, context.bytes()), passed)),
            });
            loaded.map_err(|error| failure(py, &error))
        })
    }
}

/// The file that the input is in, with a descriptor of its own: Python may keep it.
fn content(files: &[Arc<dyn PositionedFile>]) -> io::Result<Option<MemoryFile>> {
    let Some(file) = files.first() else { return Ok(None) };
    MemoryFile::over(File::from(file.as_fd().try_clone_to_owned()?)).map(Some)
}

/// What `load` made of a context.
fn value_of(py: Python<'_>, context: &RegisteredContext) -> Py<PyAny> {
    context.loaded::<Py<PyAny>>().map_or_else(|| py.None(), |value| value.clone_ref(py))
}

/// Writes a short result at once.
fn taken(result: &Bound<'_, PyAny>, task: &mut dyn TaskContext) -> PyResult<CallResult> {
    if let Ok(bytes) = result.cast::<PyBytes>() {
        if bytes.as_bytes().len() > INLINE_MAX_BYTES {
            return Ok(CallResult::Long(PyBackedBytes::from(bytes.clone())));
        }
        task.write_all(bytes.as_bytes())?;
        return Ok(CallResult::Written);
    }
    let (length, fill) = result.extract()?;
    Ok(CallResult::Filled(length, fill))
}

/// An error of Python as the failure of a task.
fn failure(py: Python<'_>, error: &PyErr) -> TaskFailure {
    let trace = error.traceback(py).and_then(|trace| trace.format().ok()).unwrap_or_default();
    TaskFailure::new(format!("{error}\n{trace}"))
}

/// Moves the connection to the daemon off standard input.
#[pyfunction]
pub(crate) fn take_lane() -> PyResult<()> {
    Ok(bulkhead_worker::take_lane()?)
}

/// Serves the daemon that started this process; the exit code.
#[pyfunction]
#[pyo3(signature = (handler, *, chunk = None, load = None, stack = None, idle = None))]
pub(crate) fn serve(
    py: Python<'_>,
    handler: Py<PyAny>,
    chunk: Option<Py<PyAny>>,
    load: Option<Py<PyAny>>,
    stack: Option<Py<PyAny>>,
    idle: Option<(i32, Py<PyAny>)>,
) -> PyResult<u8> {
    // Several blocks of the length of its arguments and of its result come and go with each call.
    heap::keep_freed_blocks(KEPT_BLOCK_BYTES);
    let code = Arc::new(CallCode { handler, chunk, load });
    let (loader, chunks) = (Arc::clone(&code), Arc::clone(&code));
    let mut registry = Registry::new()
        .with(CALL, move |input, task| code.run(input, task))
        .with(CHUNK, move |input, task| chunks.run_chunk(input, task))
        .with_loader(move |context, _| loader.load(context));
    if let Some(stack) = stack {
        registry = registry.with_stack_text_when_asked(move |page| {
            let fd = page.as_fd().as_raw_fd();
            Python::attach(|py| stack.call1(py, (fd,)).map(drop).map_err(io::Error::other))
        });
    }
    if let Some((when, act)) = idle {
        registry = registry.with_idle_work(passed_descriptor::copy(when)?, move || {
            Python::attach(|py| {
                if let Err(error) = act.call0(py) {
                    error.write_unraisable(py, None);
                }
            });
        });
    }
    Ok(py.detach(|| bulkhead_worker::run_inside(&registry)))
}
