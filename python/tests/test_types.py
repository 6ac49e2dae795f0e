"""The package under mypy's strict mode, and the types that its users see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import bulkhead

pytest.importorskip("mypy")


def run_mypy(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir=/dev/null", "--python-version=3.10", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_the_package_is_typed() -> None:
    assert run_mypy("-p", "bulkhead") == []


def test_users_see_the_types_of_their_functions() -> None:
    path = Path(__file__).parent / "typed_use.py"
    expected = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "  # " in line:
            expected[number] = line.split("  # ", 1)[1]
    found = {}
    for line in run_mypy(str(path)):
        match = re.match(r".*:(\d+): (error|note): (.*?)(  \[[a-z-]*\])?$", line)
        if match and ("Revealed type is" in line or match[2] == "error"):
            text = re.sub(r"Revealed type is \"(.*)\"", r"\1", match[3])
            text = re.sub(r"\b(builtins|typing|bulkhead\._future|_future|bulkhead)\.", "", text).replace("Union[", "Union[")
            found[int(match[1])] = text if match[2] == "note" else f"error: {text}"
    assert found == expected


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(bulkhead.__file__).parent / "py.typed").exists()
    assert set(bulkhead.__all__) <= set(dir(bulkhead))
    for name in bulkhead.__all__:
        assert getattr(bulkhead, name).__doc__, f"{name} has no docstring"
