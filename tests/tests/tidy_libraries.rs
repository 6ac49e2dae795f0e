//! The libraries of the project are what `deny.toml` says: their licences, their sources, one version of each. Nothing
//! here uses the network, so only cargo-deny checks the advisories (`cargo xtask deny`). Each rule is shown to find a
//! planted fault.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::process::Command;

use bulkhead_tests::daemon::binary;
use bulkhead_tests::tidy::deny_list::{self, DenyList};
use bulkhead_tests::tidy::library_graph::{self, BuiltPackage};
use bulkhead_tests::tidy::{libraries, root};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn list() -> DenyList {
    DenyList::read(&read(deny_list::FILE)).unwrap_or_else(|error| panic!("{}: {error}", deny_list::FILE))
}

/// The packages of this project, as cargo tells them.
fn real(list: &DenyList) -> Vec<BuiltPackage> {
    let told = library_graph::metadata(&root(), &list.graph.targets);
    library_graph::packages(&told.unwrap_or_else(|error| panic!("cargo metadata: {error}"))).unwrap()
}

#[test]
fn the_libraries_are_what_the_list_says() {
    let list = list();
    let packages = real(&list);
    assert!(packages.iter().filter(|package| !package.own).count() > 50, "the libraries were not found");
    assert!(packages.iter().filter(|package| package.own).count() > 10, "the own packages were not found");
    let found: Vec<String> =
        libraries::check(&list, &packages).iter().map(|fault| format!("{fault}\n")).collect();
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.concat());
}

/// Also what is built on other systems alone, of which cargo tells nothing without the network.
#[test]
fn every_locked_package_comes_from_a_listed_registry() {
    let list = list();
    let locked = library_graph::locked(&read("Cargo.lock")).unwrap();
    assert!(locked.len() > 50, "the lock file has {} packages", locked.len());
    assert_eq!(libraries::sources(&list, &locked), []);
    let git = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"git+https://example.org/a#1\"\n";
    assert_eq!(libraries::sources(&list, &library_graph::locked(git).unwrap()).len(), 1);
}

/// The README's section about licences.
#[test]
fn the_own_licences_are_those_of_the_files() {
    let list = list();
    for package in real(&list).iter().filter(|package| package.own) {
        assert_eq!(package.licence.as_deref(), Some("MIT OR Apache-2.0"), "{}", package.name);
    }
    // The texts that the Rust project ships, but for the line of the copyright.
    let digest =
        |text: &str| -> String { Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect() };
    assert_eq!(
        digest(&read("LICENSE-APACHE")),
        "62c7a1e35f56406896d7aa7ca52d0cc0d272ac022b5d2796e7d6905db8a3636a"
    );
    let mit = read("LICENSE-MIT");
    let (copyright, terms) = mit.split_once("\n\n").unwrap();
    assert!(copyright.starts_with("Copyright (c) ") && copyright.lines().count() == 1, "{copyright}");
    assert_eq!(digest(terms), "23f18e03dc49df91622fe2a76176497404e46ced8a715d9d2b67a7446571cca3");
}

#[test]
fn the_worker_alone_contains_gmp() {
    let contains = |program: &str| {
        let bytes = std::fs::read(binary(program)).unwrap();
        String::from_utf8_lossy(&bytes).contains("__gmpz_")
    };
    assert!(contains("bulkhead-worker"), "the names of GMP are not found where it is");
    assert!(!contains("bulkhead") && !contains("bulkhead-supervisor"), "the README says they have no GMP");
}

/// The packages that a build of this package takes in with these flags.
fn built_for(package: &str, flags: &[&str]) -> Vec<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["tree", "--offline", "--locked", "--package", package]);
    cargo.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]).args(flags);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// `cargo test -p bulkhead-worker --no-default-features` builds such a worker and runs it.
#[test]
fn a_worker_of_own_kinds_alone_builds_neither_gmp_nor_the_built_in_kinds() {
    let with = built_for("bulkhead-worker", &[]);
    let without = built_for("bulkhead-worker", &["--no-default-features"]);
    let for_python = built_for("bulkhead-python", &[]);
    for package in ["gmp-mpfr-sys", "rug", "bulkhead-frames", "bulkhead-jobs", "fast_image_resize", "sha2"] {
        let is_in = |packages: &[String]| packages.iter().any(|known| known == package);
        assert!(is_in(&with), "{package} is not found where it is");
        assert!(!is_in(&without), "{package} is built for a worker without the feature builtin");
        assert!(!is_in(&for_python), "{package} is built for the Python package");
    }
    for packages in [without, for_python] {
        assert!(packages.iter().any(|package| package == "bulkhead-task"), "{packages:?}");
    }
}

