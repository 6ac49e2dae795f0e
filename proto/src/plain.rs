//! Shows a text from a job or a user, such as a failure's message, safely within a line for people.
//!
//! The shown text can never move a cursor, colour a terminal, change the reading direction or begin a new line. Quotes
//! and letters of all languages are shown as they are. Every text for people that contains such a message uses this;
//! JSON contains the message unchanged.
//!
//! A text that a program of ours composes of others - a line of a table, of a log, an error - passes through [`PlainLine`]
//! or [`PlainText`] right before it is written, in case that one of its parts did not.

use std::fmt;

/// Characters that are not escaped although `escape_debug` would escape them.
const QUOTES: [char; 3] = ['"', '\'', '\\'];

/// Shows the text with control and direction characters escaped.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.split_inclusive(QUOTES).try_for_each(|part| {
            let body = part.strip_suffix(QUOTES).unwrap_or(part);
            write!(out, "{}{}", body.escape_debug(), &part[body.len()..])
        })
    }
}

/// Whether a terminal obeys this character instead of showing it: it controls the terminal, ends a line, or changes the
/// reading direction.
pub fn is_obeyed(letter: char) -> bool {
    let turns = matches!(
        letter,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    turns || letter.is_control()
}

/// Shows one line: characters that would be obeyed are escaped, all but tabs.
#[derive(Clone, Copy, Debug)]
pub struct PlainLine<'a>(pub &'a str);

/// Shows lines: characters that would be obeyed are escaped, all but tabs and the ends of lines.
#[derive(Clone, Copy, Debug)]
pub struct PlainText<'a>(pub &'a str);

impl fmt::Display for PlainLine<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, &['\t'], out)
    }
}

impl fmt::Display for PlainText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, &['\t', '\n'], out)
    }
}

fn escape(text: &str, kept: &[char], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_escaped = |letter: char| is_obeyed(letter) && !kept.contains(&letter);
    let mut rest = text;
    while let Some((at, letter)) = rest.char_indices().find(|(_, letter)| is_escaped(*letter)) {
        write!(out, "{}{}", &rest[..at], letter.escape_debug())?;
        rest = &rest[at + letter.len_utf8()..];
    }
    out.write_str(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_is_obeyed_and_everything_is_readable() {
        let text = "no \"row\" in C:\\ü, it's\u{1b}[31m\nroot\u{202e}\r\u{9b}2J";
        let shown = "no \"row\" in C:\\ü, it's\\u{1b}[31m\\nroot\\u{202e}\\r\\u{9b}2J";
        assert_eq!(Plain(text).to_string(), shown);
        assert_eq!(Plain("").to_string(), "");
    }

    #[test]
    fn all_that_is_obeyed_is_escaped_by_each_of_them() {
        for letter in (0..=0x3_0000).filter_map(char::from_u32).filter(|letter| is_obeyed(*letter)) {
            let text = format!("a{letter}b");
            let shown =
                [Plain(&text).to_string(), PlainLine(&text).to_string(), PlainText(&text).to_string()];
            let is_kept = [false, letter == '\t', matches!(letter, '\t' | '\n')];
            for (shown, is_kept) in shown.iter().zip(is_kept) {
                assert_eq!(shown.contains(letter), is_kept, "{letter:?}: {shown:?}");
            }
        }
        assert_eq!(PlainLine("\u{e9} \"x\"\t\u{200d}\n").to_string(), "\u{e9} \"x\"\t\u{200d}\\n");
        assert_eq!(PlainText("a\r\nb\u{202e}").to_string(), "a\\r\nb\\u{202e}");
    }
}
