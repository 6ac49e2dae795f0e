//! An idle daemon: its system calls in ten seconds, and what it and a worker occupy.

use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Setup, send_signal};

use crate::figures::{Aim, Figures};
use crate::layout;
use crate::queue::{resident_bytes, resident_of};

const SPAN: Duration = Duration::from_secs(10);

pub(crate) fn run(figures: &mut Figures) {
    let daemon = layout::daemon(&Setup::default());
    daemon.await_worker(WorkerState::Spare);
    let workers: Vec<u32> = daemon.workers().iter().filter_map(|row| row.pid).collect();
    let log = daemon.folder().join("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    for pid in workers.iter().chain([&daemon.pid()]) {
        command.arg("-p").arg(pid.to_string());
    }
    match command.stdin(Stdio::null()).spawn() {
        Ok(mut tracer) => {
            // The first second is the tracer's own: it attaches.
            std::thread::sleep(Duration::from_secs(1));
            let before = calls(&log);
            std::thread::sleep(SPAN);
            figures.add("idle_syscalls_10s", (calls(&log) - before) as f64, Aim::AtMost(0.0));
            send_signal(tracer.id(), "INT");
            drop(tracer.wait());
        }
        Err(error) => figures.note(&format!("no strace: {error}")),
    }
    figures.add("resident_supervisor_mib", resident_bytes(&daemon) / f64::from(1 << 20), Aim::None);
    let worker = workers.first().map_or(0.0, |pid| resident_of(*pid));
    figures.add("resident_worker_mib", worker / f64::from(1 << 20), Aim::None);
}

fn calls(log: &std::path::Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().filter(|line| line.contains(" = ")).count()
}
