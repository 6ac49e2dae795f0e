//! Pages of ended jobs and deaths, and the loading of unfinished jobs.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use bulkhead_facts::fact::{AttemptEnd, Fact};
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::bounds::{FIRST_LOAD_CHUNK, LOAD_CHUNK};
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::{EndedFilter, JournalReader};
use bulkhead_journal::reloading::{ChunkToRun, SubmitToRun};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use common::{Desk, all_ended, attempt, end, payload, settings, submit};
use rusqlite::Connection;

#[test]
fn pages_have_every_ended_job_once_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let now_us = bulkhead_sys::clock::wall_us();
    let mut expected = Vec::new();
    for job in 1..=60_u64 {
        let (uid, is_done) = (1000 + (job % 3) as u32, job % 4 != 0);
        desk.push(Fact::Accepted(Box::new(submit(job, uid, None, vec![payload("x")]))));
        let outcome = if is_done { Outcome::Done } else { Outcome::Cancelled };
        // Several end at the same moment.
        let at_us = now_us + job / 5;
        desk.push(end(job, Some(1), outcome, at_us));
        expected.push((at_us, JobId(job), uid, is_done));
    }
    assert_eq!(desk.await_stored(), []);
    expected.sort();
    expected.reverse();
    let reader = JournalReader::open(folder.path()).unwrap();
    for uid in [None, Some(1001), Some(7)] {
        for is_not_done in [false, true] {
            let wanted = expected
                .iter()
                .filter(|(_, _, of, done)| uid.is_none_or(|uid| uid == *of) && !(is_not_done && *done));
            let wanted: Vec<JobId> = wanted.map(|(_, job, ..)| *job).collect();
            assert_eq!(all_ended(&reader, EndedFilter { uid, is_not_done }), wanted, "{uid:?} {is_not_done}");
        }
    }
    let first = reader.ended(EndedFilter::default(), None, 1).unwrap().rows.remove(0);
    assert_eq!((first.outcome.as_deref(), first.accepted_us), (Some("cancelled"), 60_000_000));
    assert!(desk.close());
}

#[test]
fn a_job_has_its_submit_its_attempts_and_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let mut accepted = submit(1, 1000, None, vec![payload("in"); 3]);
    accepted.policy.expires_ms = Some(40);
    desk.push(Fact::Accepted(Box::new(accepted)));
    let at_us = bulkhead_sys::clock::wall_us();
    for (fence, how) in [(2, AttemptEnd::Failed), (3, AttemptEnd::Lost), (4, AttemptEnd::Charged)] {
        desk.push(attempt(1, fence, how));
    }
    desk.push(end(1, Some(4), Outcome::Crashed { crashes: 1, last: "SIGSEGV".to_owned() }, at_us));
    desk.push(attempt(1, 4, AttemptEnd::Uncharged));
    desk.push(end(2, None, Outcome::Expired, at_us));
    assert_eq!(desk.await_stored(), []);
    let reader = JournalReader::open(folder.path()).unwrap();
    let job = reader.job(JobId(1)).unwrap().unwrap();
    let counts = job.counts;
    assert_eq!((counts.attempts, counts.crashes, counts.retries, counts.lost), (3, 1, 1, 1));
    let failures: Vec<_> =
        job.attempts.iter().filter_map(|one| Some((one.number, one.message.as_deref()?))).collect();
    assert_eq!(failures, [(1, "it said no")]);
    assert_eq!(job.attempts.iter().filter(|one| one.death.is_some()).count(), 2);
    let crashed = job.end.unwrap().end;
    assert_eq!((job.input, crashed.survivors.len(), crashed.at_us), (Some(payload("in")), 1, at_us));
    assert_eq!((crashed.outcome.word(), crashed.output), ("crashed", None));
    let expired = reader.job(JobId(2)).unwrap().unwrap();
    assert_eq!(expired.end.unwrap().end.outcome, Outcome::Expired);
    assert_eq!(expired.submit.shared.policy.expires_ms, Some(40));
    assert_eq!(reader.job(JobId(3)).unwrap().unwrap().end, None, "it is queued");
    assert_eq!(reader.job(JobId(4)).unwrap(), None);
    assert!(desk.close());
}

