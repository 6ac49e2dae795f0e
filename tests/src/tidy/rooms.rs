//! The walls of the core: which room may name which, what of a room can be seen outside it, who may change anything.
//!
//! A room is a folder of `crates/core/src`. Owners write their own things and name `turn/` alone; `machine/` sees them
//! all; `view/` reads. The rules look at code, not at comments, and at paths wherever they are written, not at `use` alone.

use std::path::Path;

use super::source::{Source, is_of_word};
use super::{Sources, StyleFault};

/// Where the rooms are.
const CORE: &str = "crates/core/src/";
/// The rooms that write, each only its own things.
const OWNERS: [&str; 4] = ["job", "worker", "client", "account"];
/// All rooms.
const ROOMS: [&str; 7] = ["turn", "job", "worker", "client", "account", "machine", "view"];
/// The files beside the rooms: the words of the core, which every room may name.
const OUTSIDE: [&str; 4] = ["lib.rs", "event.rs", "action.rs", "config.rs"];
/// The file of a room whose fields are plain values that it takes and gives, and may be seen outside.
const VALUES: &str = "values.rs";
/// What lends a part of a room to a caller, who could change it.
const GUARDS: [&str; 6] = ["&mut", "RefMut<", "Ref<", "MutexGuard<", "RwLockWriteGuard<", "IterMut<"];

/// Runs every rule of this file.
pub fn check(sources: &Sources) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for (path, source) in sources.iter() {
        let Some(inside) = path.to_str().and_then(|path| path.strip_prefix(CORE)) else { continue };
        match inside.split_once('/') {
            None if !OUTSIDE.contains(&inside) => {
                found.push(StyleFault::of_file(path, format!("beside the rooms stand only {OUTSIDE:?}")));
            }
            None => check_paths(path, source, &ROOMS, "the words of the core know no room", &mut found),
            Some((room, file)) => check_room(path, source, (room, file), &mut found),
        }
    }
    found
}

fn check_room(path: &Path, source: &Source, (room, file): (&str, &str), found: &mut Vec<StyleFault>) {
    if !ROOMS.contains(&room) {
        return found.push(StyleFault::of_file(path, format!("{room}/ is no room: the rooms are {ROOMS:?}")));
    }
    let others: Vec<&str> = ROOMS.into_iter().filter(|other| *other != room).collect();
    let (banned, why): (Vec<&str>, &str) = match room {
        "turn" => (others, "a turn knows no room"),
        "machine" => (Vec::new(), ""),
        "view" => (vec!["machine"], "a view gets references and gives a reply"),
        _ => (others.into_iter().filter(|other| *other != "turn").collect(), "an owner names turn/ alone"),
    };
    check_paths(path, source, &banned, why, found);
    check_fields(path, source, file, found);
    if room == "view" {
        check_reading(path, source, found);
    }
    if OWNERS.contains(&room) || room == "turn" {
        check_returns(path, source, found);
    }
}

/// No path into one of these rooms, in test modules as little as elsewhere, and no path that hides one.
fn check_paths(path: &Path, source: &Source, banned: &[&str], why: &str, found: &mut Vec<StyleFault>) {
    if banned.is_empty() {
        return;
    }
    for (at, code) in source.code.iter().enumerate() {
        for room in banned {
            let wanted = format!("crate::{room}");
            let ends = |start: usize| !code[start + wanted.len()..].starts_with(is_of_word);
            if code.match_indices(&wanted).any(|(start, _)| ends(start)) {
                found.push(StyleFault::of_line(path, at + 1, format!("names {room}/: {why}")));
            }
        }
        // In a room's own mod.rs, `super` is the crate itself.
        let is_root = path.components().count() == 5 && path.ends_with("mod.rs") && !source.test[at];
        let root = if is_root { "super::" } else { "super::super" };
        for hidden in ["crate::{", "crate::*", root, "crate as ", "crate::self", "crate::Core"] {
            if code.contains(hidden) {
                let what = format!("{hidden} hides which room is named: write one path for each");
                found.push(StyleFault::of_line(path, at + 1, what));
            }
        }
    }
}

/// No field of a room can be seen outside its folder, but those of plain values.
fn check_fields(path: &Path, source: &Source, file: &str, found: &mut Vec<StyleFault>) {
    if file == VALUES {
        return;
    }
    for (at, code) in source.code.iter().enumerate() {
        let code = code.trim_start();
        if code.contains("struct ") && (code.contains("(pub(crate)") || code.contains("(pub ")) {
            found.push(StyleFault::of_line(
                path,
                at + 1,
                "a field without a name can be seen outside its room",
            ));
        }
        let Some(rest) = code.strip_prefix("pub(crate) ").or_else(|| code.strip_prefix("pub ")) else {
            continue;
        };
        let name: String =
            rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        if !name.is_empty() && rest[name.len()..].starts_with(':') && !rest[name.len()..].starts_with("::") {
            let what = format!(
                "field {name} can be seen outside its room: give a method, or move the type to {VALUES}"
            );
            found.push(StyleFault::of_line(path, at + 1, what));
        }
    }
}

/// No method that can be seen outside an owner lends a part of it to be changed.
fn check_returns(path: &Path, source: &Source, found: &mut Vec<StyleFault>) {
    for (at, result) in signatures(source) {
        if let Some(guard) = GUARDS.iter().find(|guard| result.contains(*guard)) {
            let what = format!("returns {guard}: an owner gives plain values, or references to be read");
            found.push(StyleFault::of_line(path, at + 1, what));
        }
    }
}

/// The results of the functions that other rooms can call, by the line, from 0, on which they begin.
fn signatures(source: &Source) -> Vec<(usize, String)> {
    let begins = |code: &str| {
        let code = code.trim_start();
        ["pub(crate) fn ", "pub fn ", "pub(crate) const fn ", "pub const fn "]
            .iter()
            .any(|start| code.starts_with(start))
    };
    let mut found = Vec::new();
    for (at, _) in source.code.iter().enumerate().filter(|(_, code)| begins(code)) {
        let mut signature = String::new();
        for code in &source.code[at..] {
            signature.push_str(code);
            signature.push(' ');
            if code.contains('{') || code.contains(';') {
                break;
            }
        }
        let head = signature.split('{').next().unwrap_or_default();
        let head = head.split(" where ").next().unwrap_or_default();
        if let Some((_, result)) = head.rsplit_once("->") {
            found.push((at, without_lifetimes(result)));
        }
    }
    found
}

/// `&'a mut Job` as `&mut Job`.
fn without_lifetimes(result: &str) -> String {
    let words = result.split_whitespace().map(|word| match word.split_once("&'") {
        Some((before, _)) => format!("{before}&"),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ").replace("& mut", "&mut")
}

/// A view changes nothing.
fn check_reading(path: &Path, source: &Source, found: &mut Vec<StyleFault>) {
    for (at, code) in source.code.iter().enumerate() {
        let takes = code.contains("fn ") || code.contains(": ");
        let lends = ["&mut self", ": &mut ", "<&mut ", "(&mut "].iter().any(|form| code.contains(form));
        let is_value = code.contains(" = ") || code.contains("let ");
        if takes && lends && !is_value || code.contains("mut self") && code.contains("&'") {
            found.push(StyleFault::of_line(path, at + 1, "a view takes references to be read"));
        }
    }
}
