//! Attachments: the files that go with the tasks of a job, and when they are closed.
//!
//! The attachments of a job are its client's files, what it uses that its connection registered, its plan and the output that its
//! tasks share. The job holds them
//! until its end, and so does each offer that carries them until it is settled or its worker's death is proven. The
//! last holder's [`Jobs::unload`] or [`Jobs::end`] makes the shell drop each file once.
//!
//! A file is a number here: this room opens, reads and closes nothing. `files.rs` checks the files of a submit, and
//! `machine/admission.rs` whether its user has room for them.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::Rc;

use bulkhead_proto::file::FileUse;
use bulkhead_proto::ids::{ClientId, FileId, JobId, OutputId, ScratchId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::OutputRoom;
use bulkhead_proto::worker::stage::Stage;
use thin_vec::ThinVec;

use crate::action::{Action, TaskFile};
use crate::event::Attached;
use crate::job::files::pinned_bytes;
use crate::job::held_outputs::{FILES_OF_PARTS, files_of_offer};
use crate::job::list::Key;
use crate::job::run::{TaskRun, Ticket};
use crate::job::state::TaskKind;
use crate::job::{Jobs, NamedRegistrations, OutputGrant, UnnamedJob};
use crate::turn::{AccountId, Resource, Turn, count_down};

/// The number of one job's attachments; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttachmentsId(NonZeroU64);

/// The attachments of one job.
#[derive(Debug)]
struct Attachments {
    account: AccountId,
    files: Vec<(FileId, FileUse)>,
    pinned_bytes: u64,
    /// The output that all tasks of the job share, once a task was offered with it.
    scratch: Option<ScratchId>,
    plan: Option<OutputId>,
    room: JobRoom,
    /// How many hold them: the job until its end, and each offer that carries them.
    users: u32,
    /// What the job uses that its connection registered.
    named: Option<UnnamedJob>,
}

/// The memory that is promised to a job that is done in parts.
#[derive(Clone, Copy, Debug, Default)]
struct JobRoom {
    /// Whose it is, if any is promised.
    account: Option<AccountId>,
    /// All of it, in bytes.
    bytes: u64,
    /// Of that, for the shared output.
    shared_bytes: u64,
    /// Of that, for the plan, until it is there.
    plan_bytes: u64,
}

/// The attachments of all jobs.
#[derive(Debug, Default)]
pub(crate) struct AttachmentTable {
    held: BTreeMap<AttachmentsId, Attachments>,
    last: u64,
    scratches: u64,
    /// Jobs whose registrations no worker uses any more, since they were last taken.
    unnamed: Vec<UnnamedJob>,
    /// Jobs that were reported and are forgotten before their clients were told, since they were last taken.
    reported_untold: Vec<(ClientId, JobId)>,
}

impl AttachmentTable {
    /// No attachments; numbers of shared outputs begin at `first`, at 1 if that is 0.
    pub(super) fn new(first: u64) -> Self {
        Self { scratches: first.saturating_sub(1), ..Self::default() }
    }

    /// The number that the next shared output gets.
    pub(super) fn next_scratch(&self) -> ScratchId {
        ScratchId(self.scratches + 1)
    }

    /// Whether a shared output was begun, whether there is room for the packed results of the parts, and the bytes that are
    /// promised.
    pub(super) fn room_of(&self, id: Option<AttachmentsId>) -> (bool, bool, u64) {
        let Some(found) = id.and_then(|id| self.held.get(&id)) else { return (false, false, 0) };
        (found.scratch.is_some(), found.room.account.is_some(), found.room.bytes)
    }

    /// Bytes of memory that are promised to jobs, by account, for the audit.
    pub(super) fn promised(&self) -> impl Iterator<Item = (AccountId, u64)> + '_ {
        self.held.values().filter_map(|held| Some((held.room.account?, held.room.bytes)))
    }

    fn get_mut(&mut self, id: AttachmentsId) -> &mut Attachments {
        self.held.get_mut(&id).expect("attachments that a job or an offer has are held")
    }

    /// What the job of these attachments uses that its connection registered.
    pub(super) fn named_of(&self, id: AttachmentsId) -> Option<&NamedRegistrations> {
        self.held.get(&id)?.named.as_ref().map(|job| &*job.named)
    }

    /// Holds the files that came with a job, and charges them; `None` if none came.
    ///
    /// # Panics
    /// If there are not as many names as files.
    pub(super) fn hold(
        &mut self,
        turn: &mut Turn,
        account: AccountId,
        names: Vec<FileUse>,
        came: Vec<Attached>,
    ) -> Option<AttachmentsId> {
        if came.is_empty() {
            return None;
        }
        assert_eq!(came.len(), names.len(), "each file of a job has a name");
        let files: Vec<_> = came.iter().map(|file| file.file).zip(names).collect();
        let pinned_bytes = pinned_bytes(&came);
        turn.charge(account, Resource::Files, files.len() as u64);
        turn.charge(account, Resource::FileBytes, pinned_bytes);
        Some(self.open(account, files, pinned_bytes))
    }

    fn open(
        &mut self,
        account: AccountId,
        files: Vec<(FileId, FileUse)>,
        pinned_bytes: u64,
    ) -> AttachmentsId {
        self.last += 1;
        let id = AttachmentsId(NonZeroU64::new(self.last).expect("counted from 1"));
        self.held.insert(
            id,
            Attachments {
                account,
                files,
                pinned_bytes,
                scratch: None,
                plan: None,
                room: JobRoom::default(),
                users: 1,
                named: None,
            },
        );
        id
    }

    /// Holds what a job uses that its connection registered, beside the files that came with it.
    pub(super) fn hold_named(
        &mut self,
        files: Option<AttachmentsId>,
        account: AccountId,
        job: UnnamedJob,
    ) -> AttachmentsId {
        let id = files.unwrap_or_else(|| self.open(account, Vec::new(), 0));
        self.get_mut(id).named = Some(job);
        id
    }

    /// The end of a job says that no worker can read its input in an arena: it was reported by the only worker that had it.
    /// Returns whether its input is in an arena.
    ///
    /// # Panics
    /// If an offer of the job is left.
    pub(super) fn note_told_by_end(&mut self, id: Option<AttachmentsId>) -> bool {
        let Some(id) = id else { return false };
        let attachments = self.get_mut(id);
        let Some(job) = &mut attachments.named else { return false };
        assert!(
            !job.named.has_arena || attachments.users == 1,
            "job {} ends with its only offer, whose worker has reported it",
            job.job
        );
        job.is_told = true;
        job.named.has_arena
    }

    /// Checks what must always hold; `users` counts the holders of each attachments.
    pub(crate) fn audit(&self, users: &BTreeMap<AttachmentsId, u32>) {
        for (id, attachments) in &self.held {
            assert_eq!(
                users.get(id),
                Some(&attachments.users),
                "attachments {id:?} is held by those who have it"
            );
        }
        assert!(
            users.keys().all(|id| self.held.contains_key(id)),
            "attachments that a job or an offer has are held"
        );
    }

    /// What accounts hold of files and of the memory that those pin, one row for each attachments.
    pub(crate) fn held(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        self.held.values().flat_map(|attachments| {
            let Attachments { account, files, pinned_bytes, .. } = attachments;
            [(*account, Resource::Files, files.len() as u64), (*account, Resource::FileBytes, *pinned_bytes)]
        })
    }
}

