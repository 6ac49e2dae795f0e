//! The book's reference pages against the code: the command line byte for byte, config keys with types, defaults and ranges,
//! exit codes both ways.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::process::Command;

use bulkhead_proto::client::places;
use bulkhead_proto::job::Policy;
use bulkhead_proto::kind;
use bulkhead_proto::worker::copies::MAX_BYTES_USUAL;
use bulkhead_supervisor::check_config;
use bulkhead_tests::daemon::binary;
use bulkhead_tests::reference::command_line::{Help, page};
use bulkhead_tests::reference::configuration::{Row, fields, rows, words};
use bulkhead_tests::tidy::{Sources, documents, root};

const COMMAND_LINE: &str = "docs/src/reference/command-line.md";
const CONFIGURATION: &str = "docs/src/reference/configuration.md";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The help text of a program, as wide as it gets.
fn help(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(binary(program));
    let output = command.args(arguments).arg("--help").env("COLUMNS", "110").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} --help failed");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_page_is_what_the_programs_say() {
    let overview = help("bulkhead", &[]);
    let verbs = documents::verbs(&overview);
    let verbs: Vec<(String, Help)> =
        verbs.into_iter().map(|verb| (verb.clone(), Help::read(&help("bulkhead", &[&verb])))).collect();
    let page = page(&Help::read(&overview), &verbs, &Help::read(&help("bulkhead-supervisor", &[])));
    for flag in verbs.iter().flat_map(|(_, help)| help.flags()) {
        assert!(page.contains(flag), "{flag} was lost on the way");
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(root().join(COMMAND_LINE), &page).unwrap();
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let is = std::fs::read_to_string(root().join(COMMAND_LINE)).unwrap_or_default();
    let same = lines(&is).iter().zip(lines(&page)).take_while(|(is, due)| *is == due).count();
    assert!(
        is == page,
        "{COMMAND_LINE}:{}: the programs' help says something else; BLESS=1 in the environment of this test writes the page",
        same + 1
    );
}

#[test]
fn a_help_text_is_read_whole() {
    let short = "\
Does it, and
more

Usage: x y [OPTIONS] <JOB>...

Arguments:
  <JOB>...  Jobs: numbers, or
            ranges

Options:
  -f, --follow         Go on
      --socket <PATH>  Socket

Examples:
  bulkhead y 17
  a | b

Moments are
UTC.
";
    let help = Help::read(short);
    assert_eq!((help.about.as_str(), help.usage.as_str()), ("Does it, and more", "x y [OPTIONS] <JOB>..."));
    assert_eq!(help.flags(), ["--follow", "--socket"]);
    assert_eq!(help.sections[0].1[0].paragraphs, ["Jobs: numbers, or ranges"]);
    let page = page(
        &Help::read("A\n\nUsage: x\n\nOptions:\n      --socket <PATH>  Socket\n"),
        &[("y".to_owned(), help)],
        &Help::read("D\n\nUsage: d\n"),
    );
    let verb = page.split_once("## bulkhead y\n").unwrap().1;
    assert!(verb.contains("- `-f, --follow`: Go on\n") && !verb.contains("--socket"), "{verb}");
    assert!(verb.contains("Examples:\n\n```text\nbulkhead y 17\na | b\n```\n\nMoments are UTC.\n"), "{verb}");
    let long = "\
A

Usage: x

Options:
      --when <WHAT>
          What to do

          Possible values:
          - wait: Wait
          - fail: End
          
          [default: wait]

Policy:
      --timeout <TIME>
          Wall time,
          such as 5s
";
    let help = Help::read(long);
    assert_eq!(
        help.sections[0].1[0].paragraphs,
        ["What to do", "Possible values:", "- wait: Wait", "- fail: End", "[default: wait]"]
    );
    assert_eq!(help.sections[1].0, "Policy");
    assert_eq!(help.sections[1].1[0].paragraphs, ["Wall time, such as 5s"]);
}

/// A table of the config file: the headings of its rows, the struct that it is read into, and a file with one key of it.
struct Table {
    of: fn(&Row) -> bool,
    file: &'static str,
    opening: &'static str,
    with: fn(&str) -> String,
}

const TABLES: [Table; 3] = [
    Table {
        of: |row| row.section != "Pools" && row.section != "Kinds",
        file: "supervisor/src/settings.rs",
        opening: "struct File {",
        with: |line| line.to_owned(),
    },
    Table {
        of: |row| row.section == "Pools",
        file: "supervisor/src/settings/pools.rs",
        opening: "struct OwnPool {",
        with: |line| format!("[pools.p]\n{line}\n[kinds.x]\npool = \"p\"\n"),
    },
    Table {
        of: |row| row.section == "Kinds",
        file: "supervisor/src/settings/kinds.rs",
        opening: "struct OwnKind {",
        with: |line| format!("[kinds.x]\n{line}\n"),
    },
];

