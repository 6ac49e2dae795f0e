//! Attacks by clients, one after the other on the same daemon, each beside a neighbour that must not notice.
//!
//! A raid is a table of attacks by name. Afterwards the daemon must have as many descriptors, threads and children as
//! one that was never attacked, and about as much memory as before. Driven by the tests.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use bulkhead_proto::client::frame::push_frame;
use bulkhead_proto::client::message::{Reply, Request, RequestFrame};
use bulkhead_proto::codec;
use bulkhead_proto::ids::Tag;

use crate::siege::Siege;
use crate::wire::Wire;

/// An attack and its name.
pub type Attack = (&'static str, fn(&Siege));

/// How many pages the daemon may have grown by at the end: memory that its allocator keeps from the last flood.
const GROWN_PAGES: u64 = (96 << 20) / 4096;

/// Runs all of these attacks, then checks that they left nothing behind.
pub fn withstand(attacks: &[Attack]) {
    let mut siege = Siege::by_clients();
    siege.beside_a_neighbour(|_| ());
    let before = siege.resident_pages();
    for (name, attack) in attacks {
        siege.beside_a_neighbour(|siege| attack(siege));
        println!("attack {name:?}: {} pages", siege.resident_pages());
    }
    let grown = siege.resident_pages().saturating_sub(before);
    assert!(grown < GROWN_PAGES, "the daemon grew by {grown} pages");
    siege.assert_nothing_left();
}

/// The frame of a request.
pub fn frame(tag: u32, request: Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_frame(&RequestFrame { tag: Tag(tag), request }, &mut bytes).expect("it fits a frame");
    bytes
}

/// A frame of these bytes, whatever they are.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a length of 32 bits");
    [&length.to_le_bytes()[..], body].concat()
}

/// The bytes of a request without its length.
pub fn body(request: Request) -> Vec<u8> {
    codec::encode(&RequestFrame { tag: Tag(1), request })
}

/// Checks that the daemon still answers this client.
pub fn assert_answers(wire: &mut Wire) {
    assert!(matches!(wire.call(Request::Ping), Reply::Pong { .. }), "it is not served any more");
}

/// Sends the same bytes again and again without reading: `most` times, or until the connection ends, or until a write
/// blocks so long that the daemon has clearly stopped reading.
pub fn flood(wire: &mut Wire, bytes: &[u8], most: usize) {
    let stall = std::time::Duration::from_millis(500);
    wire.socket.set_write_timeout(Some(stall)).expect("a deadline");
    for _ in 0..most {
        if wire.socket.write_all(bytes).is_err() {
            break;
        }
    }
}

/// Whether this process may become other users.
///
/// # Errors
/// Why it may not.
pub fn may_become_others() -> Result<(), &'static str> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if root { Ok(()) } else { Err("only root can connect as another user; run as root to have it") }
}
