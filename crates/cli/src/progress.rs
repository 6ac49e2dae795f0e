//! The progress bar of `run`: on stderr, only if that is a terminal and there is more than one job.
//!
//! It is drawn when something has ended, never by a clock: an idle command makes no system call.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::trouble;

/// A bar, or none.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// Whether results go to the same terminal: the bar then makes way for each.
    shared: bool,
    bad: u64,
}

impl Progress {
    /// A bar for so many jobs, if it is wanted and there is somebody to see it.
    pub(crate) fn new(total: u64, wanted: bool) -> Self {
        let seen = wanted && total > 1 && std::io::stderr().is_terminal();
        let bar = seen.then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} eta {eta} {msg}")
                .expect("the template is a constant that a test parses");
            ProgressBar::new(total).with_style(style)
        });
        Self { bar, shared: std::io::stdout().is_terminal(), bad: 0 }
    }

    /// One more job has ended.
    pub(crate) fn ended(&mut self, done: bool) {
        if let Some(bar) = &self.bar {
            if !done {
                self.bad += 1;
                bar.set_message(format!("{} not done", self.bad));
            }
            bar.inc(1);
        }
    }

    /// What to do with the daemon's notices: a line on stderr each, with the bar out of its way.
    pub(crate) fn notices(&self) -> impl FnMut(&str) + Send + use<> {
        let bar = self.bar.clone();
        move |text| {
            let tell = || trouble::notice(text);
            bar.as_ref().map_or_else(tell, |bar| bar.suspend(tell));
        }
    }

    /// Does something that writes to stdout or stderr, with the bar out of its way.
    pub(crate) fn aside<T>(&self, to_stdout: bool, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if self.shared || !to_stdout => bar.suspend(write),
            _ => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_parses_and_without_a_terminal_there_is_no_bar() {
        assert!(ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} eta {eta} {msg}").is_ok());
        let mut progress = Progress::new(1, true);
        progress.ended(false);
        assert!(progress.bar.is_none());
        assert_eq!(progress.aside(true, || 7), 7);
    }
}