#[test]
fn an_input_that_the_disk_has_changed_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    desk.push(Fact::Accepted(Box::new(submit(1, 1000, None, vec![payload("sixteen letters!")]))));
    desk.await_stored();
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    let reader = JournalReader::open(folder.path()).unwrap();
    assert_eq!(reader.input(JobId(1)).unwrap(), payload("sixteen letters!"));
    other.execute("UPDATE input SET bytes = CAST('sixteen lettres!' AS BLOB)", []).unwrap();
    let text = reader.input(JobId(1)).unwrap_err().to_string();
    assert!(text.contains("the input of job 1 is damaged"), "{text}");
    let sought = reader.look_up(&[1, 7].map(JobId)).unwrap();
    let [damaged, none] = &sought[..] else { panic!("{sought:?}") };
    assert_eq!(
        (damaged.job.as_ref(), none.job.as_ref()),
        (Err(&text), Ok(&None)),
        "it keeps no other from being read"
    );
    assert!(none.run.is_some());
    other.execute("DELETE FROM input", []).unwrap();
    let text = reader.input(JobId(1)).unwrap_err().to_string();
    assert!(text.contains("the input of job 1 is missing"), "{text}");
    desk.push(Fact::Accepted(Box::new(submit(2, 1000, None, vec![payload("")]))));
    desk.await_stored();
    assert_eq!(reader.input(JobId(2)).unwrap(), payload(""), "an empty input is an input");
    assert!(desk.close());
}

#[test]
fn deaths_outlive_a_job_that_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    for job in 1..=20_u64 {
        desk.push(Fact::Accepted(Box::new(submit(job, 1000 + (job % 2) as u32, None, vec![payload("x")]))));
        let how = if job % 5 == 0 { AttemptEnd::Failed } else { AttemptEnd::Charged };
        desk.push(attempt(job, 1, how));
        desk.push(end(job, Some(1), Outcome::Cancelled, bulkhead_sys::clock::wall_us()));
        desk.push(Fact::Forgotten { job: JobId(job) });
    }
    assert_eq!(desk.await_stored(), []);
    let reader = JournalReader::open(folder.path()).unwrap();
    for (uid, wanted) in [(None, 16), (Some(1001), 8)] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = reader.deaths(uid, after, 3).unwrap();
            assert!(page.rows.len() <= 3 && page.unreadable.is_empty());
            found.extend(page.rows.iter().map(|row| row.job.0));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), wanted, "{found:?}");
        assert!(found.is_sorted_by(|one, other| one > other), "{found:?}");
    }
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute("UPDATE attempt SET death = '{}' WHERE job IN (17, 18)", []).unwrap();
    let page = reader.deaths(None, None, 4).unwrap();
    assert_eq!(page.rows.iter().map(|row| row.job.0).collect::<Vec<_>>(), [19, 16]);
    assert_eq!(page.unreadable, [18, 17].map(JobId));
    assert_eq!(reader.deaths(Some(1001), None, 2).unwrap().unreadable, [JobId(17)]);
    assert!(desk.close());
}

