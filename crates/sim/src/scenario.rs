//! The faults and settings of a seed: swarm testing (Groce et al., 2012). Each seed turns a random half of the
//! fault classes of its profile off, so that faults are also seen alone, and draws the daemon's settings.
//!
//! Chances are so many in a thousand. Nothing here is decided later in a run: a scenario is a constant.

use bulkhead_core::config::Config;
use bulkhead_proto::kind::Kind;

use crate::arenas;
use crate::clock::{MS, S};
use crate::crowds::{self, Crowd};
use crate::deep;
use crate::disk::{self, DiskFaults};
use crate::lending;
use crate::logs;
use crate::on_demand;
use crate::outputs;
use crate::pools::{self, Down};
use crate::programs;
use crate::registrations;
use crate::rng::SimRng;
use crate::strays;

/// The sort of faults in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Hardly a fault: bugs of the plain path.
    Quiet,
    /// Workers crash, hang and fail to come up.
    Crashy,
    /// Workers break the protocol.
    Hostile,
    /// One user floods, another has single jobs.
    Flood,
    /// Every budget is tiny.
    Starved,
    /// Proof of death comes late or very late.
    Stuck,
}

/// All profiles; a seed's profile is its remainder by their number.
pub const PROFILES: [Profile; 6] =
    [Profile::Quiet, Profile::Crashy, Profile::Hostile, Profile::Flood, Profile::Starved, Profile::Stuck];

/// How often each thing goes wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A spawn fails.
    pub spawn_fails: u32,
    /// A bootstrap fails, while the process lives on.
    pub boot_fails: u32,
    /// A bootstrap never ends.
    pub boot_hangs: u32,
    /// A worker dies in its bootstrap.
    pub boot_dies: u32,
    /// A worker dies at a step.
    pub crash: u32,
    /// A worker hangs in a task.
    pub hang: u32,
    /// A signal stops a worker that runs.
    pub stop: u32,
    /// A worker breaks the protocol now and then.
    pub hostile: u32,
    /// A task channel takes few messages.
    pub narrow: u32,
    /// The supervisor has no descriptor or memory for an offer.
    pub shortage: u32,
    /// Proof of death comes late, up to seconds.
    pub late_proof: u32,
    /// Proof of death comes very late, up to minutes.
    pub very_late_proof: u32,
    /// A killed worker goes on for a while.
    pub late_kill: u32,
    /// A lane does not hang up before the proof.
    pub no_hint: u32,
    /// A client vanishes instead of asking something.
    pub vanish: u32,
    /// A client asks nonsense.
    pub rude: u32,
    /// A client reads slowly, or not at all.
    pub slow_reader: u32,
    /// The wall clock is set.
    pub set_wall: u32,
    /// A wake-up comes late.
    pub oversleep: u32,
    /// The supervisor does not look at a source in a turn.
    pub overlook: u32,
    /// The world moves on although the supervisor has something to do.
    pub slow_turn: u32,
    /// The world moves on between two actions.
    pub interleave: u32,
}

/// How the daemon is told to end while there are faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM, with a grace in milliseconds or without one.
    Drain(Option<u64>),
    /// SIGINT.
    Stop,
}

