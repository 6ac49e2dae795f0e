//! Who is next: users take turns, and of one user its clients.
//!
//! | who waits | who is next |
//! |---|---|
//! | clients of several users | the client of the user whose last turn is the longest ago |
//! | several clients of that user | the one that has waited the longest |
//!
//! So a user with one client is next after at most one client of every other user, however many clients those have.
//! A client stands in the line once. One that has left is handed out once more, and its caller passes it over; the
//! line never asks whether a client is there. The shell reads and sends in this order, the machine delivers letters.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::ids::ClientId;

/// Clients that wait for their turn, by user.
#[derive(Debug, Default)]
pub struct UserTurns {
    /// The client that waits alone, and its user: then nothing else is held, and nothing is allocated. Most turns have one.
    alone: Option<(u32, ClientId)>,
    /// The users of whom a client waits, in the order of their turns.
    users: VecDeque<u32>,
    /// The clients that wait, of each user in the order of their turns.
    lines: BTreeMap<u32, VecDeque<ClientId>>,
    /// The same clients, each with its user.
    waiting: BTreeMap<ClientId, u32>,
}

impl UserTurns {
    /// Puts a client of this user at the end of its user's line, unless it stands there. A user who had no line is
    /// the last of the users.
    pub fn add(&mut self, uid: u32, client: ClientId) {
        match self.alone {
            None if self.users.is_empty() => self.alone = Some((uid, client)),
            Some((_, alone)) if alone == client => {}
            _ => {
                let alone = self.alone.take();
                alone.into_iter().chain([(uid, client)]).for_each(|(uid, client)| self.line_up(uid, client));
            }
        }
    }

    fn line_up(&mut self, uid: u32, client: ClientId) {
        if self.waiting.insert(client, uid).is_some() {
            return;
        }
        let line = self.lines.entry(uid).or_default();
        if line.is_empty() {
            self.users.push_back(uid);
        }
        line.push_back(client);
    }

    /// Takes the client whose turn it is out of its line; its user goes behind the others.
    pub fn take_next(&mut self) -> Option<ClientId> {
        if let Some((_, client)) = self.alone.take() {
            return Some(client);
        }
        let uid = self.users.pop_front()?;
        let line = self.lines.get_mut(&uid)?;
        let client = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&uid);
        } else {
            self.users.push_back(uid);
        }
        self.waiting.remove(&client);
        Some(client)
    }

    /// Whether no client waits.
    pub fn is_empty(&self) -> bool {
        self.alone.is_none() && self.users.is_empty()
    }

    /// How many clients wait.
    pub fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.alone.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of these clients, each with its user.
    fn line(clients: impl IntoIterator<Item = (u32, u64)>) -> UserTurns {
        let mut turns = UserTurns::default();
        clients.into_iter().for_each(|(uid, client)| turns.add(uid, ClientId(client)));
        turns
    }

    fn order(turns: &mut UserTurns) -> Vec<u64> {
        std::iter::from_fn(|| turns.take_next()).map(|client| client.0).collect()
    }

    #[test]
    fn users_take_turns_and_then_their_clients() {
        let mut turns = line([(7, 1), (7, 2), (7, 3), (8, 4), (9, 5), (9, 6)]);
        assert_eq!(turns.len(), 6);
        assert_eq!(order(&mut turns), [1, 4, 5, 2, 6, 3]);
        assert_eq!((turns.len(), turns.is_empty()), (0, true));
    }

    #[test]
    fn a_neighbour_is_next_but_one_however_many_clients_another_has() {
        let mut turns = line((1..=3000).map(|client| (7, client)));
        for _ in 0..100 {
            turns.take_next();
        }
        turns.add(8, ClientId(9000));
        assert!([turns.take_next(), turns.take_next()].contains(&Some(ClientId(9000))));
    }

    #[test]
    fn a_client_stands_in_line_once_and_goes_behind_its_own_when_it_comes_back() {
        let mut turns = line([(7, 1), (7, 2), (7, 1), (7, 1)]);
        assert_eq!(turns.take_next(), Some(ClientId(1)));
        turns.add(7, ClientId(1));
        assert_eq!(order(&mut turns), [2, 1]);
        for clients in [&[(7, 1)][..], &[(7, 1), (7, 1)], &[(7, 1), (7, 1), (8, 2), (7, 1)]] {
            let mut turns = line(clients.iter().copied());
            let count = turns.len();
            assert_eq!(order(&mut turns).len(), count, "{clients:?}");
            assert_eq!(
                (count, turns.is_empty()),
                (if clients.len() > 2 { 2 } else { 1 }, true),
                "{clients:?}"
            );
        }
    }
}