const LIST: &str = r#"
[graph]
targets = ["x86_64-unknown-linux-gnu"]
[advisories]
unmaintained = "all"
unsound = "all"
yanked = "deny"
unused-ignored-advisory = "deny"
ignore = []
[licenses]
allow = ["MIT", "Unicode-3.0"]
exceptions = [{ crate = "big", allow = ["LGPL-3.0-or-later"] }]
include-dev = true
unused-allowed-license = "deny"
unused-license-exception = "deny"
[bans]
multiple-versions = "deny"
multiple-versions-include-dev = true
wildcards = "deny"
allow-wildcard-paths = true
skip = [{ crate = "old@0.9.0", reason = "its user waits for it" }]
[sources]
unknown-registry = "deny"
unknown-git = "deny"
allow-registry = ["https://github.com/rust-lang/crates.io-index"]
"#;

fn library(name: &str, version: &str, licence: &str) -> BuiltPackage {
    let (name, version) = (name.to_owned(), version.to_owned());
    BuiltPackage {
        name,
        version,
        licence: Some(licence.to_owned()),
        source: Some(REGISTRY.to_owned()),
        own: false,
    }
}

/// Libraries in which `LIST` has no fault.
fn good() -> Vec<BuiltPackage> {
    let own = BuiltPackage { source: None, own: true, ..library("own", "0.1.0", "MIT OR Apache-2.0") };
    vec![
        own,
        library("big", "1.0.0", "LGPL-3.0+"),
        library("old", "0.9.0", "Apache-2.0/MIT"),
        library("old", "1.0.0", "(MIT OR Apache-2.0) AND Unicode-3.0"),
        library("plain", "1.0.0", "Apache-2.0 WITH LLVM-exception OR MIT"),
    ]
}

/// The faults of these libraries beside the good ones.
fn planted(list: &str, more: &[BuiltPackage]) -> Vec<String> {
    let packages = [&good(), more].concat();
    let found = libraries::check(&DenyList::read(list).unwrap(), &packages);
    found.iter().map(ToString::to_string).collect()
}

/// There is one fault, and it says this.
fn says(found: &[String], what: &str) {
    assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:?}");
    assert!(found[0].starts_with("deny.toml: "), "{found:?}");
}

