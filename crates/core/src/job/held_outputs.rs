//! Outputs and logs in memory, and whose they are: counted from the offer that they are made for to their last close.
//!
//! | what the shell makes | counts as | from | until |
//! |---|---|---|---|
//! | the output of a task, its plan too | the room that the task was told | its offer | the offer is settled, or its worker's death is proven |
//! | the output that the tasks of a job share | its room | the first offer with it | it is the result, or the job has ended and no offer holds it |
//! | the packed results of the parts of a job | the most that there may be | the plan's offer | the job has ended and no offer holds them |
//! | a result in an arena | its whole units, as [`Resource::ArenaBytes`], and no file | the report | `Event::OutputFreed` |
//! | an output that its worker has sealed | its size or its memory, whichever is more | the report | `Event::OutputFreed` |
//! | the log of an attempt | [`LOG_BYTES`] | its offer | `Event::LogFreed` |
//!
//! `Event::OutputFreed` says that the shell has dropped an output and no client has it unread. Each is a descriptor of the shell too
//! until then, or until `Event::OutputClosed`; a job in parts counts as [`FILES_OF_PARTS`] from its plan to its end. The ledger
//! has the sums (`Resource::OutputBytes`, `Resource::OpenOutputs`); here is what of them can be had back. The output of a kept job
//! is dropped when room is needed, the oldest first, and its job stays. `machine/outputs.rs` decides that.

use std::collections::BTreeMap;

use bulkhead_proto::client::outcome::OutputGone;
use bulkhead_proto::ids::{LogId, OutputId};
use bulkhead_proto::limits::ARENA_UNIT_BYTES;
use bulkhead_proto::log::LOG_BYTES;

use crate::action::Action;
use crate::event::Leftover;
use crate::job::OutputSums;
use crate::job::list::Key;
use crate::job::run::Ticket;
use crate::job::{Jobs, OutputGrant};
use crate::turn::{AccountId, Charges, Resource, Turn, count_down};

/// The least that an output counts, in bytes: an empty one takes memory in the kernel too.
const LEAST_BYTES: u64 = 4096;
/// The files of a job that is done in parts: its plan, the shared output and the packed results.
pub(super) const FILES_OF_PARTS: u64 = 3;

/// A file that counts, and whose it is.
#[derive(Clone, Copy, Debug)]
struct CountedFile {
    account: AccountId,
    bytes: u64,
    /// In which turn the shell was told to drop it.
    dropped: Option<u64>,
    /// Its descriptor is closed, while a client has not read it.
    is_closed: bool,
    /// It is a block of an arena: it has no descriptor, and its bytes are no [`Resource::OutputBytes`].
    in_arena: bool,
}

impl CountedFile {
    /// What its drop gives back of the memory for outputs and of their files.
    fn back(self) -> (u64, u64) {
        if self.in_arena { (0, 0) } else { (self.bytes, 1) }
    }
}

/// All outputs and logs.
#[derive(Debug, Default)]
pub(crate) struct HeldOutputs {
    outputs: BTreeMap<OutputId, CountedFile>,
    logs: BTreeMap<LogId, CountedFile>,
    /// Outputs of kept jobs, by account, the oldest first.
    kept: BTreeMap<AccountId, BTreeMap<OutputId, Key>>,
    of: BTreeMap<AccountId, OutputSums>,
    all: OutputSums,
    /// Counts the turns, for what is leaving.
    turn: u64,
    /// Accounts that may hold more than before since [`Jobs::grown_accounts`] was asked.
    grown: Vec<AccountId>,
}

impl HeldOutputs {
    fn sum(&mut self, account: AccountId, change: impl Fn(&mut OutputSums)) {
        change(&mut self.all);
        let own = self.of.entry(account).or_default();
        change(own);
        if *own == OutputSums::default() {
            self.of.remove(&account);
        }
    }

    fn grow(&mut self, charges: &mut Charges, account: AccountId, bytes: u64) {
        charges.charge(account, Resource::OutputBytes, bytes);
        self.sum(account, |sums| sums.held += bytes);
        if self.grown.last() != Some(&account) {
            self.grown.push(account);
        }
    }

