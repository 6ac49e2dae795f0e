//! Delivery of results to clients, within their credit: a letter names a job, and its end becomes a reply.
//!
//! A client that does not read stops its own next jobs and nothing else: they rest (`parked.rs`) until it reads.
//! The end of a held job is copied into its reply, and its result is kept until `received`.
//!
//! A turn opens [`LETTERS`] letters, or sends [`LETTER_BYTES`], of all clients together: users take turns, then each
//! user's clients, and each gets an equal part of what is left, but [`LETTERS_AT_ONCE`] at least, which share a reply. If
//! letters are left, the machine asks for the next turn at once.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::client::{ENTRY_BYTES, Envelopes, Letter, LetterReason, bytes_of};
use crate::job::TaskRun;
use crate::machine::Core;
use crate::turn::Counter;

/// The bound of results that a client was sent and has not reported, for people.
const UNRECEIVED: &str = "results that one client has not received";

/// Letters that one turn opens, of all clients.
const LETTERS: usize = 1024;
/// About the bytes that they carry; one client's may pass it by its credit.
const LETTER_BYTES: u64 = 4 << 20;
/// Letters of one client in one turn, at least, while the turn has room.
const LETTERS_AT_ONCE: usize = 64;

impl Core {
    /// Sends a reply of about so many bytes.
    pub(super) fn reply(&mut self, id: ClientId, tag: Tag, reply: Reply, bytes: u64) {
        self.clients.reply(&mut self.turn, (id, tag), reply, bytes, None);
    }

    /// Refuses a request.
    pub(super) fn refuse(&mut self, id: ClientId, tag: Tag, refusal: Refusal) {
        self.reply(id, tag, Reply::Refused(refusal), 2 * ENTRY_BYTES);
    }

    /// Sends the letters that clients have credit for, as many as a turn has room for.
    pub(super) fn deliver(&mut self) {
        let (mut letters, mut bytes, mut again) = (LETTERS, LETTER_BYTES, Vec::new());
        while letters > 0 && bytes > 0 {
            let clients = self.clients.ready();
            let Some(id) = self.clients.next_ready() else { break };
            let part = (letters / clients).max(LETTERS_AT_ONCE).min(letters);
            let (opened, sent_bytes) = self.open_letters(id, part);
            letters = letters.saturating_sub(opened.max(1));
            bytes = bytes.saturating_sub(sent_bytes);
            self.bound_unreceived(id);
            self.park_unread(id);
            again.push(id);
        }
        again.into_iter().for_each(|id| self.clients.stay_ready(id));
    }

    /// When letters and records that a turn had no room for are to be sent: at once.
    pub(super) fn letters_due_ns(&self) -> Option<u64> {
        let is_left = self.clients.ready() > 0 || self.clients.has_readers_left();
        is_left.then(|| self.turn.now_ns())
    }

    /// Opens so many letters of a client at most; gives how many there were, and their bytes.
    fn open_letters(&mut self, id: ClientId, most: usize) -> (usize, u64) {
        let credit = self.clients.credit(id);
        let (mut envelopes, mut count) = (Envelopes::default(), 0);
        while count < most
            && let Some(letter) = self.clients.next_letter(id, &envelopes)
        {
            self.open_letter(id, letter, &mut envelopes);
            count += 1;
        }
        self.clients.seal_all(&mut self.turn, id, envelopes);
        (count, u64::try_from(credit - self.clients.credit(id)).unwrap_or(0))
    }

    /// The request that a letter answers. `None`: its client is gone.
    fn tag_of(&self, id: ClientId, letter: Letter) -> Option<Tag> {
        match letter.reason() {
            LetterReason::Attached(tag) | LetterReason::RunAgain(tag) => Some(tag),
            LetterReason::Asked => self.clients.wait_of(id, letter.job()),
        }
    }

    fn open_letter(&mut self, id: ClientId, letter: Letter, envelopes: &mut Envelopes) {
        let Some(tag) = self.tag_of(id, letter) else { return };
        let job = letter.job();
        // Its job was forgotten or evicted while the letter waited.
        let Some(run) = self.jobs.find(job) else {
            self.told(id, letter);
            return self.clients.tell_gone(&mut self.turn, (id, tag), job, envelopes);
        };
        if self.jobs.job(run).end().is_none() {
            return self.wait_again(id, run, letter);
        }
        // The common case moves the result out instead of copying it.
        if letter.is_own() && self.jobs.is_last_word(run, id) {
            let (ended, output, released) = self.jobs.take_end(&mut self.turn, run);
            self.relieve(released);
            self.clients.tell(&mut self.turn, (id, (tag, false)), ended, output, envelopes);
            if let Some(output) = output {
                self.jobs.drop_output(&mut self.turn, output);
            }
        } else {
            let (ended, output) = self.jobs.copy_end(run);
            let held = letter.is_own() && self.jobs.batch(run).is_held();
            self.clients.tell(&mut self.turn, (id, (tag, held)), ended, output, envelopes);
            self.told(id, letter);
        }
    }

    /// A client has the ends up to this number where it wants them: their results need not be kept.
    pub(super) fn received(&mut self, id: ClientId, tag: Tag, through: u64) {
        match self.clients.receive(id, through) {
            Ok(received) => {
                received.into_iter().for_each(|job| _ = self.forget_received(id, job));
                let jobs = &self.jobs;
                self.clients.ends_taken(id, |job| jobs.is_held(job));
            }
            Err(last) => {
                let why = format!("receipt through {through}, and {last} held ends were sent so far");
                self.refuse(id, tag, Refusal::Invalid { why });
            }
        }
    }

    /// `true`: its result was dropped.
    fn forget_received(&mut self, id: ClientId, job: JobId) -> bool {
        let released = self.jobs.received(&mut self.turn, job, id);
        let dropped = released.is_some();
        self.relieve(released.unwrap_or_default());
        dropped
    }

    /// Forgets the oldest results without a receipt of a client that has more of them than its share.
    fn bound_unreceived(&mut self, id: ClientId) {
        let mut count = 0;
        while let Some(job) = self.clients.too_much_unreceived(&self.turn, id) {
            count += u32::from(self.forget_received(id, job));
        }
        if count > 0 {
            let jobs = &self.jobs;
            self.clients.ends_taken(id, |job| jobs.is_held(job));
            let uid = self.clients.see(id).map_or(0, |client| client.peer().uid);
            self.turn.count(Counter::Evicted, u64::from(count));
            self.jobs.note_evicted(uid, UNRECEIVED, count);
        }
    }

    /// A job was retried before this letter was sent: the client waits for the next end.
    fn wait_again(&mut self, id: ClientId, run: TaskRun, letter: Letter) {
        let submitted = match letter.reason() {
            LetterReason::Attached(tag) | LetterReason::RunAgain(tag) => Some(tag),
            LetterReason::Asked => None,
        };
        self.jobs.wait_again(run, (id, submitted));
    }

    /// Answers `Request::Result` at once.
    pub(super) fn give_result(&mut self, id: ClientId, tag: Tag, run: TaskRun) {
        let is_durable = self.jobs.batch(run).is_durable();
        if is_durable && let Some(refusal) = self.no_room_to_hold(id) {
            return self.refuse(id, tag, refusal);
        }
        let (ended, output) = self.jobs.copy_end(run);
        let bytes = bytes_of(&ended);
        // A durable job has no output beside its reply.
        match output {
            None => self.reply_of(is_durable, (id, tag), Reply::Ended(vec![ended]), bytes),
            Some(_) => {
                self.clients.reply(&mut self.turn, (id, tag), Reply::Ended(vec![ended]), bytes, output)
            }
        }
    }
}
