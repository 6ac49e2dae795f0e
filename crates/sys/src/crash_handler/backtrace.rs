//! Walks the stack of a crashed thread: the interrupted instruction, then the calls that led there.
//!
//! It follows frame pointers, from the registers that the kernel passes to the handler; a build without frame
//! pointers shows fewer frames. libc has none: where it breaks the chain, the stack is searched for the next call of
//! the program's own code, and the record says so. All memory is read by process_vm_readv(2), which fails where a
//! load would fault, so a corrupted stack costs frames and nothing else. `bulkhead job` and `deaths` look up functions and
//! lines of the program's own frames later, if the file is still the one that ran.
//!
//! Frames of other files (`images.rs`) are passed on too: the interrupted instruction; callers in the chain of frame
//! pointers; and, where the stack was searched, up to [`OTHERS_SEARCHED`] return addresses between the top of the stack and
//! the call of the program's own code.
//!
//! Driven by the crash handler: it must not allocate or lock. Works on x86-64 and AArch64; elsewhere there are no
//! frames.

use std::ffi::c_void;
use std::ops::Range;

use nix::libc;

use super::images::OtherImages;

/// Size of a word and of a return address.
const WORD: usize = size_of::<usize>();
/// Calls that are followed at most, including those that are not kept.
const HOPS_MAX: usize = 64;
/// A chain of so many calls of the program's own code is one that leads to the beginning of its thread.
const CHAIN_CALLS: usize = 4;
/// Return addresses that are tried for the innermost call, if the first ones lead to no such chain.
const CALLS_TRIED: usize = 12;
/// Return addresses in other files that a search of the stack passes on.
const OTHERS_SEARCHED: usize = 8;
/// Words of the stack that are searched, and words per read: a search holds several blocks on the stack of the handler.
const SEARCH_WORDS: usize = 4096;
const BLOCK_WORDS: usize = 32;
/// How far below the stack pointer a thread can touch the next page of its stack.
const FRAME_REACH_BYTES: usize = 64 << 10;
/// The smallest page size, which divides all others.
const PAGE_BYTES: usize = 4096;

/// The program's own file as it is mapped.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Its load address: address minus this is the address in the file.
    base: usize,
    /// The range of its code.
    code: Range<usize>,
}

impl Image {
    /// The image of this process, without code if dl_iterate_phdr fails.
    pub(super) fn own() -> Self {
        let mut image = Self { base: 0, code: 0..0 };
        // SAFETY: the callback has the form that is asked for and gets `image`, which lives through the call.
        unsafe { libc::dl_iterate_phdr(Some(take_first), (&raw mut image).cast()) };
        image
    }

    /// The address in the file.
    pub(super) fn in_file(&self, address: usize) -> u64 {
        address.wrapping_sub(self.base) as u64
    }

    /// Where its code is.
    pub(super) fn code(&self) -> &Range<usize> {
        &self.code
    }

    fn holds(&self, address: usize) -> bool {
        self.code.contains(&address)
    }

    /// Whether `address` is the return address of a call in this code.
    fn is_return(&self, address: usize) -> bool {
        self.holds(address) && self.holds(address.wrapping_sub(WORD)) && is_call_before(address)
    }
}

/// Whether the instruction before this address, which is at least a word, is a call.
pub(super) fn is_call_before(address: usize) -> bool {
    let mut before = [0; 1];
    read_words(address - WORD, &mut before) == 1 && is_call(before[0].to_ne_bytes())
}

/// A frame of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StackFrame {
    /// Of the program: the address in its file.
    Own(u64),
    /// Of another file: the address in memory.
    Other(usize),
}

/// The first object that dl_iterate_phdr reports is the program itself.
unsafe extern "C" fn take_first(info: *mut libc::dl_phdr_info, _: usize, image: *mut c_void) -> libc::c_int {
    // SAFETY: the loader hands over a filled dl_phdr_info, and what was given to dl_iterate_phdr: an `Image`.
    let (info, image) = unsafe { (&*info, &mut *image.cast::<Image>()) };
    image.base = info.dlpi_addr as usize;
    for segment in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: there are so many program headers there.
        let header = unsafe { &*info.dlpi_phdr.add(segment) };
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
            let start = image.base + header.p_vaddr as usize;
            let end = start + header.p_memsz as usize;
            image.code = match image.code.is_empty() {
                true => start..end,
                false => image.code.start.min(start)..image.code.end.max(end),
            };
        }
    }
    1
}

