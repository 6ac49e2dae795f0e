//! Results that are held until their client reports that it has them.
//!
//! A held result is kept when it was sent; a receipt forgets it, and nothing else of the client's doing does.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Leftover, TaskResult};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobOutput, Outcome};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, JobId, OutputId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};

use crate::rig::{ADMIN, ALICE, Rig, config, exit_code};

/// The audit after each turn sees what the client's connection remembers of them.
#[test]
fn held_results_that_are_gone_are_not_remembered_for_their_receipts() {
    let mut rig = Rig::with(Config { keep_jobs_max: 1000, ..config(1) });
    let first = rig.done_held(20);
    let sent = rig.numbered(ALICE);
    for (number, job) in &sent[..18] {
        rig.change(ALICE, Request::Forget { jobs: vec![*job] });
        assert!(*job >= first && *number <= 18);
    }
    rig.received(19);
    let (left, last) = (sent[19].1, sent[18].1);
    assert_eq!((rig.has_result(last), rig.has_result(left)), (false, true), "numbers stay what they were");
    rig.received(20);
    assert!(!rig.has_result(left));
}

/// A receipt for a job that failed takes its end off and leaves the job: what is left may be gone results alone.
#[test]
fn a_receipt_leaves_no_more_gone_ends_than_others() {
    let mut rig = Rig::new(1);
    let first = rig.submit_held(2, Policy::default());
    let second = JobId(first.0 + 1);
    rig.fail(first);
    rig.fail(second);
    rig.change(ALICE, Request::Forget { jobs: vec![second] });
    rig.received(1);
    assert!(matches!(rig.outcome(first), Some(Outcome::Failed { .. })), "a failed job is kept");
}

impl Rig {
    fn submit_held(&mut self, count: usize, policy: Policy) -> JobId {
        let inputs = vec![Payload::default(); count];
        let kind = "quick".to_owned();
        let submit = Submit { kind, policy, attached: true, held: true, inputs, ..Submit::default() };
        match self.answer(ALICE, Request::Submit(submit)) {
            Reply::Accepted { first, .. } => first,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Held jobs of Alice that are done, one a turn.
    fn done_held(&mut self, count: usize) -> JobId {
        let first = self.submit_held(count, Policy::default());
        (0..count as u64).for_each(|next| self.finish(JobId(first.0 + next)));
        first
    }

    /// The numbers and jobs of the held ends that a client was sent.
    fn numbered(&self, client: ClientId) -> Vec<(u64, JobId)> {
        let mut all = Vec::new();
        for (to, _, reply, _) in &self.replies {
            if let Reply::Held { first, ended } = reply
                && *to == client
            {
                all.extend((*first..).zip(ended.iter().map(|end| end.job)));
            }
        }
        all
    }

    fn received(&mut self, through: u64) {
        let before = self.replies.len();
        self.ask(ALICE, Request::Received { through });
        assert_eq!(self.replies.len(), before, "a receipt has no reply");
    }

    fn has_result(&mut self, job: JobId) -> bool {
        match self.answer(ALICE, Request::Result { job }) {
            Reply::Ended(ended) => ended[0].outcome == Outcome::Done,
            Reply::Refused(Refusal::Gone { .. }) => false,
            other => panic!("no result: {other:?}"),
        }
    }
}

#[test]
fn a_held_result_is_kept_until_its_receipt() {
    let mut rig = Rig::new(1);
    let first = rig.done_held(4);
    let numbers: Vec<u64> = rig.numbered(ALICE).iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(rig.status().kept, 4);
    rig.received(2);
    let kept: Vec<bool> = (0..4).map(|next| rig.has_result(JobId(first.0 + next))).collect();
    assert_eq!(kept, [false, false, true, true], "a receipt is for all ends up to its number");
    rig.received(1);
    rig.received(2);
    assert!(rig.has_result(JobId(first.0 + 2)), "an older receipt changes nothing");
    assert!(rig.has_result(JobId(first.0 + 2)), "a result may be read as often as it is asked for");
    rig.received(4);
    assert_eq!(rig.status().kept, 0);
}

#[test]
fn a_receipt_of_what_was_not_sent_is_refused() {
    let mut rig = Rig::new(1);
    let job = rig.done_held(1);
    for through in [2, u64::MAX] {
        let reply = rig.answer(ALICE, Request::Received { through });
        let Reply::Refused(Refusal::Invalid { why }) = reply else { panic!("{reply:?}") };
        assert_eq!(why, format!("receipt through {through}, and 1 held ends were sent so far"));
    }
    assert!(rig.has_result(job), "a refused receipt forgets nothing");
    rig.received(1);
    assert!(!rig.has_result(job));
}

#[test]
fn a_client_that_leaves_without_a_receipt_leaves_its_results() {
    let mut rig = Rig::new(1);
    let first = rig.done_held(2);
    rig.received(1);
    rig.tell(Event::ClientGone { client: ALICE });
    rig.sleep(120_000);
    let reply = rig.answer(ADMIN, Request::Result { job: JobId(first.0 + 1) });
    assert!(matches!(reply, Reply::Ended(ended) if ended[0].outcome == Outcome::Done));
    assert!(matches!(rig.answer(ADMIN, Request::Result { job: first }), Reply::Refused(_)));
}

#[test]
fn a_receipt_and_the_end_of_the_connection_in_one_turn_forget() {
    let mut rig = Rig::new(1);
    rig.done_held(1);
    rig.tag += 1;
    let (tag, request) = (bulkhead_proto::ids::Tag(rig.tag), Request::Received { through: 1 });
    rig.batch.push(Event::ClientSaid { client: ALICE, tag, request, files: Vec::new() });
    rig.batch.push(Event::ClientGone { client: ALICE });
    rig.turn();
    assert_eq!(rig.status().kept, 0);
}

#[test]
fn an_end_that_was_not_done_is_numbered_and_stays_after_its_receipt() {
    let mut rig = Rig::new(1);
    let failed = rig.submit_held(1, Policy::default());
    let output = Leftover::Inline(Payload::from(vec![7]));
    rig.finish_with(
        failed,
        TaskResult::Failed { message: "no".to_owned(), program: exit_code(3), output },
        1,
    );
    let done = rig.done_held(1);
    assert_eq!(rig.numbered(ALICE), [(1, failed), (2, done)]);
    rig.received(2);
    assert!(!rig.has_result(done));
    assert!(matches!(rig.outcome(failed), Some(Outcome::Failed { .. })), "for why and retry");
}

#[test]
fn a_job_that_was_asked_to_run_again_is_in_no_receipt() {
    let mut rig = Rig::new(1);
    let job = rig.submit_held(1, Policy::default());
    rig.fail(job);
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![job] }).0, 1);
    rig.finish(job);
    rig.received(1);
    assert!(rig.has_result(job), "the receipt is for its first end");
}

