//! Names a death: compares the worker's crash record with the wait status.
//!
//! The signal comes from the wait status. The crash record in the box is the worker's testimony: it is believed only
//! if it names the same signal, and only causes that such a signal can have. It decides how a death is called, never
//! which job is charged. For SIGKILL there is no record to believe. Called by `ring.rs` once per death.

use std::sync::atomic::Ordering;

use bulkhead_proto::death::Death;
use bulkhead_proto::worker::boxes::{
    CAUSE_CODE_AT, CAUSE_SIGNAL_AT, FAILED_ALLOCATION_AT, FAULT_ADDRESS_AT, SENDER_PID_AT, STACK_OVERFLOW_AT,
};
use bulkhead_sys::shared_page::SharedPage;

// By their Linux numbers (signal(7), x86 and ARM).
const SIGILL: i32 = 4;
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;

/// `si_code` of a signal that a process sent: by kill(2), sigqueue(3), tgkill(2).
const SENT_BY_A_PROCESS: [i64; 3] = [0, -1, -6];
/// `si_code` of a signal of the kernel's for which it knows no address.
const SI_KERNEL: i64 = 0x80;

/// The death of process `pid` by `signal`.
pub(super) fn name(page: &SharedPage, signal: i32, core: bool, pid: u32) -> Death {
    let plain = Death::Signalled { signal, core };
    let said = page.load(CAUSE_SIGNAL_AT, Ordering::Acquire);
    // No handler runs for SIGKILL.
    if signal == SIGKILL || said != u64::from(signal.unsigned_abs()) {
        return plain;
    }
    let word = |at: usize| page.load(at, Ordering::Relaxed);
    let code = word(CAUSE_CODE_AT).cast_signed();
    if SENT_BY_A_PROCESS.contains(&code) {
        return match (word(FAILED_ALLOCATION_AT), u32::try_from(word(SENDER_PID_AT))) {
            (bytes @ 1.., _) if signal == SIGABRT => Death::AllocationFailed { signal, core, bytes },
            // 0: the sender is in another pid namespace.
            (_, Ok(sender_pid)) if sender_pid != pid && sender_pid != 0 => {
                Death::Sent { signal, core, sender_pid }
            }
            _ => plain,
        };
    }
    let address = word(FAULT_ADDRESS_AT);
    match signal {
        SIGSEGV | SIGBUS | SIGILL | SIGFPE if code <= 0 || code == SI_KERNEL => plain,
        SIGSEGV if word(STACK_OVERFLOW_AT) == 1 => Death::StackOverflow { signal, core, address },
        SIGSEGV | SIGBUS | SIGILL | SIGFPE => Death::Fault { signal, core, address },
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::worker::boxes::BOX_HEADER_BYTES;

    use super::*;

    const WORKER: u32 = 100;
    const OTHER: u64 = 7;
    const CORE: bool = false;

    /// The name of a death by `signal` with these words in the box.
    fn named(signal: i32, words: &[(usize, i64)]) -> Death {
        let (page, _) = SharedPage::create("box", BOX_HEADER_BYTES).unwrap();
        for (at, value) in words {
            page.store(*at, value.cast_unsigned(), Ordering::Relaxed);
        }
        name(&page, signal, CORE, WORKER)
    }

    #[test]
    fn a_fault_has_its_address_and_an_overflow_its_name() {
        let fault = [(CAUSE_SIGNAL_AT, 11), (CAUSE_CODE_AT, 1), (FAULT_ADDRESS_AT, 0)];
        assert_eq!(named(11, &fault), Death::Fault { signal: 11, core: CORE, address: 0 });
        let overflow =
            [(CAUSE_SIGNAL_AT, 11), (CAUSE_CODE_AT, 2), (FAULT_ADDRESS_AT, 64), (STACK_OVERFLOW_AT, 1)];
        assert_eq!(named(11, &overflow), Death::StackOverflow { signal: 11, core: CORE, address: 64 });
        let bus = [(CAUSE_SIGNAL_AT, 7), (CAUSE_CODE_AT, 2), (FAULT_ADDRESS_AT, 8), (STACK_OVERFLOW_AT, 1)];
        assert_eq!(named(7, &bus), Death::Fault { signal: 7, core: CORE, address: 8 });
    }

    #[test]
    fn a_sender_is_named_unless_it_is_the_worker_itself() {
        let sent =
            |signal: i64, pid: i64| [(CAUSE_SIGNAL_AT, signal), (CAUSE_CODE_AT, 0), (SENDER_PID_AT, pid)];
        let by_other = Death::Sent { signal: 15, core: CORE, sender_pid: 7 };
        assert_eq!(named(15, &sent(15, OTHER.cast_signed())), by_other);
        let plain = Death::Signalled { signal: 6, core: CORE };
        assert_eq!(named(6, &sent(6, WORKER.into())), plain);
        assert_eq!(named(6, &sent(6, 0)), plain);
        assert_eq!(named(6, &sent(6, -1)), plain, "no process id");
    }

    #[test]
    fn memory_that_was_refused_explains_an_abort_and_nothing_else() {
        let refused = |signal: i64| {
            let sender = (SENDER_PID_AT, i64::from(WORKER));
            [(CAUSE_SIGNAL_AT, signal), (CAUSE_CODE_AT, -6), sender, (FAILED_ALLOCATION_AT, 9)]
        };
        assert_eq!(named(6, &refused(6)), Death::AllocationFailed { signal: 6, core: CORE, bytes: 9 });
        assert_eq!(named(15, &refused(15)), Death::Signalled { signal: 15, core: CORE });
    }

    #[test]
    fn a_word_that_the_kernel_contradicts_is_not_believed() {
        let said = |signal: i64, code: i64| {
            [(CAUSE_SIGNAL_AT, signal), (CAUSE_CODE_AT, code), (FAULT_ADDRESS_AT, 5), (SENDER_PID_AT, 7)]
        };
        for (signal, words) in [
            (9, said(9, 0)),
            (9, said(11, 1)),
            (11, said(6, 1)),
            (11, said(11 + (1 << 32), 1)),
            (11, said(11, SI_KERNEL)),
            (11, said(11, -60)),
            (24, said(24, 1)),
        ] {
            assert_eq!(named(signal, &words), Death::Signalled { signal, core: CORE }, "{words:?}");
        }
    }
}
