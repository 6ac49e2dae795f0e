//! Results on their way to clients, as fast as these take them.
//!
//! Ends wait as letters of a few bytes; the results themselves stay with their jobs until the client has credit.
//! What ended in one turn for one request travels in one reply; an output in a descriptor travels alone. A client
//! that does not read stops its own next jobs and nothing else.

use std::collections::BTreeMap;

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{Ended, Outcome, Output};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::why::Unread;
use bulkhead_proto::ids::{ClientId, OutputId, Tag};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES};

use crate::action::Action;
use crate::client::connections::Letter;
use crate::job::Run;
use crate::machine::Core;

/// Bytes of results in one reply: well below a frame.
const REPLY_BYTES: u64 = FRAME_MAX_BYTES as u64 / 2;
/// What an entry of a reply takes beside its result, in bytes, about.
const ENTRY_BYTES: u64 = 24;
/// A client's jobs rest when what it was not told is worth so many times its credit.
const UNREAD_CREDITS: u64 = 4;
/// The same for held outputs.
const UNREAD_OUTPUTS: u64 = 16;

/// Entries of one reply that is not sent yet.
#[derive(Default)]
struct Envelope {
    ended: Vec<Ended>,
    bytes: u64,
}

/// Replies of one client that are not sent yet, one for each of its requests.
#[derive(Default)]
struct Envelopes {
    of: BTreeMap<Tag, Envelope>,
    bytes: u64,
}

/// Descriptors that use up a client's whole credit.
const OUTPUTS_ON_THEIR_WAY: u64 = 64;

impl Core {
    /// Sends a reply of about so many bytes.
    pub(crate) fn reply(&mut self, id: ClientId, tag: Tag, reply: Reply, bytes: u64) {
        self.reply_with(id, tag, reply, bytes, None);
    }

    /// Refuses a request.
    pub(crate) fn refuse(&mut self, id: ClientId, tag: Tag, refusal: Refusal) {
        self.reply(id, tag, Reply::Refused(refusal), 2 * ENTRY_BYTES);
    }

    fn reply_with(&mut self, id: ClientId, tag: Tag, reply: Reply, bytes: u64, output: Option<OutputId>) {
        let Some(client) = self.clients.connected(id) else { return };
        // A descriptor costs more than the bytes that tell of it: an outbox holds few of them.
        let descriptor =
            if output.is_some() { self.turn.config().client_credit_bytes / OUTPUTS_ON_THEIR_WAY } else { 0 };
        client.credit = client.credit.saturating_sub_unsigned(bytes + descriptor);
        self.turn.act(Action::Reply { client: id, tag, reply, output });
    }

    /// Sends whatever clients have credit for.
    pub(crate) fn deliver(&mut self) {
        // Taken out whole: what this loop does may mark clients again, and those have their turn next time.
        let mut ready = std::mem::take(&mut self.clients.ready);
        for id in ready.drain(..) {
            let mut envelopes = Envelopes::default();
            while let Some(letter) = self.next_letter(id, &envelopes) {
                self.open_letter(id, letter, &mut envelopes);
            }
            for (tag, envelope) in envelopes.of {
                self.send(id, tag, envelope);
            }
            self.park_unread(id);
        }
        // What was marked meanwhile has been looked at, or looks again next turn.
        ready.append(&mut self.clients.ready);
        self.clients.ready = ready;
    }

    /// The next letter, while the client has credit for what is in the envelopes already.
    fn next_letter(&mut self, id: ClientId, envelopes: &Envelopes) -> Option<Letter> {
        let client = self.clients.connected(id)?;
        client.listed = false;
        let left = client.credit.saturating_sub_unsigned(envelopes.bytes);
        if left > 0 { client.letters.pop_front() } else { None }
    }

    fn open_letter(&mut self, id: ClientId, letter: Letter, envelopes: &mut Envelopes) {
        // Forgotten or dropped while its letter waited. What was said for this request before goes out first.
        let Some(run) = self.jobs.find(letter.job) else {
            self.told(id, letter);
            self.seal(id, letter.tag, envelopes);
            return self.refuse(id, letter.tag, Refusal::Gone { job: letter.job, others: false });
        };
        if self.jobs.job(run).end().is_none() {
            return self.wait_again(id, run, letter);
        }
        // The common case moves the result out instead of copying it.
        if letter.own && self.jobs.is_last_word(run, id) {
            let (ended, output, released) = self.jobs.take_end(&mut self.turn, run);
            self.relieve(released);
            self.tell(id, letter.tag, ended, output, envelopes);
            if let Some(output) = output {
                self.turn.act(Action::DropOutput { output });
            }
        } else {
            let (ended, output) = self.jobs.copy_end(run);
            self.tell(id, letter.tag, ended, output, envelopes);
            self.told(id, letter);
        }
    }

