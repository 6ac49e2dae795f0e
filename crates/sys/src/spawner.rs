//! A thread that spawns processes and has a descriptor table of its own, for a process that holds untrusted
//! descriptors.
//!
//! The exec of a child closes its copies of all descriptors of the thread that spawned it, and the close of a file on
//! FUSE waits for the server's answer to a flush, which may never come. So this thread splits its descriptor table
//! from the others' at the start (close_range(2) with CLOSE_RANGE_UNSHARE, or unshare(2) before Linux 5.9 and where a
//! filter refuses the former; filters of containers refuse the latter). From then on it has the standard descriptors and
//! one socket, on which the standard input of each child arrives. Its own standard output and standard error are those of the
//! children ([`ChildStreams`]), so that no exec closes a copy of them. No child ever has a copy of another descriptor
//! (`tests/tests/silent_disk.rs`).
//!
//! Children with PDEATHSIG die when this thread ends: when its [`Spawner`] is dropped or the process is killed, even
//! if other threads still block in a close of untrusted descriptors. It blocks all signals, because a handler that
//! writes to a descriptor number would hit another file here. Driven by the supervisor's `spawn.rs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{dup2_stderr, dup2_stdout};

use crate::call_filter::{of_io, refused};
use crate::descriptors::open_numbers;
use crate::message;
use crate::pidfd::Process;
use crate::spawn::{ExecStrings, Spawn, take_hold};

/// Where a stream of the children goes.
#[derive(Debug)]
pub enum ChildStream {
    /// To /dev/null.
    Null,
    /// To the standard error of this process.
    OwnStderr,
    /// Into this file.
    File(OwnedFd),
}

/// Where standard output and standard error of the children go. They write there themselves.
#[derive(Debug)]
pub struct ChildStreams {
    /// Standard output.
    pub out: ChildStream,
    /// Standard error.
    pub err: ChildStream,
}

impl Default for ChildStreams {
    fn default() -> Self {
        Self { out: ChildStream::Null, err: ChildStream::OwnStderr }
    }
}

impl ChildStreams {
    /// Makes them the streams of the calling thread, whose descriptor table is its own.
    fn become_own(&self) -> io::Result<()> {
        match &self.out {
            ChildStream::Null => dup2_stdout(null()?)?,
            ChildStream::OwnStderr => dup2_stdout(io::stderr())?,
            ChildStream::File(file) => dup2_stdout(file)?,
        }
        match &self.err {
            ChildStream::Null => dup2_stderr(null()?)?,
            ChildStream::OwnStderr => {}
            ChildStream::File(file) => dup2_stderr(file)?,
        }
        Ok(())
    }
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// The handle of the thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Spawner {
    orders: Sender<ExecStrings>,
    /// The other end of the thread's socket: the descriptor sent with an order becomes the child's standard input.
    stdins: OwnedFd,
    answers: Receiver<io::Result<u32>>,
}

