//! Spawns one worker process with its lane, box, orders, doorbell, boot folder and setup.
//!
//! If any step fails, nothing is left behind: no process, no folder, no descriptor. It waits for posix_spawn(3)
//! alone; all that a worker does to start is awaited by the loop, with a deadline. Called by `worker_table.rs` and
//! `config_check.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bulkhead_link::supervisor::Ring;
use bulkhead_proto::client::evidence::ProgramFile;
use bulkhead_proto::codec;
use bulkhead_proto::ids::{KindId, PoolId, WorkerId};
use bulkhead_proto::kind;
use bulkhead_proto::limits::PROGRAM_PATH_MAX_BYTES;
use bulkhead_proto::worker::message::{LaneDown, Setup};
use bulkhead_sys::bell::Bell;
use bulkhead_sys::clock;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::mark::Marks;
use bulkhead_sys::spawn::Spawn;
use bulkhead_sys::spawner::Spawner;
use bulkhead_sys::tree::Tree;

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::boot_folder::{BootFolder, BootRoot};
use crate::copies_cleaner::CopiesCleaner;
use crate::deferred_close::DeferredClose;
use crate::sampling::WorkerSampler;
use crate::settings::{Mode, PoolProgram, Settings};
use crate::worker_process::WorkerProcess;
use crate::worker_stage::ReachedStage;
use crate::worker_table::registrations::ToldUnclosed;

/// No worker is started while this many lanes and channels of dead workers wait to be closed.
pub(crate) const LEFT_MAX: usize = 16;

/// What all workers of this daemon have in common.
#[derive(Debug)]
pub(crate) struct WorkerTemplate {
    /// What workers run, for each pool.
    pub(crate) programs: Vec<PoolProgram>,
    /// Where boot folders are made.
    pub(crate) boot_root: BootRoot,
    /// The table of kinds: the name of each, and the pool that runs it.
    pub(crate) kinds: Vec<(String, PoolId)>,
    /// Whether the `chaos` kind is offered.
    pub(crate) enable_chaos: bool,
    /// Whether debuggers and profilers of the same user may look into workers. Not in system mode, where a job's data is not
    /// for other processes of the service's user.
    pub(crate) may_be_traced: bool,
    /// Removes the copies of files that dead workers left.
    pub(crate) copies: CopiesCleaner,
    /// Most bytes that such copies may have.
    pub(crate) copies_bytes_max: u64,
    /// The marks that tell the descendants of one worker from those of another.
    pub(crate) marks: Marks,
    /// Closes lanes and channels in which workers left descriptors.
    pub(crate) closer: BackgroundCloser,
    /// The thread that spawns processes. It holds no descriptor of a client.
    pub(crate) spawner: Spawner,
}

impl WorkerTemplate {
    /// A template for workers of a daemon with these settings.
    pub(crate) fn new(
        settings: &Settings,
        boot_root: BootRoot,
        closer: BackgroundCloser,
        spawner: Spawner,
    ) -> Self {
        let core = &settings.core;
        Self {
            programs: settings.worker_programs.clone(),
            boot_root,
            kinds: core.kinds.iter().map(|kind| (kind.name.clone(), core.pool_of(kind))).collect(),
            enable_chaos: settings.enable_chaos,
            may_be_traced: settings.mode != Mode::System,
            copies: CopiesCleaner::new(settings.copies.clone()),
            copies_bytes_max: settings.copies_bytes_max,
            marks: Marks::new(core.seed),
            closer,
            spawner,
        }
    }

    /// Has the copies removed that dead workers left, if these can have made any.
    pub(crate) fn clean_copies(&self) {
        if self.kinds.iter().any(|(name, _)| name == kind::EXEC) {
            self.copies.clean_in_thread();
        }
    }

    /// The name of a kind, if its number is in the table: the numbers come from workers.
    fn kind_name(&self, kind: KindId) -> Option<&str> {
        self.kinds.get(usize::from(kind.0)).map(|(name, _)| name.as_str())
    }

    /// The error text for a worker program that lacks these kinds.
    pub(crate) fn describe_missing_kinds(&self, program: Option<&ProgramFile>, missing: &[KindId]) -> String {
        let names: Vec<&str> = missing.iter().filter_map(|kind| self.kind_name(*kind)).collect();
        let path = program.map(|program| format!(" {}", program.path)).unwrap_or_default();
        let is_own = |name: &&str| kind::builtin(true).iter().all(|known| known.name != **name);
        let advice = match names.iter().find(|name| is_own(name)) {
            Some(own) => format!("write [kinds.{own}] as the program names it"),
            None => "set builtin_kinds = false".to_owned(),
        };
        let (kinds, it) = if names.len() == 1 { ("kind", "it") } else { ("kinds", "them") };
        let names = names.join(", ");
        format!(
            "the worker program{path} does not offer the {kinds} {names}: {advice}, or give {it} a pool whose program \
             has {it}"
        )
    }

    /// The table of kinds for a worker of this pool. Kinds of other pools have empty names.
    fn kinds_of(&self, pool: PoolId) -> Vec<String> {
        let told = |(name, home): &(String, PoolId)| if *home == pool { name.clone() } else { String::new() };
        self.kinds.iter().map(told).collect()
    }

