//! The fuzz targets: what each does with arbitrary bytes, and what must hold for every input.
//!
//! They are plain functions. libFuzzer calls them (`cargo xtask fuzz`, through `tests/fuzz`), and so does an ordinary
//! test (`tests/tests/fuzz.rs`) with every seed and some ten thousand mutations of them. A target fails only by a
//! panic. Nothing here starts a process.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use bulkhead_link::supervisor::{FinishedTask, Ring};
use bulkhead_proto::client::frame::{Frames, Hello};
use bulkhead_proto::client::message::{ReplyFrame, RequestFrame};
use bulkhead_proto::codec::{self, Decode, Encode};
use bulkhead_proto::ids::{Fence, JobId, Seq};
use bulkhead_proto::limits::{FRAME_MAX_BYTES, RING};
use bulkhead_proto::worker::boxes::BOX_BYTES;
use bulkhead_proto::worker::message::{LaneDown, LaneUp, Tasks};
use bulkhead_sys::shared_page::SharedPage;

mod config;
mod mutate;
mod seeds;

pub use config::config;
pub use mutate::Mutator;
pub use seeds::seeds;

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 4] = [("frames", frames), ("lane", lane), ("ring", ring), ("config", config)];

/// A stream from a client, cut into reads as its first byte says. No frame is longer than the limit, the frames do not
/// depend on how the stream is cut, and a decoded frame that is encoded again decodes to the same.
///
/// # Panics
/// If that does not hold.
pub fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    if let Some(hello) = stream.first_chunk().and_then(Hello::from_bytes) {
        assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
    }
    let pieces = cut_into_frames(stream, usize::from(*cut) + 1);
    assert_eq!(pieces, cut_into_frames(stream, stream.len().max(1)), "how a stream is cut changes nothing");
    for frame in &pieces {
        again::<RequestFrame>(frame);
        again::<ReplyFrame>(frame);
    }
}

fn cut_into_frames(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for piece in stream.chunks(size) {
        frames.feed(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(bytes)) => {
                    assert!(bytes.len() <= FRAME_MAX_BYTES);
                    found.push(bytes.to_vec());
                }
                Ok(None) => break,
                Err(oversized) => {
                    assert!(oversized.claimed > FRAME_MAX_BYTES);
                    return found;
                }
            }
        }
        assert!(frames.held_bytes() <= 2 * (FRAME_MAX_BYTES + size));
    }
    found
}

/// A message on a lane or down a channel.
///
/// # Panics
/// A decoded message that is encoded again does not decode to the same.
pub fn lane(data: &[u8]) {
    again::<LaneUp>(data);
    again::<LaneDown>(data);
    again::<Tasks>(data);
}

/// A value that can be decoded is the same after encoding and decoding.
fn again<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes) {
        assert_eq!(codec::decode::<T>(&codec::encode(&value)).as_ref(), Ok(&value));
    }
}

/// A worker that writes anything into its box between the steps of its supervisor. Each offer ends exactly once, and no
/// offer ends that was not made.
///
/// # Panics
/// If that does not hold.
pub fn ring(data: &[u8]) {
    let (ring, descriptors) = Ring::create().expect("two pages");
    let hostile = SharedPage::map_shared(descriptors.box_page.as_fd(), BOX_BYTES).expect("the same page");
    let mut play = Play { ring, hostile, next: 1, open: BTreeMap::new(), ended: Vec::new() };
    // A step is one byte for the action and ten for its arguments.
    for step in data.chunks(11) {
        play.step(step);
    }
    play.finish();
}

struct Play {
    ring: Ring,
    hostile: SharedPage,
    next: u64,
    /// Offers that are outstanding, or ended and not settled, by their entries.
    open: BTreeMap<u64, Seq>,
    ended: Vec<Seq>,
}

impl Play {
    fn step(&mut self, step: &[u8]) {
        let byte = |at: usize| step.get(at).copied().unwrap_or(0);
        let place = usize::from(u16::from_le_bytes([byte(1), byte(2)]));
        let value = u64::from_le_bytes(std::array::from_fn(|at| byte(at + 3)));
        match byte(0) % 8 {
            0 | 1 => self.offer(),
            // Words near the beginning, where the header and the first entries stand, and words anywhere.
            2 => self.hostile.store(place % 256 * 8, value, Ordering::Release),
            3 => self.hostile.store(place * 8 % BOX_BYTES, value, Ordering::Release),
            4 => self.poll(),
            5 => self.take_back(Seq(value % (self.next + 1))),
            6 => self.settle(),
            _ => {
                self.ring.nap(byte(1) % 2 == 0);
                let _head = (self.ring.head(), self.ring.last_breath_ns());
            }
        }
    }

    fn offer(&mut self) {
        let seq = Seq(self.next);
        if let std::collections::btree_map::Entry::Vacant(entry) = self.open.entry(seq.0 % RING as u64) {
            entry.insert(seq);
            self.ring.offer(seq, JobId(seq.0), Fence(1));
            self.next += 1;
        }
    }

    fn poll(&mut self) {
        let mut found: Vec<FinishedTask> = Vec::new();
        let _violation = self.ring.poll(&mut found);
        found.iter().for_each(|found| self.end(found.seq));
    }

    fn take_back(&mut self, seq: Seq) {
        if self.ring.take_back(seq) == Ok(true) {
            self.end(seq);
        }
    }

    fn end(&mut self, seq: Seq) {
        assert_eq!(self.open.get(&(seq.0 % RING as u64)), Some(&seq), "an end without an offer");
        assert!(!self.ended.contains(&seq), "an offer ended twice");
        self.ended.push(seq);
    }

    fn settle(&mut self) {
        if let Some(seq) = self.ended.pop() {
            self.ring.settle(seq);
            self.open.remove(&(seq.0 % RING as u64));
        }
    }

    /// The worker is dead: the ring reports each open offer once, and the death.
    fn finish(mut self) {
        self.poll();
        for (seq, _) in self.ring.remains() {
            self.end(seq);
        }
        assert!(!self.ring.has_outstanding());
        assert_eq!(self.ended.len(), self.open.len(), "an offer never ended");
        for signal in [4, 6, 7, 8, 9, 11, 24] {
            let _death = self.ring.death_by(signal, false, 1);
        }
    }
}