#[test]
fn unfinished_jobs_are_loaded_by_turns_of_users_and_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let mut wanted: BTreeMap<u32, Vec<(u8, JobId)>> = BTreeMap::new();
    let mut first = 1;
    for round in 0..30 {
        for (uid, count) in [(1000, 400), (1001, 20), (1002, 1)] {
            let accepted = submit(first, uid, None, vec![payload("x"); count]);
            let priority = accepted.policy.priority;
            let jobs = (first..).take(count).map(|job| (9 - priority, JobId(job)));
            wanted.entry(uid).or_default().extend(jobs);
            first += count as u64 + round % 3;
            desk.push(Fact::Accepted(Box::new(accepted)));
        }
    }
    desk.await_stored();
    assert!(desk.close());
    let journal = OpenJournal::open(settings(folder.path())).unwrap();
    let end_of_old = JobId(first + 7);
    let mut desk = Desk::start(journal);
    // A job of this run is no job of an earlier one.
    desk.push(Fact::Accepted(Box::new(submit(first + 7, 1001, None, vec![payload("new")]))));
    desk.await_stored();
    let reader = JournalReader::open(folder.path()).unwrap();
    let mut loading = reader.loading(end_of_old).unwrap();
    let mut found: BTreeMap<u32, Vec<(u8, JobId)>> = BTreeMap::new();
    let mut chunks = Vec::new();
    loop {
        let chunk = reader.load(&mut loading).unwrap();
        if chunk.jobs.is_empty() {
            break;
        }
        for job in &chunk.jobs {
            let shared = &chunk.submits[&job.submit].shared;
            found.entry(shared.uid).or_default().push((9 - shared.policy.priority, job.job));
        }
        chunks.push(chunk.jobs.len());
        // The first chunk has all jobs of the users with few.
        assert!(found[&1001].len() == 600 && found[&1002].len() == 30, "{chunks:?}");
    }
    wanted.values_mut().for_each(|jobs| jobs.sort());
    assert_eq!(found, wanted);
    assert_eq!(chunks, [LOAD_CHUNK, LOAD_CHUNK, LOAD_CHUNK, 12_630 - 3 * LOAD_CHUNK]);
    assert_eq!(reader.count_unfinished(end_of_old).unwrap(), 12_630);
    let plan: String = Connection::open(folder.path().join("journal.db"))
        .unwrap()
        .query_row(
            "EXPLAIN QUERY PLAN SELECT id FROM job WHERE uid = 1 AND (urgency, id) > (1, 2) ORDER BY urgency, id",
            [],
            |row| row.get(3),
        )
        .unwrap();
    assert!(plan.contains("SEARCH") && plan.contains("uid=? AND (urgency,id)>(?,?)"), "{plan}");
    assert!(desk.close());
}

#[test]
fn a_chunk_tells_whether_an_end_was_stored_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let many = vec![payload("x"); LOAD_CHUNK + 1];
    desk.push(Fact::Accepted(Box::new(submit(1, 1000, None, many))));
    desk.await_stored();
    assert!(desk.close());
    let mut desk = Desk::open(folder.path());
    let reader = JournalReader::open(folder.path()).unwrap();
    let mut loading = reader.loading(JobId(1 << 40)).unwrap();
    let before = reader.load(&mut loading).unwrap();
    // Job 1 ends after its chunk was read, the last job before.
    let mut stored = Vec::new();
    for job in [1, LOAD_CHUNK as u64 + 1] {
        desk.push(end(job, None, Outcome::Cancelled, bulkhead_sys::clock::wall_us()));
        let JournalAnswer::Stored { commits, .. } = desk.answer() else {
            panic!("something else is answered")
        };
        stored.push(commits);
    }
    let after = reader.load(&mut loading).unwrap();
    assert!(before.jobs.iter().any(|job| job.job == JobId(1)) && before.commits < stored[0]);
    assert!(after.jobs.is_empty() && after.commits >= stored[1] && stored[1] > stored[0]);
    assert!(desk.close());
}

#[test]
fn a_job_to_run_comes_with_its_input_and_its_deaths_and_a_damaged_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let inputs = ["a", "damaged", "c"].map(payload).to_vec();
    desk.push(Fact::Accepted(Box::new(submit(1, 1000, None, inputs))));
    desk.push(Fact::Accepted(Box::new(submit(4, 1001, None, vec![payload("d"), payload("e")]))));
    desk.push(attempt(3, 1, AttemptEnd::Charged));
    desk.push(attempt(3, 2, AttemptEnd::Charged));
    desk.push(end(5, None, Outcome::Cancelled, bulkhead_sys::clock::wall_us()));
    desk.await_stored();
    assert!(desk.close());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute("UPDATE input SET bytes = CAST('DAMAGED' AS BLOB) WHERE job = 2", []).unwrap();
    drop(other);
    let desk = Desk::open(folder.path());
    let reader = JournalReader::open(folder.path()).unwrap();
    let mut loading = reader.loading(JobId(100)).unwrap();
    let chunk = reader.load_to_run(&mut loading).unwrap();
    let mut shape = Vec::new();
    for SubmitToRun { submit, jobs } in &chunk.submits {
        let of_job = |job: &JobToRun| (submit.first.0, job.job.0, job.input.clone(), job.deaths.len());
        shape.extend(jobs.iter().map(of_job));
    }
    assert_eq!(shape, [(1, 1, payload("a"), 0), (1, 3, payload("c"), 2), (4, 4, payload("d"), 0)]);
    assert_eq!(chunk.submits[0].jobs[1].counts.crashes, 2);
    assert!(matches!(&chunk.damaged[..], [(JobId(2), why)] if why.contains("the input of job 2 is damaged")));
    assert!(chunk.is_last);
    assert!(reader.load_to_run(&mut loading).unwrap().submits.is_empty(), "no job comes twice");
    assert!(desk.close());
}

