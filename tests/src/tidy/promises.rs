//! The rule for the README's table of promises: each test that a row names is there, and is a test.
//!
//! A row links to files of tests and names functions of them in backticks; a name belongs to the link before it. It takes
//! the texts, so that it can be tested on made-up ones. Driven by the test `tidy_book`.

use super::StyleFault;
use super::source::Source;

/// The heading that the table stands under.
const HEADING: &str = "## Promises";

/// Every row of the table names a test file, and every test that it names is one there. `read` gives the text of a
/// file by its path from the root.
pub fn check(readme: &str, read: impl Fn(&str) -> Option<String>) -> Vec<StyleFault> {
    let lines = readme.lines().enumerate().skip_while(|(_, line)| !line.starts_with(HEADING)).skip(1);
    let lines = lines.take_while(|(_, line)| !line.starts_with("## "));
    let rows: Vec<(usize, &str)> = lines.filter(|(_, line)| line.starts_with("| ")).skip(1).collect();
    let mut found = Vec::new();
    if rows.is_empty() {
        found.push(StyleFault::of_file("README.md", format!("no table below {HEADING}")));
    }
    for (number, row) in rows {
        let mut say = |what| found.push(StyleFault::of_line("README.md", number + 1, what));
        let Some(cell) =
            row.trim_end_matches(['|', ' ']).rsplit(" | ").next().filter(|cell| cell.contains(".rs"))
        else {
            say("this promise names no test file".to_owned());
            continue;
        };
        for piece in cell.split("](").skip(1) {
            let (path, names) = piece.split_once(')').unwrap_or((piece, ""));
            let source = Source::new(&read(path).unwrap_or_default());
            for name in names.split('`').skip(1).step_by(2) {
                if !has_test(&source, name) {
                    say(format!("{path} has no test {name}"));
                }
            }
        }
    }
    found
}

/// Whether a function of this name stands outside of modules, with `#[test]` above it.
fn has_test(source: &Source, name: &str) -> bool {
    let begins = format!("fn {name}()");
    let mut lines = source.code.iter().enumerate().filter(|(_, code)| code.starts_with(&begins));
    lines.any(|(line, _)| source.is_test_function(line))
}
