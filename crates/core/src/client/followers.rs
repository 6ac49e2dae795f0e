//! Readers of records: `events`, with and without `--follow`.
//!
//! A reader is sent pages of records while its client has credit, and goes on from the last one. What it is shown of
//! records of other users: `sight.rs`.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, Tag};

use crate::client::Clients;
use crate::client::sight::record_for;
use crate::turn::Turn;

/// Most records in one reply.
const PAGE: usize = 256;
/// About the bytes of one record in a frame, beside its texts and backtraces.
const RECORD_BYTES: u64 = 160;
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
}

impl Clients {
    /// Adds a reader of the records after this index; 0 begins with the oldest.
    ///
    /// # Errors
    /// If the client has `READERS_MAX` readers.
    pub(crate) fn read_records(
        &mut self,
        turn: &Turn,
        (id, tag): (ClientId, Tag),
        after: u64,
        follow: bool,
    ) -> Result<(), Refusal> {
        let first = turn.records().first_index();
        let Some(client) = self.connected(id) else { return Ok(()) };
        if client.readers.len() == READERS_MAX {
            let (what, limit) = ("running events requests on one connection".to_owned(), READERS_MAX as u64);
            return Err(Refusal::Busy { what, limit, share_of: None, key: None, retry_after_ms: 1000 });
        }
        let next = if after == 0 { first } else { after.saturating_add(1) };
        client.readers.push(RecordReader { tag, next, follow, begun: false });
        self.readers.insert(id);
        Ok(())
    }

    /// Sends every reader the records that its client has credit for.
    pub(crate) fn follow_all(&mut self, turn: &mut Turn) {
        if self.readers.is_empty() {
            return;
        }
        for id in self.readers.clone() {
            self.follow(turn, id);
        }
    }

    fn follow(&mut self, turn: &mut Turn, id: ClientId) {
        let Some(client) = self.connected(id) else { return };
        let mut readers = std::mem::take(&mut client.readers);
        readers.retain_mut(|reader| self.read_on(turn, id, reader));
        let Some(client) = self.connected(id) else { return };
        if readers.is_empty() {
            self.readers.remove(&id);
        } else {
            client.readers = readers;
        }
    }

    /// Sends one reader what it has credit for. `false`: its request has been answered to its end.
    fn read_on(&mut self, turn: &mut Turn, id: ClientId, reader: &mut RecordReader) -> bool {
        loop {
            let Some(client) = self.connected(id) else { return false };
            if client.credit <= 0 {
                return true;
            }
            let (peer, first) = (client.peer, turn.records().first_index());
            let missed = first.saturating_sub(reader.next);
            reader.next = reader.next.max(first);
            let (mut records, mut bytes) = (Vec::new(), RECORD_BYTES);
            for (record, owner) in turn.records().from(reader.next) {
                if records.len() == PAGE {
                    break;
                }
                reader.next = record.index + 1;
                if let Some(shown) = record_for(peer, record, *owner) {
                    bytes += RECORD_BYTES + text_bytes(&shown.what);
                    records.push(shown);
                }
            }
            let caught_up = reader.next >= turn.records().next_index();
            // The last page is sent even if it is empty: `caught_up` tells a reader that does not follow of the end.
            let is_last = caught_up && !reader.follow;
            if !records.is_empty() || missed > 0 || !reader.begun || is_last {
                reader.begun = true;
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
        | What::Spawned { .. }
        | What::Ready { .. }
        | What::Placed { .. }
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
