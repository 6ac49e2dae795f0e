//! Every package that a build of the project may take in, as cargo tells them.
//!
//! `cargo metadata --locked --offline` resolves `Cargo.lock` without the network and changes nothing. It also names optional
//! packages that no feature switches on (`package?/feature` in a manifest is enough). They are left out here, as cargo
//! leaves them out of every build; a package may be one too many, but none that is built is missing. Knows nothing of
//! the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// A package of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuiltPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression.
    pub licence: Option<String>,
    /// Where it comes from; none of one that lies in a folder.
    pub source: Option<String>,
    /// Whether the project's workspace holds it.
    pub own: bool,
}

#[derive(Deserialize)]
struct CargoMetadata {
    packages: Vec<ToldPackage>,
    workspace_members: BTreeSet<String>,
    resolve: ToldGraph,
}

#[derive(Deserialize)]
struct ToldPackage {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<DeclaredDependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct DeclaredDependency {
    name: String,
    rename: Option<String>,
    kind: Option<String>,
    optional: bool,
}

#[derive(Deserialize)]
struct ToldGraph {
    nodes: Vec<GraphNode>,
}

#[derive(Deserialize)]
struct GraphNode {
    id: String,
    deps: Vec<GraphEdge>,
    features: Vec<String>,
}

#[derive(Deserialize)]
struct GraphEdge {
    name: String,
    pkg: String,
}

#[derive(Deserialize)]
struct LockFile {
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    source: Option<String>,
}

/// What `cargo metadata` tells of the workspace in this folder, for builds on these systems.
///
/// # Errors
/// Cargo's own words, if it cannot tell.
///
/// # Panics
/// If cargo cannot be started.
pub fn metadata(root: &Path, targets: &[String]) -> Result<String, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    for target in targets {
        cargo.args(["--filter-platform", target]);
    }
    let output = cargo.output().expect("cargo can be started where its tests run");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

/// The packages of a build, in the order of their names.
///
/// # Errors
/// The text is not what cargo tells.
pub fn packages(metadata: &str) -> Result<Vec<BuiltPackage>, serde_json::Error> {
    let told: CargoMetadata = serde_json::from_str(metadata)?;
    let packages: BTreeMap<&str, &ToldPackage> =
        told.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: BTreeMap<&str, &GraphNode> =
        told.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = told.workspace_members.iter().map(String::as_str).collect();
    while let Some(id) = open.pop() {
        let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else { continue };
        if reached.insert(id) {
            let own = told.workspace_members.contains(id);
            let taken = node.deps.iter().filter(|edge| {
                packages
                    .get(edge.pkg.as_str())
                    .is_none_or(|other| takes(package, own, &node.features, edge, &other.name))
            });
            open.extend(taken.map(|edge| edge.pkg.as_str()));
        }
    }
    let mut built: Vec<BuiltPackage> = reached
        .iter()
        .map(|id| {
            let package = packages[id];
            BuiltPackage {
                name: package.name.clone(),
                version: package.version.clone(),
                licence: package.license.clone(),
                source: package.source.clone(),
                own: told.workspace_members.contains(*id),
            }
        })
        .collect();
    built.sort();
    Ok(built)
}

/// The packages of `Cargo.lock` that come from somewhere, for builds on any system.
///
/// # Errors
/// The text is no lock file.
pub fn locked(text: &str) -> Result<Vec<BuiltPackage>, toml::de::Error> {
    let lock: LockFile = toml::from_str(text)?;
    let mut packages = lock.package;
    packages.retain(|package| package.source.is_some());
    let packages = packages.into_iter().map(|LockedPackage { name, version, source }| BuiltPackage {
        name,
        version,
        source,
        ..BuiltPackage::default()
    });
    Ok(packages.collect())
}

/// Whether a package with these features takes in another one, to which this edge leads.
fn takes(package: &ToldPackage, own: bool, features: &[String], edge: &GraphEdge, other: &str) -> bool {
    let declared = package.dependencies.iter().filter(|dependency| {
        dependency.name == other
            && dependency.rename.as_ref().is_none_or(|name| name.replace('-', "_") == edge.name)
            && (own || dependency.kind.as_deref() != Some("dev"))
    });
    let is_on = |dependency: &DeclaredDependency| {
        let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
        let (alone, with_feature) = (format!("dep:{name}"), format!("{name}/"));
        let switches = features.iter().filter_map(|feature| package.features.get(feature)).flatten();
        !dependency.optional
            || switches.into_iter().any(|switch| *switch == alone || switch.starts_with(&with_feature))
    };
    declared.into_iter().any(is_on)
}
