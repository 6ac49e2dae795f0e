"""Makes the source package: `make.py FOLDER VERSION`. It prints the path.

It holds no source, but the words for machines that no wheel fits (`says_why.py`). Driven by `cargo xtask wheel`.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

BUILD = """[build-system]
requires = []
build-backend = "says_why"
backend-path = ["."]

[project]
name = "bulkhead"
version = "{version}"
requires-python = ">=3.10"
"""
ABOUT = """Metadata-Version: 2.1
Name: bulkhead
Version: {version}
Summary: An Executor that does not break: for Linux with glibc only
Requires-Python: >=3.10
"""


def make(folder: Path, version: str) -> Path:
    """Writes the package of this version into the folder. The same version gives the same bytes inside of the compression."""
    path, name = folder / f"bulkhead-{version}.tar.gz", f"bulkhead-{version}"
    files = {
        "PKG-INFO": ABOUT.format(version=version).encode(),
        "pyproject.toml": BUILD.format(version=version).encode(),
        "says_why.py": Path(__file__).with_name("says_why.py").read_bytes(),
    }
    with tarfile.open(path, "w:gz") as archive:
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    return path


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), sys.argv[2]))
