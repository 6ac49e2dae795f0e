//! The kind of job that grows a tree of processes: grandchildren of every sort, which report to the test that they
//! live.
//!
//! The input is `SHAPE PATH`, or `SHAPE PATH FILE` for a job that then opens that file itself. The job connects to the
//! socket at `PATH` twice. On one connection, its own, it gets its orders, one byte each. Only the tree inherits the
//! other: each member writes its process id to it, and the test can read its end only when every member is gone. It
//! replaces `chaos` in the workers of the tests, which drive it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use bulkhead_proto::worker::message::TaskMessage;
use bulkhead_sys::raise::raise;
use bulkhead_worker::{TaskContext, TaskFailure};

use super::puppet::{After, Puppet};
use super::{Attack, Deed, program_folder};

/// Attacks that grow a tree at the socket `grove` in the test's folder, and take the same orders.
pub(super) const ATTACKS: &[Attack] = &[("grandchild-holds-lane-and-box", Deed::Claimed(hold_lane_and_box))];

/// An order: the job kills its own process.
pub const DIE: u8 = b'd';
/// An order: the job is done, and leaves its tree behind.
pub const END: u8 = b'e';

const SIGKILL: i32 = 9;

/// A shape of a tree: its name, how many members tell that they live, and the shell that grows it. There, descriptor
/// 3 is the connection.
pub type Shape = (&'static str, usize, &'static str);

/// Every shape. A member says its number, then waits until the test lets go.
pub const SHAPES: &[Shape] = &[
    ("plain", 1, "sit"),
    ("double-forked", 1, "(sit &)"),
    ("setsid", 1, "exec setsid sh -c \"$SIT\""),
    ("double-forked-setsid", 1, "(setsid sh -c \"$SIT\" &)"),
    (
        "deaf",
        2,
        "trap '' TERM HUP INT QUIT; sit & (setsid sh -c \"trap '' TERM HUP INT QUIT; $SIT\" &); wait",
    ),
    ("clean-environment", 1, "(setsid env -i /bin/sh -c \"$SIT\" &)"),
    // The parent leaves group and session, its child stays in the worker's group, and nobody reaps it.
    ("left-by-its-parent", 2, "(sit & exec setsid sh -c \"$SIT\") & wait"),
    // Sessions within sessions, each the parent of the next.
    (
        "chain",
        4,
        "(setsid sh -c 'setsid sh -c \"setsid sh -c \\\"$SIT\\\" & $SIT\" & sh -c \"$SIT\" & '\"$SIT\" &)",
    ),
    // Each forks the next as soon as it lives, and leaves.
    ("runner", 1, "echo $$ >&3; (setsid sh -c \"$HOP\" &)"),
    // The same within the worker's group.
    ("runner-in-the-group", 1, "echo $$ >&3; (sh -c \"$HOP\" &)"),
    (
        "crowd",
        40,
        "for i in 1 2 3 4 5 6 7 8 9 10; do sit & (sit &); (setsid sh -c \"$SIT\" &); setsid sh -c \"$SIT\" & done; wait",
    ),
];

/// Says its number, then waits for the end of the connection.
const SIT: &str = "echo $$ >&3; read line <&3";
/// One generation after the other, each gone as soon as the next is there. A shell counts a thousand of them at most,
/// then begins anew; after some minutes it ends, if nobody did that before.
const HOP: &str = "ROUND=$((ROUND + 1)); export ROUND; \
    hop() { if [ $1 -lt 900 ]; then (hop $(($1 + 1))) & elif [ $ROUND -lt 300 ]; then exec sh -c \"$HOP\"; fi; }; hop 0";

/// Grows the tree, then follows its orders.
pub(super) fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let input = String::from_utf8_lossy(input);
    let mut words = input.split(' ');
    let (Some(shape), Some(path)) = (words.next(), words.next()) else {
        return Err(TaskFailure::new("give SHAPE PATH"));
    };
    let (_, _, script) =
        SHAPES.iter().find(|(name, _, _)| *name == shape).ok_or_else(|| TaskFailure::new("no such shape"))?;
    let mut orders = UnixStream::connect(path)?;
    let held = UnixStream::connect(path)?;
    let script = format!("exec 3<&0 </dev/null >/dev/null; sit() {{ {SIT}; }}; {script}");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).env("SIT", SIT).env("HOP", HOP);
    shell.stdin(Stdio::from(OwnedFd::from(held))).stdout(Stdio::null());
    // The job does not wait for the tree: the test checks what happens to it.
    std::mem::forget(shell.spawn()?);
    drop(shell);
    if let Some(file) = words.next() {
        drop(std::fs::File::open(file));
    }
    let mut order = [0];
    loop {
        orders.read_exact(&mut order)?;
        match order[0] {
            DIE => {
                task.last_breath();
                drop(raise(SIGKILL));
            }
            END => return Ok(task.write_all(b"grown")?),
            _ => {}
        }
    }
}

/// A grandchild in a session of its own, with the lane as its standard output and the box as its standard error.
fn hold_lane_and_box(puppet: &mut Puppet, _: &TaskMessage, _: Option<File>) -> After {
    let path = program_folder().join("grove");
    let connect = || UnixStream::connect(&path).expect("the test listens");
    let (mut orders, held) = (connect(), connect());
    let copy = |of: &dyn AsFd| Stdio::from(of.as_fd().try_clone_to_owned().expect("a descriptor"));
    let mut shell = Command::new("setsid");
    shell.args(["--fork", "/bin/sh", "-c", &format!("exec 3<&0 </dev/null; {SIT}")]);
    shell.stdin(OwnedFd::from(held)).stdout(copy(&puppet.lane)).stderr(copy(&puppet.pages[0]));
    shell.status().expect("setsid leaves");
    drop(shell);
    let mut order = [0];
    orders.read_exact(&mut order).expect("the test gives an order");
    assert_eq!(order[0], DIE);
    raise(SIGKILL).expect("it does not return");
    After::Sit
}