    /// Puts an end into its request's envelope, or sends it alone if an output goes with it.
    fn tell(
        &mut self,
        id: ClientId,
        tag: Tag,
        ended: Ended,
        output: Option<OutputId>,
        envelopes: &mut Envelopes,
    ) {
        if output.is_none() {
            return self.enclose(id, tag, ended, envelopes);
        }
        self.seal(id, tag, envelopes);
        self.reply_with(id, tag, Reply::Ended(vec![ended]), 2 * ENTRY_BYTES, output);
    }

    /// A job that was asked to run again before its end was told: the next end will do.
    fn wait_again(&mut self, id: ClientId, run: Run, letter: Letter) {
        if letter.own {
            self.clients.add_wait(id);
        }
        self.jobs.wait_again(run, (id, letter.tag));
    }

    fn enclose(&mut self, id: ClientId, tag: Tag, ended: Ended, envelopes: &mut Envelopes) {
        let bytes = ENTRY_BYTES + bytes_of(&ended);
        envelopes.bytes += bytes;
        let envelope = envelopes.of.entry(tag).or_default();
        envelope.bytes += bytes;
        envelope.ended.push(ended);
        if envelope.ended.len() == BATCH_MAX || envelope.bytes >= REPLY_BYTES {
            self.seal(id, tag, envelopes);
        }
    }

    /// Sends what is in the envelope of one request.
    fn seal(&mut self, id: ClientId, tag: Tag, envelopes: &mut Envelopes) {
        if let Some(envelope) = envelopes.of.remove(&tag) {
            envelopes.bytes -= envelope.bytes;
            self.send(id, tag, envelope);
        }
    }

    fn send(&mut self, id: ClientId, tag: Tag, envelope: Envelope) {
        self.reply(id, tag, Reply::Ended(envelope.ended), envelope.bytes);
    }

    /// Answers `result` at once.
    pub(crate) fn give_result(&mut self, id: ClientId, tag: Tag, run: Run) {
        let (ended, output) = self.jobs.copy_end(run);
        let bytes = ENTRY_BYTES + bytes_of(&ended);
        self.reply_with(id, tag, Reply::Ended(vec![ended]), bytes, output);
    }

    /// Lets a client's jobs rest while too much waits for it to read.
    fn park_unread(&mut self, id: ClientId) {
        if let Some((uid, true)) = self.is_unread(id) {
            self.jobs.park(uid, id, true);
        }
    }

    /// Lets the jobs of parked clients go on once little enough waits: they may have read, somebody else may have
    /// taken their results or dropped them, or the whole shelf of unread results may have room again.
    pub(crate) fn unpark_read(&mut self) {
        let read: Vec<(u32, ClientId)> = (self.jobs.parked_clients())
            .filter_map(|id| Some((id, self.is_unread(id)?)))
            .filter_map(|(id, (uid, unread))| (!unread).then_some((uid, id)))
            .collect();
        if read.is_empty() {
            return;
        }
        for (uid, id) in read {
            self.jobs.park(uid, id, false);
        }
        self.dispatch();
    }

    /// A connected client's user, and whether too much waits for it to read.
    fn is_unread(&self, id: ClientId) -> Option<(u32, bool)> {
        let unread = self.unread(id)?;
        let too_much = unread.bytes > unread.bytes_max || unread.outputs >= unread.outputs_max;
        Some((self.clients.see(id)?.peer.uid, too_much))
    }

    /// What waits for a connected client to read, and how much may.
    pub(crate) fn unread(&self, id: ClientId) -> Option<Unread> {
        let all_full = self.jobs.untold_bytes() > self.turn.config().keep_bytes_max;
        let most =
            if all_full { 0 } else { self.turn.config().client_credit_bytes.saturating_mul(UNREAD_CREDITS) };
        let client = self.clients.see(id)?;
        Some(Unread {
            bytes: client.untold_bytes,
            bytes_max: most,
            outputs: client.untold_outputs,
            outputs_max: UNREAD_OUTPUTS,
            all_full,
        })
    }
}

fn bytes_of(ended: &Ended) -> u64 {
    let output = match &ended.output {
        Output::Inline(payload) => payload.as_bytes().len(),
        _ => 0,
    };
    let text = match &ended.outcome {
        Outcome::Failed { message, .. } => message.len(),
        Outcome::Crashed { last, .. } => last.len(),
        Outcome::Lost { reason } => reason.len(),
        _ => 0,
    };
    (output + text) as u64
}