/// Rows with the table that they belong to.
fn tables() -> Vec<(Row, &'static Table)> {
    let rows = rows(&read(CONFIGURATION));
    assert!(rows.len() > 50, "only {} rows were found", rows.len());
    let table = |row: &Row| TABLES.iter().find(|table| (table.of)(row)).unwrap();
    rows.into_iter().map(|row| (row.clone(), table(&row))).collect()
}

/// What the core is told by a config file, or why it is refused.
fn outcome(text: &str) -> Result<String, String> {
    check_config(text).map(|config| format!("{config:?}"))
}

#[test]
fn every_config_key_has_a_row_with_its_type() {
    let page = read(CONFIGURATION);
    for table in &TABLES {
        let code = read(table.file);
        let known = fields(&code, table.opening);
        let mut shown: Vec<Row> = rows(&page).into_iter().filter(|row| (table.of)(row)).collect();
        assert!(!known.is_empty(), "no {} in {}", table.opening, table.file);
        for (key, kind) in known {
            let Some(words) = words(kind) else {
                let heading = format!("## {}{}\n", key[..1].to_uppercase(), &key[1..]);
                assert!(
                    kind.starts_with("BTreeMap") && page.contains(&heading),
                    "{key}: {kind} has no words"
                );
                continue;
            };
            let at = shown.iter().position(|row| row.key == key);
            let row = shown.remove(at.unwrap_or_else(|| panic!("{CONFIGURATION}: {key} has no row")));
            let takes = row.takes.split(',').next().unwrap_or_default();
            assert_eq!(takes, words, "{CONFIGURATION}: the type of {key}");
            assert!(!row.meaning.is_empty(), "{CONFIGURATION}: {key} has no meaning");
        }
        let left: Vec<&str> = shown.iter().map(|row| row.key.as_str()).collect();
        assert!(left.is_empty(), "{CONFIGURATION}: {left:?} stand twice or are no keys of {}", table.file);
    }
}

/// Keys that only the shell of the daemon reads: what its code says where the key is left out.
fn default_in_code(row: &Row) -> Option<String> {
    let (key, default) = (&row.key, &row.default);
    let group =
        |constant: &str| format!("file.{key}.clone().unwrap_or_else(|| places::{constant}.to_owned())");
    match key.as_str() {
        "grace_seconds" | "clients_max" | "lend_after_seconds" => {
            Some(format!("file.{key}.unwrap_or({})", default.trim_matches('`')))
        }
        "worker_stdout" | "worker_stderr" => {
            let word = default.trim_matches(['`', '"']);
            let name = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
            Some(format!("file.{key}.unwrap_or(StreamSetting::{name})"))
        }
        "journal_keep_seconds"
        | "journal_keep_jobs_max"
        | "journal_keep_bytes_max"
        | "journal_queue_max"
        | "journal_queue_bytes_max" => Some(format!("file.{key}.unwrap_or({})", default.trim_matches('`'))),
        "copies_bytes_max" if *default == format!("`{MAX_BYTES_USUAL}`") => {
            Some(format!("file.{key}.unwrap_or(copies::MAX_BYTES_USUAL)"))
        }
        "group" if *default == format!("`{:?}`", places::GROUP) => Some(group("GROUP")),
        "admin_group" if *default == format!("`{:?}`", places::ADMIN_GROUP) => Some(group("ADMIN_GROUP")),
        _ => None,
    }
}

/// Another value than the default.
fn another(row: &Row, literal: &str) -> String {
    match literal {
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        "\"user\"" => "\"system\"".to_owned(),
        "\"inline\"" => "\"descriptor\"".to_owned(),
        "[]" => "[\"a\"]".to_owned(),
        "\"\"" | "\"default\"" => "\"other\"".to_owned(),
        number => {
            let number: u64 = number.parse().unwrap_or_else(|_| panic!("{}: default {number}", row.key));
            let is_most = row.range().1 == Some(number);
            (if is_most { number - 1 } else { number + 1 }).to_string()
        }
    }
}

#[test]
fn the_defaults_are_the_codes_own() {
    let journal = read("supervisor/src/settings/journal.rs").replace('_', "");
    let settings = read("supervisor/src/settings.rs");
    let in_words = [
        "workers",
        "lend_max",
        "one_user",
        "recycle_strict",
        "ring",
        "worker_program",
        "worker_args",
        "worker_env",
        "socket",
        "state",
        "journal_folder",
        "files_max",
        "files_bytes_max",
        "arena_bytes_max",
        "outputs_bytes_max",
    ];
    for (row, table) in tables() {
        let key = &row.key;
        let without = outcome(&(table.with)("")).unwrap();
        let with = |value: &str| outcome(&(table.with)(&format!("{key} = {value}")));
        match (row.literal(), row.default.as_str()) {
            (Some(_), _) if default_in_code(&row).is_some_and(|code| settings.contains(&code)) => {}
            // Long numbers are written with a sign between their thousands.
            (Some(_), _)
                if default_in_code(&row).is_some_and(|code| journal.contains(&code.replace('_', ""))) => {}
            (Some(literal), _) if key == "crashes_max" => {
                assert_eq!(literal, Policy::default().crash_budget().to_string())
            }
            (Some(literal), _) if key == "retries_max" => {
                assert_eq!(literal, Policy::default().retry_budget().to_string());
            }
            (Some(literal), _) if key == "pool" => assert_eq!(literal, format!("{:?}", kind::DEFAULT_POOL)),
            (Some(literal), _) => {
                assert!(with(literal).as_ref() == Ok(&without), "{key} = {literal} is not the default");
                let other = another(&row, literal);
                assert!(with(&other) != Ok(without), "{key} = {other} changes nothing: the test is blind");
            }
            (None, "none" | "the daemon's") => {
                let some = row.range().0.unwrap_or(1).to_string();
                assert!(with(&some) != Ok(without), "{key} = {some} changes nothing");
                assert!(with(&some).is_ok(), "{key} = {some} is refused");
            }
            (None, words) => {
                assert!(in_words.contains(&key.as_str()), "{key}: the default {words:?} is not tested");
            }
        }
    }
}

