//! `fill-queues COUNT`: sends itself so many descriptors, which nobody receives, writes a line, and waits for the end of
//! its standard input.
//!
//! The kernel counts them for its user, as those that a job of a worker sends. Started by tests through `prlimit` and
//! `setpriv`, never by hand.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bulkhead_sys::socket::send_with_fds;

/// Descriptors in one message.
const EACH: usize = 16;
/// Messages that the queue of one socket has room for.
const MESSAGES: usize = 64;

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("a count");
    let mut pairs = Vec::new();
    for message in 0..count.div_ceil(EACH) {
        if message % MESSAGES == 0 {
            pairs.push(UnixStream::pair().expect("a pair of sockets"));
        }
        let (ours, theirs) = pairs.last().expect("there is one");
        send_with_fds(ours.as_fd(), b"x", &[theirs.as_fd(); EACH]).expect("its own limit is higher");
    }
    println!("full");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a standard input");
}
