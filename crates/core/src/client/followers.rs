//! Readers of records: `events`, with and without `--follow`.
//!
//! A reader is sent pages of records while its client has credit, and goes on from the last one. What it is shown of
//! records of other users: `sight.rs`. A gap in the numbers says nothing: the record may be another user's, or was dropped before the request came. A reader
//! therefore counts the records that its client may see, and is told of those that it was not sent:
//!
//! | when | `owed` |
//! |---|---|
//! | it begins with the oldest record | all that are kept |
//! | it begins after a number | those that are kept behind it, and at most as many as were dropped behind it |
//! | records are made | so many more |
//! | one is sent | one less |
//! | it has caught up | all that are left are missed: 0 |
//! | it has no credit left | those are missed that are not kept either: as many as are kept behind it |

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::ids::{ClientId, Tag};

use crate::client::Clients;
use crate::client::sight::{is_shown, record_for};
use crate::event::Peer;
use crate::turn::{RecentRecords, Resource, Turn, UserTurns};

/// Most records in one reply.
const PAGE: usize = 256;
/// About the bytes of one record in a frame, beside its texts and backtraces.
const RECORD_BYTES: u64 = 160;
/// Replies with records in one turn, of all readers; the last client's may pass it by its credit.
const PAGES: usize = 64;
/// Most readers of one client.
const READERS_MAX: usize = 16;

/// One `events` request that has not been answered to its end.
#[derive(Debug)]
pub(super) struct RecordReader {
    tag: Tag,
    /// Index of the next record to be sent.
    next: u64,
    follow: bool,
    /// Whether a page was sent.
    begun: bool,
    /// Records that its client may see and that it was neither sent nor told to have missed.
    owed: u64,
    /// How many of the records that its client may see were made when `owed` was counted.
    made: u64,
    /// Whether its next record was not the next one yet.
    is_ahead: bool,
}

impl RecordReader {
    fn new(records: &RecentRecords, peer: Peer, tag: Tag, after: u64, follow: bool) -> Self {
        let seen = records.seen_by(peer);
        let first = records.first_index();
        let (next, dropped) = match after {
            0 => (first, 0),
            _ => (after.saturating_add(1), dropped_behind(records, peer, after)),
        };
        let owed = if after < first { seen.left() } else { kept_from(records, peer, next) };
        let is_ahead = next > records.next_index();
        Self { tag, next, follow, begun: false, owed: owed + dropped, made: seen.made(), is_ahead }
    }

    /// Counts the records that were made since the last call.
    fn count_made(&mut self, records: &RecentRecords, peer: Peer) {
        let made = records.seen_by(peer).made();
        if self.is_ahead {
            // Some may have come before the number that it waits for.
            self.owed = kept_from(records, peer, self.next);
        } else {
            self.owed += made.saturating_sub(self.made);
        }
        (self.made, self.is_ahead) = (made, self.next > records.next_index());
    }
}

/// At most how many of the records that a client may see were dropped behind this one.
fn dropped_behind(records: &RecentRecords, peer: Peer, index: u64) -> u64 {
    let (seen, last) = (records.seen_by(peer), records.next_index() - 1);
    if seen.dropped_to() <= index {
        return 0;
    }
    let kept = records.from(index.saturating_add(1)).count() as u64;
    seen.dropped().min(last.saturating_sub(index).saturating_sub(kept))
}

/// How many of the records from this one on are kept and shown to a client.
fn kept_from(records: &RecentRecords, peer: Peer, index: u64) -> u64 {
    records.from(index).filter(|(record, owner)| is_shown(peer, record, *owner)).count() as u64
}

impl Clients {
    /// Adds a reader of the records after this index; 0 begins with the oldest.
    ///
    /// # Errors
    /// If the client has `READERS_MAX` readers.
    pub(crate) fn read_records(
        &mut self,
        turn: &mut Turn,
        (id, tag): (ClientId, Tag),
        after: u64,
        follow: bool,
    ) -> Result<(), Refusal> {
        let Some(client) = self.connected(id) else { return Ok(()) };
        if client.readers.len() == READERS_MAX {
            let (what, limit) = ("running events requests on one connection".to_owned(), READERS_MAX as u64);
            return Err(Refusal::Busy { what, limit, part: BoundPart::All, key: None, retry_after_ms: 1000 });
        }
        client.readers.push(RecordReader::new(turn.records(), client.peer, tag, after, follow));
        turn.charge(client.account(), Resource::Readers, 1);
        self.readers.insert(id);
        self.read_soon(id);
        Ok(())
    }

    /// Sends readers the records that their clients have credit for, [`PAGES`] replies in a turn: users take turns, then
    /// each user's clients.
    pub(crate) fn follow_all(&mut self, turn: &mut Turn) {
        if self.readers.is_empty() {
            // Clients that left in the turn of their request still stand in line.
            self.reading = UserTurns::default();
            return turn.forget_record_counts();
        }
        let next = turn.records().next_index();
        if std::mem::replace(&mut self.followed, next) != next {
            for id in self.readers.clone() {
                self.read_soon(id);
            }
        }
        let mut pages = PAGES;
        while pages > 0
            && let Some(id) = self.reading.take_next()
        {
            pages -= 1;
            self.follow(turn, id, &mut pages);
        }
    }

