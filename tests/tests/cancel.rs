//! Cancelled jobs of real daemons: who cancels is answered at once; a task that heeds it in its time keeps its worker, a
//! deaf one does not.

use std::collections::BTreeSet;

use bulkhead_proto::client::message::{Reply, ReplyFrame, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::RefusedJobs;
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;
use bulkhead_tests::clips;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually};
use bulkhead_tests::wire::{Wire, submit};

/// A run that would take days.
const ENDLESS: &str = r#"{"seed":1,"bodies":12,"steps":1000000000000}"#;

/// A daemon with one worker for the n-body example, whose runs may take so long to end when they are cancelled.
fn daemon_with_grace(grace_ms: u32) -> Daemon {
    let program = binary("examples/nbody").display().to_string();
    let config = format!(
        "worker_program = {program:?}\nbuiltin_kinds = false\n[kinds.nbody]\ncancel_grace_ms = {grace_ms}\n"
    );
    Daemon::start_with(&Setup { workers: 1, chaos: false, config, ..Setup::default() })
}

/// A job that has begun for sure: its worker has used processor time.
fn begun(daemon: &Daemon, wire: &mut Wire, kind: &str, input: &str) -> (JobId, WorkerRow) {
    let Reply::Accepted { first, .. } = wire.call(Request::Submit(submit(kind, &[input], false))) else {
        panic!("not accepted");
    };
    let row = daemon.await_worker(WorkerState::Busy);
    let pid = row.pid.expect("it was spawned");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(11)?.parse::<u64>().ok()
    };
    let before = ticks().expect("its worker lives");
    eventually("the task has begun", || (ticks()? > before + 2).then_some(()));
    (first, row)
}

fn cancel(wire: &mut Wire, job: JobId) {
    let reply = wire.call(Request::Cancel { jobs: vec![job] });
    assert!(matches!(reply, Reply::Changed { count: 1, .. }), "{reply:?}");
    let detail = wire.job(job);
    assert_eq!((detail.row.state, detail.outcome), (JobState::Ended, Some(Outcome::Cancelled)));
}

