//! Files of programs that cannot reach them under the client's path: the worker copies them in and out.
//!
//! A client in another mount namespace, root with the daemon of another user, and pipes. The programs are real.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_proto::worker::copies::FOLDER_PREFIX;
use bulkhead_tests::daemon::{Daemon, binary, new_folder};
use bulkhead_tests::other_disk::{NOBODY, OtherDisk, as_both, can_mount, copies, has, is_root, names, text};
use bulkhead_tests::skip;

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
    let bench = OtherDisk::of(NOBODY);
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
    let bench = OtherDisk::of(NOBODY);
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

/// A command without a daemon copies where it copies its pipes to: a disk, unlike the folder of its socket.
#[test]
fn a_command_without_a_daemon_copies_to_the_folder_of_temporary_files() {
    let folder = new_folder();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).expect("a folder");
    let mut command = Command::new("sh");
    command.args(["-c", "printf x | \"$0\" run exec --in a=- -- sh -c 'cat \"$a\"; echo \"$a\"'"]);
    command.arg(binary("bulkhead")).env("TMPDIR", &temporary).env("HOME", folder.path());
    command.env("XDG_RUNTIME_DIR", folder.path()).env_remove("BULKHEAD_SOCKET");
    let output = command.output().expect("it runs");
    let path = temporary.join(format!("{FOLDER_PREFIX}0/a/a"));
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        (format!("x{}\n", path.display()), String::new())
    );
    assert_eq!(names(&temporary), [""; 0]);
}

/// In a sticky folder of root, as /tmp, a user's file is replaced and nothing stays beside it.
#[test]
fn an_output_appears_in_a_sticky_folder() {
    if !is_root() {
        skip!("only root can become another user");
    }
    let bench = OtherDisk::of(NOBODY);
    let sticky = bench.path("sticky");
    fs::create_dir(&sticky).expect("a folder");
    fs::set_permissions(&sticky, Permissions::from_mode(0o1777)).expect("it is ours");
    for name in ["old", "new"] {
        let path = sticky.join(name);
        if name == "old" {
            fs::write(&path, "older").expect("a file");
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("it is root's to give");
        }
        let mut run = Command::new(bench.path("bulkhead"));
        run.uid(NOBODY).gid(NOBODY).arg("--socket").arg(bench.path("home/s")).args(["run", "exec", "--out"]);
        run.arg(format!("b={}", path.display())).args(["--", "sh", "-c", "echo x > \"$b\""]);
        let output = run.stdin(Stdio::null()).output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "x\n");
    }
    assert_eq!(names(&sticky), ["new", "old"]);
}
