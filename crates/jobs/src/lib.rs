//! The built-in kinds as plain functions: they read input bytes and write their output to a [`TaskContext`].
//!
//! They must not know workers, offers or descriptors, so each is tested without a process. The facts about a kind that
//! the daemon needs stand in `bulkhead_proto::kind`; the table here has the code for those names. Driven by the worker
//! runtime, one task at a time.

mod chaos;
mod digit_count;
mod factorial;
mod noop;
mod sleep;
#[cfg(test)]
mod test_task;
mod transform;

use bulkhead_proto::kind::{CHAOS, FACTORIAL, NOOP, SLEEP, TRANSFORM};
use bulkhead_task::{FanOut, TaskContext, TaskFailure};

/// A handler: reads `input` and writes its output to `task`.
///
/// # Errors
/// [`TaskFailure`]: the input is wrong, or the output cannot be written.
pub type Handler = fn(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure>;

/// The code of a built-in kind.
#[derive(Clone, Copy)]
pub enum BuiltinKind {
    /// Each of its jobs is one task.
    Whole(Handler),
    /// Its jobs are split into parts.
    Split(&'static dyn FanOut),
}

/// Every built-in kind but `exec`, in the order of `bulkhead_proto::kind::builtin`.
const TABLE: [(&str, BuiltinKind); 5] = [
    (FACTORIAL, BuiltinKind::Whole(factorial::run)),
    (TRANSFORM, BuiltinKind::Split(&transform::TransformKind)),
    (NOOP, BuiltinKind::Whole(noop::run)),
    (SLEEP, BuiltinKind::Whole(sleep::run)),
    (CHAOS, BuiltinKind::Whole(chaos::run)),
];

/// The code of every kind, by name.
pub fn all() -> impl Iterator<Item = (&'static str, BuiltinKind)> {
    TABLE.into_iter()
}

/// The code of the kind of this name.
pub fn find(name: &str) -> Option<BuiltinKind> {
    all().find(|(known, _)| *known == name).map(|(_, code)| code)
}

/// The input as text; every built-in kind but `noop` takes text.
fn text_of(input: &[u8]) -> Result<&str, TaskFailure> {
    std::str::from_utf8(input).map_err(|error| {
        TaskFailure::new(format!("input is not UTF-8 text from byte {} on", error.valid_up_to()))
    })
}

/// A client's text, quoted and cut for a message.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_daemons() {
        let mut daemon: Vec<_> =
            bulkhead_proto::kind::builtin(true).into_iter().map(|kind| kind.name).collect();
        // Its code needs processes and folders, and is the worker's.
        daemon.retain(|name| name != bulkhead_proto::kind::EXEC);
        assert_eq!(all().map(|(name, _)| name).collect::<Vec<_>>(), daemon);
        for (name, code) in all() {
            let kind =
                bulkhead_proto::kind::builtin(true).into_iter().find(|kind| kind.name == name).unwrap();
            assert_eq!(kind.plans, matches!(code, BuiltinKind::Split(_)), "{name}");
        }
    }

    #[test]
    fn text_that_is_none_is_named() {
        assert_eq!(text_of(b"12\xff").unwrap_err().to_string(), "input is not UTF-8 text from byte 2 on");
    }
}
