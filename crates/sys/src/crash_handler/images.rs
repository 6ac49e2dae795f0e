//! The code of other files than the program: libc, libraries of the language, what a task has loaded.
//!
//! The crash handler reads the list of mappings when the process dies (proc_pid_maps(5)), so libraries that were loaded
//! late are in it. It calls open(2), read(2) and close(2) and nothing of the dynamic loader: dl_iterate_phdr(3) takes a
//! lock, which the thread that died may hold. Without /proc or without a free descriptor there are no frames of other files.
//! A fixed number of mappings and of bytes of each name is kept, in a static, so that it takes no stack of the handler's. Only the thread that records locks it, and never waits for it.
//!
//! An offset is the address minus that of the file's first mapping: for a shared library, the address in the file that
//! addr2line(1) takes. Driven by the crash handler: it must not allocate or lock.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use nix::libc;

use super::backtrace::is_call_before;
use crate::clock::monotonic_ns;

/// Mappings with code that are kept; a worker with numpy has about 60.
const MAPPINGS_MAX: usize = 192;
/// Bytes of a name that are kept.
pub(super) const NAME_BYTES: usize = 64;
/// Bytes of a line of the list that are looked at. A path is at most 4096 bytes, the fields before it 73.
const LINE_BYTES: usize = 4352;
const BLOCK_BYTES: usize = 4096;

/// Code that belongs to another file than the program, or to none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    start: usize,
    end: usize,
    /// The address of the file's first mapping.
    base: usize,
    /// The last part of its path, filled up with zeros: the first bytes of a longer one.
    pub(super) name: [u8; NAME_BYTES],
}

impl Mapping {
    /// Where its file begins.
    pub(super) fn base(&self) -> usize {
        self.base
    }
}

/// All that is kept, and what the list is read with.
#[derive(Debug)]
pub(super) struct OtherImages {
    mappings: [Mapping; MAPPINGS_MAX],
    count: usize,
    lines: Lines,
    block: [u8; BLOCK_BYTES],
}

/// Of the thread that records.
static READ: Mutex<OtherImages> = Mutex::new(OtherImages::none());

/// The code of other files; `own` is the program's code, which is left out. `None` if another thread is reading the list.
pub(super) fn read(own: &Range<usize>) -> Option<MutexGuard<'static, OtherImages>> {
    let mut images = READ.try_lock().ok()?;
    images.read(own);
    Some(images)
}

/// The same, for threads that may come at the same time: tries again for so long. No thread that holds the lock waits for
/// another one.
pub(super) fn read_within(own: &Range<usize>, most_ns: u64) -> Option<MutexGuard<'static, OtherImages>> {
    let until_ns = monotonic_ns() + most_ns;
    loop {
        let images = read(own);
        if images.is_some() || monotonic_ns() >= until_ns {
            return images;
        }
        // SAFETY: takes nothing.
        unsafe { libc::sched_yield() };
    }
}

impl OtherImages {
    /// None.
    pub(super) const fn none() -> Self {
        let nothing = Mapping { start: 0, end: 0, base: 0, name: [0; NAME_BYTES] };
        Self { mappings: [nothing; MAPPINGS_MAX], count: 0, lines: Lines::NONE, block: [0; BLOCK_BYTES] }
    }

