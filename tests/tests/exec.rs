//! Programs as jobs: what they are given, how their ends are told, and that nothing of them is left.

use std::io::{Read, Write};
use std::process::{Output, Stdio};

use bulkhead_proto::client::places;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::limits::EXEC_OUTPUT_MAX_BYTES;
use bulkhead_tests::daemon::{DEADLINE, Daemon, eventually, send_signal};
use bulkhead_tests::program_file::write_program;

/// `run exec -- sh -c SCRIPT`.
fn sh(daemon: &Daemon, script: &str) -> Output {
    daemon.cli(&["run", "exec", "--", "sh", "-c", script])
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A pipe by name: whoever opens it for writing is seen to come, and its end says that all of them are gone.
struct Fifo(std::path::PathBuf);

impl Fifo {
    fn new(daemon: &Daemon, name: &str) -> Self {
        let path = daemon.folder().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        Self(path)
    }

    /// Waits for the first line that is written.
    fn line(&self) -> (std::fs::File, String) {
        let path = self.0.clone();
        in_time("a line in the pipe", move || {
            let mut file = std::fs::File::open(path).expect("a reader");
            let mut line = Vec::new();
            let mut byte = [0];
            while file.read(&mut byte).expect("it can be read") == 1 && byte[0] != b'\n' {
                line.push(byte[0]);
            }
            (file, String::from_utf8(line).expect("text"))
        })
    }
}

/// Everybody who held the other side is gone.
fn await_end(mut file: std::fs::File) {
    in_time("the end of the pipe", move || file.read_to_end(&mut Vec::new()).expect("it ends"));
}

/// What may block for ever, with a deadline.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(sender.send(work())));
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("there was never {what}"))
}

#[test]
fn a_program_gets_its_words_and_its_output_is_the_result() {
    let daemon = Daemon::start();
    let words = daemon.cli(&["run", "exec", "--", "printf", "%s|", "a b", "", "--flag", "*"]);
    assert_eq!((code(&words), out(&words), err(&words)), (Some(0), "a b||--flag|*|".into(), String::new()));
    let silent = daemon.cli(&["run", "exec", "--", "true"]);
    assert_eq!((code(&silent), out(&silent)), (Some(0), String::new()));
    let twice = daemon.cli(&["run", "exec", "--count", "2", "--", "echo", "x"]);
    assert_eq!(out(&twice), "x\nx\n");
    let long = sh(&daemon, "head -c 3000000 /dev/zero | tr '\\0' x");
    assert_eq!((code(&long), long.stdout.len()), (Some(0), 3_000_000));
    let id = daemon.ok(&["submit", "exec", "--", "echo", "kept"]);
    daemon.ok(&["wait", id.trim()]);
    assert_eq!(daemon.ok(&["result", id.trim()]), "kept\n");
    let shown = daemon.ok(&["job", id.trim()]);
    assert!(!shown.contains("input"), "of a job that is done it is not kept: {shown}");
    let id = daemon.ok(&["submit", "exec", "--env", "A=b", "--", "sh", "-c", "exit 3"]);
    daemon.cli(&["wait", id.trim()]);
    let shown = daemon.ok(&["job", id.trim()]);
    assert!(shown.contains("\ninput     A=b sh -c exit 3\n"), "{shown}");
    assert!(daemon.ok(&["kinds"]).contains("PROGRAM ARGUMENTS..."));
}

