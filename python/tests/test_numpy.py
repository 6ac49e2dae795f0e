"""Arrays in and out."""

from __future__ import annotations

import gc
import os
from typing import Any

import calls
import pytest

from bulkhead import Executor, _wire

np = pytest.importorskip("numpy")


def double(array: Any) -> Any:
    return array * 2


def change(array: Any) -> Any:
    array[0] = 7
    return array


@pytest.mark.parametrize("count", [0, 10, 1000, 10_000, 100_000, 1_000_000])
def test_arrays_go_in_and_come_out(executor: Executor, count: int) -> None:
    array = np.arange(count, dtype="f8")
    found = executor.submit(double, array).result()
    assert np.array_equal(found, array * 2)
    if count:
        found[0] = 3
        assert np.array_equal(executor.submit(change, array).result()[1:], array[1:]) and array[0] == 0


def test_many_large_arrays_at_once(executor: Executor) -> None:
    arrays = [np.full(200_000, number, dtype="f8") for number in range(60)]
    before = len(os.listdir("/proc/self/fd"))
    futures = [executor.submit(double, array) for array in arrays]
    assert all(future.result()[5] == 2 * number for number, future in enumerate(futures))
    assert [found[9] for found in executor.map(double, arrays)] == [2.0 * number for number in range(60)]
    del futures
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 10


def test_pieces_of_arrays_and_several_arrays(executor: Executor) -> None:
    array = np.arange(1_000_000).reshape(1000, 1000)
    value = {"part": array[::3, ::2], "turned": array.T, "all": [array, array[5]], "kind": np.array(["x"] * 50_000)}
    found = executor.submit(calls.echo, value).result()
    assert all(np.array_equal(found[name], value[name]) for name in ("part", "turned", "kind"))
    assert np.array_equal(found["all"][0], array)


def test_a_long_function_with_arrays(executor: Executor) -> None:
    pytest.importorskip("cloudpickle")
    table = list(range(3000))
    assert executor.submit(lambda array: array[1] + len(table), np.ones(100_000)).result() == 3001


def test_arguments_beyond_the_limit_are_told_before_copying(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    executor.submit(calls.add, 1).result()
    assert executor._pool._link is not None
    monkeypatch.setattr(executor._pool._link, "files_bytes_max", 4 << 20)
    monkeypatch.setattr(_wire.Pieces, "write", lambda *_: pytest.fail("it was copied"))
    with pytest.raises(ValueError, match="the limit of one call is 3145728 bytes"):
        executor.submit(calls.echo, np.zeros(1_000_000)).result()
