//! Admission of submitted jobs, and the refusals.
//!
//! This file checks the request; `admission.rs` knows for how many jobs there is room, and `job/admit.rs` takes them in.

use bulkhead_proto::client::message::{Reply, Submit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, KindId, Tag};
use bulkhead_proto::limits::{BATCH_MAX, INLINE_MAX_BYTES};

use crate::client::AttachedBatch;
use crate::event::{Attached, Peer};
use crate::job::{Admission, check_files, grant, missing_file};
use crate::machine::Core;
use crate::turn::{Counter, Owner};

impl Core {
    /// A client submits jobs.
    pub(super) fn submit(&mut self, id: ClientId, tag: Tag, mut submit: Submit, files: Vec<Attached>) {
        let Some(client) = self.clients.see(id) else { return };
        let (Peer { uid, admin }, account) = (client.peer(), client.account());
        let count = submit.inputs.len() as u64;
        let checked = self.check(&submit);
        let checked = checked.and_then(|kind| {
            // Of the submit as it came: a configuration that has changed makes no other submit of it.
            let durable = self.check_durable(&submit, kind)?;
            grant(&self.turn.config().kinds[usize::from(kind.0)], &mut submit.policy, admin)?;
            check_files(&submit, &files)?;
            let named = self.named_by(id, kind, &submit)?;
            // Last of all: `busy` tells a client to try again, and that must not fail for another reason then.
            self.room_for_files(account, &files)?;
            self.check_numbers(count)?;
            Ok((kind, named, durable))
        });
        let (kind, named, durable) = match checked {
            Ok(found) => found,
            Err(refusal) => {
                self.turn.count(Counter::Refused, count);
                self.turn_away(files);
                return self.refuse(id, tag, refusal);
            }
        };
        let (room, refusal) = self.room_in_queue(account, &submit.inputs);
        // A durable submit is accepted as a whole: its key names all of it.
        let room = if durable.is_some() && room < count { 0 } else { room };
        self.turn.count(Counter::Refused, count - room);
        if room == 0
            && let Some(refusal) = refusal
        {
            self.turn_away(files);
            return self.refuse(id, tag, refusal);
        }
        let pool = self.workers.pool_of_kind(kind);
        let count = u32::try_from(room).expect("a batch is bounded far below 2^32");
        let first = None;
        let admission =
            Admission { client: id, tag, uid, account, kind, pool, submit, files, count, first, named };
        match durable {
            Some(name) => self.hold_submit(admission, name),
            None => self.take_in(admission, refusal),
        }
    }

    /// Takes in the jobs of a checked submit, and answers.
    pub(super) fn take_in(&mut self, admission: Admission, refused: Option<Refusal>) {
        let (id, tag, uid) = (admission.client, admission.tag, admission.uid);
        let (kind, pool, count) = (admission.kind, admission.pool, admission.count);
        let attached = admission.submit.attached;
        if let Some(named) = &admission.named {
            let all = named.all.iter().map(|(registration, _)| *registration);
            self.clients.name_registrations(all, u64::from(count));
        }
        let run = self.jobs.admit(&mut self.turn, admission);
        let first = run.first();
        if attached {
            let needs_descriptor = self.jobs.needs_descriptor(run);
            self.clients.attach(id, first, AttachedBatch::new(count, pool, needs_descriptor));
        }
        let kind = self.turn.shared_kind_name(kind);
        self.turn.record(What::Accepted { first, count, kind, uid }, Owner::User(uid));
        self.reply(id, tag, Reply::Accepted { first, count, refused }, 48);
        if attached {
            self.notify_waiter(id);
        }
    }

    /// Checks a submit; gives its kind. Every field is hostile: texts are cut before they are repeated in a refusal.
    fn check(&self, submit: &Submit) -> Result<KindId, Refusal> {
        let invalid = |why: String| Err(Refusal::Invalid { why });
        if !self.drain.is_open() {
            return Err(Refusal::Draining);
        }
        let Some(place) = self.turn.config().kinds.iter().position(|kind| kind.name == submit.kind) else {
            let kind = submit.kind.chars().take(80).collect();
            let known = self.turn.config().kinds.iter().map(|kind| kind.name.clone()).collect();
            return Err(Refusal::UnknownKind { kind, known });
        };
        if let Some(missing) = missing_file(&self.turn.config().kinds[place], &submit.files) {
            return invalid(missing);
        }
        if submit.progress && !submit.attached {
            return invalid("progress is told to whom the jobs are attached, and these are not".to_owned());
        }
        if submit.held && !submit.attached {
            return invalid(
                "results are held for the client that the jobs are attached to, and these are not".to_owned(),
            );
        }
        if submit.inputs.is_empty() {
            return invalid("the submit has no inputs".to_owned());
        }
        if submit.inputs.len() > BATCH_MAX {
            return invalid(format!("{} inputs in one submit, at most {BATCH_MAX} fit", submit.inputs.len()));
        }
        if let Some(fault) = submit.policy.fault() {
            return invalid(fault);
        }
        if let Some((at, input)) = submit.inputs.iter().enumerate().find(|(_, input)| !input.fits()) {
            let bytes = input.as_bytes().len();
            return invalid(format!(
                "input {at} has {bytes} bytes, at most {INLINE_MAX_BYTES} travel inline"
            ));
        }
        Ok(KindId(u16::try_from(place).expect("the table of kinds is short")))
    }
}
