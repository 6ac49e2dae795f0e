//! One level of a user's queue: the user's jobs of one priority, over all clients.
//!
//! A level is as urgent as its oldest head: `priority * ageing + waited`, so that waiting outweighs priority in the end. Its
//! clients take turns, and a client's turn takes the head of one of two lists in turn: jobs that have not begun, and parts
//! and merges. A parked client keeps its jobs here and counts in neither. `backlog.rs` drives it and decides which level it is.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::ids::ClientId;

use crate::job::list::{IntrusiveList, Key};
use crate::job::state::TaskKind;
use crate::job::table::JobTable;
use crate::job::turns::TurnNumber;
use crate::turn::count_down;

/// The machine's answer about the run whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeChoice {
    /// Take this run.
    Take,
    /// Look at the next list; this run keeps its place in it.
    Skip,
    /// Take nothing: no run may overtake this one.
    Stop,
}

/// The result of a search in a part of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picked {
    Job(Key),
    /// Nothing is wanted of all that was looked at, and all was.
    Nothing,
    /// A run that must not be overtaken has the turn.
    Stopped,
    /// Nothing is wanted so far, and the rest is looked at next time.
    Unfinished,
}

/// The machine's judgement of a run.
pub(crate) type Judge<'a> = dyn FnMut(&JobTable, Key) -> TakeChoice + 'a;

/// The user, the client, the level and the list of a queued job.
#[derive(Clone, Copy)]
pub(crate) struct QueuePlace {
    pub(super) uid: u32,
    pub(super) client: ClientId,
    pub(super) level: usize,
    list: usize,
}

impl QueuePlace {
    /// The place in which this job is queued.
    pub(super) fn of(jobs: &JobTable, key: Key) -> Self {
        let batch = jobs.batch(key);
        let has_begun = matches!(jobs[key].task_kind, TaskKind::Run | TaskKind::Merge);
        let (level, list) = (usize::from(batch.policy.priority), usize::from(has_begun));
        Self { uid: batch.uid, client: batch.client, level, list }
    }

    /// Whether it is among the jobs that have not begun.
    pub(super) fn is_unbegun(&self) -> bool {
        self.list == 0
    }
}

/// Jobs of one place that enter the queue together: a list of them, and how many there are.
#[derive(Clone, Copy)]
pub(crate) struct Entering {
    pub(super) list: IntrusiveList,
    pub(super) count: u64,
}

/// The end of a list at which jobs enter it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Back,
    Front,
}

/// The jobs of one client in a level. It is not empty.
#[derive(Debug, Default)]
struct ClientShare {
    /// Jobs that have not begun; parts and merges.
    lists: [IntrusiveList; 2],
    length: u64,
    /// Whether the last turn took a part or a merge.
    was_part: bool,
    /// Its place in line; none while it is parked.
    turn: Option<TurnNumber>,
    /// Since when its older head waits, as it stands in `Level::oldest`; none while it is parked.
    since_ns: Option<u64>,
}

impl ClientShare {
    fn unlink(&mut self, jobs: &mut JobTable, key: Key, list: usize) {
        self.lists[list].unlink(&mut jobs.slab, key);
        count_down(&mut self.length, 1, "queued jobs of a client");
    }

    /// Its heads may have changed, or whether it is parked: notes since when the older one waits.
    fn refresh(&mut self, jobs: &JobTable, client: ClientId, oldest: &mut BTreeSet<(u64, ClientId)>) {
        let now = self.oldest_ns(jobs).filter(|_| self.turn.is_some());
        let before = std::mem::replace(&mut self.since_ns, now);
        if before != now {
            before.map(|since_ns| oldest.remove(&(since_ns, client)));
            now.map(|since_ns| oldest.insert((since_ns, client)));
        }
    }

    /// Since when the older of its heads waits.
    fn oldest_ns(&self, jobs: &JobTable) -> Option<u64> {
        let heads = self.lists.iter().filter_map(IntrusiveList::head);
        heads.map(|key| jobs.batch(key).since_ns()).min()
    }
}

/// The queued jobs of one user and one priority.
#[derive(Debug, Default)]
pub(crate) struct Level {
    shares: BTreeMap<ClientId, ClientShare>,
    turns: BTreeMap<TurnNumber, ClientId>,
    oldest: BTreeSet<(u64, ClientId)>,
}

