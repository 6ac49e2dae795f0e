"""CPython's own tests of executors, run against ours, where this interpreter comes with them.

What does not pass is declared below with a reason each; an entry that passes is a failure too.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DECLARED = {
    "test_killed_child": "a kill fails one future and the executor goes on; strict_stdlib=True has the other way",
    "test_idle_process_reuse_one": "all workers are started together, the standard library starts them one by one",
    "test_idle_process_reuse_multiple": "as the one before",
    "test_processes_terminate": "it counts the processes, as the one before",
    "test_initializer": "of FailingInitializerTest under fork: its arguments hold a queue that only a forked child inherits",
    "test_python_finalization_error": "since 3.13: it replaces a private function by which the standard library starts processes",
}
"""Tests by name, of every start method, and why they do not pass."""

RUNNER = """
import sys, unittest
import stdlib_adapter
stdlib_adapter.install()
import importlib
suite = unittest.TestSuite()
for name in sys.argv[1:]:
    suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name)))
def cases(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite): yield from cases(test)
        else: yield test
chosen = unittest.TestSuite(test for test in cases(suite) if 'ProcessPool' in type(test).__name__ and 'Forkserver' not in type(test).__name__)
unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(chosen)
"""


def modules() -> list[str]:
    """The modules of the tests that this interpreter has."""
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


@pytest.mark.skipif(not modules(), reason="this interpreter comes without CPython's tests")
def test_cpythons_own_tests_pass_but_for_what_is_declared(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nif 'BULKHEAD_AS_STDLIB' in os.environ: import stdlib_adapter; stdlib_adapter.install()\n")
    (tmp_path / "runner.py").write_text("if __name__ == '__main__':\n" + "\n".join("    " + line for line in RUNNER.splitlines()))
    path = os.pathsep.join([str(tmp_path), os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "BULKHEAD_AS_STDLIB": "1"}
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "runner.py"), *modules()], env=environment, capture_output=True, text=True, timeout=560
    )
    (tmp_path / "output").write_text(ended.stdout + ended.stderr)
    # Lines of what the tests start stand between a test's name and its result, so only the list at the end is read.
    ran = re.search(r"^Ran (\d+) tests", ended.stdout, re.M)
    assert ran is not None and int(ran[1]) > 60, ended.stdout[-3000:] + ended.stderr[-3000:]
    failed = set(re.findall(r"^(?:FAIL|ERROR): (test_\w+)", ended.stdout, re.M))
    assert failed - set(DECLARED) == set(), ended.stdout[-6000:]
    known = set(re.findall(r"^(test_\w+) \(", ended.stdout, re.M))
    passed = {name for name in DECLARED if name in known} - failed
    assert passed == set(), f"these pass: take them out of DECLARED: {passed}"
