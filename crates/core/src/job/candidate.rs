//! Taking a run: the machine judges each run whose turn it is by its kind, descriptors and limits, and takes one.
//!
//! Driven by `machine/dispatch.rs`. A run that was taken is in no list; [`Jobs::start`] must follow in the same
//! call.

use bulkhead_proto::client::why::QueuedBefore;
use bulkhead_proto::ids::{ClientId, PoolId};
use bulkhead_proto::limits::WHY_COUNT_MAX;

use crate::job::attachments::AttachmentTable;
use crate::job::backlog::Ageing;
use crate::job::held_outputs::HeldOutputs;
use crate::job::level::TakeChoice;
use crate::job::list::Key;
use crate::job::output_need::output_need;
use crate::job::part_set::PartSets;
use crate::job::parts::plan_waits;
use crate::job::run::TaskRun;
use crate::job::state::{Phase, TaskKind};
use crate::job::table::JobTable;
use crate::job::task_entry::TaskEntry;
use crate::job::turns::Search;
use crate::job::{Jobs, NamedRegistrations, OutputNeed, OutputSums};
use crate::turn::{AccountId, Flavour, Turn, ms};

/// A waiting run, as the machine judges it.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    table: &'a JobTable,
    part_sets: &'a PartSets,
    attachments: &'a AttachmentTable,
    outputs: &'a HeldOutputs,
    key: Key,
    entry: TaskEntry<'a>,
}

impl Candidate<'_> {
    /// The number of its job or part.
    #[cfg(test)]
    pub(super) fn number(&self) -> bulkhead_proto::ids::JobId {
        self.entry.job.id
    }

    /// The kind of the run, and its flavour.
    pub(crate) fn flavour(&self) -> Flavour {
        self.entry.batch.flavour()
    }

    /// The user who submitted it.
    pub(crate) fn uid(&self) -> u32 {
        self.entry.batch.uid
    }

    /// Whether it has expired, and ends once the line comes to it (`due_ends.rs`).
    pub(crate) fn has_expired(&self, turn: &Turn) -> bool {
        self.entry.has_expired(turn)
    }

    /// Whether its next task needs a descriptor of the daemon's own: an output, a log, a plan, results.
    pub(crate) fn needs_descriptor(&self) -> bool {
        self.entry.needs_descriptor()
    }

    /// Whether a descriptor goes to the worker with its next task: the daemon's own, or its client's.
    pub(crate) fn needs_any_descriptor(&self) -> bool {
        self.needs_descriptor() || self.entry.job.has_files() || self.entry.job.has_registered()
    }

    /// Whether what becomes of it is stored as facts.
    pub(crate) fn is_durable(&self) -> bool {
        self.entry.batch.durable
    }

    /// What its job uses that its connection registered.
    pub(crate) fn named(&self) -> Option<&NamedRegistrations> {
        let has_some = self.entry.job.has_registered();
        let id = self.entry.job.attachments().filter(|_| has_some)?;
        self.attachments.named_of(id)
    }

    /// Whether its next task may ask for an output while it runs, and whose memory that takes.
    pub(crate) fn asks_of(&self) -> Option<AccountId> {
        self.entry.may_ask().then_some(self.entry.batch.account)
    }

    /// What its next task needs in memory for an output or a log.
    pub(crate) fn output_need(&self, turn: &Turn) -> OutputNeed {
        output_need((self.table, self.part_sets, self.attachments), turn, self.key)
    }

    /// What of the outputs and logs of an account, and of all, can be had back.
    pub(crate) fn output_sums(&self, account: AccountId) -> (OutputSums, OutputSums) {
        self.outputs.sums(account)
    }

    /// Whether nothing may share a ring with it: a watched task is measured by its worker's figures, and files behind
    /// another task would be held by a worker that does not use them.
    pub(crate) fn is_for_itself(&self) -> bool {
        self.entry.is_for_itself()
    }

    /// Whether its plan has to wait in a pool of so many slots, because its client has enough jobs in parts.
    pub(crate) fn plan_waits(&self, slots: usize) -> bool {
        self.entry.job.task_kind == TaskKind::Plan && plan_waits(self.part_sets, slots, self.entry.batch)
    }
}

