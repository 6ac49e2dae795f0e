//! Protocol violations of workers: claim words that no rule allows, results of no known form, offers out of turn.
//!
//! A hostile process can do each of them. None must make the supervisor believe anything about other offers than the
//! worker's own. `moves.rs` drives it, for hostile workers.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::worker::boxes::{ClaimState, ClaimWord};

use crate::boxes::FakeResult;
use crate::report::Verdict;
use crate::worker::Ends;
use crate::world::{NewsSource, World};

impl World {
    /// Rule 6: one of the ways in which a worker can break the rules.
    pub(crate) fn violate(&mut self, id: WorkerId) -> Verdict {
        let way = self.rng.below(if self.scenario.on_demand { 11 } else { 8 });
        let early = self.rng.draw();
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        self.news.insert(NewsSource::Worker(id));
        if way == 0 {
            const VIOLATIONS: [Violation; 5] = [
                Violation::Lane,
                Violation::Descriptor,
                Violation::Output,
                Violation::Hello,
                Violation::Plan,
            ];
            worker.tells.lane_violation = Some(VIOLATIONS[(early % VIOLATIONS.len() as u64) as usize]);
            return Ok(());
        }
        if way >= 8 {
            return self.ask_wrongly(id, way == 8, early);
        }
        if way == 1 || way == 2 {
            return self.reach_ahead(id, way == 1, early);
        }
        let Some(run) = &mut worker.run else { return Ok(()) };
        let seq = run.seq;
        match way {
            3 => worker.pages.scribble(seq, ClaimWord::pack(Seq(seq.0 + 1), ClaimState::Claimed)),
            4 => {
                // The worker says that it did not begin, and nothing shows otherwise.
                worker.begun -= u64::from(worker.pages.is(seq, ClaimState::Claimed));
                worker.pages.scribble(seq, ClaimWord::pack(seq, ClaimState::Offered));
            }
            5 => worker.pages.scribble(seq, ClaimWord::pack(seq, ClaimState::Settled)),
            6 => worker.pages.scribble(seq, 7),
            _ => match &mut run.ends {
                Ends::Report(written) => {
                    (written.status, written.elapsed_ns) = (early % 5, u64::MAX);
                    worker.pages.dispute(seq);
                }
                Ends::Death(_) | Ends::Never => {}
            },
        }
        Ok(())
    }

    /// Asks for an output, now and then twice: for its task, which may not be one that asks, or for any offer.
    fn ask_wrongly(&mut self, id: WorkerId, anywhere: bool, which: u64) -> Verdict {
        let run = self.workers.get(&id).and_then(|worker| worker.run.as_ref()).map(|run| run.seq);
        let seq = match run {
            Some(seq) if !anywhere => seq,
            _ => Seq(which % 20),
        };
        self.ask_for_output(id, seq);
        if which.is_multiple_of(3) {
            self.ask_for_output(id, seq);
        }
        Ok(())
    }

    /// Claims or ends an offer that is not its turn, or whose message never came.
    fn reach_ahead(&mut self, id: WorkerId, end: bool, which: u64) -> Verdict {
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        let offered = worker.pages.offered();
        if offered.is_empty() {
            return Ok(());
        }
        let seq = offered[(which % offered.len() as u64) as usize];
        let task = worker.pages.task(seq);
        if !worker.pages.claim(seq) {
            return Ok(());
        }
        worker.begun += 1;
        if end {
            worker.pages.write(seq, FakeResult::inline(which.to_le_bytes().to_vec(), which));
            worker.pages.dispute(seq);
            worker.pages.done(seq);
        } else if let Some(task) = task {
            self.oracles.exclusive.claimed(id, task, &self.workers)?;
        }
        Ok(())
    }
}
