//! Files of programs under real paths: real tools, run by root and by an unprivileged user with a daemon of its own,
//! and clients whose paths lead elsewhere.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, binary, eventually, new_folder, send_signal};
use bulkhead_tests::skip;

/// The user `nobody`.
const NOBODY: u32 = 65534;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn has(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$1\" >/dev/null", "sh", program])
        .status()
        .is_ok_and(|it| it.success())
}

/// A folder in which one user runs programs with files, in a private daemon for each command.
struct Bench {
    folder: tempfile::TempDir,
    uid: u32,
}

impl Bench {
    fn of(uid: u32) -> Self {
        let folder = new_folder();
        for program in ["bulkhead", "bulkhead-supervisor", "bulkhead-worker"] {
            let copied = Command::new("cp").arg(binary(program)).arg(folder.path()).status();
            assert!(copied.expect("cp runs").success(), "{program} is copied");
        }
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its permissions");
        let files = folder.path().join("files");
        std::fs::create_dir(&files).expect("a folder");
        chown(&files, Some(uid), Some(uid)).expect("it is root's to give");
        Self { folder, uid }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.path("")).expect("a folder");
        all.map(|one| text(one.expect("an entry").file_name().as_encoded_bytes())).collect()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("a file");
        chown(self.path(name), Some(self.uid), Some(self.uid)).expect("it is root's to give");
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.uid).current_dir(self.path("")).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.path(""));
        command.env("XDG_RUNTIME_DIR", self.path(""));
        command
    }

    /// `bulkhead run exec` with these words.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command(&self.folder.path().join("bulkhead"));
        command.args(["run", "exec"]).args(words).output().expect("it runs")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "uid {} {words:?}: {}", self.uid, text(&output.stderr));
        text(&output.stdout)
    }
}

/// Calls `test` as root and as an unprivileged user, if this is root.
fn as_both(test: impl Fn(&Bench)) {
    test(&Bench::of(0));
    test(&Bench::of(NOBODY));
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| text(&output.stdout).trim() == "0")
}

#[test]
fn an_input_has_the_path_that_its_user_gave() {
    if !is_root() {
        skip!("only root can become another user");
    }
    as_both(|bench| {
        for name in ["plain.txt", "with two blanks.txt", "line\nbreak", "{a}"] {
            bench.write(name, "content");
            let given = format!("a={name}");
            let said =
                bench.ok(&["--in", &given, "--", "sh", "-c", "printf %s \"$a\"; cat \"$1\"", "sh", "{a}"]);
            assert_eq!(said, format!("{}content", bench.path(name).display()));
        }
        let up = format!("a=../files/{}", "plain.txt");
        assert_eq!(bench.ok(&["--in", &up, "--", "cat", "{a}"]), "content");
        std::os::unix::fs::symlink("plain.txt", bench.path("link.txt")).expect("a link");
        let said = bench.ok(&["--in", "a=link.txt", "--", "readlink", "{a}"]);
        assert_eq!(said, "plain.txt\n", "a link stays one");
    });
}

#[test]
fn tools_and_what_they_start_find_their_input() {
    if !is_root() {
        skip!("only root can become another user");
    }
    let tools: [(&str, &[&str]); 5] = [
        ("realpath", &["realpath", "-e", "{a}"]),
        (
            "python3",
            &[
                "python3",
                "-c",
                "import os, subprocess; print(subprocess.run(['cat', os.environ['a']], close_fds=True, capture_output=True, check=True, text=True).stdout)",
            ],
        ),
        (
            "node",
            &[
                "node",
                "-e",
                "console.log(require('fs').readFileSync(require('fs').realpathSync(process.env.a), 'utf8')); require('child_process').execFileSync('cat', [process.env.a])",
            ],
        ),
        ("perl", &["perl", "-MCwd=realpath", "-e", "open(F, realpath($ENV{a})) or die; print <F>"]),
        ("gzip", &["sh", "-c", "gzip -k \"$a\" && gzip -dc \"$a.gz\""]),
    ];
    let missing: Vec<&str> = tools.iter().map(|(tool, _)| *tool).filter(|tool| !has(tool)).collect();
    as_both(|bench| {
        bench.write("a.txt", "content\n");
        for (_, words) in tools.iter().filter(|(tool, _)| !missing.contains(tool)) {
            let said = bench.ok(&[&["--in", "a=a.txt", "--"], *words].concat());
            assert!(said.contains("content") || said.contains("a.txt"), "{words:?}: {said}");
        }
    });
    if !missing.is_empty() {
        skip!("not installed: {}", missing.join(", "));
    }
}

