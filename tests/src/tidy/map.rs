//! The rules that keep ARCHITECTURE.md true: each path in it exists and holds the names that stand behind it, each package
//! has its row, the glossary has a line for each word, and the whole is short enough to be a map.
//!
//! Takes the document's text and two questions about the tree, so that it can be tested on made-up ones.

use super::StyleFault;
use super::source::{Source, is_of_word};

/// The document.
pub const MAP: &str = "ARCHITECTURE.md";
/// Most lines that are read in ten minutes.
const LINES_MAX: usize = 200;
/// Fewest and most words of the glossary.
const WORDS: (usize, usize) = (20, 30);
/// Top-level folders of the project, as paths begin.
const TOPS: [&str; 8] =
    ["proto/", "crates/", "supervisor/", "worker/", "tests/", "docs/", "systemd/", ".cargo/"];

/// What the rules ask of the tree.
pub struct Tree<'a> {
    /// The text of a file; of a folder, of all files in it together; `None` if there is neither.
    pub read: &'a dyn Fn(&str) -> Option<String>,
    /// The folders of the packages.
    pub packages: &'a [String],
}

/// Runs every rule of this file.
pub fn check(document: &str, tree: &Tree<'_>) -> Vec<StyleFault> {
    let mut found = Vec::new();
    let lines = document.lines().count();
    if lines > LINES_MAX {
        found.push(StyleFault::of_file(MAP, format!("{lines} lines, at most {LINES_MAX} are a map")));
    }
    for (at, line) in document.lines().enumerate() {
        check_paths(line, at + 1, tree, &mut found);
    }
    for package in tree.packages {
        let row = [format!("| `{package}` |"), format!("| `{package}/` |")];
        if !row.iter().any(|row| document.contains(row)) {
            found.push(StyleFault::of_file(MAP, format!("package {package} has no row in the map")));
        }
    }
    check_glossary(document, &mut found);
    found
}

/// Each path between backticks exists; names in backticks and parentheses right behind it stand in that file.
fn check_paths(line: &str, at: usize, tree: &Tree<'_>, found: &mut Vec<StyleFault>) {
    let pieces: Vec<&str> = line.split('`').collect();
    let mut text = None;
    for (number, piece) in pieces.iter().enumerate() {
        if number % 2 == 0 {
            // Names belong to the path before the parenthesis that holds them.
            if piece.contains(')') || !(piece.trim_start().starts_with('(') || piece.trim() == ",") {
                text = None;
            }
            continue;
        }
        if TOPS.iter().any(|top| piece.starts_with(top)) && !piece.contains([' ', '*']) {
            text = (tree.read)(piece).map(|text| if piece.ends_with(".rs") { code_of(&text) } else { text });
            if text.is_none() {
                found.push(StyleFault::of_line(MAP, at, format!("{piece} does not exist")));
            }
        } else if let Some(text) = &text
            && !has_words(text, piece)
        {
            found.push(StyleFault::of_line(MAP, at, format!("{piece} does not stand in the file before it")));
        }
    }
}

/// The text of a Rust file without what stands in its comments and strings.
fn code_of(text: &str) -> String {
    Source::new(text).code.join("\n")
}

/// Whether a text has this piece in whole words: no word goes on where the piece begins or ends.
fn has_words(text: &str, piece: &str) -> bool {
    let goes_on =
        |one: Option<char>, other: Option<char>| one.is_some_and(is_of_word) && other.is_some_and(is_of_word);
    text.match_indices(piece).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + piece.len()..]);
        !goes_on(before.chars().next_back(), piece.chars().next())
            && !goes_on(piece.chars().next_back(), after.chars().next())
    })
}

/// A word a line, each once.
fn check_glossary(document: &str, found: &mut Vec<StyleFault>) {
    let section = document.split("\n## Words\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.unwrap_or_default().lines().filter(|line| line.starts_with("| ")).skip(1);
    let words: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).map(str::trim).collect();
    if !(WORDS.0..=WORDS.1).contains(&words.len()) {
        let (least, most) = WORDS;
        found.push(StyleFault::of_file(
            MAP,
            format!("{} words in the glossary, {least} to {most} are wanted", words.len()),
        ));
    }
    for (at, word) in words.iter().enumerate() {
        if words[..at].contains(word) {
            found.push(StyleFault::of_file(MAP, format!("{word} stands twice in the glossary")));
        }
    }
}
