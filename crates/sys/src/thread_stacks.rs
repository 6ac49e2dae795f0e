//! Writes the stacks of all threads of this process into a file when a signal asks for it: a worker's last act before it is
//! killed for a limit of time or a cancel.
//!
//! The thread that gets the signal writes its own stack and sends the same signal to all others (tgkill(2)). Each writes
//! with one call of write(2), so that stacks do not mix. Nobody waits: what has not written when the worker is killed is
//! missing, as is a thread that blocks the signal. The handler must never allocate or lock: it calls open, read, write,
//! getdents64, tgkill and prctl, walks the stack as the crash handler does, and leaves errno as it was. A forked child writes
//! nothing.
//!
//! It writes only while two words in shared memory are equal: what is asked for, and what runs. A frame is
//! `  program+0x1b` with an address in the program's own file, or `  libc.so.6+0x1b`. Installed by the worker, once.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::libc::{self, c_int, siginfo_t};

use crate::crash_handler::{PlacedFrame, StackWalker};
use crate::shared_page::SharedPage;

/// Most frames of one thread.
const FRAMES_MAX: usize = 24;
/// Bytes of the longest text of one stack.
const STACK_BYTES: usize = 1536;
const BLOCK_BYTES: usize = 1024;
/// Bytes of a thread's name, with the zero at its end (prctl(2)).
const NAME_BYTES: usize = 16;

/// A word of a shared page.
#[derive(Debug)]
pub struct SharedWord {
    /// The page.
    pub page: SharedPage,
    /// The word's offset.
    pub at: usize,
}

impl SharedWord {
    fn load(&self) -> u64 {
        self.page.load(self.at, Ordering::Acquire)
    }
}

/// What the handler needs.
#[derive(Debug)]
struct AskedStacks {
    asked: SharedWord,
    runs: SharedWord,
    into: OwnedFd,
    walker: StackWalker,
    pid: u32,
}

static REQUEST: OnceLock<AskedStacks> = OnceLock::new();
/// Installs the handler of `signal`, which writes into `into` while the word `asked` is not 0 and equal to `runs`.
///
/// # Errors
/// EALREADY: it was called before. EINVAL: no such signal.
pub fn install(signal: i32, asked: SharedWord, runs: SharedWord, into: OwnedFd) -> io::Result<()> {
    let request = AskedStacks { asked, runs, into, walker: StackWalker::new(), pid: process::id() };
    REQUEST.set(request).map_err(|_| Errno::EALREADY)?;
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
    // SAFETY: all-zero bytes are a valid sigaction: the default one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the stack of the thread: no stack has overflowed, and the signal stack of a thread may have 8 KiB.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the form that SA_SIGINFO asks for and does only what is safe in a handler.
    Errno::result(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    Ok(())
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    if let Some(request) = REQUEST.get()
        && request.pid == process::id()
        && request.is_wanted()
    {
        // SAFETY: asks for a number.
        let own = unsafe { libc::gettid() };
        request.write_stack(own, context);
        // SAFETY: the kernel hands a filled siginfo_t to a handler that was installed with SA_SIGINFO.
        if unsafe { (*info).si_code } != libc::SI_TKILL {
            request.call_others(signal, own);
        }
    }
    Errno::set_raw(errno);
}

impl AskedStacks {
    fn is_wanted(&self) -> bool {
        let asked = self.asked.load();
        asked != 0 && asked == self.runs.load()
    }

    /// Has each other thread write its stack.
    fn call_others(&self, signal: c_int, own: c_int) {
        let how = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path ends with a zero byte.
        let threads = unsafe { libc::open(c"/proc/self/task".as_ptr(), how) };
        if threads < 0 {
            return;
        }
        let mut block = [0_u8; BLOCK_BYTES];
        loop {
            // SAFETY: what is written is the block, at most whole.
            let read =
                unsafe { libc::syscall(libc::SYS_getdents64, threads, block.as_mut_ptr(), block.len()) };
            let Some(entries) = usize::try_from(read).ok().and_then(|read| block.get(..read)) else { break };
            if entries.is_empty() {
                break;
            }
            for_each_thread(entries, &mut |thread| {
                if thread != own {
                    // SAFETY: tgkill takes integers; the thread is of this process, or gone.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
                }
            });
        }
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(threads) };
    }

    fn write_stack(&self, thread: c_int, context: *const c_void) {
        let mut name = [0_u8; NAME_BYTES];
        // SAFETY: the kernel writes at most 16 bytes, which is the size of the name.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
        let mut text = Text::new();
        text.text(b"thread ").text(&name[..end]).text(b" (").decimal(thread.unsigned_abs()).text(b"):\n");
        let mut left = FRAMES_MAX;
        // SAFETY: the kernel filled the context for a handler that was installed with SA_SIGINFO.
        unsafe {
            self.walker.walk(context, &mut |frame| {
                match frame {
                    PlacedFrame::Own(address) => text.text(b"  program+0x").hexadecimal(address),
                    PlacedFrame::Other { name, offset } => {
                        text.text(b"  ").text(name).text(b"+0x").hexadecimal(offset)
                    }
                };
                text.text(b"\n");
                left -= 1;
                left > 0
            });
        }
        // What does not fit the file is lost.
        // SAFETY: what is read is the text.
        unsafe { libc::write(self.into.as_raw_fd(), text.bytes.as_ptr().cast(), text.length) };
    }
}

