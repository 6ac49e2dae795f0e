//! Credit: how many bytes of replies may be on their way to a client.
//!
//! Each reply is charged to its client's credit; the credit is whole again when the shell has sent everything. A
//! client without credit is sent no result, no page of records and no notice. A client that leaves too much unread
//! has its own jobs parked, and no others.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::MetBound;
use bulkhead_proto::client::why::Unread;
use bulkhead_proto::ids::{ClientId, LogId, OutputId, Tag};

use crate::action::Action;
use crate::client::Clients;
use crate::turn::{Turn, count_down};

/// A reply with a descriptor costs this part of the whole credit: an outbox holds few descriptors.
const OUTPUTS_ON_THEIR_WAY: u64 = 64;
/// What a reply with a log costs beside its descriptor, in bytes.
const LOG_BYTES: u64 = 48;
/// A client's jobs are parked when its unread ends weigh so many times its whole credit...
const UNREAD_CREDITS: u64 = 4;
/// ...or have so many held outputs.
const UNREAD_OUTPUTS: u64 = 16;

/// The whole credit of a client, in bytes.
pub(super) fn whole_credit(turn: &Turn) -> i64 {
    i64::try_from(turn.config().client_credit_bytes).unwrap_or(i64::MAX).max(1)
}

impl Clients {
    /// Sends a reply of about so many bytes, and the output that goes with it.
    pub(crate) fn reply(
        &mut self,
        turn: &mut Turn,
        (id, tag): (ClientId, Tag),
        reply: Reply,
        bytes: u64,
        output: Option<OutputId>,
    ) {
        let Some(client) = self.connected(id) else { return };
        let descriptor =
            if output.is_some() { turn.config().client_credit_bytes / OUTPUTS_ON_THEIR_WAY } else { 0 };
        client.credit = client.credit.saturating_sub_unsigned(bytes + descriptor);
        turn.act(Action::Reply { client: id, tag, reply, output });
    }

    /// Sends a reply with a log, charged like one with an output.
    pub(crate) fn show_log(&mut self, turn: &mut Turn, (id, tag): (ClientId, Tag), reply: Reply, log: LogId) {
        let Some(client) = self.connected(id) else { return };
        let descriptor = turn.config().client_credit_bytes / OUTPUTS_ON_THEIR_WAY;
        client.credit = client.credit.saturating_sub_unsigned(LOG_BYTES + descriptor);
        turn.act(Action::ShowLog { client: id, tag, reply, log });
    }

    /// The credit of a client; 0 if it is not connected.
    pub(crate) fn credit(&self, id: ClientId) -> i64 {
        self.see(id).map_or(0, |client| client.credit)
    }

    /// Whether a client is connected and has credit.
    pub(crate) fn has_credit(&self, id: ClientId) -> bool {
        self.see(id).is_some_and(|client| client.credit > 0)
    }

    /// All replies to a client have left: its credit is whole again.
    pub(crate) fn flushed(&mut self, turn: &Turn, id: ClientId) {
        if let Some(client) = self.connected(id) {
            client.credit = whole_credit(turn);
            self.mark(id);
            self.read_soon(id);
        }
    }

    /// Whether something may wait for the credit that this client's flush gives back: it has letters or a reader, or less than
    /// half of its credit.
    pub(crate) fn awaits_flush(&self, turn: &Turn, id: ClientId) -> bool {
        self.see(id).is_some_and(|client| {
            !client.letters.is_empty() || !client.readers.is_empty() || client.credit < whole_credit(turn) / 2
        })
    }

    /// Counts an end of an attached job that its client has not read.
    ///
    /// # Panics
    /// If the client is not connected: [`Clients::hang_up`] detached its jobs.
    pub(crate) fn add_untold(&mut self, id: ClientId, bytes: u64, outputs: u64) {
        let client = self.connected(id).expect("the client of an attached job is connected");
        client.untold_bytes += bytes;
        client.untold_outputs += outputs;
    }

    /// Uncounts an end of an attached job, if its client is not forgotten.
    ///
    /// # Panics
    /// If it was not counted.
    pub(crate) fn remove_untold(&mut self, id: ClientId, bytes: u64, outputs: u64) {
        let Some(client) = self.map.get_mut(&id) else { return };
        count_down(&mut client.untold_bytes, bytes, "bytes of ends that a client was not told");
        count_down(&mut client.untold_outputs, outputs, "outputs that a client was not told");
    }

    /// What a connected client has not read, and how much it may leave unread. `of_user`: the bound that the
    /// unread ends of all clients of its user have met.
    pub(crate) fn unread(&self, turn: &Turn, id: ClientId, of_user: Option<MetBound>) -> Option<Unread> {
        let most = turn.config().client_credit_bytes.saturating_mul(UNREAD_CREDITS);
        let client = self.see(id)?;
        Some(Unread {
            bytes: client.untold_bytes,
            bytes_max: if of_user.is_some() { 0 } else { most },
            outputs: client.untold_outputs,
            outputs_max: UNREAD_OUTPUTS,
            of_user,
        })
    }
}
