//! Prepares process and file system before the loop starts: limits, folders, lock, socket.
//!
//! Everything that can be wrong with the environment of the daemon is found here, in messages with the path and what
//! to do. Called once, by `daemon.rs`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bulkhead_proto::client::places;
use bulkhead_sys::call_filter::{self, RefusedCall};
use bulkhead_sys::held_folder::{HeldFile, HeldFolder};
use bulkhead_sys::lock::InstanceLock;
use bulkhead_sys::{dial, process, shortage, socket, tree};

use crate::boot_folder::BootRoot;
use crate::copies_cleaner::CopiesCleaner;
use crate::descriptor_budget;
use crate::settings::{Mode, Settings};

/// Lock and socket of one daemon. Socket and the copies of dead workers are removed when it is dropped, the socket if it
/// is its own: a successor has made another one at the same path if a cleaner of temporary files removed socket, lock file
/// and boot folder under this daemon.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The socket's path and its file.
    socket: Option<(PathBuf, HeldFile)>,
    /// The folder that a parent made for this daemon alone, which goes with the daemon if the parent is gone.
    own_folder: Option<(PathBuf, HeldFolder)>,
    copies: CopiesCleaner,
    _lock: InstanceLock,
}

impl Instance {
    /// Where the daemon listens.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(|(path, _)| path.as_path())
    }

    /// Drops the instance and removes the folder that a parent had created for this daemon (`--own-folder`), if its path
    /// still leads to it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove_with_folder(mut self) -> Result<()> {
        let Some((path, folder)) = self.own_folder.take() else { return Ok(()) };
        drop(self);
        folder.remove(&path).map(|_| ()).with_context(|| format!("cannot remove {}", path.display()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some((path, own)) = &self.socket
            && own.is_at(path)
        {
            drop(std::fs::remove_file(path));
        }
        self.copies.clean_at_end();
    }
}

/// Holds the folder of a private daemon's socket open. It must be ours with mode 0700, as the parent creates it.
fn hold_own_folder(socket: &Path) -> Result<(PathBuf, HeldFolder)> {
    let path = socket.parent().context("a socket lies in a folder")?.to_owned();
    let folder = HeldFolder::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    ensure!(
        folder.is_private().with_context(|| format!("cannot look at {}", path.display()))?,
        "--own-folder: {} is not the folder of a single daemon, which is its user's and has mode 0700",
        path.display()
    );
    Ok((path, folder))
}

/// Tries the system calls that a filter may refuse. Returns a text for each that the daemon can do without.
///
/// # Errors
/// A call does not work without which no worker can be started. The text names it and the likely filter.
pub(crate) fn check_calls() -> Result<Vec<String>> {
    let mut losses = Vec::new();
    for RefusedCall { error, loss } in call_filter::check() {
        match loss {
            Some(loss) => losses.push(format!("{loss}: {error}")),
            None => bail!(error),
        }
    }
    Ok(losses)
}

/// Fails if /proc does not show this process under its own pid: then it belongs to another pid namespace, and the children
/// listed there are other processes than those that have these pids here.
pub(crate) fn check_proc() -> Result<()> {
    let own = std::process::id();
    let shown = std::fs::read_link("/proc/self");
    let why = match shown {
        Ok(path) if path.as_os_str() == own.to_string().as_str() => return Ok(()),
        Ok(path) => format!("it shows this process, pid {own} here, as pid {}", path.display()),
        Err(error) => format!("it does not show this process, pid {own}: {error}"),
    };
    bail!(
        "/proc is not of this pid namespace: {why}: mount a /proc in the namespace (unshare --mount-proc), as container \
         runtimes do"
    )
}

/// Raises the limit of open files and grows the descriptor table. Returns how many descriptors this process may open.
///
/// In a process with a second thread the kernel waits for all processors before it uses the new table (synchronize_rcu), which was
/// 10 to 30 ms of a start. So this comes before the first thread.
pub(crate) fn make_room_for_descriptors() -> Result<u64> {
    // A call that is refused is named by the check of all calls.
    let descriptors = process::raise_descriptor_limit().or_else(|error| {
        check_calls()?;
        Err(error).context("cannot raise the limit of open files")
    })?;
    process::grow_descriptor_table(descriptors.min(descriptor_budget::MOST))
        .context("cannot make room for as many descriptors as may be open")?;
    Ok(descriptors)
}

/// Prepares the process.
pub(crate) fn prepare_process() -> Result<()> {
    process::set_not_dumpable().context("cannot forbid others to trace the daemon")?;
    tree::become_subreaper().context("cannot become the parent of stray processes")?;
    bulkhead_link::supervisor::warm_up().context("cannot open the first worker channel")
}

/// Creates state folder, lock, boot folder and listening socket.
pub(crate) fn claim_instance(settings: &Settings) -> Result<(Instance, BootRoot, UnixListener)> {
    std::fs::create_dir_all(&settings.state).map_err(|error| {
        anyhow!("cannot make state folder {}: {}", settings.state.display(), shortage::explain(&error))
    })?;
    let (path, lock) = settings.socket.claim()?;
    let path = &path;
    refuse_if_served(path)?;
    // From here on only what was created here is removed, never a folder or socket of another program.
    let own_folder = settings.own_folder.then(|| hold_own_folder(path)).transpose()?;
    let boot_root = BootRoot::claim(places::boot_folder(path), settings.core.seed)?;
    let copies = CopiesCleaner::new(settings.copies.clone());
    copies.clean();
    let mut instance = Instance { socket: None, own_folder, copies, _lock: lock };
    let (mode, group) = match settings.mode {
        Mode::User => (0o600, None),
        Mode::System => (0o660, Some(system_group(settings)?)),
    };
    let listener =
        socket::listen(path, mode, group).with_context(|| format!("cannot listen on {}", path.display()))?;
    let own =
        HeldFile::open(path).with_context(|| format!("cannot look at the new socket {}", path.display()))?;
    instance.socket = Some((path.clone(), own));
    Ok((instance, boot_root, listener))
}

/// Fails unless connect(2) says that nothing listens at the socket: the lock file of a daemon that serves it may have
/// been removed.
fn refuse_if_served(socket: &Path) -> Result<()> {
    let answer = dial::dial(socket);
    let kind = answer.as_ref().err().map(io::Error::kind);
    if matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)) {
        return Ok(());
    }
    let pid = match answer {
        Ok(stream) => socket::peer_cred(stream.as_fd()).map_or(0, |peer| peer.pid).to_string(),
        // EAGAIN: its queue of connections is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => "unknown".to_owned(),
        Err(error) => bail!(
            "cannot find out whether a process listens on {}: {error}; remove it, or choose another --socket",
            socket.display()
        ),
    };
    bail!(
        "another daemon (pid {pid}) serves {}, although its lock file was removed: stop it, or choose another --socket",
        socket.display()
    )
}

fn system_group(settings: &Settings) -> Result<u32> {
    let name = &settings.group;
    let found = socket::group_id(name).with_context(|| format!("cannot look up group {name}"))?;
    found
        .with_context(|| format!("there is no group {name}: create it (systemd-sysusers does), or set group"))
}
