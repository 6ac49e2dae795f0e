"""What the tests of the Python package share.

A test that starts an executor gets one from a fixture, which ends it; at the end of each test no daemon of this process may be left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkhead import Executor

PATIENCE = 60.0
"""Seconds after which a wait of a test has failed: generous, because machines are loaded."""


def wait_until(is_met: Callable[[], Any], what: str) -> Any:
    """Polls until the condition is true; its value."""
    until = time.monotonic() + PATIENCE
    while True:
        found = is_met()
        if found:
            return found
        assert time.monotonic() < until, f"waited {PATIENCE} s: {what}"
        time.sleep(0.005)


def written(path: Path, what: str) -> str:
    """The text of a file once a call has written some: there is an empty file before that."""
    return str(wait_until(lambda: path.exists() and path.read_text(), what))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


def children() -> list[int]:
    """The child processes of this process."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in found if is_alive(int(pid)) and not _is_resource_tracker(pid)]


def _is_resource_tracker(pid: str) -> bool:
    """Whether a process is the one that `multiprocessing` starts once and keeps."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each test no child of this process runs that did not run before."""
    before = children()
    yield
    try:
        wait_until(lambda: set(children()) <= set(before), "children of the test process are left")
    finally:
        left = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in set(children()) - set(before)]
        assert left == []


@pytest.fixture
def make() -> Iterator[Callable[..., Executor]]:
    """Makes executors that are ended after the test."""
    made: list[Executor] = []

    def make_one(max_workers: int | None = 2, *args: Any, **options: Any) -> Executor:
        made.append(Executor(max_workers, *args, **options))
        return made[-1]

    yield make_one
    for executor in made:
        executor.kill_workers()


@pytest.fixture
def executor(make: Callable[..., Executor]) -> Executor:
    """An executor with two workers."""
    return make()
