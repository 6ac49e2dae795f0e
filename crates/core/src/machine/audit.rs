//! What must hold between any two turns, as assertions: counts, lists, claims, slots, alarms.
//!
//! It walks everything, so it is for the simulation and the tests, which call it after each turn; the daemon
//! never does.

use std::collections::BTreeMap;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::PoolId;

use crate::job::entry::{PHASES, Phase, State, Step};
use crate::job::fan::{FIRST_PART, part_of};
use crate::machine::Core;
use crate::turn::Alarm;
use crate::worker::entry::{Duty, Worker};

impl Core {
    /// Checks every invariant of the machine.
    ///
    /// # Panics
    /// If one is broken: the machine is wrong.
    pub fn audit(&self) {
        assert!(self.turn.is_at_rest(), "a turn keeps nothing back");
        self.audit_jobs();
        self.audit_offers();
        self.audit_slots();
        self.audit_timers();
        self.audit_files();
        self.audit_parts();
        self.logs.audit(&self.jobs);
        self.kept.audit(&self.jobs);
        assert_eq!(
            self.queues.audit(&self.jobs),
            self.count_all(Phase::Queued),
            "queued jobs are in the queue"
        );
        let solo = self.pools.iter().map(|pool| pool.solo.walk(&self.jobs.slab).count() as u64);
        assert_eq!(solo.sum::<u64>(), self.count_all(Phase::Solo));
    }

    fn audit_jobs(&self) {
        // Counted afresh from the table, to be held against the counters that decisions are made by.
        let mut counts = [[0; PHASES]; 2];
        let mut refs = 0;
        for (at, job) in &self.jobs.slab {
            counts[usize::from(job.is_part())][job.state.phase() as usize] += 1;
            assert_eq!(self.jobs.find(job.id), u32::try_from(at).ok(), "a job is found by its number");
            assert!(job.end().is_some() || job.attempts <= job.fence.0, "an attempt is an offer");
            assert_eq!(job.is_part(), job.id >= FIRST_PART, "parts have numbers of their own");
            let has_parts =
                matches!(job.state, State::Parted) || job.end().is_none() && job.step == Step::Merge;
            assert_eq!(job.fan().is_some(), has_parts, "a job has parts from its plan to its end");
            match &job.state {
                State::Solo => assert!(job.alone, "only charged jobs wait to run alone"),
                State::Queued => assert!(!job.alone, "a charged job never shares a worker again"),
                State::Running { worker, seq, .. } => {
                    let holder = self.pools.workers.get(worker);
                    assert!(
                        holder.is_some_and(|holder| holder.claims.holds(*seq)),
                        "a running job is offered"
                    );
                    let pool = self.jobs.batches[job.batch as usize].pool;
                    assert_eq!(self.pools.of_worker(*worker), pool, "a job runs in the pool of its kind");
                }
                State::Waiting { alarm } => {
                    let wanted = alarm.at_ns().map(|at_ns| (at_ns, Alarm::Backoff(job.id)));
                    let set = self.turn.alarms().any(|alarm| Some(*alarm) == wanted);
                    assert!(set, "a backoff ends");
                }
                State::Parted | State::Ended(_) => {}
            }
        }
        use Phase::{Ended, Parted, Queued, Running, Solo, Waiting};
        for phase in [Queued, Waiting, Solo, Running, Parted, Ended] {
            let [jobs, parts] = counts.map(|counts| counts[phase as usize]);
            assert_eq!(jobs, self.jobs.count(phase), "jobs are counted by phase {phase:?}");
            assert_eq!(parts, self.jobs.count_parts(phase), "parts are counted by phase {phase:?}");
        }
        for (_, batch) in &self.jobs.batches {
            assert!(batch.refs > 0, "a batch goes with its last job");
            refs += u64::from(batch.refs);
        }
        let fans = self.fans.iter().count() as u64;
        assert_eq!(refs, self.jobs.slab.len() as u64 + fans, "every job has a batch, and so have its parts");
    }

    /// No part without its job, no job with parts that are not there.
    fn audit_parts(&self) {
        let mut live = 0;
        for (id, fan) in self.fans.iter() {
            let job = &self.jobs[fan.job];
            assert_eq!((job.id, job.fan()), (fan.id, Some(id)), "parts have a job");
            assert_eq!(
                fan.next,
                fan.done + fan.live.len() as u32,
                "a part that was made is done, or is there"
            );
            assert!(fan.next <= fan.parts, "no more parts than were planned");
            assert_eq!(fan.done == fan.parts, job.step == Step::Merge, "when all are done, they are merged");
            for part in &fan.live {
                let found = part_of(self.jobs[*part].id);
                assert!(found.is_some_and(|(of, part)| of == id && part < fan.next), "a part knows its job");
            }
            live += fan.live.len() as u64;
        }
        let there: u64 = self.jobs.slab.iter().filter(|(_, job)| job.is_part()).count() as u64;
        assert_eq!(there, live, "every part has a job that waits for it");
    }

