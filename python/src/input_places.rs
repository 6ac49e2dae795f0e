//! How the input of a call travels, by its length; and the calls that wait here because there is no room for theirs.
//!
//! | length of the input | it travels |
//! |---|---|
//! | at most `INLINE_MAX_BYTES` | in the message |
//! | at most [`INPUT_BLOCK_MAX_BYTES`] | in a block of the arena, once the daemon has taken the arena; without one, in a file |
//! | more, or a file of the caller | in a file (memfd) |
//!
//! A call without room waits, and all later ones behind it, so that calls begin in the order of their submits. There is room
//! for one call at least: an input that finds no block while nothing else has a block or a file goes into a file. No lock of the
//! session is held here for longer than a submit. Driven by `connection.rs`.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;

use bulkhead_client::proto::job::OutputMode;
use bulkhead_client::proto::limits::INLINE_MAX_BYTES;
use bulkhead_client::{Arena, Error, JobFile, JobInput, NotSubmitted, Session, Spec, SubmitFault};
use bulkhead_sys::{heap, memfd};

use crate::serve::CONTENT;

/// Longest input in a block. Above it the copies that a block takes cost more than a descriptor.
pub(crate) const INPUT_BLOCK_MAX_BYTES: usize = 2 << 20;
/// The heaps of workers, and of a program with long inputs or results, keep blocks of up to so many bytes, which come and go with each call.
pub(crate) const KEPT_BLOCK_BYTES: usize = 8 << 20;
/// Most calls under way with a file: each takes a descriptor until the daemon has it, and one there.
pub(crate) const FILES_MAX: usize = 64;

/// The input of a call.
#[derive(Clone, Debug)]
pub(crate) enum CallInput {
    Bytes(Vec<u8>),
    File(Arc<File>),
}

/// A call that waits for room.
#[derive(Debug)]
struct WaitingCall {
    token: u64,
    spec: Arc<Spec>,
    input: CallInput,
}

/// What a call under way holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputPlace {
    Block,
    File,
}

/// The arena of the session.
#[derive(Debug)]
enum ArenaPlace {
    /// It is made when the first input asks for it, with so many bytes; 0: never.
    Unmade(usize),
    /// The daemon has not answered.
    Offered(Arena),
    Taken(Arena),
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct InputPlaces {
    arena: ArenaPlace,
    waiting: VecDeque<WaitingCall>,
    held: HashMap<u64, InputPlace>,
    files: usize,
    waiting_files: usize,
}

/// A call that could not be submitted after it had waited, and why.
pub(crate) type Unsubmitted = (u64, String);

impl InputPlaces {
    /// Nothing is under way; the arena has so many bytes.
    pub(crate) fn new(arena_bytes: usize) -> Self {
        let arena = ArenaPlace::Unmade(arena_bytes);
        Self { arena, waiting: VecDeque::new(), held: HashMap::new(), files: 0, waiting_files: 0 }
    }

    /// Submits a call, or has it wait.
    ///
    /// # Errors
    /// The connection has ended, the token is in use, or there is no descriptor or memory for a file.
    pub(crate) fn submit(
        &mut self,
        session: &Session,
        token: u64,
        spec: &Arc<Spec>,
        input: CallInput,
    ) -> io::Result<()> {
        if self.waiting.is_empty()
            && let Some((job, place)) = self.place(session, &input)?
        {
            session.submit(token, spec, job).map_err(|why| not_submitted(&why))?;
            self.hold(token, place);
        } else {
            self.wait(token, spec, input);
        }
        Ok(())
    }

    /// The same of an input in two parts, which are joined only if they do not go into a block at once.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub(crate) fn submit_parts(
        &mut self,
        session: &Session,
        token: u64,
        spec: &Arc<Spec>,
        [head, body]: [&[u8]; 2],
    ) -> io::Result<()> {
        if self.waiting.is_empty()
            && (INLINE_MAX_BYTES + 1..=INPUT_BLOCK_MAX_BYTES).contains(&(head.len() + body.len()))
            && let Some(arena) = self.arena(session)?
            && let Some(block) = arena.block_of_parts(head, body)
        {
            let job = JobInput { output: OutputMode::Arena, ..JobInput::from(block) };
            session.submit(token, spec, job).map_err(|why| not_submitted(&why))?;
            self.hold(token, Some(InputPlace::Block));
            return Ok(());
        }
        self.submit(session, token, spec, CallInput::Bytes([head, body].concat()))
    }

    /// Has a call wait, behind the others.
    pub(crate) fn wait(&mut self, token: u64, spec: &Arc<Spec>, input: CallInput) {
        self.waiting_files += usize::from(matches!(input, CallInput::File(_)));
        self.waiting.push_back(WaitingCall { token, spec: Arc::clone(spec), input });
    }

    fn take_first(&mut self) -> Option<WaitingCall> {
        let call = self.waiting.pop_front()?;
        self.waiting_files -= usize::from(matches!(call.input, CallInput::File(_)));
        Some(call)
    }

    fn wait_first(&mut self, call: WaitingCall) {
        self.waiting_files += usize::from(matches!(call.input, CallInput::File(_)));
        self.waiting.push_front(call);
    }

    /// Submits waiting calls, as far as there is room. Gives those that cannot be submitted.
    pub(crate) fn submit_waiting(&mut self, session: &Session) -> Vec<Unsubmitted> {
        let mut failed = Vec::new();
        while let Some(call) = self.take_first() {
            match self.place(session, &call.input) {
                Ok(None) => {
                    self.wait_first(call);
                    break;
                }
                // The end of another call gives back what there is too little of.
                Err(_) if !self.held.is_empty() => {
                    self.wait_first(call);
                    break;
                }
                Err(error) => failed.push((call.token, format!("its input finds no room: {error}"))),
                Ok(Some((job, place))) => match session.submit(call.token, &call.spec, job) {
                    Ok(()) => self.hold(call.token, place),
                    Err(why) => failed.push((call.token, why.to_string())),
                },
            }
        }
        failed
    }

