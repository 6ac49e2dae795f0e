//! Delivers the daemon's notices to a listener.
//!
//! A notice is a reply without a request: it says why jobs that this client waits for do not start. It answers nothing
//! and changes nothing. Driven by `DaemonClient::receive`.

use std::fmt;

type NoticeListener = Box<dyn FnMut(&str) + Send>;

/// The listener for notices, if one is set.
#[derive(Default)]
pub(crate) struct Notices {
    hear: Option<NoticeListener>,
}

impl Notices {
    /// Sets the listener.
    pub(crate) fn set(&mut self, hear: impl FnMut(&str) + Send + 'static) {
        self.hear = Some(Box::new(hear));
    }

    /// Calls the listener with a notice.
    pub(crate) fn hear(&mut self, text: &str) {
        if let Some(hear) = &mut self.hear {
            hear(text);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Notices").field("are_heard", &self.hear.is_some()).finish()
    }
}
