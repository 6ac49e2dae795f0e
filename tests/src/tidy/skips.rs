//! The rule about skipped tests: a test that cannot run here ends by `skip!` or `or_skip!`, whose line the tally of
//! `cargo xtask test` counts, and by nothing else.
//!
//! Two ways around them are found: a print that says "skip", and a `return` of nothing in the body of a test, however
//! nothing is written. Returns of closures and functions inside a test are their own. Only the file of the macros may
//! print such a line.

use std::ops::Range;
use std::path::Path;

use super::source::{Source, is_of_word};
use super::{Sources, StyleFault};

/// Where the macros stand.
const MACROS: &str = "tests/src/skip.rs";
/// Macros that tell something.
const PRINTS: [&str; 6] = ["print!(", "println!(", "eprint!(", "eprintln!(", "write!(", "writeln!("];
/// What follows a `return` that ends a test without a failure.
const NOTHINGS: [&str; 9] =
    [";", "}", ",", "()", "Ok(())", "Ok::<", "drop(", "mem::drop(", "std::mem::drop("];

/// Every way around the macros, in all test code.
pub fn check(sources: &Sources) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for (path, source) in sources.iter().filter(|(path, _)| *path != Path::new(MACROS)) {
        let is_test = |line: usize| sources.is_test(path) || source.test[line];
        let prints = (0..source.code.len()).filter(|&line| is_test(line) && says_skip(source, line));
        let what = "prints that it is skipped, which no tally sees: end the test by `skip!` or `or_skip!`";
        found.extend(prints.map(|line| StyleFault::of_line(path, line + 1, what)));
        let returns = tests(source).into_iter().flatten();
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

/// The lines of all functions with `#[test]` on which one returns nothing.
fn tests(source: &Source) -> Vec<Vec<usize>> {
    let functions: Vec<Range<usize>> =
        source.functions().into_iter().map(|function| function.lines).collect();
    let bodies = functions.iter().filter(|lines| source.is_test_function(lines.start));
    bodies.map(|body| silent_returns(source, body, &functions)).collect()
}

/// The lines of a body that return nothing, those of closures and functions inside it left out.
fn silent_returns(source: &Source, body: &Range<usize>, functions: &[Range<usize>]) -> Vec<usize> {
    let is_inner =
        |line: usize| functions.iter().any(|inner| inner.start > body.start && inner.contains(&line));
    let text = source.code[body.clone()].join("\n");
    let mut found = Vec::new();
    // For each brace that is open, whether it is that of a closure.
    let mut open = Vec::new();
    let mut line = body.start;
    for (at, letter) in text.char_indices() {
        match letter {
            '\n' => line += 1,
            '{' => open.push(ends_as_closure(&text[..at])),
            '}' => drop(open.pop()),
            'r' if returns_silently(&text, at) && !open.contains(&true) && !is_inner(line) => {
                found.push(line)
            }
            _ => {}
        }
    }
    found.dedup();
    found
}

/// Whether a brace after this text opens the body of a closure: the text ends in `|`, `| -> T`, `| loop` or `move`.
fn ends_as_closure(text: &str) -> bool {
    let text = text.trim_end();
    let with_type = text.rsplit_once("->").filter(|(_, type_)| !type_.contains(['{', '}']));
    let bare = with_type.map_or(text, |(before, _)| before);
    ends_with_word(text, "move")
        || ends_with_parameters(bare)
        || (ends_with_word(text, "loop") && ends_with_parameters(&text[..text.len() - "loop".len()]))
}

/// Whether a text ends with the parameters of a closure, and not with the operator `|` or `||`.
fn ends_with_parameters(text: &str) -> bool {
    let Some(inside) = text.trim_end().strip_suffix('|') else { return false };
    let mut depth = 0_i32;
    let opens = |(_, letter): &(usize, char)| {
        depth += i32::from(matches!(letter, ')' | ']')) - i32::from(matches!(letter, '(' | '['));
        *letter == '|' && depth == 0
    };
    let Some((start, _)) = inside.char_indices().rev().find(opens) else { return false };
    let before = inside[..start].trim_end();
    let is_operand =
        |letter: char| is_of_word(letter) || letter.is_control() || matches!(letter, ')' | ']' | '}' | '?');
    ends_with_word(before, "move") || !before.chars().next_back().is_some_and(is_operand)
}

/// Whether a text ends with a word of its own.
fn ends_with_word(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|before| !before.chars().next_back().is_some_and(is_of_word))
}

/// Whether a `return` of nothing stands here.
fn returns_silently(text: &str, at: usize) -> bool {
    let Some(after) = text[at..].strip_prefix("return") else { return false };
    let is_word = !text[..at].chars().next_back().is_some_and(is_of_word);
    let after_spaces = after.trim_start();
    is_word
        && !after.starts_with(is_of_word)
        && NOTHINGS.iter().any(|nothing| after_spaces.starts_with(nothing))
}
