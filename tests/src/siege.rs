//! One daemon under attack by its own workers: starts it, keeps a neighbour's jobs running, and checks for leftovers.
//!
//! In every attack the neighbour must get every result exactly once, the attacker must be gone at the end, and the
//! daemon must have as many descriptors, threads, children and folders as one that was never attacked. Driven by the
//! tests.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::client::places;
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{OutputMode, Policy};
use tempfile::TempDir;

use crate::daemon::{Daemon, Setup, binary, eventually};
use crate::hostile::{ATTACK_FILE, ATTACKERS_FILE, READER_FILE, precious_folder, taken_file};
use crate::wire::{Wire, submit};

/// Workers in slots and spares of a besieged daemon.
const WORKERS: u16 = 2;
const ALL_WORKERS: usize = WORKERS as usize + 1;
/// Jobs in one submit of the neighbour.
const ROUND: usize = 100;

/// A folder with a link to the hostile worker, and its orders beside it.
#[derive(Debug)]
pub struct Armoury {
    folder: TempDir,
    /// For as long as the attacks last.
    _reader: DeafReader,
}

/// Takes every connection at a port of the loopback, keeps it, and never reads.
#[derive(Debug)]
struct DeafReader {
    port: u16,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DeafReader {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            while !told.load(Ordering::SeqCst) {
                kept.extend(listener.accept().ok());
            }
        });
        Self { port, over, thread: Some(thread) }
    }
}

