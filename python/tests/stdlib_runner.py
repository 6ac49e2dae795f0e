"""Runs CPython's own tests of process pools against our executor: `stdlib_runner.py OUTPUT METHOD NAME MODULE ...`.

METHOD is Fork or Spawn, NAME a part of the names of tests.

Writes what became of each test into a file as JSON: "passed", "failed" or "skipped" by `CLASS.NAME`. A program of its own, because it puts
our executor in the place of the standard library's. Driven by `test_stdlib.py`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import unittest
from collections.abc import Iterator
from typing import Any


class Recorder(unittest.TextTestResult):
    """Keeps the outcome of each test, and of what goes wrong between tests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.outcomes: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcomes[name_of(test)] = "passed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcomes[name_of(test)] = "skipped"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.outcomes[name_of(test)] = "failed"

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.outcomes[name_of(test)] = "failed"

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcomes[name_of(test)] = "failed"


def name_of(test: unittest.TestCase) -> str:
    """The class and the name; the whole description of what is no test."""
    method = getattr(test, "_testMethodName", None)
    return f"{type(test).__name__}.{method}" if method else str(test)


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests of a suite of suites."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def reach_scripts() -> None:
    """Lets the programs that tests start read the environment, and so the `sitecustomize.py` that puts our executor there."""
    from test.support import script_helper

    script_helper.interpreter_requires_environment = lambda: True
    script_helper.assert_python_ok("-c", "import concurrent.futures as cf; assert cf.ProcessPoolExecutor.__module__ == 'stdlib_adapter'")


def main() -> None:
    """Runs the tests, and writes the file."""
    import stdlib_adapter

    stdlib_adapter.install()
    reach_scripts()
    output, method, wanted, *modules = sys.argv[1:]
    # Forkserver begins as fork does.
    own = re.compile(f"ProcessPool{method}(?!server).*{wanted}")
    chosen = unittest.TestSuite()
    for name in modules:
        found = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name))
        chosen.addTests(test for test in cases(found) if own.match(name_of(test)))
    result: Any = unittest.TextTestRunner(verbosity=2, stream=sys.stdout, resultclass=Recorder).run(chosen)
    with open(output, "w") as file:
        json.dump(result.outcomes, file)


if __name__ == "__main__":
    main()
