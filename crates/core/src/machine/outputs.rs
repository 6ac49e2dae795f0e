//! Room in memory for outputs and logs: how much a task is told, who waits, and what goes when there is too much.
//!
//! All outputs and logs of an account count (`job/held_outputs.rs`), those that a task may still write by the room that it
//! was told. So no user ever takes more than a share of `outputs_bytes_max`, whatever its tasks write.
//!
//! | a task that needs an output or a log finds | and |
//! |---|---|
//! | room for its largest output | is told that; if no other task of its user writes one, the oldest kept outputs and logs go where they stand in the way |
//! | less, because of what its user's clients have not read, and a [`LEAST_OF_SHARE`] | is told what there is: a longer output fails |
//! | less, because of what others hold, and a [`LEAST_OF_ALL`] | the same |
//! | less, because of tasks of its user that run, or less than that | waits (`why` says so) |
//! | as many files open as its user may have, without those that can be dropped | the same |
//!
//! Of what is over a bound of kept outputs, the oldest of the account that has most goes. Driven by `dispatch.rs`, which
//! asks for each candidate, and by the end of each turn. For tasks that ask while they run: [`room_on_demand`].

use bulkhead_proto::client::outcome::{OutputBound, OutputGone};
use bulkhead_proto::client::why::{OutputFilesWait, OutputWait};
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::limits::{INLINE_MAX_BYTES, OUTPUTS_KEY, RESERVE_MAX_BYTES};

use crate::account::{AccountHolder, Ledger};
use crate::event::{Leftover, Report, TaskResult};
use crate::job::{Candidate, OutputGrant, OutputNeed, OutputSums, TaskRun};
use crate::machine::Core;
use crate::turn::{AccountId, Counter, Resource, Turn};

/// With less than this part of the bound left of a user's share, no output of that user is begun that may need more...
const LEAST_OF_SHARE: u64 = 16;
/// ...and with less than this part left of what all have. A user who holds little always comes to more (`account/`).
const LEAST_OF_ALL: u64 = 256;
/// With less than this part left of a user's share, no task of that user is begun that may ask for an output.
const LEAST_BEFORE: u64 = 4;

/// What an account has of the memory for outputs, in bytes, once what can be dropped for it is dropped.
#[derive(Clone, Copy, Debug)]
struct OutputsLeft {
    /// With the room of tasks that run.
    now: u64,
    /// Of its share, without the room of its own tasks that run.
    of_share: u64,
    /// The same of the bound of all.
    of_all: u64,
}

/// Whether there is room for the next task of a candidate, and for the facts that it makes.
pub(super) fn has_room(ledger: &Ledger, turn: &Turn, candidate: &Candidate<'_>) -> bool {
    // Most tasks have neither, and each that goes to a worker is asked several times.
    if !turn.facts().has_room_for_offer() && candidate.is_durable() {
        return false;
    }
    let has_now = !candidate.needs_descriptor() || has_room_for_output(ledger, turn, candidate);
    let may_ask =
        |account| is_little_held(ledger) || leaves_room(ledger, account, candidate.output_sums(account));
    has_now && candidate.asks_of().is_none_or(may_ask)
}

/// Whether all together hold so little that [`leaves_room`] is true of every account: that is usual, and quickly found.
fn is_little_held(ledger: &Ledger) -> bool {
    let is_below = |resource, part| ledger.held_by_all(resource) < ledger.bound(resource) / part;
    is_below(Resource::OutputBytes, LEAST_OF_ALL / 4) && is_below(Resource::OpenOutputs, LEAST_BEFORE)
}

/// Whether so much is left of a user's share that tasks may be begun which may ask for an output. Else they wait: a task that
/// asks holds a worker, and is refused where there is nothing. Room that running tasks of the user may not use counts as left.
fn leaves_room(ledger: &Ledger, account: AccountId, (own, all): (OutputSums, OutputSums)) -> bool {
    let left = left(ledger, account, (own, all), (own.evictable(), all.evictable()));
    let (share, bound) = (ledger.share(account, Resource::OutputBytes), ledger.bound(Resource::OutputBytes));
    let has_bytes = left.of_share >= share / LEAST_BEFORE
        && left.of_all >= bound / LEAST_OF_ALL
        && left.now >= share / LEAST_OF_ALL;
    has_bytes && leaves_files(ledger, account, (own, all))
}

