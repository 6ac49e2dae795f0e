"""What meets in bad moments: an end while a call is pickled, Ctrl-C while a result is unpickled, functions whose state changes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import calls
import pytest
from conftest import wait_until

import bulkhead
from bulkhead import Executor


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    calls.Hooked.hook = calls.Answer.hook = None


def fail() -> None:
    raise ValueError("not to be pickled")


def interrupt() -> None:
    raise KeyboardInterrupt


def shut_down_in_thread(executor: Executor) -> threading.Thread:
    """A thread that waits in `shutdown` for the call that is pickled now."""
    thread = threading.Thread(target=executor.shutdown, daemon=True)
    thread.start()
    # The condition's own list of those who wait.
    wait_until(lambda: executor._pool.calls._idle._waiters, "shutdown waits")  # type: ignore[attr-defined]
    return thread


def joins(thread: threading.Thread) -> bool:
    thread.join(30)
    return not thread.is_alive()


@pytest.mark.parametrize("end", [fail, interrupt])
def test_shutdown_ends_though_the_last_call_could_not_be_pickled(make: Callable[..., Executor], end: Callable[[], None]) -> None:
    executor, threads = make(1), []
    executor.submit(calls.add, 1).result(60)

    def hook() -> None:
        threads.append(shut_down_in_thread(executor))
        end()

    calls.Hooked.hook = hook
    if end is interrupt:
        with pytest.raises(KeyboardInterrupt):
            executor.submit(calls.echo, calls.Hooked())
    else:
        assert "not to be pickled" in str(executor.submit(calls.echo, calls.Hooked()).exception(60))
    assert joins(threads[0])


def test_a_call_that_is_submitted_while_the_executor_is_ended_is_lost(make: Callable[..., Executor]) -> None:
    executor = make(1)
    executor.submit(calls.add, 1).result(60)
    calls.Hooked.hook = executor.kill_workers
    future = executor.submit(calls.echo, calls.Hooked())
    assert isinstance(future.exception(30), bulkhead.Lost)


def test_an_interrupted_map_leaves_nothing_under_way(make: Callable[..., Executor]) -> None:
    executor = make(1)
    executor.submit(calls.add, 1).result(60)
    calls.Hooked.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        executor.map(calls.echo, [1, calls.Hooked()], buffersize=2)
    thread = threading.Thread(target=executor.shutdown, daemon=True)
    thread.start()
    assert joins(thread)


@pytest.mark.parametrize("length", [10, 300_000])
def test_an_interrupt_while_a_result_is_unpickled_is_the_programs(executor: Executor, length: int) -> None:
    seen: list[None] = []

    def once() -> None:
        seen.append(None)
        if len(seen) == 1:
            raise KeyboardInterrupt

    executor.submit(calls.add, 1).result(60)
    calls.Answer.hook = once
    future = executor.submit(calls.answer, length)
    try:
        future.result(60)
    except KeyboardInterrupt:
        pass
    assert len(future.result(60).content) == length
    assert len(seen) == 2


def test_a_result_that_always_interrupts_is_not_readable(executor: Executor) -> None:
    executor.submit(calls.add, 1).result(60)
    calls.Answer.hook = interrupt
    future = executor.submit(calls.answer, 10)
    try:
        future.exception(60)
    except KeyboardInterrupt:
        pass
    assert isinstance(future.exception(60), bulkhead.errors.ResultNotReadable)
    calls.Answer.hook = None
    assert executor.submit(calls.add, 1).result(60) == 2


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_function_by_value_goes_as_it_is_at_the_submit(make: Callable[..., Executor], size: int) -> None:
    pytest.importorskip("cloudpickle")
    executor, captured = make(1, spares=0), list(range(size))

    def last() -> int:
        captured.append(-1)
        return captured[-2]

    # Twice the same: the worker keeps nothing of the first call.
    assert [executor.submit(last).result(60) for _ in range(2)] == [size - 1, size - 1]
    captured.append(77)
    assert executor.submit(last).result(60) == 77
    assert list(executor.map(lambda _: last(), range(3))) == [77, 77, 77]


def test_options_keep_their_executor() -> None:
    view = Executor(1, spares=0).options(timeout=60)
    gc.collect()
    try:
        assert view.submit(calls.add, 1).result(60) == 2
    finally:
        executor: Any = view._of
        executor.kill_workers()


def test_an_exception_may_hold_a_large_buffer(executor: Executor) -> None:
    found = executor.submit(calls.raise_buffer, 100_000).exception(60)
    assert type(found) is ValueError and len(found.args[0]) == 100_000
