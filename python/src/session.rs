//! The class `Session`, as Python sees it.
//!
//! Arguments in, exceptions out; what happens is in `connection.rs`. Short inputs go to the client's session at once, with the GIL held:
//! to give it up would cost more than the submit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_client::proto::job::{OutputMode, Policy};
use bulkhead_client::proto::limits::{CONTEXT_BYTES_MAX, FILES_MAX as JOB_FILES_MAX, INLINE_MAX_BYTES};
use bulkhead_client::{JobFile, JobInput, NewContext, SessionAnswer, SessionQuestion, Spec};
use bulkhead_sys::{memfd, passed_descriptor};
use pyo3::exceptions::{PyConnectionError, PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::chunk_places::{ChunkTicket, ChunkValues, NO_CHUNKS};
use crate::connection::{CallConnection, ConnectionOptions, greet, locked};
use crate::input_places::{CallInput, FILES_MAX, INPUT_BLOCK_MAX_BYTES, gone, not_submitted};
use crate::left_threads::leave;
use crate::memory_file::MemoryFile;
use crate::serve::{CALL, CHUNK, CONTENT, PASSED};

/// One connection to a daemon, on which any thread submits calls.
#[pyclass(frozen, name = "Session", module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct CallSession {
    /// There until the drop.
    connection: Option<Arc<CallConnection>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that made it; in a forked child it does nothing.
    process: u32,
    is_abandoned: AtomicBool,
}

/// An error of the connection as an exception.
fn raised(error: io::Error) -> PyErr {
    match error.kind() {
        io::ErrorKind::NotConnected => PyConnectionError::new_err(error.to_string()),
        io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
        _ => error.into(),
    }
}

fn joined(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(head.len() + body.len());
    input.extend_from_slice(head);
    input.extend_from_slice(body);
    input
}

fn inline(bytes: Vec<u8>) -> JobInput {
    JobInput { bytes, output: OutputMode::Arena, ..JobInput::default() }
}

impl CallSession {
    fn connection(&self) -> PyResult<&Arc<CallConnection>> {
        let alive = self.connection.as_ref().filter(|_| !self.is_abandoned.load(Ordering::Acquire));
        alive.ok_or_else(|| {
            PyConnectionError::new_err("this session belongs to the process that forked this one")
        })
    }

    fn rules_of(&self, connection: &CallConnection, rules: usize) -> PyResult<Arc<Spec>> {
        let found = locked(&connection.rules).get(rules);
        found.ok_or_else(|| PyKeyError::new_err(format!("no rules have the number {rules}")))
    }

    /// Ends the connection, tells the end of each call that has none, and waits for the own thread unless this is it.
    fn end(&self, py: Python<'_>, connection: &CallConnection) -> PyResult<()> {
        connection.stop();
        let mut thread = locked(&self.thread).take();
        if let Some(own) = thread.take_if(|thread| thread.thread().id() == std::thread::current().id()) {
            leave(py, own);
        }
        let told = py.detach(|| {
            let told = connection.tell_the_rest();
            // A panic of that thread has been printed.
            if let Some(thread) = thread {
                drop(thread.join());
            }
            told
        });
        // Its drop may run any code of Python's: not under the lock.
        let on_events = locked(&connection.on_events).take();
        drop(on_events);
        told
    }
}

