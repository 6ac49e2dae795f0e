//! How a test skips itself: [`skip!`](crate::skip!), or [`or_skip!`](crate::or_skip!) for what may not be there.
//!
//! The reason is told past the test runner's capture, in a line that `cargo xtask test` counts and repeats at its end.
//! A package that cannot depend on this one takes this file in by its path, as its module `skip`. Nothing here decides
//! whether a test can run.

use std::fmt;
use std::io::Write;

/// Ends a test, or one of the attacks of a test, that cannot be carried out here. Takes the reason, as `format!` does:
/// what is missing, or who may do it.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::skip::tell(std::any::type_name_of_val(&here), format_args!($($reason)+));
        return;
    }};
}

/// The value of a `Result`; of an `Err`, whose value says why not, the test is skipped.
#[macro_export]
macro_rules! or_skip {
    ($possible:expr) => {
        match $possible {
            Ok(value) => value,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

/// Tells that the test in whose function `here` stands is skipped.
pub fn tell(here: &str, reason: fmt::Arguments<'_>) {
    drop(writeln!(std::io::stdout(), "\n{}", line(here, reason)));
}

/// The line that says so: `SKIPPED test: reason`, with the test's path as its runner prints it.
pub fn line(here: &str, reason: fmt::Arguments<'_>) -> String {
    let test = here.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    format!("SKIPPED {test}: {}", reason.to_string().replace('\n', " "))
}
