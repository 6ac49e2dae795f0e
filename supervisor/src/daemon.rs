//! Starts the daemon: creates its parts in the order that they need, and runs the loop.
//!
//! The spawner thread is started first, while the process has no descriptor open whose close could block a worker's
//! exec. Then `setup.rs` prepares the process and claims the socket, so that a second daemon fails before it has
//! spawned a worker. The journal is opened before anything is served; the clients, workers and stores come next, the core
//! last. Called once, by `lib.rs`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bulkhead_core::Core;
use bulkhead_proto::death::signal_name;
use bulkhead_sys::outer::OuterProcess;
use bulkhead_sys::signals::{self, Signals};
use bulkhead_sys::spawner::Spawner;
use bulkhead_sys::{process, task_limit};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry, Waker};

use crate::client_table::ClientTable;
use crate::heap_trimmer::HeapTrimmer;
use crate::journal::{DaemonJournal, StartedJournal};
use crate::output_store::OutputStore;
use crate::perform::Performer;
use crate::poll_source::PollSource;
use crate::service_notifier::ServiceNotifier;
use crate::settings::Settings;
use crate::setup::{self, Instance};
use crate::shell_ledger::ShellLedger;
use crate::spawn::WorkerTemplate;
use crate::spin_before_sleep::SpinBeforeSleep;
use crate::turn::{self, EndedLoop, EventLoop};
use crate::worker_budget;
use crate::worker_table::WorkerTable;

/// Runs the daemon until the core decides to exit.
///
/// The end of the process can block: the kernel closes its descriptors first, and the close of a file on FUSE waits for
/// the file's server. The workers die nevertheless: they die with the spawner thread, which has a descriptor table of
/// its own, so that its end does not wait (`sys/spawner.rs`).
///
/// `descriptors`: how many it may open.
pub(crate) fn serve(settings: Settings, descriptors: u64, outer: Option<OuterProcess>) -> Result<()> {
    let (event_loop, instance) = assemble(settings, descriptors, outer)?;
    let EndedLoop { orphaned, clients } = event_loop.run()?;
    // A living parent removes the folder itself, after it has read what it needs from it.
    if orphaned {
        instance.remove_with_folder().context("cannot remove the folder of a private daemon")?;
    } else {
        drop(instance);
    }
    // `bulkhead drain` returns at the end of its connection: the socket is removed and the lock is free by then, so the next
    // daemon can start.
    drop(clients);
    Ok(())
}

/// A shell without job control ignores SIGINT for what it starts with `&`, so that Ctrl-C ends only what it waits for; nohup
/// ignores SIGHUP. Both are a wish, and whoever sends such a signal to the daemon should find out why it has no effect.
fn tell_ignored(signals: &[i32]) {
    let names: Vec<_> = signals.iter().filter_map(|signal| signal_name(*signal)).collect();
    if !names.is_empty() {
        log::info!(
            "signals that were ignored at the start stay so, SIGTERM and `bulkhead drain` stop the daemon signals={}",
            names.join(",")
        );
    }
}

/// Claims the socket and creates all parts. The loop does not run yet. `outer`: the process above, if the start split.
pub(crate) fn assemble(
    mut settings: Settings,
    descriptors: u64,
    outer: Option<OuterProcess>,
) -> Result<(EventLoop, Instance)> {
    setup::check_proc()?;
    let streams = std::mem::take(&mut settings.worker_streams);
    let spawner = Spawner::start(streams).context("cannot start the thread that spawns")?;
    for loss in setup::check_calls()? {
        log::warn!("{loss}");
    }
    log::debug!("descriptor limit raised limit={descriptors}");
    setup::prepare_process()?;
    let budget = settings.share_descriptors(descriptors)?;
    worker_budget::check_tasks(task_limit::of_own_cgroups(), &settings.core)?;
    if let Some(warning) = worker_budget::memory_warning(process::machine_memory_bytes(), &settings.core) {
        log::warn!("{warning}");
    }
    let (instance, boot_root, listener) = setup::claim_instance(&settings)?;
    let poll = Poll::new().context("cannot make the loop's poll")?;
    let waker = Waker::new(poll.registry(), PollSource::Threads.token());
    let waker = Arc::new(waker.context("cannot make the loop's waker")?);
    let StartedJournal { journal, given, numbers } =
        DaemonJournal::start(settings.journal.clone(), Arc::clone(&waker))?;
    settings.core.journal = given;
    settings.core.first = numbers.core;
    let registry = || poll.registry().try_clone().context("cannot share the loop's poll");
    let caught = [signals::TERM, signals::INT, signals::CHLD, signals::HUP];
    let signals = Signals::behind(outer.as_ref().map(OuterProcess::pid), &caught);
    let signals = signals.context("cannot catch signals")?;
    tell_ignored(signals.left_ignored());
    watch(poll.registry(), &signals, PollSource::Signals).context("cannot watch for signals")?;
    if let Some(outer) = &outer {
        watch(poll.registry(), outer, PollSource::Outer).context("cannot watch the outer process")?;
    }
    if settings.private {
        watch_parent(poll.registry())?;
    }
    let ledger = ShellLedger::of(&settings, &budget);
    let clients = ClientTable::new(listener, registry()?, &settings, &ledger)?;
    let template = WorkerTemplate::new(&settings, boot_root, clients.closer(), spawner);
    log_start(&settings, &instance);
    let outputs = OutputStore::new(budget.outputs, clients.closer()).numbered_from(numbers.output);
    let workers = WorkerTable::new(template, registry()?, waker);
    let mut notifier = ServiceNotifier::new(settings.private, outer);
    if settings.ready_when_listening {
        // Before the first spawn, so that clients connect and submit while the first worker starts.
        notifier.tell_parent_ready();
    }
    let performer = Performer::new(clients, workers, outputs, notifier, journal);
    let grace_ms = settings.grace_ms;
    let core = Core::new(settings.core, turn::now());
    let spin = SpinBeforeSleep::default();
    let event_loop = EventLoop {
        poll,
        core,
        performer,
        signals,
        spin,
        heap: HeapTrimmer::default(),
        late_flushes: Vec::new(),
        left_out_poll: false,
        grace_ms,
        asked_ns: None,
        draining: false,
        orphaned: false,
    };
    Ok((event_loop, instance))
}

fn log_start(settings: &Settings, instance: &Instance) {
    log::info!(
        "starting pid={} socket={} workers={} pools={}",
        settings.core.pid,
        instance.socket().unwrap_or(Path::new("")).display(),
        settings.core.all_pools().map(|pool| usize::from(pool.slots)).sum::<usize>(),
        settings.worker_programs.len()
    );
}

fn watch(registry: &Registry, what: impl AsFd, source: PollSource) -> io::Result<()> {
    registry.register(&mut SourceFd(&what.as_fd().as_raw_fd()), source.token(), Interest::READABLE)
}

/// A private daemon (`--private`) stops when its standard input reaches end of file: its parent holds the other end.
fn watch_parent(registry: &Registry) -> Result<()> {
    watch(registry, io::stdin(), PollSource::Parent)
        .context("--private needs a pipe as standard input, to know when its parent ends")
}
