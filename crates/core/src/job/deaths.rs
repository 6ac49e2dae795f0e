//! The deaths that ended attempts of jobs, charged or not, for `deaths`: a ring of a fixed length, and the answer that shows it.
//!
//! Each remembers whose job it was, for a job may be forgotten before its deaths are. Filled by `blame.rs`; it decides
//! nothing and never grows beyond its bound.

use std::collections::VecDeque;

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::view::DeathRow;
use bulkhead_proto::ids::{ClientId, Tag};
use bulkhead_proto::limits::DEATHS_KEPT;

use crate::event::Peer;
use crate::machine::Core;

/// What a row takes on the wire beside its texts and frames, in bytes, about.
const ROW_BYTES: u64 = 128;

/// The ring, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    rows: VecDeque<DeathRow>,
}

impl Deaths {
    /// Keeps a death; the oldest goes if there are too many.
    pub(crate) fn push(&mut self, row: DeathRow) {
        if self.rows.len() == DEATHS_KEPT {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
    }
}

impl Core {
    /// Answers `deaths`: those that the client may see, newest first.
    pub(crate) fn show_deaths(&mut self, id: ClientId, tag: Tag, peer: Peer, limit: u32) {
        let visible = |row: &&DeathRow| peer.admin || row.uid == peer.uid;
        let newest = self.deaths.rows.iter().rev().filter(visible);
        let rows: Vec<DeathRow> = newest.take(limit as usize).cloned().collect();
        let bytes = 16 + rows.iter().map(row_bytes).sum::<u64>();
        self.reply(id, tag, Reply::Deaths(rows), bytes);
    }
}

fn row_bytes(row: &DeathRow) -> u64 {
    ROW_BYTES + row.kind.len() as u64 + row.death.evidence.wire_bytes()
}
