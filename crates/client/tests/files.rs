//! Jobs with files, and how far they are: what goes out with a submit, and what comes while it runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use bulkhead_client::{
    Error, JobFile, JobInput, JobProgress, ProtocolError, RunOptions, Spec, SubmitOptions,
};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::OutputMode;
use fake::{Fake, Peer, done};

fn progress(peer: &mut Peer, tag: Tag, job: u64, done: u64) {
    peer.reply(tag, Reply::Progress { job: JobId(job), done, total: 10 });
}

/// Upper-cases the first of its files into the second.
fn shout(peer: &mut Peer) {
    let mut files = peer.descriptors.drain(..).map(File::from);
    let (mut from, mut to) = (files.next().unwrap(), files.next().unwrap());
    assert!(files.next().is_none(), "only two are named");
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    to.write_all(text.to_uppercase().as_bytes()).unwrap();
}

fn job(from: &str) -> (JobInput, Arc<File>) {
    let (mut source, target) = (tempfile::tempfile().unwrap(), Arc::new(tempfile::tempfile().unwrap()));
    source.write_all(from.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut source).unwrap();
    let files = vec![JobFile::read("in", source), JobFile::written("out", Arc::clone(&target))];
    (JobInput { output: OutputMode::File, files, ..b"how".to_vec().into() }, target)
}

#[test]
fn each_job_with_files_is_a_submit_with_its_own_descriptors() {
    let fake = Fake::serve(|mut peer| {
        for number in 1..=2 {
            let (tag, submit) = peer.submit().unwrap();
            assert_eq!(submit.files, [FileUse::new("in", Way::In), FileUse::new("out", Way::Out)]);
            assert_eq!((submit.policy.output, submit.inputs.len()), (OutputMode::File, 1));
            assert!(submit.attached && !submit.progress, "nobody asked how far it is");
            shout(&mut peer);
            peer.accept(tag, number, 1);
            peer.reply(tag, Reply::Ended(vec![done(number, b"")]));
        }
    });
    let mut client = fake.client();
    let (jobs, targets): (Vec<_>, Vec<_>) = ["one", "two"].map(job).into_iter().unzip();
    for item in client.run(Spec::new("shout"), jobs, RunOptions::default()) {
        assert_eq!(item.unwrap().end.output.bytes(), 0);
    }
    let texts = targets.iter().map(|target| {
        let mut target = target.as_ref();
        std::io::Seek::rewind(&mut target).unwrap();
        std::io::read_to_string(target).unwrap()
    });
    assert_eq!(texts.collect::<Vec<_>>(), ["ONE", "TWO"]);
    assert!(targets.iter().all(|target| Arc::strong_count(target) == 1), "the client let go of them");
    drop(client);
    fake.finish();
}

#[test]
fn a_busy_daemon_gets_the_files_again() {
    let fake = Fake::serve(|mut peer| {
        let (tag, _) = peer.submit().unwrap();
        assert_eq!(peer.descriptors.drain(..).count(), 2);
        let busy = Refusal::Busy {
            what: "files".to_owned(),
            limit: 3,
            part: BoundPart::All,
            key: None,
            retry_after_ms: 1,
        };
        peer.reply(tag, Reply::Refused(busy));
        let (tag, _) = peer.submit().unwrap();
        shout(&mut peer);
        peer.accept(tag, 1, 1);
    });
    let mut client = fake.client();
    let (job, _target) = job("one");
    let options = SubmitOptions { wait_when_busy: true, ..SubmitOptions::default() };
    let mut submission = client.submit(Spec::new("shout"), [job], options);
    assert_eq!(submission.next().unwrap().unwrap(), 1..2);
    assert!(submission.next().is_none());
    drop(client);
    fake.finish();
}

#[test]
fn progress_is_heard_while_the_run_waits() {
    let fake = Fake::serve(|mut peer| {
        let (tag, submit) = peer.submit().unwrap();
        assert!(submit.progress);
        peer.accept(tag, 5, 2);
        progress(&mut peer, tag, 6, 3);
        progress(&mut peer, tag, 6, 4);
        peer.reply(tag, Reply::Ended(vec![done(6, b"x")]));
        progress(&mut peer, tag, 5, 9);
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(5)] });
        progress(&mut peer, tag, 5, 10);
        peer.reply(asked.tag, Reply::Changed { count: 1, refused: Vec::new() });
    });
    let mut client = fake.client();
    let heard = RefCell::new(Vec::new());
    let options = RunOptions { ordered: false, ..RunOptions::default() };
    let inputs = [b"a", b"b"].map(|text| JobInput::from(text.to_vec()));
    let mut run = client.run(Spec::new("noop"), inputs, options);
    run.on_progress(|progress| heard.borrow_mut().push(progress));
    assert_eq!(run.next().unwrap().unwrap().index, 1);
    let told = |done| JobProgress { index: 1, job: JobId(6), done, total: 10 };
    assert_eq!(heard.take(), [told(3), told(4)]);
    assert_eq!(run.cancel_rest().unwrap(), 1);
    drop(run);
    drop(client);
    fake.finish();
}

#[test]
fn progress_of_a_job_that_was_never_ours_is_a_fault() {
    for accepted in [false, true] {
        let fake = Fake::serve(move |mut peer| {
            let (tag, _) = peer.submit().unwrap();
            if accepted {
                peer.accept(tag, 5, 1);
            }
            progress(&mut peer, tag, 6, 1);
        });
        let mut client = fake.client();
        let input = JobInput::from(b"a".to_vec());
        let last = client.run(Spec::new("noop"), [input], RunOptions::default()).last().unwrap();
        let Err(Error::Protocol(fault)) = last else { panic!("{last:?}") };
        match accepted {
            true => assert!(matches!(fault, ProtocolError::Job(JobId(6))), "{fault}"),
            false => assert!(matches!(fault, ProtocolError::Reply("progress")), "{fault}"),
        }
        fake.finish();
    }
}
