//! The daemon's journal, with real daemons: when it refuses to start, what it says, and that no number of a job is given out twice.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder};
use bulkhead_tests::wire::Wire;
use bulkhead_tests::{or_skip, skip};
use tempfile::TempDir;

/// A config that names this folder as the journal's.
fn with_journal(folder: &Path) -> Setup {
    Setup { config: format!("journal_folder = {folder:?}\n"), ..Setup::default() }
}

/// A daemon with a journal in its own folder.
fn daemon_with_journal() -> (Daemon, Setup, PathBuf) {
    let folder = new_folder();
    let journal = folder.path().join("journal");
    let setup = with_journal(&journal);
    (Daemon::start_in(folder, &setup), setup, journal)
}

/// A daemon that serves nobody's parent; it is killed when the test ends, however it ends.
struct OwnDaemon {
    child: Child,
    folder: TempDir,
}

impl OwnDaemon {
    fn launch(folder: TempDir) -> Self {
        let log = File::create(folder.path().join("log")).expect("a log file");
        let mut command = Command::new(binary("bulkhead-supervisor"));
        command.args(["--workers", "1", "--socket"]).arg(folder.path().join("s"));
        command.arg("--state").arg(folder.path().join("state"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Self { child: child.expect("the supervisor starts"), folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn await_ready(&self) -> String {
        eventually("it is ready", || Some(self.log()).filter(|log| log.contains("ready status=")))
    }

    /// What it says when it does not start.
    fn refusal(mut self) -> String {
        let status = eventually("it ends", || self.child.try_wait().expect("its status can be asked"));
        assert!(!status.success(), "it has started and ended: {}", self.log());
        self.log()
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        // It may be dead already.
        drop(self.child.kill());
        self.child.wait().expect("it is this process's child");
    }
}

/// What a daemon says that must not come up with this journal.
fn refusal(journal: &Path) -> String {
    let folder = new_folder();
    let config = folder.path().join("bulkhead.toml");
    std::fs::write(&config, with_journal(journal).config).expect("a config file");
    let mut command = Command::new(binary("bulkhead-supervisor"));
    command.args(["--private", "--workers", "1", "--config"]).arg(&config);
    command.arg("--socket").arg(folder.path().join("s")).arg("--state").arg(folder.path().join("state"));
    let output = command.stdin(Stdio::piped()).output().expect("it runs");
    assert!(!output.status.success(), "it has started");
    let socket = folder.path().join("s");
    assert!(!socket.exists(), "its socket is left");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The rows of a query, by the `sqlite3` of the system; `Err`: there is none.
fn query(journal: &Path, sql: &str) -> Result<Vec<String>, String> {
    let mut command = Command::new("sqlite3");
    command.arg("-readonly").arg(journal.join("journal.db")).arg(sql);
    let output = command.output().map_err(|error| format!("sqlite3 cannot be run: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect())
}

/// A journal of a daemon that was stopped.
fn stopped_journal() -> (TempDir, PathBuf) {
    let kept = new_folder();
    let journal = kept.path().join("journal");
    let mut daemon = Daemon::start_with(&with_journal(&journal));
    assert!(daemon.end("TERM").success());
    (kept, journal)
}

#[test]
fn no_number_of_a_job_is_given_out_twice_however_the_daemon_ends() {
    let (mut daemon, setup, _) = daemon_with_journal();
    let mut last = 0;
    for end in ["TERM", "KILL", "TERM", "KILL", "KILL", "TERM"] {
        let job = Wire::connect(&daemon.socket()).submit("noop", &["x", "y", "z"]);
        assert!(job.0 > last, "job {} is given out after job {last}", job.0);
        if end == "TERM" {
            assert!(daemon.end(end).success());
        } else {
            daemon.end(end);
        }
        daemon.start_again(&setup);
        let next = Wire::connect(&daemon.socket()).submit("noop", &["x"]);
        if end == "TERM" {
            assert_eq!(next.0, job.0 + 3, "a daemon that was stopped gives back what it did not use");
        }
        last = next.0.max(job.0 + 2);
    }
}

#[test]
fn workers_and_records_go_on_counting_over_runs() {
    let (mut daemon, setup, _) = daemon_with_journal();
    let (mut worker, mut record) = (0, 0);
    for end in ["TERM", "KILL", "TERM"] {
        assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["x"]).len(), 1);
        let workers: Vec<u64> = daemon.workers().iter().map(|row| row.worker.0).collect();
        let records = Wire::connect(&daemon.socket()).records();
        let (least, first) = (*workers.iter().min().expect("workers"), records[0].index);
        assert!(
            least > worker && first > record,
            "worker {least} after {worker}, record {first} after {record}"
        );
        worker = *workers.iter().max().expect("workers");
        record = records.last().expect("records").index;
        daemon.end(end);
        daemon.start_again(&setup);
    }
    let (_, last) = (daemon.end("TERM"), worker);
    assert!(last > 1_000_000, "a run that was killed has used its block: {last}");
}

#[test]
fn the_journal_tells_how_each_run_ended() {
    let (mut daemon, setup, journal) = daemon_with_journal();
    let runs = || query(&journal, "SELECT number, ended_us IS NOT NULL, pid FROM epoch ORDER BY number");
    let first = or_skip!(runs());
    assert_eq!(first, [format!("1|0|{}", daemon.pid())]);
    let pids = [daemon.pid(), {
        assert!(daemon.end("TERM").success());
        daemon.start_again(&setup);
        daemon.pid()
    }];
    assert!(!daemon.log().contains("the last run ended without a stop"), "{}", daemon.log());
    daemon.end("KILL");
    daemon.start_again(&setup);
    assert!(daemon.log().contains("the last run ended without a stop"), "{}", daemon.log());
    let last = daemon.pid();
    assert!(daemon.end("INT").success());
    let wanted = [(pids[0], 1), (pids[1], 0), (last, 1)];
    let wanted = (1..).zip(wanted).map(|(number, (pid, is_ended))| format!("{number}|{is_ended}|{pid}"));
    assert_eq!(runs(), Ok(wanted.collect()));
}

#[test]
fn a_journal_in_use_is_named_with_its_process() {
    let (daemon, _, journal) = daemon_with_journal();
    let text = refusal(&journal);
    let wanted = format!("is in use by process {}: stop that daemon, or choose another folder", daemon.pid());
    assert!(text.contains(&wanted), "{text}");
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["on"]).len(), 1);
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    if bulkhead_sys::socket::own_uid() != 0 {
        skip!("only root can make a folder of somebody else");
    }
    let folder = new_folder();
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).expect("a folder");
    chown(&journal, Some(65534), None).expect("root may");
    let text = refusal(&journal);
    assert!(text.contains("belongs to user 65534 and not to user 0") && text.contains("chown it"), "{text}");
    assert_eq!(std::fs::read_dir(&journal).expect("it is there").count(), 0, "nothing was made in it");
}

/// Changes bytes of a database that no daemon has open, and gives what the next start says. The file stays as it was changed.
fn refusal_of_changed(change: impl FnOnce(&File)) -> (String, PathBuf) {
    let (_kept, journal) = stopped_journal();
    let path = journal.join("journal.db");
    let database = OpenOptions::new().read(true).write(true).open(&path).expect("a database");
    change(&database);
    let before = std::fs::read(&path).expect("a database");
    let text = refusal(&journal);
    assert!(std::fs::read(&path).expect("a database") == before, "the refused start has changed it");
    (text, path)
}

#[test]
fn a_database_of_a_later_version_is_refused_and_left_alone() {
    // `user_version` in the header of the file.
    let (text, path) =
        refusal_of_changed(|file| file.write_all_at(&99_u32.to_be_bytes(), 60).expect("written"));
    assert!(text.contains(&format!("{} has schema 99", path.display())), "{text}");
    assert!(text.contains("install the version that wrote it"), "{text}");
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    // `application_id` in the header of the file.
    let (text, path) =
        refusal_of_changed(|file| file.write_all_at(&7_u32.to_be_bytes(), 68).expect("written"));
    assert!(text.contains(&format!("{} is no journal of Bulkhead: move it away", path.display())), "{text}");
    let (text, _) = refusal_of_changed(|file| file.write_all_at(b"something else..", 0).expect("written"));
    assert!(text.contains("is no journal of Bulkhead"), "{text}");
}

#[test]
fn a_damaged_database_is_refused_and_left_alone() {
    // The tree with the schema, behind the header of the file.
    let (text, path) = refusal_of_changed(|file| file.write_all_at(&[0xff; 400], 100).expect("written"));
    assert!(text.contains(&format!("{} is damaged", path.display())), "{text}");
    assert!(text.contains(".recover"), "{text}");
}

#[test]
fn the_usual_folder_is_in_the_state_folder_and_a_daemon_may_start_without_it() {
    let folder = new_folder();
    let daemon = OwnDaemon::launch(folder);
    let log = daemon.await_ready();
    let journal = daemon.folder.path().join("state/journal");
    assert!(log.contains(&format!("journal opened folder={}", journal.display())), "{log}");
    assert!(log.contains("is new: job numbers begin at 1"), "{log}");
    drop(daemon);
    // A file in its place is no journal of anybody.
    let folder = new_folder();
    std::fs::create_dir(folder.path().join("state")).expect("a folder");
    std::fs::write(folder.path().join("state/journal"), "mine").expect("a file");
    let daemon = OwnDaemon::launch(folder);
    let log = daemon.await_ready();
    assert!(log.contains("there is no journal, so jobs cannot be durable"), "{log}");
    assert_eq!(Wire::connect(&daemon.folder.path().join("s")).run("noop", &["on"]).len(), 1);
    let file = std::fs::read_to_string(daemon.folder.path().join("state/journal"));
    assert_eq!(file.expect("it is there"), "mine");
}

#[test]
fn a_foreign_database_in_the_usual_folder_is_refused_too() {
    let folder = new_folder();
    let journal = folder.path().join("state/journal");
    std::fs::create_dir_all(&journal).expect("a folder");
    std::fs::write(journal.join("journal.db"), "mine, and no database").expect("a file");
    let text = OwnDaemon::launch(folder).refusal();
    assert!(text.contains("is no journal of Bulkhead"), "{text}");
}

#[test]
fn a_journal_in_memory_is_told() {
    let memory = match tempfile::Builder::new().prefix("bh-").tempdir_in("/dev/shm") {
        Ok(memory) => memory,
        Err(error) => skip!("/dev/shm cannot be used: {error}"),
    };
    let daemon = Daemon::start_with(&with_journal(&memory.path().join("journal")));
    let log = daemon.log();
    assert!(log.contains("is in memory: durable jobs are gone at reboot"), "{log}");
}

#[test]
fn a_daemon_of_one_parent_has_no_journal_unless_its_config_names_one() {
    let daemon = Daemon::start();
    assert!(!daemon.folder().join("state/journal").exists());
    assert!(!daemon.log().contains("journal"), "{}", daemon.log());
}
