//! The documents as a test: links lead to files and headings that are there, and the book's summary is complete.
//! Each rule is shown to find a planted violation, then it runs over the real documents.

use std::path::{Path, PathBuf};

use bulkhead_tests::tidy::book::{self, Documents};
use bulkhead_tests::tidy::{StyleFault, promises, root};

/// Fails with all violations, one a line.
fn expect_none(mut found: Vec<StyleFault>) {
    found.sort();
    let lines: Vec<String> = found.iter().map(StyleFault::to_string).collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

fn made_up(texts: &[(&str, &str)]) -> Documents {
    texts.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
}

/// What is wrong with the links of these documents, where `LICENSE` is the only other file.
fn links(texts: &[(&str, &str)]) -> Vec<String> {
    let found = book::links(&made_up(texts), |path| path == Path::new("LICENSE"));
    found.iter().map(StyleFault::to_string).collect()
}

fn summary(texts: &[(&str, &str)]) -> Vec<String> {
    book::summary(&made_up(texts)).iter().map(StyleFault::to_string).collect()
}

#[test]
fn links_lead_somewhere() {
    let documents = book::documents();
    assert!(documents.len() > 10, "the documents were not found");
    expect_none(book::links(&documents, |path| root().join(path).exists()));
}

#[test]
fn the_summary_lists_every_page_once() {
    expect_none(book::summary(&book::documents()));
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).ok();
    expect_none(promises::check(&read("README.md").unwrap(), read));
}

#[test]
fn a_promise_without_its_test_is_found() {
    let text = "\
#[test]
/// Held.
#[allow(unused)]
fn it_holds() {}

fn it_helps() {}

// #[test]
fn it_rests() {}
";
    let read = |path: &str| (path == "t/a.rs").then(|| text.to_owned());
    let check = |rows: &str| {
        let readme = format!("## Promises\n\n| promise | test |\n|---|---|\n{rows}\n## Next\n| x | y |\n");
        promises::check(&readme, read).iter().map(StyleFault::to_string).collect::<Vec<_>>()
    };
    assert_eq!(check("| One. | [a.rs](t/a.rs) `it_holds` |\n| Two. | `t/b.rs` |"), [""; 0]);
    assert_eq!(check("| One. | |"), ["README.md:5: this promise names no test file"]);
    assert_eq!(
        check("| One. | [b.rs](t/b.rs), [a.rs](t/a.rs) `it_holds`, `it_held` |"),
        ["README.md:5: t/a.rs has no test it_held"]
    );
    assert_eq!(check("| One. | [b.rs](t/b.rs) `it_holds` |"), ["README.md:5: t/b.rs has no test it_holds"]);
    for plain in ["it_helps", "it_rests"] {
        let found = check(&format!("| One. | [a.rs](t/a.rs) `{plain}` |"));
        assert_eq!(found, [format!("README.md:5: t/a.rs has no test {plain}")]);
    }
    assert_eq!(check(""), ["README.md: no table below ## Promises"]);
}

#[test]
fn a_planted_link_to_nothing_is_found() {
    for (text, fault) in [
        ("one\n[a](b.md)\n", "README.md:2: the link b.md leads to b.md, which is not there"),
        (
            "[a](LICENSE) [b](docs/c.md)",
            "README.md:1: the link docs/c.md leads to docs/c.md, which is not there",
        ),
        ("[a]: ./d.md \"title\"", "README.md:1: the link ./d.md leads to d.md, which is not there"),
        ("[a](../e.md)", "README.md:1: the link ../e.md leads out of the project"),
        ("# Here\n[a](#there)", "README.md:2: the link #there: README.md has no heading #there"),
        ("```\n# there\n```\n[a](#there)", "README.md:4: the link #there: README.md has no heading #there"),
        ("[a](LICENSE#top)", "README.md:1: the link LICENSE#top: LICENSE has no heading #top"),
    ] {
        assert_eq!(links(&[("README.md", text)]), [fault], "{text}");
    }
}

#[test]
fn a_page_of_the_book_does_not_link_out_of_it() {
    let pages =
        [("docs/src/a.md", "[b](sub/b.md) [l](../../LICENSE)"), ("docs/src/sub/b.md", "[a](../a.md)")];
    let fault = "the link ../../LICENSE leaves the book: write the path as code, without a link";
    assert_eq!(links(&pages), [format!("docs/src/a.md:1: {fault}")]);
}

#[test]
fn links_that_are_right_are_not_found() {
    let readme = "\
# The `exec` kind: files & *more*
## Twice
## Twice
[a](#the-exec-kind-files--more) [b](#twice-1) [c](docs/src/d.md#one_two-3) [e](LICENSE) [`f`](LICENSE)
[g](https://example.org/x.md#y) `[h](nothing.md)` [`Registry`] and `code[0](x)`

```rust
let text = \"[i](nothing.md)\";
```
";
    let wrong = links(&[("README.md", readme), ("docs/src/d.md", "### One_two 3?\n")]);
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_gap_in_the_summary_is_found() {
    let list = "# Summary\n\n[First](first.md)\n\n- [Second](sub/second.md)\n";
    let (first, second) = (("docs/src/first.md", "# First\n"), ("docs/src/sub/second.md", "# Second\n"));
    let with = |list| ("docs/src/SUMMARY.md", list);
    assert_eq!(summary(&[with(list), first, second, ("README.md", "")]), [""; 0]);
    assert_eq!(summary(&[with(list), first]), ["docs/src/SUMMARY.md:5: the page sub/second.md is not there"]);
    let third = ("docs/src/third.md", "# Third\n");
    assert_eq!(
        summary(&[with(list), first, second, third]),
        ["docs/src/third.md: the page is not in SUMMARY.md"]
    );
    let twice = format!("{list}- [First again](first.md)\n");
    assert_eq!(
        summary(&[with(&twice), first, second]),
        ["docs/src/SUMMARY.md:6: the page first.md is listed twice"]
    );
    assert_eq!(summary(&[first]), ["docs/src/SUMMARY.md: the book has no summary"]);
}