/// The clock by which jobs that wait are compared.
pub(super) fn ageing(turn: &Turn) -> Ageing {
    Ageing { now_ns: turn.now_ns(), step_ns: ms(turn.config().ageing_ms) }
}

impl Jobs {
    /// Takes the first run of a pool, in the order of its queue, for which `judge` answers `Take`, with at most `at_most`
    /// tasks. Looks at a bounded number of runs; the next search of the same purpose goes on behind them.
    ///
    /// # Panics
    /// If `at_most` is 0.
    pub(crate) fn take(
        &mut self,
        turn: &Turn,
        (pool, search): (PoolId, Search),
        at_most: u32,
        mut judge: impl FnMut(&Candidate<'_>) -> TakeChoice,
    ) -> Option<TaskRun> {
        assert!(at_most > 0, "a run has a task");
        let (part_sets, attachments, outputs) = (&self.part_sets, &self.attachments, &self.outputs);
        let mut judge = |table: &JobTable, key| {
            let entry = table.entry(key);
            judge(&Candidate { table, part_sets, attachments, outputs, key, entry })
        };
        let key = self.queues.take(pool, &mut self.table, (ageing(turn), search), &mut judge)?;
        if search == Search::Idle {
            self.queues.queue_had_turn(pool);
        }
        Some(self.taken(key, Phase::Queued))
    }

    /// Whether the first run of this user that waits to run alone goes before those in the queue of the pool; the user holds
    /// so many workers of it.
    pub(crate) fn alone_goes_first(&self, pool: PoolId, uid: u32, held: u32) -> bool {
        self.queues.solo_goes_first(pool, uid, held)
    }

    /// The run at a place that has just left its list. Panics if its state names another list, or it is still in one.
    pub(super) fn taken(&self, key: Key, phase: Phase) -> TaskRun {
        let job = &self.table[key];
        assert!(
            job.state.phase() == phase && job.links.are_loose(),
            "job {} was taken out of its list",
            job.id
        );
        self.table.run(key)
    }

    /// Takes the first run of a user in a pool for which `judge` answers `Take`, one task of it. No user loses a turn.
    pub(crate) fn take_of(
        &mut self,
        turn: &Turn,
        (pool, uid): (PoolId, u32),
        mut judge: impl FnMut(&Candidate<'_>) -> TakeChoice,
    ) -> Option<TaskRun> {
        let (part_sets, attachments, outputs) = (&self.part_sets, &self.attachments, &self.outputs);
        let mut judge = |table: &JobTable, key| {
            let entry = table.entry(key);
            judge(&Candidate { table, part_sets, attachments, outputs, key, entry })
        };
        let key = self.queues.take_of((pool, uid), &mut self.table, ageing(turn), &mut judge)?;
        Some(self.taken(key, Phase::Queued))
    }

    /// The users who have tasks in a pool that wait for a worker and do not rest, some of them perhaps twice.
    pub(crate) fn waiting_users(&self, pool: PoolId) -> impl Iterator<Item = u32> + '_ {
        self.queues.users_with_jobs(pool).chain(self.queues.solo(pool).users())
    }

    /// Whether no run of a pool waits to run alone.
    pub(crate) fn has_none_alone(&self, pool: PoolId) -> bool {
        self.queues.solo(pool).is_empty()
    }

    /// The first run of a pool that waits to run alone, of users for whom `held` has a number and whose first one `fits`
    /// lets pass: who holds the fewest workers goes first, among equals by turns.
    pub(crate) fn first_alone(
        &self,
        pool: PoolId,
        held: impl Fn(u32) -> Option<u32>,
        fits: impl Fn(&Candidate<'_>) -> bool,
    ) -> Option<Candidate<'_>> {
        let users = self.queues.solo(pool).users().filter_map(|uid| Some((held(uid)?, uid)));
        let users =
            users.filter(|(_, uid)| self.first_alone_of(pool, *uid).is_some_and(|first| fits(&first)));
        let (_, uid) = users.min_by_key(|(count, _)| *count)?;
        self.first_alone_of(pool, uid)
    }

    /// The first run of a user in a pool that waits to run alone.
    pub(crate) fn first_alone_of(&self, pool: PoolId, uid: u32) -> Option<Candidate<'_>> {
        let key = self.queues.solo(pool).head_of(uid)?;
        let (table, part_sets, entry) = (&self.table, &self.part_sets, self.table.entry(key));
        Some(Candidate {
            table,
            part_sets,
            attachments: &self.attachments,
            outputs: &self.outputs,
            key,
            entry,
        })
    }

