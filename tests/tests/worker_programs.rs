//! Arguments and environment of worker programs, in real daemons: a shell is the worker program, tells what it was
//! started with, and then becomes a worker.
//!
//! What a shell tells goes into a file of the test's folder. Values are checked where the daemon reads them
//! (`supervisor/src/settings/programs.rs`); here is what reaches the process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, send_signal};

/// The script of a shell that appends its arguments and its environment to $SEEN, and then is the program $SQUARE. An
/// argument stands between < and >.
const TELLS: &str =
    "for word in \"$@\"; do echo \"<$word>\"; done >>\"$SEEN\"; env >>\"$SEEN\"; exec \"$SQUARE\"";

/// Keys of a pool whose workers tell into this file.
fn telling(seen: &Path, env: &str) -> String {
    let square = binary("examples/square");
    format!(
        "worker_program = \"/bin/sh\"\nworker_args = [\"-c\", {TELLS:?}, \"sh\", \"one two\", \"\", \"a=b\"]\n\
         worker_env = {{ SEEN = {seen:?}, SQUARE = {square:?}, {env} }}\n"
    )
}

fn setup(config: String) -> Setup {
    Setup { workers: 1, chaos: false, config, ..Setup::default() }
}

/// The variables that the first shell told.
fn variables(told: &str) -> BTreeMap<&str, &str> {
    told.lines().filter_map(|line| line.split_once('=')).collect()
}

fn check(config: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(binary("bulkhead-supervisor"));
    command.args(flags).arg("--check-config").arg(config).output().expect("it says whether all is in order")
}

#[test]
fn a_worker_program_gets_its_arguments_and_its_environment_and_no_other() {
    let folder = new_folder();
    let seen = folder.path().join("seen");
    let env = "SAID = \"x=y z\", RUST_BACKTRACE = \"1\"";
    let config = format!("builtin_kinds = false\n{}[kinds.square]\n", telling(&seen, env));
    let daemon = Daemon::start_in(folder, &setup(config));
    assert_eq!(daemon.ok(&["run", "square", "12"]), "144\n");
    let told = fs::read_to_string(&seen).expect("it told");
    assert!(told.starts_with("<one two>\n<>\n<a=b>\n"), "{told}");
    let found = variables(&told);
    assert_eq!((found["SAID"], found["RUST_BACKTRACE"], found["PATH"]), ("x=y z", "1", "/usr/bin:/bin"));
    assert!(found["BULKHEAD_BOOT_FOLDER"].contains("s.boot"), "{told}");
    assert!(!found.contains_key("HOME"), "nothing of the daemon's environment: {told}");
}

