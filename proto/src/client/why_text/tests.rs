//! Tests of the sentences of `bulkhead why`, for each state of a job.
//!
//! Each test builds a [`Why`] by hand and looks for whole sentences; every line must be a sentence.

use super::*;
use crate::client::evidence::{Evidence, TaskProgress};
use crate::client::outcome::TimeLimit;
use crate::client::refusal::{BoundPart, MetBound};
use crate::client::view::PoolHealth;
use crate::client::why::{
    DrainLeft, LastFailure, Longest, OutputFilesWait, OutputWait, QueuedBefore, Unread, WhyPool, WhyShare,
};
use crate::death::{Death, KillReason};
use crate::ids::{JobId, SlotId, WorkerId};

fn why(now: WhyNow) -> Why {
    let past = Past { crashes_max: 3, ..Past::default() };
    Why { job: JobId(17), attempts: 1, now, vanished_ms: None, past }
}

pub(super) fn pool() -> WhyPool {
    WhyPool {
        name: "default".to_owned(),
        slots: 2,
        busy: 2,
        idle: 0,
        spent: 0,
        unclosed: 0,
        closed: 0,
        dying: 0,
        stuck: 0,
        spares: 1,
        starting: 0,
        next_spawn_ms: None,
        health: PoolHealth::Healthy,
        health_reason: String::new(),
        longest: Some(Longest { job: Some(JobId(5)), worker: WorkerId(3), for_ms: 12_300 }),
        share: WhyShare::default(),
        drain: None,
    }
}

pub(super) fn queued(before: QueuedBefore, unread: Option<Unread>, pool: WhyPool) -> Why {
    why(WhyNow::Queued {
        waited_ms: 3_720_000,
        before,
        priority: 4,
        raised: 372,
        unread,
        shortage_ms: None,
        outputs: None,
        expires_in_ms: Some(500),
        pool,
    })
}

fn ended(how: Outcome, by: Option<Canceller>) -> Why {
    why(WhyNow::Ended(WhyEnded {
        how,
        part: None,
        by,
        gone: None,
        at_us: 9,
        expires_ms: Some(500),
        holder: None,
        had_files: false,
    }))
}

fn holder(killed: Option<&str>, stuck: bool) -> Holder {
    Holder { worker: WorkerId(3), pid: Some(812), killed: killed.map(str::to_owned), stuck, ending: None }
}

fn assert_says(why: &Why, parts: &[&str]) {
    let text = why.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    for sentence in text.lines() {
        assert!(sentence.ends_with('.') && !sentence.starts_with(' '), "no sentence: {sentence:?}");
    }
}

#[test]
fn a_queued_job_says_who_goes_first_and_what_the_workers_do() {
    let before = QueuedBefore {
        same_client: 12,
        same_user: 1,
        clients: 1,
        others: 40,
        users: 2,
        users_first: 1,
        alone: 1,
    };
    assert_says(
        &queued(before, None, pool()),
        &[
            "Job 17 has been queued for 1h02m, with priority 4.",
            "12 jobs of its client go before it.",
            "1 more urgent job of other clients of its user goes before it.",
            "1 other client of its user has queued jobs of its priority; clients take turns.",
            "40 jobs of 2 other users are queued; users take turns.",
            "1 of these users holds fewer workers of the pool than the user of this job, and goes first.",
            "1 job that has to run alone waits for a worker that has run nothing, and then goes first.",
            "Waiting has raised its priority by 372 against jobs of its user.",
            "All 2 workers are busy: worker 3 has run job 5 for 12.30s, longer than any other.",
            "It expires in 500.00ms unless it begins.",
        ],
    );
}

#[test]
fn workers_that_cannot_close_files_are_counted_apart() {
    let says = |busy, unclosed| {
        queued(QueuedBefore::default(), None, WhyPool { busy, unclosed, ..pool() }).to_string()
    };
    let text = says(1, 1);
    assert!(
        text.contains(
            "1 worker gets no further task: more than 256 files of clients wait there to be closed"
        ),
        "{text}"
    );
    assert!(
        !text.contains("slots have a worker") && !text.contains("recycle_strict"),
        "it has its worker: {text}"
    );
    assert!(says(0, 2).contains("2 workers get no further task: more than 256"));
    assert!(!says(2, 0).contains("further task"));
}

#[test]
fn what_was_not_counted_to_its_end_is_said_so() {
    let before = QueuedBefore { same_client: WHY_COUNT_MAX, ..QueuedBefore::default() };
    assert_says(&queued(before, None, pool()), &["10000 or more jobs of its client go before it."]);
}

