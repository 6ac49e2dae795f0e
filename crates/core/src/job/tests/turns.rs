//! What one take looks at: a bounded number of clients, whatever fits, and the next take goes on behind them.
//!
//! The tests count how often the judge is called; the machine's tests are in `core/tests`.

use std::collections::BTreeMap;

use bulkhead_proto::ids::{ClientId, JobId};

use super::{JobRoom, POOL};
use crate::job::{Search, TakeChoice};

/// As in `queue.rs`; with heads in one list, a client is judged once.
const OF_ONE_USER: usize = 16;
const OF_ALL: usize = 64;
const CLIENTS: u64 = 3000;

impl JobRoom {
    fn submit(&mut self, uid: u32, client: u64, priority: u8) -> JobId {
        let run = self.admit(1, |admission| {
            (admission.uid, admission.client) = (uid, ClientId(client));
            admission.submit.policy.priority = priority;
        });
        run.first()
    }

    /// One take that wants this job alone; gives whether it was found, and the jobs that were judged.
    fn search(&mut self, search: Search, wanted: Option<JobId>) -> (bool, Vec<JobId>) {
        let mut judged = Vec::new();
        let found = self.jobs.take(&self.turn, (POOL, search), 1, |candidate| {
            let job = candidate.number();
            judged.push(job);
            if Some(job) == wanted { TakeChoice::Take } else { TakeChoice::Skip }
        });
        if let Some(run) = found {
            self.start(run);
        }
        self.audit();
        (found.is_some(), judged)
    }

    fn is_open(&self) -> bool {
        self.jobs.is_search_open(POOL)
    }
}

#[test]
fn a_take_looks_at_few_of_3000_clients_whose_heads_do_not_fit_and_the_next_one_goes_on() {
    let mut room = JobRoom::new();
    for client in 0..CLIENTS {
        room.submit(1, client, 9);
    }
    for round in 0..2 {
        let (mut seen, mut takes) = (BTreeMap::new(), 0);
        loop {
            let (found, judged) = room.search(Search::Idle, None);
            assert!(!found && judged.len() <= OF_ONE_USER, "{} judged", judged.len());
            judged.into_iter().for_each(|job| *seen.entry(job).or_insert(0) += 1);
            takes += 1;
            if !room.is_open() {
                break;
            }
        }
        assert_eq!(
            (seen.len() as u64, takes),
            (CLIENTS, CLIENTS.div_ceil(OF_ONE_USER as u64)),
            "round {round}"
        );
        assert!(seen.values().all(|times| *times == 1), "each is judged once in a round");
    }
}

#[test]
fn a_less_urgent_job_that_fits_is_found_behind_all_that_do_not() {
    let mut room = JobRoom::new();
    for client in 0..CLIENTS {
        room.submit(1, client, 9);
    }
    let low = room.submit(1, CLIENTS, 0);
    let mut takes = 1;
    while !room.search(Search::Idle, Some(low)).0 {
        assert!(room.is_open(), "it goes on until it is found");
        takes += 1;
    }
    assert_eq!(
        takes,
        CLIENTS.div_ceil(OF_ONE_USER as u64) + u64::from(CLIENTS.is_multiple_of(OF_ONE_USER as u64))
    );
    // The next search begins with the most urgent level.
    let (_, judged) = room.search(Search::Idle, None);
    assert!(judged.len() == OF_ONE_USER && judged.iter().all(|job| *job < low));
}

#[test]
fn what_does_not_fit_of_one_user_costs_another_no_take() {
    let mut room = JobRoom::new();
    for client in 0..CLIENTS {
        room.submit(1, client, 9);
    }
    for client in CLIENTS..CLIENTS + 5 {
        let other = room.submit(2, client, 0);
        let (found, judged) = room.search(Search::Idle, Some(other));
        assert!(found && judged.len() <= OF_ONE_USER + 1, "{} judged", judged.len());
    }
}