impl Spawner {
    /// Starts the thread, whose children have these streams, and waits until it has its own table. To be called before a descriptor is opened whose
    /// close can block, because the thread closes its copies of all that is open.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM, EMFILE, ENFILE: a resource is exhausted. ENOENT: /proc or /dev/null is missing. Without errno: a
    /// filter refuses the calls, by their names.
    pub fn start(streams: ChildStreams) -> io::Result<Self> {
        let (stdins, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let (orders, incoming) = channel();
        let (tell, answers) = channel();
        let (tell_settled, settled) = channel();
        let number = theirs.as_raw_fd();
        let streams = Arc::new(streams);
        let of_children = Arc::clone(&streams);
        let run = move || {
            let stdins = settle(number, &of_children);
            // Dropped before the caller's: the last drop closes their files in the table of the others.
            drop(of_children);
            match stdins {
                Ok(stdins) => {
                    let settled = tell_settled.send(Ok(()));
                    drop(tell_settled);
                    if settled.is_ok() {
                        serve(&stdins, &incoming, &tell);
                    }
                }
                // The caller of `start` gets the error, if it still waits.
                Err(error) => drop(tell_settled.send(Err(error))),
            }
        };
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(run)
            .map_err(|error| of_io("clone3(2)", error))?;
        settled.recv().map_err(|_| gone())??;
        // Closed only now, because the thread copies them by their numbers.
        drop((theirs, streams));
        Ok(Self { orders, stdins, answers })
    }

    /// As [`crate::spawn::spawn`], in the thread; blocks until the child's exec.
    ///
    /// # Errors
    /// As [`crate::spawn::spawn`]. ETOOMANYREFS: this user has too many descriptors in flight.
    pub fn spawn(&self, spawn: Spawn<'_>) -> io::Result<Process> {
        let words = ExecStrings::of(&spawn)?;
        // There is one order at a time, so the socket is never full.
        message::send(self.stdins.as_fd(), &[0], &[spawn.stdin.as_fd()], libc::MSG_DONTWAIT)?;
        drop(spawn.stdin);
        self.orders.send(words).map_err(|_| gone())?;
        self.answers.recv().map_err(|_| gone())?.and_then(take_hold)
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that spawns is gone")
}

/// Splits this thread's table from the others'. Returns its end of the socket.
fn settle(number: RawFd, streams: &ChildStreams) -> io::Result<OwnedFd> {
    // Blocked before the table is unshared: handlers may run until here.
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // From here on the thread's descriptor numbers are its own, and still refer to the same files.
    split_table()?;
    streams.become_own()?;
    for open in open_numbers()? {
        if open > libc::STDERR_FILENO && open != number {
            // SAFETY: a copy that was made for this thread alone, and nothing in it knows of it. The one that the
            // listing was read with is closed already, which is an error without any effect.
            unsafe { libc::close(open) };
        }
    }
    // SAFETY: the copy in this thread's table has no other owner; the caller closes its own in the table of the others.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives this thread a descriptor table of its own. close_range(2) gets a range in which nothing is open, so it closes
/// nothing.
fn split_table() -> io::Result<()> {
    // SAFETY: close_range takes three integers.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    match Errno::result(result) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => unshare(CloneFlags::CLONE_FILES)
            .map_err(|error| refused("close_range(2), and unshare(2) in its place,", error)),
        Err(error) => Err(error.into()),
    }
}

fn serve(stdins: &OwnedFd, orders: &Receiver<ExecStrings>, answers: &Sender<io::Result<u32>>) {
    for words in orders {
        let child = next_stdin(stdins).and_then(|stdin| words.start(stdin, None));
        if answers.send(child).is_err() {
            return;
        }
    }
}

/// Receives the descriptor that was sent with an order.
fn next_stdin(stdins: &OwnedFd) -> io::Result<OwnedFd> {
    let mut descriptors = Vec::new();
    message::receive(stdins.as_fd(), &mut [0], Some(&mut descriptors))?;
    // If it could not be installed, the kernel reports only that control data is missing.
    descriptors.pop().ok_or_else(|| Errno::EMFILE.into())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::poll::wait_readable;
    use crate::signals::{HUP, Signals};
    use crate::testing::{PATIENCE, in_child, reap};

    fn shell(spawner: &Spawner, script: &str, stdin: UnixStream) -> Process {
        let args = ["-c".into(), script.into()];
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        let program = Path::new("/bin/sh");
        spawner.spawn(Spawn { program, args: &args, env: &env, stdin: stdin.into() }).unwrap()
    }

    /// The bytes that `script` writes to its standard input before all copies of it are closed.
    fn said(spawner: &Spawner, script: &str) -> String {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let process = shell(spawner, script, theirs);
        reap(&process);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        text
    }

    /// The numbers that the spawner's thread has open.
    fn open_there() -> Vec<RawFd> {
        let is_it =
            |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default() == "spawner\n";
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let task = tasks.map(|task| task.unwrap().path()).find(|task| is_it(task)).unwrap();
        let listed = std::fs::read_dir(task.join("fd")).unwrap();
        listed.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn its_thread_has_nothing_open_but_its_socket() {
        in_child("spawner::tests::its_thread_has_nothing_open_but_its_socket", || {
            let _before = File::open("/dev/null").unwrap();
            let spawner = Spawner::start(ChildStreams::default()).unwrap();
            let _after = File::open("/dev/null").unwrap();
            let open = || open_there().into_iter().filter(|number| *number > 2).count();
            assert_eq!(open(), 1);
            assert_eq!(
                said(&spawner, "exec 3<&0; link=$(readlink /proc/$$/fd/1); echo $link >&3"),
                "/dev/null\n"
            );
            assert_eq!(open(), 1, "it kept something of the child's");
        });
    }

    /// The pipe ends with the thread and the children: no copy of it is left in the table of the others.
    #[test]
    fn children_write_to_the_files_that_the_thread_was_given() {
        in_child("spawner::tests::children_write_to_the_files_that_the_thread_was_given", || {
            let [(mut out, out_writer), (mut err, err_writer)] = [io::pipe().unwrap(), io::pipe().unwrap()];
            let [out_file, err_file] =
                [out_writer, err_writer].map(|writer| ChildStream::File(writer.into()));
            let spawner = Spawner::start(ChildStreams { out: out_file, err: err_file }).unwrap();
            for _ in 0..2 {
                let (_ours, theirs) = UnixStream::pair().unwrap();
                reap(&shell(&spawner, "echo out; echo err >&2", theirs));
            }
            assert_eq!(open_there().into_iter().filter(|number| *number > 2).count(), 1);
            drop(spawner);
            let read = |pipe: &mut io::PipeReader| {
                let mut text = String::new();
                pipe.read_to_string(&mut text).map(|_| text)
            };
            assert_eq!(read(&mut out).unwrap(), "out\nout\n");
            assert_eq!(read(&mut err).unwrap(), "err\nerr\n");
        });
    }

    #[test]
    fn both_streams_can_be_lost_or_go_to_standard_error() {
        in_child("spawner::tests::both_streams_can_be_lost_or_go_to_standard_error", || {
            let links = "exec 3<&0; for n in 1 2; do link=$(readlink /proc/$$/fd/$n); echo $link >&3; done";
            let of = |out, err| {
                let spawner = Spawner::start(ChildStreams { out, err }).unwrap();
                said(&spawner, links)
            };
            let own = std::fs::read_link("/proc/self/fd/2").unwrap();
            assert_eq!(of(ChildStream::Null, ChildStream::Null), "/dev/null\n/dev/null\n");
            let own = own.display();
            assert_eq!(of(ChildStream::OwnStderr, ChildStream::OwnStderr), format!("{own}\n{own}\n"));
            assert_eq!(of(ChildStream::OwnStderr, ChildStream::Null), format!("{own}\n/dev/null\n"));
        });
    }

    #[test]
    fn an_order_that_fails_is_an_error_and_the_next_one_is_carried_out() {
        in_child("spawner::tests::an_order_that_fails_is_an_error_and_the_next_one_is_carried_out", || {
            let spawner = Spawner::start(ChildStreams::default()).unwrap();
            for _ in 0..3 {
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                let missing =
                    Spawn { program: Path::new("/nowhere"), args: &[], env: &[], stdin: theirs.into() };
                assert_eq!(spawner.spawn(missing).unwrap_err().kind(), io::ErrorKind::NotFound);
                assert_eq!(ours.read(&mut [0]).unwrap(), 0, "its standard input is left open");
                let (_ours, theirs) = UnixStream::pair().unwrap();
                let nul = ["a\0b".into()];
                let impossible =
                    Spawn { program: Path::new("/bin/sh"), args: &nul, env: &[], stdin: theirs.into() };
                assert_eq!(spawner.spawn(impossible).unwrap_err().kind(), io::ErrorKind::InvalidInput);
                assert_eq!(said(&spawner, "exec 3<&0; echo on >&3"), "on\n");
            }
        });
    }

    /// A handler writes to a descriptor number that means nothing in that thread. Signals that the thread blocks are
    /// not blocked in its children.
    #[test]
    fn signals_reach_the_other_threads_and_the_children() {
        in_child("spawner::tests::signals_reach_the_other_threads_and_the_children", || {
            let spawner = Spawner::start(ChildStreams::default()).unwrap();
            let mut signals = Signals::new(&[HUP]).unwrap();
            for _ in 0..100 {
                // Sent to the process: the kernel delivers it to any thread that does not block it.
                nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGHUP).unwrap();
                assert!(wait_readable(signals.as_fd(), PATIENCE).unwrap(), "nobody was woken");
                assert_eq!(signals.pending(), [HUP]);
            }
            let said = said(&spawner, "exec 3<&0; exec grep -E '^Sig(Blk|Ign)' /proc/self/status >&3");
            let (blocked, ignored) = said.split_once("SigIgn:").unwrap();
            assert_eq!(blocked, "SigBlk:\t0000000000000000\n");
            let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
            assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "{ignored:x}");
        });
    }

    #[test]
    fn its_end_is_the_end_of_those_who_asked_for_that() {
        const NAME: &str = "spawner::tests::its_end_is_the_end_of_those_who_asked_for_that";
        in_child(NAME, || {
            let spawner = Spawner::start(ChildStreams::default()).unwrap();
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let binary = std::env::current_exe().unwrap();
            let test = "process::tests::waits_for_the_death_of_its_parent";
            let asks = format!("exec {} --exact {test} --ignored", binary.display());
            let child = shell(&spawner, &asks, theirs);
            ours.read_exact(&mut [0]).unwrap();
            assert!(!wait_readable(child.as_fd(), Duration::ZERO).unwrap(), "it did not wait");
            drop(spawner);
            assert!(wait_readable(child.as_fd(), PATIENCE).unwrap(), "it lives on");
            let status = reap(&child);
            assert!(
                matches!(status, crate::exit::ExitStatus::Signal { signal: libc::SIGKILL, .. }),
                "{status:?}"
            );
        });
    }
}
