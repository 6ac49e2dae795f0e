//! The rules that tie documents to code: an exit code, a verb, a flag or a config key that nobody can read
//! about does not exist for its users.
//!
//! Each rule takes the code's text and the documents' text, so that it can be tested on made-up ones.

use std::collections::BTreeSet;

use super::StyleFault;

/// The page with the table of exit codes.
pub const EXIT_CODES: &str = "docs/src/reference/exit-codes.md";

/// Every exit code of the table in code has a row in the table of a document.
pub fn exit_codes(code: &str, document: &str) -> Vec<StyleFault> {
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with('|')).collect();
    let mut found = Vec::new();
    for line in code.lines() {
        let Some((name, value)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": u8 = "))
        else {
            continue;
        };
        let value = value.trim_end_matches(';');
        let told = rows.iter().any(|row| row.split('|').any(|cell| cell.trim().trim_matches('`') == value));
        if !told {
            found.push(StyleFault::of_file(
                EXIT_CODES,
                format!("exit code {value} ({name}) has no row in a table"),
            ));
        }
    }
    found
}

/// Every key of the config file stands in the sample, as a line `key = ...`, commented out or not, and no other; a key
/// that is a table stands there as the header `[key.name]` of one.
pub fn config_keys(settings: &str, kinds: &str, sample: &str) -> Vec<StyleFault> {
    let mut known: BTreeSet<&str> = fields(settings, "struct File {");
    known.extend(fields(kinds, "struct OwnKind {"));
    let shown: BTreeSet<&str> = sample.lines().filter_map(|line| key(line).or_else(|| table(line))).collect();
    let mut found = Vec::new();
    if known.is_empty() {
        found
            .push(StyleFault::of_file("supervisor/src/settings.rs", "no `struct File` with the config keys"));
    }
    for missing in known.difference(&shown) {
        found.push(StyleFault::of_file(
            "systemd/bulkhead.toml",
            format!("config key {missing} is not in the sample"),
        ));
    }
    for unknown in shown.difference(&known) {
        found.push(StyleFault::of_file("systemd/bulkhead.toml", format!("{unknown} is no config key")));
    }
    found
}

/// The key of a line `key = value`, or `#key = value`; prose in comments has a blank after the `#`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    let is_name = key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    (is_name && !key.is_empty()).then_some(key)
}

/// The key of a line `[key.name]`, or `#[key.name]`.
fn table(line: &str) -> Option<&str> {
    let header = line.strip_prefix('#').unwrap_or(line).strip_prefix('[')?.strip_suffix(']')?;
    header.split_once('.').map(|(key, _)| key)
}

/// The names of a struct's fields.
fn fields<'a>(code: &'a str, opening: &str) -> BTreeSet<&'a str> {
    let Some((_, body)) = code.split_once(opening) else { return BTreeSet::new() };
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    let code = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    code.filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect()
}

/// The verbs that a `--help` text lists under `Commands:`, `help` left out.
pub fn verbs(help: &str) -> Vec<String> {
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs =
        lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|verb| !verb.is_empty()));
    verbs.filter(|verb| *verb != "help").map(str::to_owned).collect()
}

/// The long flags that a `--help` text lists, `--help` and `--version` left out.
pub fn flags(help: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        for word in line.split([' ', ',', '=', '[', '.']) {
            if word.len() > 2 && word.starts_with("--") && word != "--help" && word != "--version" {
                found.push(word.to_owned());
                break;
            }
        }
    }
    found
}

/// Every one of these words of a command stands in a document, as a word of its own.
pub fn told(command: &str, words: &[String], documents: &str) -> Vec<StyleFault> {
    let is_inside = |letter: char| letter == '-' || letter.is_ascii_alphanumeric();
    let stands = |word: &str| {
        documents.match_indices(word).any(|(at, _)| {
            let before = documents[..at].chars().next_back();
            let after = documents[at + word.len()..].chars().next();
            !before.is_some_and(is_inside) && !after.is_some_and(is_inside)
        })
    };
    let missing = words.iter().filter(|word| !stands(word));
    missing
        .map(|word| StyleFault::of_file("docs/src", format!("`{command}`: {word} is documented nowhere")))
        .collect()
}
