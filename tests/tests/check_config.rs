//! `bulkhead-supervisor --check-config FILE`: an administrator learns what is wrong before the service is stopped.
//!
//! It reads and says, and starts nothing: no socket, no folder, no worker.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs;
use std::path::Path;
use std::process::Command;

use bulkhead_tests::daemon::{binary, new_folder};
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

    fs::write(&config, format!("{good}spares = 0\n")).unwrap();
    let (code, _, said) = check(&config);
    assert!(code == Some(1) && said.contains("spares = 0 is not from 1 to 1024"), "{code:?} {said}");

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

    let (code, _, said) = check(&folder.path().join("absent.toml"));
    assert!(code == Some(1) && said.contains("absent.toml"), "{said}");
}