#[test]
fn many_users_whose_heads_do_not_fit_are_looked_at_by_and_by() {
    let mut room = JobRoom::new();
    for uid in 0..200 {
        for client in 0..20 {
            room.submit(uid, u64::from(uid) * 100 + client, 5);
        }
    }
    let last = room.submit(200, 1_000_000, 0);
    // Users who hold workers come after all others.
    room.jobs.note_held(POOL, 200, Some(3));
    let mut seen = BTreeMap::new();
    loop {
        let (found, judged) = room.search(Search::Idle, Some(last));
        assert!(judged.len() <= OF_ALL, "{} judged", judged.len());
        judged.into_iter().for_each(|job| *seen.entry(job).or_insert(0) += 1);
        if found {
            break;
        }
        assert!(room.is_open(), "it goes on until it is found");
    }
    assert!(seen.values().all(|times| *times == 1), "nobody is judged twice in a round");
}

#[test]
fn who_comes_to_a_search_that_is_not_over_is_looked_at_in_it() {
    let mut room = JobRoom::new();
    for client in 0..100 {
        room.submit(1, client, 9);
    }
    room.search(Search::Idle, None);
    assert!(room.is_open());
    let late = room.submit(1, 100, 9);
    let other = room.submit(2, 101, 0);
    assert!(room.search(Search::Idle, Some(other)).0, "another user at once");
    let mut takes = 0;
    while !room.search(Search::Idle, Some(late)).0 {
        takes += 1;
        assert!(takes < 10);
    }
}

#[test]
fn a_search_ahead_is_another_one() {
    let mut room = JobRoom::new();
    let first = room.submit(1, 0, 9);
    for client in 1..100 {
        room.submit(1, client, 9);
    }
    room.search(Search::Idle, None);
    let (_, judged) = room.search(Search::Ahead, None);
    assert!(!judged.contains(&first), "who was passed over has lost its turn");
    assert!(!room.is_open(), "nothing waits for it");
    let mut takes = 0;
    while !room.search(Search::Ahead, Some(first)).0 {
        takes += 1;
        assert!(takes < 10);
    }
}

#[test]
fn a_job_that_must_not_be_overtaken_keeps_its_turn() {
    let mut room = JobRoom::new();
    let first = room.submit(1, 0, 5);
    let second = room.submit(1, 1, 5);
    room.submit(2, 2, 5);
    for _ in 0..3 {
        let mut judged = Vec::new();
        let found = room.jobs.take(&room.turn, (POOL, Search::Ahead), 1, |candidate| {
            judged.push(candidate.number());
            TakeChoice::Stop
        });
        assert_eq!((found, judged), (None, vec![first]));
    }
    assert!(room.search(Search::Idle, Some(first)).0);
    let found = room.jobs.take(&room.turn, (POOL, Search::Idle), 1, |_| TakeChoice::Take).unwrap();
    assert_ne!(found.first(), second, "the other user's turn");
}

#[test]
fn who_holds_the_fewest_workers_goes_first() {
    let mut room = JobRoom::new();
    let all: Vec<JobId> = [1, 2, 3].map(|uid| room.submit(uid, u64::from(uid), 5)).to_vec();
    room.jobs.note_held(POOL, 1, Some(2));
    room.jobs.note_held(POOL, 2, Some(1));
    let order = |room: &mut JobRoom| room.search(Search::Ahead, None).1;
    assert_eq!(order(&mut room), [all[2], all[1], all[0]]);
    room.jobs.note_held(POOL, 1, Some(0));
    room.jobs.note_held(POOL, 3, Some(4));
    assert_eq!(order(&mut room), [all[0], all[1], all[2]]);
    // One who comes later stands where the workers say that were held before.
    room.jobs.note_held(POOL, 9, Some(2));
    let late = room.submit(9, 9, 5);
    assert_eq!(order(&mut room), [all[0], all[1], late, all[2]]);
}
