//! The settings of the daemon, merged from defaults, the config file with its `conf.d`, and the command line.
//!
//! An unknown key or a value out of range is an error that names file and key: a limit that is silently ignored would
//! not hold. Read once, by `lib.rs`.

mod bounds;
mod journal;
mod kinds;
mod policy;
mod pools;
mod programs;
mod sources;
mod streams;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_core::config::{LoweredBounds, Users};
use bulkhead_proto::client::places;
use bulkhead_proto::limits::SOCKET_PATH_MAX_BYTES;
use bulkhead_proto::worker::copies;
use bulkhead_sys::socket;
use bulkhead_sys::spawner::ChildStreams;
use serde::Deserialize;

use crate::args::DaemonArgs;
use crate::descriptor_budget::DescriptorBudget;
use crate::socket_place::SocketPlace;
pub(crate) use journal::JournalChoice;
use kinds::OwnKind;
use policy::HostFacts;
use pools::OwnPool;
use programs::EnvSetting;
pub(crate) use programs::PoolProgram;
use sources::ConfigSources;
pub(crate) use streams::PassedStreams;
use streams::StreamSetting;

/// Whether the daemon serves one user or a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Serves the user who started it: only that user and root may connect.
    #[default]
    User,
    /// Serves the members of a group. Its own user may not connect, because jobs run as that user.
    System,
}

/// The config file. All keys are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    mode: Option<Mode>,
    socket: Option<PathBuf>,
    state: Option<PathBuf>,
    workers: Option<u64>,
    spares: Option<u64>,
    lend_max: Option<u16>,
    lend_after_seconds: Option<u64>,
    running_max: Option<u16>,
    one_user: Option<bool>,
    enable_chaos: Option<bool>,
    group: Option<String>,
    admin_group: Option<String>,
    grace_seconds: Option<u64>,
    clients_max: Option<u64>,
    queue_max: Option<u64>,
    queue_bytes_max: Option<u64>,
    keep_seconds: Option<u64>,
    keep_jobs_max: Option<u64>,
    keep_bytes_max: Option<u64>,
    keep_outputs_max: Option<u64>,
    outputs_bytes_max: Option<u64>,
    files_max: Option<u64>,
    files_bytes_max: Option<u64>,
    arena_bytes_max: Option<u64>,
    copies_bytes_max: Option<u64>,
    journal_folder: Option<PathBuf>,
    journal_keep_seconds: Option<u64>,
    journal_keep_jobs_max: Option<u64>,
    journal_keep_bytes_max: Option<u64>,
    journal_queue_max: Option<u64>,
    journal_queue_bytes_max: Option<u64>,
    worker_program: Option<PathBuf>,
    worker_args: Option<Vec<String>>,
    worker_env: Option<EnvSetting>,
    worker_stdout: Option<StreamSetting>,
    worker_stderr: Option<StreamSetting>,
    builtin_kinds: Option<bool>,
    pools: BTreeMap<String, OwnPool>,
    kinds: BTreeMap<String, OwnKind>,
    stuck_after_seconds: Option<u64>,
    restart_intensity: Option<u32>,
    restart_period_seconds: Option<u64>,
    backoff_min_ms: Option<u64>,
    backoff_max_ms: Option<u64>,
    timeout_seconds: Option<u64>,
    timeout_max_seconds: Option<u64>,
    no_progress_seconds: Option<u64>,
    no_progress_max_seconds: Option<u64>,
    cpu_seconds: Option<u64>,
    cpu_max_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    memory_max_bytes: Option<u64>,
    stopped_seconds: Option<u64>,
    program_stopped_seconds: Option<u64>,
    recycle_tasks: Option<u64>,
    recycle_age_seconds: Option<u64>,
    recycle_resident_bytes: Option<u64>,
    recycle_strict: Option<bool>,
}

impl File {
    /// The limits of the daemon.
    fn limits(&self) -> bounds::LimitKeys {
        bounds::LimitKeys {
            timeout: (self.timeout_seconds, self.timeout_max_seconds),
            no_progress: (self.no_progress_seconds, self.no_progress_max_seconds),
            cpu: (self.cpu_seconds, self.cpu_max_seconds),
            memory: (self.memory_bytes, self.memory_max_bytes),
        }
    }
}

/// How long a user waits while others hold all workers of a pool before it lends one, in seconds.
fn lend_after_seconds(file: &File) -> u64 {
    file.lend_after_seconds.unwrap_or(5)
}

