//! Programs run to their end, each in a test process of its own, because children of other tests would be killed too.

use std::fs::File;

use super::*;
use nix::libc;

use crate::exit::reap_any;
use crate::testing::in_child;

mod other_users;

struct Ran {
    status: io::Result<ExitStatus>,
    out: Vec<u8>,
    err: Vec<u8>,
    survivors: Vec<u32>,
    stops: Vec<Stop>,
}

/// Runs a shell script and stops it when it has written more than `room` bytes.
fn ran(script: &str, stdin: &[u8], room: usize) -> Ran {
    ran_with(script, Input::Bytes(stdin), &[], room)
}

fn ran_with(script: &str, stdin: Input<'_>, files: &[BorrowedFd<'_>], room: usize) -> Ran {
    ran_by(script, stdin, files, Ears { room, ..Ears::default() })
}

/// Runs a shell script that is asked to end once it has written something.
fn ran_with_grace(script: &str, grace: Duration) -> Ran {
    ran_by(script, Input::Bytes(b""), &[], Ears { room: 1 << 20, grace: Some(grace), ..Ears::default() })
}

fn ran_by(script: &str, stdin: Input<'_>, files: &[BorrowedFd<'_>], mut ears: Ears) -> Ran {
    let args = [OsString::from("-c"), OsString::from(script)];
    let env = [(OsString::from("PATH"), OsString::from("/usr/bin:/bin"))];
    let program = ProgramSpec {
        path: Path::new("/bin/sh"),
        name: OsStr::new("shell"),
        args: &args,
        env: &env,
        folder: Path::new("/"),
        stdin,
        files,
        file_max_bytes: ears.file_max_bytes,
    };
    let ended = run(&program, &mut ears);
    let survivors = ended.as_ref().map(|ended| ended.survivors.clone()).unwrap_or_default();
    if survivors.is_empty() {
        assert_eq!(reap_any().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
    let status = ended.map(|ended| ended.status.unwrap_or(SURVIVED));
    Ran { status, out: ears.out, err: ears.err, survivors, stops: ears.stops }
}

/// The status of a program that lives on.
const SURVIVED: ExitStatus = ExitStatus::Code(-1);

/// Keeps the output. Stops the program when it exceeds its room, or at a nudge if there was output.
#[derive(Default)]
struct Ears {
    room: usize,
    /// Asks for the end by a nudge of its own at the first output, with this grace.
    grace: Option<Duration>,
    out: Vec<u8>,
    err: Vec<u8>,
    stops: Vec<Stop>,
    /// The longest file that the program may write.
    file_max_bytes: Option<u64>,
    /// What it does when it hears that the program is stopped.
    on_stop: Option<OnStop>,
}

#[derive(Clone, Copy)]
enum OnStop {
    /// Sends it this signal.
    Send(i32),
    /// Asks for its end, by a nudge of its own, with this grace.
    End(Duration),
}

impl ProgramObserver for Ears {
    fn on_output(&mut self, stream: Stream, bytes: &[u8]) -> NextStep {
        match stream {
            Stream::Out => self.out.extend_from_slice(bytes),
            Stream::Err => self.err.extend_from_slice(bytes),
        }
        if self.grace.is_some() {
            // SAFETY: raise takes one integer.
            unsafe { libc::raise(libc::SIGURG) };
        }
        if self.out.len() > self.room { NextStep::Stop } else { NextStep::Continue }
    }

    fn on_nudge(&mut self) -> NextStep {
        match self.grace {
            Some(grace) if !self.out.is_empty() => NextStep::End(grace),
            None if !self.out.is_empty() && self.on_stop.is_none() => NextStep::Stop,
            _ => NextStep::Continue,
        }
    }

    fn on_stop(&mut self, stop: Stop) {
        self.stops.push(stop);
        match (stop, self.on_stop) {
            (Stop::Stopped { pid, .. }, Some(OnStop::Send(signal))) => {
                Process::open(pid).unwrap().kill(signal).unwrap();
            }
            (Stop::Stopped { .. }, Some(OnStop::End(grace))) => {
                self.grace = Some(grace);
                // SAFETY: raise takes one integer.
                unsafe { libc::raise(libc::SIGURG) };
            }
            (Stop::Continued { .. }, _) | (_, None) => {}
        }
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

/// This process blocks and ignores what it can, as if it had inherited that; nothing of it reaches the program.
#[test]
fn a_program_starts_as_in_a_fresh_login() {
    in_child("program::tests::a_program_starts_as_in_a_fresh_login", || {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGPIPE, 34, 64] {
            // SAFETY: to ignore a signal runs no code.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        nix::sys::signal::SigSet::all().thread_block().unwrap();
        let signals = ran("exec grep -E '^Sig(Blk|Ign):' /proc/self/status", b"", 1 << 20);
        let none = "0000000000000000";
        assert_eq!(text(&signals.out), format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"));
        let session = "read -r pid name state parent group session tty rest </proc/$$/stat; \
            echo $((group - $$)) $((session - $$)) $tty; true </dev/tty";
        let session = ran(session, b"", 1 << 20);
        assert_eq!(text(&session.out), "0 0 0\n");
        assert!(text(&session.err).contains("No such device"), "{}", text(&session.err));
    });
}

#[test]
fn a_program_that_cannot_start_is_an_error() {
    in_child("program::tests::a_program_that_cannot_start_is_an_error", || {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (file, root, sh) = (file.path(), Path::new("/"), Path::new("/bin/sh"));
        let long = [OsString::from("x".repeat(1 << 20))];
        let cases: [(&Path, &Path, &[OsString], i32); 5] = [
            (Path::new("/nowhere"), root, &[], libc::ENOENT),
            (file, root, &[], libc::EACCES),
            (root, root, &[], libc::EACCES),
            (sh, root, &long, libc::E2BIG),
            (sh, Path::new("/nowhere"), &[], libc::ENOENT),
        ];
        for (path, folder, args, number) in cases {
            let (name, stdin) = (OsStr::new("x"), Input::Bytes(b""));
            let (env, files, file_max_bytes) = (&[], &[], None);
            let program = ProgramSpec { path, name, args, env, folder, stdin, files, file_max_bytes };
            let error = run(&program, &mut Ears::default()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(number), "{path:?} in {folder:?}: {error}");
        }
        let args = [OsString::from("a\0b")];
        let (name, stdin) = (OsStr::new("x"), Input::Bytes(b""));
        let (path, args, env, folder, files) = (sh, &args, &[], root, &[]);
        let program = ProgramSpec { path, name, args, env, folder, stdin, files, file_max_bytes: None };
        assert_eq!(run(&program, &mut Ears::default()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn of_two_variables_with_one_name_the_later_counts() {
    in_child("program::tests::of_two_variables_with_one_name_the_later_counts", || {
        let env = [("A", "1"), ("B", "2"), ("A", "3")].map(|(name, value)| (name.into(), value.into()));
        let (path, name, stdin) = (Path::new("/usr/bin/env"), OsStr::new("env"), Input::Bytes(b""));
        let (args, env, folder, files) = (&[], &env, Path::new("/"), &[]);
        let program = ProgramSpec { path, name, args, env, folder, stdin, files, file_max_bytes: None };
        let mut ears = Ears { room: 1 << 20, ..Ears::default() };
        assert_eq!(run(&program, &mut ears).unwrap().status, Some(ExitStatus::Code(0)));
        assert_eq!(text(&ears.out), "A=3\nB=2\n");
    });
}

#[test]
fn a_limit_of_file_size_is_the_programs_alone() {
    in_child("program::tests::a_limit_of_file_size_is_the_programs_alone", || {
        let before = crate::process::file_size_limit().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let script = format!("ulimit -f; exec head -c 5000 /dev/zero > {}/file", folder.path().display());
        let ears = Ears { room: 1 << 20, file_max_bytes: Some(4096), ..Ears::default() };
        let ended = ran_by(&script, Input::Bytes(b""), &[], ears);
        assert_eq!(text(&ended.out), "8\n");
        assert_eq!(ended.status.unwrap(), ExitStatus::Signal { signal: libc::SIGXFSZ, core: false });
        assert_eq!(crate::process::file_size_limit().unwrap(), before);
    });
}

/// Its process id is its first word.
fn ran_and_stopped(script: &str, on_stop: OnStop) -> (Ran, u32) {
    let ears = Ears { room: 1 << 20, on_stop: Some(on_stop), ..Ears::default() };
    let ran = ran_by(&format!("echo $$; {script}"), Input::Bytes(b""), &[], ears);
    let pid = text(&ran.out).lines().next().unwrap().parse().unwrap();
    (ran, pid)
}

#[test]
fn a_program_that_is_stopped_or_continued_is_told() {
    in_child("program::tests::a_program_that_is_stopped_or_continued_is_told", || {
        let cont = OnStop::Send(libc::SIGCONT);
        // TSTP, TTIN and TTOU stop nobody in a session of its own: its process group is orphaned.
        let script = "kill -TSTP $$; kill -TTIN $$; kill -STOP $$; kill -STOP $$; exit 7";
        let (ran, pid) = ran_and_stopped(script, cont);
        assert_eq!(ran.status.unwrap(), ExitStatus::Code(7), "it goes on");
        let stops = [Stop::Stopped { pid, signal: libc::SIGSTOP }; 2];
        // The kernel keeps the last change alone, so a continuation may be lost behind the stop or the end after it.
        let told: Vec<Stop> =
            ran.stops.iter().copied().filter(|stop| *stop != Stop::Continued { pid }).collect();
        assert_eq!(told, stops, "{:?}", ran.stops);
        let (ran, pid) = ran_and_stopped("kill -STOP $$", OnStop::Send(libc::SIGKILL));
        assert_eq!(ran.status.unwrap(), ExitStatus::Signal { signal: libc::SIGKILL, core: false });
        assert_eq!(ran.stops, [Stop::Stopped { pid, signal: libc::SIGSTOP }]);
        let child =
            "sh -c 'kill -STOP $$' & until grep -q '^State:.T' /proc/$!/status; do :; done; kill -CONT $!";
        let (ran, _) = ran_and_stopped(child, cont);
        let told = (ran.status.unwrap(), ran.stops);
        assert_eq!(told, (ExitStatus::Code(0), Vec::new()), "a child of the program is its own to wait for");
    });
}

/// TERM reaches it because CONT follows; it is killed if it stops itself again.
#[test]
fn a_stopped_program_that_is_to_end_hears_it() {
    in_child("program::tests::a_stopped_program_that_is_to_end_hears_it", || {
        let polite = "trap 'echo bye; exit 7' TERM; kill -STOP $$; echo on";
        let (ran, pid) = ran_and_stopped(polite, OnStop::End(LONG));
        assert_eq!((ran.status.unwrap(), text(&ran.out)), (ExitStatus::Code(7), &*format!("{pid}\nbye\n")));
        let again = "trap 'kill -STOP $$' TERM; kill -STOP $$; echo on";
        let (ran, _) = ran_and_stopped(again, OnStop::End(SHORT));
        assert_eq!(ran.status.unwrap(), ExitStatus::Signal { signal: libc::SIGKILL, core: false });
    });
}

const LONG: Duration = crate::testing::PATIENCE;
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_program_that_is_asked_to_end_runs_its_trap_and_is_heard() {
    in_child("program::tests::a_program_that_is_asked_to_end_runs_its_trap_and_is_heard", || {
        let ended =
            ran_with_grace("trap 'echo bye; exit 7' TERM; echo on; while :; do sleep 0.01; done", LONG);
        assert_eq!((ended.status.unwrap(), text(&ended.out)), (ExitStatus::Code(7), "on\nbye\n"));
        let stopped =
            "trap 'echo bye; exit 7' TERM; (echo on; kill -STOP $$) & wait; while :; do sleep 0.01; done";
        let ended = ran_with_grace(stopped, LONG);
        assert_eq!((ended.status.unwrap(), text(&ended.out)), (ExitStatus::Code(7), "on\nbye\n"));
    });
}

/// The shell dies of TERM at once; what it runs has the rest of the grace.
#[test]
fn the_grace_is_for_the_whole_group() {
    in_child("program::tests::the_grace_is_for_the_whole_group", || {
        let slow =
            "sh -c 'trap \"sleep 0.3; echo bye; exit\" TERM; echo on; while :; do sleep 0.01; done'; true";
        let ended = ran_with_grace(slow, LONG);
        assert_eq!(ended.status.unwrap(), ExitStatus::Signal { signal: libc::SIGTERM, core: false });
        assert_eq!(text(&ended.out), "on\nbye\n");
        // Nobody waits for a process that has left the group and so has heard no TERM.
        let ended = ran_with_grace("setsid sleep 3000 & echo on; sleep 3000", LONG);
        assert_eq!(ended.status.unwrap(), ExitStatus::Signal { signal: libc::SIGTERM, core: false });
    });
}

#[test]
fn a_program_that_goes_on_after_its_grace_is_killed_and_heard() {
    in_child("program::tests::a_program_that_goes_on_after_its_grace_is_killed_and_heard", || {
        let deaf = "trap '' TERM; echo on; while :; do sleep 0.01; done";
        let ended = ran_with_grace(deaf, SHORT);
        assert_eq!(ended.status.unwrap(), ExitStatus::Signal { signal: libc::SIGKILL, core: false });
        assert_eq!(text(&ended.out), "on\n");
        let child = "(trap '' TERM; echo on; while :; do sleep 0.01; done) & wait";
        let ended = ran_with_grace(child, SHORT);
        assert_eq!(ended.status.unwrap(), ExitStatus::Signal { signal: libc::SIGTERM, core: false });
        assert_eq!(text(&ended.out), "on\n");
    });
}

/// A user that no other process runs as.
const BOMBER: u32 = 60_137;

/// How many processes of [`BOMBER`] there are, dead ones included.
fn processes_of_bomber() -> usize {
    let status = |pid: &std::fs::DirEntry| std::fs::read_to_string(pid.path().join("status")).ok();
    let is_his = |text: String| text.lines().any(|line| line.starts_with(&format!("Uid:\t{BOMBER}\t")));
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| entry.metadata().is_ok_and(|file| file.is_dir()))
        .filter(|entry| status(entry).is_some_and(is_his))
        .count()
}

/// How many processes [`BOMBER`] may have.
const PROCESSES_MAX: u64 = 60;

/// Forks without pause, up to the limit of the user; `in_child` is done by each of them.
fn bomb(in_child: &str) -> String {
    format!(
        "exec perl -MPOSIX -e '$SIG{{CHLD}}=\"IGNORE\"; while(1){{ my $pid = fork; \
         syswrite(STDOUT, \"f\") unless defined $pid; {in_child} if defined $pid && $pid == 0; \
         select(undef,undef,undef,0.002) }}'"
    )
}

#[test]
fn a_fork_bomb_of_a_user_is_ended_in_one_group_and_in_many_sessions() {
    if !Path::new("/usr/bin/perl").exists() {
        skip!("there is no perl");
    }
    in_child("program::tests::a_fork_bomb_of_a_user_is_ended_in_one_group_and_in_many_sessions", || {
        if !nix::unistd::geteuid().is_root() {
            skip!("only root becomes another user");
        }
        nix::unistd::setgid(BOMBER.into()).unwrap();
        nix::unistd::setuid(BOMBER.into()).unwrap();
        // Before any bomb: without this limit it would take the whole machine.
        let limit = nix::sys::resource::Resource::RLIMIT_NPROC;
        nix::sys::resource::setrlimit(limit, PROCESSES_MAX, PROCESSES_MAX).unwrap();
        for in_child in ["1", "POSIX::setsid()"] {
            for _ in 0..10 {
                // Stopped at its first byte: no more processes are allowed.
                let ended = ran(&bomb(in_child), b"", 0);
                assert!(!ended.out.is_empty(), "{}", text(&ended.err));
                assert_eq!(ended.status.unwrap(), ExitStatus::Signal { signal: libc::SIGKILL, core: false });
                // One that its parent does not wait for is listed until the kernel has released it.
                let until = Instant::now() + crate::testing::PATIENCE;
                while processes_of_bomber() > 1 {
                    assert!(Instant::now() < until, "{} are left, {in_child}", processes_of_bomber() - 1);
                    std::thread::yield_now();
                }
            }
        }
    });
}
