//! A Rust file, read just well enough to tell code from text: a masked copy in which comments are blank and the
//! insides of strings are filler, so that braces and words can be counted.
//!
//! No parser: it knows comments (nested ones too), strings, raw strings, characters and lifetimes, and nothing
//! of grammar. That is enough for lengths, words and test modules, and it never fails on code that compiles.

use std::ops::Range;

/// What stands for a character of a string in the masked copy; no rule looks for it.
const FILLER: char = '\u{1}';

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// The lines as written.
    pub lines: Vec<String>,
    /// The lines masked: as many, and each as long.
    pub code: Vec<String>,
    /// For each line, whether it belongs to a test module.
    pub test: Vec<bool>,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its lines, from 0, from `fn` to the closing brace.
    pub lines: Range<usize>,
}

impl Source {
    /// Reads a file's text.
    pub fn new(text: &str) -> Self {
        let masked = mask(text);
        let code: Vec<String> = masked.lines().map(str::to_owned).collect();
        let mut test = vec![false; code.len()];
        for line in test_modules(&code).flatten() {
            test[line] = true;
        }
        Self { lines: text.lines().map(str::to_owned).collect(), code, test }
    }

    /// Whether a line, from 0, holds code.
    pub fn is_code(&self, line: usize) -> bool {
        self.code.get(line).is_some_and(|code| !code.trim().is_empty())
    }

    /// How often a line, from 0, holds this text as a whole string literal.
    pub fn count_literals(&self, line: usize, text: &str) -> usize {
        let (Some(raw), Some(code)) = (self.lines.get(line), self.code.get(line)) else { return 0 };
        let masked: Vec<char> = code.chars().collect();
        let is_filled = |at: usize| masked.get(at) == Some(&FILLER);
        let wanted = format!("\"{text}\"");
        let stands = raw.match_indices(&wanted).filter(|(at, _)| {
            let start = raw[..*at].chars().count();
            let end = start + wanted.chars().count();
            let is_inside_another = (start > 0 && is_filled(start - 1)) || is_filled(end);
            (start..end).all(is_filled) && !is_inside_another
        });
        stands.count()
    }

    /// What stands in strings in a line, from 0; what is no string is left out.
    pub fn strings(&self, line: usize) -> String {
        let letters = self.lines[line].chars().zip(self.code[line].chars());
        letters.filter(|(_, code)| *code == FILLER).map(|(letter, _)| letter).collect()
    }

    /// Lines of code outside test modules.
    pub fn code_lines(&self) -> usize {
        (0..self.code.len()).filter(|&line| self.is_code(line) && !self.test[line]).count()
    }

    /// Lines of the header: `//!` from the first line on.
    pub fn header_lines(&self) -> usize {
        self.lines.iter().take_while(|line| line.starts_with("//!")).count()
    }

