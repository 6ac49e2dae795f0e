//! `--check-config`: starts one worker of each pool, to see whether it sends a hello and offers its pool's kinds.
//!
//! This finds what the text of a config does not show. The worker gets its setup as from a daemon and is killed after
//! its answer; it is never connected to, so it never runs a task. No socket, lock or state folder is touched; the
//! boot folder is a temporary one. Called by `lib.rs`.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_core::event::{Event, ProcessEnd};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{KindId, PoolId, WorkerId};
use bulkhead_sys::clock;
use bulkhead_sys::poll::{PollTarget, wait, wait_readable};
use bulkhead_sys::spawner::Spawner;

use crate::background_closer::BackgroundCloser;
use crate::boot_folder::BootRoot;
use crate::settings::Settings;
use crate::setup;
use crate::spawn::WorkerTemplate;
use crate::worker_process::{LaneRead, WorkerProcess};

/// Starts the worker program of each pool once.
///
/// # Errors
/// A worker does not start or lacks a kind of its pool. The text says which, and what to do.
pub(crate) fn check_workers(mut settings: Settings) -> Result<()> {
    setup::check_proc()?;
    for fault in settings.socket.faults() {
        eprintln!("bulkhead-supervisor: {fault}");
    }
    let streams = std::mem::take(&mut settings.worker_streams);
    let spawner = Spawner::start(streams).context("cannot start the thread that spawns")?;
    for loss in setup::check_calls()? {
        eprintln!("bulkhead-supervisor: {loss}");
    }
    // Another user can make a folder of any name that is known beforehand in `/tmp`.
    let name = format!("bulkhead-check-{}-{}", std::process::id(), clock::monotonic_ns());
    let root = BootRoot::claim(std::env::temp_dir().join(name), settings.core.seed)?;
    let template = WorkerTemplate::new(&settings, root, BackgroundCloser::default(), spawner);
    let limit = Duration::from_millis(settings.core.bootstrap_ms);
    let mut pools = (0..).map(PoolId).zip(&settings.worker_programs);
    pools.try_for_each(|(pool, program)| check_pool(&template, pool, &program.path, limit))
}

/// Starts one worker, reads its answer and kills it.
fn check_pool(template: &WorkerTemplate, pool: PoolId, program: &Path, limit: Duration) -> Result<()> {
    // Worker numbers begin at 1.
    let mut worker = template.spawn(WorkerId(u64::from(pool.0) + 1), pool)?;
    let answer = await_hello(&mut worker, limit);
    kill_and_clean_up(&mut worker, limit)?;
    match answer {
        Ok(missing) if missing.is_empty() => Ok(()),
        Ok(missing) => bail!(template.describe_missing_kinds(worker.program.as_ref(), &missing)),
        Err(error) => {
            Err(error.context(format!("the worker program {} does not come up", program.display())))
        }
    }
}

/// The kinds that the worker lacks, after its hello.
fn await_hello(worker: &mut WorkerProcess, limit: Duration) -> Result<Vec<KindId>> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match worker.read_lane() {
            LaneRead::Hello { .. } => return Ok(Vec::new()),
            LaneRead::MissingKinds(missing) => return Ok(missing),
            LaneRead::Ended(event) => {
                if let Event::BootstrapFailed { error, .. } = &*event {
                    bail!("{error}");
                }
                if let Event::Violated { violation, .. } = &*event {
                    bail!("it answers as no worker does: {violation}");
                }
                bail!(how_it_ended(worker, left)?);
            }
            // No task was offered, so a question is a violation and never this.
            LaneRead::More | LaneRead::NeedsOutput(_) => {}
            LaneRead::Nothing => {
                ensure!(!left.is_zero(), "it has sent nothing for {} s", limit.as_secs());
                wait([PollTarget::readable(worker.lane.as_fd())], Some(left))
                    .context("cannot wait for it")?;
            }
        }
    }
}

/// Why a worker closed its lane without a hello.
fn how_it_ended(worker: &mut WorkerProcess, left: Duration) -> Result<String> {
    wait_readable(worker.tree.process().as_fd(), left).context("cannot wait for its end")?;
    Ok(match worker.advance().map(|status| worker.death_event(status, clock::monotonic_ns())) {
        Some(Event::Died { end: ProcessEnd::Itself(death), .. }) => format!("it ended at once: {death}"),
        _ => "it closed its standard input, its connection to the supervisor".to_owned(),
    })
}

/// Kills the worker and empties its folder, so that the drop removes it without a thread.
fn kill_and_clean_up(worker: &mut WorkerProcess, limit: Duration) -> Result<()> {
    worker.kill(KillReason::Stop);
    wait_readable(worker.tree.process().as_fd(), limit).context("cannot wait for the end of a worker")?;
    worker.advance();
    let folder = &worker.folder;
    folder.clear().with_context(|| format!("cannot clear {}", folder.path().display()))
}
