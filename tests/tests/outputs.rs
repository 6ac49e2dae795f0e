//! Outputs: large ones in descriptors, results kept for later, in order and as a stream.

use std::process::{Command, Stdio};

use bulkhead_tests::daemon::{Daemon, binary, eventually, processes_under, send_signal};
use bulkhead_tests::skip;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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

/// A result may be of any bytes: a newline after it would be a byte that the job did not write.
#[test]
fn a_result_is_printed_byte_for_byte() {
    let daemon = Daemon::start();
    let bytes = b"\x00PNG\xff";
    for (script, code) in [("printf '\\000PNG\\377'", 0), ("printf '\\000PNG\\377'; exit 3", 3)] {
        let id = daemon.ok(&["submit", "exec", "--", "sh", "-c", script]);
        daemon.cli(&["wait", id.trim()]);
        let printed = daemon.cli(&["result", id.trim()]);
        assert_eq!(
            (printed.stdout.as_slice(), printed.status.code()),
            (bytes.as_slice(), Some(code)),
            "{script}"
        );
        let ran = daemon.cli(&["run", "exec", "--", "sh", "-c", script]);
        assert_eq!(ran.stdout, bytes, "{script}");
    }
    let id = daemon.ok(&["submit", "factorial", "5"]);
    daemon.ok(&["wait", id.trim()]);
    assert_eq!(daemon.ok(&["result", id.trim()]), "120");
    assert_eq!(daemon.ok(&["result", id.trim(), "-o", "-"]), "120");
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

/// A file that is a mount of its own cannot be replaced; `run -o` has more of it in `output_places.rs`.
#[test]
fn a_result_that_is_fetched_later_is_written_through_too() {
    let daemon = Daemon::start();
    let out = daemon.folder().join("out");
    std::fs::write(&out, "older").expect("a file");
    let id = daemon.ok(&["submit", "factorial", "5"]);
    daemon.ok(&["wait", id.trim()]);
    let script = "mount --bind out out || exit 77; \"$@\" && cat out";
    let run = daemon.command(&["result", id.trim(), "-o", "out"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(run.get_program()).args(run.get_args());
    let output = command.current_dir(daemon.folder()).output().expect("unshare is there");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() == Some(77) || stderr.contains("unshare") {
        skip!("nothing can be mounted here: {stderr}");
    }
    assert_eq!(stdout, "120", "{stderr}");
}

/// One job is done, and the others wait for ever.
#[test]
fn an_interrupted_batch_keeps_what_was_done() {
    let daemon = Daemon::start();
    let path = daemon.folder().display().to_string();
    std::fs::write(daemon.folder().join("out"), "older").expect("a file");
    let script =
        "if mkdir \"$0/first\" 2>/dev/null; then echo done; else touch \"$0/hangs-$$\"; exec sleep 1000; fi";
    let mut command =
        daemon.command(&["run", "exec", "--count", "4", "-o", "out", "--", "sh", "-c", script, &path]);
    command.current_dir(daemon.folder()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    // Both workers hang, so the first job has ended.
    eventually("all workers hang", || {
        let all = std::fs::read_dir(daemon.folder()).expect("its folder");
        let names = all.map(|one| one.expect("an entry").file_name().to_string_lossy().into_owned());
        (names.filter(|name| name.starts_with("hangs-")).count() == 2).then_some(())
    });
    send_signal(child.id(), "INT");
    let output = child.wait_with_output().expect("it ends");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), stdout.as_str()), (Some(130), ""), "{stderr}");
    let [place, missing] = ["bulkhead: 1 of 4 results is in ", "/out.partial; missing: input"];
    assert!(stderr.contains(place) && stderr.contains(missing), "{stderr}");
    let read = |name: &str| std::fs::read_to_string(daemon.folder().join(name)).expect("it is there");
    assert_eq!((read("out.partial"), read("out")), ("done\n".to_owned(), "older".to_owned()));
}
