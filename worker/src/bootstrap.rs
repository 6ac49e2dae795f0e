//! How a worker comes up, in the order that the crate's header gives.
//!
//! Every step can end it; nothing is left behind then but an exit code, a line in the log, and what was said of it on
//! the lane, and the supervisor tries another worker. Nothing of a task is touched before all of it is done.

use anyhow::{Context, Error, Result, bail};
use bulkhead_link::worker::{Channel, WorkerRing};
use bulkhead_proto::codec;
use bulkhead_proto::ids::KindId;
use bulkhead_proto::kind::CHAOS;
use bulkhead_proto::limits::{OUTPUT_MAX_BYTES, TEXT_MAX_BYTES};
use bulkhead_proto::worker::message::{LaneDown, LaneUp, Setup};
use bulkhead_sys::lane::Lane;
use bulkhead_sys::process;

use crate::early_files;
use crate::panics;
use crate::registry::{KindHandler, Registry};
use crate::runtime::Runtime;

/// By how much a worker comes before its supervisor when the kernel has to kill for want of memory, in thousandths of the
/// machine's memory. A queue and results take far less.
const OOM_SCORE_RAISE: i32 = 200;

/// A worker that is connected and may be offered tasks; `None` if the supervisor left meanwhile.
pub(crate) fn come_up(registry: &Registry) -> Result<Option<Runtime>> {
    process::die_with_parent().context("cannot ask to die with the supervisor")?;
    // Where it cannot be asked for, the kernel judges by size alone, as it does of anybody.
    if let Err(error) = process::be_killed_first(OOM_SCORE_RAISE) {
        log::debug!("cannot ask to be killed before the supervisor when memory runs out error={error}");
    }
    process::limit_file_size(Some(OUTPUT_MAX_BYTES)).context("cannot limit the size of outputs")?;
    panics::install();
    // A parent that died before it could be watched has closed the lane: the first receive tells.
    let lane = Lane::from_stdin().context("cannot take the lane")?;
    match connect(&lane, registry) {
        Ok(None) => Ok(None),
        Ok(Some((ring, channel, handlers))) => Ok(Some(Runtime::new(lane, ring, channel, handlers))),
        Err(error) => {
            say_why(&lane, &error);
            Err(error)
        }
    }
}

/// What a worker has once it is connected.
type ReadyParts = (WorkerRing, Channel, Vec<Option<KindHandler>>);

/// `None` if the supervisor left meanwhile.
fn connect(lane: &Lane, registry: &Registry) -> Result<Option<ReadyParts>> {
    let Some((frame, pages)) = early_files::receive(lane)? else { return Ok(None) };
    let LaneDown::Setup(setup) = frame else { bail!("the first frame is no setup") };
    let ring = WorkerRing::map(&pages).context("cannot map box and orders")?;
    WorkerRing::install_crash_handler(&pages).context("cannot catch the signals that would end it")?;
    let handlers = resolve(registry, &setup);
    let (server, path) = Channel::listen().context("cannot open the task channel")?;
    lane.send(&codec::encode(&LaneUp::Hello { path, missing: missing(&setup, &handlers) }), &[])
        .context("cannot say hello")?;
    let channel = server.accept().context("the supervisor did not connect")?;
    // Before it connects it opens what it wants to see of this process: from now on nobody else may look.
    process::set_not_dumpable().context("cannot forbid others to trace this process")?;
    log::debug!("worker is up worker={} pid={}", setup.worker, std::process::id());
    Ok(Some((ring, channel, handlers)))
}

/// An exit code alone would not tell what was short. A supervisor that is gone need not know.
fn say_why(lane: &Lane, error: &Error) {
    let mut why = format!("{error:#}");
    why.truncate(why.floor_char_boundary(TEXT_MAX_BYTES));
    drop(lane.send(&codec::encode(&LaneUp::NotUp { why }), &[]));
}

/// The handler of each kind of the daemon's table. `chaos` is none of them unless the daemon allows it.
fn resolve(registry: &Registry, setup: &Setup) -> Vec<Option<KindHandler>> {
    let allowed = |name: &str| setup.enable_chaos || name != CHAOS;
    setup.kinds.iter().map(|name| registry.find(name).filter(|_| allowed(name))).collect()
}

/// What it should offer and does not. A kind without a name is for the workers of another pool.
fn missing(setup: &Setup, handlers: &[Option<KindHandler>]) -> Vec<KindId> {
    let numbered = (0..).map(KindId).zip(setup.kinds.iter().zip(handlers));
    let lacks = |(kind, (name, handler)): (KindId, (&String, &Option<KindHandler>))| {
        (!name.is_empty() && handler.is_none()).then_some(kind)
    };
    numbered.filter_map(lacks).collect()
}
