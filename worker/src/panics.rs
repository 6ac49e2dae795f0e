//! Catches panics of a handler and reports them, with file and line, as the failure of the task.
//!
//! After a panic the state of the handler is unknown, so the worker reports the failure and exits; another worker takes
//! its place. Driven by `runtime.rs`.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};

use bulkhead_task::TaskFailure;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Sets a panic hook that stores the text for [`caught`]. It takes no backtrace: resolving one takes longer than all
/// other steps of a crash.
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

/// Calls `handler`; `Err` is its panic as the failure of the task. A panic that a thread of the handler raised and that
/// the handler raised again, as `rayon` does, is reported without file and line: the hook stored them in the other
/// thread.
pub(crate) fn caught<T>(handler: impl FnOnce() -> T) -> Result<T, TaskFailure> {
    // Drops the text of a panic that an earlier task caught by itself.
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
