//! The hostile worker: every attack by name, and how one is chosen.
//!
//! A daemon gives its workers a clean environment, so a file names the attack; it lies beside the path by which the
//! worker was started, a link in the test's folder. Another file limits how many processes attack; all others are
//! honest, so the daemon always has a worker to go on with. An attack must touch only what belongs to the daemon that
//! started it.

mod boot;
mod claims;
mod family;
mod folders;
pub mod grove;
mod lane;
mod leave;
mod linger;
mod outputs;
mod pages;
mod puppet;
mod results;
mod stops;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bulkhead_proto::worker::message::{BOOT_FOLDER_VARIABLE, TaskMessage};
use bulkhead_sys::variables::while_set;
use bulkhead_worker::Registry;

use puppet::{After, Puppet};

/// The input of a job that makes its worker attack.
pub const BAIT: &str = "bait";
/// The file that names the attack.
pub const ATTACK_FILE: &str = "attack";
/// The file that says how many workers attack.
pub const ATTACKERS_FILE: &str = "attackers";

/// The file with the port of the loopback at which a process listens and never reads.
pub const READER_FILE: &str = "reader";

/// The moment at which an attack begins, and its function.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// From the first instruction on; after it returns, the process waits for ever.
    Boot(fn()),
    /// When it gets a task with the input [`BAIT`], before it claims it.
    Offered(fn(&mut Puppet, &TaskMessage) -> After),
    /// When it has claimed such a task; it gets the task's output descriptor, if there is one.
    Claimed(fn(&mut Puppet, &TaskMessage, Option<File>) -> After),
    /// When it is given such a task and others behind it in the same message: the bait is the first. It enlists by
    /// itself; `None`: it could not attack, and all that it has not ended is still to do.
    Ring(fn(&mut Puppet, &[TaskMessage], &Orders) -> Option<After>),
    /// When its channel is closed: it is asked to leave.
    Retired(fn(&mut Puppet)),
}

/// One attack.
pub type Attack = (&'static str, Deed);

/// Every attack on its own; the groves are planted by the tests of trees.
pub fn attacks() -> impl Iterator<Item = &'static Attack> {
    [
        boot::ATTACKS,
        claims::ATTACKS,
        family::ATTACKS,
        folders::ATTACKS,
        lane::ATTACKS,
        leave::ATTACKS,
        linger::ATTACKS,
        outputs::ATTACKS,
        pages::ATTACKS,
        results::ATTACKS,
        stops::ATTACKS,
    ]
    .into_iter()
    .flatten()
}

/// The folder of the test that this process attacks for.
#[derive(Debug)]
pub struct Orders(PathBuf);

impl Orders {
    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(file)).ok()
    }

    /// The attack named here, with the list of several picked by the process's number.
    fn attack(&self) -> Option<Deed> {
        let named = self.read(ATTACK_FILE)?;
        let names: Vec<&str> = named.split_whitespace().collect();
        let pick = names.get(std::process::id() as usize % names.len().max(1))?;
        attacks().chain(grove::ATTACKS).find(|(name, _)| name == pick).map(|(_, deed)| *deed)
    }

    fn places(&self) -> impl Iterator<Item = PathBuf> {
        let count = self.read(ATTACKERS_FILE).and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        (0..count).map(|place| taken_file(&self.0, place))
    }

    /// Whether another attacker is allowed; it does not take the place.
    fn wants_more(&self) -> bool {
        self.places().any(|place| !place.exists())
    }

    /// Takes the place of an attacker and leaves this process's number in it. `false`: there is none left.
    pub(crate) fn enlist(&self) -> bool {
        let taken = self.places().find_map(|place| File::create_new(place).ok());
        taken.is_some_and(|mut file| writeln!(file, "{}", std::process::id()).is_ok())
    }
}

/// The file in which the attacker of this number leaves its process id.
pub fn taken_file(folder: &Path, place: usize) -> PathBuf {
    folder.join(format!("taken-{place}"))
}

/// The folder for files that no attack may reach.
pub fn precious_folder(folder: &Path) -> PathBuf {
    folder.join("precious")
}

/// The folder that this program was called from.
pub(crate) fn program_folder() -> PathBuf {
    let own = PathBuf::from(std::env::args().next().unwrap_or_default());
    own.parent().unwrap_or(Path::new("/nowhere")).to_owned()
}

/// Runs this process in its role: a child of an attack, an attack, or an honest worker.
pub fn main() -> ExitCode {
    match std::env::var_os(BOOT_FOLDER_VARIABLE) {
        // Where the channels go that it opens by itself.
        Some(folder) => while_set("TMPDIR", Path::new(&folder), attack),
        None => attack(),
    }
}

fn attack() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((role, rest)) = words.split_first() {
        return family::play(role, rest);
    }
    let orders = Orders(program_folder());
    match orders.attack().filter(|_| orders.wants_more()) {
        None => bulkhead_worker::run(&honest()),
        Some(Deed::Boot(deed)) if orders.enlist() => {
            deed();
            sit()
        }
        Some(Deed::Boot(_)) => bulkhead_worker::run(&honest()),
        // Any other way of attacking needs a task, or the lack of one.
        Some(deed) => Puppet::come_up().serve(&orders, deed),
    }
}

/// The kinds of an honest worker of the tests: `chaos` grows trees.
fn honest() -> Registry {
    Registry::builtin().with("chaos", grove::run)
}

/// Does nothing, for ever.
pub(crate) fn sit() -> ! {
    loop {
        std::thread::park();
    }
}
