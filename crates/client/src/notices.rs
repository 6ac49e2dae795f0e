//! What the daemon says without having been asked, on its way to whoever wants to hear it.
//!
//! A notice answers nothing and changes nothing: it says why jobs that are waited for do not start. Driven by the
//! client's receive.

use std::fmt;

type NoticeListener = Box<dyn FnMut(&str) + Send>;

/// Who hears notices, if anybody does.
#[derive(Default)]
pub(crate) struct Notices {
    hear: Option<NoticeListener>,
}

impl Notices {
    /// Notices are for this one.
    pub(crate) fn set(&mut self, hear: impl FnMut(&str) + Send + 'static) {
        self.hear = Some(Box::new(hear));
    }

    /// One came.
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