#[test]
fn the_ranges_are_the_codes_own() {
    let mut checked = 0;
    for (row, table) in tables() {
        let key = &row.key;
        let with = |value: u64| outcome(&(table.with)(&format!("{key} = {value}")));
        let (low, high) = row.range();
        for (inside, outside) in
            [(low, low.and_then(|low| low.checked_sub(1))), (high, high.map(|high| high + 1))]
        {
            if let Some(inside) = inside {
                // Workers of all pools together have a bound of their own.
                let refused = with(inside).err().filter(|error| !error.contains("of all pools together"));
                assert_eq!(refused, None, "{key} = {inside} is refused");
                checked += 1;
            }
            if let Some(outside) = outside {
                assert!(with(outside).is_err(), "{key} = {outside} is taken");
            }
        }
        if row.takes == "whole number" {
            assert!(with(0).is_ok(), "{key} = 0 is refused, so its range must be told");
        }
    }
    assert!(checked > 40, "only {checked} ends of ranges were found");
}

#[test]
fn the_sample_shows_the_same_defaults() {
    let sample = read("systemd/bulkhead.toml");
    let (top, tables_of_sample) = sample.split_once("#[pools.").unwrap();
    for (row, _) in tables() {
        let is_top = row.section != "Pools" && row.section != "Kinds";
        let text = if is_top { top } else { tables_of_sample };
        let opening = format!("#{} = ", row.key);
        let shown: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&opening)).collect();
        match row.literal() {
            // The sample is that of a system daemon.
            Some(_) if row.key == "mode" => assert!(text.contains("\nmode = \"system\"\n")),
            // Values in the tables of kinds are examples, as the sample says.
            Some(_)
                if !is_top
                    && ["usage", "summary", "files_in", "files_out", "pool"].contains(&row.key.as_str()) => {}
            Some(literal) => assert!(shown.contains(&literal), "{}: {shown:?}, not {literal}", row.key),
            None if ["socket", "state"].contains(&row.key.as_str()) => {
                let path = shown[0].trim_matches('"');
                assert!(row.default.contains(&format!("`{path}`")), "{}: {path}", row.key);
            }
            None => {}
        }
    }
    assert!(top.contains(&format!("#socket = {:?}\n", places::SYSTEM_SOCKET)));
}

#[test]
fn rows_of_a_page_are_read() {
    let page = "\
## One
| key | type | default | meaning |
|---|---|---|---|
| `a` | whole number, 1 to 5 | `2` | what |
## Two
| `b` | whole number, up to 7 | by `x` and `y` | what |
| `c` | whole number, 3 or more | none | what |
";
    let rows = rows(page);
    let told: Vec<_> =
        rows.iter().map(|row| (row.section.as_str(), row.key.as_str(), row.literal(), row.range())).collect();
    assert_eq!(
        told,
        [
            ("One", "a", Some("2"), (Some(1), Some(5))),
            ("Two", "b", None, (None, Some(7))),
            ("Two", "c", None, (Some(3), None)),
        ]
    );
    let code =
        "struct File {\n    /// Its: doc.\n    a: Option<u64>,\n    b: BTreeMap<String, X>,\n}\nother: u8,";
    assert_eq!(fields(code, "struct File {"), [("a", "u64"), ("b", "BTreeMap<String, X>")]);
    assert_eq!((words("u64"), words("BTreeMap<String, X>")), (Some("whole number"), None));
}

#[test]
fn the_exit_codes_are_the_codes_own() {
    let sources = Sources::read();
    let mut files = sources.iter().map(|(path, _)| path);
    let file = files.find(|path| path.starts_with("proto") && path.ends_with("exit.rs")).unwrap();
    let (code, page) = (read(file.to_str().unwrap()), read("docs/src/reference/exit-codes.md"));
    let mut codes: Vec<&str> = code
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": u8 = ")?.1.strip_suffix(';'))
        .collect();
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let shown: Vec<&str> = cells.filter(|cell| cell.bytes().all(|byte| byte.is_ascii_digit())).collect();
    codes.sort_unstable_by_key(|code| code.parse::<u8>().unwrap());
    assert_eq!(shown, codes);
}
