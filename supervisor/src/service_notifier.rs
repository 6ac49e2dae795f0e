//! Tells whoever started the daemon how it is: systemd by sd_notify, a private parent by a line.
//!
//! Telling never fails the daemon: nobody may be listening. Driven by the loop's hands.

use std::io::Write;

/// Who waits for the start.
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    private: bool,
}

impl ServiceNotifier {
    /// `private`: a parent reads standard output.
    pub(crate) fn new(private: bool) -> Self {
        Self { private }
    }

    /// Jobs are taken from now on.
    pub(crate) fn ready(&self, status: &str) {
        log::info!("ready status={status:?}");
        notify(&format!("READY=1\nSTATUS={status}"));
        if self.private {
            let mut stdout = std::io::stdout();
            if writeln!(stdout, "ready").and_then(|()| stdout.flush()).is_err() {
                log::warn!("the parent does not read that the daemon is ready");
            }
        }
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        notify("STOPPING=1\nSTATUS=draining");
    }
}

fn notify(state: &str) {
    if let Err(error) = bulkhead_sys::notify::notify(state) {
        log::warn!("cannot tell the service manager error={error}");
    }
}
