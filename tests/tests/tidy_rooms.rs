//! The walls of the core's rooms and the names of types, and that each rule bites: a planted violation is found.

use std::path::Path;

use bulkhead_tests::tidy::{Sources, StyleFault, names, rooms};

fn expect_none(found: &[StyleFault]) {
    let lines: Vec<String> = found.iter().map(StyleFault::to_string).collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

fn planted(files: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    for (path, text) in files {
        sources.add(Path::new(path), text);
    }
    sources
}

#[test]
fn rooms_have_walls() {
    expect_none(&rooms::check(&Sources::read()));
}

#[test]
fn type_names_stand_once() {
    expect_none(&names::check(&Sources::read()));
}

#[test]
fn a_breach_of_a_wall_is_found() {
    for (path, code) in [
        ("job/a.rs", "use crate::worker::Workers;"),
        ("worker/a.rs", "fn a(b: crate::job::Run) {}"),
        ("client/a.rs", "use crate::machine::Core;"),
        ("account/a.rs", "use crate::job::Jobs;"),
        ("job/a.rs", "use crate::{job::Run, turn::Turn};"),
        ("job/a.rs", "use super::super::worker::Workers;"),
        ("turn/a.rs", "use crate::job::Run;"),
        ("view/a.rs", "use crate::machine::Core;"),
        ("event.rs", "use crate::turn::Turn;"),
        ("pool.rs", "struct Pool;"),
        ("queue/a.rs", "struct Pool;"),
        ("job/a.rs", "struct A {\n    pub(crate) jobs: u32,\n}"),
        ("machine/a.rs", "struct A {\n    pub jobs: u32,\n}"),
        ("worker/a.rs", "pub(crate) fn a(&mut self) -> Option<&mut Worker> {"),
        ("client/a.rs", "pub(crate) fn a(\n    &mut self,\n    id: u32,\n) -> RefMut<'_, Client> {"),
        ("job/mod.rs", "use super::worker::Workers;"),
        ("job/a.rs", "fn a(core: &crate::Core) {}"),
        ("job/a.rs", "pub(crate) struct A(pub(crate) u32);"),
        ("worker/a.rs", "pub(crate) fn a<'a>(&'a mut self) -> &'a mut Worker {"),
        ("worker/a.rs", "pub(crate) fn a<F>(&mut self, f: F) -> &mut Worker where F: Fn() -> bool {"),
        ("view/a.rs", "fn a(jobs: Option<&mut Jobs>) {}"),
        ("view/a.rs", "fn a(&mut self) {}"),
        ("view/a.rs", "fn a(jobs: &mut Jobs) {}"),
        ("job/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::machine::Core;\n}"),
    ] {
        let sources = planted(&[(&format!("crates/core/src/{path}"), &format!("{code}\n"))]);
        let found = rooms::check(&sources);
        assert_eq!(found.len(), 1, "{code} in {path}: {found:?}");
    }
}

#[test]
fn what_a_wall_lets_through_is_not_found() {
    for (path, code) in [
        ("job/a.rs", "use crate::turn::Turn;\nuse crate::job::Run;\nuse crate::event::Event;"),
        ("job/a.rs", "//! See `crate::worker::Workers`.\nfn a() { b(\"crate::worker::\"); }"),
        ("machine/a.rs", "use crate::job::Run;\nuse crate::worker::Workers;\nuse crate::view::View;"),
        ("view/a.rs", "use crate::job::Jobs;\nfn a(&self) -> u32 { let mut b = &mut 1; *b }"),
        ("job/values.rs", "pub(crate) struct A {\n    pub(crate) jobs: u32,\n}"),
        (
            "job/a.rs",
            "struct A {\n    pub(super) jobs: u32,\n}\nimpl A {\n    fn own(&mut self) -> &mut u32 {",
        ),
        ("worker/a.rs", "pub(crate) fn a(&mut self, turn: &mut Turn) -> Option<&Worker> {"),
        ("lib.rs", "mod machine;\npub use machine::Core;"),
    ] {
        let sources = planted(&[(&format!("crates/core/src/{path}"), &format!("{code}\n"))]);
        expect_none(&rooms::check(&sources));
    }
}

#[test]
fn a_name_that_stands_twice_is_found() {
    let twice = [("proto/src/a.rs", "pub struct Stage {\n"), ("supervisor/src/a.rs", "enum Stage {\n")];
    assert_eq!(names::check(&planted(&twice)).len(), 1);
    let generic =
        [("proto/src/a.rs", "pub struct Ring<T>(T);\n"), ("worker/src/a.rs", "pub(crate) trait Ring {\n")];
    assert_eq!(names::check(&planted(&generic)).len(), 1);
    let own = [
        ("crates/cli/src/verb/a.rs", "pub struct Args {\n"),
        ("crates/cli/src/verb/b.rs", "pub struct Args {\n"),
        ("proto/src/a.rs", "pub struct Stage;\n#[cfg(test)]\nmod tests {\n    struct Held;\n}\n"),
        ("worker/src/a.rs", "struct Held;\n// struct Stage;\n"),
        ("worker/examples/a.rs", "struct Stage;\n"),
        ("link/src/a.rs", "impl A for B {\n    type Stage = u32;\n}\n"),
        ("tests/src/a.rs", "struct Stage;\n"),
    ];
    expect_none(&names::check(&planted(&own)));
    let strangers = [("crates/cli/src/a.rs", "struct Args;\n"), ("crates/sys/src/a.rs", "struct Args;\n")];
    assert_eq!(names::check(&planted(&strangers)).len(), 1);
}
