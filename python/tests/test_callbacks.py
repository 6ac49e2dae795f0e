"""Done callbacks: they run once each, and may do what other code may: ask for results, cancel, and end the executor."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from concurrent.futures import TimeoutError as cf_timeout
from pathlib import Path
from typing import Any

import calls
import pytest
from conftest import wait_until, written
from test_surroundings import environment

import bulkhead
from bulkhead import Executor
from bulkhead._chunks import _LOOKS_SECONDS
from bulkhead._events import EventReader
from bulkhead._future import Future, complete
from bulkhead._link import Link


@pytest.fixture(params=["told-by-a-waiter", "told-in-background"])
def in_callback(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Executor, Callable[[], Any]], Any]:
    """Runs something in a done callback of a call of this executor, on the thread that passes results on; what it gave or raised."""
    gate = str(tmp_path / "gate of the callback")

    def run(executor: Executor, act: Callable[[], Any]) -> Any:
        found: list[Any] = []
        ended = threading.Event()

        def callback(_: Any) -> None:
            try:
                found.append(act())
            except BaseException as error:
                found.append(error)
            ended.set()

        future = executor.submit(calls.wait_for, gate)
        future.add_done_callback(callback)
        if request.param == "told-by-a-waiter":
            opener = threading.Timer(0.05, Path(gate).touch)
            opener.start()
            assert future.result(60) == gate
            opener.join()
        else:
            Path(gate).touch()
        assert ended.wait(60), "the callback has not ended"
        return found[0]

    return run


def test_it_waits_for_another_result(executor: Executor, in_callback: Any) -> None:
    assert in_callback(executor, lambda: executor.submit(calls.add, 41).result(60)) == 42
    assert executor.submit(calls.add, 1).result(60) == 2


def test_it_waits_with_many_calls_under_way(executor: Executor, in_callback: Any) -> None:
    def act() -> int:
        futures = [executor.submit(calls.add, number) for number in range(50)]
        return sum(future.result(60) for future in futures)

    assert in_callback(executor, act) == sum(range(1, 51))


@pytest.mark.parametrize("count", [50, 1500])
def test_it_waits_by_wait_and_as_completed(executor: Executor, in_callback: Any, tmp_path: Path, count: int) -> None:
    gate = str(tmp_path / "gate")

    def act() -> list[int]:
        futures = [executor.submit(calls.add, number) for number in range(count)]
        held = executor.submit(calls.wait_for, gate)
        found = sorted(future.result(0) for future in as_completed(futures, 60))
        assert wait([held, futures[0]], 60, FIRST_COMPLETED).not_done == {held}
        assert wait([held], 0.01).not_done == {held}
        Path(gate).touch()
        assert wait([held], 60).done == {held}
        return found

    assert in_callback(executor, act) == [*range(1, count + 1)]
    assert executor.submit(calls.add, 1).result(60) == 2


def test_all_are_cancelled_while_as_completed_gives_them(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor = make(3)
    done = [executor.submit(calls.add, number) for number in range(3)]
    wait(done, 60)
    futures = [*done, *(executor.submit(calls.wait_for, str(tmp_path / "gate")) for _ in range(3))]
    found = []
    for future in as_completed(futures, 60):
        found.append(future)
        for other in futures:
            other.cancel()
    assert len(found) == 6 and set(found) == set(futures)
    assert [future.cancelled() for future in futures] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 7}, {"buffersize": 3}, {"chunksize": 1, "buffersize": 3}])
def test_it_iterates_over_a_map(executor: Executor, in_callback: Any, options: dict[str, Any]) -> None:
    assert in_callback(executor, lambda: list(executor.map(calls.add, range(100), timeout=60, **options))) == [*range(1, 101)]
    assert executor.submit(calls.add, 1).result(60) == 2


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 2}, {"buffersize": 1}])
def test_the_time_of_its_map_is_over(executor: Executor, in_callback: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    gate = str(tmp_path / "gate")

    def act() -> list[str]:
        # No limit of time of the calls: what hangs is ended by the test.
        return list(executor.map(calls.wait_for, [gate] * 3, timeout=0.3, **options))

    assert isinstance(in_callback(executor, act), cf_timeout)
    wait_until(lambda: not executor._pool.pending, "the rest is cancelled")
    assert executor.submit(calls.add, 1).result(60) == 2


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"chunksize": 2}])
def test_its_map_hears_of_the_end_until_its_time_is_over(executor: Executor, in_callback: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """The end comes when the map has looked for what is there of a chunk, and does so no more before its time is over."""
    gate = tmp_path / "a gate"
    opener = threading.Timer(_LOOKS_SECONDS * 2, gate.touch)

    def act() -> list[str]:
        opener.start()
        return list(executor.map(calls.wait_for, [str(gate)], timeout=60, **options))

    assert in_callback(executor, act) == [str(gate)]
    opener.join()


def test_it_asks_whether_a_call_runs(executor: Executor, in_callback: Any, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    other = executor.submit(calls.wait_for, gate)
    wait_until(other.running, "it runs")
    assert in_callback(executor, other.running) is True
    Path(gate).touch()
    assert other.result(60) == gate


def test_it_cancels(make: Callable[..., Executor], in_callback: Any, tmp_path: Path) -> None:
    executor, path = make(2), tmp_path / "pid"
    running = executor.submit(calls.sleep, 1000, str(path))
    written(path, "it runs")
    assert in_callback(executor, running.cancel) is True
    assert running.cancelled() and executor.submit(calls.add, 1).result(60) == 2


def test_it_cancels_strictly(make: Callable[..., Executor], in_callback: Any, tmp_path: Path) -> None:
    executor, gate = make(2, strict_stdlib=True), str(tmp_path / "gate")
    running = executor.submit(calls.wait_for, gate)
    wait_until(running.running, "it runs")

    def act() -> tuple[bool, bool]:
        blocked = executor.submit(calls.wait_for, gate)
        wait_until(blocked.running, "both workers are busy")
        waiting = executor.submit(calls.add, 1)
        return running.cancel(), waiting.cancel()

    assert in_callback(executor, act) == (False, True)
    Path(gate).touch()
    assert running.result(60) == gate


def test_it_shuts_down(make: Callable[..., Executor], in_callback: Any) -> None:
    executor = make(2)
    others: list[Future[float]] = []

    def act() -> None:
        others.extend(executor.submit(calls.sleep, 0.05) for _ in range(5))
        executor.shutdown(wait=True)

    assert in_callback(executor, act) is None
    assert [other.result(60) for other in others] == [0.05] * 5
    wait_until(lambda: executor._pool._link is None, "the daemon is gone")
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.add, 1)


@pytest.mark.parametrize("way", ["kill_workers", "terminate_workers"])
def test_it_ends_the_workers(make: Callable[..., Executor], in_callback: Any, way: str) -> None:
    executor = make(2)
    other = executor.submit(calls.sleep, 1000)
    assert in_callback(executor, getattr(executor, way)) is None
    assert isinstance(other.exception(60), bulkhead.Lost)


def test_it_ends_another_executor(make: Callable[..., Executor], in_callback: Any) -> None:
    executor, other = make(1), make(1)
    other.submit(calls.add, 1).result(60)
    assert in_callback(executor, other.shutdown) is None
    assert executor.submit(calls.add, 1).result(60) == 2


def test_a_cancelled_calls_callback_shuts_down(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path = make(1), tmp_path / "pid"
    future = executor.submit(calls.sleep, 1000, str(path))
    written(path, "it runs")
    future.add_done_callback(lambda _: executor.shutdown(wait=True))
    thread = threading.Thread(target=future.cancel, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_callbacks_may_ask_for_results_of_the_same_batch() -> None:
    first, second = Future[int](), Future[int]()
    found: list[int] = []
    second.add_done_callback(lambda _: None)
    first.add_done_callback(lambda _: found.append(second.result(0)))
    complete([(first, True, 1), (second, True, 2)])
    assert found == [2]


def test_an_interrupt_loses_no_callback() -> None:
    future = Future[int]()
    seen: list[int] = []

    def interrupt(_: object) -> None:
        seen.append(1)
        raise KeyboardInterrupt

    future.add_done_callback(interrupt)
    future.add_done_callback(lambda _: seen.append(2))
    with pytest.raises(KeyboardInterrupt):
        complete([(future, True, 5)])
    assert future.result(0) == 5
    # The session tells the same once more.
    complete([(future, True, 5)])
    assert seen == [1, 2]


def test_a_signal_handler_shuts_down_while_a_result_is_waited_for(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, gate = make(1), str(tmp_path / "gate")
    future = executor.submit(calls.wait_for, gate)
    wait_until(future.running, "it runs")

    def handle(*_: object) -> None:
        Path(gate).touch()
        executor.shutdown(wait=True)

    before = signal.signal(signal.SIGUSR1, handle)
    main = threading.main_thread()
    try:
        sender = threading.Timer(0.2, lambda: signal.pthread_kill(main.ident or 0, signal.SIGUSR1))
        sender.start()
        assert future.result(60) == gate
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert executor._pool._link is None


def test_it_waits_when_events_were_passed_to_another_thread(
    make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gates, usual, firsts, raised, found = [str(tmp_path / name) for name in ("first", "other")], EventReader.on_events, [], [0], []

    def on_events(reader: EventReader, link: Link, events: list[Any]) -> None:
        if firsts and any(token == firsts[0]._token for token, _ in events) and raised[0] < 3:
            raised[0] += 1
            raise RecursionError("the stack is full")
        usual(reader, link, events)

    monkeypatch.setattr(EventReader, "on_events", on_events)
    executor = make(2)
    first, other = (executor.submit(calls.wait_for, gate) for gate in gates)

    def callback(_: Any) -> None:
        opener = threading.Timer(0.05, Path(gates[1]).touch)
        opener.start()
        found.append(other.exception(60))

    firsts.append(first)
    first.add_done_callback(callback)
    opener = threading.Timer(0.2, Path(gates[0]).touch)
    opener.start()
    with contextlib.suppress(RecursionError):
        first.result(60)
    wait_until(lambda: bool(found), "the callback has the other result")
    assert (raised, found) == ([3], [None])


CALLBACK_OUTLIVES_MAIN = """
import sys, threading, time
import calls
from bulkhead import Executor

executor = Executor(1)
is_ended = threading.Event()

def callback(future):
    executor.{way}
    is_ended.set()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        sum(range(100))
    print("the callback ends")

executor.submit(calls.add, 1, 1).add_done_callback(callback)
is_ended.wait()
"""


@pytest.mark.parametrize("way", ["kill_workers()", "shutdown()"])
def test_the_interpreter_waits_for_a_callback_that_has_ended_the_executor(way: str) -> None:
    code = CALLBACK_OUTLIVES_MAIN.format(way=way)
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=180)
    assert (ended.returncode, ended.stdout) == (0, "the callback ends\n"), ended.stderr
