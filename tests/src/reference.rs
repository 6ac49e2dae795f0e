//! The reference pages of the book, as far as they follow from the code.
//!
//! `command_line` writes the page of verbs and flags from the help texts of the programs; `configuration` reads the
//! page of config keys back into rows, so that the test `reference` can compare them with the code. Nothing here starts
//! a daemon.

pub mod command_line;
pub mod configuration;