/// The registers from which a walk starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    /// The program counter.
    pc: usize,
    /// The stack pointer.
    stack: usize,
    /// The frame pointer.
    frame: usize,
    /// The link register, on processors that keep the return address there.
    link: Option<usize>,
}

impl Registers {
    /// The registers that a signal interrupted.
    ///
    /// # Safety
    /// `context` is what the kernel gave to a handler that was installed with SA_SIGINFO.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn of(context: *const c_void) -> Option<Self> {
        // SAFETY: the caller says that this is a filled ucontext_t.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |number: i32| registers[number as usize] as usize;
        let (pc, stack) = (register(libc::REG_RIP), register(libc::REG_RSP));
        Some(Self { pc, stack, frame: register(libc::REG_RBP), link: None })
    }

    /// The registers that a signal interrupted.
    ///
    /// # Safety
    /// `context` is what the kernel gave to a handler that was installed with SA_SIGINFO.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn of(context: *const c_void) -> Option<Self> {
        // SAFETY: the caller says that this is a filled ucontext_t.
        let context = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        let (pc, stack) = (context.pc as usize, context.sp as usize);
        Some(Self { pc, stack, frame: context.regs[29] as usize, link: Some(context.regs[30] as usize) })
    }

    /// No registers on other processors.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) unsafe fn of(_context: *const c_void) -> Option<Self> {
        None
    }
}

impl Registers {
    /// The interrupted instruction.
    pub(super) fn pc(self) -> usize {
        self.pc
    }

    /// The stack pointer.
    pub(super) fn stack(self) -> usize {
        self.stack
    }

    /// Whether the fault lies at the end of the stack in use, whichever thread's it is. The stack itself must be
    /// readable, or the registers are corrupt.
    pub(super) fn are_at_stack_end(&self, fault: usize) -> bool {
        let near = self.stack.saturating_sub(FRAME_REACH_BYTES)..self.stack.saturating_add(PAGE_BYTES);
        let above = self.stack.saturating_add(2 * PAGE_BYTES) & !(WORD - 1);
        near.contains(&fault) && read_words(above, &mut [0]) == 1
    }
}

/// Passes the frames to `keep`, the innermost first, until it returns `false`. A caller's address lies inside its
/// call instruction. Returns whether the stack was searched.
pub(super) fn walk(
    image: &Image,
    others: Option<&OtherImages>,
    registers: Registers,
    keep: &mut dyn FnMut(StackFrame) -> bool,
) -> bool {
    let Registers { pc, stack, frame, link } = registers;
    let is_own = image.holds(pc);
    let goes_on = match is_own {
        true => keep(StackFrame::Own(image.in_file(pc))),
        false => others.and_then(|others| others.find(pc)).is_none() || keep(StackFrame::Other(pc)),
    };
    if !goes_on {
        return false;
    }
    if is_own && record(frame, stack).is_some_and(|(_, caller)| image.is_return(caller)) {
        follow(image, others, frame, keep);
        return false;
    }
    let called = link.filter(|_| !is_own).filter(|&link| image.is_return(link));
    let (caller, frame) = search(image, stack, frame, called);
    if called.is_none() && !pass_others(others, stack, caller, keep) {
        return true;
    }
    if let Some(caller) = caller
        && keep(StackFrame::Own(image.in_file(caller - 1)))
        && let Some(frame) = frame
    {
        follow(image, others, frame, keep);
    }
    true
}

/// Passes on the return addresses in other files that stand on the stack before that of the program's own call. Returns
/// whether to go on.
fn pass_others(
    others: Option<&OtherImages>,
    stack: usize,
    own: Option<usize>,
    keep: &mut dyn FnMut(StackFrame) -> bool,
) -> bool {
    let before = words(stack).map(|(_, word)| word).take_while(|&word| Some(word) != own);
    before
        .filter(|&word| is_return(others, word))
        .take(OTHERS_SEARCHED)
        .all(|caller| keep(StackFrame::Other(caller - 1)))
}

