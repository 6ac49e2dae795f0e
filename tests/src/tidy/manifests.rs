//! The rules about packages: which may depend on which, and which alone may use a library.
//!
//! The arrows of the house stand here as a table. An arrow that is not in it is a violation, and so is a
//! package that the table does not know.

use std::path::{Path, PathBuf};

use super::StyleFault;

/// A package's folder, the packages of the project that it may depend on, and, if fixed, the libraries.
type Row = (&'static str, &'static [&'static str], Option<&'static [&'static str]>);

const ARROWS: [Row; 17] = [
    ("proto", &[], Some(&["bincode", "serde", "smallvec"])),
    ("crates/facts", &["proto"], Some(&["sha2"])),
    ("crates/core", &["facts", "proto"], Some(&["slab", "thin-vec"])),
    ("crates/sim", &["core", "facts", "proto"], Some(&[])),
    ("crates/sys", &[], None),
    ("crates/link", &["proto", "sys"], None),
    ("crates/journal", &["facts", "proto", "sys"], Some(&["rusqlite", "serde", "serde_json"])),
    ("crates/frames", &[], Some(&["bytemuck", "fast_image_resize", "serde"])),
    ("crates/task", &["proto"], Some(&[])),
    ("crates/jobs", &["frames", "proto", "sys", "task"], None),
    ("crates/client", &["proto", "sys"], None),
    ("crates/views", &["proto"], Some(&["serde", "serde_json"])),
    ("crates/cli", &["client", "frames", "proto", "views"], None),
    ("crates/xtask", &[], None),
    ("supervisor", &["core", "link", "sys", "proto"], None),
    ("python", &["client", "proto", "sys", "task", "worker"], Some(&["pyo3", "serde_json"])),
    ("worker", &["jobs", "link", "sys", "proto", "task"], None),
];

/// The packages that may depend on everything.
const TESTS: [&str; 2] = ["tests", "tests/fuzz"];

/// A library and the packages that alone may depend on it, for their tests too.
const OWNED: [(&str, &[&str]); 8] = [
    ("bincode", &["proto"]),
    ("ipc-channel", &["crates/link"]),
    ("rusqlite", &["crates/journal"]),
    ("nix", &["crates/sys"]),
    ("libc", &["crates/sys"]),
    ("signal-hook", &["crates/sys"]),
    ("pyo3", &["python"]),
    ("anyhow", &["supervisor", "worker", "crates/cli", "crates/xtask"]),
];

/// Packages without clock, files or threads: each has bans of its own in a `clippy.toml`.
const PURE: [&str; 8] = [
    "proto",
    "crates/facts",
    "crates/core",
    "crates/sim",
    "crates/frames",
    "crates/jobs",
    "crates/task",
    "crates/views",
];

/// Runs every rule of this file on the packages of the project.
///
/// # Panics
/// If a manifest cannot be read.
pub fn check(root: &Path) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for folder in packages(root) {
        let text =
            std::fs::read_to_string(root.join(&folder).join("Cargo.toml")).expect("a manifest is readable");
        found.extend(check_one(&folder.to_string_lossy(), &text));
    }
    for folder in PURE {
        let bans = std::fs::read_to_string(root.join(folder).join("clippy.toml")).unwrap_or_default();
        for ban in [
            "std::thread::sleep",
            "std::process::exit",
            "std::time::Instant::now",
            "std::collections::HashMap",
        ] {
            if !bans.contains(ban) {
                found.push(StyleFault::of_file(
                    format!("{folder}/clippy.toml"),
                    format!("does not ban {ban}"),
                ));
            }
        }
    }
    found
}

/// The folders that hold a package, from the root.
pub fn packages(root: &Path) -> Vec<PathBuf> {
    super::tree::files_below(root)
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml"))
        .filter_map(|path| path.parent()?.strip_prefix(root).ok().map(Path::to_owned))
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect()
}

/// Checks the manifest of one package.
///
/// # Panics
/// If it is no TOML.
pub fn check_one(folder: &str, text: &str) -> Vec<StyleFault> {
    let file = format!("{folder}/Cargo.toml");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let row = ARROWS.iter().find(|(name, ..)| *name == folder);
    if row.is_none() && !TESTS.contains(&folder) {
        return vec![StyleFault::of_file(file, "a package that the table of arrows does not know")];
    }
    let mut found = Vec::new();
    for name in names(&manifest, "dependencies") {
        let Some((_, inner, libraries)) = row else { continue };
        let wrong = match name.strip_prefix("bulkhead-") {
            Some(package) => !inner.contains(&package),
            None => libraries.is_some_and(|known| !known.contains(&name.as_str())),
        };
        if wrong {
            found.push(StyleFault::of_file(&file, format!("may not depend on {name}")));
        }
    }
    for name in ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .flat_map(|kind| names(&manifest, kind))
    {
        if let Some((_, owners)) = OWNED.iter().find(|(library, _)| *library == name)
            && !owners.contains(&folder)
        {
            found
                .push(StyleFault::of_file(&file, format!("only {} may depend on {name}", owners.join(", "))));
        }
    }
    found
}

fn names(manifest: &toml::Table, kind: &str) -> Vec<String> {
    manifest
        .get(kind)
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default()
}
