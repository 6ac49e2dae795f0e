//! Mail: ends that wait for a client's credit as letters, and the replies that carry them.
//!
//! A letter is a few bytes; the result stays with its job until the letter is read. The ends that a turn sends for
//! one request share a reply, the envelope. An end with a descriptor has a reply of its own. Ends of held jobs are in
//! envelopes of their own, because their replies number them (`receipts.rs`). Jobs that were forgotten before their
//! letters were read share a second reply, so no number of them makes more replies than the ends would have made.

use std::collections::BTreeMap;

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome, Survivor};
use bulkhead_proto::client::refusal::UnknownJobs;
use bulkhead_proto::ids::{ClientId, JobId, OutputId, Tag};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES};

use crate::client::Clients;
use crate::client::receipts::give_back_room;
use crate::turn::{Turn, count_down};

/// Bytes of results in one reply: half a frame.
const REPLY_BYTES: u64 = FRAME_MAX_BYTES as u64 / 2;
/// About the bytes of an end in a reply, beside its result.
pub(crate) const ENTRY_BYTES: u64 = 24;

/// Why a client is told of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterReason {
    /// It submitted the job attached, by this request.
    Attached(Tag),
    /// The same, and the job was run again before it was told of its end.
    RunAgain(Tag),
    /// It asked for it: `waits.rs` has the request.
    Asked,
}

impl LetterReason {
    /// The reason of one that waits with a job: `submitted` is the request that submitted it, if that is the reason.
    pub(crate) fn of_waiter(submitted: Option<Tag>) -> Self {
        submitted.map_or(Self::Asked, Self::RunAgain)
    }
}

/// A letter: a job whose end a client is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter {
    reason: LetterReason,
    job: JobId,
}

impl Letter {
    /// A letter about this job.
    pub(crate) fn new(reason: LetterReason, job: JobId) -> Self {
        Self { reason, job }
    }

    /// Why it is sent.
    pub(crate) fn reason(self) -> LetterReason {
        self.reason
    }

    /// Whether the client submitted the job attached.
    pub(crate) fn is_own(self) -> bool {
        matches!(self.reason, LetterReason::Attached(_))
    }

    /// The job.
    pub(crate) fn job(self) -> JobId {
        self.job
    }
}

/// What is told of one request and not sent yet: ends, and jobs that were forgotten.
#[derive(Default)]
struct Envelope {
    ended: Vec<JobEnded>,
    gone: Vec<JobId>,
    bytes: u64,
}

/// Which envelope an end goes into: that of a request, for its held ends or for the others.
type Place = (Tag, bool);

/// The unsent replies to one client, one or two for each of its requests.
#[derive(Default)]
pub(crate) struct Envelopes {
    of: BTreeMap<Place, Envelope>,
    bytes: u64,
}

#[cfg(test)]
impl Envelopes {
    /// One envelope whose bytes are not in the sum, for a test.
    pub(super) fn miscounted(tag: Tag) -> Self {
        Self { of: BTreeMap::from([((tag, false), Envelope { bytes: 1, ..Envelope::default() })]), bytes: 0 }
    }
}

impl Clients {
    /// Adds a letter for a client. `false`: it is not connected.
    pub(crate) fn post(&mut self, id: ClientId, letter: Letter) -> bool {
        let Some(client) = self.connected(id) else { return false };
        client.letters.push_back(letter);
        self.mark(id);
        true
    }

    /// Adds a client to the ready ones, which are looked at in this turn or the next.
    pub(super) fn mark(&mut self, id: ClientId) {
        let Some(client) = self.map.get(&id) else { return };
        self.ready.add(client.peer.uid, id);
    }

    /// A letter was read, or its client is gone: a wait by request is over.
    ///
    /// # Panics
    /// If the client did not wait for it.
    pub(crate) fn letter_read(&mut self, turn: &mut Turn, id: ClientId, letter: Letter) {
        if letter.reason == LetterReason::Asked {
            self.wait_is_over(turn, id, letter.job);
        }
    }

    /// Whether any client has unread letters.
    pub(crate) fn have_letters(&self) -> bool {
        self.map.values().any(|client| !client.letters.is_empty())
    }

    /// How many clients are ready: they have new letters or new credit.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the ready client whose turn it is.
    pub(crate) fn next_ready(&mut self) -> Option<ClientId> {
        self.ready.take_next()
    }

    /// Puts a client that was not sent all of its letters at the end of the line, if it has credit for more.
    pub(crate) fn stay_ready(&mut self, id: ClientId) {
        if self.see(id).is_some_and(|client| client.credit > 0 && !client.letters.is_empty()) {
            self.mark(id);
        }
    }

