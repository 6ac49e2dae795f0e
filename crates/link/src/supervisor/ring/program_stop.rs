//! Reads whether a signal has stopped the program of the claimed task, as the worker says in its box.
//!
//! The worker can write any word at any time. A word that cannot be is read as "not stopped", each call returns at most
//! one change, and a change is about the first unfinished offer of this worker alone. The process id is never signalled
//! or looked up: it is only shown. Driven by the supervisor's `worker_table.rs`, which reads it with the results.

use std::sync::atomic::Ordering;

use bulkhead_proto::ids::Seq;
use bulkhead_proto::worker::boxes::{PROGRAM_STOP_AT, ProgramStop};

use super::Ring;
use crate::words::Words;

/// What changed about the program of a claimed task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramChange {
    /// A signal stopped it, perhaps again.
    Stopped {
        /// The offer.
        seq: Seq,
        /// The process and the signal.
        stop: ProgramStop,
    },
    /// It was continued.
    Continued {
        /// The offer.
        seq: Seq,
    },
}

impl<P: Words> Ring<P> {
    /// The change since the last call. Costs one load while no program is stopped. A task that ends takes its stop along:
    /// no change is returned for that.
    pub fn program_change(&mut self) -> Option<ProgramChange> {
        if self.stopped.is_none() && self.box_page.load(PROGRAM_STOP_AT, Ordering::Relaxed) == 0 {
            return None;
        }
        let claimed = self.head().filter(|(_, claimed)| *claimed && self.violation.is_none());
        // Loaded after the claim word: the worker cleared it before that claim, so it is not that of an earlier task.
        let word = self.box_page.load(PROGRAM_STOP_AT, Ordering::Acquire);
        let stop = claimed.and_then(|(seq, _)| Some((seq, ProgramStop::unpack(word)?)));
        let before = std::mem::replace(&mut self.stopped, stop.map(|(seq, _)| (seq, word)));
        match (stop, before) {
            (Some((seq, stop)), before) if before != Some((seq, word)) => {
                Some(ProgramChange::Stopped { seq, stop })
            }
            (None, Some((seq, _))) if claimed == Some((seq, true)) => Some(ProgramChange::Continued { seq }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::Seq;
    use bulkhead_proto::worker::boxes::{PROGRAM_STOP_AT, ProgramStop};

    use super::super::tests::{offer, rings};
    use super::ProgramChange::{Continued, Stopped};
    use super::*;
    use crate::worker::Finish;

    const STOP: ProgramStop = ProgramStop { pid: 913, signal: 21 };

    #[test]
    fn a_stop_is_returned_once_and_so_is_what_ends_it() {
        let (mut ring, worker, _) = rings();
        offer(&mut ring, 1..=2);
        assert_eq!(ring.program_change(), None);
        assert!(worker.claim(Seq(1)));
        assert_eq!(ring.program_change(), None);
        for _ in 0..2 {
            worker.set_program_stop(Some(STOP));
            assert_eq!(ring.program_change(), Some(Stopped { seq: Seq(1), stop: STOP }));
            assert_eq!(ring.program_change(), None);
        }
        worker.set_program_stop(None);
        worker.set_program_stop(Some(STOP));
        assert_eq!(
            ring.program_change(),
            Some(Stopped { seq: Seq(1), stop: STOP }),
            "another stop of the same"
        );
        worker.set_program_stop(None);
        assert_eq!(ring.program_change(), Some(Continued { seq: Seq(1) }));
        assert_eq!(ring.program_change(), None);
    }

    #[test]
    fn a_task_that_ends_takes_its_stop_along() {
        let (mut ring, worker, _) = rings();
        offer(&mut ring, 1..=2);
        let mut done = Vec::new();
        for seq in [Seq(1), Seq(2)] {
            assert!(worker.claim(seq));
            worker.set_program_stop(Some(STOP));
            if seq == Seq(1) {
                assert_eq!(ring.program_change(), Some(Stopped { seq, stop: STOP }));
            }
            worker.finish(seq, &Finish::Inline(&[]));
            ring.poll(&mut done).unwrap();
            assert_eq!(ring.program_change(), None);
        }
        assert_eq!(done.len(), 2);
        offer(&mut ring, 3..=3);
        assert!(worker.claim(Seq(3)));
        assert_eq!(ring.program_change(), None, "nothing is left of it");
    }

    #[test]
    fn nonsense_is_no_stop_and_each_look_gives_one_change_at_most() {
        let (mut ring, worker, hostile) = rings();
        offer(&mut ring, 1..=1);
        let scribble = |word: u64| hostile.store(PROGRAM_STOP_AT, word, Ordering::SeqCst);
        scribble(STOP.pack(1));
        assert_eq!(ring.program_change(), None, "it has begun nothing");
        assert!(worker.claim(Seq(1)));
        for word in [u64::MAX, 1, 19 << 32, STOP.pack(0) | 1 << 31] {
            scribble(word);
            assert_eq!(ring.program_change(), None, "{word:#x}");
        }
        for count in 1..1000 {
            scribble(STOP.pack(count));
            assert_eq!(ring.program_change(), Some(Stopped { seq: Seq(1), stop: STOP }));
            assert_eq!(ring.program_change(), None);
        }
        scribble(u64::MAX);
        assert_eq!(ring.program_change(), Some(Continued { seq: Seq(1) }));
    }
}
