//! Programs run to their end, each in a test process of its own, because children of other tests would be killed too.

use super::*;
use crate::testing::in_child;

struct Ran {
    status: io::Result<ExitStatus>,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Runs a shell script and stops it when it has written more than `room` bytes.
fn ran(script: &str, stdin: &[u8], room: usize) -> Ran {
    ran_with(script, Input::Bytes(stdin), &[], room)
}

fn ran_with(script: &str, stdin: Input<'_>, files: &[BorrowedFd<'_>], room: usize) -> Ran {
    let args = [OsString::from("-c"), OsString::from(script)];
    let env = [(OsString::from("PATH"), OsString::from("/usr/bin:/bin"))];
    let mut ears = Ears { room, ..Ears::default() };
    let program = ProgramSpec {
        path: Path::new("/bin/sh"),
        name: OsStr::new("shell"),
        args: &args,
        env: &env,
        folder: Path::new("/"),
        stdin,
        files,
    };
    let status = run(&program, &mut ears);
    // In any case no child is left.
    assert_eq!(wait_now(Which::Any, Reap::No).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    Ran { status, out: ears.out, err: ears.err }
}

/// Keeps the output. Stops the program when it exceeds its room, or at a nudge if there was output.
#[derive(Default)]
struct Ears {
    room: usize,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl ProgramObserver for Ears {
    fn on_output(&mut self, stream: Stream, bytes: &[u8]) -> NextStep {
        match stream {
            Stream::Out => self.out.extend_from_slice(bytes),
            Stream::Err => self.err.extend_from_slice(bytes),
        }
        if self.out.len() > self.room { NextStep::Stop } else { NextStep::Continue }
    }

    fn on_nudge(&mut self) -> NextStep {
        if self.out.is_empty() { NextStep::Continue } else { NextStep::Stop }
    }
}

#[test]
fn a_nudge_has_its_listener_asked_while_it_waits() {
    in_child("program::tests::a_nudge_has_its_listener_asked_while_it_waits", || {
        let ran = ran("echo on; kill -URG $PPID; exec sleep 3600", b"", 100);
        assert_eq!(
            (ran.status.unwrap(), text(&ran.out)),
            (ExitStatus::Signal { signal: 9, core: false }, "on\n")
        );
    });
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn its_files_are_open_in_it_and_no_others() {
    in_child("program::tests::its_files_are_open_in_it_and_no_others", || {
        let path = std::env::temp_dir().join(format!("bulkhead-program-{}", std::process::id()));
        std::fs::write(&path, "given\n").unwrap();
        let file = File::open(&path).unwrap();
        let (secret, fed) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        io::Read::read_to_string(&mut &fed, &mut String::new()).unwrap();
        let script = format!(
            "cat; cat {0} {0}; [ -e {1} ] && echo open",
            path_of(file.as_fd()),
            path_of(secret.as_fd())
        );
        for _ in 0..2 {
            let ended = ran_with(&script, Input::File(fed.as_fd()), &[file.as_fd()], 1 << 20);
            assert_eq!(ended.status.unwrap(), ExitStatus::Code(1));
            assert_eq!(text(&ended.out), "given\ngiven\ngiven\n", "from its beginning, each time");
        }
    });
}

#[test]
fn both_streams_and_the_end_are_told() {
    in_child("program::tests::both_streams_and_the_end_are_told", || {
        let ended = ran("cat; echo $0 >&2; pwd; exit 5", b"fed\n", 1 << 20);
        assert_eq!(ended.status.unwrap(), ExitStatus::Code(5));
        assert_eq!((text(&ended.out), text(&ended.err)), ("fed\n/\n", "shell\n"));
        let killed = ran("kill -TERM $$", b"", 0);
        assert_eq!(killed.status.unwrap(), ExitStatus::Signal { signal: libc::SIGTERM, core: false });
        assert_eq!(ran("cat", b"", 0).status.unwrap(), ExitStatus::Code(0));
        let all = ran("wc -c", &[7; STDIN_MAX_BYTES], 1 << 20);
        assert_eq!(text(&all.out).trim(), STDIN_MAX_BYTES.to_string());
        let long = ran("cat", &[7; STDIN_MAX_BYTES + 1], 0);
        assert_eq!(long.status.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn whoever_is_left_is_ended_and_what_they_wrote_is_heard() {
    in_child("program::tests::whoever_is_left_is_ended_and_what_they_wrote_is_heard", || {
        for leave in
            ["sleep 3000 &", "setsid setsid sh -c 'echo here; sleep 3000 & sleep 3000' | read line &"]
        {
            let ended = ran(&format!("{leave}\necho told"), b"", 1 << 20);
            assert_eq!(ended.status.unwrap(), ExitStatus::Code(0), "{leave}");
            assert_eq!(text(&ended.out), "told\n", "{leave}");
        }
        let group = ran("sleep 3000 & trap '' TERM; kill 0; echo told", b"", 1 << 20);
        assert_eq!(text(&group.out), "told\n");
    });
}

#[test]
fn a_program_that_is_not_wanted_any_more_is_ended() {
    in_child("program::tests::a_program_that_is_not_wanted_any_more_is_ended", || {
        let flood = ran("yes & yes", b"", 1 << 20);
        assert_eq!(flood.status.unwrap(), ExitStatus::Signal { signal: libc::SIGKILL, core: false });
        assert!(flood.out.len() <= (1 << 20) + CHUNK_BYTES);
    });
}

#[test]
fn full_pipes_do_not_lock_it_up() {
    in_child("program::tests::full_pipes_do_not_lock_it_up", || {
        let script = "(head -c 3000000 /dev/zero >&2; exec >&- 2>&-) & head -c 3000000 /dev/zero; wait";
        let ended = ran(script, b"", 1 << 30);
        assert_eq!(ended.status.unwrap(), ExitStatus::Code(0));
        assert_eq!((ended.out.len(), ended.err.len()), (3_000_000, 3_000_000));
    });
}
