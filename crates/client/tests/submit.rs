//! Submitting and running: order, refusals, a busy daemon, and one that does not read while it writes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::time::Duration;

use bulkhead_client::{
    Error, Interrupts, JobInput, ProtocolError, ReceivedOutput, RunOptions, Spec, SubmitOptions,
};
use bulkhead_proto::client::message::{DurableSubmit, Reply, Request};
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::limits::BATCH_MAX;
use fake::{Fake, Peer, done};

fn inputs(count: usize) -> impl Iterator<Item = JobInput> {
    (0..count).map(|number| JobInput::from(number.to_string().into_bytes()))
}

fn busy() -> Refusal {
    Refusal::Busy { what: "queue".to_owned(), limit: 3, part: BoundPart::All, key: None, retry_after_ms: 1 }
}

fn text(output: ReceivedOutput) -> String {
    match output {
        ReceivedOutput::Inline(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("an inline output was expected: {other:?}"),
    }
}

/// Accepts a submit and ends its jobs with their own inputs, backwards.
fn echo_backwards(peer: &mut Peer, first: u64) -> Option<usize> {
    let (tag, submit) = peer.submit()?;
    peer.accept(tag, first, submit.inputs.len());
    for (offset, input) in submit.inputs.iter().enumerate().rev() {
        peer.reply(tag, Reply::Ended(vec![done(first + offset as u64, input.as_bytes())]));
    }
    Some(submit.inputs.len())
}

#[test]
fn submits_are_cut_into_batches() {
    let count = BATCH_MAX * 2 + 1;
    let fake = Fake::serve(move |mut peer| {
        let mut first = 1;
        for expected in [BATCH_MAX, BATCH_MAX, 1] {
            let (tag, submit) = peer.submit().unwrap();
            assert!(!submit.attached);
            assert_eq!(submit.inputs.len(), expected);
            peer.accept(tag, first, expected);
            first += expected as u64;
        }
        assert!(peer.request().is_none());
    });
    let mut client = fake.client();
    let accepted: u64 = client
        .submit(Spec::new("noop"), inputs(count), SubmitOptions::default())
        .map(|range| range.unwrap())
        .map(|range| range.end - range.start)
        .sum();
    assert_eq!(accepted, count as u64);
    drop(client);
    fake.finish();
}

fn durable(key: Option<&str>) -> SubmitOptions {
    let key = key.map(|key| key.as_bytes().to_vec());
    SubmitOptions { durable: Some(DurableSubmit { key }), ..SubmitOptions::default() }
}

/// The key of the next submit, and how many jobs it has.
fn next_key(peer: &mut Peer) -> (Tag, String, usize) {
    let (tag, submit) = peer.submit().unwrap();
    let key = submit.durable.unwrap().key.unwrap();
    (tag, String::from_utf8(key).unwrap(), submit.inputs.len())
}

#[test]
fn a_durable_submit_is_repeated_under_the_same_keys_on_another_connection() {
    let count = BATCH_MAX * 2 + 1;
    let before = |mut peer: Peer| {
        let (tag, key, jobs) = next_key(&mut peer);
        assert_eq!((key.as_str(), jobs), ("night", BATCH_MAX));
        peer.accept(tag, 1, BATCH_MAX);
        let (_, key, jobs) = next_key(&mut peer);
        assert_eq!((key.as_str(), jobs), ("night#1", BATCH_MAX));
    };
    let after = |mut peer: Peer| {
        let (tag, key, jobs) = next_key(&mut peer);
        assert_eq!((key.as_str(), jobs), ("night#1", BATCH_MAX), "it had no answer");
        peer.reply(tag, Reply::Refused(busy()));
        let (tag, key, jobs) = next_key(&mut peer);
        assert_eq!((key.as_str(), jobs), ("night#1", BATCH_MAX), "none of it was accepted");
        peer.accept(tag, 5000, BATCH_MAX);
        let (tag, key, jobs) = next_key(&mut peer);
        assert_eq!((key.as_str(), jobs), ("night#2", 1));
        peer.accept(tag, 9999, 1);
        assert!(peer.request().is_none());
    };
    let fake = Fake::serve_each(vec![Box::new(before), Box::new(after)]);
    let mut client = fake.client();
    let options = SubmitOptions { wait_when_busy: true, ..durable(Some("night")) };
    let mut submission = client.submit(Spec::new("noop"), inputs(count), options);
    assert_eq!(submission.next().unwrap().unwrap(), 1..1 + BATCH_MAX as u64);
    let lost = submission.next().unwrap().unwrap_err();
    assert!(lost.is_lost_connection(), "{lost}");
    assert!(submission.next().is_none());
    submission.resume(fake.client());
    let ranges: Vec<_> = submission.map(|range| range.unwrap()).collect();
    assert_eq!(ranges, [5000..5000 + BATCH_MAX as u64, 9999..10_000]);
    drop(client);
    fake.finish();
}

#[test]
fn a_durable_submit_has_a_key_and_a_volatile_one_has_none() {
    let fake = Fake::serve(|mut peer| {
        let (tag, submit) = peer.submit().unwrap();
        assert_eq!(submit.durable, None);
        peer.accept(tag, 1, 1);
        let (tag, key, _) = next_key(&mut peer);
        peer.reply(tag, Reply::Refused(Refusal::KeyTaken { first: JobId(1), count: key.len() as u32 }));
        assert!(peer.request().is_none());
    });
    let mut client = fake.client();
    let mut volatile = client.submit(Spec::new("noop"), inputs(1), SubmitOptions::default());
    assert_eq!(volatile.next().unwrap().unwrap(), 1..2);
    assert_eq!(volatile.key(), None);
    let mut made = client.submit(Spec::new("noop"), inputs(1), durable(None));
    let Some(Err(Error::Refused(Refusal::KeyTaken { count: 32, .. }))) = made.next() else {
        panic!("a key of 32 digits")
    };
    assert_eq!(made.key().unwrap().len(), 32);
    let long = "k".repeat(120);
    let error = client
        .submit(Spec::new("noop"), inputs(BATCH_MAX + 1), durable(Some(&long)))
        .next()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { bytes: 120, limit: 107 }), "{error}: nothing is sent");
    drop(client);
    fake.finish();
}

