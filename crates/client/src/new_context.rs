//! Contexts: what a connection registers once and its jobs name, by the number that [`ContextNumber`] hides.
//!
//! The blocking client waits for the daemon's answer; a session does not, and tells of a refusal as an event.

use bulkhead_proto::client::message::{Register, RegisteredUse, Reply, Request};
use bulkhead_proto::job::Payload;
use bulkhead_proto::registration::RegistrationKind;

use crate::client::DaemonClient;
use crate::error::Error;
use crate::file::JobFile;

/// A context that was registered on one connection. Name it in [`crate::Spec::contexts`] of jobs of the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextNumber(pub(crate) u32);

/// A context to be registered.
#[derive(Clone, Debug)]
pub struct NewContext {
    kind: RegistrationKind,
    bytes: Vec<u8>,
    files: Vec<JobFile>,
}

impl NewContext {
    /// Bytes, at most [`bulkhead_proto::limits::CONTEXT_BYTES_MAX`], and descriptors, which the loader of the worker program loads
    /// once in each worker, as a part of the first task that names them: an initializer, a table, large functions. What is
    /// longer goes into a file. A daemon of several users refuses it.
    pub fn loaded(bytes: impl Into<Vec<u8>>, files: Vec<JobFile>) -> Self {
        Self { kind: RegistrationKind::Context, bytes: bytes.into(), files }
    }

    /// Descriptors that tasks use as they are. A daemon of several users takes them for kinds whose workers serve one user.
    pub fn of_files(files: Vec<JobFile>) -> Self {
        Self { kind: RegistrationKind::Files, bytes: Vec::new(), files }
    }

    /// An arena's file.
    pub(crate) fn arena(file: JobFile) -> Self {
        Self { kind: RegistrationKind::Arena, bytes: Vec::new(), files: vec![file] }
    }

    /// The request that registers it under this number, and its files.
    pub(crate) fn into_request(self, number: u32) -> (Request, Vec<JobFile>) {
        let Self { kind, bytes, files } = self;
        let names = files.iter().map(JobFile::to_use).collect();
        (Request::Register(Register { number, kind, bytes: Payload::from(bytes), files: names }), files)
    }
}

/// What jobs use; `None`: nothing.
pub(crate) fn uses(arena: Option<u32>, contexts: &[ContextNumber]) -> Option<Box<RegisteredUse>> {
    let contexts: Vec<u32> = contexts.iter().map(|context| context.0).collect();
    (arena.is_some() || !contexts.is_empty()).then(|| Box::new(RegisteredUse { arena, contexts }))
}

impl DaemonClient {
    /// Registers a context for jobs of this connection. Each worker gets it before its first task that names it.
    ///
    /// # Errors
    /// As every request: [`Error::Refused`] says what bound was met, or why this daemon does not take it.
    pub fn register_context(&mut self, context: NewContext) -> Result<ContextNumber, Error> {
        let number = Self::next_registration();
        let (request, files) = context.into_request(number);
        match self.ask_with(request, &files)? {
            Reply::Registered { number: said } if said == number => Ok(ContextNumber(number)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Drops a context. Jobs that name it already keep it.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn drop_context(&mut self, context: ContextNumber) -> Result<(), Error> {
        let tag = self.send(Request::DropRegistration { number: context.0 })?;
        self.close(tag);
        Ok(())
    }
}