    fn count_all(&self, phase: Phase) -> u64 {
        self.jobs.count(phase) + self.jobs.count_parts(phase)
    }

    /// Each running job is the current one of exactly one offer.
    fn audit_offers(&self) {
        // An offer of a job that has ended, or was offered anew, is not current: its worker holds it, and nobody waits for it.
        let mut current = 0;
        for (id, worker) in &self.pools.workers {
            worker.claims.audit();
            assert!(worker.watch.is_none() || worker.claims.len() == 1, "what is watched shares its ring");
            let mut lonely = false;
            for offer in worker.claims.iter().filter(|offer| self.is_current(*id, offer)) {
                current += 1;
                lonely |= self.jobs[offer.key].alone;
            }
            assert!(!lonely || worker.claims.len() == 1, "a charged job shares its worker with nobody");
            assert!(!lonely || worker.ended == 0, "a charged job runs in a fresh worker");
        }
        assert_eq!(current, self.count_all(Phase::Running), "no job is with two workers");
    }

    /// Files are held by jobs that have not ended, and by offers.
    fn audit_files(&self) {
        let mut users = BTreeMap::new();
        let jobs = self.jobs.slab.iter().map(|(_, job)| job).filter(|job| job.end().is_none());
        let offers = self.pools.workers.values().flat_map(|worker| worker.claims.iter());
        for freight in jobs.filter_map(|job| job.freight()).chain(offers.filter_map(|offer| offer.freight)) {
            *users.entry(freight).or_default() += 1;
        }
        self.files.audit(&users);
    }

    fn audit_slots(&self) {
        for id in self.pools.ids() {
            self.audit_pool(id);
        }
        self.pools.workers.values().for_each(audit_worker);
    }

    fn audit_pool(&self, id: PoolId) {
        let pool = &self.pools[id];
        let mut vacant = 0;
        for at in pool.places.clone() {
            match self.pools.in_slot(at) {
                Some((_, worker)) => {
                    assert_eq!((worker.pool, worker.slot.map(|slot| usize::from(slot.0))), (id, Some(at)));
                }
                None => {
                    assert_eq!(self.pools.slots[at].worker, None, "no slot is kept for the dead");
                    vacant += 1;
                }
            }
        }
        assert_eq!(vacant, pool.vacant);
        let own = || self.pools.workers.values().filter(|worker| worker.pool == id);
        for state in [
            WorkerState::Starting,
            WorkerState::Spare,
            WorkerState::Idle,
            WorkerState::Busy,
            WorkerState::Retiring,
            WorkerState::Killed,
            WorkerState::Stuck,
        ] {
            let found = own().filter(|worker| worker.duty.shown() == state).count();
            assert_eq!(found, pool.count(state), "workers are counted by state {state:?}");
        }
        assert_eq!(own().filter(|worker| worker.replaced).count(), pool.stuck_replaced);
        for key in pool.solo.walk(&self.jobs.slab) {
            assert_eq!(self.jobs.batch(key).pool, id, "a job waits alone where its kind runs");
        }
        let is_spare = |spare| self.pools.workers.get(spare).is_some_and(|worker| worker.pool == id);
        assert!(pool.spares.iter().all(is_spare), "a spare stands by its own pool");
    }

    /// Every alarm of a worker is remembered by it: none rings for what is over.
    fn audit_timers(&self) {
        for (at_ns, alarm) in self.turn.alarms() {
            let remembered = match alarm {
                Alarm::Worker(which, id) => {
                    self.pools.workers.get(id).and_then(|worker| worker.alarm_ns(*which))
                }
                Alarm::Progress(job) => self.tellings.alarm_ns(*job),
                Alarm::Shortage => self.shortage.until_ns(),
                _ => Some(*at_ns),
            };
            assert_eq!(remembered, Some(*at_ns), "{alarm:?} is remembered");
        }
    }
}

fn audit_worker(worker: &Worker) {
    match worker.duty {
        Duty::Starting | Duty::Spare | Duty::Retiring => {
            assert!(worker.slot.is_none() && worker.claims.is_empty(), "tasks run in slots: {worker:?}");
        }
        Duty::Idle => assert!(worker.slot.is_some() && worker.claims.is_empty(), "{worker:?}"),
        Duty::Busy => assert!(worker.slot.is_some() && !worker.claims.is_empty(), "{worker:?}"),
        Duty::Killed(_) | Duty::Stuck(_) => {}
    }
}