/// All settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) socket: SocketPlace,
    pub(crate) state: PathBuf,
    pub(crate) group: String,
    pub(crate) admin_group: String,
    pub(crate) grace_ms: u64,
    pub(crate) clients_max: usize,
    /// What the workers of each pool run.
    pub(crate) worker_programs: Vec<PoolProgram>,
    /// Where standard output and standard error of all workers go.
    pub(crate) worker_streams: ChildStreams,
    pub(crate) enable_chaos: bool,
    pub(crate) private: bool,
    /// Whether a private daemon removes the folder of its socket when its parent is gone.
    pub(crate) own_folder: bool,
    /// Whether a private daemon says that it is ready before its first worker is.
    pub(crate) ready_when_listening: bool,
    /// Where workers copy files of jobs to.
    pub(crate) copies: PathBuf,
    pub(crate) copies_bytes_max: u64,
    pub(crate) journal: JournalChoice,
    pub(crate) core: bulkhead_core::config::Config,
}

impl Settings {
    /// Merges all sources.
    pub(crate) fn gather(args: DaemonArgs, passed: PassedStreams) -> Result<Self> {
        let sources = args.config.as_deref().map(ConfigSources::read).transpose()?.unwrap_or_default();
        let file = &sources.whole;
        let mode = file.mode.unwrap_or_default();
        let enable_chaos = args.enable_chaos || file.enable_chaos.unwrap_or(false);
        let here = HostFacts::look(args.private);
        let state = absolute(args.state.or(file.state.clone()).map_or_else(|| default_state(mode), Ok)?)?;
        let mut settings = Self {
            mode,
            socket: socket_place(args.socket.or(file.socket.clone()), mode)?,
            copies: if args.own_folder { copies_of_a_command(&state) } else { state.clone() },
            copies_bytes_max: file.copies_bytes_max.unwrap_or(copies::MAX_BYTES_USUAL),
            journal: sources.judged(|file| journal::choice(file, &state, args.private))?,
            state,
            group: file.group.clone().unwrap_or_else(|| places::GROUP.to_owned()),
            admin_group: file.admin_group.clone().unwrap_or_else(|| places::ADMIN_GROUP.to_owned()),
            grace_ms: file.grace_seconds.unwrap_or(30).saturating_mul(1000),
            clients_max: usize::try_from(file.clients_max.unwrap_or(4096)).unwrap_or(usize::MAX),
            worker_programs: sources.judged(|file| programs::programs(file, args.private))?,
            worker_streams: passed.or([
                file.worker_stdout.unwrap_or(StreamSetting::Null),
                file.worker_stderr.unwrap_or(StreamSetting::Stderr),
            ]),
            enable_chaos,
            private: args.private,
            own_folder: args.own_folder,
            ready_when_listening: args.ready_when_listening,
            core: sources.judged(|file| policy::core_config(file, args.workers, enable_chaos, &here))?,
        };
        settings.core.users = if mode == Mode::System { Users::Several } else { Users::One };
        if mode == Mode::System {
            // Clients and workers are different users there, and neither maps what the other writes.
            settings.core.arena_bytes_max = 0;
        }
        settings.check()?;
        Ok(settings)
    }

    /// Lowers limits to the number of descriptors that this process may open. Returns how many each use may have
    /// open.
    ///
    /// # Errors
    /// They are too few for the workers.
    pub(crate) fn share_descriptors(&mut self, limit: u64) -> Result<DescriptorBudget> {
        let wanted = DescriptorBudget {
            clients: self.clients_max,
            outputs: usize::MAX,
            kept_outputs: self.core.keep_outputs_max,
            files: usize::MAX,
            kept_files: self.core.files_max,
            unread: u64::MAX,
        };
        let budget = DescriptorBudget::share(limit, self.core.all_pools(), &wanted)?;
        if budget.clients < wanted.clients {
            log::warn!("limit of open files is low limit={limit} clients_max={}", budget.clients);
        }
        // Logs take descriptors from the budget of outputs; most of it stays for outputs.
        let (logs, logs_usual) = (budget.kept_outputs / 4, self.core.keep_logs_max);
        self.core.lowered = LoweredBounds {
            clients: budget.clients < wanted.clients,
            files: budget.kept_files < wanted.kept_files,
            keep_outputs: budget.kept_outputs < wanted.kept_outputs,
            keep_logs: logs < logs_usual,
        };
        self.clients_max = budget.clients;
        self.core.keep_outputs_max = budget.kept_outputs;
        self.core.open_outputs_max = budget.counted_outputs();
        self.core.keep_logs_max = logs.min(logs_usual);
        self.core.files_max = budget.kept_files;
        Ok(budget)
    }

