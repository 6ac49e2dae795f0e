//! The rule about skipped tests: a test that cannot run here ends by `skip!` or `or_skip!`, whose line the tally of
//! `cargo xtask test` counts, and by nothing else.
//!
//! Two ways around them are found: a print that says "skip", and a bare `return` in the body of a test. Only the file
//! of the macros may print such a line.

use std::ops::Range;
use std::path::Path;

use super::source::{Source, is_of_word};
use super::{Sources, StyleFault};

/// Where the macros stand.
const MACROS: &str = "tests/src/skip.rs";
/// Macros that tell something.
const PRINTS: [&str; 6] = ["print!(", "println!(", "eprint!(", "eprintln!(", "write!(", "writeln!("];

/// Every way around the macros, in all test code.
pub fn check(sources: &Sources) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for (path, source) in sources.iter().filter(|(path, _)| *path != Path::new(MACROS)) {
        let is_test = |line: usize| sources.is_test(path) || source.test[line];
        let prints = (0..source.code.len()).filter(|&line| is_test(line) && says_skip(source, line));
        let what = "prints that it is skipped, which no tally sees: end the test by `skip!` or `or_skip!`";
        found.extend(prints.map(|line| StyleFault::of_line(path, line + 1, what)));
        let returns =
            tests(source).into_iter().flatten().filter(|&line| returns_silently(&source.code[line]));
        let what = "a test that ends early says why: `skip!` or `or_skip!`; a test that branches has an `if`";
        found.extend(returns.map(|line| StyleFault::of_line(path, line + 1, what)));
    }
    found
}

/// Whether a print begins in this line, and a string in it, up to its end, has the word.
fn says_skip(source: &Source, line: usize) -> bool {
    let Some(at) = PRINTS.iter().find_map(|print| source.code[line].find(print)) else { return false };
    let mut depth = 0_i32;
    for (offset, code) in source.code[line..].iter().enumerate() {
        if source.strings(line + offset).to_lowercase().contains("skip") {
            return true;
        }
        let code = if offset == 0 { &code[at..] } else { code };
        depth += code.matches('(').count() as i32 - code.matches(')').count() as i32;
        if depth <= 0 {
            return false;
        }
    }
    false
}

/// The lines of all functions with `#[test]`, those of functions and closures inside them left out.
fn tests(source: &Source) -> Vec<Vec<usize>> {
    let functions = source.functions();
    let is_test = |range: &Range<usize>| {
        let above = source.code[..range.start].iter().rev().map(|line| line.trim());
        let attributes = above.take_while(|line| line.is_empty() || line.starts_with("#["));
        attributes.into_iter().any(|line| line == "#[test]")
    };
    let bodies = functions.iter().map(|function| &function.lines).filter(|lines| is_test(lines));
    bodies.map(|body| own_lines(source, body)).collect()
}

/// The lines of a body that belong to no closure or function with a body of its own.
fn own_lines(source: &Source, body: &Range<usize>) -> Vec<usize> {
    let mut own = Vec::new();
    let mut depth = 0_i32;
    // How deep the closure stands that these lines are in.
    let mut inside: Option<i32> = None;
    for line in body.clone().skip(1) {
        let code = &source.code[line];
        if inside.is_none() && is_closure(code) && code.trim_end().ends_with('{') {
            inside = Some(depth);
        } else if inside.is_none() && !is_closure(code) {
            own.push(line);
        }
        depth += code.matches('{').count() as i32 - code.matches('}').count() as i32;
        inside = inside.filter(|outside| depth > *outside);
    }
    own
}

/// Whether a line has the parameters of a closure, or begins a function of its own.
fn is_closure(code: &str) -> bool {
    let line = code.trim_start();
    code.contains("move |")
        || code.contains("(|")
        || code.contains("= |")
        || code.contains(", |")
        || line.starts_with("fn ")
}

/// Whether a line returns nothing.
fn returns_silently(code: &str) -> bool {
    code.match_indices("return").any(|(at, word)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].trim_start().chars().next();
        !before.is_some_and(is_of_word) && matches!(after, Some(';' | '}' | ',') | None)
    })
}
