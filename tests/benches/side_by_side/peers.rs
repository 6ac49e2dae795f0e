//! The peers: Python's pools, run by the script beside this file.

use std::process::Command;
use std::sync::OnceLock;

/// Where Python finds what was installed for the bench alone.
static MODULES: OnceLock<String> = OnceLock::new();

/// Has Python look into this folder too.
pub(crate) fn look_in(folder: String) {
    MODULES.set(folder).expect("told once");
}

/// The figures of one verb of the script, or why there are none.
pub(crate) fn python(verb: &str, numbers: &[u64], core: Option<u32>) -> Result<Vec<(String, f64)>, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("peers.py");
    std::fs::write(&script, include_str!("peers.py")).expect("the script can be written");
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), "python3"]);
            command
        }
        None => Command::new("python3"),
    };
    command.arg(&script).arg(verb).args(numbers.iter().map(u64::to_string));
    if let Some(modules) = MODULES.get() {
        command.env("PYTHONPATH", modules);
    }
    let output = command.output().map_err(|error| format!("python3 cannot be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("python3 failed: {}", said.lines().last().unwrap_or("it said nothing")));
    }
    let found: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(found.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect())
}

/// One of the figures that a peer gave.
pub(crate) fn figure(found: &[(String, f64)], name: &str) -> Option<f64> {
    found.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}
