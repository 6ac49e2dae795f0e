"""The results of `Executor.map`: in the order of the items, without a future for each.

Completed by `_pool.py`, read by the generator that `map` returns.
"""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import _base

from ._ending import CANCELLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from ._options import CallOptions
    from ._pool import Pool

# Tokens of maps: each map has 2**32 of them, above those of single calls.
_maps = itertools.count(1 << 31)

_RETURNED, _RAISED = 1, 2


class MapResults:
    """What the items of one map became, as far as it is known. Results that were taken are forgotten."""

    def __init__(self, function: Callable[..., Any], options: CallOptions) -> None:
        """No items yet."""
        self.function = function
        self.options = options
        self.first_token = next(_maps) << 32
        self.there = bytearray()
        """For each item 0, `_RETURNED` or `_RAISED`."""
        self._values: list[Any] = []
        self._changed = threading.Condition(threading.RLock())
        self._wanted = 0

    def grow(self, count: int) -> None:
        """Makes room for so many further items."""
        self._values.extend([None] * count)
        self.there.extend(bytes(count))

    def set(self, index: int, is_result: bool, value: Any) -> int:
        """Keeps what became of an item; the mark for `there`."""
        if not self.there[index]:
            self._values[index] = value
        return self.there[index] or (_RETURNED if is_result else _RAISED)

    def tell(self) -> None:
        """Wakes who waits, if it waits for something that is there."""
        if self._wanted >= len(self.there) or self.there[self._wanted]:
            with self._changed:
                self._changed.notify_all()

    def put(self, index: int, is_result: bool, value: Any) -> None:
        """Keeps what became of an item, and wakes who waits for it."""
        self.there[index] = self.set(index, is_result, value)
        self.tell()

    def take(self, index: int, until: float | None) -> Any:
        """The result of an item, which is then forgotten. Raises what it raised, and `TimeoutError` after the moment `until`."""
        if not self.there[index]:
            self._wait(index, until)
        value, self._values[index] = self._values[index], None
        if self.there[index] == _RETURNED:
            return value
        try:
            raise (_base.CancelledError() if value is CANCELLED else value)
        finally:
            # The traceback has this frame, and must not keep the exception alive by it.
            del value

    def _wait(self, index: int, until: float | None) -> None:
        with self._changed:
            self._wanted = index
            while not self.there[index]:
                left = None if until is None else until - time.monotonic()
                if (left is not None and left <= 0) or not self._changed.wait(left):
                    if not self.there[index]:
                        raise _base.TimeoutError()

    def open_tokens(self, begin: int) -> list[int]:
        """The tokens of the items from this one on whose end is not known."""
        return [self.first_token + index for index in range(begin, len(self.there)) if not self.there[index]]


def all_at_once(pool: Pool, results: MapResults, items: list[tuple[Any, ...]], until: float | None) -> Generator[Any, None, None]:
    """Submits all items now; the generator gives their results in order and cancels the rest when it ends early."""
    results.grow(len(items))
    try:
        pool.submit_map(results, items)
    except BaseException:
        pool.drop_many(results.open_tokens(0))
        raise
    return _in_order(pool, results, len(items), until)


def _in_order(pool: Pool, results: MapResults, count: int, until: float | None) -> Generator[Any, None, None]:
    index = 0
    try:
        while index < count:
            index += 1
            yield results.take(index - 1, until)
    finally:
        if index < count or (count and not results.there[count - 1]):
            pool.drop_many(results.open_tokens(index - 1 if index else 0))


def buffered(
    pool: Pool, results: MapResults, items: Iterator[tuple[Any, ...]], buffersize: int, until: float | None
) -> Generator[Any, None, None]:
    """As `all_at_once`, but at most `buffersize` items are taken from their iterators before their results are asked for."""
    for args in itertools.islice(items, buffersize):
        _add(pool, results, args)
    return _refilled(pool, results, items, until)


def _add(pool: Pool, results: MapResults, args: tuple[Any, ...]) -> None:
    index = len(results.there)
    results.grow(1)
    pool.submit_one_of_map(results, index, args)


def _refilled(pool: Pool, results: MapResults, items: Iterator[tuple[Any, ...]], until: float | None) -> Generator[Any, None, None]:
    index = 0
    try:
        while index < len(results.there):
            for args in itertools.islice(items, 1):
                _add(pool, results, args)
            index += 1
            yield results.take(index - 1, until)
    finally:
        pool.drop_many(results.open_tokens(max(index - 1, 0)))
