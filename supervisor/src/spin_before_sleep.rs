//! Spins for a moment before the loop sleeps, while a task is running that will end within microseconds.
//!
//! Sleeping and waking costs both sides some system calls, and an idle core needs 20 to 30 us more to wake: several
//! times as long as such a task. So the loop calls sched_yield(2) and reads the boxes again, for [`SPIN_MAX_NS`] at
//! most. If the yield takes long, other processes need the core, and the loop does not spin for
//! [`CONTENDED_PAUSE_NS`]. An idle daemon never spins. Measured with one job at a time on one core: 36 us with a
//! sleep, 28 us with the spin and with an acceptance that waits for its job's end (`client_table.rs`); over two cores
//! 43 and 37 us. Driven by `turn.rs`.

use bulkhead_core::event::Event;
use bulkhead_sys::clock;

use crate::output_store::OutputStore;
use crate::worker_table::WorkerTable;

/// How long the loop spins.
const SPIN_MAX_NS: u64 = 50_000;
/// The loop does not spin for a worker whose last task took longer than this.
const SHORT_TASK_NS: u64 = 40_000;
/// Pause after a spin without a result. It bounds the cost to a twentieth of a core.
const FRUITLESS_PAUSE_NS: u64 = 20 * SPIN_MAX_NS;
/// Pause after a yield that took long because other processes need the core. It bounds the cost to a hundredth of a core.
const CONTENDED_PAUSE_NS: u64 = 100 * SPIN_MAX_NS;

/// Decides when to spin.
#[derive(Debug, Default)]
pub(crate) struct SpinBeforeSleep {
    paused_until_ns: u64,
}

impl SpinBeforeSleep {
    /// Whether a short task is running and no pause is in force.
    pub(crate) fn is_worth_it(&self, workers: &WorkerTable, now_ns: u64) -> bool {
        now_ns >= self.paused_until_ns && workers.expects_result_within(SHORT_TASK_NS)
    }

    /// Spins until a short task has ended; its events are in `batch`.
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