impl Drop for DeafReader {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // One more connection wakes it, so that it sees the flag.
        let _last = TcpStream::connect(("127.0.0.1", self.port));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Armoury {
    /// Orders `attackers` workers to carry out one of `attacks` each.
    pub fn new(attacks: &[&str], attackers: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("bh-arms-").tempdir().expect("a temporary folder");
        let write = |file: &str, text: String| {
            std::fs::write(folder.path().join(file), text).expect("a file");
        };
        symlink(binary("hostile-worker"), folder.path().join("worker")).expect("a link");
        std::fs::create_dir(precious_folder(folder.path())).expect("a folder");
        write("precious/file", "precious".to_owned());
        write(ATTACK_FILE, attacks.join(" "));
        write(ATTACKERS_FILE, attackers.to_string());
        let reader = DeafReader::start();
        write(READER_FILE, reader.port.to_string());
        Self { folder, _reader: reader }
    }

    /// How to start a daemon with these workers; `config` is added to its config file.
    pub fn setup(&self, workers: u16, config: &str) -> Setup {
        let program = self.folder.path().join("worker");
        let config = format!("worker_program = {program:?}\n{config}\n");
        Setup { workers, config, ..Setup::default() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process that took this place among the attackers, once it has.
    pub fn attacker(&self, place: usize) -> Option<u32> {
        std::fs::read_to_string(taken_file(self.folder.path(), place)).ok()?.trim().parse().ok()
    }

    fn assert_precious(&self) {
        let text =
            std::fs::read_to_string(precious_folder(self.folder.path()).join("file")).unwrap_or_default();
        assert_eq!(text, "precious", "the attack reached what is not the daemon's");
    }
}

/// A daemon with hostile workers, and one connection to watch it.
#[derive(Debug)]
pub struct Siege {
    /// Orders of the workers.
    pub armoury: Armoury,
    /// The daemon.
    pub daemon: Daemon,
    watch: Wire,
}

/// The resources of an idle daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongings {
    /// Open descriptors; `None` if the test has no permission to count them.
    descriptors: Option<usize>,
    threads: usize,
    children: usize,
    boot_folders: usize,
}

impl Siege {
    /// Starts a daemon; its first workers attack as soon as they can.
    pub fn begin(attacks: &[&str], attackers: usize) -> Self {
        Self::begin_with(attacks, attackers, "")
    }

    /// The same with more lines in the config file.
    pub fn begin_with(attacks: &[&str], attackers: usize, config: &str) -> Self {
        let armoury = Armoury::new(attacks, attackers);
        let daemon = Daemon::start_with(&armoury.setup(WORKERS, config));
        let watch = Wire::connect(&daemon.socket());
        Self { armoury, daemon, watch }
    }

    /// Runs `battle` while a neighbour runs jobs; all of the neighbour's are done, each once, at least one round
    /// before the battle, one during it and one after it. Returns what `battle` does.
    pub fn beside_a_neighbour<T>(&mut self, battle: impl FnOnce(&mut Self) -> T) -> T {
        let (over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        let socket = self.daemon.socket();
        std::thread::scope(|scope| {
            let _ends = EndsWhenDropped(&over);
            let neighbour = scope.spawn(|| run_rounds(&socket, &over, &rounds));
            let another_round = |when: &str| {
                let so_far = rounds.load(Ordering::SeqCst);
                eventually(&format!("the neighbour goes on {when}"), || {
                    assert!(!neighbour.is_finished(), "the neighbour has noticed something");
                    (rounds.load(Ordering::SeqCst) > so_far + 1).then_some(())
                });
            };
            another_round("before the attack");
            let result = battle(self);
            another_round("after the attack");
            over.store(true, Ordering::SeqCst);
            neighbour.join().expect("the neighbour has noticed something");
            result
        })
    }

    /// A siege by clients alone: its workers are honest.
    pub fn by_clients() -> Self {
        Self::begin(&[], 0)
    }

    /// Another connection.
    pub fn connect(&self) -> Wire {
        Wire::connect(&self.daemon.socket())
    }

    /// Submits jobs that make their workers attack, and takes their ends.
    pub fn run_bait(&self, count: usize, policy: Policy) -> Vec<JobEnded> {
        let mut wire = Wire::connect(&self.daemon.socket());
        let inputs = vec![crate::hostile::BAIT; count];
        let bait = Submit { policy, ..submit("noop", &inputs, true) };
        wire.run_submit(bait)
    }

    /// The process that took this place among the attackers.
    pub fn attacker(&self, place: usize) -> u32 {
        eventually("a worker attacks", || self.armoury.attacker(place))
    }

    /// Everything that happened so far.
    pub fn records(&mut self) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map_or(0, |record| record.index);
            match self.watch.call(Request::Events { after, follow: false }) {
                Reply::Events { records, caught_up, .. } => {
                    all.extend(records);
                    if caught_up {
                        return all;
                    }
                }
                other => panic!("unexpected reply: {other:?}"),
            }
        }
    }

    /// The workers as they are now.
    pub fn workers(&mut self) -> Vec<WorkerRow> {
        match self.watch.call(Request::Workers) {
            Reply::Workers(rows) => rows,
            other => panic!("unexpected reply: {other:?}"),
        }
    }

    /// Waits until `pick` returns a value for an event, and returns it.
    pub fn await_record<T>(&mut self, what: &str, pick: impl Fn(&What) -> Option<T>) -> T {
        eventually(what, || self.records().iter().find_map(|record| pick(&record.what)))
    }

    /// Waits until there are as many workers as there should be, all idle, none of them an attacker.
    pub fn await_peace(&mut self) {
        eventually("the pool is whole again", || {
            let rows = self.workers();
            let calm = |row: &WorkerRow| matches!(row.state, WorkerState::Idle | WorkerState::Spare);
            (rows.len() == ALL_WORKERS && rows.iter().all(calm)).then_some(())
        });
    }

    /// Waits until the daemon has the resources of one that was never attacked; then ends it and checks for leftovers.
    pub fn assert_nothing_left(self) {
        self.assert_left_beside(0);
    }

    /// The same beside so many arenas, one of each worker that was offered a task which may use it.
    pub fn assert_left_beside(mut self, arenas: usize) {
        self.await_peace();
        let should = &untroubled().with_descriptors(arenas);
        let end = std::time::Instant::now() + crate::daemon::DEADLINE;
        while Belongings::of(&self.daemon) != *should {
            let is = Belongings::of(&self.daemon);
            assert!(
                std::time::Instant::now() < end,
                "something is left: it has {is:?}, untroubled {should:?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.armoury.assert_precious();
        drop(self.watch);
        assert!(self.daemon.end("TERM").success(), "the daemon did not end well");
        assert_eq!(self.daemon.leftovers(), Vec::<String>::new());
    }

    /// Attempts of a job so far.
    pub fn attempts_of(&mut self, job: JobId) -> u32 {
        match self.watch.call(Request::Job { job }) {
            Reply::Job(detail) => detail.row.attempts,
            other => panic!("unexpected reply: {other:?}"),
        }
    }

    /// Resident memory of the daemon, in pages.
    pub fn resident_pages(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.daemon.pid()));
        let statm = statm.expect("the daemon lives");
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has a second number")
    }
}

impl Belongings {
    /// The same with so many descriptors more.
    fn with_descriptors(&self, more: usize) -> Self {
        Self { descriptors: self.descriptors.map(|count| count + more), ..self.clone() }
    }

