"""The native half alone: its names are those of its stub, and what it refuses, it refuses in words."""

import ast
import os
import pathlib
import subprocess
import sys

import bulkhead
import pytest
from bulkhead import _native

STUB = pathlib.Path(bulkhead.__file__).with_name("_native.pyi")


def stub_names() -> dict[str, list[str]]:
    """The names of the stub that exist when the program runs, with those of each class."""
    names: dict[str, list[str]] = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names[node.name] = []
        elif isinstance(node, ast.ClassDef):
            names[node.name] = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if not (isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"):
                names[node.target.id] = []
    return names


def test_the_stub_names_what_there_is() -> None:
    there = {name for name in vars(_native) if not name.startswith("_")}
    assert set(stub_names()) == there
    for name, parts in stub_names().items():
        cls = getattr(_native, name)
        if isinstance(cls, type):
            own = {part for part in vars(cls) if not part.startswith("_")}
            assert own == {part for part in parts if not part.startswith("_")}, name


def test_a_file_in_memory_has_its_length_and_a_descriptor() -> None:
    file = _native.MemoryFile(5)
    assert (file.length, os.pwrite(file.fileno(), b"more bytes", 0), file.length) == (5, 10, 10)
    assert not os.get_inheritable(file.fileno())
    number = file.fileno()
    del file
    with pytest.raises(OSError):
        os.fstat(number)


def test_a_socket_without_a_daemon_is_named(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "nobody")
    with pytest.raises(ConnectionError, match=path):
        _native.Session(path, print)


def test_a_process_that_no_daemon_started_is_no_worker() -> None:
    code = "from bulkhead import _native\ntry: _native.take_lane()\nexcept OSError as error: print('refused', error)"
    said = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("refused"), said
