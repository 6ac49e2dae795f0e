//! Replies that name blocks of arenas, and the end of an arena, for whichever clients have it.
//!
//! A dead worker's arena is news for few clients, and all are asked: workers with arenas die seldom. Driven by `perform.rs`.

use std::rc::Rc;

use bulkhead_proto::client::message::ReplyFrame;
use bulkhead_proto::ids::ClientId;

use super::ClientTable;
use crate::result_arena::HeldBlock;

impl ClientTable {
    /// Queues a reply with one end whose output is this block.
    pub(crate) fn reply_block(&mut self, client: ClientId, frame: ReplyFrame, block: Rc<HeldBlock>) {
        let Some(connection) = self.connections.get_mut(&client) else { return };
        connection.reply_block(frame, block);
        self.unread.note(client, connection.account(), connection.unread_bytes());
        self.unflushed.add(connection.uid(), client);
    }

    /// The worker of an arena is dead: tells the clients that have it and read nothing of it.
    pub(crate) fn arena_over(&mut self, arena: u64) {
        for (client, connection) in &mut self.connections {
            if connection.arena_over(arena) {
                self.unflushed.add(connection.uid(), *client);
            }
        }
    }
}
