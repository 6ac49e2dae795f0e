//! Reads the config file and the files of the `conf.d` beside it. Later keys win; each error names the file that
//! causes it.
//!
//! `policy.rs`, `pools.rs` and `kinds.rs` check the values; their checks are passed to [`ConfigSources::judged`],
//! which adds the file to their errors. Read once, by `settings.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use serde::Deserialize;

use super::File;

/// All files, merged and one by one.
#[derive(Debug, Default)]
pub(super) struct ConfigSources {
    pub(super) whole: File,
    files: Vec<(PathBuf, toml::Table)>,
}

impl ConfigSources {
    /// Reads the file and the files of its `conf.d`.
    ///
    /// # Errors
    /// A file cannot be read, is no TOML, has an unknown key, or a value of another type.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut files = vec![(path.to_owned(), read_table(path)?)];
        for extra in drop_ins(&path.with_file_name("conf.d"))? {
            let table = read_table(&extra)?;
            files.push((extra, table));
        }
        let mut merged = toml::Table::new();
        files.iter().for_each(|(_, table)| merge(&mut merged, table.clone()));
        let mut sources = Self { whole: File::default(), files };
        let whole = File::deserialize(merged).map_err(in_words);
        sources.whole = whole.map_err(|error| sources.blame_all(error))?;
        Ok(sources)
    }

    /// Runs `judge` on the merged config.
    ///
    /// # Errors
    /// The error of `judge`, with the file that gives the same error when it is judged alone; if none does, several
    /// files together cause it.
    pub(super) fn judged<T>(&self, judge: impl Fn(&File) -> Result<T>) -> Result<T> {
        judge(&self.whole).map_err(|error| {
            let said = error.to_string();
            let says_so = |table: &toml::Table| {
                let alone = File::deserialize(table.clone()).map(|file| judge(&file).err());
                alone.is_ok_and(|fault| fault.is_some_and(|fault| fault.to_string() == said))
            };
            // Later keys win, so the last such file is the cause.
            match self.files.iter().rev().find(|(_, table)| says_so(table)) {
                Some((path, _)) => error.context(format!("bad config {}", path.display())),
                None => self.blame_all(error),
            }
        })
    }

    /// Adds all files that may be the cause.
    pub(super) fn blame_all(&self, error: Error) -> Error {
        match &self.files[..] {
            [] => error,
            [(path, _)] => error.context(format!("bad config {}", path.display())),
            [(path, _), ..] => error.context(format!("bad config, from {} and its conf.d", path.display())),
        }
    }
}

/// Merges `later` into a table, later keys win. Tables of one name are merged too, so that a file of `conf.d` can add
/// a kind.
fn merge(into: &mut toml::Table, later: toml::Table) {
    for (key, value) in later {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(earlier)), toml::Value::Table(more)) => merge(earlier, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn read_table(path: &Path) -> Result<toml::Table> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read config {}", path.display()))?;
    let bad = || format!("bad config {}", path.display());
    let table: toml::Table = text.parse().map_err(in_words).with_context(bad)?;
    // Checked alone first, so that an unknown key is reported with its file.
    File::deserialize(table.clone()).map_err(in_words).with_context(bad)?;
    Ok(table)
}

/// Rewrites a message of serde for readers who do not know Rust.
fn in_words(error: toml::de::Error) -> Error {
    let said = error.to_string();
    // The toml crate puts the place of a key on a line of its own.
    let mut said = said.trim_end().replace("\nin `", ", in `").replace("unknown field", "unknown key");
    for (ours, theirs) in [
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number from 0"),
    ] {
        said = said.replace(ours, theirs);
    }
    Error::msg(said)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("cannot read config folder {}: {error}", folder.display()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read config folder {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_file_adds_to_the_kinds_and_wins_by_key() {
        let mut merged: toml::Table = "workers = 1\n[kinds.a]\nring = 1\nusage = \"A\"\n".parse().unwrap();
        merge(&mut merged, "workers = 2\n[kinds.a]\nring = 9\n[kinds.b]\n".parse().unwrap());
        let whole = "workers = 2\n[kinds.a]\nring = 9\nusage = \"A\"\n[kinds.b]\n";
        assert_eq!(merged, whole.parse::<toml::Table>().unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_without_rust() {
        let said = |text: &str| {
            let read = text.parse::<toml::Table>().map_err(in_words);
            read.and_then(|table| File::deserialize(table).map_err(in_words)).unwrap_err().to_string()
        };
        for (text, wanted) in [
            (
                "workers = \"two\"",
                "invalid type: string \"two\", expected a whole number from 0, in `workers`",
            ),
            ("queue_max = -1", "invalid value: integer `-1`, expected a whole number from 0, in `queue_max`"),
            (
                "[kinds.x]\nretries_max = 300",
                "invalid value: integer `300`, expected a whole number from 0 to 255, in `kinds.x.retries_max`",
            ),
        ] {
            assert_eq!(said(text), wanted);
        }
        let unknown = said("wrokers = 1");
        assert!(unknown.starts_with("unknown key `wrokers`, expected one of `mode`, "), "{unknown}");
        assert!(!unknown.ends_with("\n"));
    }
}
