//! What this daemon was told: defaults, then the config file and its `conf.d`, then the command line.
//!
//! An unknown key or a value out of range is an error that names file and key: a daemon that quietly ignores a
//! limit does not have it.

mod bounds;
mod kinds;
mod policy;
mod pools;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use bulkhead_proto::places;
use bulkhead_sys::socket;
use serde::Deserialize;

use crate::args::Args;
use crate::budget::Budget;
use kinds::OwnKind;
use policy::Here;
use pools::OwnPool;

/// Longest socket path: below it a worker's folder and its ipc-channel socket must still fit `sun_path`.
const SOCKET_PATH_MAX_BYTES: usize = 64;

/// For whom the daemon runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// For the user who started it: nobody else and root may connect.
    #[default]
    User,
    /// For the members of a group; never for its own user, under which the jobs run.
    System,
}

/// The config file. Every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    mode: Option<Mode>,
    socket: Option<PathBuf>,
    state: Option<PathBuf>,
    workers: Option<u64>,
    spares: Option<u64>,
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
    files_max: Option<u64>,
    files_bytes_max: Option<u64>,
    worker_program: Option<PathBuf>,
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
    recycle_tasks: Option<u64>,
    recycle_age_seconds: Option<u64>,
    recycle_resident_bytes: Option<u64>,
}

impl File {
    /// The limits of the daemon.
    fn limits(&self) -> bounds::Keys {
        bounds::Keys {
            timeout: (self.timeout_seconds, self.timeout_max_seconds),
            no_progress: (self.no_progress_seconds, self.no_progress_max_seconds),
            cpu: (self.cpu_seconds, self.cpu_max_seconds),
            memory: (self.memory_bytes, self.memory_max_bytes),
        }
    }
}

/// Everything that was decided before the daemon starts.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) socket: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) group: String,
    pub(crate) admin_group: String,
    pub(crate) grace_ms: u64,
    pub(crate) clients_max: usize,
    /// What the workers of each pool run.
    pub(crate) worker_programs: Vec<PathBuf>,
    pub(crate) enable_chaos: bool,
    pub(crate) private: bool,
    /// Whether the socket's folder goes with a private daemon whose parent is gone.
    pub(crate) own_folder: bool,
    pub(crate) core: bulkhead_core::config::Config,
}

