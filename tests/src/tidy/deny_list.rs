//! `deny.toml`: what the libraries of the project may be. cargo-deny reads the same file.
//!
//! A key or a form that this file does not know is an error: cargo-deny would follow it, and the tests would not. What
//! only cargo-deny can check (advisories, yanked versions) is read for its form alone. Driven by the rules in
//! [`super::libraries`].

use serde::Deserialize;

/// The list's file.
pub const FILE: &str = "deny.toml";

/// The list as a whole.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyList {
    /// The systems whose libraries count.
    pub graph: CountedSystems,
    /// Known faults of libraries.
    pub advisories: AdvisoryRules,
    /// Their licences.
    pub licenses: LicenceRules,
    /// Two versions of one library.
    pub bans: VersionRules,
    /// Where they come from.
    pub sources: SourceRules,
}

/// `[graph]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedSystems {
    /// Target triples.
    pub targets: Vec<String>,
}

/// `[advisories]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdvisoryRules {
    /// Advisories that are accepted.
    pub ignore: Vec<AcceptedAdvisory>,
    /// Whose libraries without a maintainer are refused.
    pub unmaintained: AllOfThem,
    /// Whose unsound libraries are refused.
    pub unsound: AllOfThem,
    /// A version that its author withdrew.
    pub yanked: Refused,
    /// An accepted advisory that concerns no library.
    pub unused_ignored_advisory: Refused,
}

/// An advisory that is accepted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedAdvisory {
    /// Its name in the RustSec database.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// `[licenses]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LicenceRules {
    /// SPDX names of licences that every library may have.
    pub allow: Vec<String>,
    /// Licences that one library may have.
    pub exceptions: Vec<LicenceException>,
    /// Libraries of tests count.
    pub include_dev: Always,
    /// An allowed licence that no library has.
    pub unused_allowed_license: Refused,
    /// An exception that no library needs.
    pub unused_license_exception: Refused,
}

/// Licences that one library may have.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceException {
    /// The library.
    #[serde(rename = "crate")]
    pub library: String,
    /// SPDX names.
    pub allow: Vec<String>,
}

/// `[bans]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VersionRules {
    /// Two versions of one library.
    pub multiple_versions: Refused,
    /// Libraries of tests count.
    pub multiple_versions_include_dev: Always,
    /// A dependency on whatever version there is.
    pub wildcards: Refused,
    /// Packages of the project name each other without a version.
    pub allow_wildcard_paths: Always,
    /// Versions that may stand beside another one.
    pub skip: Vec<SkippedVersion>,
}

/// A version that may stand beside another one of the same library.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedVersion {
    /// `name@version`.
    #[serde(rename = "crate")]
    pub library: String,
    /// Why.
    pub reason: String,
}

/// `[sources]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SourceRules {
    /// A registry that is not listed.
    pub unknown_registry: Refused,
    /// A git repository that is not listed.
    pub unknown_git: Refused,
    /// The registries.
    pub allow_registry: Vec<String>,
}

/// The only level that the list may give: `"deny"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// It fails the check.
    Deny,
}

/// The only scope that the list may give: `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllOfThem {
    /// Of every library.
    All,
}

/// A switch that must be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "bool")]
pub struct Always;

impl TryFrom<bool> for Always {
    type Error = &'static str;

    fn try_from(on: bool) -> Result<Self, Self::Error> {
        on.then_some(Self).ok_or("must be true")
    }
}

impl DenyList {
    /// Reads the list.
    ///
    /// # Errors
    /// It is no TOML, a key is missing or unknown, or a value is one that the tests do not check.
    pub fn read(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}
