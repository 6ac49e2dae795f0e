"""The calls of an executor that have no end yet, by their tokens, and how they end: futures and items of maps are completed here.

What ends calls may be interrupted at any line by Ctrl-C, and is then done again from its begin: a call leaves the table only when all
who wait for it have been told. Driven by `_pool.py` and `_events.py`.
"""

from __future__ import annotations

import threading

from ._ending import again
from ._future import Future, complete
from ._waiting import WaitingThreads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TypeAlias

    from ._chunk_ends import MapChunk
    from ._chunks import ChunkedMap
    from ._lost_daemon import SentCall
    from ._map import MapResults

    Target: TypeAlias = Future[Any] | tuple[MapResults, int] | MapChunk | ChunkedMap
    Ended: TypeAlias = tuple[int, Target, bool, Any]


class PendingCalls:
    """See the head of this file."""

    def __init__(self) -> None:
        """None is under way."""
        self.targets: dict[int, Target] = {}
        """What each call completes: a future, an item of a map, a chunk of items; a map stands for what is not sent of it."""
        self.progress: dict[int, tuple[int, int]] = {}
        """What calls have told of their progress, `(done, total)`."""
        self.begun: set[int] = set()
        """Calls of which the daemon has said, after a cancel, that a worker has begun them."""
        self.sent: dict[int, SentCall] = {}
        """Calls with `retries`, to be sent again if their daemon is lost."""
        self._idle = WaitingThreads()
        self._tellers: list[int] = []

    def take_out(self, token: int) -> None:
        """Forgets a call that was not sent."""
        self.targets.pop(token, None)
        self.sent.pop(token, None)
        self._tell_idle()

    def drop(self, tokens: Iterable[int]) -> None:
        """Forgets calls of which nobody wants the result."""
        for token in tokens:
            self.targets.pop(token, None)
            self.progress.pop(token, None)
            self.begun.discard(token)
            self.sent.pop(token, None)
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self.targets and self._idle.are_there():
            self._idle.wake()

    def tell_waiting(self) -> None:
        """Has those in `wait_idle` look again."""
        self._idle.wake()

    def wait_idle(self, is_over: Any) -> None:
        """Waits until no call is under way, or `is_over()`."""
        self._idle.wait(lambda: not self.targets or is_over())

    def is_telling(self) -> bool:
        """Whether this thread completes calls of this executor just now: it runs a done callback, or a signal handler."""
        return bool(self._tellers) and threading.get_ident() in self._tellers

    def finish(self, ended: list[Ended]) -> None:
        """Completes these calls, each `(token, target, whether it returned, result or exception)`, and runs done callbacks."""
        ident, tellers = threading.get_ident(), self._tellers
        try:
            tellers.append(ident)
            self._complete(ended)
        finally:
            if ident in tellers:
                tellers.remove(ident)

    def _complete(self, ended: list[Ended]) -> None:
        touched, futures = set(), []
        for _, target, is_result, value in ended:
            if type(target) is Future:
                futures.append((target, is_result, value))
            elif type(target) is tuple:
                results, index = target
                results.there[index] = results.set(index, is_result, value)
                touched.add(results)
            else:
                if not is_result:
                    target.fail_all(lambda value=value: again(value))  # type: ignore[union-attr,misc]
                touched.add(target.results)  # type: ignore[union-attr]
        for results in touched:
            results.tell()
        if futures:
            complete(futures)
        take_out = self.targets.pop
        for token, _, _, _ in ended:
            take_out(token, None)
            if self.progress or self.begun:
                self.progress.pop(token, None)
                self.begun.discard(token)
            if self.sent:
                self.sent.pop(token, None)
        self._tell_idle()

    def all_with(self, error: Exception) -> list[Ended]:
        """The end of each call that is under way by this error; each has an exception of its own."""
        return list(self._all_with(error))

    def _all_with(self, error: Exception) -> Iterator[Ended]:
        # A copy is one step. To list the items makes tuples, at which the garbage collector may let another thread submit.
        for token, target in self.targets.copy().items():
            yield token, target, False, again(error)

    def forget(self) -> None:
        """In a forked child: threads that are not there may hold these locks."""
        self._idle = WaitingThreads()
        self._tellers = []
        for target in list(self.targets.values()):
            if type(target) is Future:
                target._lazy_condition = None
