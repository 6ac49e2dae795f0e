//! The last metre of a result: what `run` could not write, or did not live to write, `bulkhead result` prints.
//!
//! Each test takes a real reason: a full device, a full disk, a closed pipe, a folder that is gone, a kill. The last
//! column of each is the same: the bytes are there again, and a result that was written is not kept.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::message::{Reply, Request, Submit, Walk};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;
use bulkhead_tests::daemon::{Daemon, Setup, eventually, new_folder, send_signal};
use bulkhead_tests::raid::frame;
use bulkhead_tests::shortage::possible;
use bulkhead_tests::wire::{Wire, submit};
use bulkhead_tests::{or_skip, skip};

/// A result that is longer than a pipe and travels as a file.
const LONG: [&str; 3] = ["run", "factorial", "100000"];
const LONG_BYTES: usize = 456_574;

/// A user without rights.
const NOBODY: u32 = 65_534;

/// A daemon of root, and one of a user without rights, if this test may start such.
fn daemons() -> Vec<(Daemon, Option<u32>)> {
    let mut daemons = vec![(Daemon::start(), None)];
    let through = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
    let through: Vec<String> = std::iter::once("setpriv".to_owned()).chain(through).collect();
    let words: Vec<&str> = through.iter().map(String::as_str).chain(["true"]).collect();
    if possible(&words).is_ok() {
        let folder = new_folder();
        std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("this is root");
        daemons.push((Daemon::start_in(folder, &Setup { through, ..Setup::default() }), Some(NOBODY)));
    }
    daemons
}

/// A shell script of the daemon's user in which `$B` is the command.
fn shell(daemon: &Daemon, user: Option<u32>, script: &str) -> Command {
    let bulkhead = daemon.command(&[]);
    let mut command = match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
            command.arg("sh");
            command
        }
        None => Command::new("sh"),
    };
    let words: Vec<String> =
        bulkhead.get_args().map(|word| word.to_str().expect("plain words").to_owned()).collect();
    let program = bulkhead.get_program().to_str().expect("a plain path").to_owned();
    command.env("B", format!("{program} {}", words.join(" ")));
    command.current_dir(daemon.folder()).args(["-c", script]).stdin(Stdio::null());
    command
}

fn run_shell(daemon: &Daemon, user: Option<u32>, script: &str) -> Output {
    shell(daemon, user, script).output().expect("a shell is there")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `bulkhead result` prints all of it, as often as it is asked.
fn assert_kept(daemon: &Daemon, job: u64) {
    for _ in 0..2 {
        let digits = daemon.ok(&["result", &job.to_string()]);
        assert_eq!((digits.len(), &digits[..8]), (LONG_BYTES, "28242294"));
    }
}

/// The last receipt is on its way when a command has left.
fn assert_forgotten(daemon: &Daemon, job: u64) {
    eventually("a result that was written is forgotten", || {
        let output = daemon.cli(&["result", &job.to_string()]);
        (!output.status.success() && stderr(&output).contains("forgotten")).then_some(())
    });
}

#[test]
fn what_a_full_device_did_not_take_is_kept() {
    for (daemon, user) in daemons() {
        let output = run_shell(&daemon, user, "$B run factorial 100000 > /dev/full");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("`bulkhead result 1` prints it") && said.contains("No space left"), "{said}");
        assert_kept(&daemon, 1);
        // A short result is only found out by the last flush.
        let output = run_shell(&daemon, user, "$B run factorial 20 > /dev/full");
        assert!(stderr(&output).contains("`bulkhead result 2` prints it"), "{}", stderr(&output));
        assert_eq!(daemon.ok(&["result", "2"]), "2432902008176640000");
        let output = run_shell(&daemon, user, "$B run factorial 20");
        assert_eq!(output.stdout, b"2432902008176640000\n");
        assert_forgotten(&daemon, 3);
    }
}

