//! Kills workers of a daemon from outside, at random moments, and counts what the daemon reports.
//!
//! It follows the daemon's events, so it knows each process as soon as it is spawned, and the cost of each death. It
//! prints its seed; the same seed gives the same choices, at moments that depend on the machine. Driven by the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_sys::pidfd::Process;

use crate::daemon::{DEADLINE, Daemon};
use crate::wire::Wire;

const SIGKILL: i32 = 9;

/// Random numbers that are the same for the same seed: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// With the seed in `BULKHEAD_SEED`, or with one of the clock's; it is printed.
    pub fn new(what: &str) -> Self {
        let given = std::env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(bulkhead_sys::clock::wall_us);
        println!("{what}: BULKHEAD_SEED={seed}");
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Follows a daemon's events and kills.
#[derive(Debug)]
pub struct Reaper {
    events: Receiver<What>,
    daemon: u32,
    /// The workers that it has killed.
    pub killed: BTreeSet<WorkerId>,
    /// The workers with a slot, by their process ids.
    pub placed: BTreeMap<WorkerId, u32>,
    /// The workers that were spawned and have no slot yet.
    pub spawned: BTreeMap<WorkerId, u32>,
    /// How many of the killed workers were not connected yet.
    pub unborn: BTreeSet<WorkerId>,
    /// How many of the killed workers had a job that was charged.
    pub charged: BTreeSet<WorkerId>,
    /// How many workers died in all.
    pub deaths: u64,
    /// How often each job was told to have ended.
    pub ends: BTreeMap<JobId, u32>,
}

impl Reaper {
    /// Follows from the first event on.
    pub fn new(daemon: &Daemon) -> Self {
        let socket = daemon.socket();
        let (tell, events) = channel();
        std::thread::spawn(move || {
            follow(&socket, |what| tell.send(what).is_ok());
        });
        Self {
            events,
            daemon: daemon.pid(),
            killed: BTreeSet::new(),
            placed: BTreeMap::new(),
            spawned: BTreeMap::new(),
            unborn: BTreeSet::new(),
            charged: BTreeSet::new(),
            deaths: 0,
            ends: BTreeMap::new(),
        }
    }

    /// Reads events until this moment, or until `is_enough`. Returns whether it was enough.
    pub fn hear_until(&mut self, moment: Instant, is_enough: impl Fn(&Self) -> bool) -> bool {
        while !is_enough(self) {
            match self.events.recv_timeout(moment.saturating_duration_since(Instant::now())) {
                Ok(what) => self.note(&what),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => panic!("the daemon tells nothing any more"),
            }
        }
        true
    }

    /// Reads events until `is_enough`.
    pub fn await_that(&mut self, what: &str, is_enough: impl Fn(&Self) -> bool) {
        assert!(self.hear_until(Instant::now() + DEADLINE, is_enough), "it never happened that {what}");
    }

    fn note(&mut self, what: &What) {
        match what {
            What::Spawned { worker, pid } => drop(self.spawned.insert(*worker, *pid)),
            What::Placed { worker, .. } => {
                let pid = self.spawned.remove(worker).expect("it was spawned first");
                self.placed.insert(*worker, pid);
            }
            What::Died { worker, .. } => {
                self.deaths += 1;
                self.spawned.remove(worker);
                self.placed.remove(worker);
            }
            What::SpawnFailed { worker, .. } if self.killed.contains(worker) => {
                self.unborn.insert(*worker);
            }
            What::Blamed { worker, .. } if self.killed.contains(worker) => {
                self.charged.insert(*worker);
            }
            What::Ended { job, .. } => *self.ends.entry(*job).or_default() += 1,
            _ => {}
        }
    }

    /// Kills a worker if it still exists. It only kills children of the daemon.
    pub fn kill(&mut self, worker: WorkerId, pid: u32) {
        let Ok(process) = Process::open(pid) else { return };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        if parent == Some(self.daemon) && process.kill(SIGKILL).is_ok() {
            self.killed.insert(worker);
        }
    }
}

/// A random moment from now, at most so many microseconds away.
pub fn soon(dice: &mut Dice, most_us: u64) -> Instant {
    Instant::now() + Duration::from_micros(dice.below(most_us))
}

/// Gives every event to `take`, until that wants no more or the daemon is gone.
fn follow(socket: &Path, take: impl Fn(What) -> bool) {
    let mut wire = Wire::connect(socket);
    wire.socket.set_read_timeout(None).expect("it is ours");
    wire.ask(Request::Events { after: 0, follow: true });
    while let Some(frame) = wire.next_reply() {
        let Reply::Events { records, missed, .. } = frame.reply else { continue };
        assert_eq!(missed, 0, "events were not read in time");
        if !records.into_iter().all(|record| take(record.what)) {
            return;
        }
    }
}