#[pymethods]
impl CallSession {
    #[new]
    #[pyo3(signature = (path, on_events, *, progress = true, certify_cancelled = false, arena_bytes = 64 << 20))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        on_events: Py<PyAny>,
        progress: bool,
        certify_cancelled: bool,
        arena_bytes: usize,
    ) -> PyResult<Self> {
        let client = py.detach(|| greet(&path));
        let client = client.map_err(|error| PyConnectionError::new_err(error.to_string()))?;
        let options = ConnectionOptions { progress, certify_cancelled, arena_bytes };
        let connection = CallConnection::over(client, options, on_events);
        let connection = Arc::new(connection.map_err(|error| PyConnectionError::new_err(error.to_string()))?);
        let own = Arc::clone(&connection);
        let thread = std::thread::Builder::new().name("bulkhead".to_owned());
        let thread = thread.spawn(move || own.read_in_background())?;
        Ok(Self {
            connection: Some(connection),
            thread: Mutex::new(Some(thread)),
            process: std::process::id(),
            is_abandoned: AtomicBool::new(false),
        })
    }

    #[pyo3(signature = (*, timeout_ms = None, cpu_ms = None, memory_bytes = None, grace_ms = 0, crashes_max = 1, priority = 4, flavour = 0, contexts = Vec::new(), in_chunks = false))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn rules(
        &self,
        timeout_ms: Option<u64>,
        cpu_ms: Option<u64>,
        memory_bytes: Option<u64>,
        grace_ms: u32,
        crashes_max: u8,
        priority: u8,
        flavour: u32,
        contexts: Vec<usize>,
        in_chunks: bool,
    ) -> PyResult<usize> {
        let policy = Policy {
            timeout_ms,
            cpu_ms,
            memory_bytes,
            grace_ms: Some(grace_ms),
            crashes_max: Some(crashes_max),
            priority,
            ..Policy::default()
        };
        if let Some(fault) = policy.fault() {
            return Err(PyValueError::new_err(fault));
        }
        let connection = self.connection()?;
        let mut known = locked(&connection.rules);
        let contexts = known.contexts(&contexts);
        let contexts =
            contexts.map_err(|number| PyKeyError::new_err(format!("no context has the number {number}")))?;
        let made = Spec { policy, flavour, contexts, ..Spec::new(if in_chunks { CHUNK } else { CALL }) };
        let made = if in_chunks { connection.chunks.spec(made) } else { Some(made) };
        Ok(known.add(made.ok_or_else(|| PyValueError::new_err(NO_CHUNKS))?))
    }

    #[pyo3(signature = (content, descriptors = Vec::new()))]
    fn register(&self, py: Python<'_>, content: &Bound<'_, PyAny>, descriptors: Vec<i32>) -> PyResult<usize> {
        if descriptors.len() >= JOB_FILES_MAX {
            let most = JOB_FILES_MAX - 1;
            let text = format!("{} descriptors go with a context, the limit is {most}", descriptors.len());
            return Err(PyValueError::new_err(text));
        }
        let passed = descriptors.iter().enumerate().map(|(at, number)| {
            let file = File::from(passed_descriptor::copy(*number)?);
            Ok(JobFile::read(format!("{PASSED}{at}"), file))
        });
        let passed = passed.collect::<io::Result<Vec<_>>>()?;
        let context = if let Ok(bytes) = content.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            if bytes.len() <= CONTEXT_BYTES_MAX {
                NewContext::loaded(bytes, passed)
            } else {
                in_file(Arc::new(File::from(memfd::filled("bulkhead context", bytes)?)), passed)
            }
        } else {
            in_file(content.extract::<PyRef<'_, MemoryFile>>()?.sealed(), passed)
        };
        let connection = self.connection()?;
        let number = py.detach(|| connection.session.register_context(context));
        let number = number.map_err(|error| PyConnectionError::new_err(error.to_string()))?;
        Ok(locked(&connection.rules).add_context(number))
    }

    fn unregister(&self, context: usize) -> PyResult<()> {
        let connection = self.connection()?;
        let mut rules = locked(&connection.rules);
        if !rules.drop_context(context) {
            return Err(PyKeyError::new_err(format!("no context has the number {context}")));
        }
        rules.sweep(&connection.session);
        Ok(())
    }

    #[getter]
    fn contexts(&self) -> PyResult<usize> {
        let connection = self.connection()?;
        let mut rules = locked(&connection.rules);
        rules.sweep(&connection.session);
        Ok(rules.held_contexts())
    }

    fn submit(&self, py: Python<'_>, token: u64, rules: usize, head: &[u8], body: &[u8]) -> PyResult<()> {
        let connection = self.connection()?;
        let spec = self.rules_of(connection, rules)?;
        let bytes = head.len() + body.len();
        if bytes <= INLINE_MAX_BYTES && connection.waiting.load(Ordering::Acquire) == 0 {
            let submitted = connection.session.submit(token, &spec, inline(joined(head, body)));
            return submitted.map_err(|why| raised(not_submitted(&why)));
        }
        let has_room = bytes > INPUT_BLOCK_MAX_BYTES && locked(&connection.places).files() < FILES_MAX;
        let submitted = if has_room {
            let file = py.detach(|| memfd::filled_from("bulkhead call", &[head, body]))?;
            connection.submit_placed(token, &spec, CallInput::File(Arc::new(File::from(file))))
        } else {
            connection.submit_parts(token, &spec, [head, body])
        };
        submitted.map_err(raised)
    }

    fn submit_many(
        &self,
        first_token: u64,
        rules: usize,
        head: &[u8],
        bodies: Vec<Bound<'_, PyBytes>>,
    ) -> PyResult<()> {
        let connection = self.connection()?;
        let spec = self.rules_of(connection, rules)?;
        let calls = (first_token..).zip(bodies.iter().map(|body| joined(head, body.as_bytes())));
        let longest = bodies.iter().map(|body| body.as_bytes().len()).max().unwrap_or(0);
        if head.len() + longest <= INLINE_MAX_BYTES && connection.waiting.load(Ordering::Acquire) == 0 {
            let calls = calls.map(|(token, bytes)| (token, inline(bytes))).collect();
            let submitted = connection.session.submit_all(&spec, calls);
            return submitted.map_err(|why| raised(not_submitted(&why)));
        }
        connection.submit_all_placed(&spec, calls).map_err(raised)
    }

    fn submit_file(&self, token: u64, rules: usize, file: PyRef<'_, MemoryFile>) -> PyResult<()> {
        let connection = self.connection()?;
        let spec = self.rules_of(connection, rules)?;
        connection.submit_placed(token, &spec, CallInput::File(file.sealed())).map_err(raised)
    }

    fn open_chunks(&self, py: Python<'_>) -> PyResult<bool> {
        self.connection()?.open_chunks(py)
    }

    fn submit_chunk(
        &self,
        ticket: PyRef<'_, ChunkTicket>,
        rules: usize,
        head: &[u8],
        items: Vec<Bound<'_, PyBytes>>,
        room: usize,
    ) -> PyResult<bool> {
        let connection = self.connection()?;
        let spec = self.rules_of(connection, rules)?;
        let items: Vec<&[u8]> = items.iter().map(|item| item.as_bytes()).collect();
        ticket.submit(|token| connection.submit_chunk(token, &spec, head, &items, room)).map_err(raised)
    }

    fn counted(&self, py: Python<'_>, token: u64) -> PyResult<Option<ChunkValues>> {
        let counted = self.connection()?.chunks.counted(token);
        counted.map(|counted| ChunkValues::new(py, counted.delivered())).transpose()
    }

    fn cancel(&self, tokens: Vec<u64>) -> PyResult<()> {
        let connection = self.connection()?;
        connection.withdraw(&tokens);
        connection.session.cancel(&tokens);
        Ok(())
    }

    fn cancel_waiting(&self, tokens: Vec<u64>) -> PyResult<()> {
        let connection = self.connection()?;
        connection.withdraw(&tokens);
        connection.session.cancel_waiting(&tokens);
        Ok(())
    }

    #[pyo3(signature = (token, is_done, timeout = None))]
    fn lead(
        &self,
        py: Python<'_>,
        token: u64,
        is_done: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        // A moment that is too far away is none.
        let left = timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let until = left.flatten().and_then(|left| Instant::now().checked_add(left));
        self.connection()?.await_end(py, token, is_done, until)
    }

    fn is_running(&self, py: Python<'_>, token: u64) -> PyResult<bool> {
        let connection = self.connection()?;
        // Asked first: with the answer this thread may read that the daemon has accepted the call.
        let SessionAnswer::Workers(rows) = connection.ask(py, SessionQuestion::Workers)? else {
            return Ok(false);
        };
        let job = connection.session.job_of(token);
        Ok(job.is_some() && rows.iter().any(|row| row.job == job))
    }

    fn workers(&self, py: Python<'_>) -> PyResult<String> {
        match self.connection()?.ask(py, SessionQuestion::Workers)? {
            SessionAnswer::Workers(rows) => Ok(serde_json::to_string(&rows).unwrap_or_default()),
            _ => Err(PyConnectionError::new_err(gone().to_string())),
        }
    }

    fn status(&self, py: Python<'_>) -> PyResult<String> {
        match self.connection()?.ask(py, SessionQuestion::Status)? {
            SessionAnswer::Status(status) => Ok(serde_json::to_string(&status).unwrap_or_default()),
            _ => Err(PyConnectionError::new_err(gone().to_string())),
        }
    }

    #[getter]
    fn open(&self) -> PyResult<usize> {
        Ok(self.connection()?.open())
    }

    #[getter]
    fn files(&self) -> PyResult<usize> {
        Ok(locked(&self.connection()?.places).files())
    }

    fn fileno(&self) -> PyResult<i32> {
        // Also in a forked child, which closes it.
        let connection = self.connection.as_ref().map(|connection| connection.session.as_fd().as_raw_fd());
        connection.ok_or_else(|| PyConnectionError::new_err(gone().to_string()))
    }

    fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Release);
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.connection() {
            Ok(connection) if std::process::id() == self.process => self.end(py, connection),
            _ => Ok(()),
        }
    }
}

/// A context whose content is in a file, before what else is passed.
fn in_file(file: Arc<File>, mut passed: Vec<JobFile>) -> NewContext {
    passed.insert(0, JobFile::read(CONTENT, file));
    NewContext::loaded(Vec::new(), passed)
}

impl Drop for CallSession {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if std::process::id() != self.process {
            // Its locks may be held by threads that this child has not.
            std::mem::forget(connection);
            return;
        }
        let ended = Python::try_attach(|py| {
            if let Err(error) = self.end(py, &connection) {
                error.write_unraisable(py, None);
            }
        });
        if ended.is_none() {
            connection.stop();
        }
    }
}
