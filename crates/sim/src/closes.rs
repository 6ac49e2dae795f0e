//! Scenarios in which workers cannot close files of clients: how many wait, when the closes go on, and what the supervisor tells of it.
//!
//! Drawn apart from everything else, so that a seed without them means what it always did. A worker has such files after a task; they
//! keep its process from ending as long as it has any. Nothing here decides what becomes of it: `oracle/unclosed.rs` judges that.

use bulkhead_core::event::Event;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::limits::UNCLOSED_MAX;

use crate::agenda::Move;
use crate::clock::{MS, S, US};
use crate::rng::SimRng;
use crate::scenario::Profile;
use crate::worker::{FakeWorker, Life};
use crate::world::{NewsSource, World};

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has such workers.
const SALT: u64 = 0xc105_e004;

/// Whether closes of this seed hang.
pub(crate) fn hang(seed: u64, profile: Profile) -> bool {
    // The oracle `fairness` counts as if every worker were offered tasks.
    profile != Profile::Flood && SimRng::new(seed ^ SALT).chance(250)
}

/// The files that a worker has to close, and what was told of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnclosedFiles {
    /// How many there are.
    pub files: u64,
    told: HowMany,
}

/// As exactly as the supervisor tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HowMany {
    #[default]
    None,
    Some,
    TooMany,
}

impl UnclosedFiles {
    /// The number, if it has to be told.
    fn take_news(&mut self) -> Option<u64> {
        let now = match self.files {
            0 => HowMany::None,
            1..=UNCLOSED_MAX => HowMany::Some,
            _ => HowMany::TooMany,
        };
        (std::mem::replace(&mut self.told, now) != now).then_some(self.files)
    }
}

impl FakeWorker {
    /// What there is to tell of the files that it has to close.
    pub(crate) fn unclosed_event(&mut self) -> Option<Event> {
        let worker = self.id;
        self.unclosed.take_news().map(|files| Event::Unclosed { worker, files })
    }
}

impl World {
    /// A worker has ended a task: it may have files to close that were the client's.
    pub(crate) fn leave_unclosed(&mut self, id: WorkerId) {
        if self.calm || !self.scenario.closes_hang || !self.rng.chance(150) {
            return;
        }
        let files = *self.rng.pick(&[1, 7, UNCLOSED_MAX, UNCLOSED_MAX + 1, 1000]);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let is_first = worker.unclosed.files == 0;
        worker.unclosed.files += files;
        self.news.insert(NewsSource::Worker(id));
        if is_first {
            self.plan_closes(id);
        }
    }

    fn plan_closes(&mut self, id: WorkerId) {
        let most = *self.rng.pick(&[MS, 200 * MS, 5 * S, 40 * S]);
        let after = self.rng.span(most);
        self.plan(after, Move::Close(id));
    }

    /// Closes of a worker return: of all files, or of some.
    pub(crate) fn close_files(&mut self, id: WorkerId) {
        let are_all = self.calm || self.rng.chance(500);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.unclosed.files = if are_all { 0 } else { worker.unclosed.files / 3 };
        self.news.insert(NewsSource::Worker(id));
        if worker.unclosed.files > 0 {
            self.plan_closes(id);
        } else if matches!(worker.life, Life::Dead(_)) {
            self.plan(50 * US, Move::Prove(id));
        }
    }
}
