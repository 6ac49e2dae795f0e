"""Chunks of `map`: what becomes of each item when a worker dies, results are long or odd, and the program goes on or leaves."""

from __future__ import annotations

import gc
import itertools
import multiprocessing.spawn
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import calls
import pytest
from conftest import wait_until, written

import bulkhead
from bulkhead import Executor
from bulkhead._pending import PendingCalls

COUNT = 60


def runs_of(path: str) -> Counter[str]:
    """How many times each item ran."""
    return Counter(Path(path).read_text().split())


def chunked(executor: Executor, function: Callable[..., Any], *iterables: Any, size: int | None) -> Any:
    """The results of a map as they are inside, so that what follows an error can be looked at. All items are submitted."""
    from bulkhead import _chunks, _map

    results = _chunks.opened(executor._pool, function, executor._options, size)
    assert results is not None
    _map._add_all(results, list(zip(*iterables)))
    return results


def ends_of(results: Any) -> list[Any]:
    """What each item became: its result, or its exception."""
    found = []
    for index in range(len(results.there)):
        try:
            found.append(results.await_one(index, time.monotonic() + 60))
        except BaseException as error:
            found.append(error)
    return found


@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize("how", ["kill", "exit", "exit0", "segfault"])
@pytest.mark.parametrize("victim", [0, 29, COUNT - 1])
def test_a_death_takes_one_item_with_it(make: Callable[..., Executor], tmp_path: Path, size: int | None, how: str, victim: int) -> None:
    executor, path = make(1), str(tmp_path / "runs")
    results = chunked(executor, calls.die_at, [path] * COUNT, [how] * COUNT, range(COUNT), [victim] * COUNT, size=size)
    ends = ends_of(results)
    assert isinstance(ends[victim], bulkhead.WorkerCrashed)
    assert ends[:victim] + ends[victim + 1 :] == [number for number in range(COUNT) if number != victim]
    assert runs_of(path) == {str(number): 1 for number in range(COUNT)}
    wait_until(lambda: not executor._pool.pending, "nothing is under way")


