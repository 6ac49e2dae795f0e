//! Each way to die has a name and its evidence, whoever asks: the events, the job, the command.

use bulkhead_proto::client::exit;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, eventually, send_signal};
use bulkhead_tests::wire::{Wire, submit};
use serde_json::Value;

/// A mode of chaos, the name of its death in JSON, its signal, and what people read of it.
struct Way {
    mode: &'static str,
    death: &'static str,
    signal: Option<i32>,
    text: &'static str,
    /// A function of its backtrace; none where nothing can speak.
    function: Option<&'static str>,
}

const CHAOS: Option<&str> = Some("bulkhead_jobs::chaos::run");

const WAYS: [Way; 12] = [
    Way {
        mode: "segv",
        death: "fault",
        signal: Some(11),
        text: "SIGSEGV at address 0x",
        function: Some("bulkhead_sys::raise::fault"),
    },
    Way {
        mode: "bus",
        death: "fault",
        signal: Some(7),
        text: "SIGBUS at address 0x",
        function: Some("bulkhead_sys::raise::bus_error"),
    },
    Way {
        mode: "ill",
        death: "fault",
        signal: Some(4),
        text: "SIGILL at address 0x",
        function: Some("bulkhead_sys::raise::illegal_instruction"),
    },
    Way {
        mode: "fpe",
        death: "fault",
        signal: Some(8),
        text: "SIGFPE at address 0x",
        function: Some("bulkhead_sys::raise::divide_by_zero"),
    },
    Way { mode: "sys", death: "signalled", signal: Some(31), text: "SIGSYS", function: CHAOS },
    Way { mode: "xcpu", death: "signalled", signal: Some(24), text: "SIGXCPU", function: CHAOS },
    Way {
        mode: "stack-overflow",
        death: "stack-overflow",
        signal: Some(11),
        text: "stack overflow (SIGSEGV at 0x",
        function: Some("bulkhead_jobs::chaos::deeper"),
    },
    Way {
        mode: "alloc",
        death: "allocation-failed",
        signal: Some(6),
        text: "allocation of 4611686018427387904 bytes failed (SIGABRT)",
        function: CHAOS,
    },
    Way { mode: "abort", death: "signalled", signal: Some(6), text: "SIGABRT", function: CHAOS },
    Way { mode: "kill", death: "signalled", signal: Some(9), text: "SIGKILL", function: None },
    Way {
        mode: "exit:0",
        death: "left-in-mid-job",
        signal: None,
        text: "left in mid-job with exit code 0",
        function: None,
    },
    Way { mode: "exit:7", death: "exited", signal: None, text: "exit code 7", function: None },
];

/// The events of this name about what is told of `id` in the field `of`.
fn about(daemon: &Daemon, name: &str, of: &str, id: &Value) -> Vec<Value> {
    daemon.events_named(name).into_iter().filter(|event| event[of] == *id).collect()
}

/// Checks what is told of one job that died three times in the same way.
fn check_job(daemon: &Daemon, way: &Way, id: &str) {
    let mode = way.mode;
    let shown = daemon.ok(&["job", id]);
    let detail: Value = serde_json::from_str(&daemon.ok(&["job", id, "--json"])).expect("a job");
    let deaths = detail["deaths"].as_array().expect("a list of deaths");
    assert_eq!(deaths.len(), 3, "{mode}: {detail}");
    assert!(shown.contains("quarantined") && shown.matches(way.text).count() >= 3, "{mode}: {shown}");
    for death in deaths {
        let cause = &death["death"];
        assert_eq!(cause["death"], way.death, "{mode}: {cause}");
        assert_eq!(cause["signal"].as_i64(), way.signal.map(i64::from), "{mode}: {cause}");
        check_trace(way, death);
        let died = about(daemon, "died", "worker", &death["worker"]).pop().expect("each death is an event");
        assert_eq!(died["death"], *cause, "{mode}: the event says what the job says");
        assert_eq!(died["evidence"], death["evidence"], "{mode}: with the same evidence");
        assert!(died["noticed_after_us"].is_u64(), "{mode}: its moment is known: {died}");
    }
    let newest = daemon.ok(&["deaths", "--limit", "1", "--json"]);
    let newest: Value = serde_json::from_str(&newest).expect("one death");
    assert_eq!((&newest["job"], &newest["death"]), (&detail["row"]["job"], &deaths[2]["death"]), "{mode}");
    assert!(daemon.ok(&["deaths", "--limit", "3"]).matches(way.text).count() == 3, "{mode}");
    let blamed = about(daemon, "blamed", "job", &detail["row"]["job"]);
    assert_eq!(blamed.len(), 3, "{mode}: {blamed:?}");
}

