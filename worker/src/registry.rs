//! The kinds that a worker offers, by name.
//!
//! A worker program fills one and hands it to [`crate::run`]; the runtime looks handlers up in it once, when the
//! supervisor has named the kinds of its table.

use bulkhead_jobs::Handler;

/// Names and handlers.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    kinds: Vec<(String, Handler)>,
}

impl Registry {
    /// No kinds yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All built-in kinds.
    pub fn builtin() -> Self {
        let handlers = bulkhead_jobs::names().filter_map(|name| Some((name, bulkhead_jobs::find(name)?)));
        handlers.fold(Self::new(), |registry, (name, handler)| registry.with(name, handler))
    }

    /// Adds a kind; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, handler: Handler) -> Self {
        self.kinds.retain(|(known, _)| known != name);
        self.kinds.push((name.to_owned(), handler));
        self
    }

    /// The handler of a kind.
    pub fn find(&self, name: &str) -> Option<Handler> {
        self.kinds.iter().find(|(known, _)| known == name).map(|(_, handler)| *handler)
    }
}
