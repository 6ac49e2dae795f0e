//! Jobs with files from the command line to a worker and back: pipes, producers that die, disks that are full, many at
//! once. What stands under the name that was given is whole, or what was there before.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bulkhead_tests::daemon::{Daemon, binary};
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::skip;

const WIDTH: usize = 64;
const HEIGHT: usize = 48;
const FRAMES: usize = 30;
const HEADER: &str = "YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n";
const FRAME: &str = "FRAME\n";
const FRAME_BYTES: usize = FRAME.len() + WIDTH * HEIGHT * 3 / 2;

/// A clip in which no two frames are alike.
fn clip() -> Vec<u8> {
    let mut bytes = HEADER.as_bytes().to_vec();
    for frame in 0..FRAMES {
        bytes.extend_from_slice(FRAME.as_bytes());
        bytes.extend((0..WIDTH * HEIGHT * 3 / 2).map(|at| (at * 7 + frame * 31 + at / WIDTH) as u8));
    }
    bytes
}

/// A daemon, and a clip in its folder.
struct Desk {
    daemon: Daemon,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { daemon: Daemon::start() };
        std::fs::write(desk.path("in.y4m"), clip()).expect("a clip");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.folder().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `bulkhead run transform` with these words, in the folder.
    fn transform(&self, words: &str) -> Command {
        let mut command = self.daemon.command(&["run", "transform"]);
        command.args(words.split(' ')).current_dir(self.daemon.folder());
        command
    }

    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.daemon.folder()).expect("the folder is there");
        let names = all.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("y4m") || name.contains(".bulkhead-")).collect()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whose power fails right after the command finds the file, and whole: its bytes, then its name.
#[test]
fn bytes_and_name_are_on_the_disk_before_the_command_ends() {
    let desk = Desk::new();
    for _ in ["a new file", "one that replaces another"] {
        let log = desk.path("strace");
        let run = desk.transform("in.y4m -o out.y4m --gray");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-e", "trace=fsync,linkat,rename,renameat,renameat2", "-o"]).arg(&log);
        strace.arg(run.get_program()).args(run.get_args()).current_dir(desk.daemon.folder());
        strace.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = strace.output().expect("strace is installed by the set-up");
        assert!(output.status.success(), "{output:?}");
        let log = std::fs::read_to_string(log).expect("it was traced");
        let calls: Vec<&str> = log.lines().filter(|line| !line.contains("exited")).collect();
        let named = calls.iter().rposition(|call| !call.contains("fsync(")).expect("it was given a name");
        let folder = format!("<{}>)", desk.daemon.folder().display());
        assert!(calls[..named].iter().any(|call| call.contains("fsync(")), "{log}");
        assert!(
            calls[named + 1..].iter().any(|call| call.contains("fsync(") && call.contains(&folder)),
            "{log}"
        );
    }
}

/// Turned by 180 degrees twice it is what it was: every byte went through, in its place.
#[test]
fn a_clip_goes_through_files_and_comes_back() {
    let desk = Desk::new();
    let output = desk.transform("in.y4m -o half.y4m --rotate 180").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((output.stdout.len(), stderr(&output).as_str()), (0, ""));
    assert!(desk.read("half.y4m") != clip() && desk.read("half.y4m").len() == clip().len());
    let output = desk.transform("half.y4m -o half.y4m --rotate 180").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(desk.read("half.y4m") == clip(), "it was changed in its own place");
    let output = desk.transform("in.y4m -o crop.y4m --gray --crop 32x24+8+4").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(desk.read("crop.y4m").starts_with(b"YUV4MPEG2 W32 H24 "));
}

