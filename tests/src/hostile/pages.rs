//! Attacks on the pages themselves: the box must keep its size, the orders must stay read-only.
//!
//! None of these calls may succeed; if one does, the worker exits with a code that no test expects. Driven by
//! `hostile::main` when a worker gets its bait.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use bulkhead_proto::worker::boxes::{BOX_BYTES, ORDERS_BYTES};
use bulkhead_proto::worker::message::TaskMessage;
use bulkhead_sys::shared_page::SharedPage;

use super::puppet::{After, Puppet};
use super::{Attack, Deed};

/// The exit code of a worker whose attack succeeded.
const SUCCEEDED: i32 = 99;

pub(super) const ATTACKS: &[Attack] = &[
    ("box-cut", Deed::Offered(|puppet, task| must_fail(puppet, task, cut_the_box))),
    ("orders-mapped", Deed::Offered(|puppet, task| must_fail(puppet, task, map_the_orders))),
    ("orders-written", Deed::Offered(|puppet, task| must_fail(puppet, task, write_the_orders))),
    ("box-sealed", Deed::Offered(seal_the_box)),
];

/// Tries, and then goes on as if nothing had happened.
fn must_fail(puppet: &mut Puppet, task: &TaskMessage, attempt: fn(&Puppet) -> bool) -> After {
    if attempt(puppet) {
        std::process::exit(SUCCEEDED);
    }
    puppet.run(task);
    After::Serve
}

/// A file of a page, opened anew.
fn reopened(puppet: &Puppet, page: usize) -> File {
    let path = format!("/proc/self/fd/{}", puppet.pages[page].as_raw_fd());
    File::options().write(true).open(path).expect("a process can open its own files")
}

fn cut_the_box(puppet: &Puppet) -> bool {
    let file = reopened(puppet, 0);
    [0, 1, 4096, BOX_BYTES as u64 - 8, BOX_BYTES as u64 + 4096]
        .iter()
        .any(|&bytes| file.set_len(bytes).is_ok())
}

fn map_the_orders(puppet: &Puppet) -> bool {
    SharedPage::map_shared(puppet.pages[1].as_fd(), ORDERS_BYTES).is_ok()
}

fn write_the_orders(puppet: &Puppet) -> bool {
    let file = reopened(puppet, 1);
    file.write_at(&[1; 8], 0).is_ok() || file.set_len(0).is_ok()
}

/// Forbids any further mapping and sealing of its own box: the daemon has what it needs.
fn seal_the_box(puppet: &mut Puppet, task: &TaskMessage) -> After {
    SharedPage::seal_future_writes(puppet.pages[0].as_fd()).expect("its seals are open");
    puppet.run(task);
    After::Serve
}
