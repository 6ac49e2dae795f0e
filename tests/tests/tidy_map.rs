//! ARCHITECTURE.md is a map that is true, and each rule about it bites.

use std::path::Path;

use bulkhead_tests::tidy::map::{self, Tree};
use bulkhead_tests::tidy::{manifests, root};

fn read(path: &Path) -> Option<String> {
    if !path.is_dir() {
        return std::fs::read_to_string(path).ok();
    }
    let entries = std::fs::read_dir(path).ok()?.filter_map(Result::ok);
    Some(entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect())
}

fn wanted(words: usize) -> String {
    let rows: String = (0..words).map(|word| format!("| word{word} | what it is |\n")).collect();
    format!("| `proto/` | words |\n\n## Words\n\n| word | meaning |\n|---|---|\n{rows}")
}

/// The violations of a made-up document, in a tree with one package and one file.
fn planted(document: &str) -> Vec<String> {
    let text = "//! No Comment.\npub struct Policy;\nfn a() -> Return { \"Text\" }\n";
    let file = |path: &str| (path == "proto/src/job.rs").then(|| text.to_owned());
    let is_folder = |path: &str| (path == "proto/").then(String::new);
    let read = |path: &str| file(path).or_else(|| is_folder(path));
    let packages = ["proto".to_owned()];
    let found = map::check(document, &Tree { read: &read, packages: &packages });
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn the_map_is_true() {
    let root = root();
    let document = read(&root.join(map::MAP)).expect("the map is there");
    let packages: Vec<String> = manifests::packages(&root)
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| path != "tests/fuzz")
        .collect();
    let of_root = |path: &str| read(&root.join(path));
    let found = map::check(&document, &Tree { read: &of_root, packages: &packages });
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn what_is_true_is_not_found() {
    let document = wanted(25) + "\nTouch `proto/src/job.rs` (`Policy`), then `cargo` as (`Other`).\n";
    assert_eq!(planted(&document), [""; 0]);
}

#[test]
fn what_is_not_true_is_found() {
    for (document, what) in [
        (wanted(25) + "\nSee `proto/src/gone.rs`.\n", "proto/src/gone.rs does not exist"),
        (wanted(25) + "\nSee `proto/src/job.rs` (`Gone`).\n", "Gone does not stand in the file before it"),
        (wanted(25) + "\nSee `proto/src/job.rs` (`Policy`, `Gone`).\n", "Gone does not stand"),
        (wanted(25) + "\nSee `proto/src/job.rs` (`Polic`).\n", "Polic does not stand"),
        (wanted(25) + "\nSee `proto/src/job.rs` (`turn`).\n", "turn does not stand"),
        (wanted(25) + "\nSee `proto/src/job.rs` (`Comment`).\n", "Comment does not stand"),
        (wanted(25) + "\nSee `proto/src/job.rs` (`Text`).\n", "Text does not stand"),
        (wanted(19), "19 words in the glossary"),
        (wanted(31), "31 words in the glossary"),
        (wanted(25) + "| word3 | again |\n", "word3 stands twice"),
        (wanted(25).replace("| `proto/` |", "| `other` |"), "package proto has no row"),
        (wanted(25) + &"\n".repeat(200), "lines, at most 200"),
    ] {
        let found = planted(&document);
        assert_eq!(found.len(), 1, "{what}: {found:?}");
        assert!(found[0].contains(what), "{what}: {found:?}");
    }
}
