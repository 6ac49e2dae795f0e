//! What became of the core file of a program that a signal ended, in words for its user.
//!
//! The kernel says whether it wrote one; where it is depends on `kernel.core_pattern` (core(5)). A file with a relative
//! pattern lies in the program's folder, which is removed, so it is told as gone. Only read, never changed.

use std::fs;

use bulkhead_proto::death::leaves_core;
use bulkhead_sys::process;

/// The fragment behind the name of a signal; empty for a signal that never leaves a core file.
pub(super) fn told(signal: i32, core: bool) -> String {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    words(signal, core, pattern.trim(), process::core_limit().ok())
}

/// The same for this pattern and this limit of core files, in bytes.
fn words(signal: i32, core: bool, pattern: &str, limit_bytes: Option<u64>) -> String {
    let text = match (core, pattern.chars().next(), limit_bytes) {
        (true, Some('|'), _) => {
            let helper = pattern[1..].split_whitespace().next().unwrap_or_default();
            format!("core dumped to {helper}")
        }
        (true, Some('/'), _) => format!("core dumped to {pattern}, the kernel's core_pattern"),
        (true, _, _) => "core dumped into its folder, which is removed: an absolute kernel.core_pattern \
                         keeps core files"
            .to_owned(),
        (false, _, _) if !leaves_core(signal) => return String::new(),
        (false, _, Some(0)) => {
            "no core was left: the daemon's limit of core files is 0, start it with `ulimit -c unlimited`"
                .to_owned()
        }
        (false, _, _) => "no core was left".to_owned(),
    };
    format!(" ({text})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_the_core_is_or_why_there_is_none() {
        let relative = " (core dumped into its folder, which is removed: an absolute kernel.core_pattern keeps core files)";
        for (signal, core, pattern, limit, text) in [
            (
                11,
                true,
                "|/usr/lib/systemd/systemd-coredump %P",
                Some(0),
                " (core dumped to /usr/lib/systemd/systemd-coredump)",
            ),
            (
                11,
                true,
                "/var/cores/%e.%p",
                None,
                " (core dumped to /var/cores/%e.%p, the kernel's core_pattern)",
            ),
            (6, true, "core", Some(1), relative),
            (6, true, "", None, relative),
            (6, false, "core", Some(1), " (no core was left)"),
            (6, false, "core", None, " (no core was left)"),
            (9, false, "core", Some(0), ""),
            (15, false, "|/x", None, ""),
        ] {
            assert_eq!(words(signal, core, pattern, limit), text, "{signal} {core} {pattern}");
        }
        assert!(words(11, false, "core", Some(0)).contains("ulimit -c unlimited"));
        assert_eq!(told(9, false), "");
    }
}
