"""`map`: order, timeout, buffers, errors, and what becomes of the rest."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import itertools
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls
import pytest
from conftest import wait_until

import bulkhead
from bulkhead import Executor


@pytest.mark.parametrize("options", [{}, {"chunksize": 7}, {"buffersize": 3}, {"buffersize": 5000}])
def test_results_are_in_order(executor: Executor, options: dict[str, Any]) -> None:
    found = executor.map(calls.add, range(1000), itertools.count(5), **options)
    assert list(found) == [2 * number + 5 for number in range(1000)]
    assert list(executor.map(calls.add, [], **options)) == []
    assert list(executor.map(pow, [2, 3], [3, 2], **options)) == [8, 9]


def test_its_arguments_are_checked(executor: Executor) -> None:
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {"chunksize": 0}),
        (ValueError, {"buffersize": 0}),
        (TypeError, {"chunksize": "7"}),
        (TypeError, {"buffersize": 1.5}),
    ]
    for kind, options in wrong:
        with pytest.raises(kind):
            executor.map(calls.add, [1], **options)


def test_an_exception_comes_at_its_turn(executor: Executor) -> None:
    found = executor.map(int, ["1", "2", "x", "4"])
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="invalid literal"):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


def test_nothing_comes_after_an_interrupted_close(executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(tokens: Any) -> None:
        usual(tokens)
        raise KeyboardInterrupt

    found: Any = executor.map(calls.wait_for, [str(tmp_path / "gate")] * 3, chunksize=1)
    usual = executor._pool.drop_many
    with monkeypatch.context() as patched:
        patched.setattr(executor._pool, "drop_many", drop)
        with pytest.raises(KeyboardInterrupt):
            found.close()
    assert list(found) == []
    found.close()
    assert executor.submit(calls.add, 1).result(60) == 2


def test_a_timeout_counts_from_the_call_and_ends_the_rest(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    found = executor.map(calls.sleep, [0, 1000], [None, str(path)], timeout=3)
    assert next(found) == 0
    with pytest.raises(cf.TimeoutError):
        next(found)
    assert executor.submit(calls.add, 1).result() == 2


def test_closing_it_cancels_the_rest(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, path = make(1), str(tmp_path / "runs")
    found = executor.map(calls.note_and_return, [path] * 2, [0, 1])
    assert next(found) == 0
    hanging = executor.map(calls.sleep, [1000] * 50)
    hanging.close()  # type: ignore[attr-defined]
    assert executor.submit(calls.add, 1).result(60) == 2


def test_buffersize_bounds_what_is_taken(executor: Executor) -> None:
    taken: list[int] = []

    def items() -> Any:
        for number in itertools.count():
            taken.append(number)
            yield number

    found = executor.map(calls.add, items(), buffersize=4)
    assert len(taken) == 4
    assert [next(found) for _ in range(10)] == list(range(1, 11))
    assert len(taken) == 14
    found.close()  # type: ignore[attr-defined]


def test_results_are_forgotten_once_taken(executor: Executor) -> None:
    found = executor.map(calls.NotBack, [1, 2, 3])
    first = next(found)
    reference = weakref.ref(first)
    del first
    gc.collect()
    assert reference() is None
    assert len(list(found)) == 2


@pytest.mark.parametrize("how", ["kill", "exit", "segfault"])
@pytest.mark.parametrize("victim", [0, 40, 79])
def test_a_death_fails_its_own_item_and_nothing_runs_twice(executor: Executor, tmp_path: Path, how: str, victim: int) -> None:
    path, count = str(tmp_path / "runs"), 80
    found = executor.map(calls.die_at, [path] * count, [how] * count, range(count), [victim] * count, chunksize=10)
    got = []
    with pytest.raises(bulkhead.WorkerCrashed):
        for value in found:
            got.append(value)
    assert got == list(range(victim))
    runs = Counter(Path(path).read_text().split())
    assert max(runs.values()) == 1 and all(str(number) in runs for number in range(victim + 1))


def test_items_of_every_length(executor: Executor) -> None:
    items = [bytes(size) for size in (1, 5000, 200_000, 3, 2 << 20, 7)]
    assert list(executor.map(calls.echo, items)) == items
    assert list(executor.map(calls.echo, items, buffersize=2)) == items


def test_an_item_that_cannot_be_pickled_is_its_own_error(executor: Executor) -> None:
    import threading

    found = executor.map(calls.echo, [1, threading.Lock(), 3])
    assert next(found) == 1
    with pytest.raises(TypeError, match="argument 1 of calls.echo"):
        next(found)


def test_it_waits_for_slow_items(executor: Executor) -> None:
    begun = time.monotonic()
    assert list(executor.map(calls.sleep, [0.2, 0.0])) == [0.2, 0.0]
    assert time.monotonic() - begun >= 0.2
    wait_until(lambda: not executor._pool.pending, "nothing is under way")
