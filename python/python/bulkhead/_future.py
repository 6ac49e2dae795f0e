"""The future of a call: a `concurrent.futures.Future` whose condition, lock and lists are made when somebody needs them.

Most futures are only asked once they are done, and a condition costs more than the rest of a call. The names that
`concurrent.futures.wait` and `as_completed` reach into (`_condition`, `_state`, `_waiters`, `_done_callbacks`) mean what they
mean in the standard library. A future never changes its state without its condition once somebody has made it, so that nobody
who waits sees it done twice. `result` and `exception` wait without it, because Ctrl-C in the midst of `Condition.wait` ends in
`RuntimeError` (`_waiting.py`). Made by `_executor.py`, completed by `_pool.py`.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import _base

from ._ending import CANCELLED
from ._waiting import WaitingThreads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from ._pool import Pool

    T = TypeVar("T")
else:
    T = "T"

PENDING = _base.PENDING
FINISHED = _base.FINISHED
_CANCELLED_STATES = (_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED)
_DONE_STATES = (_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED, _base.FINISHED)

# A signal handler may run between any two lines of a holder of this lock and submit or cancel itself: so it is reentrant.
_making = threading.RLock()

# With more calls under way a waiting thread leaves the reading to the background thread, which completes many at once.
LEAD_MAX = 8


class _LeadingEvent:
    """The event of a waiter of `wait` or `as_completed` in a done callback: its thread reads the session while it waits."""

    def __init__(self, pool: Pool, event: threading.Event) -> None:
        self._pool = pool
        self._event = event
        self.set, self.clear, self.is_set = event.set, event.clear, event.is_set

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Event.wait`."""
        until = None if timeout is None else time.monotonic() + timeout
        self._pool.lead_in_callback(self._event.is_set, timeout)
        return self._event.wait(None if until is None else max(until - time.monotonic(), 0.0))


class _Waiters(list["Any"]):
    """The waiters of a future, to which `concurrent.futures` appends."""

    def __init__(self, pool: Pool | None) -> None:
        self._pool = pool

    def append(self, waiter: Any) -> None:
        """Adds a waiter. Nobody but this thread may wait for its event."""
        is_led = type(waiter.event) is _LeadingEvent  # One waiter is appended to each future.
        if self._pool is not None and not is_led and self._pool.calls.is_telling():
            waiter.event = _LeadingEvent(self._pool, waiter.event)
        super().append(waiter)


