//! Panics of a handler: caught, and told with their place as the failure of the task.
//!
//! What the handler had half changed when it panicked nobody knows; so the worker reports the failure and leaves, and
//! another takes its place.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};

use bulkhead_jobs::Failure;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes every panic leave its text for [`caught`]. No backtrace is taken: resolving one takes longer than all
/// else that happens around a crash.
pub(crate) fn install() {
    set_hook(Box::new(|info| {
        let text = describe(info);
        log::error!("{text}");
        LAST.with(|last| *last.borrow_mut() = Some(text));
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(place) => format!("panicked at {}:{}: {message}", place.file(), place.line()),
        None => format!("panicked: {message}"),
    }
}

/// Runs `handler`; `Err` is its panic, as the failure of the task.
pub(crate) fn caught<T>(handler: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(handler)).map_err(|_| {
        let text = LAST.with(|last| last.borrow_mut().take());
        Failure::new(text.unwrap_or_else(|| "panicked".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        install();
        let failure = caught(|| -> u8 { panic!("number {}", 7) }).unwrap_err().to_string();
        assert!(failure.contains("number 7") && failure.contains("panics.rs:"), "{failure}");
        assert_eq!(caught(|| 7), Ok(7));
    }
}
