//! What the writer stores is what the facts add up to; a fact that does not fit changes nothing.

#![allow(clippy::unwrap_used)]

mod common;

use bulkhead_facts::Misfit;
use bulkhead_facts::fact::{Fact, FactNo};
use bulkhead_facts::fold::DurableState;
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, FactMill, accept, assert_holds, end, payload, submit};

#[test]
fn random_facts_are_stored_as_they_fold() {
    for seed in [3, 0x5eed] {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = Desk::open(folder.path());
        let mut mill = FactMill::new(seed);
        let mut misfits = 0;
        for _ in 0..6 {
            let mut expected = Vec::new();
            for _ in 0..300 {
                let (fact, fits) = mill.next();
                let number = desk.push(fact);
                expected.extend(fits.err().map(|misfit| JournalAnswer::DoesNotFit { fact: number, misfit }));
            }
            assert_eq!(desk.await_stored(), expected);
            assert_holds(&desk.folder, &mill.state);
            misfits += expected.len();
        }
        assert!((20..900).contains(&misfits), "{misfits} of 1800 do not fit");
        let folder_path = desk.folder.clone();
        assert!(desk.close());
        assert_holds(&folder_path, &mill.state);
    }
}

#[test]
fn a_repeated_submit_names_the_first_one_and_a_different_one_both() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let of = |first, uid, texts: &[&str]| {
        let inputs = texts.iter().map(|text| payload(text)).collect();
        Fact::Accepted(Box::new(submit(first, uid, Some("nightly"), inputs)))
    };
    desk.push(of(1, 1000, &["x", "y"]));
    for (first, uid, texts, is_same) in
        [(3, 1000, &["x", "y"][..], Some(true)), (3, 1000, &["x", "z"], Some(false)), (5, 1001, &["x"], None)]
    {
        let fact = desk.push(of(first, uid, texts));
        let expected = is_same.map(|is_same| JournalAnswer::DoesNotFit {
            fact,
            misfit: Misfit::KeyTaken { first: JobId(1), count: 2, is_same },
        });
        assert_eq!(desk.await_stored(), Vec::from_iter(expected));
    }
    let text = Misfit::KeyTaken { first: JobId(1), count: 2, is_same: false }.to_string();
    assert_eq!(text, "its key names a different submit, jobs 1 to 2");
    // The key lives as long as a job of its submit, over a restart too.
    for job in [1, 2] {
        desk.push(end(job, Some(1), Outcome::Done, bulkhead_sys::clock::wall_us()));
    }
    desk.push(Fact::Forgotten { job: JobId(1) });
    assert!(desk.await_stored().is_empty() && desk.close());
    let mut desk = Desk::open(folder.path());
    desk.push(of(7, 1000, &["x", "y"]));
    assert!(matches!(desk.await_stored()[..], [JournalAnswer::DoesNotFit { .. }]));
    desk.push(Fact::Forgotten { job: JobId(2) });
    desk.push(of(7, 1000, &["q"]));
    assert_eq!(desk.await_stored(), [], "the key is free again");
    assert!(desk.close());
}

#[test]
fn an_answer_covers_all_facts_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let mut state = DurableState::default();
    let mut last = FactNo(0);
    for job in 1..=2000 {
        state.add(&accept(job)).unwrap();
        desk.push(accept(job));
    }
    while last < FactNo(2000) {
        let JournalAnswer::Stored { up_to, .. } = desk.answer() else { panic!("something else is answered") };
        assert!(up_to > last, "{up_to} after {last}");
        last = up_to;
    }
    assert_eq!(desk.writer.unanswered(), (0, 0));
    assert_holds(&desk.folder, &state);
    assert!(desk.close());
}

#[test]
fn the_log_stays_short_while_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let log = folder.path().join("journal.db-wal");
    let mut longest = 0;
    for batch in 0..30 {
        let inputs = vec![payload("sixteen letters!"); 4096];
        desk.push(Fact::Accepted(Box::new(submit(1 + 4096 * batch, 1000, None, inputs))));
        assert_eq!(desk.await_stored(), []);
        longest = longest.max(std::fs::metadata(&log).unwrap().len());
    }
    assert!(longest < 16 << 20, "{longest} bytes");
    assert!(std::fs::metadata(folder.path().join("journal.db")).unwrap().len() > 4 << 20);
    assert!(desk.close());
    assert!(!log.exists() || std::fs::metadata(&log).unwrap().len() == 0);
}
