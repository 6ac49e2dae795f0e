//! Starts a worker until it can be offered tasks.
//!
//! In this order it asks to die with its parent (PDEATHSIG), raises its OOM score so that the kernel kills it before
//! the daemon, lifts its limit of file size, installs the panic hook, receives the setup with both pages and the doorbell, maps the box for
//! writing and the orders for reading, installs the handlers of fatal signals, opens an ipc-channel one-shot server in its boot
//! folder, names it in its hello, receives the page for the text of its stack if it has asked for one, hands it to the code
//! that the registry names, installs those handlers again (so that a handler that this code installed is called after ours),
//! accepts the supervisor, and makes itself not dumpable unless other processes of its user may trace it.
//!
//! Every step can fail. The worker then sends the reason on the lane, logs it and exits; nothing else is left, and the
//! supervisor starts another worker. No task is touched before all steps have succeeded. Driven by `lib.rs`.

use anyhow::{Context, Error, Result, bail};
use bulkhead_link::worker::{Channel, StackPage, WorkerRing};
use bulkhead_proto::codec;
use bulkhead_proto::ids::KindId;
use bulkhead_proto::kind::CHAOS;
use bulkhead_proto::limits::TEXT_MAX_BYTES;
use bulkhead_proto::worker::message::{LaneDown, LaneUp, Setup, StackText};
use bulkhead_sys::bell::Bell;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::process;

use crate::boot_folder;
use crate::early_files;
use crate::panics;
use crate::registry::{KindHandler, Registry};
use crate::runtime::Runtime;

/// How much higher the worker's OOM score is than its supervisor's, in thousandths of the machine's memory, so that the
/// kernel kills the worker first. The supervisor's queue and results take far less memory than this.
const OOM_SCORE_RAISE: i32 = 200;

/// Connects the worker to its supervisor, so that it can be offered tasks. `None` if the supervisor has ended.
pub(crate) fn come_up(registry: &Registry, lane: Lane) -> Result<Option<Runtime>> {
    process::die_with_parent().context("cannot ask to die with the supervisor")?;
    // If the score cannot be raised, the kernel chooses by memory size alone.
    if let Err(error) = process::be_killed_first(OOM_SCORE_RAISE) {
        log::debug!("cannot ask to be killed before the supervisor when memory runs out error={error}");
    }
    // A job may write files as long as the daemon might; the lengths of outputs in memory are checked by the runtime.
    process::limit_file_size(None).context("cannot lift the limit of file size")?;
    panics::install();
    // If the parent died before PDEATHSIG was set, the lane is closed and the first receive reports it.
    match connect(&lane, registry) {
        Ok(None) => Ok(None),
        Ok(Some((ring, channel, handlers, stack_page))) => {
            let runtime = Runtime::new(lane, ring, channel, handlers).with_stack_page(stack_page);
            Ok(Some(runtime.with_loader(registry.loader()).with_idle_work(registry.idle_work())))
        }
        Err(error) => {
            say_why(&lane, &error);
            Err(error)
        }
    }
}

/// What [`Runtime::new`] needs: the ring and its doorbell, the task channel, and the handler of each kind; and the page for its
/// stack.
type ReadyParts = ((WorkerRing, Bell), Channel, Vec<Option<KindHandler>>, Option<&'static StackPage>);

/// `None` if the supervisor has ended.
fn connect(lane: &Lane, registry: &Registry) -> Result<Option<ReadyParts>> {
    let Some((frame, mut pages)) = early_files::receive(lane)? else { return Ok(None) };
    let LaneDown::Setup(setup) = frame else { bail!("the first frame is no setup") };
    // The last of three; that two pages are left is checked by who maps them.
    let doorbell = Bell::adopt(pages.pop().context("the setup brings no descriptors")?)
        .context("cannot move the doorbell")?;
    let ring = WorkerRing::map(&pages).context("cannot map box and orders")?;
    // A crash before this leaves its exit status alone: there is no page yet that could say more.
    WorkerRing::install_crash_handler(&pages).context("cannot catch the signals that would end it")?;
    let handlers = resolve(registry, &setup);
    let (server, path) = boot_folder::listen().context("cannot open the task channel")?;
    let (missing, stack_text) = (missing(&setup, &handlers), registry.stack_text());
    lane.send(&codec::encode(&LaneUp::Hello { path, missing, stack_text }), &[])
        .context("cannot say hello")?;
    let stack_page = match stack_text {
        StackText::Never => None,
        StackText::AtDeath | StackText::WhenAsked => {
            let Some(page) = receive_stack_page(lane)? else { return Ok(None) };
            registry.prepare_stack_text(page, &pages).context("cannot prepare the text of its stack")?;
            WorkerRing::install_crash_handler_again().context("cannot catch signals again")?;
            Some(page)
        }
    };
    let channel = server.accept().context("the supervisor did not connect")?;
    if !setup.may_be_traced {
        // The supervisor opens this process's files of /proc before it connects. From now on other processes of this user
        // may not open them.
        process::set_not_dumpable().context("cannot forbid others to trace this process")?;
    }
    log::debug!("worker is up worker={} pid={}", setup.worker, std::process::id());
    Ok(Some(((ring, doorbell), channel, handlers, stack_page)))
}

/// The page for the text of its stack, which is there as long as this process; `None` if the supervisor has ended.
fn receive_stack_page(lane: &Lane) -> Result<Option<&'static StackPage>> {
    let Some((frame, mut descriptors)) = early_files::receive(lane)? else { return Ok(None) };
    let page = descriptors.pop().filter(|_| frame == LaneDown::StackPage && descriptors.is_empty());
    let page = page.context("the frame after the hello brings no page")?;
    let page = StackPage::map(page).context("cannot map the page for the text of its stack")?;
    Ok(Some(Box::leak(Box::new(page))))
}

/// Sends the reason on the lane, because an exit code cannot tell it. A failed send is ignored: the supervisor is gone
/// then.
fn say_why(lane: &Lane, error: &Error) {
    let mut why = format!("{error:#}");
    why.truncate(why.floor_char_boundary(TEXT_MAX_BYTES));
    drop(lane.send(&codec::encode(&LaneUp::NotUp { why }), &[]));
}

/// The handler of each kind in the daemon's table. `chaos` gets none unless the daemon allows it.
fn resolve(registry: &Registry, setup: &Setup) -> Vec<Option<KindHandler>> {
    let allowed = |name: &str| setup.enable_chaos || name != CHAOS;
    setup.kinds.iter().map(|name| registry.find(name).filter(|_| allowed(name))).collect()
}

/// The kinds of the table that this program has no handler for. A kind without a name belongs to another pool.
fn missing(setup: &Setup, handlers: &[Option<KindHandler>]) -> Vec<KindId> {
    let numbered = (0..).map(KindId).zip(setup.kinds.iter().zip(handlers));
    let lacks = |(kind, (name, handler)): (KindId, (&String, &Option<KindHandler>))| {
        (!name.is_empty() && handler.is_none()).then_some(kind)
    };
    numbered.filter_map(lacks).collect()
}
