//! A kind whose jobs are split, and whose merge can be stopped in its middle.
//!
//! Each part writes its range of the shared output. The merge writes the bytes behind them: one half, then a wait at a
//! gate, then the other half. The input is the path of the gate; a file beside it records the processes that have begun
//! to merge. Driven by `payload-worker`, whose config declares it with `plans = true`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bulkhead_worker::{FanOut, PackedParts, Planned, Split, TaskContext, TaskFailure};

use crate::payload::pause;

/// Its name.
pub const PIECES: &str = "pieces";

const PARTS: u8 = 5;
const PIECE_BYTES: usize = 1 << 20;
const FIRST_HALF: &[u8] = b"half of the end, ";
const SECOND_HALF: &[u8] = b"and the rest of it\n";

/// The kind.
#[derive(Debug)]
pub struct Pieces;

/// The expected output of the job.
pub fn whole() -> Vec<u8> {
    let pieces = (0..PARTS).flat_map(|part| vec![part; PIECE_BYTES]);
    pieces.chain(FIRST_HALF.iter().chain(SECOND_HALF).copied()).collect()
}

/// The processes that have begun to merge, of the job with this gate.
pub fn merged_by(gate: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(merges(gate)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn merges(gate: &Path) -> PathBuf {
    gate.with_extension("merges")
}

impl FanOut for Pieces {
    fn plan(&self, _: &[u8], _: &mut dyn TaskContext) -> Result<Split, TaskFailure> {
        Ok(Split { common: Vec::new(), parts: (0..PARTS).map(|part| vec![part]).collect() })
    }

    fn run(&self, _: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        let place = u64::from(part[0]) * PIECE_BYTES as u64;
        task.shared()?.write_all_at(&vec![part[0]; PIECE_BYTES], place)?;
        Ok(task.write_all(part)?)
    }

    fn merge(
        &self,
        job: Planned<'_>,
        _: &PackedParts<'_>,
        results: &PackedParts<'_>,
        task: &mut dyn TaskContext,
    ) -> Result<(), TaskFailure> {
        let gate = PathBuf::from(String::from_utf8_lossy(job.input).into_owned());
        let mut merges = File::options().append(true).create(true).open(merges(&gate))?;
        writeln!(merges, "{}", std::process::id())?;
        let told: Vec<u8> = results.iter().collect::<Result<Vec<_>, _>>()?.concat();
        assert_eq!(told, (0..PARTS).collect::<Vec<_>>(), "each part told its number, once");
        let (output, place) = (task.shared()?, u64::from(PARTS) * PIECE_BYTES as u64);
        output.write_all_at(FIRST_HALF, place)?;
        pause(&gate)?;
        Ok(output.write_all_at(SECOND_HALF, place + FIRST_HALF.len() as u64)?)
    }
}
