//! How far a worker has come: whether it can be sent tasks, and whether anything but its box is believed.
//!
//! | stage | meaning | leaves to |
//! |---|---|---|
//! | starting | spawned; its hello is awaited | connecting (hello), closed (fault, killed, hung up) |
//! | connecting | a bootstrap thread connects to it | ready (connected), closed (fault, killed, hung up) |
//! | ready | tasks can be sent | closed (asked to leave, killed, rule broken, hung up) |
//! | closed | its death is awaited; nothing is sent or believed but its box | - |
//!
//! Any other step is an assertion. The proof of its death removes a worker from every stage. Driven by `worker_process.rs` and
//! `worker_table.rs`.

use bulkhead_link::supervisor::Sender;

use crate::deferred_close::DeferredClose;

/// The stage of a worker, see the table above.
pub(crate) enum WorkerStage {
    Starting,
    Connecting,
    Ready(DeferredClose<Sender>),
    Closed,
}

/// A stage without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerPhase {
    Starting,
    Connecting,
    Ready,
    Closed,
}

impl WorkerPhase {
    /// The stages that may follow: the table at the top of this file.
    fn leads_to(self) -> &'static [WorkerPhase] {
        match self {
            Self::Starting => &[Self::Connecting, Self::Closed],
            Self::Connecting => &[Self::Ready, Self::Closed],
            Self::Ready => &[Self::Closed],
            Self::Closed => &[],
        }
    }
}

impl WorkerStage {
    /// This stage without its data.
    pub(crate) fn phase(&self) -> WorkerPhase {
        match self {
            Self::Starting => WorkerPhase::Starting,
            Self::Connecting => WorkerPhase::Connecting,
            Self::Ready(_) => WorkerPhase::Ready,
            Self::Closed => WorkerPhase::Closed,
        }
    }
}

/// The stage that a worker has reached. It changes only as the table allows.
pub(crate) struct ReachedStage(WorkerStage);

impl ReachedStage {
    /// The stage of a new worker.
    pub(crate) fn starting() -> Self {
        Self(WorkerStage::Starting)
    }

    /// The stage itself.
    pub(crate) fn stage(&self) -> &WorkerStage {
        &self.0
    }

    /// Enters another stage.
    ///
    /// # Panics
    /// If the table does not allow this step.
    pub(crate) fn enter(&mut self, stage: WorkerStage) {
        let (from, to) = (self.0.phase(), stage.phase());
        assert!(from.leads_to().contains(&to), "a worker went from {from:?} to {to:?}");
        self.0 = stage;
    }

    /// Enters the last stage from any other.
    pub(crate) fn close(&mut self) {
        if !self.is_closed() {
            self.enter(WorkerStage::Closed);
        }
    }

    /// Whether this is the last stage.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.phase() == WorkerPhase::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_stages_is_the_code() {
        let code = crate::every_state!(WorkerPhase: Starting, Connecting, Ready, Closed).map(|stage| {
            let to = stage.leads_to().iter().map(|to| format!("{to:?}")).collect();
            (format!("{stage:?}"), to)
        });
        crate::state_tables::assert_told(include_str!("worker_stage.rs"), code);
    }
}