fn leaves_files(ledger: &Ledger, account: AccountId, sums: (OutputSums, OutputSums)) -> bool {
    let least = ledger.share(account, Resource::OpenOutputs) / LEAST_OF_SHARE;
    files_left(ledger, account, sums) >= least.max(1)
}

fn has_room_for_output(ledger: &Ledger, turn: &Turn, candidate: &Candidate<'_>) -> bool {
    let need = candidate.output_need(turn);
    grant(ledger, &need, candidate.output_sums(need.account)).is_some()
}

/// The room that a task gets, or `None`: it waits.
fn grant(ledger: &Ledger, need: &OutputNeed, (own, all): (OutputSums, OutputSums)) -> Option<OutputGrant> {
    if need.is_nothing() {
        return Some(need.grant(0, 0));
    }
    if !has_files(ledger, need, (own, all)) {
        return None;
    }
    // Most outputs are far shorter than their room: what is kept goes for a user's first one alone.
    let back = if own.granted == 0 { (own.evictable(), all.evictable()) } else { (own.leaving, all.leaving) };
    let left = left(ledger, need.account, (own, all), back);
    let (wanted, taken) = (need.own_max + need.shared_max, need.fixed + need.promised);
    let (of_share, of_all) = (left.of_share.checked_sub(taken)?, left.of_all.checked_sub(taken)?);
    let bound = ledger.bound(Resource::OutputBytes);
    let is_enough =
        of_share >= wanted.min(bound / LEAST_OF_SHARE) && of_all >= wanted.min(bound / LEAST_OF_ALL);
    let room = wanted.min(of_share).min(of_all);
    if !is_enough || room + need.fixed > left.now {
        return None;
    }
    // A plan is short beside what its job writes.
    let own_bytes = if need.shared_max == 0 { room } else { need.own_max.min(room / 4) };
    Some(need.grant(own_bytes, need.shared_max.min(room - own_bytes)))
}

/// Whether the files of a task may be made, once those are dropped that can be. It needs no more than it says, so what is
/// kept goes for each.
fn has_files(ledger: &Ledger, need: &OutputNeed, sums: (OutputSums, OutputSums)) -> bool {
    files_left(ledger, need.account, sums) >= need.files()
}

/// How many more files an account may have open, once those are dropped that can be.
fn files_left(ledger: &Ledger, account: AccountId, (own, all): (OutputSums, OutputSums)) -> u64 {
    let resource = Resource::OpenOutputs;
    let held = ledger.held(account, resource).saturating_sub(own.evictable_files());
    let of_share = ledger.share(account, resource).saturating_sub(held);
    of_share.min(ledger.left_of_all(account, resource, all.evictable_files()))
}

/// The room for the output of a task that asks while it runs, in bytes: at most `largest`, and one of `parts` equal parts of
/// what is left. With one part for each slot of the daemon, as many tasks as there are workers get one. What is kept goes where
/// it stands in the way.
///
/// # Errors
/// There is none; the text names the bound.
pub(super) fn room_on_demand(
    ledger: &Ledger,
    (account, largest): (AccountId, u64),
    sums: (OutputSums, OutputSums),
    parts: u64,
) -> Result<u64, String> {
    const ADVICE: &str =
        "read or forget results, or ask for the output with the job (--large), which waits for room";
    let (own, all) = sums;
    let of = |resource| {
        let (held, by_all) = (ledger.held(account, resource), ledger.held_by_all(resource));
        (held, ledger.share(account, resource), by_all, ledger.bound(resource))
    };
    if files_left(ledger, account, sums) == 0 {
        let (held, share, by_all, bound) = of(Resource::OpenOutputs);
        return Err(format!(
            "no file is left for it: the outputs and logs of its user take {held} of {share}, those of all users {by_all} of \
             {bound} (RLIMIT_NOFILE of the daemon): {ADVICE}"
        ));
    }
    let left = left(ledger, account, sums, (own.evictable(), all.evictable()));
    let part = left.of_share.min(left.of_all) / parts.max(1);
    let room = largest.min(part).min(left.now);
    if room > INLINE_MAX_BYTES as u64 {
        return Ok(room);
    }
    let (held, share, by_all, bound) = of(Resource::OutputBytes);
    Err(format!(
        "no room in memory is left for it: the outputs and logs of its user take {held} of {share} bytes, {} of them for tasks \
         that run, those of all users {by_all} of {bound} ({OUTPUTS_KEY} in the daemon's configuration): {ADVICE}",
        own.granted
    ))
}

