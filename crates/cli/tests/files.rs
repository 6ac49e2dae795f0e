//! Jobs with files, as people run them, against a daemon made by hand: what it is given, what stands under the names
//! that were given when the command is over, whatever happened, and what is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{self, JobEnded, Outcome};
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::OutputMode;
use fake::{Fake, Peer, done};

/// A folder to work in, with a clip.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        std::fs::write(desk.path("in.y4m"), "clip").unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn bulkhead(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.args(line.split(' ')).current_dir(self.0.path()).env("TMPDIR", self.0.path());
        command.env("BULKHEAD_SOCKET", "/nowhere/s").env_remove("BULKHEAD_LOG").stdin(Stdio::null());
        command
    }

    /// Runs the command against a script, and waits for both.
    fn against(&self, script: impl FnOnce(Peer) + Send + 'static, line: &str) -> Output {
        self.fed(script, line, Stdio::null())
    }

    fn fed(&self, script: impl FnOnce(Peer) + Send + 'static, line: &str, stdin: Stdio) -> Output {
        let fake = Fake::serve(script);
        let mut command = self.bulkhead(line);
        let output = command.env("BULKHEAD_SOCKET", fake.path()).stdin(stdin).output().unwrap();
        fake.finish();
        output
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A pipe that brings this.
fn pipe(bytes: &[u8]) -> Stdio {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(bytes).unwrap();
    reader.into()
}

/// Takes a submit and its files; those to be written get the text of those to be read in brackets, and their name.
fn work(peer: &mut Peer) -> (Tag, Submit) {
    let (tag, submit) = peer.submit().unwrap();
    let (mut read, mut to_write) = (String::new(), Vec::new());
    assert_eq!(peer.descriptors.len(), submit.files.len());
    for (file, one) in peer.descriptors.drain(..).zip(&submit.files) {
        let mut file = File::from(file);
        match one.way {
            Way::In => drop(file.read_to_string(&mut read).unwrap()),
            Way::Out => to_write.push((file, one.name.clone())),
            Way::Folder => {
                let path = format!("/proc/self/fd/{}/{}", std::os::fd::AsRawFd::as_raw_fd(&file), one.name);
                to_write.push((File::create(path).unwrap(), one.name.clone()));
            }
        }
    }
    for (mut file, name) in to_write {
        file.write_all(format!("[{read}] {name}").as_bytes()).unwrap();
    }
    (tag, submit)
}

/// Does what is asked.
fn honest(mut peer: Peer) {
    let (tag, _) = work(&mut peer);
    peer.accept(tag, 1, 1);
    peer.reply(tag, Reply::Ended(vec![done(1, b"")]));
}

/// Writes, and fails then.
fn failing(mut peer: Peer) {
    let (tag, _) = work(&mut peer);
    peer.accept(tag, 1, 1);
    let outcome = Outcome::Failed { message: "no such clip".to_owned(), code: None };
    let output = outcome::JobOutput::None;
    peer.reply(
        tag,
        Reply::Ended(vec![JobEnded { job: JobId(1), outcome, output, attempts: 1, survivors: Vec::new() }]),
    );
}

const TRANSFORM: &str = "run transform in.y4m -o out.y4m --rotate 90 --gray --scale 8x4";

#[test]
fn a_transform_is_its_chain_and_two_files() {
    let desk = Desk::new();
    let script = |mut peer: Peer| {
        let (tag, submit) = work(&mut peer);
        assert_eq!((submit.kind.as_str(), submit.policy.output), ("transform", OutputMode::File));
        assert_eq!(submit.inputs[0].as_bytes(), b"rotate=90,gray,scale=8x4:lanczos");
        let mut files = submit.files;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(files, [FileUse::new("in", Way::In), FileUse::new("out", Way::Out)]);
        peer.accept(tag, 1, 1);
        peer.reply(tag, Reply::Ended(vec![done(1, b"")]));
    };
    let output = desk.against(script, TRANSFORM);
    assert_eq!((code(&output), text(&output.stdout), text(&output.stderr)), (0, "", ""));
    assert_eq!(desk.text("out.y4m"), "[clip] out");
    assert_eq!(desk.names(), ["in.y4m", "out.y4m"]);
}

#[test]
fn an_older_file_is_replaced_only_by_what_is_done() {
    let desk = Desk::new();
    std::fs::write(desk.path("out.y4m"), "older").unwrap();
    std::fs::set_permissions(desk.path("out.y4m"), PermissionsExt::from_mode(0o640)).unwrap();
    let output = desk.against(failing, TRANSFORM);
    assert_eq!((code(&output), desk.text("out.y4m").as_str()), (1, "older"));
    assert!(text(&output.stderr).contains("no such clip"), "{}", text(&output.stderr));
    let dying = |mut peer: Peer| {
        let (tag, _) = work(&mut peer);
        peer.accept(tag, 1, 1);
    };
    let output = desk.against(dying, TRANSFORM);
    assert_eq!((code(&output), desk.text("out.y4m").as_str()), (122, "older"));
    assert_eq!(desk.names(), ["in.y4m", "out.y4m"]);
    assert_eq!(code(&desk.against(honest, TRANSFORM)), 0);
    assert_eq!(desk.text("out.y4m"), "[clip] out");
    let mode = std::fs::metadata(desk.path("out.y4m")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_clip_may_be_changed_in_its_place() {
    let desk = Desk::new();
    let output = desk.against(honest, "run transform in.y4m -o in.y4m --gray");
    assert_eq!((code(&output), desk.text("in.y4m").as_str()), (0, "[clip] out"));
}

#[test]
fn pipes_are_copied_on_both_sides() {
    let desk = Desk::new();
    let output = desk.fed(honest, "run transform - -o - --gray", pipe(b"piped"));
    assert_eq!((code(&output), text(&output.stdout), text(&output.stderr)), (0, "[piped] out", ""));
    let output = desk.fed(failing, "run transform - -o - --gray", pipe(b"piped"));
    assert_eq!((code(&output), text(&output.stdout)), (1, ""), "a job that fails brings nothing out");
    let output =
        desk.fed(honest, "run transform - -o - --gray", File::open(desk.path("in.y4m")).unwrap().into());
    assert_eq!(text(&output.stdout), "[clip] out");
    let output = desk.fed(honest, "run transform - -o /dev/null --gray", pipe(b"piped"));
    assert_eq!((code(&output), text(&output.stdout)), (0, ""));
    assert_eq!(desk.names(), ["in.y4m"], "no copy is left");
}

#[test]
fn any_kind_may_have_files() {
    let desk = Desk::new();
    let script = |mut peer: Peer| {
        let (tag, submit) = work(&mut peer);
        assert_eq!(submit.policy.output, OutputMode::Inline);
        assert_eq!(submit.inputs[0].as_bytes(), b"how");
        peer.accept(tag, 1, 1);
        peer.reply(tag, Reply::Ended(vec![done(1, b"said")]));
    };
    let line = "run own how --in a=in.y4m --out b=one --out c=two";
    let output = desk.against(script, line);
    assert_eq!((code(&output), text(&output.stdout)), (0, "said\n"));
    assert_eq!((desk.text("one").as_str(), desk.text("two").as_str()), ("[clip] b", "[clip] c"));
    let output = desk.against(honest, &format!("{line} -o three"));
    assert_eq!((code(&output), text(&output.stdout)), (0, ""));
    assert_eq!(desk.text("three"), "[clip] out");
}

#[test]
fn a_clip_can_be_submitted_and_fetched_later() {
    let desk = Desk::new();
    let script = |mut peer: Peer| {
        let (tag, submit) = work(&mut peer);
        assert_eq!((submit.files.len(), submit.policy.output), (1, OutputMode::Descriptor));
        assert!(!submit.attached);
        peer.accept(tag, 7, 1);
    };
    let output = desk.against(script, "submit transform in.y4m --gray");
    assert_eq!((code(&output), text(&output.stdout)), (0, "7\n"));
}

#[test]
fn what_is_wrong_is_told_before_a_daemon_is_looked_for() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("folder")).unwrap();
    for (line, expected, said) in [
        ("run transform no.y4m -o out --gray", 2, "cannot read no.y4m: No such file"),
        ("run transform folder -o out --gray", 2, "cannot read folder: is a directory"),
        ("run transform in.y4m -o folder --gray", 1, "cannot write to folder: is a directory"),
        ("run transform in.y4m -o no/out --gray", 1, "cannot write to no/out: No such file"),
        ("run transform in.y4m -o /proc/out --gray", 1, "cannot write to /proc/out: "),
        ("run transform in.y4m --gray", 2, "transform needs an output"),
        ("run transform in.y4m -o out", 2, "no operation is given for transform"),
        ("run transform in.y4m -o out --blur 0", 2, "a radius of 1 to"),
        ("run transform in.y4m -o out --gray --out a=b", 2, "--out is not for transform"),
        ("run transform in.y4m -o - --gray --json", 2, "both go to standard output"),
        ("run noop --count 2 --out a=b", 2, "for a single job"),
        ("run noop --out a=-", 2, "both go to standard output"),
        ("run noop --out a=b -o ./b --json", 2, "two outputs go to ./b"),
        (
            "run transform /dev/zero -o out --gray --input-max 3M",
            2,
            "limit of 3145728 bytes; raise --input-max",
        ),
    ] {
        let output = desk.bulkhead(line).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains(said), "{line}: {stderr}");
        assert_eq!((code(&output), text(&output.stdout)), (expected, ""), "{line}: {stderr}");
    }
    assert_eq!(desk.names(), ["folder", "in.y4m"]);
}

