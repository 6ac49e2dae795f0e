//! Neighbours: what one user sees of another who fills three thousand connections with one attack.
//!
//! In each round each attack has its turn beside no-ops over as many connections that are all read, and the figure is
//! the ratio of what a neighbour's ping takes (p99), the middle one of the rounds. The attacker and the workers share
//! core 1, the daemon and the neighbour core 0. The resident size is that of the supervisor. Needs root, to be several
//! users; who is not gets a line that says so. The attacks stand in `attacker.rs`.

pub(crate) mod attacker;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::JobId;
use bulkhead_tests::daemon::{Daemon, Setup, eventually};
use bulkhead_tests::other_users;
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::Wire;

use crate::figures::{Aim, Figures, median, median_ratio, quantile_us};
use crate::layout;
use crate::queue::resident_bytes;
use attacker::{ATTACKER, ATTACKS, Attack, CONNECTIONS, NO_OPS};

const ROUNDS: usize = 5;
/// How long the neighbour pings beside each attack.
const SPAN: Duration = Duration::from_millis(1500);
/// How long the daemon remembers a client that is gone, and a second more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(31);
const NEIGHBOUR: u32 = 60_102;
/// Few jobs are kept, so that there are as many after each round.
const KEPT: &str = "keep_jobs_max = 1000\n";
const MIB: f64 = (1 << 20) as f64;

/// What was seen of one attack in all rounds.
#[derive(Debug, Default)]
struct Seen {
    beside_us: Vec<f64>,
    beside_no_ops_us: Vec<f64>,
    resident: f64,
    /// What the daemon has grown by once the attackers of the first round are forgotten, and of the third.
    left: [f64; 2],
}

/// This name of an attack, for `--attack`.
pub(crate) fn known_attack(name: Option<String>) -> String {
    let known: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
    let name = name.unwrap_or_default();
    assert!(known.contains(&name.as_str()), "no attack {name:?}; there are {}", known.join(", "));
    name
}

pub(crate) fn run(figures: &mut Figures) {
    if let Err(why) = may_become_others() {
        return figures.note(why);
    }
    let mut worst: f64 = 0.0;
    for attack in ATTACKS.iter().filter(|attack| figures.wants(attack.name)).collect::<Vec<_>>() {
        // Each attack has a daemon of its own, so that what one leaves behind is not counted for the next.
        let seen = withstand(attack);
        let ratio = median_ratio(&seen.beside_us, &seen.beside_no_ops_us);
        worst = worst.max(ratio);
        let name = attack.name;
        figures.add(&format!("neighbour_{name}_p99_us"), median(seen.beside_us), Aim::None);
        figures.add(&format!("neighbour_{name}_p99_ratio"), ratio, Aim::AtMost(2.0));
        figures.add(&format!("neighbour_{name}_resident_mib"), seen.resident, Aim::AtMost(256.0));
        figures.add(&format!("neighbour_{name}_left_mib"), seen.left[0], Aim::AtMost(16.0));
        let grown = seen.left[1] - seen.left[0];
        figures.add(&format!("neighbour_{name}_left_grown_mib"), grown, Aim::AtMost(1.0));
    }
    figures.add("neighbour_p99_ratio", worst, Aim::AtMost(2.0));
}

/// All rounds of one attack.
fn withstand(attack: &Attack) -> Seen {
    let daemon = layout::daemon(&Setup { config: other_users::system_config(KEPT), ..Setup::default() });
    daemon.await_worker(WorkerState::Spare);
    other_users::open_to_all(&daemon);
    layout::pin(daemon.pid(), 0);
    for worker in daemon.workers() {
        layout::pin(worker.pid.expect("a worker that is there has a process"), 1);
    }
    let mut neighbour = other_users::connect_as(&daemon, NEIGHBOUR).welcome();
    // What the attack waits for; it runs in one of the two workers all the time.
    let running = other_users::connect_as(&daemon, ATTACKER).welcome().submit("sleep", &["86400000"]);
    layout::pin(std::process::id(), 0);
    let mut seen = Seen::default();
    // The first of all only warms the daemon up.
    beside(&daemon, (&NO_OPS, running), &mut neighbour);
    let before = settled_bytes(&daemon, &mut neighbour);
    for round in 0..ROUNDS {
        seen.beside_no_ops_us.push(beside(&daemon, (&NO_OPS, running), &mut neighbour).0);
        let (p99_us, resident) = beside(&daemon, (attack, running), &mut neighbour);
        seen.beside_us.push(p99_us);
        seen.resident = seen.resident.max(resident / MIB);
        if let Some(left) = [0, 2].iter().position(|measured| *measured == round) {
            seen.left[left] = (settled_bytes(&daemon, &mut neighbour) - before) / MIB;
        }
    }
    layout::unpin();
    seen
}

/// The neighbour's pings beside one attack: their p99 in microseconds, and the greatest size of the daemon meanwhile.
fn beside(daemon: &Daemon, (attack, running): (&Attack, JobId), neighbour: &mut Wire) -> (f64, f64) {
    let attacker = Attacker::start(daemon, attack, running);
    let (mut spans, mut resident, begun) = (Vec::new(), 0.0_f64, Instant::now());
    while begun.elapsed() < SPAN {
        let asked = Instant::now();
        assert!(matches!(neighbour.call(Request::Ping), Reply::Pong { .. }), "the neighbour is answered");
        spans.push(asked.elapsed());
        if spans.len() % 100 == 1 {
            resident = resident.max(resident_bytes(daemon));
        }
    }
    resident = resident.max(resident_bytes(daemon));
    drop(attacker);
    eventually("the attacker's connections are over", || (neighbour.status().clients == 1).then_some(()));
    (quantile_us(&mut spans, 990), resident)
}

/// The size of the daemon once it has forgotten the clients that are gone, whose jobs it keeps for a while.
fn settled_bytes(daemon: &Daemon, neighbour: &mut Wire) -> f64 {
    std::thread::sleep(FORGOTTEN_AFTER);
    let begun = Instant::now();
    while begun.elapsed() < SPAN {
        neighbour.call(Request::Ping);
    }
    resident_bytes(daemon)
}

/// The process of an attacker; dropping it ends it.
struct Attacker(Child);

impl Attacker {
    /// Starts it on core 1, with descriptors enough; returns when all its connections are there.
    fn start(daemon: &Daemon, attack: &Attack, running: JobId) -> Self {
        let own = std::env::current_exe().expect("the bench knows its own path");
        let mut command = Command::new("taskset");
        command
            .args(["-c", "1", "prlimit", "--nofile=16384"])
            .arg(own)
            .args(["attack", attack.name])
            .arg(daemon.socket())
            .arg(running.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("taskset is there (util-linux)");
        let mut told = String::new();
        let stdout = child.stdout.as_mut().expect("its output is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut told).expect("it speaks");
        assert_eq!(told.trim(), "ready", "{CONNECTIONS} connections are there");
        Self(child)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
