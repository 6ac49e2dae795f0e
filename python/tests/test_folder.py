"""The folder of a private daemon: where it lies, and what becomes of one that a killed program left."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead import _folder, _inherited
from bulkhead._private import DaemonSettings, _quoted


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    place = Path("/tmp") / f"bh{os.urandom(3).hex()}"
    place.mkdir()
    monkeypatch.setattr(_folder, "places", lambda: [str(place)])
    yield str(place)
    for left in place.iterdir():
        left.rmdir()
    place.rmdir()


def test_it_is_for_this_user_alone(place: str) -> None:
    folder = _folder.OwnFolder(place)
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700 and os.listdir(folder.path) == []
    path = folder.write("name", b"content")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and Path(path).read_bytes() == b"content"
    folder.remove()
    assert os.listdir(place) == []


def test_one_that_is_held_stays_and_one_that_is_not_goes(place: str) -> None:
    held, left = _folder.OwnFolder(place), _folder.OwnFolder(place)
    left.write("name", b"content")
    _inherited.close(left._lock)
    os.mkdir(os.path.join(place, "other"))
    _folder.remove_abandoned()
    assert sorted(os.listdir(place)) == sorted([os.path.basename(held.path), "other"])
    held.remove()


def test_a_link_is_no_folder(place: str, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    link = os.path.join(place, "bulkhead-py-link")
    os.symlink(tmp_path, link)
    _folder.remove_abandoned()
    assert (tmp_path / "kept").exists() and os.path.islink(link)
    os.unlink(link)


def test_a_place_that_is_no_place(place: str) -> None:
    with pytest.raises(OSError):
        _folder.OwnFolder("/proc/self")


def test_places_are_absolute_short_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "relative")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/1")
    found = _folder.places()
    assert found and all(os.path.isdir(place) and len(place) < 32 for place in found) and len(set(found)) == len(found)
    assert "relative" not in found


def test_the_configuration_is_toml() -> None:
    tomllib = pytest.importorskip("tomllib")
    program = 'a "quoted"\\ path\n\x7f é'
    made = DaemonSettings(3, 0, tasks_max=5, files_bytes_max=1 << 30).to_toml(program, ["-c", 'x = "\t"'])
    found = tomllib.loads(made)
    assert found["worker_program"] == program and found["worker_args"] == ["-c", 'x = "\t"']
    assert (found["workers"], found["spares"], found["recycle_tasks"]) == (3, 0, 5) and found["recycle_strict"]
    assert found["kinds"]["call"] == {"ring": 64, "crashes_max": 1}
    assert _quoted("é") == '"é"'