/// The room for a reserve, in bytes: at most `largest`. `None`: the user's tasks would have more than a part of its share in the end,
/// or something that is kept would have to go. The task asks then.
pub(super) fn room_to_reserve(
    ledger: &Ledger,
    (account, largest): (AccountId, u64),
    (own, all): (OutputSums, OutputSums),
) -> Option<u64> {
    let bytes = largest.min(RESERVE_MAX_BYTES);
    let share = ledger.share(account, Resource::OutputBytes);
    let left = left(ledger, account, (own, all), (own.leaving, all.leaving));
    let has_bytes = bytes > INLINE_MAX_BYTES as u64
        && own.granted + bytes <= share / LEAST_BEFORE
        && left.now >= bytes + share / LEAST_OF_SHARE;
    // Of files, as of bytes, nothing that is kept goes for it.
    let leaving =
        |sums: OutputSums| OutputSums { leaving_files: sums.leaving_files, ..OutputSums::default() };
    (has_bytes && leaves_files(ledger, account, (leaving(own), leaving(all)))).then_some(bytes)
}

/// What was just dropped, of each of the two that outputs count as.
fn leaving(sums: OutputSums) -> [(Resource, u64); 2] {
    [(Resource::OutputBytes, sums.leaving), (Resource::OpenOutputs, sums.leaving_files)]
}

/// What is left; `back_now` is dropped for it, of the account and of all.
fn left(
    ledger: &Ledger,
    account: AccountId,
    (own, all): (OutputSums, OutputSums),
    back_now: (u64, u64),
) -> OutputsLeft {
    let resource = Resource::OutputBytes;
    let (held, share) = (ledger.held(account, resource), ledger.share(account, resource));
    let of_share = |back: u64| share.saturating_sub(held.saturating_sub(back));
    let of_all = |back: u64| ledger.left_of_all(account, resource, back);
    let (back, back_of_all) = (own.evictable(), all.evictable());
    OutputsLeft {
        now: of_share(back_now.0).min(of_all(back_now.1)),
        of_share: of_share(back + own.granted),
        of_all: of_all(back_of_all + own.granted),
    }
}

impl Core {
    /// The room for the next task of a run that needs descriptors; `None`: it waits.
    pub(super) fn grant_for(&mut self, run: TaskRun) -> Option<OutputGrant> {
        let need = self.jobs.output_need(&self.turn, run);
        self.post_charges();
        grant(&self.ledger, &need, self.jobs.output_sums(need.account))
    }

    /// Whether results of an account may go into arenas: it has room. There are no arenas
    /// (`arena_bytes_max` is 0) where clients and workers are different users. What the tasks that run then bring may pass the bound, by no more than their workers' arenas have room.
    pub(super) fn takes_arenas(&self, account: AccountId) -> bool {
        let resource = Resource::ArenaBytes;
        self.ledger.held(account, resource) < self.ledger.share(account, resource)
            && self.ledger.left_of_all(account, resource, 0) > 0
    }

    /// What a waiting job's output waits for, if it does.
    pub(super) fn output_wait(&mut self, run: TaskRun) -> Option<OutputWait> {
        let account = self.jobs.batch(run).account();
        let has_ended = self.jobs.job(run).end().is_some();
        if has_ended || self.grant_for(run).is_some() && self.leaves_room_for(run) {
            return None;
        }
        let (own, all) = self.jobs.output_sums(account);
        let need = self.jobs.output_need(&self.turn, run);
        let has_files = has_files(&self.ledger, &need, (own, all))
            && (!self.jobs.may_ask(run) || leaves_files(&self.ledger, account, (own, all)));
        let files = (!has_files).then(|| OutputFilesWait {
            held: self.ledger.held(account, Resource::OpenOutputs),
            held_by_all: self.ledger.held_by_all(Resource::OpenOutputs),
            share: self.ledger.share(account, Resource::OpenOutputs),
            bound: self.ledger.bound(Resource::OpenOutputs),
        });
        Some(OutputWait {
            held: self.ledger.held(account, Resource::OutputBytes),
            running: own.granted,
            held_by_all: self.ledger.held_by_all(Resource::OutputBytes),
            share: self.ledger.share(account, Resource::OutputBytes),
            bound: self.ledger.bound(Resource::OutputBytes),
            files,
        })
    }

