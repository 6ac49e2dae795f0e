"""The source package: where no wheel fits, pip shows its words. Other systems are faked in the process that pip builds in.

`cargo xtask wheel` runs this file for the package that it has made (`BULKHEAD_SDIST`), without the rest of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "sdist"

FAKE = """
import sys
if any("_in_process" in word for word in sys.orig_argv):
    import glob, importlib.metadata, json, os, platform, shutil, subprocess, tempfile, traceback
    def refuse(name): raise ValueError("unrecognized configuration name")
"""


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    given = os.environ.get("BULKHEAD_SDIST")
    if given:
        return Path(given)
    made = subprocess.run([sys.executable, str(SOURCE / "make.py"), str(tmp_path), "1.2.3"], capture_output=True, text=True, check=True)
    return Path(made.stdout.strip())


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        ("sys.platform = 'darwin'", "bulkhead runs on Linux with glibc only, and this is macOS"),
        ("sys.platform = 'win32'", "bulkhead runs on Linux with glibc only, and this is Windows"),
        ("os.confstr = refuse", "bulkhead runs on Linux with glibc only, and this Linux has another C library (musl, as in Alpine)"),
        ("sys.implementation.name = 'pypy'", "bulkhead runs with CPython only, and this is pypy"),
        ("pass", "no wheel of bulkhead was taken for this machine ("),
    ],
)
def test_pip_shows_why_no_wheel_fits(sdist: Path, tmp_path: Path, fake: str, words: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"{FAKE}    {fake}\n")
    # Without isolation, so that the fake reaches the process of the build; nothing is downloaded.
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-index", "--no-deps", "--disable-pip-version-check"]
    ended = subprocess.run(
        [*command, "--target", str(tmp_path / "site"), str(sdist)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0 and words in said, said
    assert "Traceback" not in said, said
    assert not (tmp_path / "site").exists()


def test_it_is_named_as_the_package_and_holds_three_files(sdist: Path) -> None:
    name = sdist.name.removesuffix(".tar.gz")
    assert name.startswith("bulkhead-")
    with tarfile.open(sdist) as archive:
        assert archive.getnames() == [f"{name}/PKG-INFO", f"{name}/pyproject.toml", f"{name}/says_why.py"]
