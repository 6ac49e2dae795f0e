"""Limits of a call, cancelling what runs, and what a call tells of itself."""

from __future__ import annotations

import concurrent.futures as cf
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import calls
import pytest
from conftest import is_alive, wait_until, written

import bulkhead
from bulkhead import Executor


def test_a_timeout(executor: Executor) -> None:
    short = executor.options(timeout=0.3)
    with pytest.raises(bulkhead.JobTimeout, match="300 ms") as caught:
        short.submit(calls.sleep, 1000).result()
    assert isinstance(caught.value, cf.TimeoutError)
    assert caught.value.certificate is not None
    # A worker has 5 ms to write its stacks, which a loaded machine may not give it.
    wait_until(lambda: "in sleep" in (stack_of(short.submit(calls.sleep, 1000)) or ""), "the stack is told")
    assert short.submit(calls.add, 1).result() == 2


def stack_of(future: bulkhead.Future[float]) -> str | None:
    error = future.exception()
    assert isinstance(error, bulkhead.JobTimeout)
    return error.python_traceback


def test_a_timeout_of_all_calls(make: Callable[..., Executor]) -> None:
    executor = make(1, timeout=0.3)
    assert isinstance(executor.submit(calls.sleep, 1000).exception(), bulkhead.JobTimeout)
    assert executor.options(timeout=None).submit(calls.sleep, 0.5).result() == 0.5


def test_a_timeout_of_code_that_holds_the_gil(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = executor.options(timeout=1).submit(calls.sleep_holding_the_gil, 1000, str(path))
    with pytest.raises(bulkhead.JobTimeout):
        future.result(60)
    worker, child = map(int, path.read_text().split())
    wait_until(lambda: not is_alive(worker) and not is_alive(child), "worker and child are gone")


def test_processor_time(executor: Executor) -> None:
    with pytest.raises(bulkhead.JobTimeout, match="processor time"):
        executor.options(cpu_time=0.3).submit(calls.burn, 1000).result()


def test_memory_is_the_calls_own_error(executor: Executor) -> None:
    small = executor.options(memory=200 << 20)
    with pytest.raises(MemoryError):
        small.submit(calls.take_memory, 1 << 30).result()
    assert small.submit(calls.take_memory, 1 << 20).result() == 1 << 20
    assert executor.submit(calls.take_memory, 300 << 20).result() == 300 << 20


def test_memory_that_the_daemon_sees(executor: Executor, tmp_path: Path) -> None:
    future = executor.options(memory=50 << 20).submit(calls.take_memory_for_good, str(tmp_path / "x"), 300 << 20)
    error = future.exception(60)
    assert isinstance(error, bulkhead.WorkerCrashed) and isinstance(error.__cause__, MemoryError), error


def test_options_are_checked_and_build_on_each_other(executor: Executor) -> None:
    view = executor.options(timeout=5, retries=1).options(memory=100 << 20)
    assert (view._options.timeout_ms, view._options.crashes_max, view._options.memory_bytes) == (5000, 2, 100 << 20)
    assert view.options(timeout=None)._options.timeout_ms is None
    with pytest.raises(ValueError, match="priority is 10"):
        executor.options(priority=10)
    view.shutdown()
    assert view.submit(calls.add, 1).result() == 2 and list(view.map(calls.add, [1])) == [2]


def test_priority(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, gate, path = make(1), str(tmp_path / "gate"), str(tmp_path / "runs")
    held = executor.submit(calls.wait_for, gate)
    wait_until(held.running, "it runs")
    # More than a worker is given ahead, so that the order is the daemon's.
    low = [executor.options(priority=0).submit(calls.note_and_return, path, 0) for _ in range(300)]
    high = executor.options(priority=9).submit(calls.note_and_return, path, 9)
    # The answer comes behind the submits: the daemon has them all before the worker is free.
    assert not high.running()
    Path(gate).touch()
    cf.wait([*low, high])
    assert "9" in Path(path).read_text().split()[:200]


def test_cancel_of_a_running_call(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = executor.submit(calls.sleep_holding_the_gil, 1000, str(path))
    worker, child = map(int, written(path, "it runs").split())
    assert future.running() and future.cancel() and future.cancelled() and future.cancel()
    with pytest.raises(cf.CancelledError):
        future.result()
    wait_until(lambda: not is_alive(worker) and not is_alive(child), "worker and child are gone")
    assert executor.submit(calls.add, 1).result() == 2


def test_cancel_of_a_waiting_call(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, gate, path = make(1), str(tmp_path / "gate"), tmp_path / "runs"
    held = executor.submit(calls.wait_for, gate)
    waiting = [executor.submit(calls.note_and_return, str(path), number) for number in range(10)]
    wait_until(held.running, "it runs")
    assert not waiting[5].running()
    called: list[cf.Future[int]] = []
    waiting[5].add_done_callback(called.append)
    assert waiting[5].cancel() and called == [waiting[5]]
    Path(gate).touch()
    assert [future.result() for future in waiting[:5] + waiting[6:]] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert "5" not in path.read_text().split()
    assert not waiting[0].cancel()


def test_a_grace(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path = make(1, cancel_grace=30), tmp_path / "state"
    future = executor.submit(calls.work_until_cancelled, str(path))
    wait_until(lambda: path.exists() and path.read_text() == "begun", "it runs")
    assert future.cancel() and future.cancelled()
    wait_until(lambda: path.read_text() == "ended by itself", "it has seen the cancel")
    assert not bulkhead.cancelled(), "outside of a call"


def test_strict_stdlib_leaves_a_running_call(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, gate = make(1, strict_stdlib=True), str(tmp_path / "gate")
    held = executor.submit(calls.wait_for, gate)
    waiting = executor.submit(calls.add, 1)
    wait_until(held.running, "it runs")
    assert not held.cancel() and waiting.cancel() and not held.done()
    Path(gate).touch()
    assert held.result() == gate


def test_progress_and_running(executor: Executor, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    future = executor.submit(calls.report, gate)
    assert wait_until(future.progress, "progress is told") == (3, 10)
    assert future.running()
    Path(gate).touch()
    future.result()
    assert not future.running() and future.progress() is None
    bulkhead.progress(1, 2)
    bulkhead.say("outside of a call nothing happens")


def test_ctrl_c_reaches_result_map_and_shutdown(make: Callable[..., Executor]) -> None:
    executor = make(2)
    executor.submit(calls.add, 1).result()

    class Pressed(Exception):
        pass

    def press(*_: object) -> None:
        raise Pressed

    before = signal.signal(signal.SIGALRM, press)
    try:
        futures = [executor.submit(calls.sleep, 1000)]
        waits: list[Callable[[], object]] = [
            lambda: futures[0].result(),
            lambda: futures[0].exception(),
            lambda: next(executor.map(calls.sleep, [1000])),
            lambda: cf.wait(futures),
            lambda: executor.shutdown(),
        ]
        for wait in waits:
            begun = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Pressed):
                wait()
            assert time.monotonic() - begun < 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_result_that_is_waited_for_by_many_threads(executor: Executor) -> None:
    future, found = executor.submit(calls.sleep, 0.3), []
    threads = [threading.Thread(target=lambda: found.append(future.result(60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    with pytest.raises(cf.TimeoutError):
        future.result(0.01)
    for thread in threads:
        thread.join()
    assert found == [0.3] * 8