#[test]
fn a_damaged_row_keeps_no_other_job_from_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let many = FIRST_LOAD_CHUNK as u64;
    // More jobs of the damaged submit than a chunk has.
    desk.push(Fact::Accepted(Box::new(submit(1, 1000, None, vec![payload("x"); FIRST_LOAD_CHUNK + 5]))));
    let next = many + 10;
    for (first, uid) in [(next, 1000), (next + 10, 1001)] {
        desk.push(Fact::Accepted(Box::new(submit(first, uid, None, vec![payload("x"); 4]))));
    }
    desk.push(attempt(next + 10, 1, AttemptEnd::Charged));
    desk.push(attempt(next + 11, 1, AttemptEnd::Charged));
    desk.await_stored();
    assert!(desk.close());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    for (sql, id) in [
        ("UPDATE submit SET policy = '{' WHERE first = ?", 1),
        ("UPDATE job SET crashes = 'many' WHERE id = ?", next + 2),
        ("UPDATE job SET fence = -1 WHERE id = ?", next + 3),
        ("UPDATE attempt SET death = '{}' WHERE job = ?", next + 10),
        ("UPDATE attempt SET number = 1 << 40 WHERE job = ?", next + 11),
    ] {
        assert_eq!(other.execute(sql, [id]).unwrap(), 1, "{sql}");
    }
    drop(other);
    let desk = Desk::open(folder.path());
    let reader = JournalReader::open(folder.path()).unwrap();
    let mut loading = reader.loading(JobId(1 << 40)).unwrap();
    let (mut found, mut damaged) = (Vec::new(), BTreeMap::new());
    for is_last in [false, true] {
        let chunk = reader.load_to_run(&mut loading).unwrap();
        found.extend(chunk.submits.iter().flat_map(|submit| &submit.jobs).map(|job| job.job.0));
        damaged.extend(chunk.damaged);
        assert_eq!(chunk.is_last, is_last);
    }
    found.sort_unstable();
    assert_eq!(found, [next, next + 1, next + 12, next + 13]);
    let ids = (1..=many + 5).chain([next + 2, next + 3, next + 10, next + 11]).map(JobId);
    assert!(damaged.keys().copied().eq(ids), "{damaged:?}");
    let why = |job| damaged[&JobId(job)].as_str();
    assert!(why(1).contains("that of its submit is damaged"), "{}", why(1));
    assert!(why(next + 10).contains("the row of an attempt is damaged"), "{}", why(next + 10));
    let sought = reader.look_up(&[1, next + 2, next].map(JobId)).unwrap();
    assert_eq!(sought.iter().map(|sought| sought.job.is_ok()).collect::<Vec<_>>(), [false, false, true]);
    assert!(desk.close());
}

#[test]
fn the_last_chunk_to_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    desk.push(Fact::Accepted(Box::new(submit(1, 1000, None, vec![payload("x"); LOAD_CHUNK]))));
    desk.push(Fact::Accepted(Box::new(submit(5000, 1000, None, vec![payload("x"); FIRST_LOAD_CHUNK + 1]))));
    desk.await_stored();
    let reader = JournalReader::open(folder.path()).unwrap();
    let mut loading = reader.loading(JobId(1 << 40)).unwrap();
    let chunks = [(); 3].map(|()| reader.load_to_run(&mut loading).unwrap());
    let count = |chunk: &ChunkToRun| chunk.submits.iter().map(|submit| submit.jobs.len()).sum::<usize>();
    let told = chunks.each_ref().map(|chunk| (chunk.is_last, count(chunk)));
    assert_eq!(told, [(false, FIRST_LOAD_CHUNK), (false, LOAD_CHUNK), (true, 1)]);
    assert!(desk.close());
}