impl Settings {
    /// Puts all sources together.
    pub(crate) fn gather(args: Args) -> Result<Self> {
        let file = match &args.config {
            Some(path) => read_all(path)?,
            None => File::default(),
        };
        let mode = file.mode.unwrap_or_default();
        let enable_chaos = args.enable_chaos || file.enable_chaos.unwrap_or(false);
        let settings = Self {
            mode,
            socket: absolute(args.socket.or(file.socket.clone()).unwrap_or_else(|| default_socket(mode)))?,
            state: absolute(args.state.or(file.state.clone()).map_or_else(|| default_state(mode), Ok)?)?,
            group: file.group.clone().unwrap_or_else(|| places::GROUP.to_owned()),
            admin_group: file.admin_group.clone().unwrap_or_else(|| places::ADMIN_GROUP.to_owned()),
            grace_ms: file.grace_seconds.unwrap_or(30).saturating_mul(1000),
            clients_max: usize::try_from(file.clients_max.unwrap_or(4096)).unwrap_or(usize::MAX),
            worker_programs: pools::programs(&file)?,
            enable_chaos,
            private: args.private,
            own_folder: args.own_folder,
            core: policy::core_config(&file, args.workers, enable_chaos, &Here::look())?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Fits what may be held to the number of descriptors that this process may open. Gives how many of what may be
    /// open at a time.
    ///
    /// # Errors
    /// They do not suffice for the workers.
    pub(crate) fn share_descriptors(&mut self, limit: u64) -> Result<Budget> {
        let wanted = Budget {
            clients: self.clients_max,
            outputs: usize::MAX,
            kept_outputs: self.core.keep_outputs_max,
            files: usize::MAX,
            kept_files: self.core.files_max,
        };
        let budget = Budget::share(limit, self.core.all_pools(), &wanted)?;
        if budget.clients < wanted.clients {
            log::warn!("limit of open files is low limit={limit} clients_max={}", budget.clients);
        }
        self.clients_max = budget.clients;
        self.core.keep_outputs_max = budget.kept_outputs;
        // Held beside the outputs, from the same budget: most of it stays for these.
        self.core.keep_logs_max = self.core.keep_logs_max.min(budget.kept_outputs / 4);
        self.core.files_max = budget.kept_files;
        Ok(budget)
    }

    fn check(&self) -> Result<()> {
        let length = self.socket.as_os_str().len();
        ensure!(
            length <= SOCKET_PATH_MAX_BYTES,
            "socket path {} is {length} bytes long, the limit is {SOCKET_PATH_MAX_BYTES}: choose a shorter one with --socket",
            self.socket.display()
        );
        Ok(())
    }
}

/// What the core would be told if this were the whole config, on a machine with one core.
///
/// # Errors
/// It is no TOML, has an unknown key, or a value is out of range.
pub(crate) fn core_config_of(text: &str) -> Result<bulkhead_core::config::Config> {
    let file: File = toml::from_str(text)?;
    let enable_chaos = file.enable_chaos.unwrap_or(false);
    policy::core_config(&file, None, enable_chaos, &Here { pid: 0, seed: 0, cores: 1, memory_bytes: 0 })
}

fn default_socket(mode: Mode) -> PathBuf {
    match mode {
        Mode::System => PathBuf::from(places::SYSTEM_SOCKET),
        Mode::User => places::user_socket(std::env::var_os("XDG_RUNTIME_DIR").as_deref(), socket::own_uid()),
    }
}

fn default_state(mode: Mode) -> Result<PathBuf> {
    if mode == Mode::System {
        return Ok(PathBuf::from("/var/lib/bulkhead"));
    }
    user_state(std::env::var_os("XDG_STATE_HOME").as_deref(), std::env::var_os("HOME").as_deref())
}

/// A relative `XDG_STATE_HOME` is none, as the XDG base directory specification has it; a relative `HOME` would put
/// the state wherever the daemon was started.
fn user_state(xdg_state: Option<&OsStr>, home: Option<&OsStr>) -> Result<PathBuf> {
    if let Some(state) = xdg_state.map(Path::new).filter(|state| state.is_absolute()) {
        return Ok(state.join("bulkhead"));
    }
    let home = Path::new(home.context("no state folder: set --state, XDG_STATE_HOME or HOME")?);
    ensure!(
        home.is_absolute(),
        "HOME is {home:?}, not an absolute path: set --state, XDG_STATE_HOME or HOME"
    );
    Ok(home.join(".local/state/bulkhead"))
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("bad path {}", path.display()))
}

/// The config file and what `conf.d` beside it adds: later keys win.
fn read_all(path: &Path) -> Result<File> {
    let mut merged = read_table(path)?;
    for extra in drop_ins(&path.with_file_name("conf.d"))? {
        merge(&mut merged, read_table(&extra)?);
    }
    File::deserialize(merged)
        .map_err(in_words)
        .with_context(|| format!("bad config, from {} and its conf.d", path.display()))
}

/// Later keys win; a table is added to one of its name, so that a file of `conf.d` can declare one more kind.
fn merge(into: &mut toml::Table, later: toml::Table) {
    for (key, value) in later {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(earlier)), toml::Value::Table(more)) => merge(earlier, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn read_table(path: &Path) -> Result<toml::Table> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read config {}", path.display()))?;
    let bad = || format!("bad config {}", path.display());
    let table: toml::Table = text.parse().map_err(in_words).with_context(bad)?;
    // Judged alone first, so that a bad key is blamed on the file it stands in.
    File::deserialize(table.clone()).map_err(in_words).with_context(bad)?;
    Ok(table)
}

/// What is wrong with a config file, for whoever wrote that and no Rust.
fn in_words(error: toml::de::Error) -> Error {
    let said = error.to_string();
    // The place of a key comes in a line of its own.
    let mut said = said.trim_end().replace("\nin `", ", in `").replace("unknown field", "unknown key");
    for (ours, theirs) in [
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number from 0"),
    ] {
        said = said.replace(ours, theirs);
    }
    Error::msg(said)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("cannot read config folder {}: {error}", folder.display()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read config folder {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_file_adds_to_the_kinds_and_wins_by_key() {
        let mut merged: toml::Table = "workers = 1\n[kinds.a]\nring = 1\nusage = \"A\"\n".parse().unwrap();
        merge(&mut merged, "workers = 2\n[kinds.a]\nring = 9\n[kinds.b]\n".parse().unwrap());
        let whole = "workers = 2\n[kinds.a]\nring = 9\nusage = \"A\"\n[kinds.b]\n";
        assert_eq!(merged, whole.parse::<toml::Table>().unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_without_rust() {
        let said = |text: &str| {
            let read = text.parse::<toml::Table>().map_err(in_words);
            read.and_then(|table| File::deserialize(table).map_err(in_words)).unwrap_err().to_string()
        };
        for (text, wanted) in [
            (
                "workers = \"two\"",
                "invalid type: string \"two\", expected a whole number from 0, in `workers`",
            ),
            ("queue_max = -1", "invalid value: integer `-1`, expected a whole number from 0, in `queue_max`"),
            (
                "[kinds.x]\nretries_max = 300",
                "invalid value: integer `300`, expected a whole number from 0 to 255, in `kinds.x.retries_max`",
            ),
        ] {
            assert_eq!(said(text), wanted);
        }
        let unknown = said("wrokers = 1");
        assert!(unknown.starts_with("unknown key `wrokers`, expected one of `mode`, "), "{unknown}");
        assert!(!unknown.ends_with("\n"));
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
