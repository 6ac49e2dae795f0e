//! Tests of the sentences on a user's share of a pool.

use super::tests::{pool, queued};
use crate::client::why::{QueuedBefore, WhyPool, WhyShare};

#[test]
fn a_user_who_holds_no_worker_is_told_when_a_slot_is_lent_and_what_would_help() {
    let share = WhyShare {
        others_hold_all: true,
        lend_after_ms: Some(5000),
        lends_in_ms: Some(3200),
        lend_max: 2,
        ..WhyShare::default()
    };
    let said =
        |share: WhyShare| queued(QueuedBefore::default(), None, WhyPool { share, ..pool() }).to_string();
    let help = "a greater `lend_max` would help, as would a limit of time for the tasks that run \
                (`timeout_max_seconds`) or a most of workers for each user (`running_max`).";
    for (share, text) in [
        (
            share,
            "Its user holds none of them: if that stays so, the pool lends its user a slot in 3.20s."
                .to_owned(),
        ),
        (
            WhyShare { lends_in_ms: Some(0), ..share },
            "Its user holds none of them: the pool lends its user a slot as soon as a spare is ready."
                .to_owned(),
        ),
        (
            WhyShare { lent: 2, ..share },
            format!(
                "Its user holds none of them, and the pool has lent as many slots as it may (`lend_max` is 2): {help}"
            ),
        ),
        (
            WhyShare { lend_max: 0, ..share },
            format!("Its user holds none of them, and the pool lends no slot (`lend_max` is 0): {help}"),
        ),
        (
            WhyShare { held: 1, running_max: Some(1), others_hold_all: false, ..share },
            "1 worker runs tasks of its user, who may hold no more: `running_max` is 1.".to_owned(),
        ),
        (
            WhyShare { stuck: 1, stuck_max: Some(0), ..share },
            "1 worker is stuck with tasks of its user. Until they are gone, its user may hold 0 workers of the pool (half of its 2 \
             slots, less the stuck ones) and holds 0"
                .to_owned(),
        ),
        (
            WhyShare { held: 1, stuck_max: Some(1), ..share },
            "As many stuck workers of the pool were replaced as it has slots (2), so a user may hold 1 of its workers, half of \
             the slots, and its user holds 1"
                .to_owned(),
        ),
    ] {
        let all = said(share);
        assert!(all.contains(&text), "{text:?} is not in:\n{all}");
    }
    for quiet in [
        WhyShare { others_hold_all: false, ..share },
        WhyShare { lend_after_ms: None, ..share },
        WhyShare { held: 1, running_max: Some(2), others_hold_all: false, ..share },
        WhyShare { held: 1, stuck: 1, stuck_max: Some(2), others_hold_all: false, ..share },
    ] {
        let all = said(quiet);
        assert!(
            !all.contains("Its user holds") && !all.contains("running_max") && !all.contains("stuck with"),
            "{all}"
        );
    }
}