#[test]
fn a_task_that_heeds_its_cancel_keeps_its_worker() {
    let daemon = daemon_with_grace(60_000);
    let mut wire = Wire::connect(&daemon.socket());
    for round in 1..=3 {
        let (job, row) = begun(&daemon, &mut wire, "nbody", ENDLESS);
        cancel(&mut wire, job);
        let idle = daemon.await_worker(WorkerState::Idle);
        assert_eq!((idle.worker, idle.pid), (row.worker, row.pid), "the worker is as warm as before");
        assert_eq!(wire.status().totals.stale, round, "what it brought was dropped");
        assert_eq!(wire.job(job).outcome, Some(Outcome::Cancelled));
    }
    assert!(daemon.events_named("killing").is_empty());
    let run = wire.run("nbody", &[r#"{"seed":1,"bodies":12,"steps":300}"#]);
    assert_eq!(run.iter().map(|ended| &ended.outcome).collect::<Vec<_>>(), [&Outcome::Done]);
}

/// Both of them look whether they are cancelled: between frames, and while a program runs.
#[test]
fn built_in_kinds_that_take_long_keep_their_workers() {
    let config = "[kinds.transform]\ncancel_grace_ms = 60000\n[kinds.exec]\ncancel_grace_ms = 60000\n";
    let setup = Setup { workers: 1, chaos: false, config: config.to_owned(), ..Setup::default() };
    let daemon = Daemon::start_with(&setup);
    let mut wire = Wire::connect(&daemon.socket());
    let warm = daemon.await_worker(WorkerState::Idle);
    let clip = daemon.folder().join("in.y4m");
    std::fs::write(&clip, clips::noise("W320 H240", 50)).expect("a clip");
    let marker = daemon.folder().join("marker").display().to_string();
    // The second program waits for what it has started in a session of its own, which does not go by itself.
    let script = format!("setsid sh -c 'echo $$ > {marker}; sleep 3600 & wait' & wait");
    let clip = clip.to_str().expect("text");
    let runs: [&[&str]; 2] = [
        &["submit", "transform", clip, "--chain", "scale=1280x960,blur=9,blur=9,scale=320x240"],
        &["submit", "exec", "--", "sh", "-c", &script],
    ];
    for run in runs {
        let job = daemon.ok(run);
        if run[1] == "exec" {
            eventually("its program runs", || {
                std::fs::read_to_string(&marker).ok().filter(|pid| pid.ends_with('\n'))
            });
        } else {
            let parts = || daemon.ok(&["job", job.trim(), "--json"]).contains("\"running\":1").then_some(());
            eventually("a part is run", parts);
        }
        daemon.ok(&["cancel", job.trim()]);
        let idle = daemon.await_worker(WorkerState::Idle);
        assert_eq!((idle.worker, idle.pid), (warm.worker, warm.pid), "{}: as warm as before", run[1]);
        assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
    }
    assert!(daemon.events_named("killing").is_empty());
    let program = std::fs::read_to_string(&marker).expect("its number");
    assert!(!std::path::Path::new(&format!("/proc/{}", program.trim())).exists(), "it runs on");
}

#[test]
fn without_a_grace_its_worker_is_killed_at_once() {
    let daemon = daemon_with_grace(0);
    let mut wire = Wire::connect(&daemon.socket());
    let (job, row) = begun(&daemon, &mut wire, "nbody", ENDLESS);
    cancel(&mut wire, job);
    let next = daemon.await_worker(WorkerState::Idle);
    assert_ne!(next.worker, row.worker);
}

#[test]
fn a_deaf_task_is_killed_when_its_time_is_over() {
    let config = "[kinds.chaos]\ncancel_grace_ms = 300\n".to_owned();
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: true, config, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    let (job, row) = begun(&daemon, &mut wire, "chaos", "loop");
    cancel(&mut wire, job);
    let next = daemon.await_worker(WorkerState::Idle);
    assert_ne!(next.worker, row.worker);
    let killed = daemon.events_named("killing");
    assert_eq!(killed.len(), 1, "{killed:?}");
    let pid = row.pid.expect("it was spawned");
    let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    eventually("the deaf one is gone", gone);
    assert_eq!(wire.run("noop", &["on"]).len(), 1);
}

#[test]
fn what_waits_is_cancelled_and_what_runs_ends_as_it_would() {
    let daemon = daemon_with_grace(60_000);
    let mut wire = Wire::connect(&daemon.socket());
    let (running, row) = begun(&daemon, &mut wire, "nbody", r#"{"seed":1,"bodies":12,"steps":4000000}"#);
    let queued = wire.submit("nbody", &[ENDLESS, ENDLESS, ENDLESS]);
    let range = format!("{running}..{}", queued.0 + 2);
    let told = daemon.ok(&["cancel", "--waiting", &range]);
    assert_eq!(told, format!("cancelled 3 jobs\njob {running} goes on: it has begun\n"));
    for job in (queued.0..queued.0 + 3).map(JobId) {
        let detail = wire.job(job);
        assert_eq!((detail.outcome, detail.row.attempts), (Some(Outcome::Cancelled), 0));
    }
    assert_eq!(wire.job(running).row.state, JobState::Running);
    cancel(&mut wire, running);
    assert_eq!(daemon.await_worker(WorkerState::Idle).pid, row.pid);
}

/// Short jobs are offered ahead, so the request races with their claims. Whatever wins, the reply and the ends agree.
#[test]
fn each_job_is_ended_or_done_as_the_reply_says() {
    const JOBS: usize = 1000;
    let daemon = Daemon::start_with(&Setup { workers: 2, chaos: false, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    // The daemon learns that they are short.
    wire.run("noop", &["x"; 200]);
    for _ in 0..10 {
        let Reply::Accepted { first, .. } = wire.call(Request::Submit(submit("noop", &["x"; JOBS], false)))
        else {
            panic!("not accepted");
        };
        let jobs: Vec<JobId> = (first.0..first.0 + JOBS as u64).map(JobId).collect();
        let Reply::CancelledWaiting { ended, running, refused } =
            wire.call(Request::CancelWaiting { jobs: jobs.clone() })
        else {
            panic!("no answer");
        };
        let over = refused.iter().flat_map(RefusedJobs::jobs);
        let mut told: Vec<JobId> = ended.iter().chain(&running).chain(over).copied().collect();
        told.sort_unstable();
        assert_eq!(told, jobs, "each is told once");
        let mut left: BTreeSet<JobId> = jobs.iter().copied().collect();
        wire.ask(Request::Wait { jobs });
        while !left.is_empty() {
            let Some(ReplyFrame { reply: Reply::Ended(ends), .. }) = wire.next_reply() else {
                panic!("no end")
            };
            for end in ends {
                let is_ended = ended.binary_search(&end.job).is_ok();
                let (outcome, attempts) = if is_ended { (Outcome::Cancelled, 0) } else { (Outcome::Done, 1) };
                assert_eq!((&end.outcome, end.attempts), (&outcome, attempts), "job {}", end.job);
                assert!(left.remove(&end.job), "job {} ends once", end.job);
            }
        }
    }
    assert!(daemon.events_named("killing").is_empty(), "nothing that ran was killed");
}
