//! Ends that wait for their certificates: what the daemon knows of a call that has no result.
//!
//! The daemon tells the end of a call that met a limit of time, or was cancelled, when it orders the kill; the death, with the stacks
//! that the worker wrote before it, is proven some milliseconds later. So a certificate without a death is asked for again, a few
//! times. Driven by `deliver.rs`, whose turns end when a question is due.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bulkhead_client::proto::client::view::JobDetail;
use bulkhead_client::proto::ids::JobId;

use crate::connection::locked;
use crate::told::Told;

/// After which pauses a death is asked for; a worker that writes its stacks has 5 ms for them.
const PAUSES_MS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// An end without its certificate.
#[derive(Debug)]
struct Uncertified {
    token: u64,
    job: JobId,
    told: Told,
    /// How often it was asked for without a death.
    asked: usize,
    /// When it is to be asked for again.
    due: Option<Instant>,
}

/// All of them, by the numbers of their questions.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Mutex<HashMap<u64, Uncertified>>);

impl Certificates {
    /// A certificate is asked for.
    pub(crate) fn await_one(&self, question: u64, token: u64, job: JobId, told: Told) {
        locked(&self.0).insert(question, Uncertified { token, job, told, asked: 0, due: None });
    }

    /// The answer to a question; `None`: it was none of these, or it is to be asked again.
    pub(crate) fn answered(&self, question: u64, detail: Option<&JobDetail>) -> Option<(u64, Told)> {
        let mut all = locked(&self.0);
        let waiting = all.get_mut(&question)?;
        let has_death_to_come =
            detail.is_some_and(|detail| detail.deaths.is_empty()) && waiting.told.ends_by_a_kill();
        if has_death_to_come && let Some(pause) = PAUSES_MS.get(waiting.asked) {
            waiting.asked += 1;
            waiting.due = Some(Instant::now() + Duration::from_millis(*pause));
            return None;
        }
        let Uncertified { token, told, .. } = all.remove(&question)?;
        Some((token, detail.into_iter().fold(told, Told::certified)))
    }

    /// When the next question is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        locked(&self.0).values().filter_map(|one| one.due).min()
    }

    /// Takes the questions that are due.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<(u64, JobId)> {
        let mut all = locked(&self.0);
        let due = all.iter_mut().filter(|(_, one)| one.due.is_some_and(|due| due <= now));
        due.map(|(question, one)| {
            one.due = None;
            (*question, one.job)
        })
        .collect()
    }

    /// Takes all: the connection has ended.
    pub(crate) fn take_all(&self) -> Vec<(u64, Told)> {
        locked(&self.0).drain().map(|(_, one)| (one.token, one.told)).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        locked(&self.0).len()
    }

    /// Whether the end of this call is among them.
    pub(crate) fn has(&self, token: u64) -> bool {
        locked(&self.0).values().any(|one| one.token == token)
    }
}