    /// Spawns a worker for a pool and sends its setup.
    ///
    /// 1. The supervisor creates lane, box, orders and a boot folder with mode 0700, and the spawner thread calls
    ///    posix_spawn(3) with the lane as standard input. That thread has no other descriptor open; a fork of a large
    ///    supervisor would take tens of milliseconds. The setup with both pages and the doorbell is sent on the lane.
    /// 2. The worker replaces its standard input by /dev/null, asks to die with its parent (PR_SET_PDEATHSIG), raises its OOM
    ///    score, lifts its limit of file size, maps the box for writing and the orders for reading, opens an ipc-channel
    ///    one-shot server in the boot folder, and sends its path in a hello.
    /// 3. The loop opens the worker's files of /proc (`sampling.rs`). A bootstrap thread checks the path, connects, and sends
    ///    an empty message (`link/supervisor/connect.rs`). The worker accepts, then, in system mode, makes itself not dumpable.
    ///
    /// A worker that takes longer than its deadline is killed, which ends every wait in these steps, and replaced
    /// with backoff.
    ///
    /// # Errors
    /// What is missing: a descriptor, memory, a process, the program, a place for the boot folder.
    pub(crate) fn spawn(&self, id: WorkerId, pool: PoolId) -> Result<WorkerProcess> {
        self.check_close_backlog()?;
        let (lane, theirs) = Lane::pair().context("cannot create a lane")?;
        let lane = DeferredClose::new(lane, self.closer.clone());
        let (ring, descriptors) = Ring::create().context("cannot create box and orders")?;
        let doorbell = Bell::new().context("cannot create a doorbell")?;
        let folder = self.make_folder(id)?;
        let (kinds, enable_chaos, may_be_traced) =
            (self.kinds_of(pool), self.enable_chaos, self.may_be_traced);
        let setup = LaneDown::Setup(Setup { worker: id, kinds, enable_chaos, may_be_traced });
        let of_pool = self.programs.get(usize::from(pool.0)).context("the pool has no program")?;
        let path = of_pool.path.as_path();
        let passed = [descriptors.box_page.as_fd(), descriptors.orders_page.as_fd(), doorbell.as_fd()];
        // Identified before the spawn: if the file is replaced meanwhile, it will not be taken for the one that ran.
        let program = identify(path);
        let env = of_pool.environment(self.own_variables(&folder));
        let process = self
            .spawner
            .spawn(Spawn { program: path, args: &of_pool.args, env: &env, stdin: theirs })
            .with_context(|| format!("cannot start {}", path.display()))?;
        let is_marked = self.mark(id, process.pid());
        // The worker waits for its setup, so it has no children yet and the mark reaches all of them.
        let sampler = WorkerSampler::of(&process);
        let tree = Tree::new(process);
        match lane.send(&codec::encode(&setup), &passed) {
            Ok(()) => {}
            // The worker is dead or has closed its lane. Its death will say more than this error.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                // As an unknown child it is reaped with the orphans.
                drop(tree.kill());
                return Err(error).context("cannot send the setup on the lane");
            }
        }
        Ok(WorkerProcess {
            id,
            is_marked,
            marks: self.marks,
            tree,
            sampler,
            lane,
            ring,
            stack_page: None,
            writes_stack: false,
            is_asked: false,
            reached: ReachedStage::starting(),
            folder,
            offer_files: BTreeMap::new(),
            arena: None,
            arena_offers: Vec::new(),
            unsent_answer: None,
            registered: BTreeSet::new(),
            unsent_forgets: VecDeque::new(),
            waits_for_lane: false,
            spawned_ns: clock::monotonic_ns(),
            program,
            killed_ns: None,
            is_hung_up: false,
            disputed: Vec::new(),
            has_forgotten: false,
            told_unclosed: ToldUnclosed::None,
            doorbell,
            naps: 0,
            rings: 0,
            last_elapsed_ns: None,
        })
    }

    /// Refuses to spawn while [`LEFT_MAX`] lanes and channels of dead workers wait to be closed.
    fn check_close_backlog(&self) -> Result<()> {
        let left = self.closer.waiting(CloseOwner::Workers);
        ensure!(
            left < LEFT_MAX,
            "{left} lanes and channels of dead workers wait to be closed (limit {LEFT_MAX}): to close the \
             descriptors that these left in them takes long"
        );
        Ok(())
    }

    /// Marks a new worker before it has children. `false`: it could not be marked, so its strays count as unmarked.
    fn mark(&self, id: WorkerId, pid: u32) -> bool {
        let marked = self.marks.put(pid, id.0);
        if let Err(error) = &marked {
            log::debug!(
                "cannot mark a worker: its strays cannot be told from others' worker={id} error={error}"
            );
        }
        marked.is_ok()
    }

    fn make_folder(&self, id: WorkerId) -> Result<BootFolder> {
        let root = &self.boot_root;
        root.make(id).with_context(|| format!("cannot make a boot folder in {}", root.path().display()))
    }

    /// The values of the variables that the daemon sets for each worker.
    fn own_variables(&self, folder: &BootFolder) -> [OsString; 3] {
        [folder.path().into(), self.copies.place().into(), self.copies_bytes_max.to_string().into()]
    }
}

/// Identifies the program file for a later lookup of stack frames. `None` if its path is too long or not UTF-8.
fn identify(path: &Path) -> Option<ProgramFile> {
    let name = path.to_str().filter(|name| name.len() <= PROGRAM_PATH_MAX_BYTES)?;
    let file = std::fs::metadata(path).ok()?;
    let modified_ns = file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec());
    Some(ProgramFile { path: name.to_owned(), inode: file.ino(), bytes: file.len(), modified_ns })
}