    /// The shell will make so many files for a task or a job, or has one that it made.
    pub(super) fn open(&mut self, charges: &mut Charges, account: AccountId, files: u64) {
        if files > 0 {
            charges.charge(account, Resource::OpenOutputs, files);
            self.sum(account, |sums| sums.files += files);
        }
    }

    /// The shell has closed them.
    ///
    /// # Panics
    /// If so many were not open.
    pub(super) fn close(&mut self, charges: &mut Charges, account: AccountId, files: u64) {
        if files > 0 {
            charges.release(account, Resource::OpenOutputs, files);
            self.sum(account, |sums| count_down(&mut sums.files, files, "open outputs"));
        }
    }

    /// Room is promised to a task or a job.
    pub(super) fn grant(&mut self, charges: &mut Charges, account: AccountId, bytes: u64) {
        if bytes > 0 {
            self.grow(charges, account, bytes);
            self.sum(account, |sums| sums.granted += bytes);
        }
    }

    /// The room is not needed any more.
    ///
    /// # Panics
    /// If so much was not promised.
    pub(super) fn ungrant(&mut self, charges: &mut Charges, account: AccountId, bytes: u64) {
        if bytes > 0 {
            charges.release(account, Resource::OutputBytes, bytes);
            self.sum(account, |sums| {
                count_down(&mut sums.granted, bytes, "room for outputs");
                count_down(&mut sums.held, bytes, "memory for outputs");
            });
        }
    }

    /// A log is made for an attempt.
    pub(super) fn add_log(&mut self, charges: &mut Charges, account: AccountId, log: LogId) {
        self.grow(charges, account, LOG_BYTES);
        self.open(charges, account, 1);
        self.logs.insert(
            log,
            CountedFile { account, bytes: LOG_BYTES, dropped: None, is_closed: false, in_arena: false },
        );
        self.sum(account, |sums| {
            sums.logs += LOG_BYTES;
            sums.running_logs += LOG_BYTES;
        });
    }

    /// The attempt of a log is with no worker any more.
    ///
    /// # Panics
    /// If it was not.
    pub(super) fn rest_log(&mut self, account: AccountId) {
        self.sum(account, |sums| count_down(&mut sums.running_logs, LOG_BYTES, "bytes of running logs"));
    }

    /// Tells the shell to drop a log. It counts until the shell says that it is freed.
    ///
    /// # Panics
    /// If it was not made, or dropped before.
    pub(super) fn drop_log(&mut self, turn: &mut Turn, log: LogId) {
        let found = self.logs.get_mut(&log).filter(|file| file.dropped.is_none());
        let file = found.expect("a log that is dropped is held");
        file.dropped = Some(self.turn);
        let (account, bytes) = (file.account, file.bytes);
        self.sum(account, |sums| {
            count_down(&mut sums.logs, bytes, "bytes of logs");
            sums.leaving += bytes;
            sums.leaving_files += 1;
        });
        turn.act(Action::DropLog { log });
    }

    /// What can be had back of one account, and of all.
    pub(super) fn sums(&self, account: AccountId) -> (OutputSums, OutputSums) {
        (self.of.get(&account).copied().unwrap_or_default(), self.all)
    }

    /// The account that has most outputs and logs to be dropped.
    fn largest(&self) -> Option<AccountId> {
        let idle = |sums: &OutputSums| sums.kept + sums.idle_logs();
        let (account, sums) = self.of.iter().max_by_key(|(_, sums)| idle(sums))?;
        (idle(sums) > 0).then_some(*account)
    }