    /// All functions that have a body, nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let text = Text::new(&self.code);
        text.words("fn").filter_map(|at| text.function(at)).collect()
    }

    /// Whether the function that begins in this line, from 0, has `#[test]` above it; other attributes and comments may
    /// stand between.
    pub fn is_test_function(&self, line: usize) -> bool {
        let above = self.code[..line].iter().rev().map(|line| line.trim());
        let mut attributes = above.take_while(|line| line.is_empty() || line.starts_with("#["));
        attributes.any(|line| line == "#[test]")
    }

    /// Lines of code of a function.
    pub fn length_of(&self, function: &Function) -> usize {
        function.lines.clone().filter(|&line| self.is_code(line)).count()
    }

    /// Modules that `#[cfg(test)]` puts into files of their own.
    pub fn test_files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (line, code) in self.code.iter().enumerate() {
            let name =
                self.code.get(line + 1).and_then(|next| next.trim().strip_prefix("mod ")?.strip_suffix(';'));
            if let (true, Some(name)) = (code.trim() == "#[cfg(test)]", name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

/// The lines of every `#[cfg(test)] mod name { ... }`.
fn test_modules(code: &[String]) -> impl Iterator<Item = Range<usize>> {
    let text = Text::new(code);
    let starts = code.iter().enumerate().filter(|(_, line)| line.trim() == "#[cfg(test)]");
    let ranges: Vec<_> = starts
        .filter_map(|(line, _)| {
            let inline = code.get(line + 1)?.trim().ends_with('{');
            let open = text.start_of(line) + text.from(line).find('{')?;
            inline.then(|| line..text.line_of(text.closing(open)) + 1)
        })
        .collect();
    ranges.into_iter()
}

/// Masked code as one string, with the lines' starts.
struct Text {
    all: String,
    starts: Vec<usize>,
}

impl Text {
    fn new(code: &[String]) -> Self {
        let mut all = String::new();
        let mut starts = Vec::new();
        for line in code {
            starts.push(all.len());
            all.push_str(line);
            all.push('\n');
        }
        Self { all, starts }
    }

    fn start_of(&self, line: usize) -> usize {
        self.starts[line]
    }

    fn from(&self, line: usize) -> &str {
        &self.all[self.starts[line]..]
    }

    fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// Where `word` stands as a word of its own.
    fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.all.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = self.all[..at].chars().next_back();
            let after = self.all[at + word.len()..].chars().next();
            !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word)
        })
    }

    /// The function whose `fn` stands here; `None` without a name (a type) or without a body (a trait's).
    fn function(&self, at: usize) -> Option<Function> {
        let rest = self.all[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|&letter| is_of_word(letter)).collect();
        if name.is_empty() {
            return None;
        }
        let mut depth = 0_i32;
        for (offset, letter) in self.all[at..].char_indices() {
            match letter {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                ';' if depth == 0 => return None,
                '{' if depth == 0 => {
                    let end = self.line_of(self.closing(at + offset)) + 1;
                    return Some(Function { name, lines: self.line_of(at)..end });
                }
                _ => {}
            }
        }
        None
    }

    /// Where the brace that opens here is closed; the end of the text if it never is.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_i32;
        for (offset, letter) in self.all[open..].char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return open + offset;
            }
        }
        self.all.len() - 1
    }
}

/// Whether a character may stand in a name.
pub fn is_of_word(letter: char) -> bool {
    letter == '_' || letter.is_ascii_alphanumeric()
}

/// The text with comments blank and the insides of strings and characters filled.
fn mask(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let (end, fill) = token(&letters, at);
        for &letter in &letters[at..end] {
            masked.push(if letter == '\n' { '\n' } else { fill.unwrap_or(letter) });
        }
        at = end;
    }
    masked
}

/// Where the token that begins here ends, and what to write for it; `None`: the code itself.
fn token(letters: &[char], at: usize) -> (usize, Option<char>) {
    let is = |offset: usize, wanted: char| letters.get(at + offset) == Some(&wanted);
    let in_word = at > 0 && is_of_word(letters[at - 1]);
    if is(0, '/') && is(1, '/') {
        (seek(letters, at, '\n'), Some(' '))
    } else if is(0, '/') && is(1, '*') {
        (end_of_block_comment(letters, at), Some(' '))
    } else if is(0, '"') {
        (end_of_quoted(letters, at + 1, '"'), Some(FILLER))
    } else if is(0, 'r') && (!in_word || (at > 0 && matches!(letters[at - 1], 'b' | 'c'))) {
        match end_of_raw(letters, at + 1) {
            Some(end) => (end, Some(FILLER)),
            None => (at + 1, None),
        }
    } else if is(0, '\'') && (is(1, '\\') || is(2, '\'')) {
        (end_of_quoted(letters, at + 1, '\''), Some(FILLER))
    } else {
        (at + 1, None)
    }
}

fn seek(letters: &[char], from: usize, wanted: char) -> usize {
    letters[from..].iter().position(|&letter| letter == wanted).map_or(letters.len(), |offset| from + offset)
}

fn end_of_block_comment(letters: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < letters.len() {
        match (letters[at], letters.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(letters.len())
}

fn end_of_quoted(letters: &[char], from: usize, quote: char) -> usize {
    let mut at = from;
    while at < letters.len() && letters[at] != quote {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(letters.len())
}

/// The end of `#"..."#` with any number of `#`; `None` if no raw string begins here.
fn end_of_raw(letters: &[char], from: usize) -> Option<usize> {
    let hashes = letters[from..].iter().take_while(|&&letter| letter == '#').count();
    if letters.get(from + hashes) != Some(&'"') {
        return None;
    }
    let mut at = from + hashes + 1;
    loop {
        at = seek(letters, at, '"') + 1;
        let closes = letters.get(at..at + hashes).is_none_or(|end| end.iter().all(|&letter| letter == '#'));
        if closes {
            return Some((at + hashes).min(letters.len()));
        }
    }
}
