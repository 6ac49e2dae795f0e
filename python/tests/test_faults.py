"""A call that kills its worker fails alone, with a certificate; nothing runs twice, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import calls
import pytest
from conftest import is_alive, wait_until, written

import bulkhead
from bulkhead import Executor

EVERY_WAY = ["kill", "segfault", "overflow", "exit", "exit0", "abort"]


@pytest.mark.parametrize("how", EVERY_WAY)
def test_one_call_of_two_hundred_dies_and_no_other(executor: Executor, tmp_path: Path, how: str) -> None:
    path, victim = str(tmp_path / "runs"), 100
    futures = [executor.submit(calls.die_at, path, how, number, victim) for number in range(200)]
    error = futures[victim].exception()
    assert isinstance(error, bulkhead.WorkerCrashed), error
    assert [future.result() for number, future in enumerate(futures) if number != victim] == [n for n in range(200) if n != victim]
    runs = Counter(Path(path).read_text().split())
    assert len(runs) == 200 and set(runs.values()) == {1}


def test_the_certificate_names_signal_and_address(executor: Executor) -> None:
    with pytest.raises(bulkhead.WorkerCrashed, match="SIGSEGV") as caught:
        executor.submit(calls.die, "segfault").result()
    error = caught.value
    assert error.certificate is not None
    death = error.certificate["deaths"][-1]
    assert "SIGSEGV" in str(error) and "0x8" in str(error), death
    assert error.python_traceback is not None and "in die" in error.python_traceback and "calls.py" in error.python_traceback
    assert "in die" in str(error)


def test_a_kill_has_no_stack_and_a_name(executor: Executor) -> None:
    error = executor.submit(calls.die, "kill").exception()
    assert isinstance(error, bulkhead.WorkerCrashed) and "SIGKILL" in str(error) and error.python_traceback is None


def test_last_words_are_in_the_certificate(executor: Executor) -> None:
    error = executor.submit(say_and_die).exception()
    assert isinstance(error, bulkhead.WorkerCrashed) and "row 7" in str(error.certificate)


def say_and_die() -> None:
    bulkhead.say("row 7 of the sheet")
    calls.die("kill")


def test_exit_codes_are_told(executor: Executor) -> None:
    assert "7" in str(executor.submit(calls.die, "exit").exception())


def test_retries_run_it_again(executor: Executor, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    again = executor.options(retries=2)
    assert isinstance(again.submit(calls.die_at, path, "kill", 1, 1).exception(), bulkhead.WorkerCrashed)
    assert Path(path).read_text().split() == ["1"] * 3
    assert again.submit(die_once, path + ".once").result() == "lived"


def die_once(path: str) -> str:
    if os.path.exists(path):
        return "lived"
    calls.note(path, "died")
    calls.die("kill")
    return "never"


def test_processes_that_it_started_die_with_it(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = executor.submit(calls.sleep_holding_the_gil, 1000, str(path))
    worker, child = map(int, written(path, "it runs").split())
    os.kill(worker, signal.SIGKILL)
    assert isinstance(future.exception(60), bulkhead.WorkerCrashed)
    wait_until(lambda: not is_alive(child), "its child is gone")


def test_a_fork_in_a_worker_does_not_disturb(executor: Executor) -> None:
    assert executor.submit(fork_and_wait).result() == 9
    assert executor.submit(calls.add, 1).result() == 2


def fork_and_wait() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_workers_that_are_killed_at_any_time_of_their_start(make: Callable[..., Executor]) -> None:
    executor = make(2, spares=1)
    futures = [executor.submit(calls.sleep, 0.01) for _ in range(60)]
    for _ in range(10):
        for row in executor._pool.workers():
            if row["state"] in ("starting", "idle", "spare") and row["pid"]:
                try:
                    os.kill(row["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    pass
                break
    for future in futures:
        assert future.exception(60) is None or isinstance(future.exception(), bulkhead.WorkerCrashed)
    assert executor.submit(calls.add, 1).result(60) == 2


def test_strict_stdlib_breaks_as_the_standard_library(make: Callable[..., Executor]) -> None:
    from concurrent.futures.process import BrokenProcessPool

    executor = make(2, strict_stdlib=True)
    with pytest.raises(BrokenProcessPool):
        executor.submit(calls.die, "kill").result()
    with pytest.raises(BrokenProcessPool):
        executor.submit(calls.add, 1)