#[test]
fn a_slow_pipe_gives_what_a_file_gives() {
    let desk = Desk::new();
    let output = desk.transform("in.y4m -o file.y4m --scale 32x24 --blur 1").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let producer = std::thread::spawn(move || {
        for piece in clip().chunks(FRAME_BYTES * 4 + 1) {
            writer.write_all(piece).expect("somebody reads");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let piped = desk.transform("- -o - --scale 32x24 --blur 1").stdin(reader).output().expect("it runs");
    producer.join().expect("the producer ends");
    assert!(piped.status.success(), "{}", stderr(&piped));
    assert!(piped.stdout == desk.read("file.y4m"), "{} bytes", piped.stdout.len());
}

/// What a producer leaves that dies in the middle of a frame is told by the byte, and replaces nothing.
#[test]
fn a_producer_that_dies_replaces_nothing() {
    let desk = Desk::new();
    std::fs::write(desk.path("out.y4m"), "older").expect("a file");
    let cut = HEADER.len() + FRAME_BYTES * 3 + 100;
    let mut producer = Command::new("head");
    producer.args(["-c", &cut.to_string()]).arg(desk.path("in.y4m")).stdout(Stdio::piped());
    let mut producer = producer.spawn().expect("it runs");
    let pipe = producer.stdout.take().expect("it is piped");
    let output = desk.transform("- -o out.y4m --gray").stdin(pipe).output().expect("it runs");
    producer.wait().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(&cut.to_string()), "byte {cut}: {}", stderr(&output));
    assert_eq!(desk.read("out.y4m"), b"older");
    for nothing in ["/dev/null", "-"] {
        let output = desk.transform(&format!("{nothing} -o out.y4m --gray")).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{nothing}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("empty") || stderr(&output).contains("byte 0"),
            "{}",
            stderr(&output)
        );
    }
    assert_eq!(desk.read("out.y4m"), b"older");
}

/// The output's disk is a tmpfs of 64 KiB, and the clip is larger.
#[test]
fn a_full_disk_is_named_and_the_older_file_stays() {
    const SCRIPT: &str = "mount -t tmpfs -o size=64k none \"$1\" && echo older > \"$1\"/out.y4m || exit 77; \
                          \"$2\" --socket \"$3\" run transform \"$4\" -o \"$1\"/out.y4m --gray; code=$?; \
                          ls -A \"$1\"; cat \"$1\"/out.y4m; exit $code";
    let desk = Desk::new();
    std::fs::create_dir(desk.path("disk")).expect("a folder");
    let mut command = Command::new("unshare");
    command.args(["-r", "-m", "sh", "-c", SCRIPT, "sh"]).arg(desk.path("disk")).arg(binary("bulkhead"));
    let output =
        command.arg(desk.daemon.socket()).arg(desk.path("in.y4m")).output().expect("unshare is there");
    if output.status.code() == Some(77) || stderr(&output).contains("unshare") {
        skip!("no tmpfs can be mounted here: {}", stderr(&output));
    }
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no space left") && stderr(&output).contains("\"out\""),
        "{}",
        stderr(&output)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out.y4m\nolder\n");
}

