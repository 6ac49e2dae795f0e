//! A moment of patience before the loop sleeps, while a task is under way that will end in microseconds.
//!
//! To sleep and to be woken costs both sides a few system calls, and a core that went idle 20 to 30 us more, several
//! times what such a task takes. So the loop gives way to others and looks at the boxes again, for [`SPIN_MAX_NS`] at most.
//! If giving way takes long, others need the core, and it is not done again for [`CONTENDED_PAUSE_NS`]. An idle daemon never
//! lingers: nothing is under way. Measured: one job at a time 36 us with a sleep, 28 us so. Driven by the loop.

use bulkhead_core::event::Event;
use bulkhead_sys::clock;

use crate::output_store::OutputStore;
use crate::worker_table::WorkerTable;

/// How long the loop lingers.
const SPIN_MAX_NS: u64 = 50_000;
/// A worker whose last task took longer than this is not waited for.
const SHORT_TASK_NS: u64 = 20_000;
/// How long it does not linger after it did so in vain: it never takes more than a twentieth of a core.
const FRUITLESS_PAUSE_NS: u64 = 20 * SPIN_MAX_NS;
/// How long it does not linger after others were found to need the core.
const CONTENDED_PAUSE_NS: u64 = 100_000_000;

/// Whether it is worth it.
#[derive(Debug, Default)]
pub(crate) struct SpinBeforeSleep {
    paused_until_ns: u64,
}

impl SpinBeforeSleep {
    /// Whether a short task is under way, and others do not need the core.
    pub(crate) fn is_worth_it(&self, workers: &WorkerTable, now_ns: u64) -> bool {
        now_ns >= self.paused_until_ns && workers.expects_result_within(SHORT_TASK_NS)
    }

    /// Waits for the end of a short task, if one is under way. What has ended is in `batch`.
    pub(crate) fn run(
        &mut self,
        workers: &mut WorkerTable,
        outputs: &mut OutputStore,
        batch: &mut Vec<Event>,
    ) {
        let begun_ns = clock::monotonic_ns();
        if !self.is_worth_it(workers, begun_ns) {
            return;
        }
        let mut now_ns = begun_ns;
        while batch.is_empty() && now_ns >= self.paused_until_ns && now_ns - begun_ns < SPIN_MAX_NS {
            std::thread::yield_now();
            workers.read_boxes(outputs, batch);
            let after_ns = clock::monotonic_ns();
            if after_ns - now_ns > SPIN_MAX_NS {
                self.paused_until_ns = after_ns + CONTENDED_PAUSE_NS;
            }
            now_ns = after_ns;
        }
        if batch.is_empty() && now_ns > begun_ns {
            self.paused_until_ns = self.paused_until_ns.max(now_ns + FRUITLESS_PAUSE_NS);
        }
    }
}