    /// Takes the first run of a user in a pool that waits to run alone. The user's next turn is the last one.
    pub(crate) fn take_alone(&mut self, pool: PoolId, uid: u32) -> Option<TaskRun> {
        let key = self.queues.solo(pool).head_of(uid)?;
        self.queues.unlink_solo(&mut self.table, key);
        self.queues.solo_turn_over(pool, uid);
        Some(self.taken(key, Phase::Solo))
    }

    /// Parks a client, whose turns are skipped then, or unparks it. A second call changes nothing.
    pub(crate) fn park(&mut self, uid: u32, client: ClientId, parked: bool) {
        self.queues.park(&self.table, (uid, client), parked);
    }

    /// A user holds so many workers of a pool from now on: of users, the one who holds the fewest goes first.
    /// `None`: as many as this user may, who is given no task then.
    pub(crate) fn note_held(&mut self, pool: PoolId, uid: u32, held: Option<u32>) {
        self.queues.note_held(pool, uid, held);
    }

    /// Users who hold so many workers of a pool are given no idle one from now on; `None`: however many they hold.
    pub(crate) fn note_held_max(&mut self, pool: PoolId, most: Option<u32>) {
        self.queues.note_held_max(pool, most);
    }

    /// Whether the last search of a pool for an idle worker found nothing and has not looked at everything.
    pub(crate) fn is_search_open(&self, pool: PoolId) -> bool {
        self.queues.is_search_open(pool)
    }

    /// Whether a client is parked.
    pub(crate) fn is_parked(&self, client: ClientId) -> bool {
        self.queues.is_parked(client)
    }

    /// The parked clients.
    pub(crate) fn parked_clients(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.queues.parked_clients()
    }

    /// Counts what goes before a queued job, and the users and clients that take turns with its own. Jobs that
    /// run alone go before all; they are counted up to `WHY_COUNT_MAX`.
    pub(crate) fn before(&self, turn: &Turn, run: TaskRun) -> QueuedBefore {
        let key = self.table.open(run);
        let solo =
            self.queues.solo(self.table.batch(key).pool).walk(&self.table).take(WHY_COUNT_MAX as usize);
        let alone = solo.filter(|key| !self.table[*key].is_part()).count() as u64;
        QueuedBefore { alone, ..self.queues.before(&self.table, ageing(turn), key) }
    }

    /// Counts the jobs before one that waits to run alone, up to `WHY_COUNT_MAX`.
    pub(crate) fn before_alone(&self, run: TaskRun) -> u64 {
        let key = self.table.open(run);
        self.queues.solo(self.table.batch(key).pool).before(&self.table, key, WHY_COUNT_MAX)
    }

    /// Whether the next task of a run needs a descriptor of the daemon's own.
    pub(crate) fn needs_descriptor(&self, run: TaskRun) -> bool {
        self.table.entry(self.table.open(run)).needs_descriptor()
    }

    /// Whether a client has jobs in the queue of a pool.
    pub(crate) fn has_queued(&self, pool: PoolId, uid: u32, client: ClientId) -> bool {
        self.queues.has_jobs_of(pool, uid, client)
    }
}
