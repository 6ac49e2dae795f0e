//! What goes wrong with files that are copied for a program: no room, the limit, a wrong file, a death in the middle.
//!
//! In each case the user is told what it was, and no copy stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_proto::worker::copies::FOLDER_PREFIX;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, send_signal};
use bulkhead_tests::other_disk::{NOBODY, OtherDisk, can_mount, copies, is_root, names, text};
use bulkhead_tests::skip;

#[test]
fn a_change_to_a_copy_is_not_lost_without_a_word() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = OtherDisk::of(NOBODY);
    bench.write("a.txt", b"one\n");
    for words in
        [&["sed", "-i", "s/one/two/", "{a}"][..], &["rm", "{a}"], &["sh", "-c", "echo more >> \"$a\""]]
    {
        let output = bench.run_with("size=1m", &[&["--in", "a=a.txt", "--"], words].concat());
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("changed or removed file \"a\""),
            "{words:?}: {said}"
        );
        assert_eq!(fs::read(bench.path("source/a.txt")).expect("it is there"), b"one\n");
    }
    assert_eq!(bench.left().1, 0);
}

#[test]
fn only_a_regular_file_is_taken_from_beside_the_copies() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = OtherDisk::of(NOBODY);
    bench.write("o", b"older");
    for (script, fault) in [
        ("true", "left no file for \"b\""),
        ("ln -s /etc/passwd \"$b\"", "something else than a regular file"),
        ("mkfifo \"$b\"", "something else than a regular file"),
        ("mkdir \"$b\"", "something else than a regular file"),
    ] {
        let output = bench.run_with("size=1m", &["--out", "b=o", "--", "sh", "-c", script]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(fault), "{script}: {said}");
        assert_eq!(bench.left(), (vec!["o".to_owned()], 0), "{script}");
        assert_eq!(fs::read(bench.path("source/o")).expect("it is there"), b"older");
    }
}

#[test]
fn a_full_disk_is_told_with_the_file_its_bytes_and_the_folder() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = OtherDisk::of(NOBODY);
    let output = bench.run_with("size=1m", &["--out", "b=o", "--", "head", "-c", "5000000", "/dev/zero"]);
    assert!(text(&output.stderr).contains("left no file"), "{}", text(&output.stderr));
    let make = ["sh", "-c", "head -c 5000000 /dev/zero > \"$b\""];
    let output = bench.run_with("size=1m", &[&["--out", "b=o", "--"], &make[..]].concat());
    let told =
        format!("no space is left in {}, where file \"b\" (5000000 bytes)", bench.path("disk").display());
    assert!(
        output.status.code() == Some(1) && text(&output.stderr).contains(&told),
        "{}",
        text(&output.stderr)
    );
    let state = bench.path("home/state");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=777", "none"]).arg(&state).status();
    assert!(mounted.expect("mount is there").success());
    bench.write("a", &vec![7; 5_000_000]);
    let output = bench.run_with("size=100m", &["--in", "a=a", "--", "true"]);
    let unmounted = Command::new("umount").arg(&state).status();
    assert!(unmounted.expect("umount is there").success());
    let said = text(&output.stderr);
    let told = [format!("no space is left in {}", state.display()), "file \"a\" (5000000 bytes)".to_owned()];
    assert!(output.status.code() == Some(1) && told.iter().all(|told| said.contains(told)), "{said}");
}

/// A sparse file takes no more room than it had, and a long one meets the limit before it is copied.
#[test]
fn copies_are_bounded_and_the_key_is_named() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = OtherDisk::with(NOBODY, "copies_bytes_max = 1000000\n");
    bench.write("a", &vec![7; 600_000]);
    bench.write("c", &vec![7; 600_000]);
    assert_eq!(bench.ok(&["--in", "a=a", "--", "wc", "-c", "{a}"]).split(' ').next(), Some("600000"));
    let output = bench.run_with("size=9m", &["--in", "a=a", "--in", "c=c", "--", "true"]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("more than 1000000 bytes"), "{said}");
    assert!(said.contains("file \"c\"") && said.contains("copies_bytes_max"), "{said}");
    let output = bench
        .run_with("size=9m", &["--out", "b=b", "--", "sh", "-c", "exec head -c 2000000 /dev/zero > \"$b\""]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(128 + 25) && said.contains("copies_bytes_max"), "{said}");
    // What the program prints is no copy, and the limit of the program is none of its worker.
    let both = "head -c 3000000 /dev/zero; head -c 900000 /dev/zero > \"$b\"";
    let output = bench.run_with("size=9m", &["--out", "b=b", "--", "sh", "-c", both]);
    assert!(output.status.success() && output.stdout.len() == 3_000_000, "{}", text(&output.stderr));
    let own = new_folder();
    let sparse = own.path().join("sparse");
    fs::File::create(&sparse).expect("a file").set_len(1 << 29).expect("it takes no room");
    fs::set_permissions(&sparse, Permissions::from_mode(0o600)).expect("it is ours");
    let script = "stat -c %s \"$a\"; test $(stat -c %b \"$a\") -lt 1000";
    let output = bench.run_as_root(&sparse, &["--", "sh", "-c", script]).output().expect("it runs");
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("536870912\n", ""));
    assert_eq!(bench.left().1, 0);
}