    fn read(&mut self, own: &Range<usize>) {
        (self.count, self.lines.length, self.lines.file) = (0, 0, MappedFile::NONE);
        // SAFETY: the path ends with a zero byte.
        let list = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if list < 0 {
            return;
        }
        loop {
            // SAFETY: what is written is the block, at most whole.
            let read = unsafe { libc::read(list, self.block.as_mut_ptr().cast(), BLOCK_BYTES) };
            let Some(bytes @ 1..=BLOCK_BYTES) = usize::try_from(read).ok() else { break };
            for at in 0..bytes {
                match self.block[at] {
                    b'\n' => {
                        let found = self.lines.take();
                        self.keep(found, own);
                    }
                    byte => self.lines.push(byte),
                }
            }
        }
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(list) };
    }

    fn keep(&mut self, found: Option<Mapping>, own: &Range<usize>) {
        if let Some(mapping) = found
            && !(mapping.start..mapping.end).contains(&own.start)
            && let Some(place) = self.mappings.get_mut(self.count)
        {
            *place = mapping;
            self.count += 1;
        }
    }

    /// The code in which an address lies, and its offset in that file.
    pub(super) fn find(&self, address: usize) -> Option<(&Mapping, u64)> {
        let kept = self.mappings.get(..self.count)?;
        let found = kept.iter().find(|mapping| (mapping.start..mapping.end).contains(&address))?;
        Some((found, address.wrapping_sub(found.base) as u64))
    }

    /// Whether `address` is the return address of a call in such code.
    pub(super) fn is_return(&self, address: usize) -> bool {
        self.find(address).is_some_and(|(mapping, _)| mapping.start + size_of::<usize>() <= address)
            && is_call_before(address)
    }
}

/// A file in the list, and where its first mapping begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MappedFile {
    device: u64,
    inode: u64,
    base: usize,
}

impl MappedFile {
    const NONE: Self = Self { device: 0, inode: 0, base: 0 };
}

/// The line that is being read, and the file of the lines before it.
#[derive(Debug)]
struct Lines {
    line: [u8; LINE_BYTES],
    length: usize,
    file: MappedFile,
}

impl Lines {
    const NONE: Self = Self { line: [0; LINE_BYTES], length: 0, file: MappedFile::NONE };

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.line.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// The mapping of a whole line, if it has code: `start-end rwxp offset major:minor inode path`.
    fn take(&mut self) -> Option<Mapping> {
        let length = std::mem::take(&mut self.length);
        let mut rest = self.line.get(..length)?;
        let (start, end) = (number(&mut rest, 16)?, number(&mut rest, 16)?);
        let rights = word(&mut rest);
        let (offset, major, minor) = (number(&mut rest, 16)?, number(&mut rest, 16)?, number(&mut rest, 16)?);
        let (device, inode) = (major << 32 | minor, number(&mut rest, 10)?);
        let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
        let is_same = (self.file.device, self.file.inode) == (device, inode);
        if inode == 0 {
            // Memory without a file lies between the mappings of one, too.
        } else if !is_same || offset == 0 && rights.first() == Some(&b'r') && rights.get(2) != Some(&b'x') {
            self.file = MappedFile { device, inode, base: start.wrapping_sub(usize::try_from(offset).ok()?) };
        }
        let base = if inode == 0 { start } else { self.file.base };
        (rights.get(2) == Some(&b'x')).then(|| Mapping { start, end, base, name: name_of(rest) })
    }
}

/// The last part of a path, or a name that shows that there is none.
fn name_of(mut path: &[u8]) -> [u8; NAME_BYTES] {
    while let [b' ', rest @ ..] = path {
        path = rest;
    }
    let after = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let last = path.get(after..).filter(|last| !last.is_empty()).unwrap_or(b"[no file]");
    let mut name = [0; NAME_BYTES];
    for (place, byte) in name.iter_mut().zip(last) {
        *place = *byte;
    }
    name
}

/// Takes a number and the byte after it off the front.
fn number(rest: &mut &[u8], radix: u32) -> Option<u64> {
    let mut value = 0_u64;
    let mut digits = 0;
    while let Some((first, after)) = rest.split_first() {
        let Some(digit) = char::from(*first).to_digit(radix) else {
            *rest = after;
            break;
        };
        value = value.checked_mul(radix.into())?.checked_add(digit.into())?;
        *rest = after;
        digits += 1;
    }
    (digits > 0).then_some(value)
}