class Future(_base.Future[T]):
    """The result of a call that runs, or will run, in a worker. It is a `concurrent.futures.Future`.

    `cancel()` differs from the standard library's: it also ends a call that runs, with the processes that it has started.
    """

    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _lazy_condition: threading.Condition | None = None
    _lazy_waiters: list[Any] | None = None
    _lazy_callbacks: list[Callable[[Any], object]] | None = None
    _lazy_waits: WaitingThreads | None = None
    # The waiters it had when it became done that do not know it yet.
    _untold: list[Any] | None = None
    _pool: Pool | None = None
    _token: int = 0

    def __init__(self) -> None:
        """Makes a pending future that belongs to no call, for tests. `Executor.submit` makes the others."""

    # For type checkers these three are the attributes of the base class.
    if not TYPE_CHECKING:

        @property
        def _condition(self) -> threading.Condition:
            condition = self._lazy_condition
            if condition is None:
                made = threading.Condition()
                with _making:
                    # No call stands here: a signal handler that waits for a result would keep the lock from the thread that completes it.
                    condition = self._lazy_condition
                    if condition is None:
                        condition = self._lazy_condition = made
            return condition

        @property
        def _waiters(self) -> list[Any]:
            waiters = self._lazy_waiters
            # One step, and no lock, as in `_await_done`.
            return waiters if waiters is not None else self.__dict__.setdefault("_lazy_waiters", _Waiters(self._pool))

        @_waiters.setter
        def _waiters(self, waiters: list[Any]) -> None:
            self._lazy_waiters = waiters

        @property
        def _done_callbacks(self) -> list[Callable[[Any], object]]:
            callbacks = self._lazy_callbacks
            return callbacks if callbacks is not None else self.__dict__.setdefault("_lazy_callbacks", [])

        @_done_callbacks.setter
        def _done_callbacks(self, callbacks: list[Callable[[Any], object]]) -> None:
            self._lazy_callbacks = callbacks

    def done(self) -> bool:
        """Whether the call has ended or was cancelled."""
        return self._state in _DONE_STATES

    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return self._state in _CANCELLED_STATES

    def running(self) -> bool:
        """Whether a worker has begun the call, or begins it next. It asks the daemon, which takes about as long as a call."""
        pool = self._pool
        if pool is None:
            return super().running()
        return self._state == PENDING and pool.is_running(self._token)

    def progress(self) -> tuple[int, int] | None:
        """The last `(done, total)` that the call reported with `bulkhead.progress`; `None` if it reported nothing or has ended.

        `total` is 0 if the call did not say it. The daemon tells it from time to time.
        """
        pool = self._pool
        return pool.progress_of(self._token) if pool is not None and self._state == PENDING else None

    def cancel(self) -> bool:
        """Cancels the call, also if it runs: its worker and the processes that it started are killed, and another takes its place.

        With `cancel_grace=` of the executor a running call may end by itself first (`bulkhead.cancelled()`). With
        `strict_stdlib=True` a running call is left alone, as in the standard library. `False`: the call has ended, or is left alone.
        """
        pool = self._pool
        if pool is not None and pool.is_strict and self._state == PENDING:
            return pool.cancel_strictly(self)
        if pool is None:
            return super().cancel()
        if not self._settle(False, CANCELLED) and self._state not in _CANCELLED_STATES:
            return False
        # Also for one that is cancelled: Ctrl-C may have come between the two.
        pool.drop(self._token)
        self._invoke_callbacks()
        return True

    def _settle(self, is_result: bool, value: Any) -> bool:
        """Makes a pending future a done one, and tells those who wait; done callbacks are still to be called. `False`: it was done before;
        then those are told whom an interruption of the first time has left out."""
        condition = self._condition
        # Its lock itself: Ctrl-C in the condition's own `__exit__`, which is Python, would leave it held.
        with condition._lock:  # type: ignore[attr-defined]
            is_first = self._state not in _DONE_STATES
            if is_first:
                self._untold = list(self._lazy_waiters or ())
                if value is CANCELLED:
                    self._state = _base.CANCELLED_AND_NOTIFIED
                elif is_result:
                    self._result = value
                    self._state = FINISHED
                else:
                    self._exception = value
                    self._state = FINISHED
            while self._untold:
                # Those that were added to a done future have seen that it is done.
                waiter = self._untold[-1]
                if self not in waiter.finished_futures:
                    if self._state is not FINISHED:
                        waiter.add_cancelled(self)
                    elif self._exception is None:
                        waiter.add_result(self)
                    else:
                        waiter.add_exception(self)
                del self._untold[-1]
            self._untold = None
            condition.notify_all()
        self._wake()
        return is_first

    def _wake(self) -> None:
        """Wakes the threads that wait in `result` and `exception`, once it is done."""
        if self._lazy_waits is not None:
            self._lazy_waits.wake()

    def _invoke_callbacks(self) -> None:
        """Wakes those who wait, and calls each done callback once; after an interruption those that are left."""
        self._wake()  # First, because a callback may wait for a thread that waits for it.
        callbacks = self._lazy_callbacks
        while callbacks:
            # No call stands between these two lines, so neither a signal handler nor another thread comes between.
            callback = callbacks[0]
            del callbacks[0]
            try:
                callback(self)
            except Exception:
                _base.LOGGER.exception("exception calling callback for %r", self)

    def result(self, timeout: float | None = None) -> T:
        """What the call returned; waits at most `timeout` seconds.

        Raises what the call raised, `TimeoutError` if it has not ended in time, `CancelledError` if it was cancelled, and the errors
        of `bulkhead.errors` if its worker died or a limit was met.
        """
        if self._state not in _DONE_STATES:
            self._await_done(timeout)
        if self._state is FINISHED and self._exception is None:
            return self._result  # type: ignore[no-any-return]
        try:
            raise (_base.CancelledError() if self._exception is None else self._exception)
        finally:
            # The exception's traceback has this frame: without the name it would keep the future alive.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or `None`; waits and raises as `result` does."""
        if self._state not in _DONE_STATES:
            self._await_done(timeout)
        if self._state is not FINISHED:
            raise _base.CancelledError()
        return self._exception

    def _await_done(self, timeout: float | None) -> None:
        """Waits until it is done; while few calls are under way, this thread reads the daemon's replies. Raises `TimeoutError`."""
        left = timeout if self._pool is None else self._pool.wait_leading(self, timeout)
        if self._state in _DONE_STATES:
            return
        # One step, and no lock: two threads may come here at the same time.
        waits = self.__dict__.setdefault("_lazy_waits", WaitingThreads())
        if not waits.wait(self.done, None if left is None else time.monotonic() + left):
            raise _base.TimeoutError()

    def set_result(self, result: T) -> None:
        """Completes it. For the executor and for tests, as in the standard library."""
        if self._set_lazily(True, result):
            self._wake()
        else:
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Completes it by an exception. For the executor and for tests, as in the standard library."""
        if self._set_lazily(False, exception):
            self._wake()
        else:
            super().set_exception(exception)

    def _set_lazily(self, is_result: bool, value: Any) -> bool:
        """Completes it without a condition; `False`: nothing was done, because it has one or is not pending. The caller holds no lock."""
        with _making:
            is_lazy = self._lazy_condition is None and self._state is PENDING
            if is_lazy:
                if is_result:
                    self._result = value
                else:
                    self._exception = value
                self._state = FINISHED
            return is_lazy


def complete(done: Iterable[tuple[Future[Any], bool, Any]]) -> None:
    """Completes many: each is a future, whether its call returned, and what it returned or raised, or `CANCELLED`. Those that are done stay
    as they are. Done callbacks are called when all are done, because they may ask for each other's results."""
    waited = []
    with _making:
        for future, is_result, value in done:
            if future._lazy_condition is not None:
                waited.append((future, is_result, value))
                continue
            if future._state is PENDING:
                if is_result:
                    future._result = value
                    future._state = FINISHED
                elif value is CANCELLED:
                    future._state = _base.CANCELLED_AND_NOTIFIED
                else:
                    future._exception = value
                    future._state = FINISHED
            # After the state: a thread that begins to wait looks at that when its wait can be found.
            if future._lazy_waits is not None:
                future._wake()
    for future, is_result, value in waited:
        future._settle(is_result, value)
    for future, _, _ in waited:
        future._invoke_callbacks()


def _renew_lock() -> None:
    """In a forked child: a thread that is not there may hold it."""
    global _making
    _making = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
