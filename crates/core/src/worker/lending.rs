//! Lending: the slots that a pool has beyond its number, for users who wait while others hold all workers.
//!
//! A user who holds no worker of a pool and has a task there that may run waits; after `lend_after_ms` the pool lends that
//! user one slot, if tasks run in all of its own. A move that is not in this table of lent slots is an assertion:
//!
//! | state | its worker | its user | leaves to |
//! |---|---|---|---|
//! | free | none | none | lent (a user has waited, and a spare is ready) |
//! | lent | a former spare: idle, busy, or killed and not proven dead | runs one task at a time in it | free (taken in by an own slot of the pool, or nothing of its user may run, or it died), jammed (its worker is stuck) |
//! | jammed | stuck | none | free (its death is proven) |
//!
//! A jammed slot is not given away: what was counted at the start bounds the workers of a pool. A user has at most one lent
//! slot of a pool, and one alarm; whose lent worker died goes on waiting as before it was lent, so the next spare is for the
//! retry. Only this file and `loans.rs`, which moves workers, write what is here.

use std::collections::BTreeMap;
use std::ops::Range;

use bulkhead_proto::ids::PoolId;

use crate::turn::{Alarm, AlarmSlot, Turn, ms};

/// A slot beyond the number of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LentSlot {
    /// No worker has it.
    #[default]
    Free,
    /// Its worker runs tasks of this user alone.
    Lent { uid: u32 },
    /// Its worker is stuck.
    Jammed,
}

/// [`LentSlot`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LentState {
    Free,
    Lent,
    Jammed,
}

impl LentState {
    /// The states that this one may be left for: the table at the top of this file.
    fn leads_to(self) -> &'static [LentState] {
        match self {
            LentState::Free => &[LentState::Lent],
            LentState::Lent => &[LentState::Free, LentState::Jammed],
            LentState::Jammed => &[LentState::Free],
        }
    }
}

impl LentSlot {
    fn state(self) -> LentState {
        match self {
            LentSlot::Free => LentState::Free,
            LentSlot::Lent { .. } => LentState::Lent,
            LentSlot::Jammed => LentState::Jammed,
        }
    }

    /// The user to whom it is lent.
    pub(super) fn user(self) -> Option<u32> {
        match self {
            LentSlot::Lent { uid } => Some(uid),
            LentSlot::Free | LentSlot::Jammed => None,
        }
    }
}

/// A user who holds no worker of a pool and has a task there that may run.
#[derive(Debug)]
struct LendWait {
    /// Since when, nanoseconds on the clock of the turns.
    since_ns: u64,
    /// For the moment at which a slot may be lent; empty once it went off.
    alarm: AlarmSlot,
}

/// The lent slots of one pool, and the users who wait for one.
#[derive(Debug)]
pub(super) struct Lending {
    /// Its slots, among all of them: behind those of every pool's own.
    pub(super) places: Range<usize>,
    slots: Vec<LentSlot>,
    waits: BTreeMap<u32, LendWait>,
    after_ns: u64,
}

impl Lending {
    /// `lend_max` free slots, which begin at `first`.
    pub(super) fn new(first: usize, lend_max: u16, after_ms: u64) -> Self {
        let count = usize::from(lend_max);
        let slots = vec![LentSlot::Free; count];
        Self { places: first..first + count, slots, waits: BTreeMap::new(), after_ns: ms(after_ms) }
    }

    /// Whether it has slots to lend, free or not.
    pub(super) fn is_on(&self) -> bool {
        !self.slots.is_empty()
    }

    /// The first free slot, among all slots of the daemon.
    pub(super) fn free_place(&self) -> Option<usize> {
        let at = self.slots.iter().position(|slot| *slot == LentSlot::Free)?;
        Some(self.places.start + at)
    }

    /// The state of the slot at this place, if it is one of these.
    pub(super) fn at(&self, place: usize) -> Option<LentSlot> {
        self.slots.get(place.checked_sub(self.places.start)?).copied()
    }

    /// The places of slots that are lent, and their users.
    pub(super) fn lent(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        let all = self.places.clone().zip(&self.slots);
        all.filter_map(|(place, slot)| Some((place, slot.user()?)))
    }

    /// Whether a slot is lent to this user.
    pub(super) fn is_lent_to(&self, uid: u32) -> bool {
        self.slots.contains(&LentSlot::Lent { uid })
    }

    /// The one way from state to state.
    ///
    /// # Panics
    /// If the table of states does not have it.
    pub(super) fn enter(&mut self, place: usize, slot: LentSlot) {
        let at = &mut self.slots[place - self.places.start];
        let (from, to) = (at.state(), slot.state());
        assert!(from.leads_to().contains(&to), "lent slot {place} went from {from:?} to {to:?}");
        *at = slot;
    }

