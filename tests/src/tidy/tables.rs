//! The rule about state tables: a header that shows the ways between states is compared with the code by a test in the
//! same file, through `state_tables`.
//!
//! Which tables these are the reader of the tables decides. The test lists the states with `every_state!`, which does not
//! compile when one is left out.

use super::{Sources, StyleFault};
use crate::state_tables;

/// Every state table without a test.
pub fn check(sources: &Sources) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for (path, source) in sources.iter() {
        let has_table = state_tables::read(&source.lines.join("\n")).is_some();
        let compares = source.code.iter().any(|line| line.contains("state_tables::assert_told("));
        let is_whole = source.code.iter().any(|line| line.contains("every_state!("));
        if has_table && !compares {
            let what =
                "its table of states is compared with no code: call `state_tables::assert_told` in a test";
            found.push(StyleFault::of_file(path, what));
        } else if has_table && !is_whole {
            let what = "the states that its table is compared with are listed by hand: use `every_state!`";
            found.push(StyleFault::of_file(path, what));
        }
    }
    found
}
