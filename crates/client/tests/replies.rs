//! Answers: whatever their order, pieces and violations of the protocol, the asker gets its own or an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use bulkhead_client::{Error, ProtocolError, ReceivedOutput, WaitItem};
use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::client::refusal::{Refusal, UnknownJobs};
use bulkhead_proto::ids::{JobId, Tag};
use fake::{Fake, done, done_in_file, frame};

#[test]
fn answers_to_a_request_that_was_given_up_are_nobodys() {
    let fake = Fake::serve(|mut peer| {
        let (first, submit) = peer.submit().unwrap();
        peer.accept(first, 10, submit.inputs.len());
        let ping = peer.request().unwrap();
        // The results come before the answer to the later request.
        peer.reply(first, Reply::Ended(vec![done(11, b"b"), done(10, b"a")]));
        peer.reply(ping.tag, Reply::Pong { pid: 7 });
        // The stream was given up: what still comes for it is nobody's, and no fault.
        peer.reply(first, Reply::Ended(vec![done(12, b"c")]));
        let ping = peer.request().unwrap();
        peer.reply(ping.tag, Reply::Pong { pid: 8 });
    });
    let mut client = fake.client();
    let spec = bulkhead_client::Spec::new("noop");
    let inputs = ["a", "b", "c"].map(|text| text.as_bytes().to_vec().into());
    assert_eq!(client.submit(spec, inputs, Default::default()).next().unwrap().unwrap(), 10..13);
    assert_eq!(client.ping().unwrap().pid, 7);
    assert_eq!(client.ping().unwrap().pid, 8);
    drop(client);
    fake.finish();
}

#[test]
fn a_reply_in_single_bytes_is_a_reply() {
    let fake = Fake::serve(|mut peer| {
        let ping = peer.request().unwrap();
        for byte in frame(ping.tag, Reply::Pong { pid: 9 }) {
            peer.stream.write_all(&[byte]).unwrap();
        }
    });
    assert_eq!(fake.client().ping().unwrap().pid, 9);
    fake.finish();
}

#[test]
fn a_daemon_that_dies_in_the_middle_of_a_reply_is_named() {
    let fake = Fake::serve(|mut peer| {
        let ping = peer.request().unwrap();
        let bytes = frame(ping.tag, Reply::Pong { pid: 9 });
        peer.stream.write_all(&bytes[..bytes.len() - 1]).unwrap();
    });
    let mut client = fake.client();
    assert!(matches!(client.ping(), Err(Error::Closed { in_a_frame: true })));
    assert!(matches!(client.ping(), Err(Error::Closed { .. })), "and stays so");
    fake.finish();
}

#[test]
fn a_daemon_that_says_nothing_is_an_error() {
    let fake = Fake::serve(|mut peer| while peer.request().is_some() {});
    let mut client = fake.client();
    client.set_reply_timeout(Duration::from_millis(50));
    assert!(matches!(client.status(), Err(Error::NoReply { .. })));
    drop(client);
    fake.finish();
}

#[test]
fn a_goodbye_is_read_although_we_still_had_something_to_say() {
    let fake = Fake::serve(|mut peer| {
        drop(peer.request());
        let why = Refusal::Invalid { why: "frame of 9 bytes".to_owned() };
        peer.reply(Tag(0), Reply::Goodbye(why));
    });
    let mut client = fake.client();
    let jobs: Vec<JobId> = (1..100_000).map(JobId).collect();
    let error = client.cancel(&jobs).unwrap_err();
    assert!(matches!(error, Error::Goodbye(Refusal::Invalid { .. })), "{error}");
    fake.finish();
}

#[test]
fn garbage_and_answers_to_nobody_are_faults() {
    let fake = Fake::serve(|mut peer| {
        drop(peer.request());
        peer.stream.write_all(&[3, 0, 0, 0, 255, 255, 255]).unwrap();
    });
    assert!(matches!(fake.client().ping(), Err(Error::Protocol(ProtocolError::Codec(_)))));
    fake.finish();
    let fake = Fake::serve(|mut peer| {
        drop(peer.request());
        peer.reply(Tag(99), Reply::Pong { pid: 1 });
    });
    assert!(matches!(fake.client().ping(), Err(Error::Protocol(ProtocolError::Tag(Tag(99))))));
    fake.finish();
    let fake = Fake::serve(|mut peer| {
        let ping = peer.request().unwrap();
        peer.reply(ping.tag, Reply::Kinds(Vec::new()));
    });
    assert!(matches!(fake.client().ping(), Err(Error::Protocol(ProtocolError::Reply("kinds")))));
    fake.finish();
}

