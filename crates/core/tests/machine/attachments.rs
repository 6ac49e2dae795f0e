//! Files that come with jobs: which are taken, which tasks get them, and that each is dropped once and not too early.

use bulkhead_core::action::TaskFile;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Attached, Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::why::{Why, WhyEnded, WhyNow};
use bulkhead_proto::file::{FileUse, IN, OUT, Way};
use bulkhead_proto::ids::{ClientId, FileId, JobId, Tag};
use bulkhead_proto::job::{OutputMode, Payload, Policy};

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV, config};

/// One job of the kind `quick` that reads `in` and writes `out`.
fn both_ways() -> Submit {
    Submit {
        kind: "quick".to_owned(),
        files: vec![FileUse::new(IN, Way::In), FileUse::new(OUT, Way::Out)],
        inputs: vec![Payload::default()],
        ..Submit::default()
    }
}

impl Rig {
    /// Submits with this many descriptors, each of which pins so much; gives their numbers and the answer.
    pub(crate) fn send(
        &mut self,
        client: ClientId,
        request: Request,
        came: usize,
        pinned: u64,
    ) -> (Vec<FileId>, Reply) {
        self.tag += 1;
        let tag = Tag(self.tag);
        let files: Vec<FileId> = (0..came as u64).map(|next| FileId(self.files_made + next + 1)).collect();
        self.files_made += came as u64;
        let attached = files.iter().map(|file| Attached { file: *file, pinned_bytes: pinned }).collect();
        self.tell(Event::ClientSaid { client, tag, request, files: attached });
        let answer = self.replies.iter().find(|reply| reply.1 == tag).map(|reply| reply.2.clone());
        (files, answer.expect("an answer at once"))
    }

    pub(crate) fn with_files(&mut self, client: ClientId, submit: Submit) -> (Vec<FileId>, JobId) {
        let came = submit.files.len();
        match self.send(client, Request::Submit(submit), came, 100) {
            (files, Reply::Accepted { first, .. }) => (files, first),
            (_, other) => panic!("not accepted: {other:?}"),
        }
    }

