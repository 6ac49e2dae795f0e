"""Threads that wait until something has changed, without a lock around what changes.

`threading.Condition` is not made for Ctrl-C: an exception that a signal handler raises in its `wait` may come between two of its
lines, and then ends in `RuntimeError: cannot release un-acquired lock`, or leaves the lock held. Here each wait has a lock of its
own, which nobody else acquires; so an interruption at any line leaves at most that lock behind. Used by `_map.py` and `_pending.py`.
"""

from __future__ import annotations

import threading
import time
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from _thread import LockType


class WaitingThreads:
    """See the head of this file. Any thread, and a signal handler, may call both at any line of the other."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waits: list[tuple[LockType, Callable[[], object]]] = []

    def wait(self, is_met: Callable[[], object], until: float | None = None) -> bool:
        """Waits until `is_met()`, which `wake` calls too, in its thread; `False`: it was not met at the moment `until`."""
        own = allocate_lock()
        own.acquire()
        entry = own, is_met
        try:
            # In this order: who changes something after the look finds the entry.
            self._waits.append(entry)
            while not is_met():
                left = -1.0 if until is None else until - time.monotonic()
                if until is not None and left <= 0:
                    return False
                own.acquire(True, min(left, threading.TIMEOUT_MAX))
            return True
        finally:
            if entry in self._waits:
                self._waits.remove(entry)

    def wake(self) -> None:
        """Wakes those whose condition is met. An interrupted call is to be repeated."""
        for lock, is_met in list(self._waits):
            if is_met():
                try:
                    lock.release()
                except RuntimeError:
                    continue  # It was released before, and its thread has not run since.

    def are_there(self) -> bool:
        """Whether any thread waits."""
        return bool(self._waits)