/// Whether `address` is the return address of a call in one of these.
fn is_return(others: Option<&OtherImages>, address: usize) -> bool {
    others.is_some_and(|others| others.is_return(address))
}

/// Passes on the callers in the chain of frame records that begins at `frame`.
fn follow(
    image: &Image,
    others: Option<&OtherImages>,
    mut frame: usize,
    keep: &mut dyn FnMut(StackFrame) -> bool,
) {
    for _ in 0..HOPS_MAX {
        let Some((next, caller)) = record(frame, frame) else { return };
        let goes_on = if image.is_return(caller) {
            keep(StackFrame::Own(image.in_file(caller - 1)))
        } else {
            !is_return(others, caller) || keep(StackFrame::Other(caller - 1))
        };
        if !goes_on || next <= frame {
            return;
        }
        frame = next;
    }
}

/// The frame record at `frame`, which must not be below `lowest`: the caller's frame pointer and the return address.
fn record(frame: usize, lowest: usize) -> Option<(usize, usize)> {
    let mut words = [0; 2];
    let is_one = frame >= lowest && frame.is_multiple_of(WORD) && read_words(frame, &mut words) == 2;
    is_one.then_some((words[0], words[1]))
}

/// The return address of the innermost call of the program's code - that is `called`, if it is valid - and the frame
/// record of the function that made the call.
///
/// Among the words that libc does not write are return addresses of calls that are over. Their frames are over too, so few
/// lead on to the callers that live: the first return address that leads to [`CHAIN_CALLS`] counts, else the one that leads
/// furthest.
fn search(
    image: &Image,
    stack: usize,
    frame: usize,
    called: Option<usize>,
) -> (Option<usize>, Option<usize>) {
    let returns = words(stack).filter(|&(_, word)| called.is_none() && image.is_return(word));
    let mut best = (None, None);
    let mut furthest = 0;
    for (place, caller) in called.map(|called| (stack, called)).into_iter().chain(returns).take(CALLS_TRIED) {
        let record = caller_record(image, (stack, place), frame);
        let calls = record.map_or(0, |record| own_calls(image, record));
        if best.0.is_none() || calls > furthest {
            (best, furthest) = ((Some(caller), record), calls);
        }
        if calls >= CHAIN_CALLS {
            break;
        }
    }
    best
}

/// The calls of the program's own code in the chain of frame records that begins here, as far as they count.
fn own_calls(image: &Image, frame: usize) -> usize {
    let mut calls = 0;
    follow(image, None, frame, &mut |_| {
        calls += 1;
        calls < CHAIN_CALLS
    });
    calls
}

/// The frame record of the function whose call left its return address at `place`.
///
/// What was called saved the pointer to that record below the return address, or left it in `frame`. Older words lie there
/// too, and some are pointers to records of calls that are over or of functions further out. All records of functions
/// further out lie above the one that is looked for, so the lowest is taken. If there is none, the first one above counts.
fn caller_record(image: &Image, (stack, place): (usize, usize), frame: usize) -> Option<usize> {
    let is_frame = |&frame: &usize| record(frame, place).is_some_and(|(_, caller)| image.is_return(caller));
    let saved = words(stack).take_while(|&(at, _)| at < place).map(|(_, word)| word);
    let lowest = saved.chain([frame]).filter(is_frame).min();
    let above = || words(place).map(|(_, word)| word).find(is_frame);
    lowest.or_else(above)
}

/// The readable words from `stack` on, each with its place, as far as the stack is searched.
fn words(stack: usize) -> impl Iterator<Item = (usize, usize)> {
    let start = stack.next_multiple_of(WORD);
    let mut block = [0; BLOCK_WORDS];
    let mut read = 0;
    (0..SEARCH_WORDS).map_while(move |number| {
        let at = start.checked_add(number * WORD)?;
        let place = number % BLOCK_WORDS;
        if place == 0 {
            read = read_words(at, &mut block);
        }
        (place < read).then(|| (at, block[place]))
    })
}