    fn refused(&mut self, client: ClientId, submit: Submit, came: usize, pinned: u64) -> String {
        let (files, answer) = self.send(client, Request::Submit(submit), came, pinned);
        assert_eq!(self.let_go.split_off(self.let_go.len() - came), files, "what is refused is let go");
        match answer {
            Reply::Refused(refusal) => refusal.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[test]
fn files_go_with_the_task_and_are_let_go_at_its_end() {
    let mut rig = Rig::new(1);
    let (files, job) = rig.with_files(ALICE, both_ways());
    let held = rig.workers.values().flatten().next().expect("it is offered").clone();
    let named = |at: usize| TaskFile::Client { file: files[at], name: both_ways().files[at].clone() };
    assert_eq!(held.task.files, [named(0), named(1)]);
    assert!(rig.let_go.is_empty());
    rig.finish(job);
    assert_eq!(rig.let_go, files);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(rig.let_go, files, "once");
}

#[test]
fn every_attempt_has_the_files_again() {
    let mut rig = Rig::new(1);
    let policy = Policy { retries_max: Some(1), ..Policy::default() };
    let (files, job) = rig.with_files(ALICE, Submit { policy, ..both_ways() });
    rig.crash(job);
    assert_eq!(rig.workers.values().flatten().next().map(|held| held.task.files.len()), Some(2));
    rig.fail(job);
    assert!(rig.let_go.is_empty(), "it is tried again");
    rig.sleep(1000);
    rig.fail(job);
    assert_eq!(rig.let_go, files);
}

#[test]
fn a_worker_that_may_use_them_keeps_them_beyond_the_end() {
    let mut rig = Rig::new(1);
    let (files, job) = rig.with_files(ALICE, both_ways());
    let worker = rig.claim(job);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert!(rig.let_go.is_empty(), "its worker is killed, and that is not proven");
    rig.die(worker, SEGV);
    assert_eq!(rig.let_go, files);
}

#[test]
fn an_offer_that_is_taken_back_lets_them_go() {
    let mut rig = Rig::new(1);
    let (files, job) = rig.with_files(ALICE, both_ways());
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    assert_eq!(rig.let_go, files);
    let (queued, second) = {
        rig.submit(1);
        rig.with_files(ALICE, both_ways())
    };
    rig.let_go.clear();
    rig.change(ALICE, Request::Cancel { jobs: vec![second] });
    assert_eq!(rig.let_go, queued, "one that was never offered too");
}

#[test]
fn what_ended_with_files_is_not_run_again() {
    let mut rig = Rig::new(1);
    let (_, job) = rig.with_files(ALICE, both_ways());
    rig.fail(job);
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert_eq!(count, 0);
    assert!(refused[0].to_string().contains("submit it anew"), "{refused:?}");
    let had_files = |why: Why| matches!(why.now, WhyNow::Ended(WhyEnded { had_files: true, .. }));
    assert!(had_files(rig.why(ALICE, job)) && rig.detail(job).has_files);
    let plain = rig.submit(1);
    rig.fail(plain);
    assert!(!had_files(rig.why(ALICE, plain)) && !rig.detail(plain).has_files);
}

#[test]
fn files_are_never_ahead() {
    let mut rig = Rig::new(1);
    for _ in 0..60 {
        let job = rig.submit(1);
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
    }
    let (_, first) = rig.with_files(ALICE, both_ways());
    rig.submit(5);
    assert_eq!(rig.workers.values().map(Vec::len).max(), Some(1), "nothing shares a ring with files");
    rig.with_files(ALICE, both_ways());
    rig.finish_with(first, TaskResult::Inline(Payload::default()), 1000);
    let held: Vec<usize> = rig.workers.values().flatten().map(|held| held.task.files.len()).collect();
    assert!(held.len() > 1 && held.iter().all(|files| *files == 0), "{held:?}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let mut rig = Rig::new(1);
    let cases = [
        (Submit { inputs: vec![Payload::default(); 2], ..both_ways() }, 2, "belong to one job"),
        (Submit { files: vec![FileUse::new("1st", Way::In)], ..both_ways() }, 1, "cannot name a file"),
        (Submit { files: vec![FileUse::new(IN, Way::In)], ..both_ways() }, 2, "names 1 files and 2 came"),
        (
            Submit {
                files: vec![FileUse::new(OUT, Way::In)],
                policy: Policy { output: OutputMode::File, ..Policy::default() },
                ..both_ways()
            },
            1,
            "no \"out\" to be written",
        ),
        (
            Submit {
                files: Vec::new(),
                policy: Policy { output: OutputMode::File, ..Policy::default() },
                ..both_ways()
            },
            0,
            "no \"out\" to be written",
        ),
        (Submit { kind: "no-such-kind".to_owned(), ..both_ways() }, 2, "unknown kind"),
    ];
    for (submit, came, words) in cases {
        let why = rig.refused(ALICE, submit, came, 1);
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn an_output_may_go_into_a_file() {
    let mut rig = Rig::new(1);
    let policy = Policy { output: OutputMode::File, ..Policy::default() };
    let (_, job) = rig.with_files(ALICE, Submit { policy, ..both_ways() });
    let held = rig.workers.values().flatten().next().expect("it is offered");
    assert_eq!((held.task.job, held.task.output), (job, OutputMode::File));
}

#[test]
fn requests_that_take_no_files_let_them_go() {
    let mut rig = Rig::new(1);
    let (files, _) = rig.send(ALICE, Request::Ping, 2, 1);
    assert_eq!(rig.let_go, files);
    rig.let_go.clear();
    rig.tell(Event::ClientGone { client: BOB });
    let attached = vec![Attached { file: FileId(77), pinned_bytes: 0 }];
    rig.tell(Event::ClientSaid { client: BOB, tag: Tag(1), request: Request::Ping, files: attached });
    assert_eq!(rig.let_go, [FileId(77)], "nor does a client keep any that is gone");
}

#[test]
fn one_user_has_three_quarters_of_the_files_and_root_all() {
    let mut rig = Rig::with(Config { files_max: 8, ..config(1) });
    for _ in 0..3 {
        rig.with_files(ALICE, both_ways());
    }
    let why = rig.refused(ALICE, both_ways(), 2, 1);
    assert!(
        why.contains(
            "your share of the files that come with jobs is used up (limit 6 of 8, set by files_max)"
        ),
        "{why}"
    );
    let (_, last) = rig.with_files(BOB, both_ways());
    let why = rig.refused(BOB, both_ways(), 2, 1);
    assert!(
        why.contains("no room for more files that come with jobs (limit 8, set by files_max); try again"),
        "{why}"
    );
    rig.change(BOB, Request::Cancel { jobs: vec![last] });
    rig.with_files(ADMIN, both_ways());
    rig.change(ALICE, Request::Cancel { jobs: (1..4).map(JobId).collect() });
    for _ in 0..3 {
        rig.with_files(ADMIN, both_ways());
    }
}

#[test]
fn memory_that_files_pin_has_a_budget() {
    let mut rig = Rig::with(Config { files_bytes_max: 1000, ..config(1) });
    rig.with_files(ALICE, both_ways());
    let why = rig.refused(ALICE, both_ways(), 2, 300);
    assert!(
        why.contains("busy")
            && why.contains("bytes of memory")
            && why.contains("(limit 750 of 1000, set by files_bytes_max)"),
        "{why}"
    );
    // What can never fit is not told to try again.
    let why = rig.refused(ALICE, both_ways(), 2, u64::MAX);
    assert!(why.contains("invalid") && why.contains("leave large files on a disk"), "{why}");
}

#[test]
fn a_draining_daemon_takes_no_files() {
    let mut rig = Rig::new(1);
    rig.submit(1);
    rig.tell(Event::Drain { grace_ms: None });
    assert_eq!(rig.refused(ALICE, both_ways(), 2, 1), Refusal::Draining.to_string());
}