/// Takes three at a time, and nothing at all every second time.
fn reluctant(mut peer: Peer) {
    let (mut first, mut turn) = (1_u64, 0);
    while let Some((tag, submit)) = peer.submit() {
        turn += 1;
        let count = if turn % 2 == 0 { 0 } else { submit.inputs.len().min(3) };
        if count == 0 {
            peer.reply(tag, Reply::Refused(busy()));
            continue;
        }
        let refused = (count < submit.inputs.len()).then(busy);
        peer.reply(tag, Reply::Accepted { first: JobId(first), count: count as u32, refused });
        if submit.attached {
            let ends = (first..).zip(&submit.inputs[..count]).map(|(job, input)| done(job, input.as_bytes()));
            peer.reply(tag, Reply::Ended(ends.collect()));
        }
        first += count as u64;
    }
}

#[test]
fn a_busy_daemon_is_asked_again_for_the_rest() {
    let fake = Fake::serve(reluctant);
    let mut client = fake.client();
    let options = SubmitOptions { wait_when_busy: true, ..SubmitOptions::default() };
    let ranges: Vec<_> =
        client.submit(Spec::new("noop"), inputs(8), options).map(|range| range.unwrap()).collect();
    assert_eq!(ranges, [1..4, 4..7, 7..9]);
    drop(client);
    fake.finish();
    let fake = Fake::serve(reluctant);
    let mut client = fake.client();
    let outputs: Vec<String> = client
        .run(Spec::new("noop"), inputs(8), RunOptions::default())
        .map(|item| text(item.unwrap().end.output))
        .collect();
    assert_eq!(outputs, (0..8).map(|number| number.to_string()).collect::<Vec<_>>());
    drop(client);
    fake.finish();
}