/// A seed, spelled out.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Its profile.
    pub profile: Profile,
    /// The chance of each fault.
    pub faults: Faults,
    /// The daemon's settings.
    pub config: Config,
    /// Which of two pools cannot start workers, if one cannot.
    pub down: Option<Down>,
    /// Whether kinds keep logs, and clients ask for them. Such a seed also has what other seeds never had: failures that
    /// leave inline bytes, workers that leave after a panic, an inspector that asks for more.
    pub logs: bool,
    /// The users, if there are many.
    pub crowd: Option<Crowd>,
    /// Whether there is little memory for outputs.
    pub little_memory: bool,
    /// Whether signals stop the programs of tasks.
    pub programs: bool,
    /// Whether tasks ask for outputs while they run.
    pub on_demand: bool,
    /// Whether clients register something and name it. Such a daemon has one user.
    pub registers: bool,
    /// Whether clients take results in arenas.
    pub arenas: bool,
    /// Whether the rings of workers are filled once faults have stopped.
    pub deep: bool,
    /// What goes wrong with the disk, if jobs may be durable.
    pub disk: Option<DiskFaults>,
    /// Whether workers leave processes that the daemon may not end.
    pub strays: bool,
    /// Whether signals stop spares.
    pub spare_stops: bool,
    /// Clients at the start.
    pub clients: usize,
    /// Requests of each client.
    pub acts: u32,
    /// Longest pause of a client between two requests, in nanoseconds.
    pub pause_ns: u64,
    /// How long faults happen at least, in nanoseconds.
    pub trouble_ns: u64,
    /// Share of jobs that are poison, fail, loop or are slow, in a thousand.
    pub trouble: u32,
    /// Turns between two looks through the eyes of an administrator.
    pub look_every: u64,
    /// A drain or a stop while there are faults.
    pub shutdown: Option<Shutdown>,
    /// Whether jobs are forgotten by request at the end, or by retention.
    pub forget: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Self {
        let profile = PROFILES[(seed % PROFILES.len() as u64) as usize];
        let mut rng = SimRng::new(seed ^ 0x5ce0_a210);
        let flood = profile == Profile::Flood;
        let mut scenario = Self {
            seed,
            profile,
            faults: faults(profile, &mut rng),
            config: config(seed, profile, &mut rng),
            down: None,
            logs: false,
            crowd: None,
            programs: false,
            on_demand: on_demand::ask(seed),
            registers: false,
            arenas: false,
            deep: false,
            disk: None,
            strays: strays::leave(seed),
            spare_stops: strays::stop_spares(seed),
            little_memory: false,
            clients: if flood { 2 } else { rng.between(1, 5) as usize },
            acts: if flood { 12 } else { rng.between(5, 40) as u32 },
            pause_ns: *rng.pick(pauses(profile)),
            trouble_ns: *rng.pick(&[20 * MS, 200 * MS, 2 * S, 40 * S]),
            trouble: *rng.pick(&[0, 50, 300, 700]),
            look_every: rng.between(if flood { 30 } else { 4 }, 50),
            shutdown: shutdown(profile, &mut rng),
            forget: rng.chance(700),
        };
        scenario.down = pools::split(seed, profile, &mut scenario.config);
        lending::lend(seed, profile, &mut scenario.config);
        pools::without_spares(seed, &mut scenario.config);
        pools::serve_one_user(seed, profile, &mut scenario.config);
        pools::recycle_strictly(seed, profile, &mut scenario.config);
        scenario.logs = logs::keep(seed, &mut scenario.config);
        scenario.little_memory = outputs::bound(seed, &mut scenario.config);
        scenario.arenas = arenas::bound(seed, &mut scenario.config);
        scenario.programs = programs::stop(seed, profile, &mut scenario.config);
        scenario.crowd = crowds::gather(seed, profile, &mut scenario.config);
        if let Some(crowd) = scenario.crowd {
            scenario.clients = crowd.connections();
            scenario.acts = scenario.acts.min(crowds::ACTS);
        }
        let has_crowd = scenario.crowd.is_some();
        scenario.registers = registrations::register(seed, profile, has_crowd, &mut scenario.config);
        scenario.deep = deep::fill(&mut scenario);
        scenario.disk = disk::keep(seed, &mut scenario.config);
        scenario
    }
}

/// Longest pauses of clients; long enough, where that matters, for a killed worker to be stuck meanwhile.
fn pauses(profile: Profile) -> &'static [u64] {
    match profile {
        Profile::Stuck => &[2 * MS, S, 20 * S],
        _ => &[MS, 10 * MS, 100 * MS, 2 * S],
    }
}

fn shutdown(profile: Profile, rng: &mut SimRng) -> Option<Shutdown> {
    if profile == Profile::Flood || !rng.chance(150) {
        return None;
    }
    Some(match rng.below(3) {
        0 => Shutdown::Stop,
        1 => Shutdown::Drain(None),
        _ => Shutdown::Drain(Some(rng.span(20_000))),
    })
}

/// A fault class that this seed may have turned off.
fn some(rng: &mut SimRng, chances: &[u32]) -> u32 {
    if rng.chance(500) { 0 } else { *rng.pick(chances) }
}

