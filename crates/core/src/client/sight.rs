//! Who sees what: the record that a client is shown in place of one of another user.
//!
//! Everything that is shown has an [`Owner`], and the owner and administrators see all of it. The daemon's log has records
//! whole: it is the administrators'. What another user sees is the table at `record_for`.
//!
//! "Of all tasks that the worker was offered" is nobody's if they were of several users: then administrators alone see it. A
//! worker that was offered none tells nothing of any job: its death is shown to all. Driven by `followers.rs`; the rows are
//! in `view/`.

use bulkhead_proto::client::record::{Record, What};

use crate::event::Peer;
use crate::turn::Owner;

/// The record as this client is shown it; `None`: it is not shown.
///
/// | what | its owner | another user sees |
/// |---|---|---|
/// | records `accepted`, `blamed`, `retried`, `backoff`, `ended`, `ended-queued`, `retry-asked` | the user of the job | nothing |
/// | `died` | the user of the first claimed task; without one, of all tasks that the worker was offered | `worker-gone`: which worker, and its slot |
/// | `nobody-blamed`, `requeued` | the owner of that death | nothing |
/// | `killing`, `stuck`, `suspended`, `resumed`, `recycled` | the user of the first task in the worker's ring; without one, of all tasks that the worker was offered | nothing |
/// | `suspended-often` | the same at each of these stops, if it was the same user at all of them; else administrators | nothing |
/// | `program-stopped`, `program-continued` | the user of the task | nothing |
/// | `lives-on`, and the row of the process in `status` | the user whose job left it; if the worker does not say, of all tasks that the worker was offered; of an unknown worker: administrators | nothing |
/// | `spawned`, `ready` | administrators: the pid is that of each task to come | nothing |
/// | `started`, `spawn-failed`, `placed`, `degraded`, `recovered`, `short`, `evicted`, `draining`, `stopped` | the service | all of it |
/// | a notice, the health of a pool in `status` and `why` | the service | all of it: of the last worker that died without a task, the signal or exit code alone (`Death::brief`) |
/// | `lent` | the user to whom the slot is lent | nothing |
/// | `taken-in` | as of `killing` | nothing |
/// | a row of `workers`, and of stuck workers and those in lent slots in `status` | as of `killing`; to whom the slot is lent: that user | the worker, pool, slot, whether it is lent, state, age, tasks ended, and how many offers are of own jobs |
/// | a row of `jobs`, `job`, `why`, `deaths`; a log, a result, an end, progress, the text of a stack | the user of the job | nothing, as if the job were not there |
/// | in `why`: the worker that has an own job | as of `killing` | its number, and that it was killed or stopped |
/// | in `why`: jobs that go before, the longest running task | the user of each | how many, and for how long |
/// | counts in `status`, `kinds`, `ping` | the service | all of it |
pub(super) fn record_for(peer: Peer, record: &Record, owner: Owner) -> Option<Record> {
    if owner.may_be_seen_by(peer) {
        return Some(record.clone());
    }
    let What::Died { worker, slot, .. } = record.what else { return None };
    Some(Record { what: What::WorkerGone { worker, slot }, ..*record })
}

/// Whether this client is shown the record, whole or cut: the same as [`record_for`] says, without a copy.
pub(super) fn is_shown(peer: Peer, record: &Record, owner: Owner) -> bool {
    owner.may_be_seen_by(peer) || matches!(record.what, What::Died { .. })
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::evidence::Evidence;
    use bulkhead_proto::death::Death;
    use bulkhead_proto::ids::{SlotId, WorkerId};

    use super::*;

    const ALICE: Peer = Peer { uid: 1, admin: false };
    const BOB: Peer = Peer { uid: 2, admin: false };
    const ADMIN: Peer = Peer { uid: 0, admin: true };

    fn died() -> Record {
        let what = What::Died {
            worker: WorkerId(3),
            pid: 812,
            slot: Some(SlotId(1)),
            death: Death::Exited { code: 3 },
            evidence: Evidence { last_words: "row 7".to_owned(), ..Evidence::default() },
            noticed_after_us: Some(1),
            ended: 41,
        };
        Record { index: 9, at_us: 5, what }
    }

    #[test]
    fn an_owner_and_administrators_see_all_and_others_that_a_worker_died() {
        let (whole, what) = (died(), What::WorkerGone { worker: WorkerId(3), slot: Some(SlotId(1)) });
        let cut = Record { index: 9, at_us: 5, what };
        for (owner, who) in [
            (Owner::Service, [&whole, &whole, &whole]),
            (Owner::User(1), [&whole, &cut, &whole]),
            (Owner::Administrators, [&cut, &cut, &whole]),
        ] {
            let shown = [ALICE, BOB, ADMIN].map(|peer| record_for(peer, &whole, owner));
            assert_eq!(shown, who.map(|record| Some(record.clone())), "{owner:?}");
            assert!([ALICE, BOB, ADMIN].iter().all(|peer| is_shown(*peer, &whole, owner)));
        }
        let other = Record { what: What::NobodyBlamed { worker: WorkerId(3) }, ..died() };
        assert_eq!(record_for(BOB, &other, Owner::User(1)), None);
        assert!(!is_shown(BOB, &other, Owner::User(1)) && is_shown(ALICE, &other, Owner::User(1)));
    }

    #[test]
    fn what_is_of_two_users_is_of_neither() {
        assert_eq!(Owner::Service.and(1), Owner::User(1));
        assert_eq!(Owner::User(1).and(1), Owner::User(1));
        assert_eq!(Owner::User(1).and(2), Owner::Administrators);
        assert_eq!(Owner::Administrators.and(1), Owner::Administrators);
    }
}
