//! Command lines beside a shell: run by `sh` itself and by `sh` in a job, each in an empty folder with the same
//! environment, they end with the same code and write the same output. As root and as an unprivileged user.

use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use bulkhead_tests::daemon::{binary, new_folder};
use bulkhead_tests::program_file;
use bulkhead_tests::skip;

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// The search path that a program of a job has.
const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What the shell and its builtins do.
const SHELL: &[&str] = &[
    "echo hello",
    r"printf 'a\0b\377'",
    "exit 7",
    "exit 255",
    "false",
    "kill -TERM $$",
    "kill -KILL $$",
    "kill -SEGV $$",
    "kill -PIPE $$",
    "kill -HUP $$",
    "kill -USR1 $$",
    "nosuchprogram",
    "/etc/passwd",
    "./nothing/here",
    "cd / && pwd",
    "test \"$PWD\" = \"$(pwd)\" && test \"$HOME\" = \"$PWD\" && ls -A",
    "umask",
    "read -r line; echo \"[$?]\"",
    "exec 3>&1; echo three >&3",
    "echo bad >&2; echo good",
    "exec 2>&1; echo one; echo two >&2; echo three",
    "trap 'echo bye; exit 3' TERM; kill -TERM $$; echo never",
    "trap 'echo at the end' EXIT; exit 5",
    "sleep 0.1 & wait $!; echo $?",
    "(exit 9) & wait $!",
    "a='x y'; set -- $a \"$a\"; echo $#",
    "cat <<END\nhere $((6 * 7))\nEND",
    "echo x | tr x y | cat",
    "yes | head -n 3",
    "seq 100000 | tail -n 1",
    "while :; do echo x; done | head -c 100000 | wc -c",
    "ulimit -n; ulimit -s; ulimit -c",
    "bash -c 'set -o pipefail; false | true; echo $?; diff <(echo a) <(echo b)'",
    "bash -c 'coproc cat; echo via >&${COPROC[1]}; read -r x <&${COPROC[0]}; echo $x'",
];

/// What a process is given: signals, descriptors, credentials, a terminal that is not there.
const PROCESS: &[&str] = &[
    "grep -E '^(SigCgt|ShdPnd|NoNewPrivs|Seccomp|CapInh|CapPrm|CapEff|CapBnd|CapAmb|Groups|Uid|Gid):' /proc/self/status",
    "nice",
    "id -u; id -g; id -G",
    "tty",
    "echo secret </dev/tty",
    "stty size </dev/tty",
    "test -t 0 || test -t 1 || test -t 2; echo $?",
    "readlink /proc/self/fd/0",
    "test \"$(cut -d' ' -f6 /proc/$$/stat)\" = \"$$\" && test \"$(cut -d' ' -f5 /proc/$$/stat)\" = \"$$\"; echo $?",
    "timeout 1 sleep 8",
    "timeout -s KILL 0.2 sleep 8",
    "timeout --foreground 0.2 sleep 8; echo $?",
    "nohup echo kept",
    "setsid -w sh -c 'exit 4'",
    "env -i sh -c 'echo $HOME-$0'",
    "script -qec 'tty >/dev/null && echo a terminal' /dev/null",
    "flock lock sh -c 'flock -n lock echo twice || echo once'",
    "mkfifo p; (echo through >p &) ; cat p",
    "xargs -P 4 -n 1 sh -c 'exit 0' </dev/null; seq 9 | xargs -P 3 -I'[]' echo '[]' | sort",
    "perl -e 'print join(\",\", sort grep { defined $SIG{$_} } keys %SIG), \"\\n\"'",
    "perl -e 'for (1..20) { fork // die or exit 0 } my $n = 0; $n++ while wait > 0; print \"$n\\n\"'",
    "perl -e 'kill 11, $$'",
    "perl -e 'alarm 1; sleep 9'",
    "perl -e 'open my $t, \"<\", \"/dev/tty\" or die \"no terminal: $!\\n\"'",
];