/// Else a slip of the pen would have the whole of it held in memory.
#[test]
fn a_folder_for_copies_that_is_not_there_is_told() {
    let desk = Desk::new();
    for line in ["run transform - -o out --gray", "run transform in.y4m -o - --gray"] {
        let mut command = desk.bulkhead(line);
        let input = File::open("/dev/null").unwrap();
        let output = command.env("TMPDIR", "/nowhere/at/all").stdin(input).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(stderr.contains("to /nowhere/at/all: No such file") && stderr.contains("TMPDIR"), "{stderr}");
        assert_eq!((code(&output), desk.names()), (1, vec!["in.y4m".to_owned()]));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn whoever_ends_the_command_finds_nothing_left() {
    for (name, expected) in [("-INT", Some(130)), ("-TERM", Some(130)), ("-KILL", None)] {
        let desk = Desk::new();
        let (started, running) = std::sync::mpsc::channel();
        let fake = Fake::serve(move |mut peer| {
            let (tag, _) = work(&mut peer);
            peer.accept(tag, 1, 1);
            started.send(()).unwrap();
            while let Some(asked) = peer.request() {
                assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(1)] });
                peer.reply(asked.tag, Reply::Changed { count: 1, refused: Vec::new() });
            }
        });
        let mut child = desk.bulkhead(TRANSFORM).env("BULKHEAD_SOCKET", fake.path()).spawn().unwrap();
        running.recv().unwrap();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), expected, "{name}");
        fake.finish();
        assert_eq!(desk.names(), ["in.y4m"], "{name}");
    }
}