/// Copies words of this process as far as they are readable; returns their number.
fn read_words(at: usize, into: &mut [usize]) -> usize {
    let bytes = size_of_val(into);
    let first = bytes.min(PAGE_BYTES - at % PAGE_BYTES);
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: bytes };
    // One iovec per page, because each is copied whole or not at all.
    let piece = |at: usize, bytes| libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(at),
        iov_len: bytes,
    };
    let Some(second) = at.checked_add(first) else { return 0 };
    let remote = [piece(at, first), piece(second, bytes - first)];
    // SAFETY: what is written is `into`, whole; what is read the kernel checks. Both calls are safe in a handler.
    let read = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0)
    };
    usize::try_from(read).map_or(0, |read| read / WORD)
}

/// Whether these eight bytes end with a call: five bytes with a relative address, or an indirect call through a
/// register or memory (Intel's manual, volume 2, CALL and table 2-2).
#[cfg(target_arch = "x86_64")]
fn is_call(before: [u8; WORD]) -> bool {
    let back = |bytes: usize| before[WORD - bytes];
    let indirect = |bytes: usize| {
        let (operand, index) = (back(bytes - 1), if bytes > 2 { back(bytes - 2) } else { 0 });
        let (mode, target) = (operand >> 6, operand & 7);
        let with_index = usize::from(target == 4 && mode != 3);
        let distance = match (mode, target) {
            (1, _) => 1,
            (2, _) | (0, 5) => 4,
            (0, 4) if index & 7 == 5 => 4,
            _ => 0,
        };
        back(bytes) == 0xff && operand >> 3 & 7 == 2 && bytes == 2 + with_index + distance
    };
    back(5) == 0xe8 || (2..=7).any(indirect)
}

/// Whether the last four of these eight bytes are a call: BL or BLR (Arm's manual, C6.2).
#[cfg(target_arch = "aarch64")]
fn is_call(before: [u8; WORD]) -> bool {
    let call = u32::from_le_bytes([before[4], before[5], before[6], before[7]]);
    call & 0xfc00_0000 == 0x9400_0000 || call & 0xffff_fc1f == 0xd63f_0000
}

/// No calls are recognised on other processors.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn is_call(_before: [u8; WORD]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A return address in this program's code.
    fn any_return(image: &Image) -> usize {
        let start = search as fn(&Image, usize, usize, Option<usize>) -> _ as usize;
        (start..start + 4096).find(|&address| image.is_return(address)).expect("the function calls others")
    }

    /// What abort(3) of libc leaves on the stack: words that nothing has overwritten, below the call.
    #[test]
    fn a_stale_pointer_does_not_skip_callers() {
        let image = Image::own();
        let called = any_return(&image);
        let mut stack = [0; 64];
        let start = stack.as_ptr().addr();
        let at = |word: usize| start + word * WORD;
        let (stale, own, outer) = (at(20), at(11), at(30));
        (stack[2], stack[4]) = (stale, own);
        (stack[10], stack[11], stack[12]) = (called, outer, called);
        (stack[20], stack[21]) = (outer, called);
        let further = [30, 36, 42].map(|word| (word, at(word + 6)));
        for (word, next) in further {
            (stack[word], stack[word + 1]) = (next, called);
        }
        let found = search(&image, stack.as_ptr().expose_provenance(), 0, None);
        assert_eq!(found, (Some(called), Some(own)));
        stack[4] = 0;
        let found = search(&image, stack.as_ptr().expose_provenance(), own, None);
        assert_eq!(found, (Some(called), Some(own)), "still in the register");
    }

    /// What a longer call leaves that is over: a return address, and the pointer to a record that leads nowhere.
    #[test]
    fn a_call_that_is_over_is_passed_over_for_one_that_leads_on() {
        let image = Image::own();
        let called = any_return(&image);
        let mut stack = [0; 64];
        let start = stack.as_ptr().addr();
        let at = |word: usize| start + word * WORD;
        let (over, own) = (at(12), at(30));
        // The call that is over returned to place 4, and its caller's record has no caller of its own.
        (stack[2], stack[4], stack[12], stack[13]) = (over, called, 0, called);
        // The call that lives returned to place 20; its caller and three more have records.
        (stack[18], stack[20]) = (own, called);
        let chain = [30, 36, 42, 48, 54].map(at);
        for (word, next) in [30, 36, 42, 48].into_iter().zip(&chain[1..]) {
            (stack[word], stack[word + 1]) = (*next, called);
        }
        let found = search(&image, stack.as_ptr().expose_provenance(), 0, None);
        assert_eq!(found, (Some(called), Some(own)));
    }
}
