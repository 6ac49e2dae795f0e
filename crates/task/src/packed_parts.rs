//! Reads the packed parts of a plan, or the packed results of parts, from a file (the format of
//! `bulkhead_proto::worker::stage`).
//!
//! Parts are read one at a time, so a run task of a plan with 65,536 parts reads only its own. Every offset is checked
//! against the length of the file before anything is allocated, because another process wrote the file. Driven by the
//! worker's `stage_call.rs`.

use std::os::unix::fs::FileExt;

use bulkhead_proto::worker::stage::{COUNT_BYTES, parts_of, table_bytes};

use crate::TaskFailure;

/// Parts or results in a file, each read when it is asked for.
#[derive(Clone, Copy)]
pub struct PackedParts<'a> {
    /// The file and its length; without a file all parts are empty.
    file: Option<(&'a dyn FileExt, u64)>,
    count: u32,
}

impl<'a> PackedParts<'a> {
    /// Opens the parts in `file`, which is `length` bytes long.
    ///
    /// # Errors
    /// [`TaskFailure`] if the file cannot be read or its count of parts does not fit its length.
    pub fn open(file: &'a dyn FileExt, length: u64) -> Result<Self, TaskFailure> {
        let mut head = [0; COUNT_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let count = parts_of(head, length).ok_or_else(|| malformed("its count of parts", length))?;
        Ok(Self { file: Some((file, length)), count })
    }

    /// This many empty parts.
    pub fn empty(count: u32) -> Self {
        Self { file: None, count }
    }

    /// The number of parts.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are no parts.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Reads one part, counted from 0.
    ///
    /// # Errors
    /// [`TaskFailure`] if there is no such part, or it cannot be read.
    pub fn get(&self, part: u32) -> Result<Vec<u8>, TaskFailure> {
        if part >= self.count {
            return Err(TaskFailure::new(format!("there is no part {part}, only {}", self.count)));
        }
        let mut pair = [0; 2 * COUNT_BYTES];
        let Some((file, length)) = self.file else { return Ok(Vec::new()) };
        file.read_exact_at(&mut pair, COUNT_BYTES as u64 * (u64::from(part) + 1))?;
        let word = |place: usize| {
            u64::from_le_bytes(*pair[place..].first_chunk().expect("the pair holds two words of eight bytes"))
        };
        self.read_range(file, (word(0), word(COUNT_BYTES)), length)
    }

    /// Reads all parts in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Vec<u8>, TaskFailure>> + '_ {
        (0..self.count).map(|part| self.get(part))
    }

    /// Reads the bytes after the last part.
    ///
    /// # Errors
    /// [`TaskFailure`] if it cannot be read.
    pub fn rest(&self) -> Result<Vec<u8>, TaskFailure> {
        let Some((file, length)) = self.file else { return Ok(Vec::new()) };
        let mut end = [0; COUNT_BYTES];
        file.read_exact_at(&mut end, COUNT_BYTES as u64 * (u64::from(self.count) + 1))?;
        self.read_range(file, (u64::from_le_bytes(end), length), length)
    }

    fn read_range(
        &self,
        file: &dyn FileExt,
        (from, to): (u64, u64),
        length: u64,
    ) -> Result<Vec<u8>, TaskFailure> {
        if from < table_bytes(self.count) || from > to || to > length {
            return Err(malformed("a part", length));
        }
        let bytes = usize::try_from(to - from).map_err(|_| malformed("a part", length))?;
        let mut part = vec![0; bytes];
        file.read_exact_at(&mut part, from)?;
        Ok(part)
    }
}

fn malformed(what: &str, length: u64) -> TaskFailure {
    TaskFailure::new(format!(
        "the plan of the job or its results are malformed: {what} does not fit {length} bytes"
    ))
}

impl std::fmt::Debug for PackedParts<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PackedParts").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bulkhead_proto::limits::PARTS_MAX;
    use bulkhead_proto::worker::stage::pack;

    use super::*;

    /// A file in memory that is only read.
    struct PackedBytes<'a>(&'a [u8]);

    impl FileExt for PackedBytes<'_> {
        fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
            let rest = &self.0[self.0.len().min(at as usize)..];
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    fn told(bytes: &[u8], piece: u32) -> Result<Vec<u8>, String> {
        let file = PackedBytes(bytes);
        let packed = PackedParts::open(&file, bytes.len() as u64).map_err(|failure| failure.to_string())?;
        packed.get(piece).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_was_packed_comes_out_again() {
        let pieces = [&b"one"[..], b"", b"three"];
        let mut bytes = pack(&pieces);
        bytes.extend_from_slice(b"brief");
        let file = PackedBytes(&bytes);
        let packed = PackedParts::open(&file, bytes.len() as u64).unwrap();
        let out: Vec<_> = packed.iter().map(Result::unwrap).collect();
        assert_eq!((out, packed.len()), (pieces.map(<[u8]>::to_vec).to_vec(), 3));
        assert_eq!(packed.rest().unwrap(), b"brief");
        assert_eq!(packed.get(3).unwrap_err().to_string(), "there is no part 3, only 3");
    }

    #[test]
    fn results_that_nobody_left_are_empty() {
        let packed = PackedParts::empty(2);
        assert_eq!(packed.iter().map(Result::unwrap).collect::<Vec<_>>(), [b"", b""]);
        assert!(packed.get(2).is_err() && packed.rest().unwrap().is_empty() && !packed.is_empty());
    }

    /// A forged table must neither be believed nor make it allocate.
    #[test]
    fn every_forged_word_is_refused() {
        let good = pack(&[&b"one"[..], b"two"]);
        assert_eq!(told(&good, 1).unwrap(), b"two");
        for (place, word) in [
            (0, 3), // one part more than there is room for
            (0, u64::from(PARTS_MAX) + 1),
            (2, 0),
            (2, 31),       // inside the table
            (2, 39),       // behind its own end
            (3, u64::MAX), // far behind the file
            (3, good.len() as u64 + 1),
        ] {
            let mut forged = good.clone();
            forged[8 * place..8 * (place + 1)].copy_from_slice(&u64::to_le_bytes(word));
            let said = told(&forged, 1).unwrap_err();
            assert!(said.contains("malformed"), "word {place} = {word}: {said}");
        }
        for length in 0..24 {
            assert!(told(&good[..length], 0).is_err(), "{length} bytes");
        }
    }
}
