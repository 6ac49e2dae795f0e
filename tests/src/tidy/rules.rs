//! The rules about Rust files: headers, lengths, words that may not stand, and who alone may say others.
//!
//! Each limit and each word stands in a table here with its reason; a rule is a loop over a table.

use std::path::Path;

use bulkhead_proto::kind;

use super::source::{Source, is_of_word};
use super::{Sources, StyleFault};

/// Fewest and most lines of a file's header.
const HEADER_LINES: (usize, usize) = (3, 15);
/// Most lines of code in a file, test modules left out.
const FILE_LINES_MAX: usize = 400;
/// Most lines of code in a function.
const FUNCTION_LINES_MAX: usize = 70;

/// A word of the code that only some files may use.
struct Word {
    word: &'static str,
    /// Paths from the root, by how they begin, where it may stand.
    allowed: &'static [&'static str],
    /// Whether test code may use it everywhere.
    in_tests: bool,
    why: &'static str,
}

const WORDS: [Word; 14] = [
    Word { word: "todo!", allowed: &[], in_tests: false, why: "nothing is left for later" },
    Word { word: "unimplemented!", allowed: &[], in_tests: false, why: "nothing is left for later" },
    Word { word: "dbg!", allowed: &[], in_tests: false, why: "a trace of debugging" },
    Word {
        word: ".unwrap()",
        allowed: &[],
        in_tests: true,
        why: "return the error, or use `expect` with the reason why it cannot happen",
    },
    Word {
        word: "thread::sleep",
        allowed: &["crates/jobs/src/sleep.rs"],
        in_tests: true,
        why: "nothing waits by sleeping: wake on an event or a deadline",
    },
    Word {
        word: "SeqCst",
        allowed: &["crates/link/", "crates/sys/"],
        in_tests: true,
        why: "shared memory is the worker channel's",
    },
    Word {
        word: "unsafe",
        allowed: &["crates/sys/"],
        in_tests: false,
        why: "unsafe code lives in crates/sys alone",
    },
    Word {
        word: "nix",
        allowed: &["crates/sys/"],
        in_tests: false,
        why: "system calls live in crates/sys alone",
    },
    Word {
        word: "libc",
        allowed: &["crates/sys/"],
        in_tests: false,
        why: "system calls live in crates/sys alone",
    },
    Word {
        word: "signal_hook",
        allowed: &["crates/sys/"],
        in_tests: false,
        why: "system calls live in crates/sys alone",
    },
    Word {
        word: "ipc_channel",
        allowed: &["crates/link/"],
        in_tests: false,
        why: "only crates/link names it",
    },
    Word {
        word: "rusqlite",
        allowed: &["crates/journal/"],
        in_tests: false,
        why: "only crates/journal names it",
    },
    Word {
        word: "bincode",
        allowed: &["proto/src/codec.rs"],
        in_tests: false,
        why: "only the codec names it",
    },
    Word {
        word: "fs::copy",
        allowed: &["crates/xtask/", "tests/tests/service.rs"],
        in_tests: false,
        why: "a copy that is run at once may be busy: use `program_file::copy_program`",
    },
];

/// Paths of code that some folders may never name, in tests as little as elsewhere.
struct Apart {
    /// Folders and files, by how their path from the root begins.
    folders: &'static [&'static str],
    paths: &'static [&'static str],
    why: &'static str,
}

const APART: [Apart; 5] = [
    Apart {
        folders: &["crates/client/src/"],
        paths: &[
            "pub use bulkhead_proto;",
            "pub use bulkhead_proto as",
            "pub use bulkhead_proto::*",
            "pub use bulkhead_proto::{self",
        ],
        why: "a client is given the modules that it needs, by name",
    },
    Apart {
        folders: &["crates/client/", "crates/views/", "crates/cli/"],
        paths: &["bulkhead_proto::worker"],
        why: "no client knows what only workers speak",
    },
    Apart {
        folders: &["worker/", "crates/jobs/", "crates/task/", "crates/link/src/worker"],
        paths: &["bulkhead_proto::client"],
        why: "no worker knows what only clients speak",
    },
    Apart {
        folders: &["proto/src/client"],
        paths: &["crate::worker"],
        why: "no client knows what only workers speak",
    },
    Apart {
        folders: &["proto/src/worker"],
        paths: &["crate::client"],
        why: "no worker knows what only clients speak",
    },
];

