"""Initializers: in each worker before its first call; one that fails breaks the executor, as in the standard library."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls
import pytest
from conftest import wait_until

import bulkhead
from bulkhead import Executor, _warm_up

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
    # Its module is loaded before, because that takes time too.
    executor = make(1, initializer=hang, timeout=0.5, preload=[__name__])
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


def note_pid(path: str) -> None:
    calls.note(path, f"begun {os.getpid()}")
    time.sleep(0.5)
    calls.note(path, f"ended {os.getpid()}")


def die_in_later_workers(path: str) -> None:
    """Ends any process but the first."""
    calls.note(path, str(os.getpid()))
    if len(Path(path).read_text().split()) > 1:
        os._exit(3)


def pids_of(executor: Executor, state: str) -> set[int]:
    return {row["pid"] for row in executor._pool.workers() if row["state"] == state}


def ended(path: Path) -> list[int]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith("ended")]


def test_a_worker_that_waits_runs_it_before_it_is_needed(make: Callable[..., Executor], tmp_path: Path) -> None:
    path = tmp_path / "log"
    executor = make(1, initializer=note_pid, initargs=(str(path),))
    first = executor.submit(calls.pid).result(60)
    for _ in range(3):
        # The next one is there, and has run it, before this one dies.
        spare = wait_until(lambda: pids_of(executor, "spare"), "a worker waits").pop()
        wait_until(lambda spare=spare: spare in ended(path), "it has run the initializer")
        assert isinstance(executor.submit(calls.die, "kill").exception(60), bulkhead.WorkerCrashed)
        assert executor.submit(calls.pid).result(60) == spare != first
        first = spare
    assert len(ended(path)) == len(set(ended(path)))


def test_it_runs_with_the_first_call_where_it_holds_descriptors(make: Callable[..., Executor], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue, lock = context.Queue(), context.Lock()
    executor = make(1, initializer=use_queue, initargs=(queue, lock))
    assert executor.submit(calls.pid).result(60) == queue.get(timeout=60)
    executor.submit(calls.die, "kill").exception(60)
    assert executor.submit(calls.pid).result(60) == queue.get(timeout=60)
    queue.close()


def test_a_slow_one_is_left_to_calls(make: Callable[..., Executor]) -> None:
    for seconds, is_early in [(0.0, True), (_warm_up.QUICK_SECONDS + 0.1, False)]:
        executor = make(1, spares=0, initializer=time.sleep, initargs=(seconds,))
        executor.submit(calls.pid).result(60)
        link = executor._pool.links.current
        assert link is not None and link.daemon.warm_up.has_begun
        names = os.listdir(link.daemon.folder.path)
        assert ("initializer" in names, "initializer.slow" in names) == (is_early, not is_early)


def test_one_that_ends_workers_that_wait_is_left_to_calls(make: Callable[..., Executor], tmp_path: Path) -> None:
    path = tmp_path / "pids"
    executor = make(1, initializer=die_in_later_workers, initargs=(str(path),))
    first = executor.submit(calls.pid).result(60)
    wait_until(lambda: len(path.read_text().split()) == 1 + _warm_up._OPEN_MAX, "several have tried it")
    wait_until(lambda: pids_of(executor, "spare") - set(map(int, path.read_text().split())), "one has not")
    assert executor.submit(calls.pid).result(60) == first
    executor.submit(calls.die, "kill").exception(60)
    # It is the call's crash then.
    assert isinstance(executor.submit(calls.pid).exception(60), bulkhead.WorkerCrashed)


def test_a_worker_that_waits_imports_what_the_first_call_has_imported(
    make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "log", f"slow{os.urandom(3).hex()}"
    (tmp_path / f"{name}.py").write_text(
        f"import os, sys, time\nif 'bulkhead.worker' in sys.modules:\n    time.sleep(0.5)\n    open({str(path)!r}, 'a').write(f'ended {{os.getpid()}}\\n')\n"
        "def call(): return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    executor = make(1)
    executor.submit(importlib.import_module(name).call).result(60)
    spare = wait_until(lambda: pids_of(executor, "spare"), "a worker waits").pop()
    wait_until(lambda: spare in ended(path), "it has imported the module")
    executor.submit(calls.die, "kill").exception(60)
    assert executor.submit(importlib.import_module(name).call).result(60) == spare