    /// Checks what must always hold; `promised` is the room and the files that offers and jobs have, by account.
    pub(super) fn audit(&self, promised: &BTreeMap<AccountId, (u64, u64)>) {
        let stored = self.outputs.values().chain(self.logs.values());
        let mut files = BTreeMap::<_, u64>::new();
        stored.filter(|file| !file.is_closed).for_each(|file| *files.entry(file.account).or_default() += 1);
        for (account, sums) in &self.of {
            let (room, to_make) = promised.get(account).copied().unwrap_or_default();
            let stored = files.get(account).copied().unwrap_or(0);
            assert_eq!(sums.files, stored + to_make, "an output or a log counts as a file");
            assert_eq!(sums.granted, room, "the room of an account is that of its offers and jobs");
        }
        assert!(promised.keys().all(|account| self.of.contains_key(account)), "all room is counted");
        let (mut all, mut kept) = (OutputSums::default(), 0);
        for sums in self.of.values() {
            all.held += sums.held;
            all.granted += sums.granted;
            all.kept += sums.kept;
            all.logs += sums.logs;
            all.running_logs += sums.running_logs;
            all.leaving += sums.leaving;
            all.files += sums.files;
            all.kept_files += sums.kept_files;
            all.leaving_files += sums.leaving_files;
        }
        assert_eq!(all, self.all, "what all have is the sum of what each has");
        for (account, outputs) in &self.kept {
            assert!(!outputs.is_empty(), "an account without kept outputs has no list");
            for output in outputs.keys() {
                let file = self.outputs[output];
                assert!(file.account == *account && file.dropped.is_none(), "a kept output is held");
                kept += file.back().0;
            }
        }
        assert_eq!(kept, self.all.kept, "bytes of kept outputs are counted");
        let logs: u64 = self.logs.values().filter(|log| log.dropped.is_none()).map(|log| log.bytes).sum();
        assert_eq!(logs, self.all.logs, "bytes of logs are counted");
    }

    /// How many files each account is charged with, for the audit.
    pub(super) fn open_files(&self) -> impl Iterator<Item = (AccountId, u64)> + '_ {
        self.of.iter().map(|(account, sums)| (*account, sums.files))
    }

    /// What each account is charged with, for the audit.
    pub(super) fn charged(&self) -> BTreeMap<AccountId, u64> {
        let mut charged = BTreeMap::new();
        let files = self.outputs.values().chain(self.logs.values()).filter(|file| !file.in_arena);
        let files = files.map(|file| (file.account, file.bytes));
        for (account, bytes) in files.chain(self.of.iter().map(|(account, sums)| (*account, sums.granted))) {
            *charged.entry(account).or_default() += bytes;
        }
        charged.retain(|_, bytes| *bytes > 0);
        charged
    }

    /// The bytes of blocks that each account is charged with, a row for each block, for the audit.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (AccountId, u64)> + '_ {
        self.outputs.values().filter(|file| file.in_arena).map(|file| (file.account, file.bytes))
    }
}

/// How many files are made for an offer that is promised so many bytes.
pub(super) fn files_of_offer(bytes: u64) -> u64 {
    u64::from(bytes > 0)
}

impl Jobs {
    /// Counts what an offer needs: the caller has found that there is room.
    pub(super) fn take_room(&mut self, account: AccountId, grant: &OutputGrant) {
        self.outputs.grant(&mut self.table.charges, account, grant.offer_bytes);
        self.outputs.open(&mut self.table.charges, account, files_of_offer(grant.offer_bytes));
    }

    /// A worker has reported an output for one of its offers. It counts for the offer's account.
    ///
    /// # Panics
    /// If another has the same number.
    pub(crate) fn hold_output(&mut self, ticket: Ticket, output: OutputId, bytes: u64) {
        let (account, bytes) = (ticket.account, bytes.max(LEAST_BYTES));
        self.outputs.grow(&mut self.table.charges, account, bytes);
        self.outputs.open(&mut self.table.charges, account, 1);
        self.hold(output, CountedFile { account, bytes, dropped: None, is_closed: false, in_arena: false });
    }

    /// The same of a result in the worker's arena.
    ///
    /// # Panics
    /// If another has the same number.
    pub(crate) fn hold_block(&mut self, ticket: Ticket, output: OutputId, bytes: u64) {
        let (account, bytes) = (ticket.account, bytes.next_multiple_of(ARENA_UNIT_BYTES as u64));
        self.table.charges.charge(account, Resource::ArenaBytes, bytes);
        // It never had a descriptor.
        self.hold(output, CountedFile { account, bytes, dropped: None, is_closed: true, in_arena: true });
    }