    /// Whether readers are left that a turn had no room for.
    pub(crate) fn has_readers_left(&self) -> bool {
        !self.reading.is_empty()
    }

    /// Puts a client in line for the records that its readers were not sent.
    pub(super) fn read_soon(&mut self, id: ClientId) {
        if let Some(client) = self.see(id).filter(|client| !client.readers.is_empty()) {
            let uid = client.peer.uid;
            self.reading.add(uid, id);
        }
    }

    /// Sends the readers of one client what it has credit for, and takes the replies after the first off `pages`.
    fn follow(&mut self, turn: &mut Turn, id: ClientId, pages: &mut usize) {
        let Some(client) = self.connected(id) else { return };
        let (mut readers, account) = (std::mem::take(&mut client.readers), client.account());
        let (count, mut sent) = (readers.len(), 0);
        readers.retain_mut(|reader| self.read_on(turn, id, reader, &mut sent));
        *pages = pages.saturating_sub(sent.saturating_sub(1));
        turn.release(account, Resource::Readers, (count - readers.len()) as u64);
        let Some(client) = self.connected(id) else { return };
        if readers.is_empty() {
            self.readers.remove(&id);
        } else {
            client.readers = readers;
        }
    }

    /// Sends one reader what it has credit for, and adds the replies to `sent`. `false`: its request has been answered to
    /// its end.
    fn read_on(
        &mut self,
        turn: &mut Turn,
        id: ClientId,
        reader: &mut RecordReader,
        sent: &mut usize,
    ) -> bool {
        loop {
            let Some(client) = self.connected(id) else { return false };
            if client.credit <= 0 {
                return true;
            }
            let (peer, credit) = (client.peer, client.credit);
            reader.count_made(turn.records(), peer);
            let (mut records, mut bytes) = (Vec::new(), RECORD_BYTES);
            let mut is_full = false;
            for (record, owner) in turn.records().from(reader.next) {
                is_full = records.len() == PAGE;
                if is_full {
                    break;
                }
                reader.next = record.index + 1;
                if let Some(shown) = record_for(peer, record, *owner) {
                    bytes += RECORD_BYTES + text_bytes(&shown.what);
                    records.push(shown);
                }
            }
            if !is_full {
                // The last ones may have been dropped: none is left from here on.
                reader.next = reader.next.max(turn.records().next_index());
            }
            let caught_up = reader.next >= turn.records().next_index();
            reader.owed = reader.owed.saturating_sub(records.len() as u64);
            // Between two pages in a row nothing is made or dropped: it is told once, with the last of them.
            let is_paused = i64::try_from(bytes).is_ok_and(|bytes| bytes >= credit);
            let kept = if caught_up || !is_paused { 0 } else { kept_from(turn.records(), peer, reader.next) };
            let missed = if caught_up || is_paused { reader.owed.saturating_sub(kept) } else { 0 };
            reader.owed -= missed;
            // The last page is sent even if it is empty: `caught_up` tells a reader that does not follow of the end.
            let is_last = caught_up && !reader.follow;
            if !records.is_empty() || missed > 0 || !reader.begun || is_last {
                reader.begun = true;
                *sent += 1;
                let reply = Reply::Events { records, missed, caught_up };
                self.reply(turn, (id, reader.tag), reply, bytes, None);
            }
            if caught_up {
                return reader.follow;
            }
        }
    }
}

/// About the bytes of the texts and backtraces of a record in a frame.
fn text_bytes(what: &What) -> u64 {
    let bytes = match what {
        What::Died { evidence, .. } => return evidence.wire_bytes(),
        What::Ended { outcome: Outcome::Failed { message, .. }, .. } | What::Backoff { message, .. } => {
            message.len()
        }
        What::SpawnFailed { error, .. } => error.len(),
        What::LivesOn { survivor, .. } => survivor.name.len(),
        What::Degraded { pool, reason } => pool.len() + reason.len(),
        What::Recovered { pool } => pool.len(),
        What::Short { what } => what.len(),
        What::Kindless { kind, .. } => kind.len(),
        What::JournalFailed { why } => why.len(),
        What::EndedQueued { jobs, .. } => std::mem::size_of_val(jobs.as_slice()),
        What::Ended {
            outcome:
                Outcome::Done
                | Outcome::Crashed { .. }
                | Outcome::TimedOut { .. }
                | Outcome::Cancelled
                | Outcome::Expired
                | Outcome::Lost { .. },
            ..
        }
        | What::Started { .. }
        | What::Reloaded { .. }
        | What::JournalRecovered
        | What::Spawned { .. }
        | What::Ready { .. }
        | What::Placed { .. }
        | What::Lent { .. }
        | What::TakenIn { .. }
        | What::WorkerGone { .. }
        | What::Killing { .. }
        | What::Suspended { .. }
        | What::Resumed { .. }
        | What::SuspendedOften { .. }
        | What::ProgramStopped { .. }
        | What::ProgramContinued { .. }
        | What::Stuck { .. }
        | What::Accepted { .. }
        | What::Blamed { .. }
        | What::NobodyBlamed { .. }
        | What::Requeued { .. }
        | What::Retried { .. }
        | What::RetryAsked { .. }
        | What::Evicted { .. }
        | What::Draining { .. }
        | What::Stopped
        | What::Recycled { .. } => 0,
    };
    bytes as u64
}
