//! Changes of this process's environment variables, for a library that takes its settings from there.
//!
//! glibc's getenv takes no lock, so a thread of C code that calls it meanwhile may see a value that is about to be
//! freed; `std::env` takes a lock. Called by the worker before it runs a task.

use std::ffi::OsStr;
use std::path::Path;

/// Does `work` while the variable `name` has this value, and sets it back. To be called before this process has threads
/// that read the environment by C functions.
///
/// # Panics
/// If a name or a value has a NUL.
pub fn while_set<T>(name: &str, value: &Path, work: impl FnOnce() -> T) -> T {
    let before = std::env::var_os(name);
    set(name, Some(value.as_os_str()));
    let done = work();
    set(name, before.as_deref());
    done
}

fn set(name: &str, value: Option<&OsStr>) {
    // SAFETY: other Rust code takes the lock of `std::env`; the caller knows of no thread of C code that reads the
    // environment at this moment.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;

    #[test]
    fn a_variable_is_set_back_to_what_it_was_or_to_nothing() {
        in_child("variables::tests::a_variable_is_set_back_to_what_it_was_or_to_nothing", || {
            let read = || std::env::var_os("BULKHEAD_SYS_VARIABLE");
            let seen = || while_set("BULKHEAD_SYS_VARIABLE", Path::new("/inner"), read);
            assert_eq!((seen(), read()), (Some("/inner".into()), None));
            set("BULKHEAD_SYS_VARIABLE", Some(OsStr::new("/outer")));
            assert_eq!((seen(), read()), (Some("/inner".into()), Some("/outer".into())));
        });
    }
}