/// Where the names of the built-in kinds stand, each once; `xtask` types them as a user does.
const KIND_NAMES_IN: &str = "proto/src/kind.rs";
const KIND_NAMES_TYPED_IN: &str = "crates/xtask/";

/// Words that mark unfinished work, in comments and texts too. Spelled apart here, so as not to name themselves.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Runs every rule of this file.
pub fn check(sources: &Sources) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for (path, source) in sources.iter() {
        let is_test = sources.is_test(path);
        header(path, source, is_test, &mut found);
        lengths(path, source, &mut found);
        words(path, source, is_test, &mut found);
        apart(path, source, &mut found);
        if !is_test && !path.starts_with(KIND_NAMES_TYPED_IN) {
            kind_names(path, source, &mut found);
        }
    }
    found
}

fn header(path: &Path, source: &Source, is_test: bool, found: &mut Vec<StyleFault>) {
    let lines = source.header_lines();
    let (fewest, most) = HEADER_LINES;
    // The harness of the end-to-end tests is code like any other; a test says in one line what it shows.
    let fewest = if is_test && !path.starts_with("tests/src") { 1 } else { fewest };
    if !(fewest..=most).contains(&lines) {
        let what = format!(
            "its header has {lines} lines; say in {fewest} to {most} what it is, must never do, and who drives it"
        );
        found.push(StyleFault::of_file(path, what));
    }
}

fn lengths(path: &Path, source: &Source, found: &mut Vec<StyleFault>) {
    let lines = source.code_lines();
    if lines > FILE_LINES_MAX {
        found.push(StyleFault::of_file(path, format!("{lines} lines of code, {FILE_LINES_MAX} are allowed")));
    }
    for function in source.functions() {
        let lines = source.length_of(&function);
        if lines > FUNCTION_LINES_MAX {
            let what = format!(
                "function {} has {lines} lines of code, {FUNCTION_LINES_MAX} are allowed",
                function.name
            );
            found.push(StyleFault::of_line(path, function.lines.start + 1, what));
        }
    }
}

fn words(path: &Path, source: &Source, is_test: bool, found: &mut Vec<StyleFault>) {
    for (line, code) in source.code.iter().enumerate() {
        let in_test = is_test || source.test[line];
        for rule in &WORDS {
            let mut allowed = rule.allowed.iter().any(|place| path.to_string_lossy().starts_with(place));
            allowed |= in_test && rule.in_tests;
            if !allowed && says(code, rule.word) {
                let what = format!("{} may not stand here: {}", rule.word, rule.why);
                found.push(StyleFault::of_line(path, line + 1, what));
            }
        }
        for mark in MARKS.iter().filter(|mark| says(&source.lines[line], mark)) {
            found.push(StyleFault::of_line(path, line + 1, format!("{mark}: nothing is left for later")));
        }
    }
}

fn apart(path: &Path, source: &Source, found: &mut Vec<StyleFault>) {
    let stands_in =
        |rule: &&Apart| rule.folders.iter().any(|place| path.to_string_lossy().starts_with(place));
    for rule in APART.iter().filter(stands_in) {
        for (line, code) in source.code.iter().enumerate() {
            for name in rule.paths.iter().filter(|name| says(code, name)) {
                let what = format!("{name} may not stand here: {}", rule.why);
                found.push(StyleFault::of_line(path, line + 1, what));
            }
        }
    }
}

/// A kind's name as a text of its own stands once, in the table of kinds; all others use its constant.
fn kind_names(path: &Path, source: &Source, found: &mut Vec<StyleFault>) {
    for kind in kind::builtin(true) {
        let stands = (0..source.code.len()).filter(|&line| !source.test[line]);
        let stands =
            stands.flat_map(|line| std::iter::repeat_n(line, source.count_literals(line, &kind.name)));
        for line in stands.skip(usize::from(path == Path::new(KIND_NAMES_IN))) {
            let what = format!("{:?} stands in {KIND_NAMES_IN} alone: use its constant", kind.name);
            found.push(StyleFault::of_line(path, line + 1, what));
        }
    }
}

/// Whether `word` stands in `text` and is no part of a longer word.
fn says(text: &str, word: &str) -> bool {
    let goes_on = |edge: bool, beside: Option<char>| edge && beside.is_some_and(is_of_word);
    text.match_indices(word).any(|(at, _)| {
        let before = goes_on(word.starts_with(is_of_word), text[..at].chars().next_back());
        let after = goes_on(word.ends_with(is_of_word), text[at + word.len()..].chars().next());
        !before && !after
    })
}
