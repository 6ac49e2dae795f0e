"""Initializers: in each worker before its first call; one that fails breaks the executor, as in the standard library."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import calls
import pytest

import bulkhead
from bulkhead import Executor

_state: list[Any] = []


def fill(*values: Any) -> None:
    _state.extend(values)


def state() -> tuple[int, list[Any]]:
    time.sleep(0.01)
    return os.getpid(), list(_state)


def fail() -> None:
    raise ValueError("no initializer today")


def use_queue(queue: Any, lock: Any) -> None:
    with lock:
        queue.put(os.getpid())


def hang() -> None:
    time.sleep(1000)


def test_it_runs_once_in_each_worker(make: Callable[..., Executor]) -> None:
    executor = make(2, initializer=fill, initargs=("a", 1))
    found = [future.result() for future in [executor.submit(state) for _ in range(40)]]
    assert {pid: content for pid, content in found} == {pid: ["a", 1] for pid, _ in found}
    executor.submit(calls.die, "kill").exception()
    assert executor.submit(state).result()[1] == ["a", 1]


def test_one_that_fails_breaks_the_executor(make: Callable[..., Executor]) -> None:
    executor = make(2, initializer=fail)
    futures = [executor.submit(calls.add, number) for number in range(10)]
    for future in futures:
        with pytest.raises(bulkhead.InitializerFailed, match="no initializer today"):
            future.result()
    with pytest.raises(bulkhead.InitializerFailed):
        executor.submit(calls.add, 1)


def test_one_that_hangs_meets_the_limit_of_the_call(make: Callable[..., Executor]) -> None:
    executor = make(1, initializer=hang, timeout=0.5)
    with pytest.raises(bulkhead.JobTimeout) as caught:
        executor.submit(calls.add, 1).result()
    # A loaded machine may not give the worker the time to write its stacks.
    assert caught.value.python_traceback is None or "in hang" in caught.value.python_traceback


def test_one_that_dies_is_the_calls_crash(make: Callable[..., Executor]) -> None:
    executor = make(1, initializer=os._exit, initargs=(5,))
    with pytest.raises(bulkhead.WorkerCrashed):
        executor.submit(calls.add, 1).result()


def test_queues_and_locks_in_initargs(make: Callable[..., Executor]) -> None:
    context = multiprocessing.get_context("spawn")
    queue, lock = context.Queue(), context.Lock()
    executor = make(2, initializer=use_queue, initargs=(queue, lock))
    workers = {future.result()[0] for future in [executor.submit(state) for _ in range(40)]}
    assert {queue.get(timeout=60) for _ in workers} == workers
    queue.close()


def test_one_that_cannot_be_pickled_is_told(make: Callable[..., Executor]) -> None:
    import threading

    with pytest.raises(TypeError, match="initializer"):
        make(1, initializer=calls.echo, initargs=(threading.Lock(),)).submit(calls.add, 1)


def test_tasks_of_a_worker_are_bounded(make: Callable[..., Executor]) -> None:
    executor = make(1, max_tasks_per_child=3)
    pids = [executor.submit(calls.pid).result() for _ in range(12)]
    assert len(set(pids)) == 4 and all(pids.count(pid) == 3 for pid in pids)
