//! Prefetch depths and output habits of flavours: how tasks of one kind are that a client tells apart by a number of its choice.
//!
//! A kind that runs functions of its clients (`call` of a script runtime) has no usual duration: without flavours one slow
//! function would set depth 1 for all of them. A submit names its flavour; flavour 0 is none.
//!
//! | a task of | has the depth, the estimate and the output habit of |
//! |---|---|
//! | flavour 0 | its kind, for all users |
//! | another flavour that is kept | this kind and flavour of this user |
//! | another flavour that is not kept: new, or dropped | none: depth 1, as a kind before its first report |
//!
//! `prefetch.rs` asks and reports. A task of flavour 0 never comes here.

use bulkhead_proto::limits::FLAVOURS_MAX;

use crate::turn::Flavour;
use crate::worker::output_habit::OutputHabit;
use crate::worker::prefetch::PrefetchDepth;

/// One flavour that is kept.
#[derive(Debug)]
struct KeptFlavour {
    depth: PrefetchDepth,
    habit: OutputHabit,
    /// The number of the last report.
    heard: u64,
}

/// All of them, at most [`FLAVOURS_MAX`] of all pools together.
///
/// A report of a task keeps its flavour and makes it the one that was heard last. If there are too many then, one flavour is
/// dropped: of the users who have most, the new one counted, the flavour that was heard least recently. So a user with no more
/// than an equal share of the places, `FLAVOURS_MAX` by the number of users who have any, never loses one because of others. A
/// client that uses a new flavour for each task makes its own tasks wait for depth 1, and those of nobody else.
#[derive(Debug, Default)]
pub(super) struct Flavours {
    /// Beside `kept`, so that a search reads nothing else.
    names: Vec<Flavour>,
    kept: Vec<KeptFlavour>,
    reports: u64,
    /// The greatest depth of those that are kept.
    deepest: usize,
}

impl Flavours {
    /// The depth of a flavour, if it is kept.
    pub(super) fn get(&self, flavour: Flavour) -> Option<&PrefetchDepth> {
        Some(&self.kept[self.position(flavour)?].depth)
    }

    /// The greatest depth of all; 0 if none is kept.
    pub(super) fn deepest(&self) -> usize {
        self.deepest
    }

    /// Hears how long a task of a flavour took. `ring` is that of its kind.
    pub(super) fn hear(&mut self, flavour: Flavour, ring: u16, elapsed_ns: u64) {
        self.reports += 1;
        let at = self.position(flavour).unwrap_or_else(|| self.keep(flavour, ring));
        let kept = &mut self.kept[at];
        kept.heard = self.reports;
        let before = kept.depth.depth();
        kept.depth.hear(elapsed_ns);
        match kept.depth.depth() {
            depth if depth >= self.deepest => self.deepest = depth,
            depth if depth < before && before == self.deepest => self.find_deepest(),
            _ => {}
        }
    }

    /// Hears of the result of a task. A flavour is kept by [`Self::hear`] alone.
    pub(super) fn hear_output(&mut self, flavour: Flavour, reserve_fits: bool) {
        if let Some(at) = self.position(flavour) {
            self.kept[at].habit.hear(reserve_fits);
        }
    }

    /// What the results of a flavour were like; one that is not kept has none.
    pub(super) fn habit(&self, flavour: Flavour) -> OutputHabit {
        self.position(flavour).map_or_else(OutputHabit::default, |at| self.kept[at].habit)
    }

    fn position(&self, flavour: Flavour) -> Option<usize> {
        self.names.iter().position(|name| *name == flavour)
    }

    fn find_deepest(&mut self) {
        self.deepest = self.kept.iter().map(|kept| kept.depth.depth()).max().unwrap_or(0);
    }

    /// Keeps a new flavour, in place of another one if there are too many. Gives its place.
    fn keep(&mut self, flavour: Flavour, ring: u16) -> usize {
        let kept = KeptFlavour {
            depth: PrefetchDepth::new(ring),
            habit: OutputHabit::default(),
            heard: self.reports,
        };
        if self.names.len() < FLAVOURS_MAX {
            self.names.push(flavour);
            self.kept.push(kept);
            return self.names.len() - 1;
        }
        let at = self.least_wanted(flavour.uid);
        self.names[at] = flavour;
        self.kept[at] = kept;
        self.find_deepest();
        at
    }