    /// Whether it has so many boot folders.
    pub fn has_folders(&self, count: usize) -> bool {
        self.boot_folders == count
    }

    /// What this daemon has.
    pub fn of(daemon: &Daemon) -> Self {
        let process = PathBuf::from(format!("/proc/{}", daemon.pid()));
        let count = |folder: &Path| std::fs::read_dir(folder).ok().map(Iterator::count);
        let children =
            std::fs::read_dir(process.join("task")).expect("the daemon lives").flatten().map(|task| {
                let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                list.split_ascii_whitespace().count()
            });
        Self {
            descriptors: count(&process.join("fd")),
            threads: count(&process.join("task")).unwrap_or(0),
            children: children.sum(),
            boot_folders: count(&places::boot_folder(&daemon.socket())).unwrap_or(0),
        }
    }
}

/// The resources of a daemon with honest workers, after some jobs and with one connection.
fn untroubled() -> &'static Belongings {
    static UNTROUBLED: OnceLock<Belongings> = OnceLock::new();
    UNTROUBLED.get_or_init(|| {
        let mut siege = Siege::begin(&[], 0);
        siege.watch.run("noop", &["peace"; 10]);
        siege.await_peace();
        // A bootstrap thread may be about to end when its worker is up already.
        eventually("an untroubled daemon has its three threads, its workers and their folders", || {
            let is = Belongings::of(&siege.daemon);
            let right = (is.threads, is.children, is.boot_folders) == (3, ALL_WORKERS, ALL_WORKERS);
            (right && is == Belongings::of(&siege.daemon)).then_some(is)
        })
    })
}

/// Lets the neighbour go even if the test fails.
struct EndsWhenDropped<'a>(&'a AtomicBool);

impl Drop for EndsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The neighbour: submits round after round and takes every result.
fn run_rounds(socket: &Path, over: &AtomicBool, rounds: &AtomicU64) {
    let mut wire = Wire::connect(socket);
    while !over.load(Ordering::SeqCst) {
        let round = rounds.load(Ordering::SeqCst);
        let inputs: Vec<String> = (0..ROUND).map(|index| format!("{round}-{index}")).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let ended = wire.run("noop", &inputs);
        let outputs: BTreeSet<String> = ended.iter().map(text_of).collect();
        assert_eq!(outputs, inputs.iter().map(|input| (*input).to_owned()).collect(), "a result is wrong");
        assert_eq!(
            ended.iter().map(|end| end.job).collect::<BTreeSet<_>>().len(),
            ROUND,
            "a job ended twice"
        );
        rounds.fetch_add(1, Ordering::SeqCst);
    }
}

/// The output of a job that must be done.
fn text_of(end: &JobEnded) -> String {
    match (&end.outcome, &end.output) {
        (Outcome::Done, JobOutput::Inline(payload)) => {
            String::from_utf8_lossy(payload.as_bytes()).into_owned()
        }
        _ => panic!("a neighbour's job did not end well: {end:?}"),
    }
}

/// A policy whose output goes into a descriptor.
pub fn large() -> Policy {
    Policy { output: OutputMode::Descriptor, ..Policy::default() }
}