/// Tools that write files, make processes and ask for more than a line of text.
const TOOLS: &[&str] = &[
    "echo 'x y' | awk '{a=$2; print a}'",
    "awk 'BEGIN { printf \"%d\\n\", 6 * 7; exit 5 }'",
    "echo one >f; sed -i s/one/two/ f; cat f; ls",
    "echo 'b a' | sed 's/\\(.\\) \\(.\\)/\\2 \\1/'",
    "seq 50000 | sort -S 100K -r -T . | head -n 2",
    "mkdir -p a/b; touch a/b/c; find . -type f -exec echo '{}' ';'; cp -a a d; rm -r a; ls -R",
    "umask 027; touch f; mkdir d; stat -c '%a %n' f d",
    "ln -s f l; readlink l; test -e l; echo $?",
    "dd if=/dev/zero bs=64K count=20 2>/dev/null | md5sum",
    "seq 10 | split -l 3 - part.; cat part.ab",
    "seq 5 | tee f | wc -l; cat f",
    "date -u -d @0 +%F",
    "seq 1000 >f; gzip f; gzip -dc f.gz | tail -n 1",
    "seq 1000 | bzip2 | bzip2 -dc | md5sum",
    "seq 1000 | xz -T2 | xz -dc | md5sum",
    "mkdir d; seq 9 >d/f; tar -cf a.tar d && rm -r d && tar -xf a.tar && cat d/f",
    "printf 'all: a b\\na b: ; @echo made\\n' >Makefile; make -s -j2",
    "echo 'int main(void){return 42;}' >m.c && cc m.c && ./a.out",
    "sqlite3 :memory: 'select 6 * 7'",
    "sqlite3 t.db 'pragma journal_mode=wal; create table t(x); insert into t values (1), (2); select sum(x) from t'; ls",
    "sqlite3 t.db 'select nonsense'",
    "seq 9 >f; zip -q a.zip f && rm f && unzip -p a.zip f | tail -n 1",
    "zip -q a.zip missing",
    "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first --date @0 && git log --format=%s",
    "git status",
    "ssh-keygen -q -t ed25519 -N '' -f k && ls && ssh-keygen -y -f k >/dev/null",
    "ssh-keygen -q -t ed25519 -N secret -f k && ssh-keygen -y -f k >/dev/null",
    "openssl dgst -sha256 </dev/null",
    "echo '{\"a\": [1, 2]}' | jq -c '.a | add'",
    "echo '2^100' | bc",
    "python3 -c 'import signal, sys; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGTERM)); sys.exit(6)'",
    "python3 -c 'import subprocess; print(subprocess.run([\"sh\", \"-c\", \"echo below; exit 3\"]).returncode)'",
    "python3 -c 'from multiprocessing import Pool; print(Pool(2).map(abs, range(-3, 0)))'",
    "python3 -c 'raise SystemExit(\"gone\")'",
    "python3 -c 'import os; os.abort()'",
    "python3 -c 'import getpass; getpass.getpass()'",
    "node -e 'process.exitCode = 9; console.log(1 + 1)'",
    "node -e 'console.log(require(\"child_process\").spawnSync(\"sh\", [\"-c\", \"echo below\"]).stdout.toString())'",
    "node -e 'new (require(\"worker_threads\").Worker)(\"console.log(3)\", { eval: true })'",
    "node -e 'process.kill(process.pid, \"SIGTERM\"); setTimeout(() => {}, 9000)'",
    "ffmpeg -v error -f lavfi -i testsrc=size=64x64:rate=10:duration=1 -f framemd5 - | tail -n 1",
    "ffmpeg -v error -f lavfi -i testsrc=size=64x64:rate=10:duration=1 t.mp4 && ffprobe -v error -show_entries stream=nb_frames -of csv=p=0 t.mp4",
    "ffmpeg -v error -i missing.mp4 out.mp4",
];

/// Programs without a shell: the shell's `"$@"` is the measure.
const WORDS: &[&[&str]] = &[
    &["true"],
    &["false"],
    &["printf", "%s|", "a b", "", "{}", "{a}x", "\\n", "*", "ü", "-x"],
    &["nosuchprogram", "-x"],
    &["/etc/passwd"],
    &["/"],
    &["sh", "-c", "kill -ABRT $$"],
    &["cat", "--", "missing"],
    &["echo", "--help"],
    &["env", "-i", "A=b", "env"],
    &["grep", "-c", "root", "/etc/passwd"],
    &["sleep", "0"],
];

/// What a command wrote and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: i32,
    stdout: String,
}

impl Seen {
    fn of(output: &Output) -> Self {
        Self { code: code(output.status), stdout: output.stdout.escape_ascii().to_string() }
    }
}

/// The code by which a shell tells how a command ended.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("it has ended")
}

/// One user, and copies of our programs that this user can read.
struct User {
    uid: u32,
    programs: tempfile::TempDir,
}

