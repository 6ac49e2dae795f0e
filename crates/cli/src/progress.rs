//! Progress on stderr: a bar if stderr is a terminal, lines if `--progress` asks for them.
//!
//! It is drawn only when an event arrives, never by a timer: an idle command makes no system call. For several jobs the
//! bar counts the ended ones; for a single job it shows the progress that the daemon reports. Driven by `verb/run.rs`
//! and `job_files.rs`.

use std::fmt::Write;
use std::io::IsTerminal;

use bulkhead_client::JobProgress;
use bulkhead_proto::plain::Plain;
use bulkhead_views::answer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::failure_report;
use crate::stdio::say;

/// The bar for several jobs: how many have ended.
const JOBS: &str = "{bar:30} {pos}/{len} {per_sec} eta {eta} {msg}";
/// The bar for one job: how much of it is done.
const STEPS: &str = "{bar:30} {percent}% {pos}/{len} {per_sec} eta {eta}";
/// The bar for an input that is copied.
const BYTES: &str = "copying {msg}: {bytes} {bytes_per_sec}";

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgressMode {
    /// As a bar, if stderr is a terminal.
    pub(crate) bar: bool,
    /// As lines on stderr (`--progress`).
    pub(crate) lines: bool,
    /// The lines are JSON objects.
    pub(crate) json: bool,
}

impl ProgressMode {
    fn has_bar(self) -> bool {
        self.bar && std::io::stderr().is_terminal() && !(self.lines && self.json)
    }
}

/// Shows the progress of the jobs of a command.
#[derive(Debug)]
pub(crate) struct ProgressDisplay {
    bar: Option<ProgressBar>,
    shown: ProgressMode,
    is_alone: bool,
    /// Whether stdout is a terminal too: the bar is then hidden while a result is printed.
    shared: bool,
    bad: u64,
}

impl ProgressDisplay {
    /// For this number of jobs.
    pub(crate) fn new(total: u64, shown: ProgressMode) -> Self {
        let is_alone = total == 1;
        let bar = shown.has_bar().then(|| match is_alone {
            // The bar appears with the first progress: most jobs end before that.
            true => bar(STEPS, total, ProgressDrawTarget::hidden()),
            false => bar(JOBS, total, ProgressDrawTarget::stderr()),
        });
        Self { bar, shown, is_alone, shared: std::io::stdout().is_terminal(), bad: 0 }
    }

    /// The callback for the progress of a single job; `None` if it is not shown.
    pub(crate) fn steps(&self) -> Option<impl FnMut(JobProgress) + use<>> {
        let (bar, shown) = (self.bar.clone(), self.shown);
        let is_seen = self.is_alone && (bar.is_some() || shown.lines);
        let mut last = None;
        is_seen.then_some(move |step: JobProgress| match &bar {
            Some(bar) => draw(bar, step),
            None if last.replace((step.done, step.total)) != Some((step.done, step.total)) => {
                say(line(step, shown.json));
            }
            None => {}
        })
    }

    /// Counts a job that has ended.
    pub(crate) fn ended(&mut self, done: bool) {
        if let Some(bar) = self.bar.as_ref().filter(|_| !self.is_alone) {
            if !done {
                self.bad += 1;
                bar.set_message(format!("{} not done", self.bad));
            }
            bar.inc(1);
        }
    }

    /// The callback for the daemon's notices: it prints each as a line on stderr, with the bar hidden.
    pub(crate) fn notices(&self) -> impl FnMut(&str) + Send + use<> {
        let bar = self.bar.clone();
        move |text| {
            let tell = || failure_report::notice(text);
            bar.as_ref().map_or_else(tell, |bar| bar.suspend(tell));
        }
    }

    /// Calls `write`, which writes to stdout or stderr, with the bar hidden.
    pub(crate) fn with_bar_hidden<T>(&self, to_stdout: bool, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if self.shared || !to_stdout => bar.suspend(write),
            _ => write(),
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(template: &str, total: u64, target: ProgressDrawTarget) -> ProgressBar {
    let style =
        ProgressStyle::with_template(template).expect("the templates are constants that a test parses");
    let style = style.with_key("per_sec", |state: &ProgressState, out: &mut dyn Write| {
        // Writing to a text in memory cannot fail.
        let _ = out.write_str(&rate(state.per_sec()));
    });
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

/// A rate with one decimal below 100 and none above.
fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}

fn draw(bar: &ProgressBar, step: JobProgress) {
    if step.total == 0 {
        return;
    }
    if bar.is_hidden() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
    }
    bar.set_length(step.total);
    bar.set_position(step.done);
}

/// Progress as a line.
fn line(step: JobProgress, json: bool) -> String {
    let JobProgress { job, done, total, .. } = step;
    if json {
        return answer::progress(job, done, total).to_string();
    }
    match u128::from(done).saturating_mul(100).checked_div(u128::from(total)) {
        Some(percent) => format!("bulkhead: job {job}: {done} of {total} ({percent}%)"),
        None => format!("bulkhead: job {job}: {done}"),
    }
}

/// The bar of an input that is copied.
#[derive(Debug)]
pub(crate) struct CopyProgress(Option<ProgressBar>);

impl CopyProgress {
    /// The bar for the input of this name.
    pub(crate) fn new(name: &str, shown: ProgressMode) -> Self {
        let copying = || bar(BYTES, 0, ProgressDrawTarget::stderr()).with_message(Plain(name).to_string());
        Self(shown.has_bar().then(copying))
    }

    /// Sets how many bytes were copied.
    pub(crate) fn so_far(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }
}

impl Drop for CopyProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::JobId;

    use super::*;

    fn step(done: u64, total: u64) -> JobProgress {
        JobProgress { index: 0, job: JobId(7), done, total }
    }

    #[test]
    fn the_templates_parse_and_without_a_terminal_there_is_no_bar() {
        for template in [JOBS, STEPS, BYTES] {
            let bar = bar(template, 3, ProgressDrawTarget::hidden());
            draw(&bar, step(1, 0));
            assert_eq!((bar.position(), bar.length()), (0, Some(3)), "nothing is known");
            draw(&bar, step(4, 9));
            assert_eq!((bar.position(), bar.length()), (4, Some(9)));
        }
        let mut progress = ProgressDisplay::new(1, ProgressMode::default());
        progress.ended(false);
        assert!(progress.bar.is_none() && progress.steps().is_none(), "nobody asked");
        assert_eq!(progress.with_bar_hidden(true, || 7), 7);
        assert!(
            ProgressDisplay::new(1, ProgressMode { lines: true, ..ProgressMode::default() })
                .steps()
                .is_some()
        );
        assert!(
            ProgressDisplay::new(2, ProgressMode { lines: true, ..ProgressMode::default() })
                .steps()
                .is_none(),
            "too many"
        );
    }

    #[test]
    fn a_rate_has_no_more_figures_than_it_means() {
        assert_eq!([0.0, 2.25, 73.0657, 106.5164].map(rate), ["0.0/s", "2.2/s", "73.1/s", "107/s"]);
    }

    #[test]
    fn a_step_is_a_line_or_an_object() {
        assert_eq!(line(step(12, 100), false), "bulkhead: job 7: 12 of 100 (12%)");
        assert_eq!(line(step(12, 0), false), "bulkhead: job 7: 12");
        assert_eq!(line(step(u64::MAX, u64::MAX), false).split('(').nth(1), Some("100%)"));
        assert_eq!(line(step(1, 2), true), r#"{"done":1,"job":7,"total":2}"#);
    }
}