    /// The place of the flavour that makes room for a new one of this user.
    fn least_wanted(&self, newcomer: u32) -> usize {
        let mut users: Vec<(u32, usize)> = vec![(newcomer, 1)];
        for name in &self.names {
            match users.iter_mut().find(|(uid, _)| *uid == name.uid) {
                Some((_, count)) => *count += 1,
                None => users.push((name.uid, 1)),
            }
        }
        let most = users.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let has_most = |uid: u32| users.contains(&(uid, most));
        let of_most =
            self.names.iter().zip(&self.kept).enumerate().filter(|(_, (name, _))| has_most(name.uid));
        let oldest = of_most.min_by_key(|(_, (_, kept))| kept.heard);
        oldest.map(|(at, _)| at).expect("the places are full, so a user who has most has one")
    }

    /// Checks what must hold between turns.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn audit(&self) {
        assert!(self.names.len() <= FLAVOURS_MAX && self.names.len() == self.kept.len());
        let deepest = self.kept.iter().map(|kept| kept.depth.depth()).max().unwrap_or(0);
        assert_eq!(self.deepest, deepest, "the deepest flavour is known");
        let twice = self.names.iter().enumerate().any(|(at, name)| self.names[..at].contains(name));
        assert!(!twice, "a flavour is kept once");
        assert!(self.names.iter().all(|name| name.number != 0), "flavour 0 is that of the kind");
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::KindId;

    use super::*;
    use crate::worker::prefetch::PAIR_NS;

    fn flavour(uid: u32, number: u32) -> Flavour {
        Flavour { kind: KindId(0), uid, number }
    }

    fn hear(flavours: &mut Flavours, uid: u32, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            flavours.hear(flavour(uid, number), 256, 1000);
            flavours.audit();
        }
    }

    fn kept(flavours: &Flavours, uid: u32) -> Vec<u32> {
        let mut own: Vec<u32> =
            flavours.names.iter().filter(|name| name.uid == uid).map(|name| name.number).collect();
        own.sort_unstable();
        own
    }

    #[test]
    fn a_slow_flavour_is_no_matter_of_another() {
        let mut flavours = Flavours::default();
        for _ in 0..2000 {
            flavours.hear(flavour(7, 1), 256, 1000);
            flavours.hear(flavour(7, 2), 256, 2 * PAIR_NS);
        }
        let depth = |number| flavours.get(flavour(7, number)).map(PrefetchDepth::depth);
        assert_eq!((depth(1), depth(2), depth(3)), (Some(256), Some(1), None));
        assert_eq!(
            flavours.get(flavour(8, 1)).map(PrefetchDepth::depth),
            None,
            "numbers are each user's own"
        );
        assert_eq!(flavours.deepest(), 256);
        flavours.hear(flavour(7, 1), 256, 2 * PAIR_NS);
        assert_eq!(flavours.deepest(), 1);
        flavours.audit();
    }

    #[test]
    fn the_least_recently_heard_goes() {
        let mut flavours = Flavours::default();
        hear(&mut flavours, 7, 1..=64);
        hear(&mut flavours, 7, [1, 100]);
        assert_eq!(
            kept(&flavours, 7),
            (1..=64).filter(|number| *number != 2).chain([100]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn nobody_loses_a_share_to_others() {
        let mut flavours = Flavours::default();
        hear(&mut flavours, 7, 1..=64);
        // Others get their share of a user who has all.
        hear(&mut flavours, 8, 1..=20);
        assert_eq!((kept(&flavours, 7).len(), kept(&flavours, 8).len()), (44, 20));
        // A flood of flavours costs only those of its own user.
        hear(&mut flavours, 9, 1..=1000);
        assert_eq!(kept(&flavours, 8), (1..=20).collect::<Vec<_>>());
        let (first, flood) = (kept(&flavours, 7).len(), kept(&flavours, 9).len());
        assert!(first >= 21 && flood >= 21 && first + flood == 44, "{first} and {flood}");
        // The user who came first has lost the oldest.
        assert_eq!(kept(&flavours, 7).last(), Some(&64));
    }

    #[test]
    fn more_users_than_places_take_turns() {
        let mut flavours = Flavours::default();
        (1..=100).for_each(|uid| hear(&mut flavours, uid, [1]));
        let last: Vec<u32> = (1..=100).filter(|uid| !kept(&flavours, *uid).is_empty()).collect();
        assert_eq!(last, (37..=100).collect::<Vec<_>>());
    }
}
