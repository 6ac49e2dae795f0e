//! Every assertion of a turn bites: each test here breaks one rule and is stopped by its name.

use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::ids::JobId;

use super::*;

/// A turn that has begun.
fn begun() -> Turn {
    let mut turn = Turn::new(Config::default(), Now::default());
    turn.begin(Now { mono_ns: 5, wall_us: 1 }, &mut Output::default());
    turn
}

#[test]
fn a_turn_hands_over_what_it_decided() {
    let mut turn = begun();
    turn.act(Action::Exit);
    turn.record(What::Stopped, Owner::Service);
    assert!(!turn.is_at_rest());
    let mut out = Output::default();
    turn.end(&mut out);
    assert!(turn.is_at_rest());
    assert_eq!((out.actions.len(), out.records.len()), (1, 1));
}

#[test]
#[should_panic(expected = "a turn begins when the one before has ended")]
fn turns_do_not_overlap() {
    begun().begin(Now::default(), &mut Output::default());
}

#[test]
#[should_panic(expected = "a turn ends that has begun")]
fn a_turn_ends_once() {
    let mut turn = begun();
    turn.end(&mut Output::default());
    turn.end(&mut Output::default());
}

#[test]
#[should_panic(expected = "actions belong to a turn")]
fn no_action_is_decided_between_turns() {
    Turn::new(Config::default(), Now::default()).act(Action::Exit);
}

#[test]
#[should_panic(expected = "records belong to a turn")]
fn nothing_is_recorded_between_turns() {
    Turn::new(Config::default(), Now::default()).record(What::Stopped, Owner::Service);
}

#[test]
#[should_panic(expected = "records are numbered without a gap")]
fn records_are_numbered_without_a_gap() {
    let record = Record { index: 2, at_us: 0, what: What::Stopped };
    RecentRecords::default().push(record, Owner::Service);
}

#[test]
#[should_panic(expected = "Backoff(JobId(1)) is set by one slot")]
fn an_alarm_is_set_by_one_slot() {
    let mut turn = begun();
    for _ in 0..2 {
        turn.set(&mut AlarmSlot::default(), Alarm::Backoff(JobId(1)), 9);
    }
}

#[test]
#[should_panic(expected = "an alarm goes off that was set")]
fn a_slot_is_emptied_once() {
    let mut slot = AlarmSlot::default();
    begun().set(&mut slot, Alarm::Grace, 9);
    slot.clear();
    slot.clear();
}

#[test]
#[should_panic(expected = "ends of jobs that run again are counted before they go")]
fn an_end_that_is_taken_back_was_counted() {
    begun().uncount_end(&Outcome::Cancelled, 1);
}