impl Level {
    /// Clients that take turns here.
    pub(super) fn ready(&self) -> usize {
        self.turns.len()
    }

    /// Whether a client is one of them.
    pub(super) fn is_ready(&self, client: ClientId) -> bool {
        self.shares.get(&client).is_some_and(|share| share.turn.is_some())
    }

    /// Whether a client has jobs here.
    pub(super) fn has_jobs_of(&self, client: ClientId) -> bool {
        self.shares.contains_key(&client)
    }

    /// The first in line.
    pub(super) fn first_turn(&self) -> Option<TurnNumber> {
        self.turns.first_key_value().map(|(turn, _)| *turn)
    }

    /// Since when the oldest head waits.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        self.oldest.first().map(|(since_ns, _)| *since_ns)
    }

    /// Puts jobs into their list. A client that is not parked and not in line joins it at the place that `join` gives.
    pub(super) fn push(
        &mut self,
        jobs: &mut JobTable,
        (Entering { list: mut entering, count }, place): (Entering, QueuePlace),
        side: Side,
        join: Option<impl FnOnce() -> TurnNumber>,
    ) {
        let share = self.shares.entry(place.client).or_default();
        let list = &mut share.lists[place.list];
        // Behind others it changes no head.
        let mut is_new = side == Side::Front || list.head().is_none();
        match side {
            Side::Back => list.append(&mut jobs.slab, entering),
            Side::Front => {
                entering.append(&mut jobs.slab, *list);
                *list = entering;
            }
        }
        share.length += count;
        if share.turn.is_none()
            && let Some(join) = join
        {
            let turn = join();
            share.turn = Some(turn);
            self.turns.insert(turn, place.client);
            is_new = true;
        }
        if is_new {
            self.refresh(jobs, place.client);
        }
    }

    /// Takes a job out of its list.
    ///
    /// # Panics
    /// If its client has no jobs here.
    pub(super) fn unlink(&mut self, jobs: &mut JobTable, key: Key, place: QueuePlace) {
        let share = self.shares.get_mut(&place.client).expect("the client of a queued job is in the queue");
        let was_head = share.lists[place.list].head() == Some(key);
        share.unlink(jobs, key, place.list);
        if was_head {
            share.refresh(jobs, place.client, &mut self.oldest);
        }
        if share.length == 0 {
            self.remove_share(place.client);
        }
    }

    /// A client has no jobs here any more.
    fn remove_share(&mut self, client: ClientId) {
        let gone = self.shares.remove(&client);
        gone.and_then(|share| share.turn).map(|turn| self.turns.remove(&turn));
    }

    /// The heads of a client may have changed, or whether it is parked.
    pub(super) fn refresh(&mut self, jobs: &JobTable, client: ClientId) {
        if let Some(share) = self.shares.get_mut(&client) {
            share.refresh(jobs, client, &mut self.oldest);
        }
    }

    /// Takes a client out of the line; gives how many jobs rest by that.
    pub(super) fn park(&mut self, jobs: &JobTable, client: ClientId) -> u64 {
        let Some(share) = self.shares.get_mut(&client) else { return 0 };
        let Some(turn) = share.turn.take() else { return 0 };
        let length = share.length;
        self.turns.remove(&turn);
        self.refresh(jobs, client);
        length
    }

    /// Puts a client that was parked into the line; gives how many jobs go on by that.
    pub(super) fn unpark(&mut self, jobs: &JobTable, client: ClientId, turn: TurnNumber) -> u64 {
        let Some(share) = self.shares.get_mut(&client).filter(|share| share.turn.is_none()) else { return 0 };
        share.turn = Some(turn);
        let length = share.length;
        self.turns.insert(turn, client);
        self.refresh(jobs, client);
        length
    }

    /// Judges the heads of the client whose turn it is. `last`: the end of the line, where it goes unless the turn is kept.
    pub(super) fn look(
        &mut self,
        jobs: &mut JobTable,
        last: impl FnOnce() -> TurnNumber,
        judge: &mut Judge<'_>,
    ) -> Picked {
        let Some((&turn, &client)) = self.turns.first_key_value() else { return Picked::Nothing };
        let share = self.shares.get_mut(&client).expect("a client with a turn has jobs");
        let first = usize::from(!share.was_part);
        for list in [first, 1 - first] {
            let Some(key) = share.lists[list].head() else { continue };
            match judge(jobs, key) {
                TakeChoice::Take => {
                    share.was_part = list == 1;
                    share.unlink(jobs, key, list);
                    let next = share.lists[list].head();
                    // Jobs of one batch wait since the same moment.
                    if next.is_none_or(|next| jobs[next].batch != jobs[key].batch) {
                        share.refresh(jobs, client, &mut self.oldest);
                    }
                    let is_empty = share.length == 0;
                    // A client that is alone has the next turn too.
                    if self.turns.len() > 1 {
                        self.move_turn(client, turn, last());
                    }
                    if is_empty {
                        self.remove_share(client);
                    }
                    return Picked::Job(key);
                }
                TakeChoice::Skip => {}
                // The turn is not used up: the next search begins with the job that must not be overtaken.
                TakeChoice::Stop => return Picked::Stopped,
            }
        }
        self.move_turn(client, turn, last());
        Picked::Nothing
    }

    fn move_turn(&mut self, client: ClientId, from: TurnNumber, to: TurnNumber) {
        self.turns.remove(&from);
        self.turns.insert(to, client);
        if let Some(share) = self.shares.get_mut(&client) {
            share.turn = Some(to);
        }
    }

    /// Counts jobs before this one in its list, up to `most`.
    pub(super) fn before(jobs: &JobTable, key: Key, most: u64) -> u64 {
        IntrusiveList::before(&jobs.slab, key, most)
    }

    /// Counts jobs that have not begun and were there by `until_ns`, up to `most`: those of this client, and those of others.
    pub(super) fn older(
        &self,
        jobs: &JobTable,
        until_ns: Option<u64>,
        client: ClientId,
        most: u64,
    ) -> (u64, u64) {
        let (mut own, mut others) = (0, 0);
        let Some(until_ns) = until_ns else { return (0, 0) };
        for (since_ns, of) in &self.oldest {
            if *since_ns > until_ns || own + others >= most {
                break;
            }
            // Parts are no jobs and take turns with them, so they are not counted.
            let list = self.shares.get(of).map(|share| share.lists[0]).unwrap_or_default();
            let left = usize::try_from(most - own - others).unwrap_or(usize::MAX);
            let is_older = |key: &Key| jobs.batch(*key).since_ns() <= until_ns;
            let count = list.walk(&jobs.slab).take(left).take_while(is_older).count() as u64;
            *if *of == client { &mut own } else { &mut others } += count;
        }
        (own, others)
    }

    /// Checks what must always hold of this level; gives the jobs in it, and those of them that do not rest.
    pub(super) fn audit(
        &self,
        jobs: &JobTable,
        (pool, uid, level): (usize, u32, usize),
        is_parked: impl Fn(ClientId) -> bool,
    ) -> (u64, u64) {
        let (mut length, mut ready) = (0, 0);
        for (client, share) in &self.shares {
            let mut owned = 0;
            for (number, list) in share.lists.iter().enumerate() {
                for key in list.walk(&jobs.slab) {
                    let place = QueuePlace::of(jobs, key);
                    assert_eq!(
                        usize::from(jobs.batch(key).pool().0),
                        pool,
                        "a job waits where its kind runs"
                    );
                    assert_eq!(
                        (place.uid, place.client, place.level, place.list),
                        (uid, *client, level, number)
                    );
                    owned += 1;
                }
            }
            assert_eq!(owned, share.length, "queued jobs are counted by client and level");
            assert!(owned > 0, "a client without jobs has no share");
            assert_eq!(
                share.turn.is_none(),
                is_parked(*client),
                "a client with jobs has turns, or is parked"
            );
            assert_eq!(share.since_ns, share.oldest_ns(jobs).filter(|_| share.turn.is_some()));
            let in_line = |turn: TurnNumber| self.turns.get(&turn) == Some(client);
            assert!(share.turn.is_none_or(in_line), "a client in line has one turn");
            let is_old = |since_ns: u64| self.oldest.contains(&(since_ns, *client));
            assert!(share.since_ns.is_none_or(is_old), "a level knows its oldest head");
            length += owned;
            ready += if share.turn.is_some() { owned } else { 0 };
        }
        let in_line = self.shares.values().filter(|share| share.turn.is_some()).count();
        assert_eq!(
            (self.turns.len(), self.oldest.len()),
            (in_line, in_line),
            "parked clients count in neither"
        );
        (length, ready)
    }
}
