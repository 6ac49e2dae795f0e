//! The words in which the tables name the state of a job, of a worker and of a pool.
//!
//! Scripts match these words, so each is spelt out here and never derived from a variant's name: renaming a variant
//! must not change what a user sees. They equal the words of `--json`. Used by the verbs `job`, `jobs`, `workers`,
//! `status`.

use bulkhead_proto::client::view::{PoolHealth, WorkerState};
use bulkhead_proto::job::JobState;

/// The word for what a job is doing.
pub(crate) fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Retrying => "retrying",
        JobState::Running => "running",
        JobState::Ended => "ended",
    }
}

/// The word for what a worker is doing.
pub(crate) fn worker_state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Spare => "spare",
        WorkerState::Idle => "idle",
        WorkerState::Busy => "busy",
        WorkerState::Retiring => "retiring",
        WorkerState::Killed => "killed",
        WorkerState::Stuck => "stuck",
    }
}

/// The word for whether the workers of a pool stay alive.
pub(crate) fn pool_health(health: PoolHealth) -> &'static str {
    match health {
        PoolHealth::Starting => "starting",
        PoolHealth::Healthy => "healthy",
        PoolHealth::Degraded => "degraded",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn job_states_are_the_words_of_json() {
        use JobState::{Ended, Queued, Retrying, Running};
        let words = [Queued, Retrying, Running, Ended].map(|state| {
            assert_eq!(json!(state), job_state(state));
            job_state(state)
        });
        assert_eq!(words, ["queued", "retrying", "running", "ended"]);
    }

    #[test]
    fn worker_states_are_the_words_of_json() {
        use WorkerState::{Busy, Idle, Killed, Retiring, Spare, Starting, Stuck};
        let words = [Starting, Spare, Idle, Busy, Retiring, Killed, Stuck].map(|state| {
            assert_eq!(json!(state), worker_state(state));
            worker_state(state)
        });
        assert_eq!(words, ["starting", "spare", "idle", "busy", "retiring", "killed", "stuck"]);
    }

    #[test]
    fn pool_healths_are_the_words_of_json() {
        use PoolHealth::{Degraded, Healthy, Starting};
        let words = [Starting, Healthy, Degraded].map(|health| {
            assert_eq!(json!(health), pool_health(health));
            pool_health(health)
        });
        assert_eq!(words, ["starting", "healthy", "degraded"]);
    }
}