#[test]
fn what_a_full_disk_did_not_take_is_kept() {
    or_skip!(possible(&["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]));
    let daemon = Daemon::start();
    let folder = new_folder();
    for (job, how) in [(1, "> $D/out"), (2, "-o $D/out")] {
        let script = format!(
            "mount -t tmpfs -o size=64k tmpfs $D && {{ $B run factorial 100000 {how}; code=$?; \
             ls -A $D; exit $code; }}"
        );
        let mut command = Command::new("unshare");
        let inner = shell(&daemon, None, &script);
        command.arg("--mount").arg(inner.get_program()).args(inner.get_args()).env("D", folder.path());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("`bulkhead result {job}` prints it")), "{said}");
        assert!(said.contains("No space left"), "{said}");
        assert_kept(&daemon, job);
    }
}

#[test]
fn what_a_closed_pipe_did_not_take_is_kept_and_nothing_is_said() {
    for (daemon, user) in daemons() {
        let script = "{ $B run factorial 100000; echo $? > code; } | head -c 8";
        let output = run_shell(&daemon, user, script);
        assert_eq!((output.stdout.as_slice(), stderr(&output).as_str()), (&b"28242294"[..], ""));
        let code = eventually("the command ends", || {
            std::fs::read_to_string(daemon.folder().join("code")).ok().filter(|code| code.ends_with('\n'))
        });
        assert_eq!(code, "141\n");
        assert_kept(&daemon, 1);
    }
}

#[test]
fn what_a_killed_command_did_not_write_is_kept() {
    for (daemon, user) in daemons() {
        let script = format!("exec $B {}", LONG.join(" "));
        let mut child = shell(&daemon, user, &script).stdout(Stdio::piped()).spawn().expect("it starts");
        // It has the result, and waits for a reader of the rest.
        let mut first = [0];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("it writes");
        send_signal(child.id(), "KILL");
        assert_eq!(child.wait().expect("it ends").signal(), Some(9));
        assert_kept(&daemon, 1);
    }
}

/// Runs factorials into a file whose folder is gone when they have ended; what is said.
fn without_its_folder(daemon: &Daemon, inputs: &str) -> String {
    let mut wire = Wire::connect(&daemon.socket());
    let blocker = wire.submit("sleep", &["60000"]);
    let folder = daemon.folder().join("gone");
    std::fs::create_dir(&folder).expect("a folder");
    let mut run = daemon.command(&["run", "factorial", inputs, "-o"]);
    run.arg(folder.join("out")).env("TMPDIR", daemon.folder()).stderr(Stdio::piped());
    let child = run.spawn().expect("it starts");
    eventually("it waits behind the other job", || (wire.status().queued > 0).then_some(()));
    std::fs::remove_dir_all(&folder).expect("nobody uses it");
    wire.call(Request::Cancel { jobs: vec![blocker] });
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success());
    stderr(&output)
}

#[test]
fn what_could_not_get_its_name_is_kept() {
    let daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    let said = without_its_folder(&daemon, "20");
    assert!(said.contains("still has the result of job 2, and `bulkhead result 2` prints it: "), "{said}");
    assert_eq!(daemon.ok(&["result", "2"]), "2432902008176640000");

    let path = daemon.folder().join("out");
    daemon.ok(&["run", "factorial", "20", "-o", path.to_str().expect("a plain path")]);
    assert_eq!(std::fs::read(path).expect("it is there"), b"2432902008176640000");
    assert_forgotten(&daemon, 3);
}

/// One connection may leave a quarter of what is kept: here two results.
#[test]
fn a_result_that_was_dropped_meanwhile_is_not_promised() {
    let setup = Setup { workers: 1, config: "keep_jobs_max = 8".to_owned(), ..Setup::default() };
    let daemon = Daemon::start_with(&setup);
    let said = without_its_folder(&daemon, "1..20");
    let kept = "still has some of the 20 results of jobs 2 to 21, and has dropped others to make room: `bulkhead result 20`";
    assert!(said.contains(kept), "{said}");
    assert_eq!(daemon.ok(&["result", "20"]), "121645100408832000");
    assert!(!daemon.events_named("evicted").is_empty(), "it is said");
}

/// Three jobs of which the first runs for ever, in this way of printing; it is interrupted when the others have ended.
fn interrupted(daemon: &Daemon, options: &[&str]) -> Output {
    let mut wire = Wire::connect(&daemon.socket());
    let before = wire.status().totals.done;
    let mut run = daemon.command(&["run", "sleep", "--each", "600000", "1", "2"]);
    let child = run.args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    eventually("two have ended", || (wire.status().totals.done == before + 2).then_some(()));
    send_signal(child.id(), "INT");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    output
}

