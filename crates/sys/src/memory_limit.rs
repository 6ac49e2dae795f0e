//! A memory limit of the calling process for one task: set before its first instruction, lifted after its end.
//!
//! The limit is the soft `RLIMIT_DATA`: it counts writable private memory, touched or only reserved, and a larger
//! request fails instead of killing. A wide soft `RLIMIT_AS` bounds shared mappings, which are no data; it is wide
//! because it also counts reserved addresses. Hostile code can raise soft limits again, so the supervisor watches
//! resident memory too. There is no `RLIMIT_CPU`: it counts whole seconds of the process's whole life and its signal
//! can be ignored; the supervisor samples processor time instead. Driven by the worker runtime.

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// Factor on the data limit for the address space, and what may be mapped in addition.
const SPACE_FACTOR: u64 = 4;
const SPACE_EXTRA_BYTES: u64 = 1 << 30;

/// The limits in force before they were set.
#[derive(Debug)]
#[must_use = "lift it when the task has ended"]
pub struct MemoryLimit {
    data: (rlim_t, rlim_t),
    space: (rlim_t, rlim_t),
}

impl MemoryLimit {
    /// Lets this process use `bytes` more than it uses now. Pages that the allocator kept are returned to the kernel
    /// first; their addresses may stay reserved, and do not count again when they are used.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn set(bytes: u64) -> io::Result<Self> {
        give_back();
        let (space_now, data_now) = now()?;
        let before = Self { data: getrlimit(Resource::RLIMIT_DATA)?, space: getrlimit(Resource::RLIMIT_AS)? };
        let space = bytes.saturating_mul(SPACE_FACTOR).saturating_add(SPACE_EXTRA_BYTES);
        lower(Resource::RLIMIT_DATA, before.data, data_now.saturating_add(bytes))?;
        lower(Resource::RLIMIT_AS, before.space, space_now.saturating_add(space))?;
        Ok(before)
    }

    /// Restores the earlier limits.
    ///
    /// # Errors
    /// EINVAL: the hard limit was lowered meanwhile.
    pub fn lift(self) -> io::Result<()> {
        setrlimit(Resource::RLIMIT_DATA, self.data.0, self.data.1)?;
        setrlimit(Resource::RLIMIT_AS, self.space.0, self.space.1)?;
        Ok(())
    }
}

/// Sets a soft limit, unless a lower one is in force.
fn lower(resource: Resource, (soft, hard): (rlim_t, rlim_t), limit: u64) -> io::Result<()> {
    Ok(setrlimit(resource, soft.min(limit), hard)?)
}

/// Address space and data of this process in bytes, as proc_pid_statm(5) counts them. Its data includes the stack,
/// which the limit does not count, so the limit is some pages wider than asked for.
fn now() -> io::Result<(u64, u64)> {
    let line = std::fs::read_to_string("/proc/self/statm")?;
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| u64::try_from(bytes).ok());
    let pages =
        |place: usize| line.split_ascii_whitespace().nth(place).and_then(|word| word.parse::<u64>().ok());
    match (pages(0), pages(5), page_bytes) {
        (Some(space), Some(data), Some(page_bytes)) => Ok((space * page_bytes, data * page_bytes)),
        _ => Err(Errno::EBADMSG.into()),
    }
}

/// Returns free memory of malloc(3) to the kernel, if the C library can.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;

    const MIB: usize = 1 << 20;

    fn can_have(bytes: usize) -> bool {
        let mut block = Vec::<u8>::new();
        block.try_reserve_exact(bytes).is_ok() && std::hint::black_box(block).capacity() >= bytes
    }

    #[test]
    fn a_limit_holds_until_it_is_lifted() {
        in_child("memory_limit::tests::a_limit_holds_until_it_is_lifted", || {
            let before = std::hint::black_box(vec![1_u8; 100 * MIB]);
            for _ in 0..3 {
                let limit = MemoryLimit::set(64 * MIB as u64).unwrap();
                assert!(can_have(60 * MIB), "what it may have it can have");
                assert!(!can_have(70 * MIB), "and no more");
                limit.lift().unwrap();
                assert!(can_have(1000 * MIB), "and then as before");
            }
            drop(before);
        });
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_the_allocator_keeps_is_given_back_first() {
        in_child("memory_limit::tests::what_the_allocator_keeps_is_given_back_first", || {
            let resident = || {
                let line = std::fs::read_to_string("/proc/self/statm").unwrap();
                line.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
            };
            // The allocator keeps small blocks that are freed, because the last one lives on.
            let mut blocks: Vec<Vec<u8>> =
                (0..2000).map(|_| std::hint::black_box(vec![1_u8; 50_000])).collect();
            let last = blocks.pop();
            drop(blocks);
            let before = resident();
            let limit = MemoryLimit::set(64 * MIB as u64).unwrap();
            assert!(before > 60 * MIB && resident() < 30 * MIB, "{before} bytes, then {}", resident());
            limit.lift().unwrap();
            drop(last);
        });
    }

    #[test]
    fn a_lower_limit_that_was_there_stays() {
        in_child("memory_limit::tests::a_lower_limit_that_was_there_stays", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_DATA).unwrap();
            let low = now().unwrap().1 + 8 * MIB as u64;
            setrlimit(Resource::RLIMIT_DATA, low, hard).unwrap();
            let limit = MemoryLimit::set(64 * MIB as u64).unwrap();
            assert!(!can_have(16 * MIB));
            limit.lift().unwrap();
            assert_eq!(getrlimit(Resource::RLIMIT_DATA).unwrap(), (low, hard));
        });
    }
}
