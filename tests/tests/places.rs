//! Where a daemon listens and whom a client believes: places that another user took first, in file systems of their own.
//!
//! Each test runs again in a mount namespace with an empty `/tmp` and `/run`, so that it finds no daemon of the machine
//! and takes nothing away from one.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bulkhead_proto::client::exit;
use bulkhead_tests::daemon::{DEADLINE, binary, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::shortage::possible;

/// Set in the run of a test that has mounts of its own.
const INSIDE: &str = "BULKHEAD_TEST_INSIDE";
/// Set in the process that takes the place of another user: the folder that it makes again and again.
const SQUAT: &str = "BULKHEAD_TEST_SQUAT";
/// Any user, and the one who does harm.
const USER: u32 = 61808;
const SQUATTER: u32 = 65534;
/// The owner of the system's daemon.
const SERVICE: u32 = 61809;
const PROGRAMS: &str = "/tmp/programs";
const SYSTEM: &str = "/run/bulkhead/bulkhead.sock";
const NEW_MOUNTS: [&str; 7] = ["unshare", "--mount", "sh", "-c", MOUNT, "/", "true"];
/// Takes the folder of this build, which may lie below /tmp, and the command to run.
const MOUNT: &str = "mount --bind \"$0\" /mnt && mount -t tmpfs -o mode=1777 tmpfs /tmp && \
     mount -t tmpfs -o mode=755 tmpfs /run && exec \"$@\"";

/// Runs `test` with mounts of its own, in a process of its own. `name` is the test's.
fn with_own_mounts(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        install_programs();
        return test();
    }
    let own = std::env::current_exe().expect("a test knows its path");
    let build = binary("bulkhead").parent().expect("it lies in a folder").to_owned();
    let below = own.strip_prefix(&build).expect("tests are built beside the programs");
    let mut command = Command::new(NEW_MOUNTS[0]);
    command.args(&NEW_MOUNTS[1..5]).arg(&build).arg(Path::new("/mnt").join(below));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1").stdin(Stdio::null());
    let output = command.output().expect("unshare runs");
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{errors}");
    println!("{said}");
}

/// Copies that every user may run.
fn install_programs() {
    std::fs::create_dir(PROGRAMS).expect("a folder");
    std::fs::set_permissions(PROGRAMS, PermissionsExt::from_mode(0o755)).expect("its mode");
    for name in ["bulkhead", "bulkhead-supervisor", "bulkhead-worker"] {
        copy_program(&binary(name), &Path::new(PROGRAMS).join(name));
    }
    let own = std::env::current_exe().expect("a test knows its path");
    copy_program(&own, &Path::new(PROGRAMS).join("squatter"));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of this user.
fn folder_of(path: &Path, uid: u32, mode: u32) {
    std::fs::create_dir_all(path).expect("a folder");
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
    chown(path, Some(uid), Some(uid)).expect("root gives it");
}

/// A program of a user with a home.
fn command(uid: u32, program: &str) -> Command {
    let home = PathBuf::from(format!("/tmp/home-{uid}"));
    folder_of(&home, uid, 0o700);
    let mut command = Command::new(Path::new(PROGRAMS).join(program));
    command.uid(uid).gid(uid).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::null());
    command
}

fn own_folder(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/bulkhead-{uid}"))
}

/// A daemon of a user; it ends with this value.
struct UserDaemon {
    child: Child,
    log: PathBuf,
}