#[test]
fn the_environment_is_clean_and_the_folder_its_own() {
    let daemon = Daemon::start();
    let mut command = daemon.command(&["run", "exec", "--env", "A=b=c", "--env", "LANG=C", "--", "env"]);
    let output = command.env("SECRET", "x").output().expect("it runs");
    let text = out(&output);
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "HOME", "LANG", "PATH", "PWD", "TMPDIR"], "{text}");
    assert!(text.contains("A=b=c\n") && text.contains("LANG=C\n"), "{text}");
    let folders =
        || out(&sh(&daemon, "pwd; echo $HOME; echo $TMPDIR; ls -A | wc -l; echo x > file; mkdir d"));
    let (first, second) = (folders(), folders());
    let lines: Vec<&str> = first.lines().collect();
    assert!(lines[0] == lines[1] && lines[1] == lines[2] && lines[3] == "0", "{first}");
    assert_ne!(first, second);
    assert!(!std::path::Path::new(lines[0]).exists(), "{} is left", lines[0]);
    // The fourth is the folder that ls itself reads.
    let fds = daemon.ok(&["run", "exec", "--", "ls", "/proc/self/fd"]);
    assert_eq!(fds, "0\n1\n2\n3\n", "nothing of the worker is open in it");
}

#[test]
fn standard_input_goes_along_however_long_it_is() {
    let daemon = Daemon::start();
    let fed = |bytes: &[u8]| {
        let mut command = daemon.command(&["run", "exec", "--stdin", "--", "wc", "-c"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        child.stdin.take().expect("a pipe").write_all(bytes).expect("it reads all");
        child.wait_with_output().expect("it ends")
    };
    assert_eq!(out(&fed(b"")).trim(), "0");
    assert_eq!(out(&fed(&[7; 4000])).trim(), "4000");
    for length in [4090, 4096, 4097, 5000, 1 << 20] {
        let long = fed(&vec![7; length]);
        assert_eq!(
            (code(&long), out(&long).trim()),
            (Some(0), length.to_string().as_str()),
            "{}",
            err(&long)
        );
    }
    let long = daemon.cli(&["run", "exec", "--", "echo", &"x".repeat(5000)]);
    assert!(code(&long) == Some(2) && err(&long).contains("arguments 5004"), "{}", err(&long));
}

#[test]
fn an_end_is_told_with_the_programs_own_code() {
    let daemon = Daemon::start();
    for exit in [1, 3, 97, 255] {
        let failed = sh(&daemon, &format!("echo wrong >&2; exit {exit}"));
        assert_eq!(code(&failed), Some(exit));
        assert!(
            err(&failed).contains(&format!("failed after 1 attempt: exit code {exit}: wrong")),
            "{}",
            err(&failed)
        );
    }
    for (signal, number) in [("KILL", 9), ("SEGV", 11), ("TERM", 15)] {
        let killed = sh(&daemon, &format!("ulimit -c 0; echo out; kill -{signal} $$"));
        assert_eq!((code(&killed), out(&killed)), (Some(128 + number), "out\n".to_owned()));
        let said = err(&killed);
        assert!(said.contains(&format!("killed by SIG{signal}")), "{said}");
    }
    let limited = sh(&daemon, "ulimit -f 1; exec dd if=/dev/zero of=big bs=1024 count=64");
    assert!(
        code(&limited) == Some(128 + 25) && err(&limited).contains("SIGXFSZ, a file above"),
        "{}",
        err(&limited)
    );
    let busy = sh(&daemon, "ulimit -t 1; while :; do :; done");
    assert!(
        code(&busy) == Some(128 + 24) || code(&busy) == Some(128 + 9),
        "{:?} {}",
        code(&busy),
        err(&busy)
    );
    let json = daemon.cli(&["--json", "run", "exec", "--", "sh", "-c", "exit 7"]);
    let json: serde_json::Value = serde_json::from_str(out(&json).trim()).expect("an object");
    assert_eq!((&json["outcome"], &json["code"]), (&"failed".into(), &7.into()), "{json}");
    assert_eq!(daemon.events_named("backoff").len(), 0, "nothing was tried again");
}

#[test]
fn what_a_program_wrote_before_it_failed_is_its_output() {
    let daemon = Daemon::start();
    for bytes in [1, 3000, 4096, 300_000] {
        let script = format!("yes 1234567 | head -c {bytes}; echo why >&2; exit 4");
        let failed = sh(&daemon, &script);
        assert_eq!((code(&failed), failed.stdout.len()), (Some(4), bytes));
        assert!(
            out(&failed).starts_with('1') && err(&failed).contains("exit code 4: why"),
            "{}",
            err(&failed)
        );
        let id = daemon.ok(&["submit", "exec", "--", "sh", "-c", &script]);
        assert_eq!(code(&daemon.cli(&["wait", id.trim()])), Some(4));
        let shown: serde_json::Value =
            serde_json::from_str(&daemon.ok(&["--json", "job", id.trim()])).expect("an object");
        assert_eq!(shown["output_bytes"], bytes, "{shown}");
        let result = daemon.cli(&["result", id.trim()]);
        assert_eq!(code(&result), Some(4));
        assert_eq!(out(&result).trim_end(), out(&failed).trim_end());
    }
    let file = daemon.folder().join("file");
    std::fs::write(&file, "old").expect("a file");
    let path = file.display().to_string();
    daemon.cli(&["run", "exec", "-o", &path, "--", "sh", "-c", "echo new; exit 1"]);
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "old", "a file is for results alone");
}

#[test]
fn files_of_any_size_come_with_a_program() {
    let daemon = Daemon::start();
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    let long = "a line of the input\n".repeat(300_000);
    std::fs::write(path("in"), &long).expect("a file");
    let (from, to) = (format!("text={}", path("in")), format!("result={}", path("out")));
    let by_name = ["run", "exec", "--in", &from, "--out", &to, "--"];
    let shell = [&by_name[..], &["sh", "-c", "tr a-z A-Z <$text >$result; echo told"]].concat();
    assert_eq!(daemon.ok(&shell), "told\n");
    assert_eq!(std::fs::read_to_string(path("out")).expect("it is there"), long.to_uppercase());
    let words =
        [&by_name[..], &["dd", "if={text}", "of={result}", "bs=20", "count=2", "status=none"]].concat();
    assert_eq!(daemon.ok(&words), "");
    assert_eq!(std::fs::read_to_string(path("out")).expect("it is there"), "a line of the input\n".repeat(2));
    let failed = daemon.cli(&[&by_name[..], &["sh", "-c", "echo half >$result; exit 3"]].concat());
    assert_eq!(code(&failed), Some(3));
    assert!(std::fs::read_to_string(path("out")).expect("it is there").starts_with("a line"), "as it was");

    let fed = daemon.ok(&["run", "exec", "--in", &format!("stdin={}", path("in")), "--", "wc", "-c"]);
    assert_eq!(fed.trim(), long.len().to_string());
    let all = daemon.ok(&["run", "exec", "--in", &from, "--", "ls", "/proc/self/fd"]);
    assert_eq!(all.lines().count(), 5, "the file, and nothing else of the worker: {all}");
    let bytes = EXEC_OUTPUT_MAX_BYTES + 1_000_000;
    let count = bytes.to_string();
    daemon.ok(&["run", "exec", "-o", &path("large"), "--", "head", "-c", &count, "/dev/zero"]);
    assert_eq!(std::fs::metadata(path("large")).expect("it is there").len(), bytes);
}

#[test]
fn a_failure_is_tried_again_only_if_asked() {
    let daemon = Daemon::start();
    let marks = daemon.folder().join("marks");
    let script = format!("echo x >> {}; exit 4", marks.display());
    let failed = daemon.cli(&["run", "exec", "--retries-max", "2", "--", "sh", "-c", &script]);
    assert!(code(&failed) == Some(4) && err(&failed).contains("after 3 attempts"), "{}", err(&failed));
    assert_eq!(std::fs::read_to_string(&marks).expect("it ran"), "x\nx\nx\n");
}

#[test]
fn what_cannot_be_run_is_named_with_the_codes_of_a_shell() {
    let daemon = Daemon::start();
    let script = |name: &str, text: &str, mode: u32| {
        let path = daemon.folder().join(name);
        write_program(&path, text, mode);
        path.display().to_string()
    };
    for (program, exit, fault) in [
        ("no-such-program".to_owned(), 127, "no program \"no-such-program\" on its PATH, /usr/local/bin"),
        ("/nowhere/at/all".to_owned(), 127, "cannot run \"/nowhere/at/all\": No such file"),
        (script("plain", "x", 0o644), 126, "Permission denied"),
        (script("no-head", "echo x", 0o755), 126, "first line such as #!/bin/sh"),
        (script("lost", "#!/nowhere/sh\n", 0o755), 127, "interpreter is missing"),
        ("/".to_owned(), 126, "cannot run \"/\""),
    ] {
        let output = daemon.cli(&["run", "exec", "--", &program]);
        assert_eq!(code(&output), Some(exit), "{program}: {}", err(&output));
        assert!(err(&output).contains(fault), "{program}: {}", err(&output));
    }
    let fine = script("fine", "#!/bin/sh\necho fine\n", 0o755);
    assert_eq!(daemon.ok(&["run", "exec", "--", &fine]), "fine\n");
    let (folder, name) = fine.rsplit_once('/').expect("a path");
    let here = daemon.command(&["run", "exec", "--", &format!("./{name}")]).current_dir(folder).output();
    assert_eq!(out(&here.expect("it runs")), "fine\n");
    let on_path = daemon.ok(&["run", "exec", "--env", &format!("PATH={folder}"), "--", name]);
    assert_eq!(on_path, "fine\n");
}

#[test]
fn full_pipes_of_both_streams_do_not_lock_it_up() {
    let daemon = Daemon::start();
    let script = "dd if=/dev/zero bs=65536 count=40 2>/dev/null & dd if=/dev/zero bs=65536 count=40 2>/dev/null >&2; wait; echo end >&2";
    let output = sh(&daemon, script);
    assert_eq!((code(&output), output.stdout.len()), (Some(0), 40 * 65536));
    let both = sh(&daemon, "yes 'last words' | head -c 3000000 >&2; exit 9");
    assert_eq!(code(&both), Some(9));
    assert!(err(&both).contains("last words / last words") && err(&both).len() < 1200, "{}", err(&both));
}

#[test]
fn output_beyond_the_limit_kills_the_program() {
    let daemon = Daemon::start();
    let flood = daemon.cli(&["run", "exec", "--", "yes"]);
    assert_eq!(code(&flood), Some(1));
    let kept = flood.stdout.len() as u64;
    assert!(kept > EXEC_OUTPUT_MAX_BYTES - (1 << 20) && kept <= EXEC_OUTPUT_MAX_BYTES, "{kept}");
    assert!(err(&flood).contains(&format!("more than {EXEC_OUTPUT_MAX_BYTES} bytes")), "{}", err(&flood));
}

#[test]
fn its_end_is_the_end_whoever_holds_its_output() {
    let daemon = Daemon::start();
    let silent = sh(&daemon, "exec >&- 2>&-; exec sleep 0.2");
    assert_eq!((code(&silent), out(&silent)), (Some(0), String::new()));
    for leave in ["(sleep 3000 &)", "setsid sleep 3000 &", "setsid setsid sh -c 'sleep 3000 & sleep 3000' &"]
    {
        let fifo = Fifo::new(&daemon, "left");
        let script = format!("exec 9>{}; echo here >&9; {leave}\necho told", fifo.0.display());
        let running = std::thread::scope(|scope| {
            let run = scope.spawn(|| sh(&daemon, &script));
            await_end(fifo.line().0);
            run.join().expect("it ran")
        });
        assert_eq!((code(&running), out(&running)), (Some(0), "told\n".to_owned()), "{leave}");
        std::fs::remove_file(&fifo.0).expect("it is there");
    }
    let group = sh(&daemon, "sleep 3000 & trap '' TERM; kill 0; echo told");
    assert_eq!(out(&group), "told\n", "a signal to its own group spares its worker");
    assert_eq!(daemon.ok(&["deaths"]).lines().filter(|line| line.contains("exec")).count(), 0);
}

/// A program with children in a session of their own, that all hold a pipe; gives what reads its end.
fn long_tree(fifo: &Fifo) -> String {
    let path = fifo.0.display();
    format!(
        "exec 9>{path}; setsid setsid sh -c 'sleep 3000 & sleep 3000' & (sleep 3000 &) ; pwd >&9; exec sleep 3000"
    )
}

#[test]
fn timeout_and_cancel_end_the_whole_tree() {
    let daemon = Daemon::start();
    let fifo = Fifo::new(&daemon, "tree");
    let id = daemon.ok(&["submit", "exec", "--", "sh", "-c", &long_tree(&fifo)]);
    let (reader, folder) = fifo.line();
    assert!(std::path::Path::new(&folder).is_dir(), "{folder}");
    daemon.ok(&["cancel", id.trim()]);
    await_end(reader);
    eventually("the folder is gone", || (!std::path::Path::new(&folder).exists()).then_some(()));
    assert_eq!(code(&daemon.cli(&["wait", id.trim()])), Some(130));
    let id = daemon.ok(&["submit", "exec", "--timeout", "2s", "--", "sh", "-c", &long_tree(&fifo)]);
    await_end(fifo.line().0);
    assert_eq!(code(&daemon.cli(&["wait", id.trim()])), Some(124));
    let quiet = daemon.cli(&["run", "exec", "--no-progress", "1s", "--", "sleep", "3000"]);
    assert_eq!(code(&quiet), Some(124), "{}", err(&quiet));
}

#[test]
fn a_worker_that_is_killed_leaves_no_program() {
    let daemon = Daemon::start();
    let fifo = Fifo::new(&daemon, "tree");
    let script = long_tree(&fifo);
    let id = daemon.ok(&["submit", "exec", "--crashes-max", "1", "--", "sh", "-c", &script]);
    let (reader, folder) = fifo.line();
    send_signal(daemon.await_worker(WorkerState::Busy).pid.expect("it runs"), "KILL");
    await_end(reader);
    assert_eq!(code(&daemon.cli(&["wait", id.trim()])), Some(125));
    eventually("the folder is gone", || (!std::path::Path::new(&folder).exists()).then_some(()));
}

#[test]
fn the_end_of_the_daemon_ends_the_whole_tree() {
    for signals in [&["INT"][..], &["TERM", "TERM"], &["KILL"]] {
        let mut daemon = Daemon::start();
        let fifo = Fifo::new(&daemon, "tree");
        daemon.ok(&["submit", "exec", "--", "sh", "-c", &long_tree(&fifo)]);
        let (reader, _) = fifo.line();
        for (place, signal) in signals.iter().enumerate() {
            send_signal(daemon.pid(), signal);
            // Two of one signal are one to a daemon that has not taken the first yet.
            let is_taken = || daemon.log().contains("asked to stop: draining").then_some(());
            if place + 1 < signals.len() {
                eventually("the signal is taken", is_taken);
            }
        }
        daemon.await_end();
        await_end(reader);
        let in_order = !signals.contains(&"KILL");
        assert!(!in_order || !places::boot_folder(&daemon.socket()).exists());
    }
}

#[test]
fn a_memory_limit_reaches_the_program() {
    let daemon = Daemon::start();
    let script = "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c; echo end";
    let limited = daemon.cli(&["run", "exec", "--memory", "32M", "--", "sh", "-c", script]);
    assert!(!out(&limited).contains("200000000"), "{}", out(&limited));
    assert_eq!(out(&sh(&daemon, script)), "200000000\nend\n", "it can be had without a limit");
}