/// The room of a task that is its whole job.
fn whole(grant: Option<&OutputGrant>) -> OutputRoom {
    OutputRoom { own_bytes: grant.map_or(0, OutputGrant::own_bytes), shared_bytes: 0 }
}

impl Jobs {
    /// Adds an offer as a holder of its job's attachments, and lists the files that go with it. Returns also how long its
    /// outputs may become.
    ///
    /// # Panics
    /// If the job's attachments are closed.
    pub(super) fn attach(
        &mut self,
        job: Key,
        stage: Stage,
        grant: Option<&OutputGrant>,
    ) -> (Option<AttachmentsId>, ThinVec<TaskFile>, OutputRoom) {
        let attachments = self.table[job].attachments();
        // Most tasks have none.
        if attachments.is_none() && stage == Stage::Whole {
            return (None, ThinVec::new(), whole(grant));
        }
        let (account, output) = (self.table.batch(job).account, self.table.batch(job).policy.output);
        let id = match attachments {
            Some(id) => id,
            // A job that is done in parts has a plan, even if no file came with it.
            None => {
                let id = self.attachments.open(account, Vec::new(), 0);
                *self.table[job].rare_mut().attachments.insert(id)
            }
        };
        let results = self
            .part_set_of(job)
            .filter(|part_set| part_set.bytes > 0)
            .map(|part_set| Rc::clone(&part_set.results));
        let next = self.attachments.next_scratch();
        let attachments = self.attachments.get_mut(id);
        attachments.users += 1;
        let client = |(file, name): &(FileId, FileUse)| TaskFile::Client { file: *file, name: name.clone() };
        let mut files: ThinVec<TaskFile> = attachments.files.iter().map(client).collect();
        if let Some(UnnamedJob { named, .. }) = &attachments.named {
            files.extend(named.all.iter().map(|(registration, content)| TaskFile::Registered {
                registration: *registration,
                content: Rc::clone(content),
            }));
        }
        if stage == Stage::Whole {
            return (Some(id), files, whole(grant));
        }
        let (account, grant) = (self.table.batch(job).account, grant.copied().unwrap_or_default());
        self.outputs.grant(&mut self.table.charges, account, grant.job_bytes);
        if attachments.room.account.replace(account).is_none() {
            self.outputs.open(&mut self.table.charges, account, FILES_OF_PARTS);
        }
        attachments.room.bytes += grant.job_bytes;
        attachments.room.shared_bytes += grant.shared_bytes();
        if stage == Stage::Plan {
            attachments.room.plan_bytes += grant.own_bytes();
        }
        let JobRoom { shared_bytes, plan_bytes: own_bytes, .. } = attachments.room;
        let room = OutputRoom { own_bytes, shared_bytes };
        files.extend(attachments.plan.map(|output| TaskFile::Plan { output }));
        if output == OutputMode::Descriptor {
            let scratch = *attachments.scratch.get_or_insert(next);
            self.attachments.scratches = self.attachments.scratches.max(scratch.0);
            files.push(TaskFile::Shared { scratch });
        }
        if let (Stage::Merge { .. }, Some(results)) = (stage, results) {
            files.push(TaskFile::Results { results });
        }
        (Some(id), files, room)
    }