    fn hold(&mut self, output: OutputId, file: CountedFile) {
        let other = self.outputs.outputs.insert(output, file);
        assert!(other.is_none(), "output {output} is held for one job");
    }

    /// Tells the shell to drop an output. It counts until the shell says that it is freed.
    pub(crate) fn drop_output(&mut self, turn: &mut Turn, output: OutputId) {
        if let Some(file) = self.outputs.outputs.get_mut(&output).filter(|file| file.dropped.is_none()) {
            file.dropped = Some(self.outputs.turn);
            let (file, (bytes, files)) = (*file, file.back());
            if !file.in_arena {
                self.outputs.sum(file.account, |sums| {
                    sums.leaving += bytes;
                    sums.leaving_files += files;
                });
            }
        }
        turn.act(Action::DropOutput { output });
    }

    /// The shell has closed an output for the last time. One that came with a stale report was never counted.
    pub(crate) fn output_freed(&mut self, output: OutputId) {
        if let Some(file) = self.outputs.outputs.remove(&output) {
            self.file_freed(file);
        }
    }

    /// The shell has closed an output that a client has not read.
    pub(crate) fn output_closed(&mut self, output: OutputId) {
        if let Some(file) = self.outputs.outputs.get_mut(&output)
            && !std::mem::replace(&mut file.is_closed, true)
        {
            let file = *file;
            self.file_closed(file);
        }
    }

    /// The shell has closed a log that a client has not read.
    pub(crate) fn log_closed(&mut self, log: LogId) {
        if let Some(file) = self.outputs.logs.get_mut(&log)
            && !std::mem::replace(&mut file.is_closed, true)
        {
            let file = *file;
            self.file_closed(file);
        }
    }

    /// The shell has closed a log for the last time.
    pub(crate) fn log_freed(&mut self, log: LogId) {
        if let Some(file) = self.outputs.logs.remove(&log) {
            self.file_freed(file);
        }
    }

    fn file_closed(&mut self, file: CountedFile) {
        assert!(file.dropped.is_some(), "the shell closes what it was told to drop");
        self.outputs.close(&mut self.table.charges, file.account, 1);
        let is_leaving = file.dropped == Some(self.outputs.turn);
        self.outputs.sum(file.account, |sums| {
            count_down(&mut sums.leaving_files, u64::from(is_leaving), "files that leave");
        });
    }

    fn file_freed(&mut self, file: CountedFile) {
        assert!(file.dropped.is_some(), "the shell frees what it was told to drop");
        if file.in_arena {
            return self.table.charges.release(file.account, Resource::ArenaBytes, file.bytes);
        }
        self.table.charges.release(file.account, Resource::OutputBytes, file.bytes);
        if !file.is_closed {
            self.file_closed(file);
        }
        let is_leaving = file.dropped == Some(self.outputs.turn);
        self.outputs.sum(file.account, |sums| {
            count_down(&mut sums.held, file.bytes, "memory for outputs");
            count_down(&mut sums.leaving, if is_leaving { file.bytes } else { 0 }, "bytes that leave");
        });
    }

    /// All events of a turn were heard: what was dropped before and is not freed is held by replies.
    pub(crate) fn nothing_leaves(&mut self) {
        self.outputs.turn += 1;
        if self.outputs.all.leaving == 0 {
            return;
        }
        for sums in self.outputs.of.values_mut().chain([&mut self.outputs.all]) {
            (sums.leaving, sums.leaving_files) = (0, 0);
        }
    }

    /// What can be had back of one account, and of all.
    pub(crate) fn output_sums(&self, account: AccountId) -> (OutputSums, OutputSums) {
        self.outputs.sums(account)
    }

    /// What of the memory of all is for what.
    pub(crate) fn all_outputs(&self) -> OutputSums {
        self.outputs.all
    }

    /// Accounts that may hold more than when this was last asked.
    pub(crate) fn grown_accounts(&mut self) -> Vec<AccountId> {
        std::mem::take(&mut self.outputs.grown)
    }