impl UserDaemon {
    fn start(uid: u32, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(uid, "bulkhead-supervisor");
        command.args(["--private", "--workers", "1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let log = PathBuf::from(format!("/tmp/log-{uid}"));
        command.stderr(std::fs::File::create(&log).expect("a log"));
        change(&mut command);
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line or the end");
        let daemon = Self { child, log };
        assert_eq!(line, "ready\n", "{}", daemon.log());
        daemon
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// The log is written by a thread of its own: it may come after the ready line.
    fn await_log(&self, said: &str) {
        eventually(&format!("the log says {said:?}"), || self.log().contains(said).then_some(()));
    }

    /// Where it listens.
    fn socket(&self) -> String {
        let found =
            || self.log().split_once(" socket=").map(|(_, rest)| rest.split(' ').next().map(str::to_owned));
        eventually("the log says where", found).expect("a path")
    }
}

impl Drop for UserDaemon {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let end = Instant::now() + DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whom a `bulkhead` command reached, and what it said.
fn ask(command: &mut Command, words: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.args(words).output().expect("it runs");
    (status.code(), text(&stderr))
}

fn ping(uid: u32) -> (Option<i32>, String) {
    ask(&mut command(uid, "bulkhead"), &["ping"])
}

/// A process of another user that has a folder and listens in it, once or again and again.
struct Squatter {
    child: Child,
}

impl Squatter {
    fn start(uid: u32, folder: &Path, toggles: bool) -> Self {
        let mut command = command(uid, "squatter");
        command.args([
            "--exact",
            "a_toggling_squatter_is_never_spoken_to",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.env(SQUAT, folder).env(INSIDE, if toggles { "toggles" } else { "stays" });
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().expect("it starts");
        if !toggles {
            let socket = folder.join("bulkhead.sock");
            eventually("the squatter listens", || {
                let mode = std::fs::metadata(&socket).ok()?.permissions().mode();
                (mode & 0o777 == 0o777).then_some(())
            });
        }
        Self { child }
    }

    /// Ends it. How many connects it saw, and how many of them sent a byte.
    fn end(mut self) -> (u32, u32) {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        self.child.wait().expect("it ends");
        let counts = said.lines().find_map(|line| line.split_once("squatter saw ")).expect("it counts").1;
        let (connected, spoke) = counts.split_once(' ').expect("two numbers");
        (connected.parse().expect("a number"), spoke.parse().expect("a number"))
    }
}

/// What the squatter does until its standard input ends, for a minute at most: it listens in a folder of its own, which
/// appears under the name and vanishes again as fast as rename(2) goes, or stays there.
fn squat(folder: &Path, toggles: bool) {
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        drop(std::io::stdin().read(&mut [0]));
        drop(ended);
    });
    let end = Instant::now() + DEADLINE;
    let own = if toggles { PathBuf::from("/tmp/squat") } else { folder.to_owned() };
    drop(std::fs::create_dir(&own));
    let socket = own.join("bulkhead.sock");
    let listener = UnixListener::bind(&socket).expect("its own folder");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).expect("its own socket");
    let counting = std::thread::spawn(move || count_connects(&listener));
    while Instant::now() < end
        && is_over.recv_timeout(Duration::from_millis(u64::from(!toggles)))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    {
        if toggles && std::fs::rename(&own, folder).is_ok() {
            std::fs::rename(folder, &own).expect("it is its own");
        }
    }
    UnixStream::connect(&socket).and_then(|mut last| last.write_all(&LAST)).expect("it listens itself");
    let (connected, spoke) = counting.join().expect("it counts");
    writeln!(std::io::stdout(), "\nsquatter saw {connected} {spoke}").expect("it is read");
}

/// What the squatter sends itself at its end.
const LAST: [u8; 4] = *b"last";

/// How many connects there were before the last, and how many of them sent a byte.
fn count_connects(listener: &UnixListener) -> (u32, u32) {
    let (mut connected, mut spoke) = (0, 0);
    loop {
        let (mut stream, _) = listener.accept().expect("a connect");
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let mut bytes = [0; 64];
        let count = stream.read(&mut bytes).unwrap_or(0);
        if bytes[..count] == LAST {
            return (connected, spoke);
        }
        connected += 1;
        spoke += u32::from(count > 0);
    }
}

/// Another user makes the folder, bare or with a listener in it: daemon and clients meet at the next place, and say so.
#[test]
fn a_folder_that_another_user_made_shuts_nobody_out() {
    or_skip!(possible(&NEW_MOUNTS));
    with_own_mounts("a_folder_that_another_user_made_shuts_nobody_out", || {
        for (uid, mode, listens) in
            [(USER, 0o755, false), (USER, 0o700, false), (USER, 0o755, true), (0, 0o777, true)]
        {
            println!("user {uid}, mode {mode:o}, listens {listens}");
            let folder = own_folder(uid);
            folder_of(&folder, SQUATTER, mode);
            let squatter = listens.then(|| Squatter::start(SQUATTER, &folder, false));
            let said = format!("passed over {0}/bulkhead.sock: ", folder.display());
            let owner = format!("{} belongs to user 65534, not to ", folder.display());
            let (code, error) = ping(uid);
            assert_eq!(code, Some(i32::from(exit::NO_DAEMON)), "{error}");
            assert!(error.contains(&said) && error.contains(&owner), "{error}");
            let (code, error) = ask(&mut command(uid, "bulkhead"), &["run", "noop", "x"]);
            assert!(code == Some(0) && error.contains(&said), "by a private daemon: {error}");
            let daemon = UserDaemon::start(uid, |_| {});
            daemon.await_log(&said);
            daemon.await_log(&owner);
            let (code, error) = ping(uid);
            assert!(code == Some(0) && error.contains(&said) && error.contains(&owner), "{error}");
            assert_eq!(ask(&mut command(uid, "bulkhead"), &["-q", "ping"]), (Some(0), String::new()));
            if let Some((_, spoke)) = squatter.map(Squatter::end) {
                assert_eq!(spoke, 0);
            }
            drop(std::fs::remove_dir_all(&folder));
            assert_eq!(
                ping(uid),
                (Some(0), String::new()),
                "where the daemon is, is found without the squatter too"
            );
        }
    });
}

/// Another user makes folder and listener between a look and a connect, again and again: no command speaks to it, and
/// each reaches its daemon.
#[test]
fn a_toggling_squatter_is_never_spoken_to() {
    if let Some(folder) = std::env::var_os(SQUAT) {
        return squat(Path::new(&folder), std::env::var_os(INSIDE).is_some_and(|how| how == "toggles"));
    }
    or_skip!(possible(&NEW_MOUNTS));
    with_own_mounts("a_toggling_squatter_is_never_spoken_to", || {
        let squatter = Squatter::start(SQUATTER, &own_folder(USER), true);
        let daemon = loop {
            let daemon = UserDaemon::start(USER, |_| {});
            // It may have been faster than the squatter.
            if !Path::new(&daemon.socket()).starts_with(own_folder(USER)) {
                break daemon;
            }
            assert_eq!(ping(USER).0, Some(0));
            drop(daemon);
            std::fs::remove_dir_all(own_folder(USER)).expect("the daemon's");
        };
        for command in 0..150 {
            let (code, error) = ping(USER);
            assert_eq!(code, Some(0), "command {command}: {error}");
        }
        drop(daemon);
        let (connected, spoke) = squatter.end();
        println!("of 150 commands {connected} connects met the squatter, {spoke} spoke to it");
        assert_eq!(spoke, 0);
    });
}

/// `XDG_RUNTIME_DIR` of another user, as `su` keeps it, with that user's daemon in it.
#[test]
fn the_runtime_folder_of_another_user_is_told_as_that() {
    or_skip!(possible(&NEW_MOUNTS));
    with_own_mounts("the_runtime_folder_of_another_user_is_told_as_that", || {
        let runtime = Path::new("/run/user");
        folder_of(runtime, USER, 0o755);
        let _users = UserDaemon::start(USER, |command| _ = command.env("XDG_RUNTIME_DIR", runtime));
        let socket = runtime.join("bulkhead/bulkhead.sock");
        assert!(socket.exists());
        let said = format!("XDG_RUNTIME_DIR is /run/user, which belongs to user {USER}, not to ");
        for uid in [0, SERVICE] {
            let asked = |words: &[&str]| {
                let mut command = command(uid, "bulkhead");
                ask(command.env("XDG_RUNTIME_DIR", runtime), words)
            };
            let (code, error) = asked(&["ping"]);
            assert!(code == Some(i32::from(exit::NO_DAEMON)) && error.contains(&said), "{error}");
            let (code, error) = asked(&["run", "noop", "x"]);
            assert!(code == Some(0) && error.contains(&said), "{error}");
            let daemon = UserDaemon::start(uid, |command| _ = command.env("XDG_RUNTIME_DIR", runtime));
            daemon.await_log(&said);
            assert!(own_folder(uid).join("bulkhead.sock").exists());
            let (code, error) = asked(&["ping"]);
            assert!(code == Some(0) && error.contains(&said), "{error}");
        }
        // Root may use the daemon of any user, by its name.
        let socket = socket.to_str().expect("plain");
        assert_eq!(ask(&mut command(0, "bulkhead"), &["--socket", socket, "ping"]), (Some(0), String::new()));
        let mut named = command(0, "bulkhead");
        assert_eq!(ask(named.env("BULKHEAD_SOCKET", socket), &["ping"]), (Some(0), String::new()));
    });
}

/// At the system's place root and the owner of the folder are believed, which only root can make.
#[test]
fn at_the_systems_place_only_its_owner_is_believed() {
    or_skip!(possible(&NEW_MOUNTS));
    with_own_mounts("at_the_systems_place_only_its_owner_is_believed", || {
        let folder = Path::new("/run/bulkhead");
        folder_of(folder, SERVICE, 0o777);
        let listens = |uid: u32| UserDaemon::start(uid, |command| _ = command.args(["--socket", SYSTEM]));
        for trusted in [SERVICE, 0] {
            let daemon = listens(trusted);
            assert_eq!(ping(0), (Some(0), String::new()), "user {trusted}");
            drop(daemon);
            std::fs::remove_file(format!("{SYSTEM}.lock")).expect("it stays");
        }
        let _daemon = listens(SQUATTER);
        let (code, error) = ping(0);
        assert_eq!(code, Some(i32::from(exit::NO_DAEMON)), "{error}");
        assert!(error.contains(&format!("a process of user {SQUATTER} listens on {SYSTEM}")), "{error}");
        assert_eq!(ask(&mut command(0, "bulkhead"), &["--socket", SYSTEM, "ping"]), (Some(0), String::new()));
        // Whose folder anybody can make is not believed: here /run itself is open to all.
        std::fs::set_permissions("/run", PermissionsExt::from_mode(0o777)).expect("its mode");
        chown(folder, Some(SQUATTER), None).expect("root gives it");
        let (code, error) = ping(0);
        assert!(code == Some(i32::from(exit::NO_DAEMON)) && error.contains("a process of user"), "{error}");
    });
}

/// In a user namespace all users who are not mapped have one number, so a listener of that number may be anybody's.
#[test]
fn a_user_whom_the_namespace_does_not_map_is_told_as_that() {
    or_skip!(possible(&NEW_MOUNTS));
    or_skip!(possible(&["unshare", "--user", "--map-root-user", "true"]));
    with_own_mounts("a_user_whom_the_namespace_does_not_map_is_told_as_that", || {
        let folder = Path::new("/run/bulkhead");
        folder_of(folder, SQUATTER, 0o755);
        let squatter = Squatter::start(SQUATTER, folder, false);
        folder_of(&own_folder(0), USER, 0o755);
        let inside = |words: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user"]).arg(Path::new(PROGRAMS).join("bulkhead"));
            ask(command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()), words)
        };
        let (code, error) = inside(&["ping"]);
        assert_eq!(code, Some(i32::from(exit::NO_DAEMON)), "{error}");
        let listener = format!(
            "the process that listens on {SYSTEM} runs as a user whom this user namespace does not map"
        );
        assert!(error.contains(&listener), "{error}");
        let owner =
            "/tmp/bulkhead-0 belongs to a user whom this user namespace does not map (shown as 65534)";
        assert!(error.contains(owner), "{error}");
        // The same number in the whole namespace is a user.
        let (code, error) = ping(SERVICE);
        assert!(code != Some(0) && !error.contains("does not map"), "{error}");
        // By its name it is spoken to.
        let (_, error) = inside(&["--socket", SYSTEM, "ping", "--timeout", "100ms"]);
        assert!(!error.contains("does not map"), "{error}");
        assert!(squatter.end().1 >= 1);
    });
}
