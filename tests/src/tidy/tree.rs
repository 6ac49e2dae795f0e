//! The project's files: which there are, and which of them are tests.
//!
//! Reads only; knows the layout (a folder for each package, `src/` in it) and nothing of the rules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::Source;

/// The project's root: of the checkout whose tests cargo runs, which names this package's folder at run time. What the compiler
/// saw may be another checkout: cargo finds tests up to date in a build folder that was copied from there.
///
/// # Panics
/// Never: this package stands one folder below it.
pub fn root() -> PathBuf {
    let at_run_time = std::env::var_os("CARGO_MANIFEST_DIR");
    let own = PathBuf::from(at_run_time.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()));
    own.parent().expect("the tests stand one folder below the root").to_owned()
}

/// All Rust files, by their path from the root.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: BTreeMap<PathBuf, Source>,
    test_files: Vec<PathBuf>,
}

impl Sources {
    /// Reads every `.rs` file below the root, build folders left out.
    ///
    /// # Panics
    /// If a file or folder cannot be read.
    pub fn read() -> Self {
        let mut sources = Self::default();
        let root = root();
        for path in files_below(&root) {
            if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is readable UTF-8");
                sources.add(path.strip_prefix(&root).expect("files stand below the root"), &text);
            }
        }
        sources
    }

    /// Adds one file; rules are tested with files that were never written.
    pub fn add(&mut self, path: &Path, text: &str) {
        let source = Source::new(text);
        let stem = path.file_stem().unwrap_or_default();
        let own = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let folder = if own { path.with_file_name("") } else { path.with_extension("") };
        self.test_files.extend(source.test_files().iter().map(|name| folder.join(format!("{name}.rs"))));
        self.files.insert(path.to_owned(), source);
    }

    /// Every file.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Source)> {
        self.files.iter().map(|(path, source)| (path.as_path(), source))
    }

    /// Whether a file as a whole is test code.
    pub fn is_test(&self, path: &Path) -> bool {
        path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
            || self.test_files.iter().any(|file| file == path)
    }
}

/// Every file below a folder; hidden ones and `target` left out.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).expect("a folder of the project is readable");
    for entry in entries {
        let path = entry.expect("a folder of the project is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
