//! Users whom the user namespace of this process does not map.
//!
//! The kernel shows each of them as one number, the overflow uid (user_namespaces(7)), so two files or peers of that
//! number may belong to two users. Nothing here decides whom to trust. Used by the client and by the supervisor's start.

use std::sync::OnceLock;

/// The kernel's overflow uid if `/proc` does not tell it.
const DEFAULT_OVERFLOW_UID: u32 = 65534;
/// How many uids there are.
const ALL_UIDS: u64 = u32::MAX as u64;

/// Whether a uid that the kernel reports may stand for any user whom this process' namespace does not map.
pub fn is_unmapped(uid: u32) -> bool {
    static OVERFLOW: OnceLock<Option<u32>> = OnceLock::new();
    let overflow = OVERFLOW.get_or_init(|| {
        let read = |path| std::fs::read_to_string(path).ok();
        overflow_uid(read("/proc/self/uid_map").as_deref(), read("/proc/sys/kernel/overflowuid").as_deref())
    });
    *overflow == Some(uid)
}

/// A user in words: "user 1000", or that this namespace has no number for the user.
pub fn name_of(uid: u32) -> String {
    if is_unmapped(uid) {
        format!("a user whom this user namespace does not map (shown as {uid})")
    } else {
        format!("user {uid}")
    }
}

/// The number that stands for users who are not mapped; `None` if all are mapped. Without `/proc` the number is never
/// trusted to name a user.
fn overflow_uid(map: Option<&str>, number: Option<&str>) -> Option<u32> {
    // Each line: the first uid inside, the first uid outside, how many.
    let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    let mapped: u64 = map.unwrap_or_default().lines().filter_map(count).sum();
    let number = number.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_OVERFLOW_UID);
    (mapped < ALL_UIDS).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_all_users_are_mapped_every_number_names_its_user() {
        assert_eq!(overflow_uid(Some("         0          0 4294967295\n"), Some("65534\n")), None);
        let halves = "0 0 1000\n1000 1000 4294966295\n";
        assert_eq!(overflow_uid(Some(halves), Some("65534\n")), None);
    }

    #[test]
    fn elsewhere_one_number_stands_for_all_others() {
        assert_eq!(overflow_uid(Some("0 1000 1\n"), Some("65534\n")), Some(65534));
        assert_eq!(overflow_uid(Some("0 100000 65536\n"), Some("77\n")), Some(77));
        for unknown in [None, Some(""), Some("nonsense")] {
            assert_eq!(overflow_uid(unknown, unknown), Some(DEFAULT_OVERFLOW_UID));
        }
    }
}
