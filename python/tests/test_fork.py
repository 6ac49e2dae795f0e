"""Forked children of a program with an executor: its executor is dead there, and lives on in the parent."""

from __future__ import annotations

import os
from collections.abc import Callable

import calls
import pytest

from bulkhead import Executor


def in_child(act: Callable[[], str]) -> str:
    """Forks, and gives what `act` returned or raised in the child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = act()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text


def shut(executor: Executor) -> str:
    executor.shutdown()
    return "shut"


pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_the_parents_executor_says_so(executor: Executor) -> None:
    future = executor.submit(calls.sleep, 0.5)
    assert "belongs to the parent of this forked process" in in_child(lambda: str(executor.submit(calls.add, 1)))
    assert "belongs to the parent of this forked process" in in_child(lambda: str(executor.map(calls.add, [1])))
    assert "belongs to the parent of this forked process" in in_child(lambda: str(future.result(5)))
    assert in_child(lambda: shut(executor)) == "shut"
    assert in_child(lambda: str(future.cancel())) == "True"
    assert future.result(60) == 0.5 and executor.submit(calls.add, 1).result() == 2


def test_a_child_makes_its_own(executor: Executor) -> None:
    executor.submit(calls.add, 1).result()

    def act() -> str:
        with Executor(1, spares=0) as own:
            return str(own.submit(calls.add, 41).result(60))

    assert in_child(act) == "42"
    assert executor.submit(calls.add, 1).result() == 2


def test_a_child_that_ends_in_order_does_not_end_the_parents(executor: Executor) -> None:
    import subprocess
    import sys

    script = (
        "import os, sys, calls\nfrom bulkhead import Executor\n"
        "executor = Executor(1, spares=0)\n"
        "executor.submit(calls.add, 1).result()\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "os.wait()\n"
        "print(executor.submit(calls.add, 1).result())\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout == "2\n"


def test_fork_processes_of_multiprocessing(executor: Executor) -> None:
    import multiprocessing

    executor.submit(calls.add, 1).result()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=calls.add, args=(1,))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and executor.submit(calls.add, 1).result() == 2