    /// Keeps the plan of a job for its parts and its merge.
    ///
    /// # Panics
    /// If the job has no attachments: they are made when its plan task is offered.
    pub(super) fn keep_plan(&mut self, turn: &mut Turn, job: Key, plan: OutputId) {
        let attachments = self.table[job].attachments().and_then(|id| self.attachments.held.get_mut(&id));
        let attachments = attachments.expect("a job at its plan holds its attachments");
        let bytes = std::mem::take(&mut attachments.room.plan_bytes);
        attachments.room.bytes -= bytes;
        let (old, account) = (attachments.plan.replace(plan), attachments.room.account);
        if let Some(account) = account {
            self.outputs.ungrant(&mut self.table.charges, account, bytes);
        }
        if let Some(old) = old {
            self.drop_output(turn, old);
        }
    }

    /// The plan task of a job is to be run again: its job gives back the room for what it writes, because it waits behind
    /// jobs that may need it.
    pub(super) fn give_back_plan_room(&mut self, turn: &mut Turn, job: Key) {
        if self.table[job].task_kind != TaskKind::Plan {
            return;
        }
        let Some(id) = self.table[job].attachments() else { return };
        let attachments = self.attachments.get_mut(id);
        let (room, scratch) = (std::mem::take(&mut attachments.room), attachments.scratch.take());
        if let Some(account) = room.account {
            self.outputs.ungrant(&mut self.table.charges, account, room.bytes);
            self.outputs.close(&mut self.table.charges, account, FILES_OF_PARTS);
        }
        if let Some(scratch) = scratch {
            turn.act(Action::DropScratch { scratch });
        }
    }

