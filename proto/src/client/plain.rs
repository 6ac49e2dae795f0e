//! Shows a text from a job or a user, such as a failure's message, safely within a line for people.
//!
//! The shown text can never move a cursor, colour a terminal, change the reading direction or begin a new line. Quotes
//! and letters of all languages are shown as they are. Every text for people that contains such a message uses this;
//! JSON contains the message unchanged.

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