#[test]
fn a_pool_has_arguments_of_its_own_and_the_check_of_a_config_uses_them() {
    let folder = new_folder();
    let (seen, config) = (folder.path().join("seen"), folder.path().join("own.toml"));
    fs::write(
        &config,
        format!("[pools.own]\n{}[kinds.square]\npool = \"own\"\n", telling(&seen, "OWN = \"1\"")),
    )
    .expect("a config file");
    let output = check(&config, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = fs::read_to_string(&seen).expect("the check started it");
    assert!(told.starts_with("<one two>\n") && variables(&told)["OWN"] == "1", "{told}");

    fs::remove_file(&seen).expect("it is there");
    let text = fs::read_to_string(&config).expect("the config");
    let daemon = Daemon::start_in(folder, &setup(text));
    assert_eq!(daemon.ok(&["run", "square", "5"]), "25\n");
    assert_eq!(daemon.ok(&["run", "factorial", "5"]), "120\n", "the default pool has no arguments");
    assert_eq!(variables(&fs::read_to_string(&seen).expect("it told"))["OWN"], "1");
}

#[test]
fn a_private_daemon_passes_on_the_whole_environment_it_was_started_with() {
    let folder = new_folder();
    let seen = folder.path().join("seen");
    let square = binary("examples/square");
    let script = format!("env >{}; exec {}", seen.display(), square.display());
    let config = format!(
        "builtin_kinds = false\nworker_program = \"/bin/sh\"\nworker_args = [\"-c\", {script:?}]\n\
         worker_env = \"inherit\"\n[kinds.square]\n"
    );
    let through = [
        "env",
        "-i",
        "FOREIGN=a b",
        "PATH=/bin:/of/mine",
        "TMPDIR=/nowhere",
        "BULKHEAD_COPIES=/nowhere",
        "BULKHEAD_BOOT_FOLDER=/nowhere",
    ];
    let through = through.map(str::to_owned).to_vec();
    let daemon = Daemon::start_in(folder, &Setup { through, ..setup(config) });
    assert_eq!(daemon.ok(&["run", "square", "3"]), "9\n");
    let told = fs::read_to_string(&seen).expect("it told");
    let found = variables(&told);
    assert_eq!((found["FOREIGN"], found["PATH"]), ("a b", "/bin:/of/mine"));
    assert!(found["TMPDIR"] == "/nowhere" && found["BULKHEAD_COPIES"] != "/nowhere", "{told}");
    assert!(found["BULKHEAD_BOOT_FOLDER"].contains("s.boot"), "{told}");
}

/// The daemon of a user that is not private, and its check, refuse it by name, with the file that says so.
#[test]
fn a_daemon_that_is_not_private_does_not_pass_on_its_environment() {
    let folder = new_folder();
    let config = folder.path().join("own.toml");
    let text = format!(
        "socket = {:?}\nstate = {:?}\n[pools.own]\nworker_env = \"inherit\"\n[kinds.noop]\npool = \"own\"\n",
        folder.path().join("s"),
        folder.path().join("state")
    );
    fs::write(&config, text).expect("a config file");
    let output = check(&config, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = format!(
        "bad config {}: pools.own.worker_env = \"inherit\" is for a private daemon",
        config.display()
    );
    assert!(output.status.code() == Some(1) && said.contains(&wanted), "{said}");
    assert!(check(&config, &["--private"]).status.success());
    let output = Command::new(binary("bulkhead-supervisor")).arg("--config").arg(&config).output();
    let output = output.expect("it ends at once");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("pools.own.worker_env = \"inherit\""));
}

/// In a private daemon kinds of others may wait in a worker; in one that anybody may use they do not unless they say so.
#[test]
fn the_ring_of_a_kind_depends_on_whom_the_daemon_serves() {
    let program = binary("examples/square");
    let keys = |folder: &Path| {
        format!(
            "builtin_kinds = false\nsocket = {:?}\nstate = {:?}\nworkers = 1\nworker_program = {program:?}\n\
             [kinds.square]\n",
            folder.join("s"),
            folder.join("state")
        )
    };
    let ring = |daemon_kinds: String| {
        let kind: serde_json::Value = serde_json::from_str(daemon_kinds.trim()).expect("one kind as JSON");
        kind["ring"].as_u64()
    };
    let folder = new_folder();
    let config = keys(folder.path());
    let private = Daemon::start_in(folder, &setup(config));
    assert_eq!(private.ok(&["run", "square", "12"]), "144\n");
    assert_eq!(ring(private.ok(&["kinds", "--json"])), Some(64));

    let folder = new_folder();
    let config = folder.path().join("bulkhead.toml");
    fs::write(&config, keys(folder.path())).expect("a config file");
    let mut open = Command::new(binary("bulkhead-supervisor"))
        .arg("--config")
        .arg(&config)
        .stderr(fs::File::create(folder.path().join("log")).expect("a log"))
        .spawn()
        .expect("it starts");
    let socket = folder.path().join("s");
    let shown = eventually("the daemon shows its kinds", || {
        let mut command = Command::new(binary("bulkhead"));
        let shown = command.arg("--socket").arg(&socket).args(["kinds", "--json"]).output();
        shown.ok().filter(|shown| shown.status.success())
    });
    send_signal(open.id(), "INT");
    open.wait().expect("it ends");
    assert_eq!(ring(String::from_utf8(shown.stdout).expect("JSON")), Some(1));
}
