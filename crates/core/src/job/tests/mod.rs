//! Every assertion of this room bites: each test here breaks one rule and is stopped by its name.
//!
//! The fixture is a turn and the jobs of one pool, driven by the room's own methods as the machine drives them. Where
//! no method can break a rule, a test writes the field that breaks it. `core/tests` tests the room from outside, driven
//! well.

mod attempts;
mod belongings;
mod ends;
mod lists;
mod parts;
mod turns;

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::message::Submit;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{ClientId, JobId, KindId, PoolId, Seq, Tag, WorkerId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::kind::Kind;

use super::*;
use crate::action::Output;
use crate::config::Config;
use crate::event::{Leftover, Now};
use crate::turn::{AccountId, Turn};

const POOL: PoolId = PoolId(0);
const ALICE: ClientId = ClientId(1);
const WORKER: WorkerId = WorkerId(5);
/// A kind whose jobs are one task each.
const PLAIN: KindId = KindId(0);
/// A kind whose jobs are planned, run in parts and merged.
const PARTED: KindId = KindId(1);
/// A kind that keeps logs.
const LOGGED: KindId = KindId(2);

struct JobRoom {
    turn: Turn,
    jobs: Jobs,
}

impl JobRoom {
    fn new() -> Self {
        let kind = |name: &str, plans, logs| Kind { name: name.to_owned(), plans, logs, ..Kind::default() };
        let kinds =
            vec![kind("plain", false, false), kind("parted", true, false), kind("logged", false, true)];
        let mut turn = Turn::new(Config { kinds, ..Config::default() }, Now::default());
        turn.begin(Now { mono_ns: 1_000_000_000, wall_us: 1 }, &mut Output::default());
        Self { turn, jobs: Jobs::new(1, JobId(1)) }
    }

    /// Takes in so many jobs, detached unless `change` attaches them.
    fn admit(&mut self, count: u32, change: impl FnOnce(&mut Admission)) -> TaskRun {
        let submit = Submit { inputs: vec![Payload::default(); count as usize], ..Submit::default() };
        let (client, tag, uid) = (ALICE, Tag(1), 1000);
        let account = AccountId::SERVICE;
        let mut admission = Admission {
            client,
            tag,
            uid,
            account,
            kind: PLAIN,
            pool: POOL,
            submit,
            files: Vec::new(),
            count,
            first: None,
            named: None,
        };
        change(&mut admission);
        let run = self.jobs.admit(&mut self.turn, admission);
        TaskRun { count: 1, ..run }
    }

    fn queued(&mut self) -> TaskRun {
        self.admit(1, |_| {})
    }

    fn attached(&mut self) -> TaskRun {
        self.admit(1, |admission| admission.submit.attached = true)
    }

    fn of_kind(&mut self, kind: KindId) -> TaskRun {
        self.admit(1, |admission| admission.kind = kind)
    }

    fn take(&mut self) -> TaskRun {
        self.jobs.take(&self.turn, (POOL, Search::Idle), 1, |_| TakeChoice::Take).unwrap()
    }

    fn start(&mut self, run: TaskRun) -> StartedAttempt {
        self.jobs.start(&mut self.turn, run, (WORKER, Seq(1)), None)
    }

    /// The first job of the queue, with a worker.
    fn next_running(&mut self) -> TaskRun {
        let run = self.take();
        self.start(run);
        run
    }

    fn running(&mut self) -> TaskRun {
        self.queued();
        self.next_running()
    }

    fn end_as(&mut self, run: TaskRun, outcome: Outcome) {
        self.jobs.end(&mut self.turn, run, outcome, Leftover::Nothing, EndedBy::Itself);
    }

    /// Ends a job as cancelled and announces it to so many clients.
    fn end_for(&mut self, run: TaskRun, clients: u32) {
        self.end_as(run, Outcome::Cancelled);
        self.jobs.announced(run, clients);
    }

    fn ended(&mut self) -> TaskRun {
        let run = self.queued();
        self.end_for(run, 0);
        run
    }

    fn charge(&mut self, run: TaskRun) -> Option<Outcome> {
        let (death, evidence) = (Death::Signalled { signal: 11, core: false }, Evidence::default());
        let dead = ProvenDeath { worker: WORKER, pid: 7, death: &death, evidence: &evidence };
        self.jobs.charge(&mut self.turn, run, &dead)
    }

    /// A job that is done in this many parts, of which the first few are queued.
    fn in_parts(&mut self, parts: u32) -> TaskRun {
        self.of_kind(PARTED);
        let run = self.next_running();
        self.jobs.planned(&mut self.turn, run, bulkhead_proto::ids::OutputId(9), parts, 1);
        run
    }

    /// Checks everything that holds between turns, with no offer at any worker.
    fn audit(&self) {
        self.jobs.audit(&self.turn, std::iter::empty(), &[]);
    }
}

fn failed() -> Outcome {
    Outcome::Failed { message: "no".to_owned(), code: None }
}

#[test]
fn a_room_that_is_driven_well_passes_its_audit() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.audit();
    let taken = room.take();
    assert_eq!(taken, run);
    room.start(run);
    room.audit();
    assert!(room.jobs.requeue(&mut room.turn, run, true));
    let run = room.next_running();
    assert_eq!(room.charge(run), None);
    let alone = room.jobs.take_alone(POOL, 1000).unwrap();
    room.start(alone);
    room.end_as(alone, failed());
    assert_eq!(room.jobs.announced(alone, 0), None);
    room.audit();
    assert_eq!(room.jobs.retry(&mut room.turn, alone), Released::default());
    room.audit();
    assert_eq!((room.jobs.retrying(), room.jobs.queued()), (1, 0), "it runs alone whatever happens");
}

#[test]
#[should_panic(expected = "files are taken in with one job")]
fn files_come_with_one_job() {
    let file = crate::event::Attached { file: bulkhead_proto::ids::FileId(1), pinned_bytes: 0 };
    JobRoom::new().admit(2, |admission| admission.files = vec![file]);
}

#[test]
#[should_panic(expected = "jobs are taken in with their inputs")]
fn jobs_come_with_their_inputs() {
    JobRoom::new().admit(1, |admission| admission.count = 2);
}

#[test]
#[should_panic(expected = "jobs are taken in with their inputs")]
fn a_submit_of_no_job_is_not_taken_in() {
    JobRoom::new().admit(0, |_| {});
}

#[test]
#[should_panic(expected = "job 1 is not where it was")]
fn a_run_does_not_outlive_its_job() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.forget(&mut room.turn, run);
    room.queued();
    room.jobs.job(run);
}

/// A submit, its cancel and its retry in one turn set two equal alarms, one after the other.
#[test]
fn a_job_asked_again_in_the_turn_of_its_submit_expires() {
    let mut room = JobRoom::new();
    let run = room.admit(1, |admission| admission.submit.policy.expires_ms = Some(50));
    room.end_for(run, 0);
    room.jobs.retry(&mut room.turn, run);
    let expires_ns = room.jobs.batch(run_of(&room, 1)).expires_ns();
    assert_eq!(expires_ns, Some(1_050_000_000));
    assert_eq!(room.turn.next_alarm_ns(), expires_ns);
}

fn run_of(room: &JobRoom, number: u64) -> TaskRun {
    room.jobs.find(JobId(number)).unwrap()
}
