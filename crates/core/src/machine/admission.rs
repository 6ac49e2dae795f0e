//! Admission by account: for how much more of a bounded resource a user has room, and the refusal of the rest.
//!
//! The ledger (`account/`) has the rule. The machine posts what the rooms took and gave back before it asks.

use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::job::Payload;

use crate::account::Room;
use crate::event::Attached;
use crate::job::pinned_bytes;
use crate::machine::Core;
use crate::turn::{AccountId, Resource};

impl Core {
    /// Posts what the rooms took and gave back to the ledger.
    #[inline]
    pub(super) fn post_charges(&mut self) {
        let Self { jobs, turn, ledger, .. } = self;
        jobs.post_charges(|charges| ledger.post(charges));
        turn.post_charges(|charges| ledger.post(charges));
    }

    /// How much more of a resource an account may take.
    pub(super) fn room(&mut self, account: AccountId, resource: Resource) -> Room {
        self.post_charges();
        self.ledger.room(account, resource)
    }

    /// How many of these inputs fit into the queue, and the refusal of the rest.
    pub(super) fn room_in_queue(&mut self, account: AccountId, inputs: &[Payload]) -> (u64, Option<Refusal>) {
        let (jobs, bytes) = (self.room(account, Resource::Queue), self.room(account, Resource::QueueBytes));
        // Inputs are admitted in order up to the first that does not fit: the numbers of a batch have no gap.
        let (count, mut bytes_left, mut fitting) = (inputs.len() as u64, bytes.left(), 0);
        for input in inputs {
            let size = input.as_bytes().len() as u64;
            if size > bytes_left {
                break;
            }
            bytes_left -= size;
            fitting += 1;
        }
        if count <= jobs.left().min(fitting) {
            (count, None)
        } else if jobs.left() <= fitting {
            (jobs.left(), Some(jobs.refusal(Resource::Queue, self.turn.retry_after_ms(count - jobs.left()))))
        } else {
            (fitting, Some(bytes.refusal(Resource::QueueBytes, self.turn.retry_after_ms(count - fitting))))
        }
    }

    /// Whether there is room for the files that came with a submit.
    ///
    /// # Errors
    /// They never fit, or not now.
    pub(super) fn room_for_files(&mut self, account: AccountId, came: &[Attached]) -> Result<(), Refusal> {
        let wanted = [(Resource::Files, came.len() as u64), (Resource::FileBytes, pinned_bytes(came))];
        for (resource, wanted) in wanted.into_iter().filter(|(_, wanted)| *wanted > 0) {
            let (room, share) = (self.room(account, resource), self.ledger.share(account, resource));
            if wanted > share {
                let what = resource.name();
                let set_by = self.ledger.origin(resource).key().unwrap_or("fixed");
                let why =
                    format!("{wanted} {what}, at most {share} fit ({set_by}): leave large files on a disk");
                return Err(Refusal::Invalid { why });
            }
            if wanted > room.left() {
                return Err(room.refusal(resource, self.turn.retry_after_ms(1)));
            }
        }
        Ok(())
    }
}