/// Passes the numbers of threads that entries of /proc/self/task name (getdents64(2)).
fn for_each_thread(entries: &[u8], call: &mut dyn FnMut(c_int)) {
    /// Where the length and the name of an entry are.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    let mut rest = entries;
    while let Some(length) = rest.get(LENGTH_AT..LENGTH_AT + 2) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let name = rest.get(NAME_AT..length).unwrap_or_default();
        let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
        let number = digits
            .fold(0_i32, |number, digit| number.saturating_mul(10).saturating_add(i32::from(*digit - b'0')));
        if number > 0 {
            call(number);
        }
        match rest.get(length..) {
            Some(after) if length > 0 => rest = after,
            _ => return,
        }
    }
}

/// A text that is made without allocating. What does not fit is left out.
struct Text {
    bytes: [u8; STACK_BYTES],
    length: usize,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; STACK_BYTES], length: 0 }
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
        self
    }

    fn decimal(&mut self, number: u32) -> &mut Self {
        self.number(number.into(), 10)
    }

    fn hexadecimal(&mut self, number: u64) -> &mut Self {
        self.number(number, 16)
    }

    fn number(&mut self, number: u64, radix: u64) -> &mut Self {
        let mut digits = [0_u8; 20];
        let (mut rest, mut at) = (number, digits.len());
        while at > 0 {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(rest % radix) as usize];
            rest /= radix;
            if rest == 0 {
                break;
            }
        }
        self.text(&digits[at..])
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::memfd;

    const SIGNAL: i32 = 42;
    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

    fn word() -> (SharedWord, SharedPage) {
        let (page, fd) = SharedPage::create("words", 4096).unwrap();
        (SharedWord { page: SharedPage::map_shared(fd.as_fd(), 4096).unwrap(), at: 8 }, page)
    }

    #[inline(never)]
    fn spin_here(ends: &AtomicBool) {
        while !ends.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
    }

    /// All of it in one test, because the handler is the process's.
    #[test]
    fn each_thread_writes_its_stack_if_that_is_what_is_asked_for() {
        let ((asked, asks), (runs, says)) = (word(), word());
        let text = File::from(memfd::create("text").unwrap());
        install(SIGNAL, asked, runs, text.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(std::sync::Barrier::new(3));
        let spins = |name: &str| {
            let (ends, begun) = (Arc::clone(&ends), Arc::clone(&begun));
            let spin = move || {
                begun.wait();
                spin_here(&ends);
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(spin).unwrap()
        };
        let threads = [spins("first-thread"), spins("other-thread")];
        // They have their names from here on.
        begun.wait();
        // The position is that of the writers.
        let read = || {
            let mut found = [0; 64 << 10];
            let length = text.read_at(&mut found, 0).unwrap();
            String::from_utf8(found[..length].to_vec()).unwrap()
        };
        for (wanted, running) in [(0, 0), (7, 8), (8, 7)] {
            asks.store(8, wanted, Ordering::Release);
            says.store(8, running, Ordering::Release);
            // SAFETY: the handler is installed.
            assert_eq!(unsafe { libc::raise(SIGNAL) }, 0);
            assert_eq!(read(), "", "{wanted} {running}");
        }
        asks.store(8, 9, Ordering::Release);
        says.store(8, 9, Ordering::Release);
        Errno::set_raw(7);
        // As another process sends it: raise(3) is for one thread.
        // SAFETY: the handler is installed.
        assert_eq!(unsafe { libc::kill(libc::getpid(), SIGNAL) }, 0);
        assert_eq!(Errno::last_raw(), 7, "the interrupted code keeps its errno");
        let names = ["thread first-thread (", "thread other-thread ("];
        let mut found = read();
        let since = std::time::Instant::now();
        while !names.iter().all(|name| found.contains(name)) {
            assert!(since.elapsed() < DEADLINE, "{found}");
            std::thread::yield_now();
            found = read();
        }
        ends.store(true, Ordering::Release);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(found.contains("  program+0x") && found.contains("  libc"), "{found}");
        assert!(found.starts_with("thread "), "{found}");
        assert!(install(SIGNAL, word().0, word().0, text.into()).is_err(), "once");
    }

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let mut line = Text::new();
        line.decimal(0).text(b" ").decimal(u32::MAX).text(b" ").hexadecimal(0x2a_2534).text(b" ");
        line.hexadecimal(u64::MAX).text(&[b'x'; 2 * STACK_BYTES]);
        assert!(line.bytes.starts_with(b"0 4294967295 2a2534 ffffffffffffffffx"));
        assert_eq!(line.length, STACK_BYTES);
    }
}
