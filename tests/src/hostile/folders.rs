//! Attacks by the contents of a worker's folder: more files than the daemon should walk through, and deeper than a
//! stack.
//!
//! The folder has to be removed without stopping the daemon. Driven by `hostile::main` when a worker gets its bait.

use std::fs::{File, Permissions, create_dir, set_permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use bulkhead_sys::raise::raise;

use super::puppet::{After, boot_folder};
use super::{Attack, Deed, precious_folder, program_folder};

const SIGKILL: i32 = 9;
/// Deeper than a path can name.
const DEPTH: usize = 2500;
const WIDTH: usize = 5000;

pub(super) const ATTACKS: &[Attack] = &[
    ("folder-too-deep", Deed::Claimed(|_, _, _| leave(deep))),
    ("folder-too-wide", Deed::Claimed(|_, _, _| leave(wide))),
    ("folder-that-nobody-may-read", Deed::Claimed(|_, _, _| leave(locked))),
    ("folder-of-links", Deed::Claimed(|_, _, _| leave(links))),
];

/// Fills the folder in the middle of the task, and dies.
fn leave(fill: fn()) -> After {
    fill();
    raise(SIGKILL).expect("it does not return");
    After::Sit
}

fn deep() {
    std::env::set_current_dir(boot_folder()).expect("it is there");
    for _ in 0..DEPTH {
        create_dir("d").expect("a folder");
        std::env::set_current_dir("d").expect("it is there");
    }
}

fn wide() {
    for index in 0..WIDTH {
        File::create(boot_folder().join(index.to_string())).expect("a file");
    }
}

fn locked() {
    let folder = boot_folder().join("locked");
    create_dir(&folder).expect("a folder");
    File::create(folder.join("file")).expect("a file");
    create_dir(folder.join("inner")).expect("a folder");
    set_permissions(folder.join("inner"), Permissions::from_mode(0o000)).expect("permissions");
    set_permissions(folder, Permissions::from_mode(0o000)).expect("permissions");
    set_permissions(boot_folder(), Permissions::from_mode(0o000)).expect("permissions");
}

/// The targets of the links do not belong to the worker and must survive.
fn links() {
    let precious = precious_folder(&program_folder());
    for (name, target) in [("file", precious.join("file")), ("folder", precious), ("loop", "loop".into())] {
        symlink(target, boot_folder().join(name)).expect("a link");
    }
}