#[test]
fn a_database_that_is_read_has_its_journal_beside_it() {
    if !has("sqlite3") || !is_root() {
        skip!("there is no sqlite3, or this is not root");
    }
    as_both(|bench| {
        let made = bench
            .command(Path::new("sqlite3"))
            .args(["a.db", "create table t(x); insert into t values(1);"])
            .status();
        assert!(made.expect("it runs").success());
        bench.ok(&[
            "--in",
            "db=a.db",
            "--",
            "sqlite3",
            "{db}",
            "pragma journal_mode=persist; insert into t values(2);",
        ]);
        assert!(bench.path("a.db-journal").exists(), "the journal lies beside the database");
        assert_eq!(bench.ok(&["--in", "db=a.db", "--", "sqlite3", "{db}", "select sum(x) from t;"]), "3\n");
    });
}

#[test]
fn a_file_is_edited_in_its_place() {
    if !is_root() {
        skip!("only root can become another user");
    }
    as_both(|bench| {
        bench.write("a.txt", "one\n");
        bench.ok(&["--in", "a=a.txt", "--", "sed", "-i", "s/one/two/", "{a}"]);
        assert_eq!(std::fs::read_to_string(bench.path("a.txt")).expect("it is there"), "two\n");
    });
}

/// In the client's mount namespace another file lies under the path than in the worker's.
#[test]
fn a_path_that_leads_elsewhere_is_not_used() {
    let daemon = Daemon::start();
    let folder = daemon.folder().join("disk");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("a.txt"), "the worker's").expect("a file");
    let script = "mount -t tmpfs none \"$1\" && printf \"the client's\" > \"$1/a.txt\" || exit 77; disk=$1; shift; \"$@\" && cat \"$disk/out\" && ls -A \"$disk\"";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&folder)
        .arg(binary("bulkhead"))
        .arg("--socket")
        .arg(daemon.socket());
    command.args(["run", "exec", "--in"]).arg(format!("a={}", folder.join("a.txt").display()));
    command.arg("--out").arg(format!("b={}", folder.join("out").display()));
    let output = command
        .args(["--", "sh", "-c", "cat \"$1\" > \"$b\"; echo more >> \"$2\"", "sh", "{a}", "{b}"])
        .output()
        .expect("unshare is there");
    if output.status.code() == Some(77) || text(&output.stderr).contains("unshare") {
        skip!("no tmpfs can be mounted here: {}", text(&output.stderr));
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "the client'smore\na.txt\nout\n");
    assert!(!folder.join("out").exists());
}