fn faults(profile: Profile, rng: &mut SimRng) -> Faults {
    let mut faults = Faults {
        slow_turn: some(rng, &[100, 500, 900]),
        interleave: some(rng, &[20, 200]),
        overlook: some(rng, &[50, 400]),
        no_hint: some(rng, &[300, 1000]),
        oversleep: some(rng, &[10, 200]),
        ..Faults::default()
    };
    if profile == Profile::Quiet {
        return faults;
    }
    faults.slow_reader = some(rng, &[100, 500]);
    faults.set_wall = some(rng, &[1000]);
    faults.rude = some(rng, &[50, 200]);
    if profile == Profile::Flood {
        return faults;
    }
    faults.vanish = some(rng, &[10, 60]);
    faults.narrow = some(rng, &[300, 1000]);
    faults.shortage = some(rng, &[5, 50]);
    faults.late_proof = some(rng, &[50, 300]);
    faults.spawn_fails = some(rng, &[20, 200]);
    faults.boot_fails = some(rng, &[20, 100]);
    faults.boot_hangs = some(rng, &[10, 50]);
    faults.boot_dies = some(rng, &[20, 100]);
    faults.crash = some(rng, &[2, 20, 150]);
    faults.hang = some(rng, &[2, 30]);
    faults.stop = some(rng, &[5, 50]);
    faults.late_kill = some(rng, &[200, 800]);
    match profile {
        Profile::Hostile => faults.hostile = *rng.pick(&[200, 600, 950]),
        Profile::Stuck => {
            faults.very_late_proof = *rng.pick(&[50, 300, 700]);
            faults.crash = *rng.pick(&[5, 30]);
        }
        _ => faults.very_late_proof = some(rng, &[5]),
    }
    faults
}

/// The time that kinds with a grace give their tasks to end by themselves, in milliseconds.
pub(crate) const GRACE_MS: u64 = 20;

/// The kinds of the simulated daemon: a full ring, a small one, none, and one that is done in parts; two of them with a
/// grace at a cancel.
fn kinds() -> Vec<Kind> {
    let rows = [("quick", 256, 0), ("few", 4, GRACE_MS), ("solo", 1, GRACE_MS), ("fan", 256, GRACE_MS)];
    let kind = |(name, ring, grace_ms): (&str, u16, u64)| Kind {
        name: name.to_owned(),
        ring,
        plans: name == "fan",
        cancel_grace_ms: grace_ms as u32,
        ..Kind::default()
    };
    rows.map(kind).to_vec()
}

fn config(seed: u64, profile: Profile, rng: &mut SimRng) -> Config {
    let mut config = Config {
        pid: 4242,
        seed,
        kinds: kinds(),
        cores: *rng.pick(&[1, 2, 8]),
        stopped_ms: *rng.pick(&[100, 10_000]),
        recycle_tasks: *rng.pick(&[None, None, Some(1), Some(7), Some(60)]),
        recycle_age_ms: *rng.pick(&[None, None, Some(500)]),
        recycle_resident_bytes: *rng.pick(&[None, None, Some(4 << 20)]),
        slots: rng.between(1, 4) as u16,
        spares: rng.between(1, 2) as u16,
        client_credit_bytes: *rng.pick(&[2 << 10, 16 << 10, 1 << 20]),
        keep_ms: *rng.pick(&[1000, 60_000, 3_600_000]),
        vanished_ms: *rng.pick(&[10, 1000, 30_000]),
        ageing_ms: *rng.pick(&[1, 100, 10_000]),
        records_max: *rng.pick(&[20, 10_000]),
        restart_intensity: *rng.pick(&[1, 3, 10]),
        ..Config::default()
    };
    if profile == Profile::Starved {
        config.queue_max = rng.between(1, 20);
        config.queue_bytes_max = rng.between(20, 2000);
        config.files_max = rng.between(1, 20);
        config.files_bytes_max = rng.between(100, 5000);
        config.keep_jobs_max = rng.between(1, 10);
        config.keep_bytes_max = rng.between(20, 500);
        config.keep_outputs_max = rng.between(1, 4);
        config.quarantine_max = rng.between(1, 3);
        config.client_credit_bytes = 1 << 10;
    }
    config
}
