//! The knowledge of the oracles about one job: its submit, its life so far, and the evidence for how it may end.
//!
//! A life begins with the acceptance, and again with each retry that a client asked for. `ledger.rs` changes the data here,
//! `verdicts.rs` judges it.

use bulkhead_core::event::TaskResult;
use bulkhead_proto::client::outcome::{self, Outcome};
use bulkhead_proto::file::FileUse;
use bulkhead_proto::ids::{ClientId, Fence, OutputId, Seq, WorkerId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::worker::stage::Stage;

/// How a job ended, from the first reply that said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEnd {
    /// The outcome.
    pub outcome: Outcome,
    /// The output and its descriptor, once a client got it.
    pub output: Option<(outcome::JobOutput, Option<OutputId>)>,
}

/// One accepted job.
#[derive(Debug)]
pub struct KnownJob {
    /// The client that submitted it.
    pub client: ClientId,
    /// Its user.
    pub uid: u32,
    /// Its kind's place in the table.
    pub kind: u16,
    /// Its flavour.
    pub flavour: u32,
    /// Its policy.
    pub policy: Policy,
    /// Whether it is attached.
    pub attached: bool,
    /// Whether it is durable.
    pub durable: bool,
    /// A client asked to forget it, and is answered once that is stored.
    pub forget_asked: bool,
    /// Whether its result is held until its client has received it.
    pub held: bool,
    /// Whether its client has received the result.
    pub received: bool,
    /// Its input.
    pub input: Payload,
    /// When it was accepted, monotonic nanoseconds.
    pub accepted_ns: u64,
    /// Lives begun: 1, and one more for each accepted retry.
    pub life: u32,
    /// The end of the life before this one.
    pub before: Option<KnownEnd>,
    /// When it last ended or began anew, monotonic nanoseconds: a view of the same instant may be older.
    pub changed_ns: u64,
    /// The end of this life, once known.
    pub end: Option<KnownEnd>,
    /// When this life began, if it is not the first, monotonic nanoseconds.
    pub revived_ns: u64,
    /// An attempt of it has begun, in any life.
    pub begun: bool,
    /// When its result was reported in this life, monotonic nanoseconds.
    pub reported_ns: Option<u64>,
    /// When the end of this life was recorded, monotonic nanoseconds.
    pub ended_ns: Option<u64>,
    /// The record of its end was made in this life.
    pub end_recorded: bool,
    /// The offer that is not resolved.
    pub offer: Option<(WorkerId, Seq)>,
    /// The life in which that offer was made.
    pub offer_life: u32,
    /// Offers in this life.
    pub offers: u32,
    /// When it was last offered.
    pub offered_ns: u64,
    /// The fence of its last offer.
    pub fence: Fence,
    /// Results that workers reported.
    pub reports: Vec<TaskResult>,
    /// Failures that workers reported.
    pub refusals: Vec<TaskResult>,
    /// Failures in this life: at least, and at most, for some came from a worker that was already killed.
    pub failures: (u32, u32),
    /// A task of this life has left processes that cannot be ended.
    pub lives_on: bool,
    /// Deaths charged in this life.
    pub charges: u32,
    /// Deaths charged ever.
    pub charges_ever: u32,
    /// A client asked to cancel it, or may have.
    pub cancel: bool,
    /// They asked so only if it waits.
    pub waits_only: bool,
    /// When it was last seen that an attempt had begun, monotonic nanoseconds.
    pub last_begun_ns: u64,
    /// A client had it forgotten.
    pub forgotten: bool,
    /// Whether it is done in parts.
    pub plans: bool,
    /// The plan that was reported in this life, and how many parts it has.
    pub planned: Option<(OutputId, u32)>,
    /// Files that came with it.
    pub files: Vec<FileUse>,
    /// The last progress that its client got, and in which attempt.
    pub told: Option<(Fence, u64)>,
}

impl KnownJob {
    /// A job that was just accepted.
    pub fn new(
        client: ClientId,
        uid: u32,
        kind: u16,
        policy: Policy,
        input: Payload,
        accepted_ns: u64,
    ) -> Self {
        Self {
            client,
            uid,
            kind,
            flavour: 0,
            policy,
            attached: false,
            durable: false,
            forget_asked: false,
            held: false,
            received: false,
            input,
            accepted_ns,
            life: 1,
            before: None,
            changed_ns: accepted_ns,
            end: None,
            revived_ns: 0,
            begun: false,
            reported_ns: None,
            ended_ns: None,
            end_recorded: false,
            offer: None,
            offer_life: 0,
            offers: 0,
            offered_ns: 0,
            fence: Fence(0),
            reports: Vec::new(),
            refusals: Vec::new(),
            failures: (0, 0),
            lives_on: false,
            charges: 0,
            charges_ever: 0,
            cancel: false,
            waits_only: false,
            last_begun_ns: 0,
            forgotten: false,
            plans: false,
            planned: None,
            files: Vec::new(),
            told: None,
        }
    }

    /// It did not end before that, monotonic nanoseconds.
    pub fn not_over_ns(&self) -> u64 {
        // What a worker reports of a task whose job has ended says nothing of the job.
        let told_ns = self.ended_ns.or(self.reported_ns);
        self.since_ns().max(self.offered_ns).max(told_ns.unwrap_or(0))
    }

    /// When this life began, monotonic nanoseconds.
    pub fn since_ns(&self) -> u64 {
        self.accepted_ns.max(self.revived_ns)
    }

    /// Where the output of one of its tasks goes.
    pub fn output(&self, stage: Stage) -> OutputMode {
        match stage {
            Stage::Plan => OutputMode::Descriptor,
            Stage::Run { .. } => OutputMode::Inline,
            Stage::Merge { .. } if self.policy.output == OutputMode::Arena => OutputMode::Auto,
            Stage::Whole | Stage::Merge { .. } => self.policy.output,
        }
    }

    /// Whether one of its tasks may be told that its output goes there: without room in arenas it may only ask.
    pub fn may_go(&self, stage: Stage, told: OutputMode) -> bool {
        let wanted = self.output(stage);
        told == wanted || wanted == OutputMode::Arena && told == OutputMode::Auto
    }

    /// Whether there is evidence that its life is over, whoever knows of it. Jobs that never began leave no
    /// record of their end.
    pub fn may_be_over(&self, stopping: bool, left: bool) -> bool {
        let dropped = self.cancel || left || stopping || self.policy.expires_ms.is_some();
        self.end.is_some() || self.end_recorded || !self.reports.is_empty() || dropped
    }

    /// A new life with fresh budgets.
    pub fn revive(&mut self, now_ns: u64) {
        self.changed_ns = now_ns;
        self.revived_ns = now_ns;
        (self.reported_ns, self.ended_ns) = (None, None);
        self.life += 1;
        self.before = self.end.take();
        self.end_recorded = false;
        self.offers = 0;
        self.failures = (0, 0);
        self.lives_on = false;
        self.charges = 0;
        (self.cancel, self.waits_only) = (false, false);
        self.reports.clear();
        self.planned = None;
        self.refusals.clear();
    }
}
