//! Answers `why`: what a job waits for, how its attempts ended, how it ended and who ended it.
//!
//! Reads, and decides nothing: every value here is one that a decision uses, or that was noted when it was made. Jobs of
//! other users are counted; only administrators see their numbers.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::client::why::{
    DrainLeft, Holder, LastFailure, Longest, OutputWait, Past, Running, RunningLimits, Unread, Why, WhyEnded,
    WhyNow, WhyPool, WhyShare,
};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{ClientId, JobId, PoolId, Seq, WorkerId};

use crate::event::Peer;
use crate::job::{Doing, TaskRun};
use crate::turn::{Owner, Resource, ms};
use crate::view::{View, ViewReply};

/// The sizes of an answer without its deaths, and of each death, in bytes, about.
const WHY_BYTES: u64 = 512;
const DEATH_BYTES: u64 = 256;
/// Stands for the reason why a worker was killed that ran a task of another user.
const OTHERS_KILL: &str = "it ran a job of another user";

/// About the bytes of a reply.
pub(super) fn why_bytes(why: &Why) -> u64 {
    WHY_BYTES + DEATH_BYTES * why.past.deaths.len() as u64
}

impl View<'_> {
    /// Answers `why`.
    ///
    /// `outputs` is what the job's output waits for, if it does.
    pub(crate) fn why(
        &self,
        peer: Peer,
        job: JobId,
        outputs: Option<OutputWait>,
    ) -> Result<ViewReply, Refusal> {
        let why = self.why_of(self.jobs.visible(peer, job)?, peer, outputs);
        let bytes = why_bytes(&why);
        Ok(ViewReply { reply: Reply::Why(Box::new(why)), bytes })
    }

    fn why_of(&self, run: TaskRun, peer: Peer, outputs: Option<OutputWait>) -> Why {
        let job = self.jobs.job(run);
        let now = match job.doing() {
            Doing::Parted => self.why_parted(run, peer),
            Doing::Queued => self.why_queued(run, peer, outputs),
            Doing::Backoff { until_ns } => {
                WhyNow::Backoff { left_ms: self.left_ms(until_ns), alone: job.is_alone() }
            }
            Doing::Alone => WhyNow::Alone {
                before: self.jobs.before_alone(run),
                shortage_ms: self.why_shortage(run),
                outputs,
                pool: self.why_pool(run, peer),
            },
            Doing::Running { worker, seq, since_ns } => self.why_running(run, (worker, seq), since_ns, peer),
            Doing::Ended => self.why_ended(run, peer),
        };
        let vanished_ms = self.why_vanished(run);
        Why { job: job.id(), attempts: self.jobs.attempts_of(run), now, vanished_ms, past: self.past(run) }
    }

    fn why_ended(&self, run: TaskRun, peer: Peer) -> WhyNow {
        let (job, policy) = (self.jobs.job(run), self.jobs.batch(run).policy());
        let end = job.end().expect("a job that is shown as ended has ended");
        WhyNow::Ended(WhyEnded {
            how: end.outcome().clone(),
            part: end.part(),
            by: end.by(),
            gone: end.gone(),
            at_us: end.at_us(),
            expires_ms: policy.expires_ms.filter(|_| *end.outcome() == Outcome::Expired),
            holder: end.holder().and_then(|(worker, seq)| self.holder(worker, seq, peer)),
            had_files: job.has_files(),
        })
    }

    /// The milliseconds until the job is cancelled because its client is gone, if it is.
    fn why_vanished(&self, run: TaskRun) -> Option<u64> {
        let batch = self.jobs.batch(run);
        let is_wanted_by_it = batch.is_watched() && self.jobs.job(run).end().is_none();
        let at_ns = self.clients.vanishes_ns(batch.client()).filter(|_| is_wanted_by_it)?;
        Some(self.left_ms(at_ns))
    }

    fn why_parted(&self, run: TaskRun, peer: Peer) -> WhyNow {
        let client = self.jobs.batch(run).client();
        WhyNow::Parted {
            parts: self.jobs.parts_of(run).unwrap_or_default(),
            unread: self.unread(client),
            shortage_ms: self.workers.short_until_ns().map(|at_ns| self.left_ms(at_ns)),
            pool: self.why_pool(run, peer),
        }
    }

    /// The jobs before it are counted by the rules by which the queue takes jobs.
    fn why_queued(&self, run: TaskRun, peer: Peer, outputs: Option<OutputWait>) -> WhyNow {
        let batch = self.jobs.batch(run);
        let waited_ms = self.since_ms(batch.since_ns());
        let has_begun = !self.jobs.job(run).never_began();
        WhyNow::Queued {
            waited_ms,
            before: self.jobs.before(self.turn, run),
            priority: batch.policy().priority,
            raised: waited_ms / self.turn.config().ageing_ms,
            unread: self.unread(batch.client()),
            shortage_ms: self.why_shortage(run),
            outputs,
            expires_in_ms: batch.expires_ns().filter(|_| !has_begun).map(|at_ns| self.left_ms(at_ns)),
            pool: self.why_pool(run, peer),
        }
    }

    /// The milliseconds until the next try to make a descriptor, if this job needs one and none could be made.
    fn why_shortage(&self, run: TaskRun) -> Option<u64> {
        let needs_one = self.jobs.needs_descriptor(run);
        self.workers.short_until_ns().filter(|_| needs_one).map(|at_ns| self.left_ms(at_ns))
    }

    /// An attempt that stands behind others in its ring has not begun: its time does not count yet.
    fn why_running(&self, run: TaskRun, (id, seq): (WorkerId, Seq), since_ns: u64, peer: Peer) -> WhyNow {
        let policy = self.jobs.batch(run).policy();
        let worker = self.workers.get(id);
        let behind =
            worker.map_or(0, |worker| worker.ring().iter().take_while(|offer| offer.seq() != seq).count());
        // Its time counts from when it became the first of its ring: see `watch_head`.
        let begun_ns = worker.filter(|_| behind == 0).map_or(since_ns, |worker| worker.ring().head_ns());
        let ends_ns = policy.timeout_ms.map(|limit_ms| begun_ns.saturating_add(ms(limit_ms)));
        WhyNow::Running(Running {
            holder: self.holder(id, seq, peer).unwrap_or(Holder {
                worker: id,
                pid: None,
                killed: None,
                stuck: false,
                ending: None,
            }),
            for_ms: self.since_ms(begun_ns),
            behind: u32::try_from(behind).unwrap_or(u32::MAX),
            alone: self.jobs.job(run).is_alone(),
            lent: worker.filter(|worker| self.workers.has_lent_slot(worker)).and_then(|worker| worker.slot()),
            stopped_ms: worker
                .filter(|worker| !worker.is_killed())
                .and_then(|worker| worker.stopped_until_ns())
                .map(|at_ns| self.left_ms(at_ns)),
            program: worker.filter(|_| behind == 0).and_then(|worker| self.stopped_program(worker)),
            drain: self.why_drain(),
            limits: RunningLimits {
                timeout_ms: policy.timeout_ms,
                timeout_left_ms: ends_ns.filter(|_| behind == 0).map(|at_ns| self.left_ms(at_ns)),
                no_progress_ms: policy.no_progress_ms,
                cpu_ms: policy.cpu_ms,
                memory_bytes: policy.memory_bytes,
            },
        })
    }

    /// The worker that has not settled this offer. While it runs a task of another user, its pid is that task's, and the reason
    /// why it was killed too.
    fn holder(&self, id: WorkerId, seq: Seq, peer: Peer) -> Option<Holder> {
        let worker = self.workers.get(id).filter(|worker| worker.ring().holds(seq))?;
        let is_own = worker.owner().may_be_seen_by(peer);
        let why = |why: KillReason| if is_own { why.to_string() } else { OTHERS_KILL.to_owned() };
        Some(Holder {
            worker: id,
            pid: worker.pid().filter(|_| is_own),
            killed: worker.kill().map(|kill| why(kill.why())),
            stuck: worker.shown() == WorkerState::Stuck,
            ending: worker.ending(self.turn.now_ns(), seq),
        })
    }

    /// Slots by what their workers do. The rest of `slots` has no worker: one is starting, or is spawned in a while.
    fn why_pool(&self, run: TaskRun, peer: Peer) -> WhyPool {
        let id = self.jobs.batch(run).pool();
        let pool = self.workers.pool(id);
        let count = |state| u16::try_from(pool.count(state)).unwrap_or(u16::MAX);
        let (mut busy, mut idle, mut spent, mut unclosed, mut closed, mut dying) = (0, 0, 0, 0, 0, 0);
        let mut stuck = count(WorkerState::Stuck);
        for (_, worker) in self.workers.in_slots(id) {
            match worker.shown() {
                WorkerState::Busy => busy += 1,
                WorkerState::Idle if worker.is_idle() => idle += 1,
                WorkerState::Idle if worker.is_at_rest() && worker.has_many_unclosed() => unclosed += 1,
                WorkerState::Idle if worker.is_at_rest() => spent += 1,
                WorkerState::Idle => closed += 1,
                WorkerState::Killed | WorkerState::Stuck => dying += 1,
                WorkerState::Starting | WorkerState::Spare | WorkerState::Retiring => {}
            }
            // A stuck worker that could not be replaced is counted once, with the slot that it keeps.
            stuck -= u16::from(worker.shown() == WorkerState::Stuck);
        }
        let (health, health_reason) = pool.health();
        WhyPool {
            name: pool.name().to_owned(),
            slots: u16::try_from(pool.size()).unwrap_or(u16::MAX),
            busy,
            idle,
            spent,
            unclosed,
            closed,
            dying,
            stuck,
            spares: count(WorkerState::Spare),
            starting: count(WorkerState::Starting),
            next_spawn_ms: self
                .workers
                .next_spawn_ns(id, self.drain.is_leaving)
                .map(|at_ns| self.left_ms(at_ns)),
            health,
            health_reason,
            longest: self.longest(id, peer),
            share: self.why_share(id, self.jobs.batch(run).uid()),
            drain: self.why_drain(),
        }
    }

    /// The workers that a user holds of a pool, and how the user stands with the slots that the pool lends.
    fn why_share(&self, pool: PoolId, uid: u32) -> WhyShare {
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let of_user = |number: u32| count(number as usize);
        let held = self.workers.held_by(pool, uid);
        let due_ns = self.workers.lends_ns(pool, uid);
        let lend_max = self.workers.lend_max(pool);
        WhyShare {
            held: of_user(held),
            running_max: self.workers.running_max(pool).map(of_user),
            stuck: of_user(self.workers.stuck_of(pool, uid)),
            stuck_max: self.workers.stuck_max(pool, uid).map(of_user),
            others_hold_all: held == 0 && self.workers.is_all_held(pool),
            lend_after_ms: self.turn.config().lend_after_ms,
            // A pool that lends nothing counts nobody's wait.
            lends_in_ms: due_ns.map(|at_ns| self.left_ms(at_ns)).or((lend_max == 0).then_some(0)),
            lent: count(self.workers.lent_workers(pool).count()),
            lend_max: count(lend_max),
        }
    }

    /// The task that has been the first of its ring for longest, and its job if this client may see it.
    fn longest(&self, pool: PoolId, peer: Peer) -> Option<Longest> {
        let busy = self.workers.in_slots(pool).filter(|(_, worker)| worker.shown() == WorkerState::Busy);
        let (id, worker) = busy.min_by_key(|(_, worker)| worker.ring().head_ns())?;
        let head = worker.ring().head()?;
        let job = Owner::User(head.uid()).may_be_seen_by(peer).then_some(head.shown());
        Some(Longest { job, worker: id, for_ms: self.since_ms(worker.ring().head_ns()) })
    }

    /// The unread replies of a client, if its jobs rest because of them.
    fn unread(&self, client: ClientId) -> Option<Unread> {
        let account = self.clients.see(client)?.account();
        let room = self.ledger.room(account, Resource::UnreadResults);
        let of_user = (room.left() == 0).then(|| room.met(Resource::UnreadResults));
        self.clients.unread(self.turn, client, of_user).filter(|_| self.jobs.is_parked(client))
    }

    /// A drain whose grace has no end has no alarm.
    fn why_drain(&self) -> Option<DrainLeft> {
        let left_ms = self.drain.until_ns.map(|at_ns| self.left_ms(at_ns));
        (!self.drain.is_open).then_some(DrainLeft { left_ms })
    }

    /// Budgets count since the submit or the last retry of the job; deaths and lost attempts count over its whole life.
    fn past(&self, run: TaskRun) -> Past {
        let (job, policy) = (self.jobs.job(run), self.jobs.batch(run).policy());
        Past {
            deaths: job.deaths().to_vec(),
            crashes: job.crashes(),
            crashes_max: policy.crash_budget(),
            failures: job.retries(),
            retries_max: policy.retry_budget(),
            last_failure: if job.retries() > 0 { self.last_failure(job.id()) } else { None },
            lost: job.lost(),
            asked: job.asked(),
        }
    }

    /// The last failure after which this job was tried again, while its record is kept. Messages are long and many jobs may
    /// fail, so jobs do not keep them: a request for `why` searches the bounded ring of records.
    fn last_failure(&self, wanted: JobId) -> Option<LastFailure> {
        self.turn.records().newest().find_map(|record| {
            let What::Backoff { job, attempt, message, .. } = &record.what else { return None };
            (*job == wanted).then(|| LastFailure { attempt: *attempt, message: message.clone() })
        })
    }

    fn since_ms(&self, at_ns: u64) -> u64 {
        self.turn.now_ns().saturating_sub(at_ns) / 1_000_000
    }

    /// The milliseconds until then, rounded up: the answer is 0 only when the time is over.
    fn left_ms(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.turn.now_ns()).div_ceil(1_000_000)
    }
}
