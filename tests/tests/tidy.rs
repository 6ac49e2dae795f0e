//! The project's own style, as a test: headers, lengths, arrows, words, and documents that keep up with the code.
//! Each rule is shown to find a planted violation, then all of them run over the real tree.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::path::Path;
use std::process::Command;

use bulkhead_tests::daemon::binary;
use bulkhead_tests::tidy::source::Source;
use bulkhead_tests::tidy::{Sources, StyleFault, book, documents, manifests, root, rules};

/// Fails with all violations, one a line.
fn expect_none(mut found: Vec<StyleFault>) {
    found.sort();
    let lines: Vec<String> = found.iter().map(StyleFault::to_string).collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn help(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(binary(program)).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} --help failed");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sources_are_tidy() {
    let sources = Sources::read();
    assert!(sources.iter().count() > 50, "the sources were not found");
    expect_none(rules::check(&sources));
}

#[test]
fn arrows_point_one_way() {
    expect_none(manifests::check(&root()));
}

#[test]
fn the_top_level_holds_what_the_map_says() {
    let known = ["proto", "supervisor", "worker", "crates", "python", "tests", "systemd", "docs", "target"];
    let folders = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let names =
        folders.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap());
    let unknown: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !known.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "folders that the map does not know: {unknown:?}");
}

#[test]
fn every_exit_code_is_in_the_book() {
    expect_none(documents::exit_codes(&read("proto/src/client/exit.rs"), &read(documents::EXIT_CODES)));
}

#[test]
fn every_config_key_is_in_the_sample() {
    expect_none(documents::config_keys(
        &read("supervisor/src/settings.rs"),
        &read("supervisor/src/settings/kinds.rs"),
        &read("systemd/bulkhead.toml"),
    ));
}

#[test]
fn every_verb_and_flag_is_documented() {
    let documents = read("README.md") + &book::prose() + &read("ARCHITECTURE.md");
    let overview = help("bulkhead", &[]);
    let verbs = documents::verbs(&overview);
    assert!(verbs.len() > 10, "too few verbs in:\n{overview}");
    let global = documents::flags(&overview);
    let mut found = documents::told("bulkhead", &[&verbs[..], &global[..]].concat(), &documents);
    for verb in &verbs {
        let mut flags = documents::flags(&help("bulkhead", &[verb]));
        flags.retain(|flag| !global.contains(flag));
        found.extend(documents::told(&format!("bulkhead {verb}"), &flags, &documents));
    }
    let flags = documents::flags(&help("bulkhead-supervisor", &[]));
    assert!(flags.contains(&"--enable-chaos".to_owned()), "{flags:?}");
    found.extend(documents::told("bulkhead-supervisor", &flags, &documents));
    expect_none(found);
}

#[test]
fn text_and_comments_are_not_code() {
    let source = Source::new(concat!(
        "//! head\n",
        "let a = \"{ // no comment\"; // { comment\n",
        "/* { /* nested */ still\n",
        "*/ let b = r#\"\" } \"#; let c = '{'; let d = '\\''; let e: &'static str = \"\\\"}\";\n",
        "let f = b\"}\"; let g = br\"}\";\n",
    ));
    let all = source.code.join("\n");
    assert!(!all.contains(['{', '}']) && !all.contains("comment") && !all.contains("nested"), "{all}");
    assert!(all.contains("let b = ") && all.contains("&'static str") && all.contains("let g = "), "{all}");
    assert_eq!((source.header_lines(), source.code_lines()), (1, 3));
}

#[test]
fn functions_and_test_modules_are_found() {
    let source = Source::new(concat!(
        "type F = fn(u8) -> u8;\n",
        "trait T { fn without(&self) -> [u8; 2]; }\n",
        "fn one(a: [u8; 2]) -> u8 {\n    // comment\n    match a { _ => 1 }\n}\n",
        "#[cfg(test)]\nmod trial;\n",
        "#[cfg(test)]\nmod tests {\n    fn two() {}\n}\n",
    ));
    let functions = source.functions();
    let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(source.length_of(&functions[0]), 3);
    assert_eq!(source.code_lines(), 5 + 2, "the inline test module does not count");
    assert_eq!(source.test_files(), ["trial"]);
}

