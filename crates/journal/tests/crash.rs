//! A writing process that is killed at any moment: every fact that was answered is there, and what is there is a prefix of the
//! facts.
//!
//! `BULKHEAD_JOURNAL_KILLS` sets how many processes are killed.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bulkhead_facts::fact::FactNo;
use bulkhead_facts::fold::DurableState;
use bulkhead_journal::answer::JournalAnswer;
use bulkhead_journal::opening::OpenJournal;
use bulkhead_journal::reader::{EndedFilter, JournalReader};
use bulkhead_proto::ids::JobId;
use common::{Desk, Dice, FactMill, all_ended, assert_holds, settings};

/// Tells the test program that it is the child, and where it writes.
const FOLDER: &str = "BULKHEAD_JOURNAL_CHILD";
/// Tells the child the seed of its facts.
const SEED: &str = "BULKHEAD_JOURNAL_SEED";
const KILLS: &str = "BULKHEAD_JOURNAL_KILLS";
/// Most facts that have no answer yet.
const AHEAD: u64 = 40;

/// The child: writes facts for ever, and a line with each number up to which they are stored.
fn write_for_ever(folder: &Path, seed: u64) -> ! {
    let mut desk = Desk::open(folder);
    let mut mill = FactMill::new(seed);
    let mut stored = 0;
    let mut out = std::io::stdout();
    loop {
        while desk.pushed < stored + AHEAD {
            desk.push(mill.next().0);
        }
        match desk.answer() {
            JournalAnswer::Stored { up_to: FactNo(up_to), .. } => {
                stored = up_to;
                writeln!(out, "stored {up_to}").unwrap();
                out.flush().unwrap();
            }
            JournalAnswer::DoesNotFit { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A child that is killed when the test ends, however it ends.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        // It may be dead already.
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The numbers of jobs in the journal that have not ended, by count, and of those that have.
fn shape(folder: &Path) -> (u64, Vec<JobId>) {
    let reader = JournalReader::open(folder).unwrap();
    let mut ended = all_ended(&reader, EndedFilter::default());
    ended.sort();
    (reader.count_unfinished(JobId(1 << 60)).unwrap(), ended)
}

/// The same of a state.
fn shape_of(state: &DurableState) -> (u64, Vec<JobId>) {
    let ended: Vec<JobId> =
        state.jobs.iter().filter(|(_, folded)| folded.end.is_some()).map(|(job, _)| *job).collect();
    ((state.jobs.len() - ended.len()) as u64, ended)
}

#[test]
fn whatever_was_answered_is_there_after_a_kill() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let seed = std::env::var(SEED).unwrap().parse().unwrap();
        write_for_ever(Path::new(&folder), seed);
    }
    let kills: u64 = std::env::var(KILLS).map_or(8, |count| count.parse().unwrap());
    let mut dice = Dice(0x00b0_1d0b ^ u64::from(std::process::id()));
    for kill in 0..kills {
        let seed = dice.below(1 << 40);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "whatever_was_answered_is_there_after_a_kill", "--nocapture"]);
        command.env(FOLDER, folder.path()).env(SEED, seed.to_string()).stdout(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut answered = 0;
        let number_of =
            |line: String| line.strip_prefix("stored ").map(|number| number.parse::<u64>().unwrap());
        let mut numbers = lines.map(|line| line.unwrap()).filter_map(number_of);
        for _ in 0..=dice.below(30) {
            answered = numbers.next().expect("the child answers");
        }
        // Right after an answer, or at any moment of the next commit: a busy loop of a random length, not a sleep.
        for _ in 0..dice.below(2) * dice.below(2_000_000) {
            std::hint::spin_loop();
        }
        child.kill();
        // What it wrote before it died was answered as well.
        answered = numbers.last().unwrap_or(answered);
        let journal = OpenJournal::open(settings(folder.path())).unwrap();
        assert!(journal.before().is_some_and(|run| run.ended_us.is_none()));
        let there = shape(folder.path());
        let mut mill = FactMill::new(seed);
        for _ in 0..answered {
            let _fact = mill.next();
        }
        // One of the states from here on is the one that is stored.
        let is_found = (0..=AHEAD).any(|_| {
            let state = mill.state.clone();
            let _fact = mill.next();
            shape_of(&state) == there && holds(folder.path(), &state)
        });
        assert!(is_found, "kill {kill}, seed {seed}: what is stored is no prefix from fact {answered} on");
    }
}

/// Whether the journal holds a state field by field; what differs goes to the output of the test.
fn holds(folder: &Path, state: &DurableState) -> bool {
    std::panic::catch_unwind(|| assert_holds(folder, state)).is_ok()
}
