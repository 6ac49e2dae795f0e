//! Files of programs under real paths: real tools, run by root and by an unprivileged user with a daemon of its own,
//! and clients whose paths lead elsewhere.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bulkhead_tests::daemon::{Daemon, binary, new_folder};
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
    let script =
        "mount -t tmpfs none \"$1\" && printf \"the client's\" > \"$1/a.txt\" || exit 77; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&folder)
        .arg(binary("bulkhead"))
        .arg("--socket")
        .arg(daemon.socket());
    command.args(["run", "exec", "--in"]).arg(format!("a={}", folder.join("a.txt").display()));
    let output = command.args(["--", "cat", "{a}"]).output().expect("unshare is there");
    if output.status.code() == Some(77) || text(&output.stderr).contains("unshare") {
        skip!("no tmpfs can be mounted here: {}", text(&output.stderr));
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "the client's");
}
