//! The kinds that a worker offers, by name.
//!
//! A worker program fills one and hands it to [`crate::run`]; the runtime looks handlers up in it once, when the
//! supervisor has named the kinds of its table. A handler takes bytes and writes bytes ([`Registry::with`]), or has
//! types of its own for both ([`Registry::typed`]).

use std::fmt;
use std::sync::Arc;

use bulkhead_jobs::{Failure, Task};
use bulkhead_proto::kind::EXEC;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exec;

/// The code of a kind, as the runtime calls it: one task at a time, from one thread.
pub(crate) type Code = Arc<dyn Fn(&[u8], &mut dyn Task) -> Result<(), Failure> + Send + Sync>;

/// Names and handlers.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Vec<(String, Code)>,
}

impl Registry {
    /// No kinds yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All built-in kinds.
    pub fn builtin() -> Self {
        let handlers = bulkhead_jobs::names().filter_map(|name| Some((name, bulkhead_jobs::find(name)?)));
        let registry = handlers.fold(Self::new(), |registry, (name, handler)| registry.with(name, handler));
        registry.with(EXEC, exec::run)
    }

    /// Adds a kind that reads its input's bytes and writes its output's; one of the same name is replaced.
    #[must_use]
    pub fn with<F>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(&[u8], &mut dyn Task) -> Result<(), Failure> + Send + Sync + 'static,
    {
        self.kinds.retain(|(known, _)| known != name);
        self.kinds.push((name.to_owned(), Arc::new(handler)));
        self
    }

    /// Adds a kind whose input and output are values: JSON on the wire, which is what a command line and every
    /// language can write. Input that is no `I` fails the task, and the failure says where it is wrong; so does
    /// whatever error the handler gives, in its own words. A panic of it is caught and told with its place.
    #[must_use]
    pub fn typed<I, O, E, F>(self, name: &str, handler: F) -> Self
    where
        I: DeserializeOwned,
        O: Serialize,
        E: fmt::Display,
        F: Fn(I, &mut dyn Task) -> Result<O, E> + Send + Sync + 'static,
    {
        self.with(name, move |input, task| {
            let input = serde_json::from_slice(input)
                .map_err(|error| Failure::new(format!("the input does not fit this kind: {error}")))?;
            let output = handler(input, task).map_err(|error| Failure::new(error.to_string()))?;
            let written = serde_json::to_writer(&mut *task, &output);
            written.map_err(|error| Failure::new(format!("the output cannot be written: {error}")))
        })
    }

    /// The handler of a kind.
    pub(crate) fn find(&self, name: &str) -> Option<Code> {
        self.kinds.iter().find(|(known, _)| known == name).map(|(_, code)| Arc::clone(code))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.kinds.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    #[derive(Default)]
    struct Page(Vec<u8>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Task for Page {
        fn progress(&mut self, _done: u64, _total: u64) {}
        fn say(&mut self, _words: &str) {}
        fn last_breath(&mut self) {}
    }

    fn halve(n: i64, _task: &mut dyn Task) -> Result<i64, String> {
        if n % 2 == 0 { Ok(n / 2) } else { Err(format!("{n} is odd")) }
    }

    fn run(input: &str) -> Result<String, String> {
        let code = Registry::new().typed("halve", halve).find("halve").unwrap();
        let mut page = Page::default();
        code(input.as_bytes(), &mut page).map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(page.0).unwrap())
    }

    #[test]
    fn values_go_in_and_come_out() {
        assert_eq!(run("8"), Ok("4".to_owned()));
        assert_eq!(run("7"), Err("7 is odd".to_owned()));
    }

    #[test]
    fn input_that_does_not_fit_says_where() {
        let failure = run("[1]").unwrap_err();
        assert!(failure.starts_with("the input does not fit this kind: invalid type"), "{failure}");
        assert!(run("").unwrap_err().contains("line 1 column 0"));
    }

    #[test]
    fn a_kind_is_found_by_its_name_alone() {
        let registry = Registry::builtin();
        assert!(registry.find("noop").is_some() && registry.find("no").is_none());
        assert!(bulkhead_proto::kind::builtin(true).iter().all(|kind| registry.find(&kind.name).is_some()));
        assert_eq!(format!("{:?}", Registry::new().with("own", |_, _| Ok(()))), r#"["own"]"#);
    }
}
