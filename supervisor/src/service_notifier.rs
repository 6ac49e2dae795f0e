//! Reports the daemon's state to the process that started it: to systemd by sd_notify(3), to a private parent by a
//! line.
//!
//! A report that fails is logged and has no other effect. Driven by `perform.rs` and `turn.rs`.

use std::io::Write;

/// Who gets reports.
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    private: bool,
}

impl ServiceNotifier {
    /// `private`: a parent reads our standard output.
    pub(crate) fn new(private: bool) -> Self {
        Self { private }
    }

    /// Reports that jobs are accepted.
    pub(crate) fn ready(&self, status: &str) {
        log::info!("ready status={status:?}");
        notify(&format!("READY=1\nSTATUS={status}"));
        if self.private {
            let mut stdout = std::io::stdout();
            if writeln!(stdout, "ready").and_then(|()| stdout.flush()).is_err() {
                log::warn!("cannot write the ready line: the parent does not read standard output");
            }
        }
    }

    /// Reports that the daemon is stopping.
    pub(crate) fn stopping(&self) {
        notify("STOPPING=1\nSTATUS=draining");
    }
}

fn notify(state: &str) {
    if let Err(error) = bulkhead_sys::notify::notify(state) {
        log::warn!("cannot notify the service manager error={error}");
    }
}
