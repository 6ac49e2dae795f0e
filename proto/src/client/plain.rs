//! Text of others, such as what a job's own code said, as it may stand in a line for people.
//!
//! It must not move a cursor, colour a terminal, turn the reading direction or begin a line of its own; quotes and
//! letters of all languages stay as they are. Used wherever such a text is put into words; programs get it as it is.

use std::fmt;

/// What stays as it is although `escape_debug` would mark it.
const QUOTES: [char; 3] = ['"', '\'', '\\'];

/// A text that is shown without harm.
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
}