#[test]
fn a_queued_job_says_what_the_pool_lacks() {
    let reason = "10 workers ended".to_owned();
    let ill = WhyPool {
        busy: 0,
        starting: 1,
        stuck: 1,
        next_spawn_ms: Some(2300),
        health: PoolHealth::Degraded,
        health_reason: reason,
        drain: Some(DrainLeft { left_ms: Some(9000) }),
        longest: None,
        ..pool()
    };
    assert_says(
        &queued(QueuedBefore::default(), None, ill),
        &[
            "It is the next one in the queue.",
            "No worker is up: 1 worker is starting, 1 killed worker has not ended yet, the next worker is spawned \
             in 2.30s.",
            "The pool is degraded: 10 workers ended.",
            "The daemon is draining: jobs that have not ended in 9.00s are lost.",
        ],
    );
    let longest = Some(Longest { job: None, worker: WorkerId(3), for_ms: 5 });
    let half = WhyPool { busy: 1, longest, ..pool() };
    assert_says(
        &queued(QueuedBefore::default(), None, half),
        &[
            "1 worker is busy, in 2 slots: worker 3 has run a job of another user for 5.00ms",
            "1 of 2 slots have",
        ],
    );
}

#[test]
fn a_client_that_does_not_read_holds_its_jobs_back() {
    let unread = Unread { bytes: 9, bytes_max: 8, outputs: 1, outputs_max: 16, of_user: None };
    let (what, key) = ("bytes of unread results".to_owned(), Some("keep_bytes_max".to_owned()));
    let met = MetBound { what, limit: 75, part: BoundPart::Share { of: 100 }, key };
    for (unread, said) in [
        (
            unread.clone(),
            "It waits because its client does not read its results: 9 bytes of results are unread (limit 8 on one \
             connection, which is fixed); its jobs start again",
        ),
        (
            Unread { outputs: 16, ..unread.clone() },
            "16 outputs are unread (limit 16 on one connection, which",
        ),
        (
            Unread { of_user: Some(met), ..unread },
            "your share of the bytes of unread results is used up (limit 75 of 100, set by keep_bytes_max), and 9 bytes \
             wait for this client",
        ),
    ] {
        assert_says(&queued(QueuedBefore::default(), Some(unread), pool()), &[said]);
    }
}

#[test]
fn a_job_that_is_tried_again_says_for_what_and_what_was_before() {
    let mut job = why(WhyNow::Backoff { left_ms: 1500, alone: true });
    let last_failure = Some(LastFailure { attempt: 2, message: "no\nrow".to_owned() });
    job.past = Past { failures: 1, retries_max: 4, last_failure, lost: 1, asked: 2, ..job.past };
    assert_says(
        &job,
        &[
            "Job 17 failed and is tried again in 1.50s; then it waits for a worker of its own.",
            "Its own code failed 1 time and was tried again, of 4 allowed: attempt 2 said \"no\\nrow\".",
            "1 attempt was lost with a worker whose death was not charged to this job.",
            "It was run again on request 2 times after its end",
        ],
    );
    let evidence = Evidence { progress: Some(TaskProgress { done: 3, total: 10 }), ..Evidence::default() };
    let death = JobDeath {
        at_us: 1,
        part: None,
        attempt: 1,
        worker: WorkerId(2),
        pid: 811,
        death: Death::Signalled { signal: 9, core: false },
        charged: true,
        evidence,
    };
    let killed = JobDeath {
        death: Death::Killed { why: KillReason::Stop },
        charged: false,
        evidence: Evidence::default(),
        ..death.clone()
    };
    let mut job = why(WhyNow::Alone {
        before: 1,
        shortage_ms: Some(80),
        outputs: None,
        pool: WhyPool { spares: 0, ..pool() },
    });
    job.past = Past { deaths: vec![death, killed], crashes: 1, ..job.past };
    assert_says(
        &job,
        &[
            "Job 17 waits for a worker that has run nothing: a death was charged to it, so it runs alone.",
            "1 job waits for one before it.",
            "the daemon tries again in 80.00ms.",
            "No spare is ready (a worker that has run nothing).",
            "Attempt 1 ended when worker 2 (pid 811) died of SIGKILL (progress=3/10): charged to this job.",
            "worker 2 (pid 811) was killed by the supervisor: stop of the service: not charged.",
            "Deaths charged to it: 1; at 3 it is quarantined.",
        ],
    );
}

