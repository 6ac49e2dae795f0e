//! `bulkhead-supervisor --check-config FILE`: an administrator learns what is wrong before the service is stopped.
//!
//! It reads, asks each worker program for its kinds, and says: no socket, no state, and nothing of it stays.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs;
use std::path::Path;
use std::process::Command;

use bulkhead_tests::daemon::{binary, new_folder, processes_under};
use bulkhead_tests::program_file::write_program;
use bulkhead_tests::tidy::root;

/// Exit code, standard output, standard error.
fn check(config: &Path) -> (Option<i32>, String, String) {
    let output =
        Command::new(binary("bulkhead-supervisor")).arg("--check-config").arg(config).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_sample_is_in_order() {
    let sample = root().join("systemd/bulkhead.toml");
    let expected = format!("{} is in order\n", sample.display());
    assert_eq!(check(&sample), (Some(0), expected, String::new()));
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_nothing_is_started() {
    let folder = new_folder();
    let config = folder.path().join("bulkhead.toml");
    let socket = folder.path().join("socket");
    let state = folder.path().join("state");
    let good = format!("socket = {socket:?}\nstate = {state:?}\nworkers = 2\n");
    fs::write(&config, &good).unwrap();
    assert_eq!(check(&config).0, Some(0));
    assert!(!socket.exists() && !state.exists(), "it only says");

    fs::write(&config, format!("{good}spares = 1025\n")).unwrap();
    let (code, _, said) = check(&config);
    let named = format!("bad config {}: spares = 1025 is not from 0 to 1024", config.display());
    assert!(code == Some(1) && said.contains(&named), "{code:?} {said}");

    let plain = folder.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    fs::write(&config, format!("{good}worker_program = {plain:?}\n")).unwrap();
    let (code, _, said) = check(&config);
    assert!(code == Some(1) && said.contains("plain may not be executed"), "{code:?} {said}");

    fs::write(&config, &good).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(folder.path().join("conf.d/own.toml"), "wrokers = 3\n").unwrap();
    let (code, _, said) = check(&config);
    assert!(code == Some(1) && said.contains("conf.d/own.toml") && said.contains("wrokers"), "{said}");

    // A range, in a file of its own; two files that are wrong only together.
    let own = folder.path().join("conf.d/own.toml");
    fs::write(&own, "clients_max = 0\n").unwrap();
    let named = format!("bad config {}: clients_max = 0 is not from 1", own.display());
    assert!(check(&config).2.contains(&named), "{}", check(&config).2);
    fs::write(&config, format!("{good}backoff_min_ms = 500\n")).unwrap();
    fs::write(&own, "backoff_max_ms = 50\n").unwrap();
    let named =
        format!("bad config, from {} and its conf.d: backoff_max_ms = 50 is not from", config.display());
    assert!(check(&config).2.contains(&named), "{}", check(&config).2);

    let (code, _, said) = check(&folder.path().join("absent.toml"));
    assert!(code == Some(1) && said.contains("absent.toml"), "{said}");
}

/// A name that is written otherwise in the program: the text alone cannot tell.
#[test]
fn a_kind_that_no_worker_knows_is_told_once_with_its_program() {
    let folder = new_folder();
    let config = folder.path().join("bulkhead.toml");
    let program = binary("examples/square");
    let own = format!("[pools.own]\nworker_program = {program:?}\n[kinds.square]\npool = \"own\"\n");
    fs::write(&config, &own).unwrap();
    assert_eq!(check(&config).0, Some(0), "{}", check(&config).2);
    fs::write(&config, format!("{own}[kinds.squrae]\npool = \"own\"\n")).unwrap();
    let expected = format!(
        "bulkhead-supervisor: {} is not in order: the worker program {} does not offer the kind squrae: write \
         [kinds.squrae] as the program names it, or give it a pool whose program has it\n",
        config.display(),
        program.display()
    );
    assert_eq!(check(&config), (Some(1), String::new(), expected));
    fs::write(&config, format!("worker_program = {program:?}\n[kinds.square]\n")).unwrap();
    let (code, _, said) = check(&config);
    assert!(
        code == Some(1) && said.contains("the kinds factorial, transform, noop, sleep, exec: "),
        "{said}"
    );
    assert!(said.contains("set builtin_kinds = false"), "{said}");
}

/// Programs that are no workers are told by how they end or what they say; nothing of them stays.
#[test]
fn a_program_that_does_not_come_up_is_told_and_leaves_nothing() {
    let folder = new_folder();
    let (config, program) = (folder.path().join("bulkhead.toml"), folder.path().join("worker"));
    fs::write(&config, format!("worker_program = {program:?}\n")).unwrap();
    for (script, how) in [
        ("exit 3", "it ended at once: exit code 3"),
        ("kill -KILL $$", "it ended at once: SIGKILL"),
        ("echo x >&0; sleep 600", "it answers as no worker does: malformed lane frame"),
    ] {
        write_program(&program, &format!("#!/bin/sh\n{script}\n"), 0o755);
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let output = Command::new(binary("bulkhead-supervisor"))
            .arg("--check-config")
            .arg(&config)
            .env("TMPDIR", &temporary)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("the worker program {} does not come up: {how}", program.display());
        assert!(output.status.code() == Some(1) && said.contains(&expected), "{script}: {said}");
        fs::remove_dir(&temporary).expect("nothing was left in it");
        assert_eq!(processes_under(folder.path()), Vec::<String>::new(), "{script}");
    }
}