/// The producer never ends, and no daemon is there: only the signal can end it.
#[test]
fn a_signal_ends_the_wait_for_a_producer() {
    let desk = Desk::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = desk.bulkhead("run transform - -o out --gray");
    let mut child = command.stdin(reader).stderr(Stdio::piped()).spawn().unwrap();
    // More than a pipe holds: when all of it is gone, the command copies and watches for signals.
    writer.write_all(&vec![b'x'; 1 << 20]).unwrap();
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(desk.names(), ["in.y4m"]);
}

#[test]
fn a_reader_that_leaves_or_never_reads_ends_it() {
    let desk = Desk::new();
    let long = |mut peer: Peer| {
        let (tag, _) = peer.submit().unwrap();
        let mut out = File::from(peer.descriptors.remove(0));
        out.write_all(&vec![b'x'; 1 << 20]).unwrap();
        peer.accept(tag, 1, 1);
        peer.reply(tag, Reply::Ended(vec![done(1, b"")]));
    };
    let fake = Fake::serve(long);
    let mut command = desk.bulkhead("run transform in.y4m -o - --gray");
    let closed = command.env("BULKHEAD_SOCKET", fake.path()).stdout(std::io::pipe().unwrap().1);
    let output = closed.output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (141, ""));
    fake.finish();
    let fake = Fake::serve(long);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = desk.bulkhead("run transform in.y4m -o - --gray");
    let mut child = command.env("BULKHEAD_SOCKET", fake.path()).stdout(writer).spawn().unwrap();
    drop(command);
    // The first byte is there: it copies, and soon the pipe is full.
    reader.read_exact(&mut [0]).unwrap();
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    fake.finish();
}