    /// The next letter of a client, if its credit exceeds the bytes in its envelopes.
    pub(crate) fn next_letter(&mut self, id: ClientId, envelopes: &Envelopes) -> Option<Letter> {
        let client = self.connected(id)?;
        let left = client.credit.saturating_sub_unsigned(envelopes.bytes);
        let letter = if left > 0 { client.letters.pop_front() } else { None };
        give_back_room(&mut client.letters);
        letter
    }

    /// Puts an end into the envelope of its request, or sends it at once if an output goes with it.
    pub(crate) fn tell(
        &mut self,
        turn: &mut Turn,
        (id, place): (ClientId, Place),
        ended: JobEnded,
        output: Option<OutputId>,
        envelopes: &mut Envelopes,
    ) {
        if output.is_none() {
            return self.enclose(turn, (id, place), ended, envelopes);
        }
        self.seal(turn, (id, place), envelopes);
        self.send_ends(turn, (id, place), vec![ended], 2 * ENTRY_BYTES, output);
    }

    fn enclose(
        &mut self,
        turn: &mut Turn,
        (id, place): (ClientId, Place),
        ended: JobEnded,
        envelopes: &mut Envelopes,
    ) {
        let bytes = bytes_of(&ended);
        envelopes.bytes += bytes;
        let envelope = envelopes.of.entry(place).or_default();
        envelope.bytes += bytes;
        envelope.ended.push(ended);
        if envelope.ended.len() == BATCH_MAX || envelope.bytes >= REPLY_BYTES {
            self.seal(turn, (id, place), envelopes);
        }
    }

    /// Puts a job that was forgotten before its end was sent into the envelope of its request.
    pub(crate) fn tell_gone(
        &mut self,
        turn: &mut Turn,
        (id, tag): (ClientId, Tag),
        job: JobId,
        envelopes: &mut Envelopes,
    ) {
        let place = (tag, false);
        envelopes.bytes += ENTRY_BYTES;
        let envelope = envelopes.of.entry(place).or_default();
        envelope.bytes += ENTRY_BYTES;
        envelope.gone.push(job);
        if envelope.gone.len() == BATCH_MAX {
            self.seal(turn, (id, place), envelopes);
        }
    }

    /// Sends one envelope.
    ///
    /// # Panics
    /// If its bytes were not counted in the sum of all envelopes.
    pub(super) fn seal(
        &mut self,
        turn: &mut Turn,
        (id, place): (ClientId, Place),
        envelopes: &mut Envelopes,
    ) {
        if let Some(envelope) = envelopes.of.remove(&place) {
            count_down(&mut envelopes.bytes, envelope.bytes, "bytes in envelopes");
            self.send(turn, (id, place), envelope);
        }
    }

    fn send(&mut self, turn: &mut Turn, (id, (tag, held)): (ClientId, Place), envelope: Envelope) {
        let Envelope { ended, gone, bytes } = envelope;
        let gone_bytes = ENTRY_BYTES * gone.len() as u64;
        if !ended.is_empty() {
            self.send_ends(turn, (id, (tag, held)), ended, bytes - gone_bytes, None);
        }
        if let Some(last) = gone.iter().max().copied() {
            let unknown = UnknownJobs { jobs: gone, last, ..UnknownJobs::default() };
            self.reply(turn, (id, tag), Reply::Unknown(unknown), ENTRY_BYTES + gone_bytes, None);
        }
    }

    fn send_ends(
        &mut self,
        turn: &mut Turn,
        (id, (tag, held)): (ClientId, Place),
        ended: Vec<JobEnded>,
        bytes: u64,
        output: Option<OutputId>,
    ) {
        let Some(client) = self.connected(id) else { return };
        let reply = if held { client.sent.number(ended) } else { Reply::Ended(ended) };
        self.reply(turn, (id, tag), reply, bytes, output);
    }

    /// Sends all envelopes of a client.
    pub(crate) fn seal_all(&mut self, turn: &mut Turn, id: ClientId, envelopes: Envelopes) {
        for (place, envelope) in envelopes.of {
            self.send(turn, (id, place), envelope);
        }
    }
}

/// About the bytes of an end in a reply.
pub(crate) fn bytes_of(ended: &JobEnded) -> u64 {
    let output = match &ended.output {
        JobOutput::Inline(payload) => payload.as_bytes().len(),
        JobOutput::None | JobOutput::Descriptor { .. } | JobOutput::Block(_) | JobOutput::Gone(_) => 0,
    };
    let text = match &ended.outcome {
        Outcome::Failed { message, .. } => message.len(),
        Outcome::Crashed { last, .. } => last.len(),
        Outcome::Lost { reason } => reason.len(),
        Outcome::Done | Outcome::TimedOut { .. } | Outcome::Cancelled | Outcome::Expired => 0,
    };
    let survivors: u64 = ended.survivors.iter().map(Survivor::wire_bytes).sum();
    ENTRY_BYTES + (output + text) as u64 + survivors
}