#[test]
fn a_planted_licence_is_found() {
    assert_eq!(planted(LIST, &[]), [""; 0]);
    for (licence, what) in [
        ("GPL-3.0-only", "new 1.0.0 is under GPL-3.0-only: GPL-3.0-only is not in `allow`"),
        ("MIT AND BSL-1.0", "MIT AND BSL-1.0: BSL-1.0 is not"),
        ("(MIT OR Apache-2.0) AND (Zlib OR ISC)", ": Apache-2.0, Zlib, ISC is not"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception is not"),
        ("MIT WITH Classpath-exception-2.0", "is not in `allow`"),
        ("LGPL-3.0-or-later", "LGPL-3.0-or-later is not in `allow`, nor in its `exceptions`"),
        ("Proprietary", "its licence Proprietary is no SPDX expression"),
        ("MIT OR", "is no SPDX expression"),
    ] {
        says(&planted(LIST, &[library("new", "1.0.0", licence)]), what);
    }
    let silent = BuiltPackage { licence: None, ..library("new", "1.0.0", "") };
    says(&planted(LIST, &[silent]), "new 1.0.0 names no licence");
}

#[test]
fn a_licence_that_nothing_needs_is_found() {
    let more = LIST.replace("\"Unicode-3.0\"", "\"Unicode-3.0\", \"Zlib\"");
    says(&planted(&more, &[]), "Zlib is allowed, and nothing needs it");
    let more =
        LIST.replace("{ crate = \"big\"", "{ crate = \"plain\", allow = [\"ISC\"] }, { crate = \"big\"");
    says(&planted(&more, &[]), "ISC is allowed for plain, and nothing needs it");
    let more = LIST.replace("\"Unicode-3.0\"", "\"Unicode-3.0\", \"Own-Words\"");
    says(&planted(&more, &[]), "Own-Words is no licence that SPDX knows");
}

#[test]
fn a_planted_duplicate_is_found() {
    says(&planted(LIST, &[library("plain", "2.0.0", "MIT")]), "plain is built in the versions 1.0.0, 2.0.0");
    says(&planted(LIST, &[library("old", "2.0.0", "MIT")]), "old is built in the versions 1.0.0, 2.0.0");
    for skip in ["plain@1.0.0", "gone@1.0.0", "old", "old@0.9"] {
        let first =
            format!("{{ crate = \"{skip}\", reason = \"it is like that\" }}, {{ crate = \"old@0.9.0\"");
        let list = LIST.replace("{ crate = \"old@0.9.0\"", &first);
        says(&planted(&list, &[]), &format!("{skip} stands beside no other version"));
    }
    says(&planted(&LIST.replace("its user waits for it", "so  what"), &[]), "old@0.9.0 is excepted without");
}

#[test]
fn a_planted_source_is_found() {
    let from = |source: Option<&str>| BuiltPackage {
        source: source.map(str::to_owned),
        ..library("new", "1.0.0", "MIT")
    };
    let git = "git+https://github.com/rust-lang/crates.io-index?rev=1#1";
    for strange in [git, "registry+https://example.org/index", "sparse+https://example.org/"] {
        says(
            &planted(LIST, &[from(Some(strange))]),
            &format!("new 1.0.0 comes from {strange}, which is not"),
        );
    }
    says(&planted(LIST, &[from(None)]), "comes from a folder outside the workspace");
}

#[test]
fn a_list_that_only_cargo_deny_would_follow_is_refused() {
    for (right, wrong) in [
        ("multiple-versions = \"deny\"", "multiple-versions = \"warn\""),
        ("unknown-git = \"deny\"", "unknown-git = \"allow\""),
        ("unmaintained = \"all\"", "unmaintained = \"workspace\""),
        ("include-dev = true", "include-dev = false"),
        ("skip = [", "skip-tree = []\nskip = ["),
        ("allow-registry =", "allow-git = []\nallow-registry ="),
        ("ignore = []", "ignore = [\"RUSTSEC-2025-0141\"]"),
        (", reason = \"its user waits for it\"", ""),
    ] {
        assert!(LIST.contains(right), "{right}");
        assert!(DenyList::read(&LIST.replacen(right, wrong, 1)).is_err(), "{wrong}");
    }
    let silent = LIST.replace("ignore = []", "ignore = [{ id = \"RUSTSEC-2025-0141\", reason = \"\" }]");
    says(&planted(&silent, &[]), "RUSTSEC-2025-0141 is excepted without a reason");
}

/// A package, as `cargo metadata` tells it. A dependency is `(name, rename, kind, optional)`.
fn told(name: &str, dependencies: &[(&str, Option<&str>, Option<&str>, bool)], features: &Value) -> Value {
    let dependencies: Vec<Value> = dependencies
        .iter()
        .map(|(name, rename, kind, optional)| {
            json!({ "name": name, "rename": rename, "kind": kind, "optional": optional })
        })
        .collect();
    let license = "MIT";
    json!({ "id": name, "name": name, "version": "1.0.0", "license": license, "source": REGISTRY,
            "dependencies": dependencies, "features": features })
}

/// Optional packages that no feature switches on are in no build, whatever `cargo metadata` lists.
#[test]
fn what_no_build_takes_in_is_left_out() {
    let features = json!({
        "std": ["weak?/std", "by-dep"], "by-dep": ["dep:by_dep"], "with": ["strong/std"], "off": ["dep:off"],
        "weak": ["dep:weak"], "strong": ["dep:strong"], "other-name": ["dep:other-name"],
    });
    let mid = told(
        "mid",
        &[
            ("always", None, None, false),
            ("at-build", None, Some("build"), false),
            ("tests-of-mid", None, Some("dev"), false),
            ("by_dep", None, None, true),
            ("strong", None, None, true),
            ("weak", None, None, true),
            ("off", None, None, true),
            ("renamed", Some("other-name"), None, true),
        ],
        &features,
    );
    let own = told("own", &[("mid", None, None, false), ("own-test", None, Some("dev"), false)], &json!({}));
    let others = [
        "always",
        "at-build",
        "tests-of-mid",
        "by_dep",
        "strong",
        "weak",
        "off",
        "renamed",
        "own-test",
        "alone",
    ];
    let edge = |name: &str| match name {
        "renamed" => json!({ "name": "other_name", "pkg": name }),
        _ => json!({ "name": name.replace('-', "_"), "pkg": name }),
    };
    let node = |id: &str, features: &[&str], to: &[&str]| json!({ "id": id, "features": features, "deps": to.iter().map(|to| edge(to)).collect::<Vec<_>>() });
    let mut packages = vec![own, mid];
    packages.extend(others.iter().map(|name| told(name, &[], &json!({}))));
    let mut nodes =
        vec![node("own", &[], &["mid", "own-test"]), node("mid", &["std", "by-dep", "with"], &others[..8])];
    nodes.extend(others.iter().map(|name| node(name, &[], &[])));
    let metadata =
        json!({ "packages": packages, "workspace_members": ["own"], "resolve": { "nodes": nodes } });
    let found = library_graph::packages(&metadata.to_string()).unwrap();
    let names: Vec<&str> = found.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["always", "at-build", "by_dep", "mid", "own", "own-test", "strong"]);
    assert!(found.iter().all(|package| package.own == (package.name == "own")));
}
