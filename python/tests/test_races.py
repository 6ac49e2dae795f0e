"""What meets in bad moments: an end while a call is pickled, Ctrl-C while a result is unpickled, functions whose state changes."""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import linecache
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import _base
from pathlib import Path
from types import FrameType
from typing import Any

import calls
import pytest
from conftest import wait_until

import bulkhead
from bulkhead import Executor, _native
from bulkhead._chunks import ChunkedMap
from bulkhead._events import EventReader
from bulkhead._future import Future, complete
from bulkhead._link import Link
from bulkhead._map import MapIterator, MapResults
from bulkhead._options import CallOptions
from bulkhead._pending import PendingCalls
from bulkhead._pool import Pool
from bulkhead._waiting import WaitingThreads


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
    wait_until(executor._pool.calls._idle.are_there, "shutdown waits")
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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("length", [10, 300_000])
@pytest.mark.parametrize("way", ["submit", "map", "chunk"])
def test_what_a_handler_raises_while_a_result_is_unpickled_is_the_programs(make: Callable[..., Executor], way: str, length: int) -> None:
    """An `Exception` that comes once is raised where the program waits, and the result is there all the same."""
    executor, seen = make(1), []
    executor.submit(calls.add, 1).result(60)

    def once() -> None:
        seen.append(threading.get_ident())
        if len(seen) == 1:
            raise LookupError("of the handler")

    if way == "submit":
        future = executor.submit(calls.answer, length)
        calls.Answer.hook = once
        try:
            future.result(60)
        except LookupError as error:
            assert "of the handler" in str(error)
        else:
            # The session's own thread has read it, where no handler runs.
            assert seen[0] != threading.get_ident()
        assert len(future.result(60).content) == length
    else:
        iterator = executor.map(calls.answer, [length] * 2, chunksize=1 if way == "map" else 2)
        calls.Answer.hook = once
        try:
            results = list(iterator)
        except LookupError as error:
            assert "of the handler" in str(error)
        else:
            assert [len(result.content) for result in results] == [length] * 2
    assert len(seen) >= 2
    calls.Answer.hook = None
    assert executor.submit(calls.add, 1).result(60) == 2


def test_what_another_thread_unpickles_at_the_second_time_is_the_result(executor: Executor) -> None:
    reader, found = executor._pool.events, []
    thread = threading.Thread(target=lambda: found.append(reader.read_fairly(1, lambda: (True, 5), LookupError("once"))))
    thread.start()
    thread.join(60)
    assert found == [(True, 5)] and reader.of_handler is None


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


class RawSession:
    """A second session with the daemon of an executor, and what it tells."""

    def __init__(self, executor: Executor, hear: Callable[[list[Any]], object]) -> None:
        link = executor._pool._link
        assert link is not None
        head = executor._pool.encoder.head(calls.add)
        assert head is not None
        self.told: set[int] = set()
        self.prefix = head.prefix
        self._hear = hear
        self.session = _native.Session(link.daemon.socket, self._on_events)
        self.rules = self.session.rules()

    def _on_events(self, events: list[Any]) -> None:
        self._hear(events)
        self.told |= {token for token, _ in events}

    def submit(self, token: int) -> None:
        self.session.submit(token, self.rules, self.prefix, pickle.dumps(((1,), {})))


def test_a_submit_that_meets_the_end_of_its_session_is_told(executor: Executor) -> None:
    executor.submit(calls.add, 1).result(60)
    entered, go = threading.Event(), threading.Event()

    def hear(_: list[Any]) -> None:
        entered.set()
        assert go.wait(60)

    raw = RawSession(executor, hear)
    raw.submit(1)
    assert entered.wait(60)
    closer = threading.Thread(target=raw.session.close, daemon=True)
    closer.start()
    submitted = [1]
    with contextlib.suppress(ConnectionError):
        for token in range(2, 200):
            raw.submit(token)
            submitted.append(token)
            time.sleep(0.002)
    go.set()
    assert joins(closer)
    assert set(submitted) <= raw.told
    with pytest.raises(ConnectionError):
        raw.submit(1000)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", [1, 1000])
def test_events_are_told_though_their_reader_raises(executor: Executor, times: int) -> None:
    executor.submit(calls.add, 1).result(60)
    heard: list[list[int]] = []

    def hear(events: list[Any]) -> None:
        heard.append([token for token, _ in events])
        if len(heard) <= times and len(events) > 1:
            raise ValueError("it is interrupted")

    raw = RawSession(executor, hear)
    raw.session.submit_many(1, raw.rules, raw.prefix, [pickle.dumps(((1,), {}))] * 100)
    try:
        wait_until(lambda: set(range(1, 101)) <= raw.told, "all are told")
    finally:
        raw.session.close()