/// The violations of one made-up file.
fn planted(path: &str, text: &str) -> Vec<String> {
    let mut sources = Sources::default();
    sources.add(Path::new(path), text);
    rules::check(&sources).iter().map(StyleFault::to_string).collect()
}

const HEAD: &str = "//! one\n//! two\n//! three\n";

#[test]
fn a_planted_word_is_found() {
    for (word, path) in [
        ("todo!()", "worker/src/a.rs"),
        ("x.unwrap();", "worker/src/a.rs"),
        ("std::thread::sleep(t);", "supervisor/src/a.rs"),
        ("unsafe { x }", "crates/link/src/a.rs"),
        ("use nix::unistd;", "supervisor/src/a.rs"),
        ("use ipc_channel::ipc;", "worker/src/a.rs"),
        ("use bincode::Encode;", "proto/src/a.rs"),
        ("use rusqlite::Connection;", "supervisor/src/a.rs"),
        ("Ordering::SeqCst", "supervisor/src/a.rs"),
        ("std::fs::copy(binary(x), y);", "tests/tests/a.rs"),
        (concat!("// TO", "DO: later"), "proto/src/a.rs"),
        ("pub use bulkhead_proto;", "crates/client/src/lib.rs"),
        ("pub use bulkhead_proto as proto;", "crates/client/src/lib.rs"),
        ("pub use bulkhead_proto::*;", "crates/client/src/lib.rs"),
        ("use bulkhead_proto::worker::boxes;", "crates/cli/src/a.rs"),
        ("use bulkhead_proto::client::view;", "worker/src/a.rs"),
        ("use crate::client::view;", "proto/src/worker/message.rs"),
    ] {
        let found = planted(path, &format!("{HEAD}fn a() {{ {word}\n}}\n"));
        assert_eq!(found.len(), 1, "{word} in {path}: {found:?}");
        assert!(found[0].starts_with(&format!("{path}:4: ")), "{found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    assert_eq!(planted("crates/sys/src/a.rs", &format!("{HEAD}unsafe {{ nix::x() }}\n")), [""; 0]);
    assert_eq!(planted("proto/src/codec.rs", &format!("{HEAD}use bincode::Encode;\n")), [""; 0]);
    assert_eq!(planted("tests/tests/a.rs", "//! one\nfn a() { b.unwrap(); }\n"), [""; 0]);
    let named = "pub mod proto {\n    pub use bulkhead_proto::{client, ids};\n}\n";
    assert_eq!(planted("crates/client/src/lib.rs", &format!("{HEAD}{named}")), [""; 0]);
    let inside = "#[cfg(test)]\nmod tests {\n    fn a() { b.unwrap(); }\n}\n";
    assert_eq!(planted("worker/src/a.rs", &format!("{HEAD}{inside}")), [""; 0]);
    let text = "fn a() { b(\"todo!() unsafe\"); } // .unwrap()\nfn nixie() { unsafely() }\n";
    assert_eq!(planted("worker/src/a.rs", &format!("{HEAD}{text}")), [""; 0]);
}

#[test]
fn a_second_text_for_a_kind_is_found() {
    let text = format!("{HEAD}const A: &str = \"noop\";\n// \"noop\"\nconst B: &str = \"a noop\";\n");
    assert_eq!(planted("proto/src/kind.rs", &text), [""; 0], "the only one");
    let of = |path: &str, text: &str| {
        let found = planted(path, text);
        assert!(found.iter().all(|found| found.contains("use its constant")), "{found:?}");
        found.len()
    };
    assert_eq!(of("proto/src/kind.rs", &format!("{text}const C: &str = \"noop\";\n")), 1);
    assert_eq!(of("worker/src/a.rs", &text), 1);
    assert_eq!(of("worker/src/a.rs", &format!("{HEAD}const A: [&str; 2] = [\"exec\", \"exec\"];\n")), 2);
    assert_eq!(of("worker/src/a.rs", &format!("{HEAD}const A: &str = r#\"say \"noop\"\"#;\n")), 0);
    assert_eq!(of("crates/xtask/src/a.rs", &text), 0);
    let inside = "#[cfg(test)]\nmod tests {\n    const A: &str = \"noop\";\n}\n";
    assert_eq!(of("worker/src/a.rs", &format!("{HEAD}{inside}")), 0);
}

#[test]
fn a_missing_header_and_too_many_lines_are_found() {
    assert!(planted("proto/src/a.rs", "//! only one\n")[0].contains("header has 1 lines"));
    assert!(planted("proto/src/a.rs", &"//! line\n".repeat(16))[0].contains("header has 16 lines"));
    let long = format!("{HEAD}fn a() {{\n{}}}\n", "    b();\n".repeat(69));
    assert_eq!(
        planted("proto/src/a.rs", &long),
        ["proto/src/a.rs:4: function a has 71 lines of code, 70 are allowed"]
    );
    let huge = format!("{HEAD}{}", "const A: u8 = 1;\n".repeat(401));
    assert_eq!(planted("proto/src/a.rs", &huge), ["proto/src/a.rs: 401 lines of code, 400 are allowed"]);
}

#[test]
fn a_planted_arrow_is_found() {
    let manifest = |name: &str| format!("[dependencies]\n{name}.workspace = true\n");
    for (folder, name) in [
        ("worker", "bulkhead-core"),
        ("worker", "bulkhead-journal"),
        ("crates/core", "bulkhead-sys"),
        ("crates/core", "mio"),
        ("proto", "bulkhead-sys"),
        ("crates/client", "anyhow"),
        ("crates/views", "bulkhead-client"),
        ("supervisor", "ipc-channel"),
        ("tests", "nix"),
        ("worker", "pyo3"),
        ("python", "bulkhead-core"),
    ] {
        assert_eq!(manifests::check_one(folder, &manifest(name)).len(), 1, "{folder} on {name}");
    }
    assert!(manifests::check_one("crates/core", &manifest("bulkhead-proto")).is_empty());
    assert_eq!(manifests::check_one("crates/new", "").len(), 1, "an unknown package");
}

#[test]
fn a_gap_in_a_document_is_found() {
    let code = "pub const DONE: u8 = 0;\npub const BUSY: u8 = 75;\n";
    assert_eq!(documents::exit_codes(code, "| `0` | done |\n75 is busy\n").len(), 1);
    assert!(documents::exit_codes(code, "| `0` | done |\n| 75 | busy |\n").is_empty());
    let settings = "struct File {\n    mode: Option<Mode>,\n    kinds: Map,\n}\n";
    let kinds = "struct OwnKind {\n    /// Its: doc.\n    ring: u16,\n}\n";
    let sample = "mode = \"user\"\n# prose is = prose\n#[kinds.own]\n#ring = 2\n";
    assert!(documents::config_keys(settings, kinds, sample).is_empty());
    assert_eq!(documents::config_keys(settings, kinds, "mode = \"user\"\nworker = 2\n").len(), 3);
    let help = "Commands:\n  run     Runs\n  submit  Submits\n  help    Helps\n\nOptions:\n  -j, --json  J\n      --as <FORM>\n  -h, --help\n";
    assert_eq!(documents::verbs(help), ["run", "submit"]);
    assert_eq!(documents::flags(help), ["--json", "--as"]);
    let words = ["--as".to_owned(), "run".to_owned()];
    assert_eq!(documents::told("x", &words, "--assume, runs").len(), 2);
    assert!(documents::told("x", &words, "`bulkhead run --as hex`").is_empty());
}
