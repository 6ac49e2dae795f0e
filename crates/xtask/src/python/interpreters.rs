//! Finds the interpreters with which the Python package is tested: those of pyenv, else those of the system.
//!
//! Of each version one: the newest of pyenv's, or `python3.X` on PATH. Nothing is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The versions of CPython that the package is for and that are tested.
pub(crate) const VERSIONS: [&str; 4] = ["3.10", "3.11", "3.12", "3.13"];

/// One interpreter.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    pub(crate) version: &'static str,
    pub(crate) program: PathBuf,
}

/// The interpreter of each of [`VERSIONS`], if there is one.
pub(crate) fn all() -> Vec<Option<Interpreter>> {
    let of_pyenv = pyenv_versions();
    let find = |version: &&'static str| {
        let name = format!("python{version}");
        let newest =
            of_pyenv.iter().filter(|folder| is_of(folder, version)).max_by_key(|folder| patch(folder));
        let program = newest.map(|folder| folder.join("bin").join(&name)).into_iter().chain(on_path(&name));
        let program = program.into_iter().find(|program| works(program, version))?;
        Some(Interpreter { version, program })
    };
    VERSIONS.iter().map(find).collect()
}

/// The folders of pyenv's versions.
fn pyenv_versions() -> Vec<PathBuf> {
    let root = Command::new("pyenv").arg("root").stderr(Stdio::null()).output().ok();
    let root = root.filter(|output| output.status.success()).map(|output| output.stdout);
    let Some(root) = root.and_then(|text| String::from_utf8(text).ok()) else { return Vec::new() };
    let entries = std::fs::read_dir(Path::new(root.trim()).join("versions"));
    entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn is_of(folder: &Path, version: &str) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix(version)).is_some_and(|rest| rest.starts_with('.'))
}

fn patch(folder: &Path) -> u32 {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit('.').next().and_then(|patch| patch.parse().ok()).unwrap_or(0)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Whether it runs, is of this version, and can make virtual environments.
fn works(program: &Path, version: &str) -> bool {
    let code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
    let output = Command::new(program).args(["-I", "-c", code]).stderr(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == version)
}