    /// A call has ended.
    pub(crate) fn ended(&mut self, token: u64) {
        if self.held.remove(&token) == Some(InputPlace::File) {
            self.files -= 1;
        }
    }

    /// Takes those of these calls that wait here; they never run.
    pub(crate) fn withdraw(&mut self, tokens: &[u64]) -> Vec<u64> {
        let mut withdrawn = Vec::new();
        if !self.waiting.is_empty() {
            let wanted: std::collections::HashSet<u64> = tokens.iter().copied().collect();
            self.waiting.retain(|call| {
                let stays = !wanted.contains(&call.token);
                if !stays {
                    withdrawn.push(call.token);
                    self.waiting_files -= usize::from(matches!(call.input, CallInput::File(_)));
                }
                stays
            });
        }
        withdrawn
    }

    /// Takes all calls that wait here: the connection has ended.
    pub(crate) fn lose(&mut self) -> Vec<u64> {
        self.held.clear();
        (self.files, self.waiting_files) = (0, 0);
        self.waiting.drain(..).map(|call| call.token).collect()
    }

    /// How many calls wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether this call waits here.
    pub(crate) fn is_waiting(&self, token: u64) -> bool {
        self.waiting.iter().any(|call| call.token == token)
    }

    /// How many calls hold a block or a file.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// How many calls hold a file, those that wait too.
    pub(crate) fn files(&self) -> usize {
        self.files + self.waiting_files
    }

    fn hold(&mut self, token: u64, place: Option<InputPlace>) {
        if let Some(place) = place {
            self.held.insert(token, place);
            self.files += usize::from(place == InputPlace::File);
        }
    }

    /// The job of an input, and what it holds. `None`: there is no room now.
    fn place(
        &mut self,
        session: &Session,
        input: &CallInput,
    ) -> io::Result<Option<(JobInput, Option<InputPlace>)>> {
        let bytes = match input {
            CallInput::Bytes(bytes) if bytes.len() <= INLINE_MAX_BYTES => {
                let job = JobInput { bytes: bytes.clone(), output: OutputMode::Arena, ..JobInput::default() };
                return Ok(Some((job, None)));
            }
            CallInput::Bytes(bytes) => bytes,
            CallInput::File(_) if self.files >= FILES_MAX => return Ok(None),
            CallInput::File(file) => return Ok(Some((in_file(Arc::clone(file)), Some(InputPlace::File)))),
        };
        if bytes.len() <= INPUT_BLOCK_MAX_BYTES
            && let Some(arena) = self.arena(session)?
        {
            match arena.block(bytes) {
                Some(block) => {
                    let job = JobInput { output: OutputMode::Arena, ..JobInput::from(block) };
                    return Ok(Some((job, Some(InputPlace::Block))));
                }
                None if !self.held.is_empty() => return Ok(None),
                None => {}
            }
        }
        if self.files >= FILES_MAX {
            return Ok(None);
        }
        let file = File::from(memfd::filled("bulkhead call", bytes)?);
        Ok(Some((in_file(Arc::new(file)), Some(InputPlace::File))))
    }

    /// The arena, once the daemon has it.
    fn arena(&mut self, session: &Session) -> io::Result<Option<&Arena>> {
        self.arena = match std::mem::replace(&mut self.arena, ArenaPlace::Unmade(0)) {
            ArenaPlace::Unmade(0) => ArenaPlace::Unmade(0),
            ArenaPlace::Unmade(bytes) => {
                // A program with one long input has others, and results: each is several blocks of its heap for a moment.
                heap::keep_freed_blocks(KEPT_BLOCK_BYTES);
                match session.register_arena(bytes) {
                    Ok(arena) => ArenaPlace::Offered(arena),
                    Err(Error::Closed { .. }) => return Err(gone()),
                    // No memory or descriptor for it: files do.
                    Err(_) => ArenaPlace::Unmade(0),
                }
            }
            ArenaPlace::Offered(arena) => match session.has_arena(&arena) {
                None => ArenaPlace::Offered(arena),
                Some(true) => ArenaPlace::Taken(arena),
                Some(false) => ArenaPlace::Unmade(0),
            },
            taken @ ArenaPlace::Taken(_) => taken,
        };
        match &self.arena {
            ArenaPlace::Taken(arena) => Ok(Some(arena)),
            ArenaPlace::Offered(_) | ArenaPlace::Unmade(_) => Ok(None),
        }
    }
}

/// The job of an input in a file.
fn in_file(file: Arc<File>) -> JobInput {
    let files = vec![JobFile::read(CONTENT, file)];
    JobInput { output: OutputMode::Arena, files, ..JobInput::default() }
}

/// The error of a connection that has ended.
pub(crate) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, SubmitFault::Closed.to_string())
}

/// Why a call was not submitted, as an error of the kind by which `session.rs` chooses its exception.
pub(crate) fn not_submitted(why: &NotSubmitted) -> io::Error {
    let kind = match why.why {
        SubmitFault::Closed => io::ErrorKind::NotConnected,
        SubmitFault::TokenInUse { .. } => io::ErrorKind::InvalidInput,
        SubmitFault::Full { .. } | SubmitFault::TooLong { .. } => io::ErrorKind::OutOfMemory,
    };
    io::Error::new(kind, why.to_string())
}