/// A job that ends or dies while it is copied leaves nothing: a cancel, kill -9 of the worker, and of the daemon.
#[test]
fn whoever_dies_the_copies_go() {
    let mut daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    let state = daemon.folder().join("state");
    let mark = daemon.folder().join("mark");
    let script = "echo half > \"$b\"; echo > \"$1\"; exec sleep 3000";
    let start = || {
        let _ = fs::remove_file(&mark);
        let mut run = daemon.command(&[
            "run",
            "exec",
            "--crashes-max",
            "1",
            "--in",
            "a=-",
            "--out",
            "b=-",
            "-o",
            "/dev/null",
        ]);
        run.args(["--", "sh", "-c", script, "sh"]).arg(&mark).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut run = run.stderr(Stdio::null()).spawn().expect("it runs");
        drop(run.stdin.take());
        eventually("the program runs", || mark.exists().then_some(()));
        assert_eq!(copies(&state), 1);
        run
    };
    let mut run = start();
    send_signal(run.id(), "INT");
    run.wait().expect("it ends");
    eventually("the copies are gone", || (copies(&state) == 0).then_some(()));
    let mut run = start();
    run.kill().expect("it runs");
    run.wait().expect("it ends");
    eventually("the copies are gone", || (copies(&state) == 0).then_some(()));
    let mut run = start();
    send_signal(daemon.await_worker(WorkerState::Busy).pid.expect("it runs"), "KILL");
    run.wait().expect("it ends");
    eventually("the copies are gone", || (copies(&state) == 0).then_some(()));
    let mut run = start();
    daemon.end("KILL");
    run.wait().expect("it ends");
    eventually("the next daemon removes them", || {
        daemon.start_again(&Setup { workers: 1, ..Setup::default() });
        let left = copies(&state);
        if left > 0 {
            daemon.end("TERM");
        }
        (left == 0).then_some(())
    });
}

/// The folder of a killed command is removed through its descriptor, although its path leads nowhere for the worker.
#[test]
fn the_hidden_folder_of_a_killed_command_goes_in_its_own_namespace() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = OtherDisk::of(NOBODY);
    let mark = bench.path("home/mark");
    let script = "mount -t tmpfs -o mode=777 none \"$1\" || exit 77; cd \"$1\"; shift; \
                  setpriv --reuid 65534 --regid 65534 --clear-groups timeout -s KILL 60 \"$@\" & \
                  while ! test -e \"$MARK\"; do sleep 0.05; done; ls -A; pkill_child() { kill -KILL $(cat /proc/$!/task/$!/children); }; pkill_child; \
                  n=0; while test -n \"$(ls -A)\" && test $n -lt 600; do sleep 0.1; n=$((n+1)); done; ls -A; echo end";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(bench.path("disk")).arg(bench.path("bulkhead"));
    command.arg("--socket").arg(bench.path("home/s")).args(["run", "exec", "--out", "b=o", "--", "sh", "-c"]);
    command.args(["echo half > \"$b\"; echo > \"$1\"; exec sleep 3000", "sh"]).arg(&mark).env("MARK", &mark);
    let output = command.stdin(Stdio::null()).output().expect("unshare is there");
    assert_eq!(text(&output.stdout), ".bulkhead-out-0\nend\n", "{}", text(&output.stderr));
    eventually("the copies are gone", || (bench.left().1 == 0).then_some(()));
}

/// The worker is stopped in the middle of a copy. Killed there, another worker copies anew and all of the file arrives;
/// cancelled there, the job ends.
#[test]
fn a_copy_that_is_cut_off_is_made_anew_or_given_up() {
    if !is_root() {
        skip!("only root can become another user");
    }
    let bench = OtherDisk::of(NOBODY);
    let own = new_folder();
    let (input, bytes) = (own.path().join("in"), 150_000_000);
    fs::write(&input, vec![7; bytes]).expect("a file");
    fs::set_permissions(&input, Permissions::from_mode(0o600)).expect("it is ours");
    let state = bench.path("home/state");
    let copied = || {
        let folder = names(&state).into_iter().find(|name| name.starts_with(FOLDER_PREFIX))?;
        state.join(folder).join("a/in").metadata().ok().map(|found| found.len())
    };
    let worker = || {
        let socket = bench.path("home/s");
        let rows =
            Command::new(binary("bulkhead")).arg("--socket").arg(socket).args(["workers", "--json"]).output();
        let rows = text(&rows.expect("it runs").stdout);
        let rows = rows.lines().map(|row| serde_json::from_str::<WorkerRow>(row).expect("a row"));
        rows.filter(|row| row.state != WorkerState::Spare).find_map(|row| row.pid).expect("it is up")
    };
    for signal in ["KILL", "CONT"] {
        // The copy may be over before it is seen.
        let (pid, run) = eventually("the worker is stopped in the middle", || {
            let pid = worker();
            let mut run = bench.run_as_root(&input, &["--", "wc", "-c", "{a}"]);
            let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
            while copied().is_none_or(|seen| seen == 0) && run.try_wait().expect("it is ours").is_none() {}
            send_signal(pid, "STOP");
            if copied().is_some_and(|seen| (1..bytes as u64).contains(&seen)) {
                return Some((pid, run));
            }
            send_signal(pid, "CONT");
            run.wait().expect("it ends");
            None
        });
        if signal == "CONT" {
            send_signal(run.id(), "INT");
        }
        // A stopped worker may have been killed for its cancelled job already.
        let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).output();
        let output = run.wait_with_output().expect("it ends");
        let said = (text(&output.stdout).split(' ').next().map(str::to_owned), output.status.code());
        let whole = (Some(bytes.to_string()), Some(0));
        let given_up = (Some(String::new()), Some(130));
        assert_eq!(said, if signal == "KILL" { whole } else { given_up }, "{}", text(&output.stderr));
        eventually("the copies are gone", || (bench.left().1 == 0).then_some(()));
    }
}
