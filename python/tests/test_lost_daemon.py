"""A daemon that is lost: calls with `retries` run again, once all of its workers have ended, and maps go on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import calls
import numpy
import pytest
from conftest import is_alive, wait_until, written

import bulkhead
from bulkhead import Executor, _link, _lost_daemon, _private


def kill_daemon(executor: Executor) -> None:
    assert executor._pool._link is not None
    os.kill(executor._pool._link.daemon.pid, signal.SIGKILL)


@contextlib.contextmanager
def daemons_stop_after(go: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Meanwhile a lost daemon is not stopped before `go` is set, so its calls wait to be sent again."""
    usual = _private.PrivateDaemon.stop

    def stop(daemon: _private.PrivateDaemon, *args: Any, **options: Any) -> None:
        assert go.wait(60)
        usual(daemon, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(_private.PrivateDaemon, "stop", stop)
        yield


def runs(path: Path) -> Counter[str]:
    return Counter(path.read_text().split())


def test_calls_with_retries_run_again(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path, once = make(2), tmp_path / "runs", tmp_path / "once"
    again = executor.options(retries=1)
    gates = [str(tmp_path / f"gate{number}") for number in range(2)]
    futures = [again.submit(calls.note_and_wait, str(path), number, gate) for number, gate in enumerate(gates)]
    futures += [again.submit(calls.note_and_return, str(path), number) for number in range(2, 50)]
    without = executor.submit(calls.note_and_return, str(once), 1)
    wait_until(lambda: path.exists() and len(runs(path)) == 2, "two run")
    before = executor._pool._link
    kill_daemon(executor)
    assert isinstance(without.exception(60), bulkhead.Lost)
    for gate in gates:
        Path(gate).touch()
    assert [future.result(60) for future in futures] == [*range(50)]
    counts = runs(path)
    assert counts["0"] == counts["1"] == 2 and set(counts.values()) <= {1, 2} and not once.exists()
    assert executor._pool._link is not before
    assert not executor._pool.calls.sent and not executor._pool.lost._taken


def test_a_call_that_ends_each_daemon_runs_as_often_as_allowed(make: Callable[..., Executor], tmp_path: Path) -> None:
    path = tmp_path / "runs"
    future = make(1, retries=2, spares=0).submit(calls.note_and_kill_parent, str(path), 7, 7, 100)
    assert isinstance(future.exception(60), bulkhead.Lost)
    assert runs(path) == {"7": 3}


def test_none_runs_again_before_the_old_workers_have_ended(make: Callable[..., Executor], tmp_path: Path) -> None:
    path = tmp_path / "runs"
    assert make(1, retries=1).submit(calls.note_and_outlive, str(path)).result(60)
    assert path.read_text().split() == ["begun", "ended", "again"]


def test_without_proof_none_runs_again(make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lost_daemon, "PROOF_SECONDS", 0.3)
    paths, executor = [tmp_path / "of a call", tmp_path / "of a map"], make(1, retries=1)
    text = "not run again, because a worker of that daemon, or a process that it forked"
    try:
        with pytest.raises(bulkhead.Lost, match=text):
            executor.submit(calls.fork_and_kill_parent, str(paths[0])).result(60)
        assert executor.submit(calls.add, 1).result(60) == 2
        with pytest.raises(bulkhead.Lost, match=text):
            list(executor.map(calls.fork_and_kill_parent, [str(paths[1])], chunksize=10))
        # Each has run once.
        assert [len(path.read_text().split()) for path in paths] == [1, 1]
    finally:
        for path in filter(Path.exists, paths):
            os.kill(int(path.read_text().split()[0]), signal.SIGKILL)


@pytest.mark.parametrize("value", [b"x" * 10, b"x" * 100_000, numpy.arange(100_000)], ids=["short", "long", "buffers"])
def test_what_was_sent_is_sent_again(make: Callable[..., Executor], tmp_path: Path, value: Any) -> None:
    executor, gate = make(1, retries=1), str(tmp_path / "gate")
    executor.submit(calls.wait_for, gate)
    future, state = executor.submit(calls.echo, value), [1]
    changed = executor.submit(calls.echo, state)
    state.append(2)
    kill_daemon(executor)
    Path(gate).touch()
    assert numpy.array_equal(future.result(60), value)
    # As it was at the submit.
    assert changed.result(60) == [1]


def test_a_function_by_value_is_sent_again(make: Callable[..., Executor], tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    executor, gate, captured = make(1, retries=1), str(tmp_path / "gate"), list(range(10_000))
    executor.submit(calls.wait_for, gate)
    future = executor.submit(lambda: captured[-1])
    kill_daemon(executor)
    Path(gate).touch()
    assert future.result(60) == 9999


def test_a_call_is_cancelled_while_it_waits_to_be_sent_again(make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, path, go = make(1, retries=1), tmp_path / "runs", threading.Event()
    future = executor.submit(calls.note_and_wait, str(path), 1, str(tmp_path / "gate"))
    written(path, "it runs")
    with daemons_stop_after(go, monkeypatch):
        kill_daemon(executor)
        wait_until(lambda: executor._pool.lost._taken, "it waits")
        assert future.cancel()
        go.set()
        wait_until(lambda: not executor._pool.lost._taken, "it is dropped")
    assert executor.submit(calls.add, 1).result(60) == 2
    assert runs(path) == {"1": 1}


def test_a_call_is_cancelled_while_it_is_sent_again(make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, path, go = make(1, retries=1), tmp_path / "runs", threading.Event()
    future = executor.submit(calls.note_and_wait, str(path), 1, str(tmp_path / "gate"))
    written(path, "it runs")
    usual = executor._pool.calls.drop

    def drop(tokens: Any) -> None:
        go.set()
        wait_until(lambda: runs(path) == {"1": 2}, "it runs again")
        usual(tokens)

    with daemons_stop_after(go, monkeypatch):
        kill_daemon(executor)
        wait_until(lambda: executor._pool.lost._taken, "it waits")
        monkeypatch.setattr(executor._pool.calls, "drop", drop)
        assert future.cancel()
    assert executor.submit(calls.add, 1).result(60) == 2


def test_the_next_daemon_is_lost_while_calls_are_sent_again(make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, usual, sent = make(2, retries=5), _link.Link.submit_again, 0

    def submit_again(link: _link.Link, *args: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 50:
            kill_daemon(executor)
            wait_until(lambda: link.is_gone, "the next daemon is lost")
        usual(link, *args)

    monkeypatch.setattr(_link.Link, "submit_again", submit_again)
    gates = [tmp_path / f"gate{number}" for number in range(2)]
    futures = [executor.submit(calls.note_and_wait, str(tmp_path / "runs"), number, str(gate)) for number, gate in enumerate(gates)]
    futures += [executor.submit(calls.echo, number) for number in range(2, 500)]
    wait_until(lambda: (tmp_path / "runs").exists() and len(runs(tmp_path / "runs")) == 2, "two run")
    kill_daemon(executor)
    for gate in gates:
        gate.touch()
    assert [future.result(60) for future in futures] == [*range(500)]
    assert sent > 500 and not executor._pool.lost._taken


def test_what_waits_to_be_sent_again_is_cancelled_by_shutdown(
    make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, go = make(1, retries=1), threading.Event()
    futures = [executor.submit(calls.note_and_wait, str(tmp_path / "runs"), 0, str(tmp_path / "gate"))]
    futures += [executor.submit(calls.note_and_return, str(tmp_path / "runs"), number) for number in range(1, 20)]
    written(tmp_path / "runs", "one runs")

    with daemons_stop_after(go, monkeypatch):
        kill_daemon(executor)
        wait_until(lambda: len(executor._pool.lost._taken) == len(futures), "all wait")
        executor.shutdown(wait=False, cancel_futures=True)
        assert [future.cancelled() for future in futures] == [False] + [True] * 19
        (tmp_path / "gate").touch()
        go.set()
        assert futures[0].result(60) == 0
    assert runs(tmp_path / "runs") == {"0": 2}


def test_shutdown_waits_for_calls_that_run_again(make: Callable[..., Executor], tmp_path: Path) -> None:
    path, executor = tmp_path / "runs", make(1, retries=1)
    futures = [executor.submit(calls.note_and_kill_parent, str(path), number, 0, 1) for number in range(5)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == [*range(5)]
    assert runs(path)["0"] == 2


def test_a_done_callback_waits_for_a_call_that_runs_again(make: Callable[..., Executor], tmp_path: Path) -> None:
    path, executor, gate = tmp_path / "runs", make(1), str(tmp_path / "gate")
    lost, found = executor.submit(calls.wait_for, gate), []
    again = executor.options(retries=1).submit(calls.note_and_return, str(path), 5)
    lost.add_done_callback(lambda _: found.append(again.result(60)))
    kill_daemon(executor)
    assert isinstance(lost.exception(60), bulkhead.Lost)
    wait([again], 60)
    wait_until(lambda: found, "the callback has ended")
    assert found == [5]


def test_no_further_daemon_can_be_started(make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, gate = make(1, retries=1), str(tmp_path / "gate")
    futures = [executor.submit(calls.wait_for, gate) for _ in range(3)]
    found = executor.map(calls.wait_for, [gate] * 3)
    monkeypatch.setattr(_private, "supervisor_path", lambda: "/nowhere/bulkhead-supervisor")
    kill_daemon(executor)
    for future in futures:
        with pytest.raises(bulkhead.CannotStart, match="/nowhere"):
            future.result(60)
    with pytest.raises(bulkhead.CannotStart, match="/nowhere"):
        next(found)


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("size", [1, 4, 1000, "auto"])
def test_a_map_goes_on(make: Callable[..., Executor], tmp_path: Path, size: Any, retries: int) -> None:
    executor, path, count = make(2, retries=retries), tmp_path / "runs", 300
    items = range(count)
    found = executor.map(calls.note_and_kill_parent, [str(path)] * count, items, [50] * count, [1] * count, chunksize=size)
    results: list[Any] = []
    if retries:
        assert list(found) == [*items]
        assert runs(path)["50"] == 2
    elif size == 1:
        with pytest.raises(bulkhead.Lost):
            list(found)
        return
    else:
        with pytest.raises(bulkhead.Lost):
            while True:
                results.append(next(found))
        # Another worker may have been in the midst of an item before it.
        assert results == [*range(len(results))] and len(results) <= 50
    assert all(number in (1, 2) if retries else number == 1 for number in runs(path).values())


@pytest.mark.parametrize("size", [7, "auto"])
def test_the_items_that_never_began_are_not_lost(make: Callable[..., Executor], tmp_path: Path, size: Any) -> None:
    executor, path, count = make(1), tmp_path / "runs", 300
    found: Any = executor.map(calls.note_and_kill_parent, [str(path)] * count, range(count), [50] * count, [1] * count, chunksize=size)
    # It is a generator, which would end at the first error.
    kept = found.gi_frame.f_locals["results"]
    wait_until(lambda: len(kept.there) == count and all(kept.there), "each item has an end")
    values = [kept._values[index] for index in range(count)]
    assert [index for index, value in enumerate(values) if isinstance(value, bulkhead.Lost)] == [50]
    assert [value for value in values if not isinstance(value, bulkhead.Lost)] == [index for index in range(count) if index != 50]
    assert runs(path) == {str(index): 1 for index in range(count)}
    found.close()


def test_each_daemon_that_an_item_ends_costs_that_item_alone(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path, count, victims = make(1), tmp_path / "runs", 100, [10, 20, 30, 31]
    ended = [index if index in victims else -1 for index in range(count)]
    found: Any = executor.map(calls.note_and_kill_parent, [str(path)] * count, range(count), ended, [100] * count, chunksize=count)
    kept = found.gi_frame.f_locals["results"]
    wait_until(lambda: all(kept.there), "each item has an end")
    assert [index for index in range(count) if isinstance(kept._values[index], bulkhead.Lost)] == victims
    assert runs(path) == {str(index): 1 for index in range(count)}
    found.close()


def test_a_map_whose_item_ends_each_daemon_ends(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path = make(1, retries=1), tmp_path / "runs"
    with pytest.raises(bulkhead.Lost):
        list(executor.map(calls.note_and_kill_parent, [str(path)] * 20, range(20), [3] * 20, [100] * 20, chunksize=5))
    assert runs(path)["3"] == 2


def test_a_program_that_a_call_has_started_does_not_keep_it_from_running_again(make: Callable[..., Executor], tmp_path: Path) -> None:
    path, executor = tmp_path / "pid", make(1, retries=1)
    future = executor.submit(calls.start_program_and_kill_parent, str(path))
    try:
        assert future.result(60) == "again"
        assert is_alive(int(path.read_text()))
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)