#[test]
fn ten_at_once_are_ten_right_ones() {
    let desk = Desk::new();
    let output = desk.transform("in.y4m -o one.y4m --rotate 90 --mono").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let expected = desk.read("one.y4m");
    let children: Vec<_> = (0..10)
        .map(|number| {
            let mut command = desk.transform(&format!("in.y4m -o many{number}.y4m --rotate 90 --mono"));
            command.stderr(Stdio::piped()).spawn().expect("it runs")
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{number}: {}", stderr(&output));
        assert!(desk.read(&format!("many{number}.y4m")) == expected, "{number}");
    }
    assert_eq!(desk.names().len(), 12, "{:?}", desk.names());
}

#[test]
fn a_clip_that_was_submitted_is_fetched_later() {
    let desk = Desk::new();
    let mut submit = desk.daemon.command(&["submit", "transform", "in.y4m", "--rotate", "180"]);
    let output = submit.current_dir(desk.daemon.folder()).output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let job = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    desk.daemon.ok(&["wait", &job]);
    // Its clip is of no more use.
    std::fs::remove_file(desk.path("in.y4m")).expect("it is there");
    let path = desk.path("out.y4m");
    desk.daemon.ok(&["result", &job, "-o", path.to_str().expect("a path in text")]);
    let output = desk.transform("out.y4m -o back.y4m --rotate 180").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(desk.read("back.y4m") == clip());
}

/// The command is killed while its clip waits behind a long job: nothing is left, and the daemon goes on.
#[test]
fn a_killed_command_leaves_nothing() {
    let desk = Desk::new();
    let long = desk.daemon.ok(&["submit", "sleep", "--count", "2", "600000"]);
    let mut command = desk.transform("in.y4m -o out.y4m --gray --progress");
    let mut child = command.spawn().expect("it runs");
    bulkhead_tests::daemon::eventually("the clip waits", || {
        desk.daemon.ok(&["jobs", "--json"]).contains("transform").then_some(())
    });
    child.kill().expect("it runs");
    assert_eq!(child.wait().expect("it ends").signal(), Some(9));
    assert_eq!(desk.names(), ["in.y4m"]);
    let jobs: Vec<&str> = long.split_whitespace().collect();
    desk.daemon.ok(&[&["cancel"][..], &jobs].concat());
    let output = desk.transform("in.y4m -o out.y4m --gray").output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A program finds its files by name, writes others, and reads as much as comes on standard input.
#[test]
fn a_program_has_its_files() {
    let desk = Desk::new();
    std::fs::write(desk.path("words"), "one two").expect("a file");
    let script = "cat {words} - | tr a-z A-Z > $shout; echo $1; wc -c < \"$words\"";
    let mut run = desk.daemon.command(&["run", "exec", "--stdin", "--in", "words=words"]);
    run.args(["--out", "shout=shout.y4m", "-o", "said.y4m", "--", "sh", "-c", script, "sh", "{print}"]);
    let long = vec![b'x'; 1 << 20];
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let producer = std::thread::spawn(move || writer.write_all(&long));
    let output = run.current_dir(desk.daemon.folder()).stdin(reader).output().expect("it runs");
    producer.join().expect("it ends").expect("somebody reads");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(desk.read("said.y4m"), b"{print}\n7\n");
    let shout = desk.read("shout.y4m");
    assert!(shout.starts_with(b"ONE TWOXXXX") && shout.len() == 7 + (1 << 20), "{} bytes", shout.len());
    let mut fails = desk.daemon.command(&["run", "exec", "--out", "shout=shout.y4m", "--"]);
    fails.args(["sh", "-c", "echo half > $shout; exit 3"]).current_dir(desk.daemon.folder());
    assert_eq!(fails.output().expect("it runs").status.code(), Some(3));
    assert!(desk.read("shout.y4m") == shout, "a program that fails replaces nothing");
}

/// Shell, awk and perl have braces of their own around a name that a file has too.
#[test]
fn the_braces_of_a_language_are_its_own() {
    let desk = Desk::new();
    std::fs::write(desk.path("words"), "one two\n").expect("a file");
    for words in [
        &["sh", "-c", "a=${a}; cat \"${a}\" && test {{a}} = '{''a}'"][..],
        &["awk", "BEGIN{a}{print}", "{a}"],
        &["perl", "-e", "open(F, $ENV{a}); print <F>"],
        &["dd", "if={a}", "status=none"],
    ] {
        if Command::new(words[0]).arg("--version").stdin(Stdio::null()).output().is_err() {
            skip!("there is no {}", words[0]);
        }
        let mut run = desk.daemon.command(&["run", "exec", "--in", "a=words", "--"]);
        let output = run.args(words).current_dir(desk.daemon.folder()).output().expect("it runs");
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "one two\n", "{words:?}");
    }
}

#[test]
fn json_tells_how_long_the_file_is_that_the_job_wrote() {
    let desk = Desk::new();
    let output = desk.transform("in.y4m -o out.y4m --gray --json").output().expect("it runs");
    let end: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an object");
    assert_eq!(end["output_bytes"].as_u64(), Some(desk.read("out.y4m").len() as u64), "{end}");
    assert!(end.get("result").is_none(), "it is in the file: {end}");
}

/// What came with files cannot be retried, so nobody is told to.
#[test]
fn a_quarantined_job_with_files_is_to_be_submitted_anew() {
    let desk = Desk::new();
    let mut run = desk.daemon.command(&["run", "chaos", "segv", "--crashes-max", "1", "--in", "a=in.y4m"]);
    let output = run.current_dir(desk.daemon.folder()).output().expect("it runs");
    let said = stderr(&output);
    assert!(said.contains("quarantined: submit it again") && !said.contains("bulkhead retry"), "{said}");
    let shown = desk.daemon.ok(&["job", "1"]);
    assert!(shown.contains("next      submit it again") && !shown.contains("bulkhead retry"), "{shown}");
    let plain = stderr(&desk.daemon.cli(&["run", "chaos", "segv", "--crashes-max", "1"]));
    assert!(plain.contains("quarantined: `bulkhead retry 2` runs it again"), "{plain}");
}

#[test]
fn a_link_to_nothing_is_not_replaced() {
    let desk = Desk::new();
    std::os::unix::fs::symlink("nothing.y4m", desk.path("link.y4m")).expect("a link");
    for words in ["run transform in.y4m -o link.y4m --gray", "run noop x -o link.y4m"] {
        let mut run = desk.daemon.command(&words.split(' ').collect::<Vec<_>>());
        let output = run.current_dir(desk.daemon.folder()).output().expect("it runs");
        let said = stderr(&output);
        assert!(!output.status.success(), "{words}");
        let expected = "cannot write to link.y4m: it is a link to nothing.y4m, which is not there: make that file, or \
                        remove the link";
        assert!(said.contains(expected), "{said}");
    }
    let target = std::fs::read_link(desk.path("link.y4m")).expect("it is a link still");
    assert_eq!(target, PathBuf::from("nothing.y4m"));
    assert!(!desk.path("nothing.y4m").exists());
}

/// Whoever may not read or write is named, with the path as it was given.
#[test]
fn a_file_that_is_forbidden_is_told_with_its_user() {
    let desk = Desk::new();
    std::fs::set_permissions(desk.daemon.folder(), PermissionsExt::from_mode(0o755)).expect("permissions");
    std::fs::set_permissions(desk.path("in.y4m"), PermissionsExt::from_mode(0o600)).expect("permissions");
    let copy = desk.path("bulkhead");
    copy_program(&binary("bulkhead"), &copy);
    for (words, expected) in [
        ("run noop --in a=in.y4m", "cannot read in.y4m: permission denied for user 65534"),
        ("run transform in.y4m -o - --gray", "cannot read in.y4m: permission denied for user 65534"),
        (
            "run noop x -o out.y4m",
            "cannot write to out.y4m: permission denied for user 65534: the folder . must take a new file",
        ),
        ("run factorial --file in.y4m", "cannot read numbers from in.y4m: permission denied for user 65534"),
    ] {
        let mut command = Command::new(&copy);
        command.arg("--socket").arg(desk.daemon.socket()).args(words.split(' ')).uid(65534).gid(65534);
        let output = match command.current_dir(desk.daemon.folder()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                skip!("only root can become another user");
            }
            Err(error) => panic!("{error}"),
        };
        assert!(
            !output.status.success() && stderr(&output).contains(expected),
            "{words}: {}",
            stderr(&output)
        );
    }
}