fn file(text: &str) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn an_output_in_a_descriptor_is_read_from_its_beginning() {
    let fake = Fake::serve(|mut peer| {
        let asked = peer.request().unwrap();
        // Its offset is at the end, as the worker left it.
        peer.reply_with(asked.tag, Reply::Ended(vec![done_in_file(5, 11)]), file("hello world").as_fd());
    });
    let end = fake.client().result(JobId(5)).unwrap();
    let ReceivedOutput::File(output) = end.output else { panic!("a file was expected") };
    for _ in 0..2 {
        let mut text = String::new();
        output.reader().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
    }
    let mut file = output.into_file();
    assert_eq!(file.stream_position().unwrap(), 11, "the shared offset was not touched");
    fake.finish();
}

#[test]
fn a_descriptor_is_announced_there_and_as_long_as_said() {
    let fake = Fake::serve(|mut peer| {
        let asked = peer.request().unwrap();
        peer.reply(asked.tag, Reply::Ended(vec![done_in_file(5, 11)]));
    });
    let error = fake.client().result(JobId(5)).unwrap_err();
    assert!(matches!(error, Error::Protocol(ProtocolError::NoDescriptor(JobId(5)))), "{error}");
    fake.finish();
    let fake = Fake::serve(|mut peer| {
        let asked = peer.request().unwrap();
        peer.reply_with(asked.tag, Reply::Ended(vec![done_in_file(5, 12)]), file("hello world").as_fd());
    });
    let error = fake.client().result(JobId(5)).unwrap_err();
    assert!(matches!(error, Error::Protocol(ProtocolError::DescriptorSize { there: 11, .. })), "{error}");
    fake.finish();
}

#[test]
fn waiting_gives_one_item_for_each_number() {
    let fake = Fake::serve(|mut peer| {
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Wait { jobs: [3, 4, 5, 6].map(JobId).to_vec() });
        let unknown = UnknownJobs {
            jobs: vec![JobId(4), JobId(6)],
            last: JobId(5),
            others: true,
            ..UnknownJobs::default()
        };
        peer.reply(asked.tag, Reply::Unknown(unknown));
        peer.reply(asked.tag, Reply::Ended(vec![done(5, b""), done(3, b"")]));
    });
    let mut client = fake.client();
    let jobs = [5, 3, 4, 5, 6].map(JobId);
    let order: Vec<u64> = client
        .wait(jobs)
        .map(|item| match item.unwrap() {
            WaitItem::Ended(end) => end.job.0,
            WaitItem::Refused { job, refusal: Refusal::Gone { others: true, .. } } => 100 + job.0,
            WaitItem::Refused { job, refusal: Refusal::NeverWas { last: JobId(5), .. } } => 200 + job.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [104, 206, 5, 3]);
    fake.finish();
}

#[test]
fn lists_are_fetched_page_by_page() {
    let fake = Fake::serve(|mut peer| {
        for page in 0..3_u64 {
            let asked = peer.request().unwrap();
            let Request::Jobs { walk, .. } = asked.request else { panic!("jobs was expected") };
            assert_eq!(walk, Walk::Up(JobId(page * 2)));
            // On the second page nothing was wanted.
            let rows = (1..=2).map(|offset| row(page * 2 + offset)).filter(|_| page != 1).collect();
            peer.reply(asked.tag, Reply::Jobs { rows, last: JobId(page * 2 + 2), more: page < 2 });
        }
    });
    let mut client = fake.client();
    let jobs: Vec<u64> = client.jobs(None, JobId(0)).map(|row| row.unwrap().job.0).collect();
    assert_eq!(jobs, [1, 2, 5, 6]);
    fake.finish();
    let fake = Fake::serve(|mut peer| {
        let asked = peer.request().unwrap();
        peer.reply(asked.tag, Reply::Jobs { rows: Vec::new(), last: JobId(0), more: true });
    });
    assert!(fake.client().jobs(None, JobId(0)).next().unwrap().is_err(), "it would never end");
    fake.finish();
    let fake = Fake::serve(|mut peer| {
        for (before, last) in [(u64::MAX, 3), (3, 3)] {
            let asked = peer.request().unwrap();
            let Request::Jobs { walk, .. } = asked.request else { panic!("jobs was expected") };
            assert_eq!(walk, Walk::Down(JobId(before)));
            peer.reply(asked.tag, Reply::Jobs { rows: vec![row(last)], last: JobId(last), more: true });
        }
    });
    let mut client = fake.client();
    let mut jobs = client.newest_jobs(None);
    assert_eq!(jobs.next().unwrap().unwrap().job, JobId(3));
    assert!(jobs.next().unwrap().is_err(), "it would never end");
    fake.finish();
}

fn row(job: u64) -> bulkhead_proto::client::view::JobRow {
    bulkhead_proto::client::view::JobRow {
        job: JobId(job),
        kind: "noop".to_owned(),
        state: bulkhead_proto::job::JobState::Ended,
        outcome: Some("done".to_owned()),
        attempts: 1,
        crashes: 0,
        uid: 0,
        accepted_us: 0,
    }
}
