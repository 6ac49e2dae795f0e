//! Clients that leave too much unread: their jobs rest (`park_unread`) until little enough is unread.
//!
//! A client may go on when it has read, when others have taken or dropped its results, or when the unread results of its user,
//! or of all, are below their bound again. Each of these takes back an unread end (`relieve`), and after one every parked client
//! is looked at once more: [`LOOKS`] of them in a turn, users by turns, and the next turn begins at once while some are
//! left. So a turn never walks all parked clients.
//!
//! | a parked client is | until |
//! |---|---|
//! | looked at | an unread end is taken back: then it is to be looked at, once those are that are so already |
//! | to be looked at | its turn comes: it goes on, or was looked at |

use bulkhead_proto::ids::ClientId;

use crate::machine::Core;
use crate::turn::{Resource, UserTurns};

/// Parked clients that one turn looks at.
const LOOKS: usize = 64;

/// The parked clients, and some that went on or left since.
#[derive(Debug, Default)]
pub(super) struct ParkedLine {
    /// Those to be looked at.
    due: UserTurns,
    /// Those that were looked at.
    looked_at: UserTurns,
    /// Whether an unread end was taken back since the line of those to be looked at was made.
    has_changed: bool,
}

impl ParkedLine {
    /// Whether a turn had no room for some that are to be looked at.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty() || self.has_changed && !self.looked_at.is_empty()
    }

    /// Some may go on.
    pub(super) fn change(&mut self) {
        self.has_changed = true;
    }

    /// Adds a client that was looked at.
    fn add(&mut self, uid: u32, id: ClientId) {
        self.looked_at.add(uid, id);
    }

    /// Takes those that are to be looked at in this turn out of the line.
    fn take(&mut self) -> Vec<ClientId> {
        if self.due.is_empty() && std::mem::take(&mut self.has_changed) {
            std::mem::swap(&mut self.due, &mut self.looked_at);
        }
        std::iter::from_fn(|| self.due.take_next()).take(LOOKS).collect()
    }
}

impl Core {
    /// Lets a client's jobs rest while too much waits for it to read.
    pub(super) fn park_unread(&mut self, id: ClientId) {
        self.post_charges();
        if let Some((uid, true)) = self.is_unread(id)
            && !self.jobs.is_parked(id)
        {
            self.jobs.park(uid, id, true);
            self.parked.add(uid, id);
        }
    }

    /// Lets the jobs of parked clients go on whose turn to be looked at it is, and who left little enough unread.
    pub(super) fn unpark_read(&mut self) {
        self.post_charges();
        let mut is_one_read = false;
        for id in self.parked.take() {
            match self.is_unread(id) {
                Some((uid, true)) => self.parked.add(uid, id),
                Some((uid, false)) => {
                    self.jobs.park(uid, id, false);
                    is_one_read = true;
                }
                // It is gone.
                None => {}
            }
        }
        if is_one_read {
            self.dispatch();
        }
    }

    /// A connected client's user, and whether too much waits for it to read. What rooms gave back has to be posted.
    fn is_unread(&self, id: ClientId) -> Option<(u32, bool)> {
        let client = self.clients.see(id)?;
        let room = self.ledger.room(client.account(), Resource::UnreadResults);
        let of_user = (room.left() == 0).then(|| room.met(Resource::UnreadResults));
        let unread = self.clients.unread(&self.turn, id, of_user)?;
        let too_much = unread.bytes > unread.bytes_max || unread.outputs >= unread.outputs_max;
        Some((client.peer().uid, too_much))
    }

    /// Checks that no client rests for nothing.
    pub(super) fn audit_parked(&self) {
        let may_rest =
            |id| self.parked.has_due() || self.is_unread(id).is_some_and(|(_, is_unread)| is_unread);
        for id in self.jobs.parked_clients() {
            assert!(may_rest(id), "the jobs of client {id} rest until it has read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROWD: u64 = 3000;

    /// 3000 clients of one user and one of another.
    fn line() -> ParkedLine {
        let mut line = ParkedLine::default();
        (0..CROWD).for_each(|client| line.add(7, ClientId(client)));
        line.add(8, ClientId(CROWD));
        line
    }

    #[test]
    fn a_turn_looks_at_some_parked_clients_and_every_one_has_its_turn_after_a_change() {
        let mut line = line();
        assert_eq!((line.take(), line.has_due()), (Vec::new(), false), "nothing was read");
        line.change();
        let mut seen = Vec::new();
        while line.has_due() {
            let taken = line.take();
            assert!((1..=LOOKS).contains(&taken.len()), "{} in a turn", taken.len());
            seen.extend(taken);
        }
        assert!(seen[..2].contains(&ClientId(CROWD)), "the other user's is one of the first");
        seen.sort_unstable();
        assert_eq!(seen, (0..=CROWD).map(ClientId).collect::<Vec<_>>());
    }

    #[test]
    fn a_change_while_some_are_due_has_all_looked_at_once_more() {
        let mut line = line();
        line.change();
        for id in line.take() {
            line.add(7, id);
        }
        line.change();
        let mut seen = Vec::new();
        while line.has_due() {
            seen.extend(line.take());
        }
        assert_eq!(seen.len() as u64, CROWD + 1, "those that were looked at before are due again");
    }
}
