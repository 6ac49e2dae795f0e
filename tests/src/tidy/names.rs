//! Names of types: each stands once over the workspace, so that a name that is read anywhere means one thing.
//!
//! Tests, benches and examples have names of their own. [`SHARED`] lists the few that stand more than once, each with its
//! reason.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Sources, StyleFault};

/// Names that may stand more than once: the name, by how the paths begin that may define it, and why.
pub const SHARED: [(&str, &[&str], &str); 1] = [(
    "Args",
    &["crates/cli/src/", "supervisor/src/"],
    "each verb and each program has its arguments, and nobody names another's",
)];

/// Runs the rule.
pub fn check(sources: &Sources) -> Vec<StyleFault> {
    let mut places: BTreeMap<String, Vec<(&Path, usize)>> = BTreeMap::new();
    for (path, source) in sources.iter().filter(|(path, _)| !sources.is_test(path) && !is_example(path)) {
        for (at, code) in source.code.iter().enumerate().filter(|(at, _)| !source.test[*at]) {
            if let Some(name) = defined(code) {
                places.entry(name.to_owned()).or_default().push((path, at + 1));
            }
        }
    }
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    twice.flat_map(|(name, places)| violations(name, places)).collect()
}

fn violations(name: &str, places: &[(&Path, usize)]) -> Vec<StyleFault> {
    let shared =
        SHARED.iter().find(|(shared, ..)| *shared == name).map_or(&[][..], |(_, folders, _)| *folders);
    let is_shared = |path: &Path| folders_hold(shared, path);
    let (first, _) = places[0];
    let others = places.iter().skip(1).filter(|(path, _)| !(is_shared(first) && is_shared(path)));
    let what = format!("type {name} stands in {} too: give it a name of its own", first.display());
    others.map(|(path, line)| StyleFault::of_line(path, *line, what.clone())).collect()
}

fn folders_hold(folders: &[&str], path: &Path) -> bool {
    path.to_str().is_some_and(|path| folders.iter().any(|folder| path.starts_with(folder)))
}

fn is_example(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "examples")
}

/// The type that a line defines, if it does.
fn defined(code: &str) -> Option<&str> {
    let mut words = code.split_whitespace().skip_while(|word| word.starts_with("pub") || *word == "unsafe");
    let kind = words.next()?;
    // An indented `type` is that of a trait or an impl.
    let is_alias = kind == "type" && !code.starts_with(' ');
    if !is_alias && !["struct", "enum", "trait", "union"].contains(&kind) {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(name.len());
    (end > 0 && name.starts_with(|letter: char| letter.is_uppercase())).then(|| &name[..end])
}
