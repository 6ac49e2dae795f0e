//! The rows of the book's page about config keys, and the fields of the structs that serde reads those keys into.
//!
//! Texts in, plain values out, so that the readers can be tested on made-up ones. It knows no key and no default.
//! Driven by the test `reference`.

/// A row of a table of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The heading that it stands under.
    pub section: String,
    /// The key.
    pub key: String,
    /// What kind of value it takes, in words.
    pub takes: String,
    /// What holds without it, in words; a literal stands in backticks.
    pub default: String,
    /// What it is for.
    pub meaning: String,
}

impl Row {
    /// The default, if it is a literal of the config file.
    pub fn literal(&self) -> Option<&str> {
        let inside = self.default.strip_prefix('`')?.strip_suffix('`')?;
        (!inside.contains('`')).then_some(inside)
    }

    /// The least and the most of a whole number, as far as the page says.
    pub fn range(&self) -> (Option<u64>, Option<u64>) {
        let words: Vec<&str> = self.takes.split([' ', ',']).collect();
        let number = |word: &&str| word.parse().ok();
        match words.as_slice() {
            [.., low, "to", high] if *low != "up" => (number(low), number(high)),
            [.., "up", "to", high] => (None, number(high)),
            [.., low, "or", "more"] => (number(low), None),
            _ => (None, None),
        }
    }
}

/// All rows of tables with the columns key, type, default and meaning, by the `## ` heading that they stand under.
pub fn rows(page: &str) -> Vec<Row> {
    let (mut found, mut section) = (Vec::new(), String::new());
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim().to_owned();
        }
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [key, takes, default, meaning] = cells.as_slice() else { continue };
        let key = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'));
        found.extend(key.map(|key| Row {
            section: section.clone(),
            key: key.to_owned(),
            takes: (*takes).to_owned(),
            default: (*default).to_owned(),
            meaning: (*meaning).to_owned(),
        }));
    }
    found
}

/// The fields of a struct with their types, `Option` taken off.
pub fn fields<'a>(code: &'a str, opening: &str) -> Vec<(&'a str, &'a str)> {
    let Some((_, body)) = code.split_once(opening) else { return Vec::new() };
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    lines
        .filter_map(|line| line.trim_end_matches(',').split_once(": "))
        .map(|(name, kind)| {
            let inner = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>'));
            (name, inner.unwrap_or(kind))
        })
        .collect()
}

/// The words for a Rust type in the page's column; `None` for a table of its own.
pub fn words(kind: &str) -> Option<&'static str> {
    match kind {
        "u8" | "u16" | "u32" | "u64" => Some("whole number"),
        "bool" => Some("true or false"),
        "String" => Some("text"),
        "PathBuf" => Some("path"),
        "Vec<String>" => Some("list of texts"),
        "Mode" => Some("`\"user\"` or `\"system\"`"),
        "StreamSetting" => Some("`\"null\"` or `\"stderr\"`"),
        "EnvSetting" => Some("`\"inherit\"` or table of texts"),
        kind if kind.starts_with("Output") => Some("`\"inline\"` or `\"auto\"` or `\"descriptor\"`"),
        _ => None,
    }
}