#[test]
fn progress_is_told_to_who_asks() {
    let desk = Desk::new();
    let script = |asked: bool| {
        move |mut peer: Peer| {
            let (tag, submit) = work(&mut peer);
            assert_eq!(submit.progress, asked);
            peer.accept(tag, 1, 1);
            for done in [1, 1, 3].into_iter().filter(|_| asked) {
                peer.reply(tag, Reply::Progress { job: JobId(1), done, total: 4 });
            }
            peer.reply(tag, Reply::Ended(vec![done(1, b"")]));
        }
    };
    assert_eq!(text(&desk.against(script(false), TRANSFORM).stderr), "", "stderr is no terminal");
    let output = desk.against(script(true), &format!("{TRANSFORM} --progress"));
    let said = "bulkhead: job 1: 1 of 4 (25%)\nbulkhead: job 1: 3 of 4 (75%)\n";
    assert_eq!((code(&output), text(&output.stderr)), (0, said));
    let output = desk.against(script(true), &format!("{TRANSFORM} --progress --json"));
    let objects: Vec<serde_json::Value> =
        text(&output.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[1], serde_json::json!({"job": 1, "done": 3, "total": 4}));
    let end: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&end["outcome"], &end["job"]), (&"done".into(), &1.into()));
}

#[test]
fn a_disk_that_is_full_leaves_the_name_alone() {
    assert!(Path::new("/dev/full").exists());
    let desk = Desk::new();
    let output = desk.against(honest, "run transform in.y4m -o /dev/full --gray");
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("cannot write to /dev/full: No space"), "{}", text(&output.stderr));
}

/// The job is done. A device that takes nothing costs no other file, and neither does a stdout that nobody reads.
#[test]
fn an_output_that_fails_costs_no_other() {
    let desk = Desk::new();
    let output = desk.against(honest, "run my-kind x --in a=in.y4m --out b=/dev/full --out c=c.txt");
    let stderr = text(&output.stderr);
    assert_eq!((code(&output), desk.text("c.txt").as_str()), (1, "[clip] c"), "{stderr}");
    assert!(stderr.contains("cannot write to /dev/full: No space left"), "{stderr}");
    assert_eq!(desk.text("bulkhead-full.done"), "[clip] b");
    let fake = Fake::serve(|mut peer| {
        let (tag, _) = work(&mut peer);
        peer.accept(tag, 1, 1);
        peer.reply(tag, Reply::Ended(vec![done(1, b"result")]));
    });
    let mut command = desk.bulkhead("run my-kind x --in a=in.y4m --out e=e.txt");
    let closed = command.env("BULKHEAD_SOCKET", fake.path()).stdout(std::io::pipe().unwrap().1);
    let output = closed.output().unwrap();
    fake.finish();
    assert_eq!((code(&output), text(&output.stderr), desk.text("e.txt").as_str()), (141, "", "[clip] e"));
}