@pytest.mark.parametrize("way", ["kill_workers", "shutdown"])
def test_no_future_stays_open_when_submits_meet_an_end(make: Callable[..., Executor], way: str) -> None:
    executor = make(1, spares=0)
    executor.submit(calls.add, 1).result(60)
    futures: list[Any] = []

    def submit() -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                futures.append(executor.submit(calls.add, 1))

    threads = [threading.Thread(target=submit, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(futures) > 100, "they submit")
    getattr(executor, way)()
    assert all(joins(thread) for thread in threads)
    for future in futures:
        assert future.exception(60) is None or isinstance(future.exception(), bulkhead.Lost)


def test_an_error_of_pickling_that_is_a_connection_error_is_the_futures(executor: Executor) -> None:
    executor.submit(calls.add, 1).result(60)
    link = executor._pool._link

    def hook() -> None:
        raise BrokenPipeError("of the argument's own")

    calls.Hooked.hook = hook
    found = executor.submit(calls.echo, calls.Hooked()).exception(60)
    assert "of the argument's own" in str(found) and not isinstance(found, bulkhead.Lost)
    assert executor._pool._link is link


def test_a_start_that_fails_while_its_session_ends(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    executor, gone = make(1), threading.Event()
    usual = EventReader.on_events

    def on_events(reader: EventReader, link: Link, events: list[Any]) -> None:
        gone.set()
        usual(reader, link, events)

    def fail_late(link: Link) -> None:
        os.kill(link.daemon.pid, signal.SIGKILL)
        assert gone.wait(60)
        raise OSError("no context")

    monkeypatch.setattr(EventReader, "on_events", on_events)
    with monkeypatch.context() as patched:
        patched.setattr(Link, "_update_base_contexts", fail_late)
        found: list[Exception] = []

        def submit() -> None:
            try:
                executor.submit(calls.add, 1)
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=submit, daemon=True)
        thread.start()
        assert joins(thread)
    assert "no context" in str(found[0])
    assert executor.submit(calls.add, 1).result(60) == 2


@pytest.mark.parametrize("size", [40_000, 300_000])
def test_a_submit_with_buffers_does_not_wait_for_other_calls(make: Callable[..., Executor], tmp_path: Path, size: int) -> None:
    executor, gate = make(1, spares=0), str(tmp_path / "gate")
    executor.submit(calls.wait_for, gate)
    futures: list[Any] = []

    def submit() -> None:
        for _ in range(100):
            futures.append(executor.submit(calls.fill, pickle.PickleBuffer(bytearray(size))))

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    is_through = joins(thread)
    Path(gate).touch()
    assert is_through
    assert [future.result(60) for future in futures] == [(size, 7)] * 100


def test_a_submit_waits_while_inputs_fill_half_of_the_memory(make: Callable[..., Executor]) -> None:
    executor = make(1, spares=0)
    executor.submit(calls.add, 1).result(60)
    link = executor._pool._link
    assert link is not None
    link.files_bytes_max = 4 << 20
    futures = [executor.submit(calls.fill, pickle.PickleBuffer(bytearray(1 << 20))) for _ in range(20)]
    assert [future.result(60) for future in futures] == [(1 << 20, 7)] * 20
    assert sum(held for _, held in link._files) <= 4 << 20


def large(number: int) -> Callable[[], int]:
    """A function that goes by value and is long."""
    captured = [number] * 3000
    return lambda: captured[0]


def test_many_large_functions_by_value(make: Callable[..., Executor]) -> None:
    pytest.importorskip("cloudpickle")
    executor = make(1, spares=0)
    futures = []
    for number in range(300):
        futures.append(executor.submit(large(number)))
    assert [future.result(60) for future in futures] == list(range(300))
    link = executor._pool._link
    assert link is not None and link.session.contexts < 40


def test_more_functions_than_a_daemon_takes(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cloudpickle")
    from bulkhead import _link

    monkeypatch.setattr(_link, "_CONTEXTS_MAX", 3)
    executor = make(1, spares=0)
    futures = []
    for number in range(20):
        futures.append(executor.submit(large(number)))
    assert [future.result(60) for future in futures] == list(range(20))


def interrupted_at(line: int, files: set[str], act: Callable[[], object]) -> bool:
    """Raises `KeyboardInterrupt` at so many lines of these files, while `act` runs; whether it was so many lines long.

    Lines with `with` do not count: the trace calls them again before the lock is released, where no signal's handler runs.
    """
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_wait_may_be_interrupted_at_any_line() -> None:
    """Each wait is interrupted at one line more than the one before, until one is through."""
    files = {inspect.getfile(WaitingThreads), inspect.getfile(MapResults)}
    for line in itertools.count():
        results = MapResults(calls.add, CallOptions())
        results.grow(1)
        was_interrupted = interrupted_at(line, files, lambda results=results: results.wait(0, time.monotonic() + 0.001))
        # Another wait ends all the same.
        teller = threading.Timer(0.001, results.put, (0, True, 5))
        teller.start()
        assert results.take(0, time.monotonic() + 60) == 5
        teller.join()
        if not was_interrupted:
            break
    assert line > 5


@pytest.mark.parametrize("has_condition", [True, False])
def test_the_wait_for_a_result_may_be_interrupted_at_any_line(has_condition: bool) -> None:
    """As above, with a future whose thread does not read the session."""
    files = {inspect.getfile(kind) for kind in (Future, WaitingThreads, threading.Condition)}
    for line in itertools.count():
        future = Future[int]()
        assert not has_condition or future._condition is not None

        def wait(future: Future[int] = future) -> None:
            with contextlib.suppress(TimeoutError, _base.TimeoutError):
                future.result(0.001)

        was_interrupted = interrupted_at(line, files, wait)
        teller = threading.Timer(0.001, complete, ([(future, True, 5)],))
        teller.daemon = True
        teller.start()
        assert future.result(60) == 5
        teller.join()
        if not was_interrupted:
            break
    assert line > 5


def test_the_close_of_a_map_may_be_interrupted_at_any_line(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, files, gate = make(1, spares=0), {inspect.getfile(ChunkedMap)}, tmp_path / "gate"
    for line in itertools.count():
        # It is closed: nothing else ends a call that runs.
        found: Any = executor.map(calls.wait_for, [str(gate)] * 20)
        was_interrupted = interrupted_at(line, files, found.close)
        wait_until(lambda: not executor._pool.pending, f"nothing is under way, line {line}")
        if not was_interrupted:
            break
    assert line > 10


@pytest.mark.parametrize("is_one_by_one", [True, False])
def test_a_cancel_may_be_interrupted_at_any_line(make: Callable[..., Executor], tmp_path: Path, is_one_by_one: bool) -> None:
    """Of a future, which is cancelled again then, and of a map without chunks, which its end as garbage closes."""
    executor, gate = make(1, spares=0), str(tmp_path / "gate")
    files = {inspect.getfile(kind) for kind in (Pool, PendingCalls, Future, MapIterator)}
    for line in itertools.count():
        if is_one_by_one:
            future = executor.submit(calls.wait_for, gate)
            was_interrupted = interrupted_at(line, files, future.cancel)
            assert future.cancel()
        else:
            found: Any = executor.map(calls.wait_for, [gate] * 3, chunksize=1)
            was_interrupted = interrupted_at(line, files, found.close)
            del found
        wait_until(lambda: not executor._pool.pending, f"nothing is under way, line {line}")
        wait_until(lambda: all(row["job"] is None for row in executor._pool.workers()), f"nothing runs, line {line}")
        if not was_interrupted:
            break
    assert line > 10


def test_the_making_of_a_map_may_be_interrupted_at_any_line(make: Callable[..., Executor]) -> None:
    executor, files = make(1, spares=0), {inspect.getfile(ChunkedMap)}
    executor.submit(calls.add, 1).result(60)
    made: list[Any] = []
    for line in itertools.count():
        was_interrupted = interrupted_at(line, files, lambda: made.append(executor.map(calls.add, range(8))))
        made.clear()
        wait_until(lambda: not executor._pool.pending, f"nothing is under way, line {line}")
        if not was_interrupted:
            break
    assert line > 50


def test_two_threads_may_wait_for_items_of_one_map(executor: Executor, tmp_path: Path) -> None:
    gates = [str(tmp_path / str(number)) for number in range(2)]
    found, taken = executor.map(calls.wait_for, gates, chunksize=1), []
    threads = [threading.Thread(target=lambda: taken.append(next(found)), daemon=True) for _ in gates]
    results: Any = found
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda count=count: len(results._results._watchers._waits) == count, "it waits")
    for gate, thread in zip(gates, threads):
        Path(gate).touch()
        assert joins(thread)
    assert taken == gates
