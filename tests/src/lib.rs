//! The harness of the end-to-end tests: real daemons, real workers, and peers that misbehave.
//!
//! Each test starts daemons of its own in folders of their own and ends only what it started.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)] // a test that cannot go on says so by a panic, and asks again and again

pub mod chunks;
pub mod clips;
pub mod contexts;
pub mod daemon;
pub mod dead_disk;
pub mod foreign;
pub mod freezer;
pub mod fuzz;
pub mod grove;
pub mod hostile;
pub mod inventory;
pub mod odd;
pub mod ordinary_user;
pub mod other_disk;
pub mod other_users;
pub mod payload;
pub mod pieces;
pub mod program_file;
pub mod raid;
pub mod reaper;
pub mod reference;
pub mod shells;
pub mod shortage;
pub mod siege;
pub mod skip;
pub mod state_tables;
pub mod systemd;
pub mod tidy;
pub mod told;
pub mod wire;
pub mod writing;