    /// The account that has most outputs and logs to be dropped.
    pub(crate) fn largest_evictable(&self) -> Option<AccountId> {
        self.outputs.largest()
    }

    /// What the output of an ended job counts, in bytes.
    pub(super) fn output_bytes_of(&self, key: Key) -> u64 {
        let file = self.table[key].held().and_then(|output| self.outputs.outputs.get(&output));
        file.map_or(0, |file| file.bytes)
    }

    /// The output of a job that is kept now can be dropped when room is needed.
    ///
    /// # Panics
    /// If another job has the same.
    pub(super) fn keep_output(&mut self, key: Key) {
        let Some(output) = self.table[key].held() else { return };
        let file = self.outputs.outputs[&output];
        let other = self.outputs.kept.entry(file.account).or_default().insert(output, key);
        assert!(other.is_none(), "output {output} is held for one job");
        self.table.charges.charge(file.account, Resource::KeptOutputs, 1);
        self.table.charges.charge(file.account, Resource::KeptBytes, file.bytes);
        let (bytes, files) = file.back();
        self.outputs.sum(file.account, |sums| {
            sums.kept += bytes;
            sums.kept_files += files;
        });
    }

    /// The output of a job that is kept no more.
    ///
    /// # Panics
    /// If it was not kept.
    pub(super) fn unkeep_output(&mut self, key: Key) {
        let Some(output) = self.table[key].held() else { return };
        let file = self.outputs.outputs[&output];
        let own = self.outputs.kept.get_mut(&file.account).expect("a kept output is in its account's list");
        let was_held = own.remove(&output);
        assert_eq!(was_held, Some(key), "output {output} is held for one job");
        if own.is_empty() {
            self.outputs.kept.remove(&file.account);
        }
        self.table.charges.release(file.account, Resource::KeptOutputs, 1);
        self.table.charges.release(file.account, Resource::KeptBytes, file.bytes);
        let (bytes, files) = file.back();
        self.outputs.sum(file.account, |sums| {
            count_down(&mut sums.kept, bytes, "bytes of kept outputs");
            count_down(&mut sums.kept_files, files, "kept outputs");
        });
    }

    /// Drops the oldest output or log of an account that no worker and no client waits for. Its job stays; `gone` says
    /// what its client is told. `false`: there is none.
    pub(crate) fn evict_oldest_file(
        &mut self,
        turn: &mut Turn,
        account: AccountId,
        gone: impl Fn(u64) -> OutputGone,
    ) -> bool {
        let mut kept = self.outputs.kept.get(&account).into_iter().flatten();
        let output = kept.find(|(output, _)| !self.outputs.outputs[output].in_arena).map(|(_, key)| *key);
        let log = self.oldest_idle_log(account);
        let ended_ns = |key: Key| self.table[key].end().map_or(u64::MAX, |end| end.at_ns);
        match (output, log) {
            (Some(output), Some(log)) if ended_ns(log) < ended_ns(output) => self.evict_log_of(turn, log),
            (Some(output), _) => self.evict_output(turn, output, gone),
            (None, Some(log)) => self.evict_log_of(turn, log),
            (None, None) => return false,
        }
        true
    }

    /// Drops the oldest output of an account. `false`: it has none that is kept.
    pub(crate) fn evict_oldest_output(
        &mut self,
        turn: &mut Turn,
        account: AccountId,
        gone: impl Fn(u64) -> OutputGone,
    ) -> bool {
        let oldest = self.outputs.kept.get(&account).and_then(BTreeMap::first_key_value);
        let Some(key) = oldest.map(|(_, key)| *key) else { return false };
        self.evict_output(turn, key, gone);
        true
    }

    fn evict_output(&mut self, turn: &mut Turn, key: Key, gone: impl Fn(u64) -> OutputGone) {
        self.unkeep_output(key);
        let Some(end) = self.table[key].end_mut() else { return };
        if let Leftover::Held { output, bytes } = std::mem::replace(&mut end.left, Leftover::Nothing) {
            end.gone = Some(gone(bytes));
            self.drop_output(turn, output);
        }
    }
}
