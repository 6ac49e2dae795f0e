//! Outputs: large ones in descriptors, results kept for later, in order and as a stream.

use std::process::{Command, Stdio};

use bulkhead_tests::daemon::{Daemon, binary, processes_under};
use bulkhead_tests::skip;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All 5,565,709 decimal digits of 1,000,000! reach standard output, and they are the right ones: their hash is
/// what the `sha256` form says, their count what the `digits` form says, their zeros what Legendre says.
#[test]
fn the_digits_of_a_huge_factorial_arrive_whole() {
    let daemon = Daemon::start();
    let digits = daemon.ok(&["run", "factorial", "1000000"]);
    let digits = digits.trim_end();
    assert_eq!(digits.len(), 5_565_709);
    assert!(digits.starts_with("82639316883312400623766461031"), "starts with {}", &digits[..40]);
    assert_eq!(digits.bytes().rev().take_while(|byte| *byte == b'0').count(), 249_998);
    let sha256 = daemon.ok(&["run", "factorial", "1000000", "--as", "sha256"]);
    assert_eq!(sha256.trim_end(), hex(&Sha256::digest(digits.as_bytes())));
    assert_eq!(daemon.ok(&["run", "factorial", "1000000", "--as", "digits"]).trim_end(), "5565709");
}

#[test]
fn a_large_result_is_kept_and_can_be_fetched_twice() {
    let daemon = Daemon::start();
    let id = daemon.ok(&["submit", "factorial", "20000"]).trim_end().to_owned();
    daemon.ok(&["wait", &id]);
    let path = daemon.folder().join("digits");
    daemon.ok(&["result", &id, "-o", path.to_str().expect("a path in text")]);
    let kept = std::fs::read_to_string(&path).expect("the file is there");
    assert_eq!(kept.trim_end().len(), 77_338);
    assert_eq!(daemon.ok(&["result", &id]).trim_end(), kept.trim_end());
}

#[test]
fn a_range_comes_back_in_order_and_right() {
    let daemon = Daemon::start();
    let digits = daemon.ok(&["run", "factorial", "1..200", "--as", "digits"]);
    let digits: Vec<u32> = digits.lines().map(|line| line.parse().expect("a count")).collect();
    assert_eq!(digits.len(), 200);
    // The sum of logarithms; no n! of this range is near a power of ten, 1! and 0! apart.
    let mut log10 = 0.0_f64;
    for (index, count) in digits.iter().enumerate() {
        log10 += ((index + 1) as f64).log10();
        assert_eq!(*count, log10.floor() as u32 + 1, "digits of {}!", index + 1);
    }
}

#[test]
fn a_thousand_submitted_jobs_have_a_thousand_ids_and_results() {
    let daemon = Daemon::start();
    let ids = daemon.ok(&["submit", "--count", "1000", "noop"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 1000);
    let output = daemon.command(&["wait"]).args(&ids).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for index in [0, 1, 500, 999] {
        assert_eq!(daemon.ok(&["result", ids[index]]).trim_end(), index.to_string());
    }
}

/// Without any daemon, `run` brings its own and takes it away again.
#[test]
fn run_without_a_daemon_brings_its_own() {
    if std::path::Path::new(bulkhead_proto::client::places::SYSTEM_SOCKET).exists() {
        skip!("this machine has a daemon of its own");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(binary("bulkhead"))
        .args(["run", "factorial", "20"])
        .env_remove("BULKHEAD_SOCKET")
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "2432902008176640000");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert_eq!(processes_under(folder.path()), Vec::<String>::new());
}