impl User {
    fn of(uid: u32) -> Self {
        let programs = new_folder();
        for program in ["bulkhead", "bulkhead-supervisor", "bulkhead-worker"] {
            program_file::copy_program(&binary(program), &programs.path().join(program));
        }
        std::fs::set_permissions(programs.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("its permissions");
        Self { uid, programs }
    }

    /// A folder of this user's own.
    fn folder(&self) -> tempfile::TempDir {
        let folder = new_folder();
        chown(folder.path(), Some(self.uid), Some(self.uid)).expect("it is root's to give");
        folder
    }

    /// A program as this user, with the environment of a job's program, in `folder`.
    fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.uid).current_dir(folder).stdin(Stdio::null()).env_clear();
        command.env("PATH", SEARCH).env("LANG", "C.UTF-8");
        for name in ["HOME", "PWD", "TMPDIR", "XDG_RUNTIME_DIR"] {
            command.env(name, folder);
        }
        command
    }

    /// What the words do when a shell starts them, in a session of its own.
    fn by_a_shell(&self, words: &[&str]) -> Seen {
        let folder = self.folder();
        let mut command = self.command(Path::new("/usr/bin/setsid"), folder.path());
        command.env_remove("XDG_RUNTIME_DIR").args(["-w", "sh", "-c", "exec \"$@\"", "sh"]).args(words);
        Seen::of(&command.output().expect("it runs"))
    }

    /// What they do in a job, in a private daemon.
    fn by_a_job(&self, words: &[&str]) -> Seen {
        let folder = self.folder();
        let mut command = self.command(&self.programs.path().join("bulkhead"), folder.path());
        command.args(["run", "-q", "exec", "--"]).args(words);
        Seen::of(&command.output().expect("it runs"))
    }
}

/// Whether there is a program of this name where jobs look for one.
fn is_there(program: &str) -> bool {
    SEARCH.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// The programs among these that a line names.
fn missing(line: &str) -> Option<&'static str> {
    let optional = [
        "sqlite3",
        "zip",
        "unzip",
        "node",
        "ffmpeg",
        "git",
        "ssh-keygen",
        "openssl",
        "jq",
        "bc",
        "python3",
        "perl",
        "script",
        "cc",
        "make",
        "xz",
        "bzip2",
    ];
    let words = || line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    optional.into_iter().find(|name| words().any(|word| word == *name) && !is_there(name))
}

/// Runs every command of `all` both ways as this user; every difference is told at once.
fn compare(uid: u32, all: &[Vec<&str>]) {
    let user = User::of(uid);
    let told: Vec<String> = all.iter().filter_map(|words| difference(&user, words)).collect();
    assert!(told.is_empty(), "{} of {} differ:\n{}", told.len(), all.len(), told.join("\n"));
}

fn difference(user: &User, words: &[&str]) -> Option<String> {
    let (shell, job) = (user.by_a_shell(words), user.by_a_job(words));
    (shell != job).then(|| format!("uid {}: {words:?}\n   shell {shell:?}\n   job   {job:?}", user.uid))
}

/// Compares these lines as root and as nobody. What needs a program that is not there is skipped, and counted.
fn compare_lines(lines: &[&'static str]) {
    if !Path::new("/proc/self").metadata().is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        skip!("only root can become another user");
    }
    let (there, absent): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| missing(line).is_none());
    let all: Vec<Vec<&str>> = there.iter().map(|line| vec!["sh", "-c", line]).collect();
    compare(0, &all);
    compare(NOBODY, &all);
    if let Some(line) = absent.first() {
        skip!(
            "{} of {} lines, as there is no {}",
            absent.len(),
            lines.len(),
            missing(line).unwrap_or_default()
        );
    }
}

#[test]
fn a_shell_in_a_job_does_what_a_shell_does() {
    compare_lines(SHELL);
}

#[test]
fn a_program_in_a_job_is_given_what_a_shell_gives() {
    compare_lines(PROCESS);
}

/// A shell passes on the descriptors and signals that it was given; a job's program has three descriptors - `ls` opens
/// the folder - and no signal is blocked or ignored.
#[test]
fn a_program_in_a_job_inherits_nothing() {
    let user = User::of(0);
    let seen = user.by_a_job(&["grep", "-cE", "^Sig(Blk|Ign):\\s0{16}$", "/proc/self/status"]);
    assert_eq!(seen, Seen { code: 0, stdout: "2\\n".to_owned() });
    let seen = user.by_a_job(&["ls", "/proc/self/fd"]);
    assert_eq!(seen, Seen { code: 0, stdout: "0\\n1\\n2\\n3\\n".to_owned() });
}

#[test]
fn tools_in_a_job_do_what_they_do_in_a_shell() {
    compare_lines(TOOLS);
}

#[test]
fn programs_without_a_shell_end_with_its_codes() {
    if !Path::new("/proc/self").metadata().is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        skip!("only root can become another user");
    }
    let all: Vec<Vec<&str>> = WORDS.iter().map(|words| words.to_vec()).collect();
    compare(0, &all);
    compare(NOBODY, &all);
}
