//! Delivery of results to clients, within their credit: a letter names a job, and its end becomes a reply.
//!
//! A client that does not read stops its own next jobs and nothing else: they rest (`park_unread`) until it reads.
//! The end of a held job is copied into its reply, and its result is kept until `received`.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::action::Action;
use crate::client::{ENTRY_BYTES, Envelopes, Letter, bytes_of};
use crate::job::TaskRun;
use crate::machine::Core;
use crate::turn::Resource;

impl Core {
    /// Sends a reply of about so many bytes.
    pub(super) fn reply(&mut self, id: ClientId, tag: Tag, reply: Reply, bytes: u64) {
        self.clients.reply(&mut self.turn, (id, tag), reply, bytes, None);
    }

    /// Refuses a request.
    pub(super) fn refuse(&mut self, id: ClientId, tag: Tag, refusal: Refusal) {
        self.reply(id, tag, Reply::Refused(refusal), 2 * ENTRY_BYTES);
    }

    /// Sends the letters that clients have credit for.
    pub(super) fn deliver(&mut self) {
        let mut ready = self.clients.take_ready();
        for id in ready.drain(..) {
            let mut envelopes = Envelopes::default();
            while let Some(letter) = self.clients.next_letter(id, &envelopes) {
                self.open_letter(id, letter, &mut envelopes);
            }
            self.clients.seal_all(&mut self.turn, id, envelopes);
            self.bound_unreceived(id);
            self.park_unread(id);
        }
        self.clients.put_ready(ready);
    }

    fn open_letter(&mut self, id: ClientId, letter: Letter, envelopes: &mut Envelopes) {
        let (tag, job) = (letter.tag(), letter.job());
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
                self.turn.act(Action::DropOutput { output });
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
            Ok(jobs) => jobs.into_iter().for_each(|job| _ = self.forget_received(id, job)),
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
            self.jobs.note_evicted(&mut self.turn, count, "results that one client has not received");
        }
    }

    /// A job was retried before this letter was sent: the client waits for the next end.
    fn wait_again(&mut self, id: ClientId, run: TaskRun, letter: Letter) {
        if letter.is_own() {
            self.clients.add_wait(id);
        }
        self.jobs.wait_again(run, (id, letter.tag()));
    }

    /// Answers `Request::Result` at once.
    pub(super) fn give_result(&mut self, id: ClientId, tag: Tag, run: TaskRun) {
        let (ended, output) = self.jobs.copy_end(run);
        let bytes = bytes_of(&ended);
        self.clients.reply(&mut self.turn, (id, tag), Reply::Ended(vec![ended]), bytes, output);
    }

    /// Lets a client's jobs rest while too much waits for it to read.
    fn park_unread(&mut self, id: ClientId) {
        if let Some((uid, true)) = self.is_unread(id) {
            self.jobs.park(uid, id, true);
        }
    }

    /// Lets the jobs of parked clients go on once little enough is unread: they may have read, their results may have been
    /// taken or dropped by others, or the unread results of their user may be below their bound again.
    pub(super) fn unpark_read(&mut self) {
        let parked: Vec<ClientId> = self.jobs.parked_clients().collect();
        let mut read = Vec::new();
        for id in parked {
            if let Some((uid, false)) = self.is_unread(id) {
                read.push((uid, id));
            }
        }
        if read.is_empty() {
            return;
        }
        for (uid, id) in read {
            self.jobs.park(uid, id, false);
        }
        self.dispatch();
    }

    /// A connected client's user, and whether too much waits for it to read.
    fn is_unread(&mut self, id: ClientId) -> Option<(u32, bool)> {
        let account = self.clients.see(id)?.account();
        let room = self.room(account, Resource::UnreadResults);
        let of_user = (room.left() == 0).then(|| room.met(Resource::UnreadResults));
        let unread = self.clients.unread(&self.turn, id, of_user)?;
        let too_much = unread.bytes > unread.bytes_max || unread.outputs >= unread.outputs_max;
        Some((self.clients.see(id)?.peer().uid, too_much))
    }
}
