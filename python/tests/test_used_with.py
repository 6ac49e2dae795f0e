"""Beside what people use: logging, warnings, progress bars, coverage, pytest-xdist, and exit handlers of workers.

The page "You use ... with Python" says what to do for each. A library that is not installed skips its test.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import multiprocessing
import multiprocessing.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls
import pytest

from bulkhead import Executor


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the interpreter in a folder, with the modules of the tests beside what is there."""
    path = os.pathsep.join([str(folder), os.path.dirname(__file__)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    ended = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def log_to(queue: Any) -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(logging.handlers.QueueHandler(queue))


def log_and_add(number: int) -> int:
    logging.getLogger("work").info("item %d", number)
    return number + 1


def test_logging_through_a_queue(make: Callable[..., Executor]) -> None:
    queue: Any = multiprocessing.get_context("spawn").Queue()
    executor = make(2, initializer=log_to, initargs=(queue,))
    assert list(executor.map(log_and_add, range(10))) == list(range(1, 11))
    records = [queue.get(timeout=60) for _ in range(10)]
    assert sorted(record.getMessage() for record in records) == sorted(f"item {number}" for number in range(10))
    assert all(record.processName.startswith("SpawnProcess-") for record in records)
    queue.close()


def warn() -> str:
    warnings.warn("the sheet is old", UserWarning, stacklevel=1)
    return "went on"


def test_filters_of_warnings_are_set_by_the_initializer(make: Callable[..., Executor]) -> None:
    assert make(1, spares=0).submit(warn).result() == "went on"
    executor = make(1, spares=0, initializer=warnings.simplefilter, initargs=("error",))
    with pytest.raises(UserWarning, match="the sheet is old"):
        executor.submit(warn).result()


def test_a_warning_of_a_worker_is_on_standard_error(tmp_path: Path) -> None:
    ended = run(tmp_path, "-c", "import test_used_with\nfrom bulkhead import Executor\nwith Executor(1, spares=0) as e: e.submit(test_used_with.warn).result()")
    assert "UserWarning: the sheet is old" in ended.stderr


def test_a_progress_bar(executor: Executor) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    from concurrent.futures import as_completed
    from io import StringIO

    bar = StringIO()
    assert list(tqdm(executor.map(calls.add, range(50)), total=50, file=bar)) == list(range(1, 51))
    assert "50/50" in bar.getvalue()
    futures = [executor.submit(calls.add, number) for number in range(50)]
    assert sorted(future.result() for future in tqdm(as_completed(futures), total=50, file=bar)) == list(range(1, 51))


USED = """
def inside(number):
    if number > 2:
        return "large"
    return "small"
"""
PROGRAM = """
import used
from bulkhead import Executor
if __name__ == "__main__":
    with Executor(2) as executor:
        assert list(executor.map(used.inside, [1, 5])) == ["small", "large"]
"""


def test_coverage_of_workers_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    (tmp_path / "used.py").write_text(USED)
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / ".coveragerc").write_text("[run]\nparallel = true\npatch = subprocess\ninclude =\n    used.py\n    main.py\n")
    run(tmp_path, "-m", "coverage", "run", "main.py")
    run(tmp_path, "-m", "coverage", "combine", "-q")
    run(tmp_path, "-m", "coverage", "json", "-q", "-o", "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["files"]
    assert found["used.py"]["missing_lines"] == [] and found["main.py"]["missing_lines"] == []


def test_processes_of_xdist_have_executors_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "test_it.py").write_text(
        "import os, pytest, calls\nfrom bulkhead import Executor\n"
        "@pytest.mark.parametrize('number', range(6))\n"
        "def test_it(number):\n"
        "    with Executor(1, spares=0) as executor:\n"
        "        assert executor.submit(calls.add, number).result() == number + 1\n"
        "        assert isinstance(executor.submit(calls.die, 'kill').exception(), Exception)\n"
        "    assert 'PYTEST_XDIST_WORKER' in os.environ\n"
    )
    assert "6 passed" in run(tmp_path, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "test_it.py").stdout


def register(path: str) -> None:
    multiprocessing.util.Finalize(None, calls.note, args=(path, "finalized"), exitpriority=10)


def test_finalizers_of_multiprocessing_run_when_a_worker_leaves(make: Callable[..., Executor], tmp_path: Path) -> None:
    path = tmp_path / "left"
    executor = make(1, spares=0)
    executor.submit(register, str(path)).result()
    executor.shutdown()
    assert path.read_text() == "finalized\n"


def register_endless(path: str) -> int:
    import atexit

    atexit.register(calls.sleep, 1000, path)
    return os.getpid()


def test_an_exit_handler_that_hangs_is_cut_off(make: Callable[..., Executor], tmp_path: Path) -> None:
    from conftest import is_alive

    executor, path = make(1, spares=0), tmp_path / "begun"
    pid = executor.submit(register_endless, str(path)).result()
    executor.shutdown()
    assert path.read_text() == str(pid) and not is_alive(pid)


def fork_and_leave(path: str) -> int:
    """Leaves a process behind."""
    pid = os.fork()
    if pid == 0:
        calls.sleep(1000, path)
        os._exit(0)
    calls.wait_for(path)
    return pid


def test_what_a_call_leaves_behind_ends_with_its_worker(make: Callable[..., Executor], tmp_path: Path) -> None:
    from conftest import is_alive, wait_until

    executor = make(1, spares=0)
    pid = executor.submit(fork_and_leave, str(tmp_path / "pid")).result()
    assert is_alive(pid) and executor.submit(calls.add, 1).result() == 2
    executor.shutdown()
    wait_until(lambda: not is_alive(pid), "the process that was left is gone")
