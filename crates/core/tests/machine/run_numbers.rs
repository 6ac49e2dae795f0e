//! Numbers that go on over the runs of a daemon begin where its configuration says, and what comes next is told.

use bulkhead_core::action::TaskFile;
use bulkhead_core::config::{Config, RunNumbers};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::ids::{LogId, WorkerId};
use bulkhead_proto::job::Policy;
use bulkhead_proto::kind::Kind;

use crate::rig::{ALICE, Rig, config};

const FIRST: RunNumbers =
    RunNumbers { worker: 1_000_001, record: 2_000_001, scratch: 3_000_001, log: 4_000_001 };

#[test]
fn numbers_begin_where_the_configuration_says() {
    let mut config = Config { first: FIRST, ..config(1) };
    config.kinds.push(Kind { name: "talks".to_owned(), ring: 1, logs: true, ..Kind::default() });
    let mut rig = Rig::cold(config);
    assert_eq!(rig.core.next_numbers(), FIRST);
    rig.start();
    assert_eq!(rig.workers.keys().next(), Some(&WorkerId(FIRST.worker)));
    let reply = rig.answer(ALICE, Request::Events { after: 0, follow: false });
    let Reply::Events { records, missed: 0, caught_up: true } = reply else { panic!("{reply:?}") };
    assert_eq!(records[0].index, FIRST.record);
    let job = rig.submit_as(ALICE, "talks", 1, Policy::default(), false);
    let (worker, _) = rig.holder(job).expect("it is offered");
    let files = &rig.workers[&worker][0].task.files;
    assert!(matches!(files[..], [TaskFile::Log { log: LogId(log) }] if log == FIRST.log), "{files:?}");
    let next = rig.core.next_numbers();
    assert!(next.worker > FIRST.worker && next.record > FIRST.record, "{next:?}");
    assert_eq!((next.scratch, next.log), (FIRST.scratch, FIRST.log + 1));
}

/// A cursor of an earlier run names no record of this one: all of them come after it.
#[test]
fn a_reader_that_goes_on_after_a_record_of_an_earlier_run_misses_nothing_of_this_one() {
    let mut rig = Rig::cold(Config { first: FIRST, ..config(1) });
    rig.start();
    let reply = rig.answer(ALICE, Request::Events { after: 17, follow: false });
    let Reply::Events { records, missed, caught_up: true } = reply else { panic!("{reply:?}") };
    assert_eq!((records[0].index, missed), (FIRST.record, 0));
}