    /// An offer ended with a held output. If it was the output that the tasks of the job share, the job has no shared
    /// output any more.
    ///
    /// # Panics
    /// If the offer has attachments that are not held: it was settled before.
    pub(crate) fn take_scratch(&mut self, ticket: Ticket) {
        let Some(id) = ticket.attachments else { return };
        let attachments = self.attachments.get_mut(id);
        attachments.scratch = None;
        let bytes = std::mem::take(&mut attachments.room.shared_bytes);
        attachments.room.bytes -= bytes;
        if let Some(account) = attachments.room.account {
            self.outputs.ungrant(&mut self.table.charges, account, bytes);
        }
    }

    /// An offer is settled, or its worker's death is proven: it holds its attachments no more, and its output has no room.
    ///
    /// # Panics
    /// If the attachments had no holder left.
    pub(crate) fn unload(&mut self, turn: &mut Turn, ticket: Ticket) {
        self.release(turn, ticket.attachments);
        if ticket.granted > 0 {
            self.outputs.ungrant(&mut self.table.charges, ticket.account, ticket.granted);
            self.outputs.close(&mut self.table.charges, ticket.account, files_of_offer(ticket.granted));
        }
        if ticket.has_log {
            self.outputs.rest_log(ticket.account);
        }
    }

    /// Removes one holder of attachments, a job or an offer; the last one's files are dropped.
    ///
    /// # Panics
    /// If the attachments had no holder left.
    pub(super) fn release(&mut self, turn: &mut Turn, attachments: Option<AttachmentsId>) {
        let Some(id) = attachments else { return };
        let attachments = self.attachments.get_mut(id);
        count_down(&mut attachments.users, 1, "holders of attachments");
        if attachments.users > 0 {
            return;
        }
        let Some(attachments) = self.attachments.held.remove(&id) else { return };
        turn.release(attachments.account, Resource::Files, attachments.files.len() as u64);
        turn.release(attachments.account, Resource::FileBytes, attachments.pinned_bytes);
        self.attachments.unnamed.extend(attachments.named);
        for (file, _) in attachments.files {
            turn.act(Action::DropFile { file });
        }
        if let Some(account) = attachments.room.account {
            self.outputs.ungrant(&mut self.table.charges, account, attachments.room.bytes);
            self.outputs.close(&mut self.table.charges, account, FILES_OF_PARTS);
        }
        if let Some(output) = attachments.plan {
            self.drop_output(turn, output);
        }
        if let Some(scratch) = attachments.scratch {
            turn.act(Action::DropScratch { scratch });
        }
    }

    /// What an offer uses that the connection of its job registered.
    pub(crate) fn named_by(&self, ticket: Ticket) -> Option<&Rc<NamedRegistrations>> {
        let attachments = self.attachments.held.get(&ticket.attachments?)?;
        attachments.named.as_ref().map(|job| &job.named)
    }

    /// A job of this client is forgotten, and its end, which would have said that no worker can read its input in an arena, was
    /// not sent to the client.
    pub(super) fn note_reported_untold(&mut self, client: ClientId, job: JobId) {
        self.attachments.reported_untold.push((client, job));
    }

    /// Jobs of which no end says that their blocks are free, since the last call.
    pub(crate) fn take_reported_untold(&mut self) -> Vec<(ClientId, JobId)> {
        std::mem::take(&mut self.attachments.reported_untold)
    }

    /// Jobs whose registrations no worker uses any more, since the last call.
    pub(crate) fn take_unnamed(&mut self) -> Vec<UnnamedJob> {
        std::mem::take(&mut self.attachments.unnamed)
    }

    /// What each job uses that its connection registered, for the audit.
    pub(crate) fn all_named(&self) -> impl Iterator<Item = &NamedRegistrations> + '_ {
        self.attachments
            .held
            .values()
            .filter_map(|attachments| attachments.named.as_ref().map(|job| &*job.named))
    }

    /// Whether an offer of the job, or of one of its parts, still holds its attachments.
    pub(crate) fn are_attachments_held(&self, run: TaskRun) -> bool {
        self.job(run).attachments().is_some_and(|id| self.attachments.held.contains_key(&id))
    }
}