#[test]
fn without_waiting_a_busy_daemon_ends_it_after_what_was_accepted() {
    let fake = Fake::serve(reluctant);
    let mut client = fake.client();
    let options = RunOptions { ordered: true, wait_when_busy: false, held: false };
    let items: Vec<_> = client.run(Spec::new("noop"), inputs(8), options).collect();
    assert_eq!(items.len(), 4);
    assert!(items[..3].iter().all(Result::is_ok));
    assert!(matches!(items[3], Err(Error::Refused(Refusal::Busy { .. }))));
    drop(client);
    fake.finish();
    let fake = Fake::serve(reluctant);
    let mut client = fake.client();
    let items: Vec<_> = client.submit(Spec::new("noop"), inputs(8), SubmitOptions::default()).collect();
    assert!(matches!(items[..], [Ok(_), Err(Error::Refused(Refusal::Busy { .. }))]));
    drop(client);
    fake.finish();
}

#[test]
fn results_come_in_the_order_of_the_inputs_or_of_their_ends() {
    for ordered in [true, false] {
        let fake = Fake::serve(|mut peer| while echo_backwards(&mut peer, 1).is_some() {});
        let mut client = fake.client();
        let options = RunOptions { ordered, ..RunOptions::default() };
        let indexes: Vec<u64> = client
            .run(Spec::new("noop"), inputs(5), options)
            .map(|item| item.unwrap())
            .inspect(|item| assert_eq!(item.index + 1, item.end.job.0))
            .map(|item| item.index)
            .collect();
        assert_eq!(indexes, if ordered { [0, 1, 2, 3, 4] } else { [4, 3, 2, 1, 0] });
        drop(client);
        fake.finish();
    }
}

#[test]
fn a_job_that_ends_twice_or_was_never_ours_is_a_fault() {
    for strange in [1, 77] {
        let fake = Fake::serve(move |mut peer| {
            let (tag, submit) = peer.submit().unwrap();
            peer.accept(tag, 1, submit.inputs.len());
            peer.reply(tag, Reply::Ended(vec![done(1, b""), done(strange, b"")]));
        });
        let mut client = fake.client();
        let last = client.run(Spec::new("noop"), inputs(2), RunOptions::default()).last().unwrap();
        let job = JobId(strange);
        assert!(matches!(last, Err(Error::Protocol(ProtocolError::Job(seen))) if seen == job));
        fake.finish();
    }
}

#[test]
fn more_jobs_accepted_than_submitted_is_a_fault() {
    let fake = Fake::serve(|mut peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 3);
    });
    let mut client = fake.client();
    let last = client.run(Spec::new("noop"), inputs(2), RunOptions::default()).last().unwrap();
    assert!(matches!(last, Err(Error::Protocol(ProtocolError::Count { asked: 2, answered: 3 }))));
    fake.finish();
}

/// Never reads while it writes: each submit is answered by the long results of the one before. A client that
/// blocked on its own writes would wait for ever, and so would the daemon.
fn one_thing_at_a_time(mut peer: Peer) {
    let long = vec![b'r'; 4000];
    let mut before: Option<(Tag, u64, usize)> = None;
    let mut first = 1;
    loop {
        let next = peer.submit();
        if let Some((tag, submit)) = &next {
            peer.accept(*tag, first, submit.inputs.len());
        }
        if let Some((tag, first, count)) = before.take() {
            for job in first..first + count as u64 {
                peer.reply(tag, Reply::Ended(vec![done(job, &long)]));
            }
        }
        let Some((tag, submit)) = next else { return };
        if submit.inputs.len() < 128 {
            // The last one: nothing follows it that would bring its results.
            for job in first..first + submit.inputs.len() as u64 {
                peer.reply(tag, Reply::Ended(vec![done(job, &long)]));
            }
            return;
        }
        before = Some((tag, first, submit.inputs.len()));
        first += submit.inputs.len() as u64;
    }
}