#[test]
fn what_an_interrupted_command_did_not_print_is_kept() {
    let daemon = Daemon::start();
    let output = interrupted(&daemon, &[]);
    let said = stderr(&output);
    let fate =
        "the daemon still has the 2 results of jobs 2 to 3, and `bulkhead result 2` prints the first one";
    assert!(output.stdout.is_empty() && said.contains(fate), "{said}");
    daemon.ok(&["result", "2"]);
    daemon.ok(&["result", "3"]);
    // What is told apart is printed, and what is in a file has a name: then nothing is left.
    let path = daemon.folder().join("out");
    let path = path.to_str().expect("a plain path");
    let ways: [(&[&str], u64); 3] = [(&["--json"], 2), (&["--with-input"], 2), (&["-o", path], 0)];
    for (at, (options, lines)) in (1..).zip(ways) {
        let output = interrupted(&daemon, options);
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64, lines);
        assert!(!stderr(&output).contains("bulkhead result"), "{}", stderr(&output));
        assert_forgotten(&daemon, 3 * at + 2);
        assert_forgotten(&daemon, 3 * at + 3);
    }
    assert_eq!(std::fs::read(format!("{path}.partial")).expect("it is there"), b"\n\n");
}

#[test]
fn a_daemon_that_was_killed_keeps_nothing_and_nothing_is_promised() {
    let mut daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let mut run = daemon.command(&["run", "sleep", "--each", "600000", "1"]);
    let child = run.stderr(Stdio::piped()).spawn().expect("it starts");
    eventually("one has ended", || (wire.status().totals.done == 1).then_some(()));
    // It was sent in the same turn of the daemon's loop, or an earlier one than this.
    wire.status();
    daemon.end("KILL");
    let output = child.wait_with_output().expect("it ends");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(122), "{said}");
    assert!(said.contains("no daemon keeps the result of job 2 any more: "), "{said}");
}

/// Verbs that print what the daemon keeps anyway take nothing from it.
#[test]
fn what_other_verbs_print_stays_kept() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ok(&["submit", "factorial", "20"]), "1\n");
    for verb in ["wait 1", "result 1", "--json result 1", "jobs", "job 1"] {
        let output = run_shell(&daemon, None, &format!("$B {verb} > /dev/full"));
        assert_eq!(output.status.code(), Some(1), "{verb}: {}", stderr(&output));
        daemon.ok(&verb.split(' ').collect::<Vec<_>>());
    }
    assert_eq!(daemon.ok(&["result", "1"]), "2432902008176640000");
    let output = run_shell(&daemon, None, "$B result 1 -o /dev/full");
    assert!(!output.status.success());
    assert_eq!(daemon.ok(&["result", "1"]), "2432902008176640000");
}

#[test]
fn the_output_of_a_program_is_held_unless_it_is_a_file_of_the_user() {
    let daemon = Daemon::start();
    let output = run_shell(&daemon, None, "$B run exec -- sh -c 'echo one; exit 3' > /dev/full");
    assert!(stderr(&output).contains("`bulkhead result 1` prints it"), "{}", stderr(&output));
    assert_eq!(daemon.cli(&["result", "1"]).stdout, b"one\n");
    let output = run_shell(&daemon, None, "$B run --json exec -- echo two > /dev/full");
    assert!(stderr(&output).contains("`bulkhead result 2` prints it"), "{}", stderr(&output));
    assert_eq!(daemon.ok(&["result", "2"]), "two\n");
    let output = run_shell(&daemon, None, "$B run exec -o out -- echo three && cat out");
    assert_eq!(output.stdout, b"three\n", "{}", stderr(&output));
    assert_forgotten(&daemon, 3);
    // The program has written into the user's file: the daemon never had it, and cannot give it again.
    let output = run_shell(&daemon, None, "$B run exec -o /dev/full -- echo four");
    let said = stderr(&output);
    assert!(!output.status.success() && !said.contains("bulkhead result"), "{said}");
    let (_, kept) = said.trim_end().rsplit_once("the finished file is ").expect("it is named");
    assert_eq!(std::fs::read(kept).expect("it is there"), b"four\n");
    std::fs::remove_file(kept).expect("it is ours");
    assert_forgotten(&daemon, 4);
}

/// Numbers of kept jobs.
fn kept(wire: &mut Wire) -> Vec<u64> {
    let (mut kept, mut after) = (Vec::new(), JobId(0));
    loop {
        let request = Request::Jobs { state: Some(JobState::Ended), walk: Walk::Up(after), limit: 4096 };
        let Reply::Jobs { rows, last, more } = wire.call(request) else { panic!("no list") };
        kept.extend(rows.iter().map(|row| row.job.0));
        after = last;
        if !more {
            return kept;
        }
    }
}

