//! Doors that nobody may pass in silence, as tests: a skipped test, a state table that the code has left behind.
//! Each rule is shown to find a planted violation, then runs over the real tree.

use std::path::Path;

use bulkhead_tests::state_tables;
use bulkhead_tests::tidy::{Sources, StyleFault, skips, tables};

/// Fails with all violations, one a line.
fn expect_none(mut found: Vec<StyleFault>) {
    found.sort();
    let lines: Vec<String> = found.iter().map(StyleFault::to_string).collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn no_test_skips_itself_in_silence() {
    expect_none(skips::check(&Sources::read()));
}

/// The lines of the ways around the macros in a made-up test.
fn planted_skips(path: &str, body: &str) -> Vec<usize> {
    let mut sources = Sources::default();
    sources.add(Path::new(path), &format!("#[test]\nfn a() {{\n{body}\n}}\n"));
    skips::check(&sources).into_iter().map(|violation| violation.line).collect()
}

#[test]
fn a_planted_skip_is_found() {
    for body in [
        "println!(\"skipped: no root\");",
        "eprintln!(\"{} Skipped\", 1);",
        "println!(\n    \"a long text\", x(1),\n    \"SKIPPED\");",
        "writeln!(out, \"SKIPPED\").unwrap();",
        "let Some(x) = y() else { return };",
        "if x { return; }",
        "match x { Err(_) => return, Ok(x) => x };",
        "let Ok(x) = f().map_err(|e| e.to_string()) else { return };",
        "if x.iter().any(|y| *y) { return; }",
        "if x || y { return }",
        "let _ = x || { return };",
        "return ();",
        "return drop(x);",
        "return Ok(());",
        "let f = |x| -> u8 { x }; return;",
    ] {
        assert_eq!(planted_skips("tests/tests/a.rs", body), [3], "{body}");
    }
    for (body, line) in [
        ("let Ok(x) = f().map_err(|e| e.to_string()) else {\n    return;\n};", 4),
        ("if x.iter().all(|y| y.is_none()) {\n    return Ok(());\n}", 4),
        ("let f = |x| {\n    return;\n};\nlet Some(x) = y(|| 1) else {\n    return\n};", 7),
    ] {
        assert_eq!(planted_skips("tests/tests/a.rs", body), [line], "{body}");
    }
    let unit = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn a() {\n        return println!(\"skip\");\n    }\n}\n";
    let mut sources = Sources::default();
    sources.add(Path::new("crates/sys/src/a.rs"), unit);
    assert_eq!(skips::check(&sources).len(), 1);
    for (path, body) in [
        ("tests/tests/a.rs", "skip!(\"no root\");"),
        ("tests/tests/a.rs", "println!(\"{}\", x.iter().nth(1)); x.iter().skip(1);"),
        ("tests/tests/a.rs", "let f = || {\n    return;\n};"),
        ("tests/tests/a.rs", "a.map(|(x, y): (u8, u8)| -> Option<u8> {\n    return;\n});"),
        ("tests/tests/a.rs", "spawn(move || {\n    if x { return }\n});"),
        ("tests/tests/a.rs", "spawn(move || loop {\n    if x { return }\n});"),
        ("tests/tests/a.rs", "fn b() -> bool {\n    return true;\n}"),
        ("tests/tests/a.rs", "fn b() {\n    return;\n}"),
        ("tests/tests/a.rs", "return Err(x);"),
        ("tests/src/skip.rs", "println!(\"SKIPPED\");"),
    ] {
        assert_eq!(planted_skips(path, body), [0; 0], "{body}");
    }
    let mut sources = Sources::default();
    sources
        .add(Path::new("crates/xtask/src/a.rs"), "fn a() {\n    println!(\"tests skip themselves\");\n}\n");
    assert_eq!(skips::check(&sources), [], "a program that is no test may say the word");
}

/// A file whose header has a table of states.
fn with_table(table: &str) -> String {
    format!(
        "//! Head.\n//!\n{table}//!\n//! Anything else is an assertion.\n\nuse a::b;\n//! | x | leaves to |\n"
    )
}

#[test]
fn a_state_table_that_the_code_has_left_behind_is_found() {
    let list = with_table(
        "//! | state | leaves to |\n//! |---|---|\n//! | a | b (why, or not), c |\n//! | b | c (at last) |\n//! | c | - |\n",
    );
    let grid = with_table(
        "//! | from \\ to | a | b | c |\n//! |---|---|---|---|\n//! | a | | why | or not |\n//! | b | | | at last |\n",
    );
    let code = |b: &[&'static str]| [("A", vec!["B", "C"]), ("B", b.to_vec()), ("C", vec![])];
    for source in [&list, &grid] {
        state_tables::assert_told(source, code(&["C"]));
        for wrong in [&["A", "C"][..], &["B"], &[]] {
            let found = std::panic::catch_unwind(|| state_tables::assert_told(source, code(wrong)));
            assert!(found.is_err(), "{wrong:?} is not what stands in {source}");
        }
        // A state that is never left counts as well: one that only the code has, and one that only the table has.
        let added = code(&["C"]).into_iter().chain([("Added", vec![])]);
        let gone = code(&["C"]).into_iter().take(2);
        for wrong in [added.collect::<Vec<_>>(), gone.collect()] {
            let found = std::panic::catch_unwind(|| state_tables::assert_told(source, wrong.clone()));
            assert!(found.is_err(), "{wrong:?} is not what stands in {source}");
        }
    }
    assert_eq!(state_tables::read("//! | what | why |\n//! |---|---|\n//! | a | b |\n"), None);
}

#[test]
fn every_state_table_is_compared_with_its_code() {
    expect_none(tables::check(&Sources::read()));
}

#[test]
fn a_planted_state_table_without_a_test_is_found() {
    let table = with_table("//! | state | leaves to |\n//! |---|---|\n//! | a | b |\n//! | b | a |\n");
    let found = |path: &str, more: &str| {
        let mut sources = Sources::default();
        sources.add(Path::new(path), &(table.clone() + more));
        tables::check(&sources).len()
    };
    assert_eq!(found("worker/src/a.rs", ""), 1);
    let compares = "fn a() { crate::state_tables::assert_told(include_str!(\"a.rs\"), b); }\n";
    assert_eq!(found("worker/src/a.rs", &format!("fn b() {{ [A, B]; }}\n{compares}")), 1);
    assert_eq!(
        found("worker/src/a.rs", &format!("fn b() {{ crate::every_state!(S: A, B); }}\n{compares}")),
        0
    );
}