    /// Whether the next task of a run may ask for an output later, if it is one that asks.
    fn leaves_room_for(&self, run: TaskRun) -> bool {
        let account = self.jobs.batch(run).account();
        !self.jobs.may_ask(run) || leaves_room(&self.ledger, account, self.jobs.output_sums(account))
    }

    /// A report has brought an output: it counts with its size now, and the room of a shared one is given back.
    pub(super) fn take_output(&mut self, id: WorkerId, seq: Seq, report: &Report) {
        let (output, bytes) = match &report.result {
            TaskResult::Held { output, bytes }
            | TaskResult::Planned { output, bytes, .. }
            | TaskResult::Failed { output: Leftover::Held { output, bytes }, .. } => (*output, *bytes),
            TaskResult::InArena { output, bytes } => {
                if let Some(offer) = self.workers.offer(id, seq) {
                    self.jobs.hold_block(offer.ticket(), *output, *bytes);
                }
                return;
            }
            TaskResult::Inline(_) | TaskResult::Failed { .. } => return,
        };
        let Some(ticket) = self.workers.offer(id, seq).map(|offer| offer.ticket()) else { return };
        self.jobs.hold_output(ticket, output, bytes.max(report.output_bytes));
        if matches!(report.result, TaskResult::Held { .. }) {
            self.jobs.take_scratch(ticket);
        }
    }

    /// Drops kept outputs, and logs, while there is too much.
    pub(super) fn evict_outputs(&mut self) {
        self.post_charges();
        for account in self.jobs.grown_accounts() {
            while let Some(met) = self.over_share(account)
                && self.evict_file(account, met)
            {}
        }
        while let Some(met) = self.over_all()
            && let Some(account) = self.jobs.largest_evictable()
            && self.evict_file(account, met)
        {}
        for (resource, bound) in
            [(Resource::KeptBytes, OutputBound::KeptBytes), (Resource::KeptOutputs, OutputBound::KeptOutputs)]
        {
            while let Some(account) = self.ledger.largest_of_too_much(resource)
                && self.evict_output(account, resource, bound)
            {}
        }
    }

    /// Of what an account has more than its share, without what it has just dropped.
    fn over_share(&self, account: AccountId) -> Option<Resource> {
        let (own, _) = self.jobs.output_sums(account);
        // It may have given everything back in this turn; then it is closed.
        let is_open = own != OutputSums::default();
        let is_over = |(resource, leaving): &(Resource, u64)| {
            is_open && self.ledger.held(account, *resource) - leaving > self.ledger.share(account, *resource)
        };
        leaving(own).into_iter().find(is_over).map(|(resource, _)| resource)
    }

    /// Of what all together have more than users who hold little may have on top.
    fn over_all(&self) -> Option<Resource> {
        let (_, all) = self.jobs.output_sums(AccountId::SERVICE);
        let is_over = |(resource, leaving): &(Resource, u64)| {
            let bound = self.ledger.bound(*resource);
            self.ledger.held_by_all(*resource) - leaving > bound.saturating_add(bound / 8)
        };
        leaving(all).into_iter().find(is_over).map(|(resource, _)| resource)
    }

    fn evict_file(&mut self, account: AccountId, met: Resource) -> bool {
        let limit = self.ledger.share(account, met);
        let bound =
            if met == Resource::OpenOutputs { OutputBound::OpenOutputs } else { OutputBound::AllBytes };
        let gone = |bytes| OutputGone { bytes, bound, limit };
        let found = self.jobs.evict_oldest_file(&mut self.turn, account, gone);
        self.note_evicted(account, met, found)
    }

    fn evict_output(&mut self, account: AccountId, resource: Resource, bound: OutputBound) -> bool {
        let limit = self.ledger.bound(resource);
        let gone = |bytes| OutputGone { bytes, bound, limit };
        let found = self.jobs.evict_oldest_output(&mut self.turn, account, gone);
        self.note_evicted(account, resource, found)
    }

    fn note_evicted(&mut self, account: AccountId, met: Resource, found: bool) -> bool {
        if let AccountHolder::User(uid) = self.ledger.holder(account)
            && found
        {
            self.turn.count(Counter::Evicted, 1);
            self.jobs.note_evicted(uid, met.name(), 1);
        }
        self.post_charges();
        found
    }
}
