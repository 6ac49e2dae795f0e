//! Brings one worker process into being: lane, box, orders, boot folder, process, setup.
//!
//! Whatever fails on the way, nothing is left behind: no process without a worker, no folder, no descriptor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bulkhead_link::supervisor::Ring;
use bulkhead_proto::client::evidence::Program;
use bulkhead_proto::codec;
use bulkhead_proto::ids::{KindId, PoolId, WorkerId};
use bulkhead_proto::kind;
use bulkhead_proto::limits::PROGRAM_PATH_MAX_BYTES;
use bulkhead_proto::worker::message::{LaneDown, Setup};
use bulkhead_sys::clock;
use bulkhead_sys::lane::Lane;
use bulkhead_sys::mark::Marks;
use bulkhead_sys::spawn::Spawn;
use bulkhead_sys::spawner::Spawner;
use bulkhead_sys::tree::Tree;

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::boot_folder::BootFolder;
use crate::deferred_close::DeferredClose;
use crate::sampling::WorkerSampler;
use crate::settings::Settings;
use crate::worker_process::{WorkerProcess, WorkerStage};

/// Lanes and channels of dead workers that may wait to be closed before no more workers are started.
pub(crate) const LEFT_MAX: usize = 16;

/// What every worker of this daemon is made from.
#[derive(Debug)]
pub(crate) struct WorkerTemplate {
    /// The programs, one for each pool.
    pub(crate) programs: Vec<PathBuf>,
    /// Where boot folders are made.
    pub(crate) boot_folder: PathBuf,
    /// The table of kinds: the name of each, and the pool that runs it.
    pub(crate) kinds: Vec<(String, PoolId)>,
    /// Whether `chaos` may run.
    pub(crate) enable_chaos: bool,
    /// What tells the offspring of one worker from that of another.
    pub(crate) marks: Marks,
    /// Where lanes and channels go in which their workers left something.
    pub(crate) closer: BackgroundCloser,
    /// The thread that makes the processes: it has no file of a client.
    pub(crate) spawner: Spawner,
}

impl WorkerTemplate {
    /// For the workers of a daemon with these settings, whose boot folders are made in this one.
    pub(crate) fn new(
        settings: &Settings,
        boot_folder: PathBuf,
        closer: BackgroundCloser,
        spawner: Spawner,
    ) -> Self {
        let core = &settings.core;
        Self {
            programs: settings.worker_programs.clone(),
            boot_folder,
            kinds: core.kinds.iter().map(|kind| (kind.name.clone(), core.pool_of(kind))).collect(),
            enable_chaos: settings.enable_chaos,
            marks: Marks::new(core.seed),
            closer,
            spawner,
        }
    }

    /// The name of a kind of the table; a worker may name others.
    fn kind_name(&self, kind: KindId) -> Option<&str> {
        self.kinds.get(usize::from(kind.0)).map(|(name, _)| name.as_str())
    }

    /// What is wrong with the program of a worker that does not offer these kinds.
    pub(crate) fn describe_missing_kinds(&self, program: Option<&Program>, missing: &[KindId]) -> String {
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

    /// What a worker of this pool is told of the kinds: it need not know those of others.
    fn kinds_of(&self, pool: PoolId) -> Vec<String> {
        let told = |(name, home): &(String, PoolId)| if *home == pool { name.clone() } else { String::new() };
        self.kinds.iter().map(told).collect()
    }

    /// A new process for a pool, with its setup on its lane.
    ///
    /// # Errors
    /// What could not be had: a descriptor, memory, a process, the program, a place for its folder.
    pub(crate) fn spawn(&self, id: WorkerId, pool: PoolId) -> Result<WorkerProcess> {
        self.check_close_backlog()?;
        let (lane, theirs) = Lane::pair().context("no lane")?;
        let lane = DeferredClose::new(lane, self.closer.clone());
        let (ring, descriptors) = Ring::create().context("no box")?;
        let folder = self.make_folder(id)?;
        let (kinds, enable_chaos) = (self.kinds_of(pool), self.enable_chaos);
        let setup = LaneDown::Setup(Setup { worker: id, kinds, enable_chaos });
        let path = self.programs.get(usize::from(pool.0)).context("the pool has no program")?;
        let pages = [descriptors.box_page.as_fd(), descriptors.orders_page.as_fd()];
        // Before the start: a file that is replaced meanwhile is then known not to be the one that ran.
        let program = identify(path);
        let process = self
            .spawner
            .spawn(Spawn { program: path, args: &[], env: &self.environment(&folder), stdin: theirs })
            .with_context(|| format!("cannot start {}", path.display()))?;
        let is_marked = self.mark(id, process.pid());
        // It goes on when it has its setup: until then it has no children.
        let sampler = WorkerSampler::of(&process);
        let tree = Tree::new(process);
        match lane.send(&codec::encode(&setup), &pages) {
            Ok(()) => {}
            // It is dead already, or as good as that: its death tells how, and this error would not.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                // As a child that nobody knows it is reaped with the orphans.
                drop(tree.kill());
                return Err(error).context("no room on the lane");
            }
        }
        Ok(WorkerProcess {
            id,
            is_marked,
            tree,
            sampler,
            lane,
            ring,
            stage: WorkerStage::Starting,
            folder,
            offer_files: BTreeMap::new(),
            spawned_ns: clock::monotonic_ns(),
            program,
            killed: None,
            is_hung_up: false,
            retired: false,
            disputed: Vec::new(),
            naps: 0,
            doorbells: 0,
            last_elapsed_ns: None,
        })
    }

    /// A worker that leaves something in its lane or channel leaves them behind as well.
    fn check_close_backlog(&self) -> Result<()> {
        let left = self.closer.waiting(CloseOwner::Workers);
        ensure!(
            left < LEFT_MAX,
            "{left} lanes and channels of dead workers wait to be closed (limit {LEFT_MAX}): what these left in them \
             takes long"
        );
        Ok(())
    }

    /// Marks a new worker, before it can have children. `false`: not to be had, its strays will be anybody's.
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
        let path = self.boot_folder.join(format!("w{id}"));
        BootFolder::make(path.clone()).with_context(|| format!("cannot make boot folder {}", path.display()))
    }

    fn environment(&self, folder: &BootFolder) -> Vec<(&'static str, OsString)> {
        let mut environment = vec![
            ("TMPDIR", folder.0.clone().into_os_string()),
            ("RUST_BACKTRACE", OsString::from("0")),
            ("PATH", OsString::from("/usr/bin:/bin")),
        ];
        environment.extend(std::env::var_os("BULKHEAD_LOG").map(|level| ("BULKHEAD_LOG", level)));
        environment
    }
}

/// The file that a worker is started from, for whoever looks its frames up. `None` when it cannot be named.
fn identify(path: &Path) -> Option<Program> {
    let name = path.to_str().filter(|name| name.len() <= PROGRAM_PATH_MAX_BYTES)?;
    let file = std::fs::metadata(path).ok()?;
    let modified_ns = file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec());
    Some(Program { path: name.to_owned(), inode: file.ino(), bytes: file.len(), modified_ns })
}