    fn check(&self) -> Result<()> {
        // A usual place with a longer path is passed over.
        let SocketPlace::Named(path) = &self.socket else { return Ok(()) };
        let length = path.as_os_str().len();
        ensure!(
            length <= SOCKET_PATH_MAX_BYTES,
            "socket path {} is {length} bytes long, the limit is {SOCKET_PATH_MAX_BYTES}: choose a shorter one with --socket",
            path.display()
        );
        Ok(())
    }
}

/// Parses a whole config and returns the core's configuration for a machine with one core.
///
/// # Errors
/// The text is no TOML, has an unknown key, or a value is out of range.
pub(crate) fn core_config_of(text: &str) -> Result<bulkhead_core::config::Config> {
    let file: File = toml::from_str(text)?;
    let enable_chaos = file.enable_chaos.unwrap_or(false);
    let here = HostFacts { pid: 0, seed: 0, cores: 1, memory_bytes: 0, is_private: false };
    journal::choice(&file, Path::new("/"), false)?;
    policy::core_config(&file, None, enable_chaos, &here)
}

fn socket_place(named: Option<PathBuf>, mode: Mode) -> Result<SocketPlace> {
    let named = match (named, mode) {
        (Some(path), _) => path,
        (None, Mode::System) => PathBuf::from(places::SYSTEM_SOCKET),
        (None, Mode::User) => return Ok(SocketPlace::FirstOf(usual_places())),
    };
    absolute(named).map(SocketPlace::Named)
}

fn usual_places() -> Vec<places::OwnPlace> {
    let [runtime_dir, state_home, home] = ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"].map(std::env::var_os);
    places::own_places(&places::PlaceContext {
        runtime_dir: runtime_dir.as_deref(),
        state_home: state_home.as_deref(),
        home: home.as_deref(),
        uid: socket::own_uid(),
    })
}

fn default_state(mode: Mode) -> Result<PathBuf> {
    if mode == Mode::System {
        return Ok(PathBuf::from("/var/lib/bulkhead"));
    }
    user_state(std::env::var_os("XDG_STATE_HOME").as_deref(), std::env::var_os("HOME").as_deref())
}

/// A relative `XDG_STATE_HOME` is ignored, as the XDG base directory specification says; a relative `HOME` is an
/// error, because the state folder would depend on where the daemon was started.
fn user_state(xdg_state: Option<&OsStr>, home: Option<&OsStr>) -> Result<PathBuf> {
    if let Some(state) = places::user_state(xdg_state, home) {
        return Ok(state);
    }
    let home = home.context("no state folder: set --state, XDG_STATE_HOME or HOME")?;
    bail!("HOME is {home:?}, not an absolute path: set --state, XDG_STATE_HOME or HOME")
}

/// The daemon of one command has its state where its socket is, often in memory. Its copies go where the command makes
/// its own: the folder of `TMPDIR`, else /var/tmp.
fn copies_of_a_command(state: &Path) -> PathBuf {
    let named = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = named.unwrap_or_else(|| PathBuf::from("/var/tmp"));
    if folder.is_dir() { folder } else { state.to_owned() }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("bad path {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bulkhead_core::account::{BoundOrigin, Resource};

    use super::*;

    /// Above what each key may be at least, and no more than any may be.
    #[test]
    fn each_key_that_a_bound_names_is_a_key_of_the_config() {
        for resource in Resource::ALL {
            if let BoundOrigin::Key(key) = resource.origin() {
                core_config_of(&format!("{key} = 200000000")).unwrap();
            }
        }
    }

    #[test]
    fn a_relative_folder_is_no_place_for_state() {
        let state =
            |xdg: Option<&str>, home: Option<&str>| user_state(xdg.map(OsStr::new), home.map(OsStr::new));
        assert_eq!(state(Some("/x"), Some("/h")).unwrap(), Path::new("/x/bulkhead"));
        for none in [None, Some(""), Some("relative")] {
            assert_eq!(state(none, Some("/h")).unwrap(), Path::new("/h/.local/state/bulkhead"));
        }
        assert!(state(None, Some("relative")).unwrap_err().to_string().contains("\"relative\""));
        assert!(state(None, None).unwrap_err().to_string().contains("--state"));
    }
}