#[test]
fn a_receipt_waits_for_other_readers() {
    let mut rig = Rig::with(Config { client_credit_bytes: 10_000, ..config(1) });
    // The administrator has no credit left.
    for _ in 0..4 {
        let large = rig.submit(1);
        rig.finish_with(large, TaskResult::Inline(Payload::from(vec![1; 4096])), 1);
        rig.ask(ADMIN, Request::Wait { jobs: vec![large] });
    }
    // One waits before the end, one after it.
    let first = rig.submit_held(2, Policy::default());
    let second = JobId(first.0 + 1);
    let wait = rig.ask(ADMIN, Request::Wait { jobs: vec![first] });
    rig.finish(first);
    rig.finish(second);
    let late = rig.ask(ADMIN, Request::Wait { jobs: vec![second] });
    assert_eq!((rig.numbered(ALICE).len(), rig.told(ADMIN, Some(wait)).len()), (2, 0));
    rig.received(2);
    rig.tell(Event::ClientFlushed { client: ADMIN });
    rig.tell(Event::ClientFlushed { client: ADMIN });
    let told = [wait, late].map(|tag| rig.told(ADMIN, Some(tag)).len());
    assert_eq!(told, [1, 1], "they were not forgotten before they were told");
    assert!(!rig.has_result(first) && !rig.has_result(second), "and then they were");
}

#[test]
fn a_held_output_is_kept_with_its_descriptor() {
    let mut rig = Rig::new(1);
    let job = rig.submit_held(1, Policy { output: OutputMode::Descriptor, ..Policy::default() });
    rig.finish_with(job, TaskResult::Held { output: OutputId(5), bytes: 99 }, 1);
    let (_, _, reply, output) = rig.replies.last().unwrap();
    let told = JobOutput::Descriptor { bytes: 99 };
    assert!(matches!(reply, Reply::Held { first: 1, ended } if ended[0].output == told));
    assert_eq!((*output, rig.dropped.len()), (Some(OutputId(5)), 0));
    rig.received(1);
    assert_eq!(rig.dropped, [OutputId(5)]);
}

#[test]
fn one_client_without_receipts_uses_a_quarter_of_what_is_kept() {
    let mut rig = Rig::with(Config { keep_jobs_max: 20, ..config(1) });
    let others = rig.submit(12);
    (0..12).for_each(|next| rig.finish(JobId(others.0 + next)));
    let first = rig.done_held(40);
    assert_eq!(rig.status().kept, 12 + 5);
    assert!(rig.has_result(others), "results of others are not pushed out");
    let kept = (0..40).filter(|next| rig.has_result(JobId(first.0 + next))).collect::<Vec<u64>>();
    assert_eq!(kept, [35, 36, 37, 38, 39], "the oldest go first");
    assert!(rig.recorded(|what| matches!(what, What::Evicted { .. })) > 0, "it is said");
    rig.received(40);
    assert_eq!(rig.status().kept, 12);
}

#[test]
fn results_are_held_for_attached_jobs_alone() {
    let mut rig = Rig::new(1);
    let inputs = vec![Payload::default()];
    let submit = Submit { kind: "quick".to_owned(), held: true, inputs, ..Submit::default() };
    let reply = rig.answer(ALICE, Request::Submit(submit));
    assert!(matches!(reply, Reply::Refused(Refusal::Invalid { .. })), "{reply:?}");
}