/// Every death that can speak is traced to its function and line.
fn check_trace(way: &Way, death: &Value) {
    let lines = death["backtrace"].as_array().expect("a list of lines");
    let is_it = |line: &Value, function: &str| {
        line.as_str().is_some_and(|line| line.starts_with(&format!("{function} (")) && line.contains(".rs:"))
    };
    match way.function {
        Some(function) => assert!(lines.iter().any(|line| is_it(line, function)), "{}: {lines:?}", way.mode),
        None => assert!(lines.is_empty(), "{}: {lines:?}", way.mode),
    }
}

/// Prints how long each kind of death took to be noticed; asserts nothing about time.
fn print_notice(daemon: &Daemon, way: &Way) {
    let mut spans: Vec<u64> = daemon
        .events_named("died")
        .iter()
        .filter(|died| {
            died["death"]["death"] == way.death
                && died["death"]["signal"].as_i64() == way.signal.map(i64::from)
        })
        .filter_map(|died| died["noticed_after_us"].as_u64())
        .collect();
    spans.sort_unstable();
    println!("{:>15}: noticed after {:>5} us (p50 of {})", way.mode, spans[spans.len() / 2], spans.len());
}

#[test]
fn each_way_to_die_is_named_charged_and_quarantined_with_its_evidence() {
    let daemon = Daemon::start();
    for way in &WAYS {
        let id = daemon.ok(&["submit", "chaos", way.mode]).trim().to_owned();
        let code = daemon.cli(&["wait", &id]).status.code();
        assert_eq!(code, Some(i32::from(exit::CRASHED)), "{}", way.mode);
        check_job(&daemon, way, &id);
        print_notice(&daemon, way);
    }
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["still here"]).len(), 1);
}

/// A fault that another process sent is told with its sender. SIGKILL is not: no handler runs for it.
#[test]
fn a_signal_from_outside_is_told_with_its_sender() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    for (name, number) in [("ABRT", 6), ("SEGV", 11), ("XCPU", 24)] {
        let job = wire.submit("sleep", &["60000"]);
        loop {
            let victim = eventually("the job runs", || {
                daemon
                    .workers()
                    .into_iter()
                    .find(|row| row.state == WorkerState::Busy && row.job == Some(job))
            });
            let pid = victim.pid.expect("a busy worker has a process");
            send_signal(pid, name);
            let died = eventually("its death is told", || {
                about(&daemon, "died", "worker", &victim.worker.0.into()).pop()
            });
            assert_eq!(
                (&died["death"]["death"], &died["death"]["signal"]),
                (&"sent".into(), &number.into()),
                "{died}"
            );
            let sender = died["death"]["sender_pid"].as_u64().expect("a sender");
            assert!(sender != 0 && sender != u64::from(pid), "{died}");
            let blamed = about(&daemon, "blamed", "worker", &victim.worker.0.into());
            let job_of = |blame: &serde_json::Value| blame["job"].clone();
            assert!(blamed.len() < 2 && blamed.iter().all(|blame| job_of(blame) == job.0), "{blamed:?}");
            // One that had not begun yet is charged with nothing, and runs elsewhere.
            if !blamed.is_empty() {
                break;
            }
        }
        daemon.ok(&["cancel", &job.to_string()]);
    }
}

/// As `systemctl kill` sends them to all processes of a unit. HUP drains the daemon; the job runs on and ends well.
#[test]
fn a_signal_to_the_whole_unit_charges_no_job() {
    let mut daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let sleeps = wire.ask(Request::Submit(submit("sleep", &["1500"], true)));
    let busy = daemon.await_worker(WorkerState::Busy).pid.expect("a busy worker has a process");
    for signal in ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO"] {
        send_signal(busy, signal);
    }
    let workers: Vec<u32> = daemon.workers().into_iter().filter_map(|row| row.pid).collect();
    assert!(workers.contains(&busy));
    for pid in workers.into_iter().chain([daemon.pid()]) {
        send_signal(pid, "HUP");
    }
    let mut outcome = None;
    while let Some(frame) = wire.next_reply() {
        if let (true, Reply::Ended(some)) = (frame.tag == sleeps, frame.reply) {
            outcome = some.into_iter().next().map(|end| end.outcome);
        }
    }
    assert_eq!(outcome, Some(Outcome::Done));
    assert!(daemon.await_end().success());
    let log = daemon.log();
    assert!(!log.contains("sent by process") && !log.contains("charged"), "{log}");
}
