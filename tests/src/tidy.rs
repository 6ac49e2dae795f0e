//! The style rules that a machine can check, over this project's own sources.
//!
//! [`source`] reads Rust just well enough to tell code from text and comments; the other files hold the rules.
//! Every rule collects all of its violations: whoever breaks three wants to hear of three. Driven by the test
//! `tidy`, which runs them all and prints what they found.

pub mod book;
pub mod deny_list;
pub mod documents;
pub mod libraries;
pub mod library_graph;
pub mod manifests;
pub mod map;
pub mod names;
pub mod promises;
pub mod rooms;
pub mod rules;
pub mod skips;
pub mod source;
pub mod tables;
mod tree;

use std::fmt;
use std::path::PathBuf;

pub use tree::{Sources, root};

/// A rule that is broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StyleFault {
    /// The file, from the project's root.
    pub file: PathBuf,
    /// The line, from 1; 0 is the file as a whole.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl StyleFault {
    /// One of a file as a whole.
    pub fn of_file(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, what: what.into() }
    }

    /// One of a line, counted from 1.
    pub fn of_line(file: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into() }
    }
}

impl fmt::Display for StyleFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.file.display(), self.what),
            line => write!(out, "{}:{line}: {}", self.file.display(), self.what),
        }
    }
}
