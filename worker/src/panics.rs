//! Panics of a handler: caught, and told with their place as the failure of the task.
//!
//! What the handler had half changed when it panicked nobody knows; so the worker reports the failure and leaves, and
//! another takes its place.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};

use bulkhead_jobs::TaskFailure;

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

/// Runs `handler`; `Err` is its panic, as the failure of the task. One that began in a thread of the handler's and was handed
/// on by it, as `rayon` does, is told without its place: the hook spoke to that thread.
pub(crate) fn caught<T>(handler: impl FnOnce() -> T) -> Result<T, TaskFailure> {
    // What an earlier task has caught by itself is not this one's.
    LAST.with(|last| last.borrow_mut().take());
    catch_unwind(AssertUnwindSafe(handler)).map_err(|payload| {
        let text = LAST.with(|last| last.borrow_mut().take());
        TaskFailure::new(text.unwrap_or_else(|| handed_on(&*payload)))
    })
}

fn handed_on(payload: &(dyn Any + Send)) -> String {
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("panicked in a thread of its own: {}", message.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        install();
        let failure = caught(|| -> u8 { panic!("number {}", 7) }).unwrap_err().to_string();
        assert!(failure.contains("number 7") && failure.contains("panics.rs:"), "{failure}");
        assert_eq!(caught(|| 7), Ok(7));
    }

    #[test]
    fn a_panic_of_a_thread_that_is_handed_on_keeps_its_words() {
        install();
        let join = |panics: fn()| {
            caught(move || std::thread::spawn(panics).join().unwrap_or_else(|it| resume_unwind(it)))
        };
        // A panic that the handler itself has caught is no word of the next one's.
        caught(|| drop(catch_unwind(|| panic!("an earlier one")))).unwrap();
        for panics in [|| panic!("row {}", 7), || panic!("row 7")] {
            let failure = join(panics).unwrap_err().to_string();
            assert_eq!(failure, "panicked in a thread of its own: row 7");
        }
        assert!(caught(|| resume_unwind(Box::new(7))).unwrap_err().to_string().ends_with("no message"));
    }
}