    /// The worker in a lent slot left or died: its user goes on waiting as before the slot was lent.
    pub(super) fn give_back(&mut self, place: usize, now_ns: u64) {
        let user = self.at(place).and_then(LentSlot::user);
        self.enter(place, LentSlot::Free);
        if let Some(uid) = user {
            let since_ns = now_ns.saturating_sub(self.after_ns);
            self.waits.insert(uid, LendWait { since_ns, alarm: AlarmSlot::default() });
        }
    }

    /// These users, sorted, and no others, hold no worker and have a task that may run.
    pub(super) fn keep_waiting(&mut self, turn: &mut Turn, pool: PoolId, users: &[u32]) {
        let over: Vec<u32> =
            self.waits.keys().copied().filter(|uid| users.binary_search(uid).is_err()).collect();
        over.into_iter().for_each(|uid| self.end_wait(turn, pool, uid));
        for &uid in users {
            self.waits.entry(uid).or_insert_with(|| {
                let (since_ns, mut alarm) = (turn.now_ns(), AlarmSlot::default());
                turn.set(&mut alarm, Alarm::Lend(pool, uid), since_ns.saturating_add(self.after_ns));
                LendWait { since_ns, alarm }
            });
        }
    }

    /// A user waits no more.
    pub(super) fn end_wait(&mut self, turn: &mut Turn, pool: PoolId, uid: u32) {
        if let Some(mut wait) = self.waits.remove(&uid) {
            turn.cancel(&mut wait.alarm, Alarm::Lend(pool, uid));
        }
    }

    /// Whether anybody waits.
    pub(super) fn has_waits(&self) -> bool {
        !self.waits.is_empty()
    }

    /// The alarm of a user went off: the dispatch of the same turn lends.
    ///
    /// # Panics
    /// If it was not set.
    pub(super) fn rang(&mut self, uid: u32) {
        let wait = self.waits.get_mut(&uid).expect("the alarm of a user who waits no more is cancelled");
        wait.alarm.clear();
    }

    /// When the alarm of a user goes off.
    pub(super) fn alarm_ns(&self, uid: u32) -> Option<u64> {
        self.waits.get(&uid)?.alarm.at_ns()
    }

    /// When a slot may be lent to a user who waits.
    pub(super) fn due_ns(&self, uid: u32) -> Option<u64> {
        Some(self.waits.get(&uid)?.since_ns.saturating_add(self.after_ns))
    }

    /// The users who have waited long enough, who has waited longest first.
    pub(super) fn due(&self, now_ns: u64) -> Vec<u32> {
        let mut due: Vec<(u64, u32)> = self
            .waits
            .iter()
            .filter(|(_, wait)| wait.since_ns.saturating_add(self.after_ns) <= now_ns)
            .map(|(uid, wait)| (wait.since_ns, *uid))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, uid)| uid).collect()
    }

    /// All users who wait, for the audit.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> + '_ {
        self.waits.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_lent_slots_is_the_code() {
        let names = |states: &[LentState]| states.iter().map(|state| format!("{state:?}")).collect();
        let code = crate::every_state!(LentState: Free, Lent, Jammed)
            .map(|state| (format!("{state:?}"), names(state.leads_to())));
        crate::state_tables::assert_told(include_str!("lending.rs"), code);
    }

    #[test]
    #[should_panic(expected = "lent slot 3 went from Free to Jammed")]
    fn a_slot_without_a_worker_is_not_jammed() {
        Lending::new(3, 2, 5000).enter(3, LentSlot::Jammed);
    }

    #[test]
    fn whose_lent_worker_died_goes_on_waiting_and_behind_those_who_waited_longer() {
        let mut lending = Lending::new(3, 2, 5000);
        lending.enter(4, LentSlot::Lent { uid: 7 });
        lending.waits.insert(8, LendWait { since_ns: ms(1000), alarm: AlarmSlot::default() });
        lending.waits.insert(9, LendWait { since_ns: ms(4000), alarm: AlarmSlot::default() });
        lending.give_back(4, ms(8000));
        assert_eq!(lending.due(ms(8000)), [8, 7]);
        lending.enter(4, LentSlot::Lent { uid: 8 });
        lending.enter(4, LentSlot::Jammed);
        assert_eq!((lending.free_place(), lending.is_lent_to(8)), (Some(3), false));
        lending.give_back(4, ms(9000));
        assert_eq!(lending.at(4), Some(LentSlot::Free));
        assert_eq!(lending.due(ms(9000)), [8, 7, 9], "nobody's wait begins anew");
    }
}
