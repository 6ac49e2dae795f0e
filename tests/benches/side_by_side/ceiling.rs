//! The machine's own ceiling: what a second process gains when nothing is between it and the work.
//!
//! Two cores that share a cache, a bus or a power budget are no twice one. So the same library code runs in bare
//! processes, this program called with `bare`: all of the work in one, then a half in each of two. What a daemon's two
//! workers gain is to be read beside that. Each process is warm, told by a byte on its standard input to do its share,
//! and says with one that it is done. Not pinned.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use bulkhead_frames::Plan;
use bulkhead_jobs::BuiltinKind;
use bulkhead_worker::TaskContext;

use crate::figures::seconds;

/// A half of the work, the other one, and all of it.
const SHARES: [&str; 3] = ["0", "1", "all"];

/// Three bare processes that stand ready to do this work.
pub(crate) struct Ceiling {
    whole: Bare,
    halves: [Bare; 2],
}

impl Ceiling {
    /// The words name the work, as [`bare`] takes them.
    pub(crate) fn start(words: &[&str]) -> Self {
        let [first, second, whole] = SHARES.map(|share| Bare::start(share, words));
        Self { whole, halves: [first, second] }
    }

    /// One round: how many times as fast two of them are as one. The first one fills caches.
    pub(crate) fn gain(&mut self) -> f64 {
        let alone = seconds(|| {
            self.whole.begin();
            self.whole.finish();
        });
        let shared = seconds(|| {
            self.halves.iter_mut().for_each(Bare::begin);
            self.halves.iter_mut().for_each(Bare::finish);
        });
        alone / shared
    }
}

/// A process that does its share each time it is told.
struct Bare {
    child: Child,
    socket: UnixStream,
}

impl Bare {
    fn start(share: &str, words: &[&str]) -> Self {
        let (socket, theirs) = UnixStream::pair().expect("a pair of sockets");
        let own = std::env::current_exe().expect("the bench knows its own path");
        let mut command = Command::new(own);
        command.args(["bare", share]).args(words).stdin(Stdio::from(OwnedFd::from(theirs)));
        Self { child: command.spawn().expect("the bench can start itself"), socket }
    }

    fn begin(&mut self) {
        self.socket.write_all(b"x").expect("it reads");
    }

    fn finish(&mut self) {
        self.socket.read_exact(&mut [0]).expect("it answers");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.socket.shutdown(std::net::Shutdown::Both));
        drop(self.child.wait());
    }
}

/// The other half of [`Bare`]: `SHARE factorial COUNT INPUT`, or `SHARE transform CHAIN CLIP OUTPUT`.
pub(crate) fn bare(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let socket = io::stdin().as_fd().try_clone_to_owned().expect("standard input is open");
    let mut socket = UnixStream::from(socket);
    match words.as_slice() {
        [share, "factorial", count, input] => {
            let count: usize = count.parse().expect("a number");
            serve(&mut socket, || factorials(share, count, input.as_bytes()));
        }
        [share, "transform", chain, clip, output] => {
            let clip = File::open(clip).expect("the clip is there");
            let output = File::options().write(true).open(output).expect("an output file");
            let length = clip.metadata().expect("it has a length").len();
            let plan = Plan::new(&clip, length, chain.parse().expect("a chain")).expect("a clip");
            serve(&mut socket, || frames(share, &plan, &clip, &output));
        }
        _ => panic!("no such work: {words:?}"),
    }
}

fn serve(socket: &mut UnixStream, mut work: impl FnMut()) {
    let mut byte = [0];
    while matches!(socket.read(&mut byte), Ok(1)) {
        work();
        if socket.write_all(&byte).is_err() {
            return;
        }
    }
}

fn is_mine(share: &str, index: usize) -> bool {
    share.parse().map_or(true, |half: usize| index % 2 == half)
}

fn factorials(share: &str, count: usize, input: &[u8]) {
    let Some(BuiltinKind::Whole(run)) = bulkhead_jobs::find("factorial") else { panic!("it is one task") };
    for _ in (0..count).filter(|index| is_mine(share, *index)) {
        let mut output = Output::default();
        run(input, &mut output).expect("a factorial");
        assert!(!output.0.is_empty());
    }
}

fn frames(share: &str, plan: &Plan, clip: &File, output: &File) {
    for (_, range) in plan.ranges.iter().enumerate().filter(|(index, _)| is_mine(share, *index)) {
        bulkhead_frames::run(&plan.recipe, range, clip, output, |_| ControlFlow::Continue(()))
            .expect("frames");
    }
}

/// The output of a task, kept in memory.
#[derive(Default)]
struct Output(Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TaskContext for Output {
    fn progress(&mut self, _: u64, _: u64) {}
    fn say(&mut self, _: &str) {}
    fn last_breath(&mut self) {}
}
