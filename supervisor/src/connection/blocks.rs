//! Blocks of arenas on one connection: told in replies, freed by requests, and the news that an arena is gone.
//!
//! What the connection holds stands in `result_arena.rs`. Nothing here reads an arena. Driven by `connection.rs` and
//! `client_table.rs`.

use std::rc::Rc;

use bulkhead_proto::client::message::{Reply, ReplyFrame};
use bulkhead_proto::client::outcome::JobOutput;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::Tag;
use bulkhead_proto::limits::FREED_MAX;

use super::{Connection, refuse};
use crate::outbox::Outbox;
use crate::result_arena::{HeldBlock, ToldBlocks};

impl Connection {
    /// Queues a reply with one end whose output is this block.
    pub(crate) fn reply_block(&mut self, mut frame: ReplyFrame, block: Rc<HeldBlock>) {
        if self.is_closing() || self.has_left {
            return;
        }
        let (told, file) = self.told.tell(block);
        if let Some([end]) = frame.reply.ends_mut() {
            end.output = JobOutput::Block(told);
        }
        self.reply(&frame, file);
    }

    /// The worker of an arena is dead. `true`: the client is told.
    pub(crate) fn arena_over(&mut self, arena: u64) -> bool {
        let is_gone = self.told.is_gone(arena);
        if is_gone {
            self.reply(&arena_gone(arena), None);
        }
        is_gone
    }
}

/// The client has freed these blocks.
pub(super) fn free(told: &mut ToldBlocks, outbox: &mut Outbox, tag: Tag, blocks: &[u64]) {
    let mut unknown = None;
    for block in blocks {
        match told.free(*block) {
            Ok(gone) => {
                let frame = gone.map(arena_gone);
                frame.into_iter().for_each(|frame| outbox.push(&frame, None).expect("it is short"));
            }
            Err(()) => unknown = Some(*block),
        }
    }
    let too_many = (blocks.len() > FREED_MAX)
        .then(|| format!("{} blocks are freed at once, the limit is {FREED_MAX}", blocks.len()));
    let why = unknown.map(|block| {
        format!("block {block} is freed, and this connection does not hold it: free each block once")
    });
    if let Some(why) = too_many.or(why) {
        refuse(outbox, tag, Refusal::Invalid { why });
    }
}

fn arena_gone(arena: u64) -> ReplyFrame {
    ReplyFrame { tag: Tag(0), reply: Reply::ArenaGone { arena } }
}
