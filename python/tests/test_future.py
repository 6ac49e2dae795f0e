"""The lazy future against the one of the standard library: the same operations give the same."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import _base
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import wait_until

from bulkhead import _future
from bulkhead._future import Future, complete


class Listed(Exception):
    pass


def _outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except BaseException as error:
        return type(error)


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "result": lambda future: future.result(0),
    "exception": lambda future: future.exception(0),
    "done": lambda future: future.done(),
    "running": lambda future: future.running(),
    "cancelled": lambda future: future.cancelled(),
    "cancel": lambda future: future.cancel(),
    "set_result": lambda future: future.set_result(5),
    "set_exception": lambda future: future.set_exception(Listed()),
    "notify": lambda future: future.set_running_or_notify_cancel(),
    "callback": lambda future: future.add_done_callback(lambda _: None),
    "condition": lambda future: future._condition and None,
    "wait": lambda future: len(cf.wait([future], 0).done),
}


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.parametrize("second", OPERATIONS)
def test_it_does_what_the_standard_library_does(first: str, second: str) -> None:
    for third in OPERATIONS:
        ours, theirs = Future[Any](), cf.Future[Any]()
        for name in (first, second, third, "done", "result"):
            act = OPERATIONS[name]
            expected, found = _outcome(lambda: act(theirs)), _outcome(lambda: act(ours))
            if isinstance(expected, Listed):
                expected, found = Listed, type(found)
            assert found == expected, (first, second, third, name)


@pytest.mark.parametrize("is_lazy", [True, False])
def test_callbacks_run_once_and_wait_sees_it_once(is_lazy: bool) -> None:
    futures = [Future[int]() for _ in range(20)]
    called: list[int] = []
    for number, future in enumerate(futures):
        if not is_lazy:
            future.add_done_callback(lambda _, number=number: called.append(number))  # type: ignore[misc]
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(future.result() for future in cf.as_completed(futures)))
    thread.start()
    complete((future, True, number) for number, future in enumerate(futures))
    thread.join(60)
    assert sorted(seen) == list(range(20))
    assert sorted(called) == ([] if is_lazy else list(range(20)))


def test_a_waiting_thread_is_woken_by_both_ways_to_complete() -> None:
    for finish in (lambda future: future.set_result(7), lambda future: complete([(future, True, 7)])):
        future, found = Future[int](), []
        thread = threading.Thread(target=lambda: found.append(future.result(60)))  # noqa: B023
        thread.start()
        wait_until(lambda: future._lazy_waits is not None, "the thread waits")  # noqa: B023
        finish(future)
        thread.join(60)
        assert found == [7]


@pytest.mark.parametrize("name", ["set_result", "set_exception", "cancel"])
def test_a_waiting_thread_is_woken_before_the_callbacks(name: str) -> None:
    future, alive = Future[int](), []
    thread = threading.Thread(target=_outcome, args=[lambda: future.result(60)])
    thread.start()
    wait_until(lambda: future._lazy_waits is not None and future._lazy_waits.are_there(), "the thread waits")

    def note(_: Any) -> None:
        thread.join(5)
        alive.append(thread.is_alive())

    future.add_done_callback(note)
    OPERATIONS[name](future)
    assert alive == [False]


def test_no_lock_is_held_while_its_parts_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Future[int]()

    def condition() -> threading.Condition:
        # As a signal handler does at this line: it waits for what another thread completes.
        thread = threading.Thread(target=complete, args=[[(other, True, 5)]])
        thread.start()
        thread.join(60)
        assert other.done()
        return threading.Condition()

    monkeypatch.setattr(_future, "threading", SimpleNamespace(Condition=condition))
    assert Future[int]()._condition is not None and other.result() == 5


def test_what_was_cancelled_stays_cancelled() -> None:
    for is_lazy in (True, False):
        future = Future[int]()
        if not is_lazy:
            assert future._condition is not None
        assert future.cancel()
        complete([(future, True, 1)])
        assert future.cancelled() and future._state != _base.FINISHED


def test_its_result_and_exception_are_not_kept_by_others() -> None:
    class Thing:
        pass

    future = Future[Thing]()
    thing = Thing()
    reference = weakref.ref(thing)
    complete([(future, True, thing)])
    del thing, future
    gc.collect()
    assert reference() is None


def test_a_done_future_has_made_no_condition() -> None:
    future = Future[int]()
    complete([(future, True, 3)])
    assert future.done() and future.result() == 3 and not future.cancelled() and future._lazy_condition is None