#[test]
fn neither_side_waits_for_the_other_to_read() {
    // Inputs of 4 KiB fill a frame with 128 of them: far more than a socket's buffer.
    let count = 128 * 40 + 5;
    let fake = Fake::serve(one_thing_at_a_time);
    let mut client = fake.client();
    let inputs = (0..count).map(|_| JobInput::from(vec![b'i'; 4096]));
    let bytes: u64 = client
        .run(Spec::new("noop"), inputs, RunOptions::default())
        .map(|item| item.unwrap().end.output.bytes())
        .sum();
    assert_eq!(bytes, count as u64 * 4000);
    drop(client);
    fake.finish();
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let (batch, unended, batches) = (1024_usize, 8, 64_usize);
    let fake = Fake::serve(move |mut peer| {
        let end = |number: usize| {
            let first = (number * batch) as u64 + 1;
            Reply::Ended((first..first + batch as u64).map(|job| done(job, b"x")).collect())
        };
        let mut tags = Vec::new();
        for number in 0..batches {
            let (tag, submit) = peer.submit().unwrap();
            assert_eq!(submit.inputs.len(), batch);
            peer.accept(tag, (number * batch) as u64 + 1, batch);
            tags.push(tag);
            // Of those that have not ended there are never more; each end makes room for another.
            if number + 1 >= unended {
                assert!(peer.is_quiet());
                peer.reply(tags[number + 2 - unended], end(number + 2 - unended));
            }
        }
        // Everything but the first batch ends: in order, nothing can be given to the caller, so nothing may follow.
        for (number, tag) in tags.iter().enumerate().skip(batches + 2 - unended) {
            peer.reply(*tag, end(number));
        }
        assert!(peer.is_quiet());
        peer.reply(tags[0], end(0));
        while echo_backwards(&mut peer, 1_000_000).is_some() {}
    });
    let mut client = fake.client();
    let count = batch * batches + 10;
    let run = client.run(Spec::new("noop"), inputs(count), RunOptions::default());
    assert_eq!(
        run.map(|item| item.unwrap().index).collect::<Vec<_>>(),
        (0..count as u64).collect::<Vec<_>>()
    );
    drop(client);
    fake.finish();
}

#[test]
fn a_signal_ends_the_wait_and_the_rest_is_cancelled() {
    let fake = Fake::serve(|mut peer| {
        let (tag, submit) = peer.submit().unwrap();
        peer.accept(tag, 1, submit.inputs.len());
        peer.reply(tag, Reply::Ended(vec![done(2, b"x")]));
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(1), JobId(3)] });
        peer.reply(tag, Reply::Ended(vec![done(1, b"late")]));
        peer.reply(asked.tag, Reply::Changed { count: 1, refused: Vec::new() });
    });
    let mut client = fake.client();
    client.set_interrupts(Some(Interrupts::new().unwrap()));
    let options = RunOptions { ordered: false, ..RunOptions::default() };
    let mut run = client.run(Spec::new("noop"), inputs(3), options);
    assert_eq!(run.next().unwrap().unwrap().end.job, JobId(2));
    let pid = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(matches!(run.next(), Some(Err(Error::Interrupted))));
    assert_eq!(run.unended(), 2);
    assert_eq!(run.cancel_rest().unwrap(), 1);
    assert!(run.next().is_none());
    let late = run.next_arrived().unwrap();
    assert_eq!((late.index, late.end.job), (0, JobId(1)), "what ended during the cancel is there");
    assert!(run.next_arrived().is_none());
    drop(run);
    client.set_reply_timeout(Duration::from_millis(1));
    fake.finish();
}