/// An older file stays until the program is done, and the new one is found under its own name in a folder of its own.
#[test]
fn an_output_is_made_by_real_tools_under_its_own_name() {
    if !is_root() {
        skip!("only root can become another user");
    }
    let sql = "create table if not exists t(x); insert into t values(1); select count(*) from t;";
    let tools: [(&str, &str, &[&str]); 5] = [
        ("sqlite3", "old.db", &["sqlite3", "{b}", sql]),
        ("zip", "x.zip", &["sh", "-c", "cp \"$a\" in.txt; zip -q \"$b\" in.txt"]),
        ("ffmpeg", "x.mp4", &["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "{b}"]),
        ("sed", "x.txt", &["sh", "-c", "cp \"$a\" \"$b\"; sed -i s/content/edited/ \"$b\""]),
        (
            "node",
            "x.json",
            &["node", "-e", "require('child_process').execFileSync('cp', [process.env.a, process.env.b])"],
        ),
    ];
    let missing: Vec<&str> = tools.iter().map(|(tool, ..)| *tool).filter(|tool| !has(tool)).collect();
    as_both(|bench| {
        bench.write("a.txt", "content\n");
        for (_, name, words) in tools.iter().filter(|(tool, ..)| !missing.contains(tool)) {
            bench.write(name, "older");
            let out = format!("b={name}");
            let words = [&["--in", "a=a.txt", "--out", &out, "--retries-max", "1", "--"], *words].concat();
            let said = bench.ok(&words);
            let made = std::fs::read(bench.path(name)).expect("it is there");
            assert!(!made.is_empty() && made != b"older", "{name}: {said}");
        }
        let left: Vec<_> = bench
            .names()
            .into_iter()
            .filter(|name| name.starts_with('.') || name.contains("deleted"))
            .collect();
        assert!(left.iter().all(|name| name == ".local"), "{left:?}");
    });
    if !missing.is_empty() {
        skip!("not installed: {}", missing.join(", "));
    }
}

#[test]
fn what_is_not_made_replaces_nothing_and_fails() {
    let daemon = Daemon::start();
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    std::fs::write(path("old"), "older").expect("a file");
    let out = format!("b={}", path("old"));
    for (script, code, fault) in [
        ("true", 1, "left no file for \"b\""),
        ("mkdir \"$b\"", 1, "something else than a regular file"),
        ("ln -s /etc/passwd \"$b\"", 1, "something else than a regular file"),
        ("mkfifo \"$b\"", 1, "something else than a regular file"),
        ("echo half > \"$b\"; exit 3", 3, "exit code 3"),
        ("test -e \"$b\" || { echo half > \"$b\"; touch \"$b-side\"; exit 4; }", 4, "after 3 attempts"),
    ] {
        let output =
            daemon.cli(&["run", "exec", "--retries-max", "2", "--out", &out, "--", "sh", "-c", script]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(fault), "{script}: {said}");
        assert_eq!(std::fs::read_to_string(path("old")).expect("it is there"), "older", "{script}");
    }
    let kept = daemon.cli(&["run", "exec", "--out", &out, "--", "sh", "-c", "echo told"]);
    assert_eq!((kept.status.code(), text(&kept.stdout).as_str()), (Some(1), "told\n"));
    assert!(!hidden(daemon.folder()), "nothing is left beside it");
}

fn hidden(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).expect("a folder").map(|one| one.expect("an entry").file_name());
    names.into_iter().any(|name| text(name.as_encoded_bytes()).starts_with(".bulkhead-"))
}

/// The command is killed: its worker ends the program and removes the folder. If no worker has it, the next run does.
#[test]
fn the_folder_of_a_killed_command_is_removed() {
    let daemon = Daemon::start();
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    let (out, mark) = (format!("b={}", path("out")), path("mark"));
    let script = "echo half > \"$b\"; echo > \"$1\"; exec sleep 3000";
    let mut run = daemon.command(&["run", "exec", "--out", &out, "--", "sh", "-c", script, "sh", &mark]);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    eventually("the program runs", || Path::new(&mark).exists().then_some(()));
    assert!(hidden(daemon.folder()));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    eventually("the folder is gone", || (!hidden(daemon.folder())).then_some(()));
    std::fs::create_dir(path(".bulkhead-out-5")).expect("a folder");
    std::fs::write(path(".bulkhead-out-5/out"), "half").expect("a file");
    daemon.ok(&["run", "exec", "--out", &out, "--", "cp", "/etc/hostname", "{b}"]);
    assert!(!hidden(daemon.folder()) && Path::new(&path("out")).is_file());
}

/// Killed workers leave what their program had made; the next attempt must not find it.
#[test]
fn an_attempt_after_a_killed_worker_finds_an_empty_folder() {
    let daemon = Daemon::start();
    let path = |name: &str| daemon.folder().join(name).display().to_string();
    let (out, mark) = (format!("b={}", path("out")), path("mark"));
    let script = "test -e \"$b\" && exit 9; echo half > \"$b\"; test -e \"$1\" && exit 0; echo > \"$1\"; exec sleep 3000";
    let mut run = daemon.command(&["run", "exec", "--out", &out, "--", "sh", "-c", script, "sh", &mark]);
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    eventually("the program runs", || Path::new(&mark).exists().then_some(()));
    send_signal(daemon.await_worker(WorkerState::Busy).pid.expect("it runs"), "KILL");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!hidden(daemon.folder()) && Path::new(&path("out")).is_file());
}
