//! Reports the daemon's state to the process that started it: to systemd by sd_notify(3), to a private parent by a
//! line, `ready`, or `failed ERRNO TEXT` if the daemon cannot start.
//!
//! systemd listens to the main process alone (NotifyAccess=main), so below an outer process that sends the reports
//! (`sys/outer.rs`). A report that fails is logged and has no other effect. Driven by `perform.rs` and `turn.rs`.

use std::io::Write;

use bulkhead_sys::outer::OuterProcess;

/// Who gets reports.
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    /// Whether a parent reads our standard output, and does not know yet that it may connect.
    owes_ready: bool,
    outer: Option<OuterProcess>,
}

impl ServiceNotifier {
    /// `private`: a parent reads our standard output.
    pub(crate) fn new(private: bool, outer: Option<OuterProcess>) -> Self {
        Self { owes_ready: private, outer }
    }

    /// Reports that jobs are accepted.
    pub(crate) fn ready(&mut self, status: &str) {
        log::info!("ready status={status:?}");
        self.notify(&format!("READY=1\nSTATUS={status}"));
        self.tell_parent_ready();
    }

    /// Writes the line `ready` for the parent of a private daemon, once.
    pub(crate) fn tell_parent_ready(&mut self) {
        if std::mem::take(&mut self.owes_ready) {
            let mut stdout = std::io::stdout();
            if writeln!(stdout, "ready").and_then(|()| stdout.flush()).is_err() {
                log::warn!("cannot write the ready line: the parent does not read standard output");
            }
        }
    }

    /// Reports that the daemon is stopping.
    pub(crate) fn stopping(&self) {
        self.notify("STOPPING=1\nSTATUS=draining");
    }

    fn notify(&self, state: &str) {
        let sent = match &self.outer {
            Some(outer) => outer.notify(state),
            None => bulkhead_sys::notify::notify(state),
        };
        if let Err(error) = sent {
            log::warn!("cannot notify the service manager error={error}");
        }
    }
}

/// Tells the parent of a private daemon that the daemon cannot start or go on: the parent cannot read its log if the disk
/// of that is full.
pub(crate) fn tell_parent(error: &anyhow::Error) {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    let code = causes.filter_map(std::io::Error::raw_os_error).last().unwrap_or(0);
    let text = format!("{error:#}").replace('\n', " ");
    // A parent that does not read has ended, or knows already that the daemon has started.
    drop(writeln!(std::io::stdout(), "failed {code} {text}"));
}