/// Takes a word and the blank after it off the front.
fn word<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (found, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(list: &str) -> OtherImages {
        let mut images = OtherImages::none();
        let mut lines = Lines::NONE;
        for line in list.lines() {
            line.bytes().for_each(|byte| lines.push(byte));
            let found = lines.take();
            images.keep(found, &(0x1000..0x2000));
        }
        images
    }

    fn shown(images: &OtherImages, address: usize) -> Option<(String, u64)> {
        images.find(address).map(|(mapping, offset)| {
            let end = mapping.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
            (String::from_utf8_lossy(&mapping.name[..end]).into_owned(), offset)
        })
    }

    #[test]
    fn an_address_belongs_to_the_file_whose_code_is_mapped_there() {
        let long = "x".repeat(5000);
        let images = mappings(&format!(
            "00001000-00002000 r-xp 00000000 fe:01 7                          /bin/program\n\
             7f0000000000-7f0000001000 r--p 00000000 fe:01 42                     /usr/lib/libone.so.6\n\
             7f0000001000-7f0000003000 r-xp 00001000 fe:01 42                     /usr/lib/libone.so.6\n\
             7f0000003000-7f0000004000 rw-p 00000000 00:00 0\n\
             7f0000004000-7f0000005000 rw-p 00003000 fe:01 42                     /usr/lib/libone.so.6\n\
             7f0000010000-7f0000011000 rwxp 00000000 00:00 0\n\
             7f0000020000-7f0000021000 r-xp 00003000 fe:01 43                     /usr/lib/a b\u{1b}.so (deleted)\n\
             7f0000030000-7f0000031000 r-xp 00000000 00:00 0                      [vdso]\n\
             7f0000040000-7f0000041000 r-xp 00000000 fe:01 44                     /{long}\n\
             no mapping at all\n"
        ));
        let found = |address| shown(&images, address);
        assert_eq!(found(0x1800), None, "the program has its own frames");
        assert_eq!(found(0x7f00_0000_1010), Some(("libone.so.6".to_owned(), 0x1010)));
        assert_eq!(found(0x7f00_0000_4000), None, "data is no code");
        assert_eq!(found(0x7f00_0001_0008), Some(("[no file]".to_owned(), 8)));
        assert_eq!(found(0x7f00_0002_0010), Some(("a b\u{1b}.so (deleted)".to_owned(), 0x3010)));
        assert_eq!(found(0x7f00_0003_0010), Some(("[vdso]".to_owned(), 0x10)));
        assert_eq!(found(0x7f00_0004_0000), Some(("x".repeat(NAME_BYTES), 0)));
        assert_eq!(found(0), None);
    }

    #[test]
    fn libc_is_among_the_mappings_of_this_process() {
        let mut images = OtherImages::none();
        images.read(&(0..0));
        let place = libc::getpid as unsafe extern "C" fn() -> libc::pid_t as usize;
        let (name, offset) = shown(&images, place).expect("libc has code");
        assert!(name.starts_with("libc") && offset > 0, "{name} {offset:#x}");
        // What the loader says of the same address.
        // SAFETY: all-zero bytes are a valid Dl_info to be filled.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: the address is one of code, and `info` is ours.
        assert_ne!(unsafe { libc::dladdr(place as *const libc::c_void, &raw mut info) }, 0);
        assert_eq!(place - info.dli_fbase.addr(), usize::try_from(offset).unwrap());
    }

    #[test]
    fn more_mappings_than_are_kept_cost_frames_and_nothing_else() {
        let line = |number: usize| {
            format!(
                "{:x}-{:x} r-xp 00000000 fe:01 {number} /l{number}\n",
                number << 20,
                (number << 20) + 4096
            )
        };
        let list: String = (1..=MAPPINGS_MAX + 8).map(line).collect();
        let images = mappings(&list);
        assert_eq!(shown(&images, MAPPINGS_MAX << 20), Some((format!("l{MAPPINGS_MAX}"), 0)));
        assert_eq!(shown(&images, (MAPPINGS_MAX + 1) << 20), None);
    }
}
