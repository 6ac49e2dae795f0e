//! A context: what the connection of a client registered once, as the tasks that name it see it.
//!
//! Bytes and descriptors came from the client; nothing has checked them. What the loader of the worker program made of them is kept
//! beside them, in this worker, until the client drops the context. The worker runtime makes it; a test can make one over any
//! descriptors.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use bulkhead_proto::file::FileUse;

/// What the loader of a worker program made.
type Loaded = Arc<dyn Any + Send + Sync>;

/// Bytes and descriptors that a client registered, and what this worker has loaded of them.
pub struct RegisteredContext {
    bytes: Vec<u8>,
    files: Vec<(FileUse, OwnedFd)>,
    loaded: OnceLock<Loaded>,
}

impl RegisteredContext {
    /// A context of which nothing is loaded.
    pub fn new(bytes: Vec<u8>, files: Vec<(FileUse, OwnedFd)>) -> Self {
        Self { bytes, files, loaded: OnceLock::new() }
    }

    /// Its bytes; none if the client registered files alone.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its descriptors with their names, in the order of the client.
    pub fn files(&self) -> impl Iterator<Item = (&FileUse, BorrowedFd<'_>)> {
        self.files.iter().map(|(name, descriptor)| (name, descriptor.as_fd()))
    }

    /// The descriptor of this name. A call on it may hang: the client chose what it is.
    pub fn file(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.files().find(|(file, _)| file.name == name).map(|(_, descriptor)| descriptor)
    }

    /// What the loader made of it, if it is of this type.
    pub fn loaded<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(self.loaded.get()?).downcast().ok()
    }

    /// Whether the loader has loaded it.
    pub fn is_loaded(&self) -> bool {
        self.loaded.get().is_some()
    }

    /// Keeps what the loader made. A second time changes nothing.
    pub fn keep(&self, loaded: Arc<dyn Any + Send + Sync>) {
        let _ = self.loaded.set(loaded);
    }
}

impl fmt::Debug for RegisteredContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("RegisteredContext");
        shown.field("bytes", &self.bytes.len()).field("files", &self.files);
        shown.field("is_loaded", &self.is_loaded()).finish()
    }
}