def test_several_deaths_in_one_chunk(executor: Executor, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    results = chunked(executor, calls.die_at, [path] * 30, ["kill"] * 30, range(30), [number // 10 * 10 + 3 for number in range(30)], size=30)
    ends = ends_of(results)
    assert [number for number, end in enumerate(ends) if isinstance(end, bulkhead.WorkerCrashed)] == [3, 13, 23]
    assert set(runs_of(path).values()) == {1}


@pytest.mark.parametrize("size", [None, 8])
def test_retries_run_the_guilty_item_again_and_no_other(make: Callable[..., Executor], tmp_path: Path, size: int | None) -> None:
    executor, path = make(1, retries=2), str(tmp_path / "runs")
    results = chunked(executor, calls.die_at, [path] * 20, ["kill"] * 20, range(20), [11] * 20, size=size)
    ends = ends_of(results)
    assert isinstance(ends[11], bulkhead.WorkerCrashed) and ends[:11] + ends[12:] == [*range(11), *range(12, 20)]
    assert runs_of(path) == {str(number): 3 if number == 11 else 1 for number in range(20)}


@pytest.mark.parametrize("options", [{}, {"chunksize": 7}, {"chunksize": 7, "buffersize": 20}])
def test_long_and_odd_results(executor: Executor, options: dict[str, Any]) -> None:
    values = [1, bytes(1 << 20), "x", bytes(100_000), *range(40), bytes(2 << 20), None]
    assert list(executor.map(calls.echo, values, **options)) == values


@pytest.mark.parametrize("size", [None, 5])
def test_errors_fail_their_own_items(executor: Executor, size: int | None) -> None:
    ends = ends_of(chunked(executor, calls.odd, range(15), size=size))
    for number, end in enumerate(ends):
        kind = number % 5
        if kind == 0:
            assert end == number
        elif kind == 1:
            assert isinstance(end, ValueError) and "raise ValueError" in str(end.__cause__)
        elif kind == 2:
            assert type(end).__name__ in ("PicklingError", "TypeError") and "lock" in str(end)
        elif kind == 3:
            assert isinstance(end, SystemExit)
        else:
            assert isinstance(end, bulkhead.ResultNotReadable)


def test_a_limit_counts_for_the_chunk_and_fails_the_item_that_runs(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path = make(1), str(tmp_path / "runs")
    limited = executor.options(timeout=2)
    results = chunked(limited, calls.hang_at, [path] * 9, range(9), [4] * 9, size=9)  # type: ignore[arg-type]
    ends = ends_of(results)
    assert isinstance(ends[4], bulkhead.JobTimeout) and ends[:4] + ends[5:] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert set(runs_of(path).values()) == {1}


def test_with_limits_each_item_is_a_call_of_its_own(make: Callable[..., Executor]) -> None:
    executor = make(1)
    for options in ({"timeout": 60}, {"cpu_time": 60}, {"memory": 1 << 30}):
        found = executor.options(**options).map(calls.add, range(50))  # type: ignore[arg-type]
        assert type(found).__name__ == "MapIterator" and list(found) == list(range(1, 51))
    assert list(executor.options(timeout=60).map(calls.add, range(50), chunksize=10)) == list(range(1, 51))


@pytest.mark.parametrize("options", [{}, {"chunksize": 10}, {"chunksize": 10, "buffersize": 40}])
def test_closing_it_ends_the_hung_item_and_what_follows(executor: Executor, tmp_path: Path, options: dict[str, Any]) -> None:
    path = str(tmp_path / "runs")
    found = executor.map(calls.hang_at, [path] * 100, range(100), [5] * 100, **options)
    assert [next(found) for _ in range(5)] == list(range(5))
    wait_until(lambda: "5" in runs_of(path), "the item hangs")
    found.close()  # type: ignore[attr-defined]
    assert executor.submit(calls.add, 1).result(60) == 2
    wait_until(lambda: not executor._pool.pending, "nothing is under way")
    assert max(runs_of(path).values()) == 1


@pytest.mark.parametrize("options", [{}, {"chunksize": 10}, {"buffersize": 40}])
@pytest.mark.parametrize("taken", [0, 3])
def test_an_iterator_that_is_dropped_cancels_the_rest(executor: Executor, options: dict[str, Any], taken: int) -> None:
    found = executor.map(calls.sleep, [0.0] * 3 + [1000.0] * 100, **options)
    for _ in range(taken):
        next(found)
    del found
    gc.collect()
    wait_until(lambda: not executor._pool.pending and not executor._pool.open_maps, "nothing is under way")
    assert executor.submit(calls.add, 1).result(60) == 2


@pytest.mark.parametrize("options", [{}, {"chunksize": 10}])
def test_an_error_of_the_items_goes_through(executor: Executor, options: dict[str, Any]) -> None:
    def items(error: BaseException) -> Iterator[int]:
        yield from range(50)
        raise error

    with pytest.raises(KeyboardInterrupt):
        executor.map(calls.add, items(KeyboardInterrupt()), **options)
    found = executor.map(calls.add, items(OSError("x")), buffersize=5, **options)
    assert list(itertools.islice(found, 40)) == list(range(1, 41))
    with pytest.raises(OSError):
        list(found)
    wait_until(lambda: not executor._pool.pending, "nothing is under way")


@pytest.mark.parametrize("buffersize", [1, 7, 100])
@pytest.mark.parametrize("chunksize", ["auto", 5, 1000])
def test_buffersize_counts_items(executor: Executor, buffersize: int, chunksize: Any) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(300):
            taken.append(number)
            yield number

    found = executor.map(calls.add, items(), buffersize=buffersize, chunksize=chunksize)
    assert len(taken) == buffersize
    for number in range(300):
        assert next(found) == number + 1
        assert len(taken) <= number + 1 + buffersize
    assert next(found, None) is None


@pytest.mark.parametrize("options", [{}, {"chunksize": 5}])
def test_kill_workers_and_a_killed_daemon_end_all_items(make: Callable[..., Executor], tmp_path: Path, options: dict[str, Any]) -> None:
    for end in ("kill", "daemon"):
        executor, path = make(2), str(tmp_path / end)
        found = executor.map(calls.hang_at, [path] * 500, range(500), [7] * 500, **options)
        assert next(found) == 0
        wait_until(lambda path=path: "7" in runs_of(path), "an item hangs")
        if end == "kill":
            executor.kill_workers()
        else:
            executor._pool._link.daemon._process.kill()  # type: ignore[union-attr]
        with pytest.raises(bulkhead.Lost):
            list(found)
        assert max(runs_of(path).values()) == 1


@pytest.mark.parametrize("options", [{}, {"chunksize": 5}])
def test_shutdown_waits_for_what_is_not_sent(make: Callable[..., Executor], tmp_path: Path, options: dict[str, Any]) -> None:
    executor, path = make(2), str(tmp_path / "runs")
    found = executor.map(calls.note_and_return, [path] * 2000, range(2000), **options)
    executor.shutdown()
    assert len(runs_of(path)) == 2000
    assert list(found) == list(range(2000))


@pytest.mark.parametrize("options", [{}, {"chunksize": 5}])
def test_shutdown_that_cancels_leaves_the_rest_unrun(make: Callable[..., Executor], tmp_path: Path, options: dict[str, Any]) -> None:
    executor, path, gate = make(1), str(tmp_path / "runs"), str(tmp_path / "gate")
    found = executor.map(calls.note_and_wait, [path] * 3000, range(3000), [gate] * 3000, **options)
    written(Path(path), "the first item runs")
    threading.Timer(0.2, lambda: Path(gate).touch()).start()
    executor.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        list(found)
    assert len(runs_of(path)) < 3000


def test_an_initializer_runs_before_chunks_and_its_failure_ends_them(make: Callable[..., Executor], tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    good = make(2, initializer=calls.note, initargs=(path, "init"))
    assert list(good.map(calls.add, range(1000), chunksize=50)) == list(range(1, 1001))
    # Also in the worker that waits.
    assert 1 <= runs_of(path)["init"] <= 3
    bad = make(1, initializer=calls.raise_value_error)
    with pytest.raises(bulkhead.InitializerFailed):
        list(bad.map(calls.add, range(100), chunksize=10))


def test_max_tasks_per_child_counts_chunks(make: Callable[..., Executor]) -> None:
    executor = make(1, max_tasks_per_child=2)
    pids = list(executor.map(calls.pid, range(24), chunksize=3))
    assert sorted(Counter(pids).values()) == [6, 6, 6, 6]
    assert sorted(Counter(executor.map(calls.pid, range(6))).values()) == [2, 2, 2]


def test_arguments_of_every_kind(executor: Executor) -> None:
    import functools

    values: list[Any] = [1, bytes(40_000), "x", bytes(300_000), [1, 2], bytes(2 << 20), *range(30)]
    for options in ({}, {"chunksize": 4}):
        assert list(executor.map(calls.echo, values, **options)) == values  # type: ignore[arg-type]
        assert list(executor.map(functools.partial(calls.add, 5), range(100), **options)) == list(range(5, 105))  # type: ignore[arg-type]
        assert list(executor.map("{} {}".format, range(100), range(100), **options)) == [f"{number} {number}" for number in range(100)]  # type: ignore[arg-type]


def test_many_maps_at_once(executor: Executor) -> None:
    found = [executor.map(calls.add, range(2000), **options) for options in ({}, {"chunksize": 30}, {}, {"chunksize": 3})]  # type: ignore[arg-type]
    for results in zip(*found):
        assert len(set(results)) == 1
    wait_until(lambda: not executor._pool.pending, "nothing is under way")


def test_more_than_the_memory_for_chunks(executor: Executor) -> None:
    values = [bytes(10_000)] * 6000
    assert sum(map(len, executor.map(calls.echo, values, chunksize=100))) == 60_000_000
    assert sum(map(len, executor.map(calls.echo, values))) == 60_000_000


def test_short_calls_go_in_long_chunks(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    from bulkhead import _chunks

    counts: list[int] = []
    absorb = _chunks.ChunkedMap.absorb

    def count(self: Any, chunk: Any, end: Any) -> Any:
        counts.append(len(end.results.values))
        return absorb(self, chunk, end)

    monkeypatch.setattr(_chunks.ChunkedMap, "absorb", count)
    assert sum(executor.map(calls.add, range(50_000))) == 50_000 * 50_001 // 2
    # The program takes the results of a chunk that still runs, too: then the map is over, and the end of the chunk is told to nobody.
    assert sum(counts) > 45_000 and max(counts) > 50 and counts[0] == 1
    counts.clear()
    list(executor.map(calls.sleep, [0.05] * 20))
    assert max(counts) <= 2


def ends_soon(act: Callable[[], Any]) -> bool:
    """Whether this ends, in a thread that nobody waits for if it hangs."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(60)
    return not thread.is_alive()


def test_shutdown_sends_the_part_of_a_chunk_that_is_known(make: Callable[..., Executor]) -> None:
    executor = make(2)
    results = executor.map(abs, range(100), chunksize=10, buffersize=5)
    assert ends_soon(executor.shutdown)
    with pytest.raises(RuntimeError, match="after shutdown"):
        next(results)


@pytest.mark.parametrize("is_strict", [False, True])
def test_an_executor_that_breaks_while_a_long_map_is_added_shuts_down(make: Callable[..., Executor], is_strict: bool) -> None:
    executor = make(1, strict_stdlib=True) if is_strict else make(1, initializer=calls.raise_value_error, initargs=())
    function, kind = (calls.die_of, BrokenProcessPool) if is_strict else (abs, bulkhead.InitializerFailed)
    results = executor.map(function, range(300_000))
    assert ends_soon(executor.shutdown)
    with pytest.raises(kind):
        next(results)


@pytest.mark.parametrize("size", [10, 300_000])
def test_results_that_raise_when_they_are_unpickled(executor: Executor, size: int) -> None:
    for function in (calls.leaves_at_unpickling, calls.unprintable_at_unpickling):
        results = chunked(executor, function, [size] * 3, size=3)
        assert [type(end) for end in ends_of(results)] == [bulkhead.ResultNotReadable] * 3


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}])
def test_workers_that_do_not_start(make: Callable[..., Executor], options: dict[str, Any]) -> None:
    usual = multiprocessing.spawn.get_executable()
    multiprocessing.spawn.set_executable("/bin/false")
    try:
        executor = make(2)
        with pytest.raises(bulkhead.CannotStart):
            list(executor.map(abs, range(10), **options))
    finally:
        multiprocessing.spawn.set_executable(usual)


def test_a_chunksize_above_that_of_a_chunk(executor: Executor) -> None:
    assert list(executor.map(abs, [0] * 70_000, chunksize=70_000)) == [0] * 70_000


@pytest.mark.parametrize("options", [{}, {"chunksize": 50}])
def test_a_signal_handler_waits_while_a_map_is_sent(executor: Executor, options: dict[str, Any]) -> None:
    found: list[int] = []
    is_over = threading.Event()

    def handler(*_: Any) -> None:
        found.append(executor.submit(abs, -1).result(60))
        if not is_over.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    usual = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        for _ in range(3):
            assert sum(executor.map(abs, range(100_000), **options)) == 4_999_950_000
    finally:
        is_over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert found and set(found) == {1}


def test_an_interrupt_while_it_is_closed_leaves_nothing_to_wait_for(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    executor, usual, tries = make(2), PendingCalls.drop, itertools.count()

    def drop(pending: PendingCalls, tokens: Any) -> list[int]:
        if next(tries) == 0:
            raise KeyboardInterrupt
        return usual(pending, tokens)

    results = executor.map(time.sleep, [0.01] * 2000)
    next(results)
    monkeypatch.setattr(PendingCalls, "drop", drop)
    with pytest.raises(KeyboardInterrupt):
        results.close()
    assert ends_soon(executor.shutdown)
