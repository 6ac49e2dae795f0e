//! Sessions with a daemon made by hand: jobs by token, and what became of each as a word.

#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_client::{
    JobInput, ReceivedOutput, Session, SessionEnd, SessionEvent, SessionLeader, SessionOptions, SessionTurn,
    Spec,
};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::ids::JobId;

use crate::fake::{Fake, Peer, done};

/// Against a session that hangs; no test comes near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn open(fake: &Fake, options: SessionOptions) -> Session {
    Session::over(fake.client(), options).unwrap()
}

pub(crate) fn spec() -> Arc<Spec> {
    Arc::new(Spec::new("noop"))
}

pub(crate) fn input(number: u64) -> JobInput {
    JobInput::from(number.to_string().into_bytes())
}

pub(crate) fn submit_all(session: &Session, spec: &Arc<Spec>, tokens: std::ops::Range<u64>) {
    tokens.for_each(|token| session.submit(token, spec, input(token)).unwrap());
}

/// Accepts the next submit and ends its jobs with their inputs, backwards. Gives how many.
pub(crate) fn echo(peer: &mut Peer, first: u64) -> Option<u64> {
    let (tag, submit) = peer.submit()?;
    assert!(submit.attached && !submit.held);
    peer.accept(tag, first, submit.inputs.len());
    let ends = submit.inputs.iter().zip(first..).map(|(input, job)| done(job, input.as_bytes()));
    let mut ends: Vec<JobEnded> = ends.collect();
    ends.reverse();
    peer.reply(tag, Reply::Ended(ends));
    Some(submit.inputs.len() as u64)
}

pub(crate) fn cancelled(job: u64) -> JobEnded {
    let (outcome, output, survivors) = (Outcome::Cancelled, JobOutput::None, Vec::new());
    JobEnded { job: JobId(job), outcome, output, attempts: 0, survivors }
}

/// What became of each token, as a word.
pub(crate) fn told(events: &mut Vec<SessionEvent>) -> BTreeMap<u64, String> {
    let mut told = BTreeMap::new();
    for event in events.drain(..) {
        let SessionEvent::Job { token, end } = event else { continue };
        let word = match end {
            SessionEnd::Ended(end) => match end.output {
                ReceivedOutput::Inline(bytes) => String::from_utf8(bytes).unwrap(),
                _ => end.outcome.word().to_owned(),
            },
            SessionEnd::Refused(_) => "refused".to_owned(),
            SessionEnd::Withdrawn => "withdrawn".to_owned(),
            SessionEnd::Lost => "lost".to_owned(),
        };
        assert!(told.insert(token, word).is_none(), "token {token} is told once");
    }
    told
}

/// Turns until so many jobs were told.
pub(crate) fn read(leader: &mut SessionLeader<'_>, jobs: usize) -> BTreeMap<u64, String> {
    let mut events = Vec::new();
    while events.iter().filter(|event| matches!(event, SessionEvent::Job { .. })).count() < jobs {
        let turn = leader.turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap();
        assert_ne!(turn, SessionTurn::TimedOut, "{events:?}");
    }
    told(&mut events)
}

pub(crate) fn expected(words: &[(u64, &str)]) -> BTreeMap<u64, String> {
    words.iter().map(|(token, word)| (*token, (*word).to_owned())).collect()
}
