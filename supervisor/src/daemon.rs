//! Puts the daemon together and lets it turn.
//!
//! The order matters: the thread that spawns is split off while nothing is open that could keep a worker from its exec,
//! the process is made fit, then the place is taken (so that of two daemons one gives up before it has started a
//! worker), then ears and hands are made, and last the core. Called once by `main`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use bulkhead_core::Core;
use bulkhead_proto::client::places;
use bulkhead_sys::signals::{self, Signals};
use bulkhead_sys::spawner::Spawner;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry};

use crate::client_table::ClientTable;
use crate::output_store::OutputStore;
use crate::perform::Performer;
use crate::poll_source::PollSource;
use crate::service_notifier::ServiceNotifier;
use crate::settings::Settings;
use crate::setup;
use crate::spawn::WorkerTemplate;
use crate::spin_before_sleep::SpinBeforeSleep;
use crate::turn::{self, EventLoop};
use crate::worker_table::WorkerTable;

/// Serves until told to stop.
pub(crate) fn serve(mut settings: Settings) -> Result<()> {
    let spawner = Spawner::start().context("cannot start the thread that spawns")?;
    let descriptors = setup::prepare_process()?;
    let budget = settings.share_descriptors(descriptors)?;
    let (instance, listener) = setup::claim_instance(&settings)?;
    let poll = Poll::new().context("cannot make the loop's poll")?;
    let registry = || poll.registry().try_clone().context("cannot share the loop's poll");
    let signals = catch_signals().context("cannot catch signals")?;
    poll.registry()
        .register(
            &mut SourceFd(&signals.as_fd().as_raw_fd()),
            PollSource::Signals.token(),
            Interest::READABLE,
        )
        .context("cannot watch for signals")?;
    if settings.private {
        watch_parent(poll.registry())?;
    }
    let clients = ClientTable::new(listener, registry()?, &settings, budget.files)?;
    let boot_folder = places::boot_folder(&settings.socket);
    let template = WorkerTemplate::new(&settings, boot_folder, clients.closer(), spawner);
    log::info!(
        "starting pid={} socket={} workers={} pools={}",
        settings.core.pid,
        settings.socket.display(),
        settings.core.all_pools().map(|pool| usize::from(pool.slots)).sum::<usize>(),
        settings.worker_programs.len()
    );
    let outputs = OutputStore::new(budget.outputs, clients.closer());
    let performer = Performer::new(
        clients,
        WorkerTable::new(template, registry()?)?,
        outputs,
        ServiceNotifier::new(settings.private),
    );
    let (grace_ms, own_folder) = (settings.grace_ms, settings.own_folder);
    let core = Core::new(settings.core, turn::now());
    let orphaned = EventLoop {
        poll,
        core,
        performer,
        signals,
        spin: SpinBeforeSleep::default(),
        grace_ms,
        draining: false,
        orphaned: false,
    }
    .run()?;
    // A parent that lives removes the folder itself, when it has read what it wants of it.
    if own_folder && orphaned {
        instance.remove_with_folder().context("cannot remove the folder of a private daemon")?;
    }
    Ok(())
}

/// Who starts a daemon with nohup wants it to outlive its terminal.
fn catch_signals() -> io::Result<Signals> {
    let mut caught = vec![signals::TERM, signals::INT, signals::CHLD];
    if !signals::is_ignored(signals::HUP)? {
        caught.push(signals::HUP);
    }
    Signals::new(&caught)
}

/// A private daemon serves the process at the other end of its standard input, and stops when that ends.
fn watch_parent(registry: &Registry) -> Result<()> {
    registry
        .register(
            &mut SourceFd(&io::stdin().as_fd().as_raw_fd()),
            PollSource::Parent.token(),
            Interest::READABLE,
        )
        .context("--private needs a pipe as standard input, to know when its parent ends")
}
