//! The rules about libraries: their licences, their sources, and one version of each. The list of what they may be is
//! `deny.toml`, and nothing is allowed here that is not in it.
//!
//! It judges what [`super::library_graph`] found by what [`super::deny_list`] read, as cargo-deny would. Each exception of the list
//! must be needed and have a reason; what is no longer needed is a fault too. Reads nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use spdx::{Expression, Licensee, ParseMode};

use super::StyleFault;
use super::deny_list::{DenyList, FILE, LicenceRules, VersionRules};
use super::library_graph::BuiltPackage;

/// Runs every rule of this file.
pub fn check(list: &DenyList, packages: &[BuiltPackage]) -> Vec<StyleFault> {
    let mut found = licences(&list.licenses, packages);
    found.extend(duplicates(&list.bans, packages));
    found.extend(sources(list, packages));
    found.extend(reasons(list));
    found
}

fn fault(what: impl Into<String>) -> StyleFault {
    StyleFault::of_file(FILE, what)
}

/// A licence that every library may have, or one alone.
struct PermittedLicence<'a> {
    library: Option<&'a str>,
    licence: Licensee,
    /// Whether a library has it.
    used: bool,
}

/// Every package has a licence that is allowed, and every licence that is allowed is had by one.
fn licences(rules: &LicenceRules, packages: &[BuiltPackage]) -> Vec<StyleFault> {
    let (mut permitted, mut found) = permitted(rules);
    for package in packages {
        let is_allowed = |requirement: &spdx::LicenseReq| {
            let first = permitted.iter_mut().find(|one| {
                one.library.is_none_or(|library| library == package.name)
                    && one.licence.satisfies(requirement)
            });
            first.map(|one| one.used = true).is_some()
        };
        found.extend(licence(package, is_allowed).err().map(fault));
    }
    for PermittedLicence { library, licence, .. } in permitted.iter().filter(|one| !one.used) {
        let whose = library.map_or_else(String::new, |library| format!(" for {library}"));
        found.push(fault(format!("{licence} is allowed{whose}, and nothing needs it: take it out")));
    }
    found
}

/// The licences of the list, those of single libraries first, and what is wrong with the list.
fn permitted(rules: &LicenceRules) -> (Vec<PermittedLicence<'_>>, Vec<StyleFault>) {
    // SPDX's own names alone. One that SPDX has replaced may still be that of a library.
    let mode = ParseMode { allow_deprecated: true, ..ParseMode::STRICT };
    let single = rules.exceptions.iter().map(|one| (Some(one.library.as_str()), &one.allow));
    let (mut permitted, mut found) = (Vec::new(), Vec::new());
    for (library, names) in single.chain([(None, &rules.allow)]) {
        for name in names {
            match Licensee::parse_mode(name, mode) {
                Ok(licence) => permitted.push(PermittedLicence { library, licence, used: false }),
                Err(error) => {
                    found.push(fault(format!("{name} is no licence that SPDX knows: {}", error.reason)));
                }
            }
        }
    }
    (permitted, found)
}

/// Judges the licence of one package.
fn licence(package: &BuiltPackage, is_allowed: impl FnMut(&spdx::LicenseReq) -> bool) -> Result<(), String> {
    let BuiltPackage { name, version, licence, .. } = package;
    let Some(licence) = licence else {
        return Err(format!("{name} {version} names no licence in its manifest"));
    };
    // As crates.io accepts them: `MIT/Apache-2.0`, `LGPL-3.0+`.
    let expression = Expression::parse_mode(licence, ParseMode::LAX).map_err(|error| {
        format!("{name} {version}: its licence {licence} is no SPDX expression: {}", error.reason)
    })?;
    expression.evaluate_with_failures(is_allowed).map_err(|failures| {
        let failures: Vec<String> = failures.iter().map(|failure| failure.req.to_string()).collect();
        let failures = failures.join(", ");
        format!("{name} {version} is under {licence}: {failures} is not in `allow`, nor in its `exceptions`")
    })
}

/// There is one version of each package, those left out that are excepted.
fn duplicates(rules: &VersionRules, packages: &[BuiltPackage]) -> Vec<StyleFault> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let mut found = Vec::new();
    let mut left = versions.clone();
    for skip in &rules.skip {
        let (name, version) = skip.library.split_once('@').unwrap_or((&skip.library, ""));
        if versions.get(name).is_none_or(|all| all.len() < 2 || !all.contains(version)) {
            let what = "stands beside no other version, or is no name@version: take it out of `skip`";
            found.push(fault(format!("{} {what}", skip.library)));
        } else if let Some(all) = left.get_mut(name) {
            all.remove(version);
        }
    }
    for (name, versions) in left.iter().filter(|(_, versions)| versions.len() > 1) {
        let versions: Vec<&str> = versions.iter().copied().collect();
        found.push(fault(format!(
            "{name} is built in the versions {}: bring its users to one (`cargo tree --duplicates`), or add all but one to \
             `skip`, with a reason",
            versions.join(", ")
        )));
    }
    found
}

/// Every package is the project's own, or comes from a registry that is listed.
pub fn sources(list: &DenyList, packages: &[BuiltPackage]) -> Vec<StyleFault> {
    let registries = &list.sources.allow_registry;
    let strange = packages.iter().filter(|package| match package.source.as_deref() {
        None => !package.own,
        Some(source) => !source
            .strip_prefix("registry+")
            .is_some_and(|from| registries.iter().any(|registry| registry == from)),
    });
    strange
        .map(|package| {
            let source = package.source.as_deref().unwrap_or("a folder outside the workspace");
            let BuiltPackage { name, version, .. } = package;
            fault(format!("{name} {version} comes from {source}, which is not in `allow-registry`"))
        })
        .collect()
}

/// Every exception has a reason.
fn reasons(list: &DenyList) -> Vec<StyleFault> {
    let advisories = list.advisories.ignore.iter().map(|one| (&one.id, &one.reason));
    let versions = list.bans.skip.iter().map(|one| (&one.library, &one.reason));
    let silent = advisories.chain(versions).filter(|(_, reason)| reason.split_whitespace().count() < 3);
    silent
        .map(|(name, _)| fault(format!("{name} is excepted without a reason of at least three words")))
        .collect()
}
