"""CPython's own tests of executors, run against ours: those that this interpreter comes with, and Debian's for the system's CPython 3.11.

What does not pass is declared below with a reason each; an entry that passes is a failure too. `cargo xtask setup` fetches Debian's
package of tests, and `cargo xtask test` says in `BULKHEAD_CPYTHON_TESTS` where it is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import bulkhead


class Declared(NamedTuple):
    """A test that does not pass."""

    methods: tuple[str, ...]
    """Under these start methods."""
    since: tuple[int, int]
    """Since this version of CPython."""
    why: str


BOTH = ("Fork", "Spawn")
DECLARED = {
    "ProcessPoolExecutorTest.test_killed_child": Declared(
        BOTH, (3, 10), "a kill fails one future and the executor goes on; strict_stdlib=True has the other way"
    ),
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": Declared(
        ("Spawn",), (3, 10), "all workers are started together, the standard library starts them one by one"
    ),
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": Declared(("Spawn",), (3, 10), "as the one before"),
    "ProcessPoolShutdownTest.test_processes_terminate": Declared(("Spawn",), (3, 10), "it counts the processes, as the one before"),
    "FailingInitializerTest.test_initializer": Declared(
        ("Fork",), (3, 10), "its arguments hold a queue that only a forked child inherits"
    ),
    "ProcessPoolExecutorTest.test_python_finalization_error": Declared(
        BOTH, (3, 13), "it replaces a private function by which the standard library starts processes"
    ),
}
"""By class and name. At most six on one version."""

SYSTEM = "/usr/bin/python3.11"
"""The interpreter of Debian's tests."""


class Suite(NamedTuple):
    """Tests, and the interpreter that they belong to."""

    name: str
    program: str
    version: tuple[int, int]
    modules: list[str]
    folder: str


def suites() -> list[Suite]:
    """The tests that there are for this interpreter."""
    version, found = sys.version_info[:2], []
    modules = own_modules()
    if modules:
        found.append(Suite("own", sys.executable, version, modules, ""))
    fetched = os.environ.get("BULKHEAD_CPYTHON_TESTS", "")
    if version == (3, 11) and fetched and os.path.exists(SYSTEM):
        found.append(Suite("debian", SYSTEM, version, ["test.test_concurrent_futures"], fetched))
    return found


def own_modules() -> list[str]:
    """The modules of the tests that this interpreter comes with."""
    try:
        found = importlib.util.find_spec("test.test_concurrent_futures")
    except ImportError:
        return []
    if found is None:
        return []
    if found.submodule_search_locations:
        names = ("as_completed", "deadlock", "init", "process_pool", "shutdown", "wait")
        return [f"test.test_concurrent_futures.test_{name}" for name in names]
    return ["test.test_concurrent_futures"]


def run(suite: Suite, folder: Path, *, only: str = "", is_strict: bool = False) -> tuple[dict[str, str], str]:
    """The outcome of each test by `CLASS.NAME`, and all that was printed."""
    # In each interpreter that the tests start, so that ours stands in the place of the standard library's there too.
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "if 'BULKHEAD_AS_STDLIB' in os.environ:\n"
        "    if os.environ['BULKHEAD_AS_STDLIB']:\n"
        "        import test; test.__path__.append(os.environ['BULKHEAD_AS_STDLIB'])\n"
        "    import stdlib_adapter; stdlib_adapter.install()\n"
    )
    if suite.program != sys.executable:
        (folder / "bulkhead").symlink_to(os.path.dirname(os.path.abspath(bulkhead.__file__)))
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), here]),
        "BULKHEAD_AS_STDLIB": suite.folder,
        "BULKHEAD_STRICT": "1" if is_strict else "",
    }
    runner, found, said = os.path.join(here, "stdlib_runner.py"), {}, ""
    # Beside each other: most of the tests wait.
    started = []
    for method in BOTH:
        with open(folder / f"said-{method}", "w") as file:
            command = [suite.program, runner, str(folder / method), method, only, *suite.modules]
            started.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file))
    try:
        for process in started:
            process.wait(560)
    finally:
        for process in started:
            process.kill()
            process.wait()
    for method in BOTH:
        said += (folder / f"said-{method}").read_text()
        assert (folder / method).exists(), said[-6000:]
        found.update(json.loads((folder / method).read_text()))
    return found, said


def declared(version: tuple[int, int]) -> set[str]:
    """What does not pass on this version, by `CLASS.NAME` as the tests have it."""
    entries = {name: entry for name, entry in DECLARED.items() if entry.since <= version}
    assert len(entries) <= 6
    return {f"ProcessPool{method}{name}" for name, entry in entries.items() for method in entry.methods}


needs_tests = pytest.mark.skipif(not suites(), reason="this interpreter comes without CPython's tests")


@needs_tests
@pytest.mark.parametrize("suite", suites(), ids=lambda suite: suite.name)
def test_cpythons_own_tests_pass_but_for_what_is_declared(suite: Suite, tmp_path: Path) -> None:
    outcomes, said = run(suite, tmp_path)
    assert len(outcomes) > 100, said[-3000:]
    wanted = declared(suite.version)
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert failed - wanted == set(), said[-12000:]
    passed = {name for name in wanted if outcomes.get(name) == "passed"}
    assert passed == set(), f"these pass: take them out of DECLARED: {passed}"


@needs_tests
@pytest.mark.parametrize("suite", suites(), ids=lambda suite: suite.name)
def test_a_killed_child_breaks_a_strict_executor(suite: Suite, tmp_path: Path) -> None:
    outcomes, said = run(suite, tmp_path, only="test_killed_child", is_strict=True)
    assert outcomes == {f"ProcessPool{method}ProcessPoolExecutorTest.test_killed_child": "passed" for method in BOTH}, said


def test_debians_tests_were_run() -> None:
    """Where they are missing, this says so."""
    if sys.version_info[:2] == (3, 11) and "debian" not in {suite.name for suite in suites()}:
        pytest.skip(f"no libpython3.11-testsuite was fetched, or {SYSTEM} is not there")
