//! The merge of a job in parts, caught in its middle: its worker is killed, and the job ends whole.
//!
//! The parts were run, the output has all of their bytes and half of what the merge adds to them. Nobody may see that.

use std::fs;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use bulkhead_tests::daemon::{Daemon, Setup, binary, send_signal};
use bulkhead_tests::payload::Gate;
use bulkhead_tests::pieces::{PIECES, merged_by, whole};

/// A daemon whose workers have the kind.
fn daemon() -> Daemon {
    let config = format!("worker_program = {:?}\n[kinds.{PIECES}]\nplans = true\n", binary("payload-worker"));
    Daemon::start_with(&Setup { chaos: false, config, ..Setup::default() })
}

fn start(daemon: &Daemon, gate: &Path, more: &[&str]) -> Child {
    let mut command = daemon.command(&["run", PIECES]);
    command.arg(gate).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

/// Kills the worker that merges, and lets the next one do it.
fn killed_in_its_merge(daemon: &Daemon, gate: &Gate, run: Child) -> Output {
    let first = gate.worker();
    send_signal(first, "KILL");
    let output = run.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let merges = merged_by(&gate.path());
    assert!(merges.len() == 2 && merges[0] == first.to_string() && merges[1] != merges[0], "{merges:?}");
    let deaths = daemon.ok(&["deaths", "--json"]);
    let newest = deaths.lines().next().expect("a death");
    let death: serde_json::Value = serde_json::from_str(newest).expect("a row of `deaths --json`");
    let told = (&death["pid"], &death["part"], &death["charged"]);
    assert_eq!(told, (&first.into(), &serde_json::Value::Null, &true.into()), "it was the merge's");
    output
}

#[test]
fn a_file_that_was_half_merged_appears_whole() {
    let daemon = daemon();
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fs::write(&old, "of before").expect("a file");
    for path in [&old, &new] {
        let gate = Gate::new();
        let before = fs::read(path).ok();
        let run = start(&daemon, &gate.path(), &["--out", &format!("out={}", path.display())]);
        gate.worker();
        assert_eq!(fs::read(path).ok(), before, "half of it has a name");
        let output = killed_in_its_merge(&daemon, &gate, run);
        assert!(fs::read(path).expect("it is there") == whole(), "it is not whole");
        assert_eq!(output.stdout, b"\n", "an output in place is no result besides");
    }
}

#[test]
fn an_output_in_memory_that_was_half_merged_is_whole_when_it_is_told() {
    let (daemon, gate) = (daemon(), Gate::new());
    let run = start(&daemon, &gate.path(), &["--large", "--json"]);
    let output = killed_in_its_merge(&daemon, &gate, run);
    let ends: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("an end"))
        .collect();
    let [end] = &ends[..] else { panic!("not one end: {}", ends.len()) };
    assert_eq!((&end["outcome"], &end["output_bytes"]), (&"done".into(), &whole().len().into()));
    assert!(end["result"].as_str().expect("text").as_bytes() == whole(), "it is not whole");
}
