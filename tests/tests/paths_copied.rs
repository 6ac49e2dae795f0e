//! Files of programs that cannot reach them under the client's path: the worker copies them in and out.
//!
//! A client in another mount namespace, root with the daemon of another user, and pipes. The programs are real.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_proto::worker::copies::FOLDER_PREFIX;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, send_signal};
use bulkhead_tests::skip;

/// The user `nobody`.
const NOBODY: u32 = 65534;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| text(&output.stdout).trim() == "0")
}

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$1\" >/dev/null", "sh", program]).status();
    found.is_ok_and(|it| it.success())
}

/// Whether this machine lets root mount a tmpfs in a namespace of its own.
fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    is_root() && tried.is_ok_and(|output| output.status.success())
}

/// A daemon of one user, and the folder `disk`, which each command finds as it is in a mount namespace of its own.
struct Bench {
    folder: tempfile::TempDir,
    uid: u32,
    daemon: Child,
    stdin: Option<ChildStdin>,
}

impl Bench {
    fn of(uid: u32) -> Self {
        Self::with(uid, "")
    }

    fn with(uid: u32, config: &str) -> Self {
        let folder = new_folder();
        for program in ["bulkhead", "bulkhead-supervisor", "bulkhead-worker"] {
            let copied = Command::new("cp").arg(binary(program)).arg(folder.path()).status();
            assert!(copied.expect("cp runs").success(), "{program} is copied");
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its permissions");
        for name in ["disk", "home", "source"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            chown(folder.path().join(name), Some(uid), Some(uid)).expect("it is root's to give");
        }
        let home = folder.path().join("home");
        fs::write(home.join("config"), config).expect("a file");
        let mut daemon = Command::new(folder.path().join("bulkhead-supervisor"));
        daemon.uid(uid).gid(uid).env("HOME", &home).args(["--private", "--workers", "1", "--config"]);
        daemon
            .arg(home.join("config"))
            .arg("--socket")
            .arg(home.join("s"))
            .arg("--state")
            .arg(home.join("state"));
        daemon.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut daemon = daemon.spawn().expect("it runs");
        let mut ready = [0; 6];
        daemon.stdout.take().expect("a pipe").read_exact(&mut ready).expect("it gets ready");
        let stdin = daemon.stdin.take();
        Self { folder, uid, daemon, stdin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the user in `source`, which each command finds on its own `disk`.
    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path("source").join(name);
        fs::write(&path, content).expect("a file");
        chown(&path, Some(self.uid), Some(self.uid)).expect("it is root's to give");
    }

    /// Runs `bulkhead run exec` where `disk` is a tmpfs with the files of `source`, then takes those of `disk` to
    /// `source`. `mount` are options of the tmpfs.
    fn run_with(&self, mount: &str, words: &[&str]) -> Output {
        let script = "mount -t tmpfs -o \"$MOUNT\" none \"$DISK\" && cp -a \"$SOURCE\"/. \"$DISK\" || exit 77; cd \"$DISK\"; \
                      setpriv --reuid \"$UID_OF\" --regid \"$UID_OF\" --clear-groups \"$BULKHEAD\" --socket \"$S\" run exec \"$@\"; \
                      code=$?; rm -rf \"$SOURCE\"/*; cp -a \"$DISK\"/. \"$SOURCE\"; exit $code";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).args(words).stdin(Stdio::null());
        let options = format!("mode=755,uid={0},gid={0},{mount}", self.uid);
        command.env("MOUNT", options).env("DISK", self.path("disk")).env("SOURCE", self.path("source"));
        command.env("UID_OF", self.uid.to_string()).env("BULKHEAD", self.path("bulkhead"));
        command.env("S", self.path("home/s")).output().expect("unshare is there")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run_with("size=100m", words);
        assert!(output.status.success(), "uid {} {words:?}: {}", self.uid, text(&output.stderr));
        text(&output.stdout)
    }

    /// A command of root for this user's daemon, with the file `a`.
    fn run_as_root(&self, a: &Path, words: &[&str]) -> Command {
        let mut run = Command::new(binary("bulkhead"));
        run.arg("--socket").arg(self.path("home/s")).args(["run", "exec", "--in"]);
        run.arg(format!("a={}", a.display())).args(words).stdin(Stdio::null());
        run
    }

    /// The names in `source`, and how many folders of copies there are.
    fn left(&self) -> (Vec<String>, usize) {
        (names(&self.path("source")), copies(&self.path("home/state")))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.daemon.wait();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        all.map(|one| text(one.expect("an entry").file_name().as_encoded_bytes())).collect();
    names.sort();
    names
}

/// How many folders of copies there are in a state folder.
fn copies(state: &Path) -> usize {
    names(state).iter().filter(|name| name.starts_with(FOLDER_PREFIX)).count()
}

fn as_both(test: impl Fn(&Bench)) {
    test(&Bench::of(0));
    test(&Bench::of(NOBODY));
}

#[test]
fn real_tools_read_copies_and_write_beside_them() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let sql = "create table t(x); insert into t values(7);";
    let tools: [(&str, &str, &[&str], &str); 9] = [
        ("cat", "o.txt", &["sh", "-c", "cat \"$a\" > \"$b\"; printf %s \"${a##*/}\""], "a.txt"),
        ("sqlite3", "o.db", &["sqlite3", "{b}", sql], ""),
        ("zip", "o.zip", &["sh", "-c", "cp \"$a\" in.txt; zip -q \"$b\" in.txt"], ""),
        (
            "ffmpeg",
            "o.mp4",
            &["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "{b}"],
            "",
        ),
        ("sed", "o.txt", &["sh", "-c", "cp \"$a\" \"$b\"; sed -i s/content/edited/ \"$b\""], ""),
        (
            "node",
            "o.json",
            &["node", "-e", "require('child_process').execFileSync('cp', [process.env.a, process.env.b])"],
            "",
        ),
        (
            "python3",
            "o.py",
            &[
                "python3",
                "-c",
                "import os, subprocess; subprocess.run(['cp', os.environ['a'], os.environ['b']], close_fds=True, check=True)",
            ],
            "",
        ),
        ("realpath", "o.x", &["sh", "-c", "realpath -e \"$a\" > \"$b\""], ""),
        (
            "samtools",
            "o.bam",
            &["sh", "-c", "printf '@HD\\tVN:1.6\\n' > x.sam; samtools view -b -o \"$b\" x.sam"],
            "",
        ),
    ];
    let missing: Vec<&str> = tools.iter().map(|(tool, ..)| *tool).filter(|tool| !has(tool)).collect();
    as_both(|bench| {
        for (_, name, words, told) in tools.iter().filter(|(tool, ..)| !missing.contains(tool)) {
            bench.write("a.txt", b"content\n");
            bench.write(name, b"older");
            let out = format!("b={name}");
            let said = bench.ok(&[&["--in", "a=a.txt", "--out", &out, "--"], *words].concat());
            assert_eq!(said, *told, "{words:?}");
            let made = fs::read(bench.path("source").join(name)).expect("it is there");
            assert!(!made.is_empty() && made != b"older", "{name}");
            assert_eq!(bench.left(), (vec!["a.txt".to_owned(), (*name).to_owned()], 0));
            fs::remove_file(bench.path("source").join(name)).expect("it is there");
        }
    });
    if !missing.is_empty() {
        skip!("not installed: {}", missing.join(", "));
    }
}

/// What a tool reads by the extension, with a journal beside it, after what another made.
#[test]
fn what_one_tool_made_the_next_reads() {
    if !can_mount() || !has("sqlite3") || !has("ffmpeg") {
        skip!("no tmpfs can be mounted here, or there is no sqlite3 or ffmpeg");
    }
    as_both(|bench| {
        bench.ok(&[
            "--out",
            "db=x.db",
            "--",
            "sqlite3",
            "{db}",
            "create table t(x); insert into t values(7);",
        ]);
        let read = "pragma journal_mode=persist; select x from t;";
        assert_eq!(bench.ok(&["--in", "db=x.db", "--", "sqlite3", "{db}", read]), "persist\n7\n");
        let make = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=d=1:s=64x48", "{b}"];
        bench.ok(&[&["--out", "b=x.mp4", "--"], &make[..]].concat());
        bench.ok(&["--in", "a=x.mp4", "--out", "b=x.mkv", "--", "ffmpeg", "-v", "error", "-i", "{a}", "{b}"]);
        assert_eq!(bench.left(), (["x.db", "x.mkv", "x.mp4"].map(str::to_owned).to_vec(), 0));
    });
}

#[test]
fn a_change_to_a_copy_is_not_lost_without_a_word() {
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = Bench::of(NOBODY);
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
    let bench = Bench::of(NOBODY);
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
    let bench = Bench::of(NOBODY);
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
    let bench = Bench::with(NOBODY, "copies_bytes_max = 1000000\n");
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
    let own = new_folder();
    let sparse = own.path().join("sparse");
    fs::File::create(&sparse).expect("a file").set_len(1 << 29).expect("it takes no room");
    fs::set_permissions(&sparse, Permissions::from_mode(0o600)).expect("it is ours");
    let script = "stat -c %s \"$a\"; test $(stat -c %b \"$a\") -lt 1000";
    let output = bench.run_as_root(&sparse, &["--", "sh", "-c", script]).output().expect("it runs");
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("536870912\n", ""));
    assert_eq!(bench.left().1, 0);
}

/// A file has the permissions that it gets in the shell of its user, whatever the umask of the daemon is.
#[test]
fn files_that_programs_make_have_the_umask_of_the_command() {
    let daemon = Daemon::start();
    let path = |name: &str| daemon.folder().join(name);
    for (umask, mode) in [("077", 0o600), ("027", 0o640), ("002", 0o664)] {
        let run = |folder: &Path, script: &str| {
            let out = format!("b={}", folder.join(format!("o{umask}")).display());
            let mut command = Command::new("sh");
            command.args(["-c", "umask $0 && exec \"$@\"", umask]).arg(binary("bulkhead"));
            command
                .arg("--socket")
                .arg(daemon.socket())
                .args(["run", "exec", "--out", &out, "--", "sh", "-c", script]);
            let output = command.stdin(Stdio::null()).output().expect("it runs");
            assert!(output.status.success(), "{}", text(&output.stderr));
        };
        run(daemon.folder(), "echo > \"$b\"");
        let made = |name: &str| path(name).metadata().expect("it is there").mode() & 0o7777;
        assert_eq!(made(&format!("o{umask}")), mode, "umask {umask}");
        fs::remove_file(path(&format!("o{umask}"))).expect("it is there");
        run(daemon.folder(), "echo > \"$b\"; chmod +x \"$b\"");
        assert_eq!(made(&format!("o{umask}")) & 0o100, 0o100, "a program stays one");
    }
    if !can_mount() {
        skip!("no tmpfs can be mounted here");
    }
    let bench = Bench::of(NOBODY);
    bench.ok(&["--out", "b=o", "--", "sh", "-c", "echo > \"$b\"; chmod 751 \"$b\"; touch -d @7 \"$b\""]);
    let made = bench.path("source/o").metadata().expect("it is there");
    assert_eq!((made.mode() & 0o7777, made.mtime()), (0o751, 7), "as the program left it");
}

/// Root may use the daemon of another user, whose programs may not enter root's folders.
#[test]
fn root_gives_files_to_a_daemon_of_another_user() {
    if !is_root() {
        skip!("only root can become another user");
    }
    let bench = Bench::of(NOBODY);
    let own = new_folder();
    fs::set_permissions(own.path(), Permissions::from_mode(0o700)).expect("it is ours");
    let path = |name: &str| own.path().join(name);
    fs::write(path("in.txt"), "content").expect("a file");
    fs::set_permissions(path("in.txt"), Permissions::from_mode(0o600)).expect("it is ours");
    fs::write(path("out.txt"), "older").expect("a file");
    let out = format!("b={}", path("out.txt").display());
    let run = |script: &str| {
        let mut run = bench.run_as_root(&path("in.txt"), &["--out", &out, "--", "sh", "-c", script]);
        run.output().expect("it runs")
    };
    let output = run("cat \"$a\" > \"$b\"; id -u; echo \"${a##*/} ${b##*/}\"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), format!("{NOBODY}\nin.txt out.txt\n"));
    assert_eq!(fs::read_to_string(path("out.txt")).expect("it is there"), "content");
    assert_eq!(names(own.path()), ["in.txt", "out.txt"]);
    for script in ["true", "ln -s /etc/passwd \"$b\"", "echo x >> \"$a\"; echo y > \"$b\""] {
        let output = run(script);
        assert_eq!(output.status.code(), Some(1), "{script}: {}", text(&output.stderr));
        assert_eq!(fs::read_to_string(path("out.txt")).expect("it is there"), "content", "{script}");
        assert_eq!(fs::read_to_string(path("in.txt")).expect("it is there"), "content", "{script}");
    }
    assert_eq!((names(own.path()), bench.left().1), (vec!["in.txt".to_owned(), "out.txt".to_owned()], 0));
}

/// A pipe has no path: the program finds a file of the name that the job has for it, or of the FIFO.
#[test]
fn pipes_are_files_for_a_program() {
    let daemon = Daemon::start();
    let fifo = daemon.folder().join("fifo.txt");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there").success());
    let script = "\
        run() { \"$B\" --socket \"$S\" run exec \"$@\"; }
        printf one | run --in a=/dev/stdin -- sh -c 'cat \"$a\"; realpath -e \"$a\" | sed s,.*/,:,'
        printf two | run --in a=- -- sh -c 'cat \"$a\"; realpath -e \"$a\" | sed s,.*/,:,'
        run --in a=<(printf three) -- sh -c 'cat \"$a\"; realpath -e \"$a\" | sed s,.*/,:,'
        printf four > \"$F\" & run --in a=\"$F\" -- sh -c 'cat \"$a\"; realpath -e \"$a\" | sed s,.*/,:,'; wait
        printf five | run --in a=- --out b=- -o /dev/null -- sh -c 'test ! -e \"$b\" && cp \"$a\" \"$b\"'; echo
        printf six | run --stdin -- cat; echo
        printf seven | run --in a=- -- sh -c 'echo x >> \"$a\"; cat \"$a\"'";
    let mut command = Command::new("bash");
    command.args(["-e", "-c", script]).env("B", binary("bulkhead")).env("S", daemon.socket()).env("F", &fifo);
    let output = command.output().expect("bash is there");
    let said = "one:a\ntwo:a\nthree:a\nfour:fifo.txt\nfive\nsix\nsevenx\n";
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), (said, ""));
    assert_eq!(copies(&daemon.folder().join("state")), 0);
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
    let bench = Bench::of(NOBODY);
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
    let bench = Bench::of(NOBODY);
    let own = new_folder();
    let (input, bytes) = (own.path().join("in"), 300_000_000);
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