#[test]
fn a_batch_leaves_only_what_it_has_not_written() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    for options in [&[][..], &["--unordered"], &["--json"], &["-o", "/dev/null"]] {
        let mut words = vec!["run", "factorial", "1..3000"];
        words.extend(options);
        daemon.ok(&words);
        eventually("all results that were written are forgotten", || {
            kept(&mut wire).is_empty().then_some(())
        });
    }
    let output = run_shell(&daemon, None, "$B run factorial 1..3000 > /dev/full");
    let said = stderr(&output);
    assert!(said.contains("`bulkhead result 12001` prints"), "{said}");
    let left = kept(&mut wire);
    assert!(left.first() == Some(&12_001), "{left:?}");
    assert_eq!(daemon.ok(&["result", "12001"]), "1");
}

/// The command's own daemon ends with it, and what it kept.
#[test]
fn without_a_daemon_that_stays_nothing_is_promised() {
    let folder = new_folder();
    let bulkhead = bulkhead_tests::daemon::binary("bulkhead");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" run factorial 20 > /dev/full"]).arg(bulkhead);
    command.env("XDG_RUNTIME_DIR", folder.path()).env("TMPDIR", folder.path());
    command.env_remove("BULKHEAD_SOCKET").stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let said = stderr(&output);
    if !said.contains("lost") && !said.contains("No space left") {
        skip!("another daemon answers here: {said}");
    }
    let fate = "no daemon keeps the result of job 1, because none was running when this command began: ";
    assert!(said.contains(fate) && !said.contains("bulkhead result"), "{said}");
}

fn held(kind: &str, inputs: &[&str]) -> Submit {
    Submit { held: true, ..submit(kind, inputs, true) }
}

/// Takes the ends of a held submit; the number of the last one.
fn take_held(wire: &mut Wire, count: usize) -> u64 {
    let mut taken = 0;
    loop {
        let frame = wire.next_reply().expect("the daemon answers");
        if let Reply::Held { first, ended } = frame.reply {
            taken += ended.len();
            if taken == count {
                return first + ended.len() as u64 - 1;
            }
        }
    }
}

#[test]
fn a_client_that_vanishes_leaves_what_it_did_not_report() {
    let daemon = Daemon::start();
    let mut other = Wire::connect(&daemon.socket());
    let mut wire = Wire::connect(&daemon.socket());
    wire.ask(Request::Submit(held("factorial", &["3", "4", "5"])));
    assert_eq!(take_held(&mut wire, 3), 3);
    wire.ask(Request::Received { through: 4 });
    let refused = wire.next_reply().expect("the daemon answers").reply;
    assert!(
        matches!(&refused, Reply::Refused(why) if why.to_string().contains("receipt through 4")),
        "{refused:?}"
    );
    wire.ask(Request::Received { through: 1 });
    drop(wire);
    let left = eventually("one receipt is heard", || Some(kept(&mut other)).filter(|left| left.len() == 2));
    // Numbers are of their connection: nobody else's receipt is for these ends, and no later one.
    for through in [1, 3, u64::MAX] {
        let refused = other.call(Request::Received { through });
        assert!(matches!(refused, Reply::Refused(_)), "{refused:?}");
    }
    wire = Wire::connect(&daemon.socket());
    wire.ask(Request::Submit(held("factorial", &["6"])));
    assert_eq!(take_held(&mut wire, 1), 1, "a new connection counts from 1");
    wire.ask(Request::Received { through: 1 });
    eventually("its own result is forgotten", || (kept(&mut other) == left).then_some(()));
}

/// Replies that its client left unread do not keep the daemon from hearing the last receipt.
#[test]
fn a_receipt_is_heard_although_its_client_reads_no_more() {
    let daemon = Daemon::start();
    let mut other = Wire::connect(&daemon.socket());
    let mut wire = Wire::connect(&daemon.socket());
    let inputs: Vec<&str> = vec![""; 4096];
    other.submit("noop", &inputs);
    wire.ask(Request::Submit(held("noop", &["", ""])));
    assert_eq!(take_held(&mut wire, 2), 2);
    let ended = eventually("all jobs have ended", || {
        let status = other.status();
        (status.queued + status.running == 0).then_some(status.kept)
    });
    assert_eq!(ended, 4096 + 2);
    // These replies are far more than the socket and the daemon's outbox take.
    let list = || Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 4096 };
    // In one piece: the socket takes few small ones from a client that is not read for a while.
    wire.send(&(10..410).flat_map(|tag| frame(tag, list())).collect::<Vec<u8>>());
    wire.ask(Request::Received { through: 2 });
    drop(wire);
    eventually("the receipt is heard", || (other.status().kept == 4096).then_some(()));
}