#[test]
fn a_running_job_says_where_since_when_and_what_is_left() {
    let limits = RunningLimits {
        timeout_ms: Some(60_000),
        timeout_left_ms: Some(48_000),
        cpu_ms: Some(2000),
        memory_bytes: Some(1 << 20),
        ..RunningLimits::default()
    };
    let running = Running {
        holder: holder(None, false),
        for_ms: 12_000,
        behind: 0,
        alone: true,
        lent: None,
        stopped_ms: None,
        program: None,
        drain: None,
        limits,
    };
    assert_says(
        &why(WhyNow::Running(running.clone())),
        &[
            "Job 17 has been running for 12.00s, attempt 1, in worker 3 (pid 812).",
            "It runs alone, in a worker that had run nothing",
            "It may run for another 48.00s of its 1m00s.",
            "An attempt may take at most 2.00s of processor time, 1048576 bytes of memory.",
        ],
    );
    assert_says(
        &why(WhyNow::Running(Running { lent: Some(SlotId(4)), ..running.clone() })),
        &["It runs in slot 4, which the pool lends to its user: others held all workers of the pool's own."],
    );
    let dying = holder(Some("protocol violation (malformed result)"), true);
    let running = Running { holder: dying, behind: 2, limits: RunningLimits::default(), ..running };
    assert_says(
        &why(WhyNow::Running(running.clone())),
        &[
            "Job 17 was handed to worker 3 (pid 812) 12.00s ago, attempt 1; 2 shorter tasks there go first.",
            "was killed (protocol violation (malformed result)) and is stuck: it should have ended long ago.",
            "It has no limit",
        ],
    );
    let drain = Some(DrainLeft { left_ms: Some(9_000) });
    let program = StoppedProgram { pid: 913, signal: 21, since_us: 7, for_ms: 5_000, left_ms: None };
    assert_says(
        &why(WhyNow::Running(Running { program: Some(program), behind: 0, ..running.clone() })),
        &[
            "Its program (pid 913) has been stopped by SIGTTIN for 5.00s and makes no progress: no limit ends it for \
             that, and `kill -CONT 913` continues it.",
            "It has no limit",
        ],
    );
    let program = StoppedProgram { left_ms: Some(2_000), ..program };
    let ended_for_it =
        why(WhyNow::Running(Running { program: Some(program), ..running.clone() })).to_string();
    assert!(
        ended_for_it.contains("progress: it is ended in 2.00s unless SIGCONT continues it."),
        "{ended_for_it}"
    );
    assert!(!ended_for_it.contains("It has no limit"), "{ended_for_it}");
    let threatened = Running { holder: holder(None, false), stopped_ms: Some(7_500), drain, ..running };
    assert_says(
        &Why { vanished_ms: Some(12_000), ..why(WhyNow::Running(threatened)) },
        &[
            "A signal stopped that worker: it is killed in 7.50s unless SIGCONT continues it.",
            "The daemon is draining: jobs that have not ended in 9.00s are lost.",
            "The client that it was attached to has disconnected: the job is cancelled in 12.00s.",
        ],
    );
}

#[test]
fn a_job_that_came_with_files_is_not_said_to_run_again() {
    let crashed = Outcome::Crashed { crashes: 3, last: "SIGSEGV".to_owned() };
    for (how, told) in [(crashed, true), (Outcome::Cancelled, true), (Outcome::Done, false)] {
        let mut why = ended(how, None);
        let WhyNow::Ended(end) = &mut why.now else { unreachable!("as made") };
        end.had_files = true;
        let text = why.to_string();
        assert_eq!(text.contains("The daemon closed the files that came with it"), told, "{text}");
        assert!(!text.contains("bulkhead retry"), "{text}");
    }
}

#[test]
fn an_ended_job_says_why_it_ended_so_and_what_can_be_done() {
    let timed_out = Outcome::TimedOut { limit: TimeLimit::Cpu, limit_ms: 2000, part: None };
    let crashed = Outcome::Crashed { crashes: 3, last: "SIGSEGV".to_owned() };
    for (how, by, said) in [
        (Outcome::Done, None, "Job 17 is done: attempt 1 gave its result."),
        (
            Outcome::Failed { message: "no".to_owned(), code: None },
            None,
            "said \"no\" in attempt 1, and 0 retries were allowed.",
        ),
        (crashed.clone(), None, "Job 17 is quarantined: it killed 3 workers, and crashes_max is 3."),
        (
            crashed,
            None,
            "`bulkhead retry 17` runs it again, alone in a worker that has run nothing, and `bulkhead f",
        ),
        (timed_out, None, "Job 17 timed out: attempt 1 used more processor time than 2.00s."),
        (Outcome::Cancelled, Some(Canceller::Owner { uid: 7 }), "was cancelled by its owner, user 7."),
        (Outcome::Cancelled, Some(Canceller::Administrator { uid: 0 }), "by an administrator, user 0."),
        (
            Outcome::Cancelled,
            Some(Canceller::Vanished { after_ms: 30_000 }),
            "attached to had disconnected 30.00s before.",
        ),
        (Outcome::Expired, None, "Job 17 expired: no attempt of it began within 500.00ms."),
        (
            Outcome::Lost { reason: "the service stopped".to_owned() },
            None,
            "Job 17 is lost: the service stopped.",
        ),
    ] {
        assert_says(&ended(how, by), &[said]);
    }
    let mut job = ended(Outcome::Cancelled, None);
    let WhyNow::Ended(end) = &mut job.now else { unreachable!("it has ended") };
    end.holder = Some(holder(Some("cancel"), false));
    assert_says(&job, &["still being ended: worker 3 (pid 812) was killed (cancel) and has not ended yet."]);
}

#[test]
fn a_wait_for_an_output_says_whether_bytes_or_files_are_short() {
    let files = Some(OutputFilesWait { held: 12, held_by_all: 13, share: 14, bound: 18 });
    let wait = OutputWait { held: 1, running: 1, held_by_all: 3, share: 4, bound: 5, files };
    let text = outputs_text(&wait);
    assert!(text.contains("12 of 14 files") && text.contains("13 of 18 (RLIMIT_NOFILE)"), "{text}");
    let text = outputs_text(&OutputWait { files: None, ..wait });
    assert!(text.contains("1 of 4 bytes") && text.contains("3 of 5 (outputs_bytes_max)"), "{text}");
}
