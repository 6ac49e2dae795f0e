//! Kinds of one's own: the example programs of the worker library, declared in a config file and run.

use std::collections::BTreeSet;

use bulkhead_proto::client::exit;
use bulkhead_tests::daemon::{Daemon, Setup, binary};

/// A daemon whose workers run an example program that has this kind alone.
fn daemon_with(example: &str, workers: u16) -> Daemon {
    let program = binary(&format!("examples/{example}"));
    let config = format!(
        "worker_program = {:?}\nbuiltin_kinds = false\n[kinds.{example}]\nusage = \"JSON\"\nsummary = \"an example\"\n",
        program.display().to_string()
    );
    Daemon::start_with(&Setup { workers, chaos: false, config, ..Setup::default() })
}

#[test]
fn squares_of_five_numbers_over_five_workers() {
    let daemon = daemon_with("square", 5);
    assert_eq!(daemon.ok(&["run", "square", "--each", "0", "1", "2", "3", "4"]), "0\n1\n4\n9\n16\n");
    let kinds = daemon.ok(&["kinds"]);
    assert!(
        kinds.contains("square") && kinds.contains("an example") && !kinds.contains("factorial"),
        "{kinds}"
    );
}

#[test]
fn input_that_does_not_fit_fails_its_own_job_in_words() {
    let daemon = daemon_with("square", 2);
    let output = daemon.cli(&["run", "square", "--each", "three", "3", "-9223372036854775808"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "9\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the input does not fit this kind: expected ident at line 1 column 2"), "{said}");
    assert!(said.contains("the square of -9223372036854775808 does not fit 64 bits"), "{said}");
    let refused = daemon.cli(&["run", "factorial", "5"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("square"), "{said}");
}

#[test]
fn an_ensemble_spreads_over_the_workers_and_is_the_same_each_time() {
    let daemon = daemon_with("nbody", 2);
    let inputs: Vec<String> =
        (1..=6).map(|seed| format!(r#"{{"seed":{seed},"bodies":12,"steps":300}}"#)).collect();
    let mut words = vec!["run", "nbody", "--each"];
    words.extend(inputs.iter().map(String::as_str));
    let first = daemon.ok(&words);
    assert_eq!(first, daemon.ok(&words));
    let runs: Vec<serde_json::Value> =
        first.lines().map(|line| serde_json::from_str(line).expect("an output")).collect();
    let seeds: Vec<_> = runs.iter().map(|run| run["seed"].as_u64()).collect();
    assert_eq!(seeds, (1..=6).map(Some).collect::<Vec<_>>());
    let drifts: Vec<f64> = runs.iter().filter_map(|run| run["drift"].as_f64()).collect();
    assert!(drifts.len() == 6 && drifts.iter().all(|drift| *drift < 1e-3), "{drifts:?}");
    let energies: BTreeSet<String> = runs.iter().map(|run| run["energy_before"].to_string()).collect();
    assert_eq!(energies.len(), 6, "each seed is another ball");
    let busy = daemon.workers().iter().filter(|row| row.ended > 0).count();
    assert_eq!(busy, 2, "both workers had a part");
}

/// A job that is split: as many primes however they are counted, with both workers at it, and a plan that says no.
#[test]
fn a_job_that_is_split_is_done_by_all_workers() {
    let config = format!(
        "worker_program = {:?}\nbuiltin_kinds = false\n[kinds.primes]\nplans = true\n",
        binary("examples/primes").display().to_string()
    );
    let daemon = Daemon::start_with(&Setup { workers: 2, chaos: false, config, ..Setup::default() });
    assert_eq!(daemon.ok(&["run", "primes", "--each", "1000000", "0", "10"]), "78498\n0\n4\n");
    let busy = daemon.workers().iter().filter(|row| row.ended > 0).count();
    assert_eq!(busy, 2, "both workers had a part");
    let refused = daemon.cli(&["run", "primes", "1000000001"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("1000000001 is above 1000000000"), "{said}");
}

#[test]
fn a_program_without_a_declared_kind_never_comes_up_and_says_so() {
    let config = format!(
        "worker_program = {:?}\nbuiltin_kinds = false\n[kinds.cube]\n",
        binary("examples/square").display().to_string()
    );
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: false, config, ..Setup::default() });
    let events = daemon.ok(&["events"]);
    assert!(events.contains("does not offer the kind cube"), "{events}");
}

#[test]
fn what_the_config_says_of_a_kind_is_shown_and_holds() {
    let config = format!(
        "worker_program = {:?}\nbuiltin_kinds = false\ntimeout_max_seconds = 60\n[kinds.square]\n\
         timeout_seconds = 90\ntimeout_max_seconds = 120\noutput = \"descriptor\"\nretries_max = 1\n",
        binary("examples/square").display().to_string()
    );
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: false, config, ..Setup::default() });
    let shown = daemon.ok(&["kinds"]);
    assert!(shown.contains("large output, timeout 90s (most 2m), retries_max 1"), "{shown}");
    let rows: serde_json::Value = serde_json::from_str(&daemon.ok(&["kinds", "--json"])).expect("one kind");
    assert_eq!(
        (&rows["limits"]["timeout_ms"]["most"], &rows["output"]),
        (&120_000.into(), &"descriptor".into())
    );
    assert_eq!(daemon.ok(&["run", "square", "12"]), "144\n", "its output came as a descriptor");
    // The square of this one fails, once and again.
    let failed = daemon.cli(&["run", "square", "9223372036854775807"]);
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(failed.status.code() == Some(1) && said.contains("after 2 attempts"), "{said}");
    assert_eq!(daemon.ok(&["run", "square", "--timeout", "2m", "--retries-max", "0", "3"]), "9\n");
}

#[test]
fn rules_for_a_built_in_kind_hold_beside_those_of_the_others() {
    let config = "[kinds.sleep]\ntimeout_seconds = 1\n[kinds.noop]\ncrashes_max = 1\n".to_owned();
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: true, config, ..Setup::default() });
    let slept = daemon.cli(&["run", "sleep", "3600000"]);
    assert_eq!(slept.status.code(), Some(i32::from(exit::TIMED_OUT)));
    assert_eq!(daemon.ok(&["run", "sleep", "--timeout", "1h", "1500"]), "\n");
    let crashed = daemon.cli(&["run", "chaos", "segv"]);
    assert!(String::from_utf8_lossy(&crashed.stderr).contains("3 attempts"), "of another kind than noop");
}

#[test]
fn a_job_without_the_file_that_its_kind_needs_is_refused_by_name() {
    let config = format!(
        "worker_program = {:?}\nbuiltin_kinds = false\n[kinds.square]\nfiles_in = [\"numbers\"]\n",
        binary("examples/square").display().to_string()
    );
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: false, config, ..Setup::default() });
    let refused = daemon.cli(&["run", "square", "3"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(i32::from(exit::USAGE)), "{said}");
    assert!(said.contains("needs a file \"numbers\" to read, and none of that name came"), "{said}");
    assert!(daemon.ok(&["kinds"]).contains("needs file numbers to read"));
}
