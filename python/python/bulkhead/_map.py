"""The results of `Executor.map`: in the order of the items, without a future for each.

Completed by `_pool.py`, read by the iterator that `map` returns.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import _base

from ._ending import CANCELLED
from ._waiting import WaitingThreads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from ._chunks import ChunkedMap
    from ._options import CallOptions
    from ._pool import Pool

# Tokens of maps: each map has 2**32 of them, above those of single calls.
_maps = itertools.count(1 << 31)

_RETURNED, _RAISED = 1, 2
_RETURNED_MARK = bytes([_RETURNED])
# So many results are taken at a time.
_TAKEN_MAX = 1024
# So many items are pickled before the first of them are sent.
_ADDED_AT_ONCE = 256


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
        self._watchers = WaitingThreads()

    def grow(self, count: int) -> None:
        """Makes room for so many further items."""
        self._values.extend([None] * count)
        self.there.extend(bytes(count))

    def set(self, index: int, is_result: bool, value: Any) -> int:
        """Keeps what became of an item; the mark for `there`."""
        if not self.there[index]:
            self._values[index] = value
        return self.there[index] or (_RETURNED if is_result else _RAISED)

    def set_returned(self, begin: int, values: list[Any]) -> None:
        """Keeps the results of neighbouring items."""
        end = begin + len(values)
        self._values[begin:end] = values
        self.there[begin:end] = _RETURNED_MARK * len(values)

    def take_returned(self, begin: int) -> list[Any]:
        """The results that are there from this item on, without a gap, in reverse; they are then forgotten."""
        there = self.there[begin : begin + _TAKEN_MAX]
        end = begin + len(there) - len(there.lstrip(_RETURNED_MARK))
        values = self._values[begin:end]
        self._values[begin:end] = [None] * len(values)
        values.reverse()
        return values

    def tell(self) -> None:
        """Wakes who waits for something that is there."""
        self._watchers.wake()

    def put(self, index: int, is_result: bool, value: Any) -> None:
        """Keeps what became of an item, and wakes who waits for it."""
        self.there[index] = self.set(index, is_result, value)
        self.tell()

    def take(self, index: int, until: float | None) -> Any:
        """The result of an item, which is then forgotten. Raises what it raised, and `TimeoutError` after the moment `until`."""
        if not self.wait(index, until):
            raise _base.TimeoutError()
        value, self._values[index] = self._values[index], None
        if self.there[index] == _RETURNED:
            return value
        try:
            raise (_base.CancelledError() if value is CANCELLED else value)
        finally:
            # The traceback has this frame, and must not keep the exception alive by it.
            del value

    def wait(self, index: int, until: float | None) -> bool:
        """Waits until an item has ended; `False`: it has not at the moment `until`."""
        if self.there[index]:
            return True
        return self._watchers.wait(lambda: self.there[index], until)

    def open_tokens(self, begin: int) -> list[int]:
        """The tokens of the items from this one on whose end is not known."""
        return [self.first_token + index for index in range(begin, len(self.there)) if not self.there[index]]


class MapIterator:
    """Gives the results of a map in the order of its items. Closing it, an error, a timeout and its end as garbage cancel the rest."""

    # For one whose making was interrupted.
    _is_closed = _is_over = True

    def __init__(self, pool: Pool, results: MapResults, until: float | None, items: Iterator[tuple[Any, ...]] = iter(())) -> None:
        """`items`: those that are submitted one by one, each when a result is asked for."""
        self._pool = pool
        self._results = results
        self._until = until
        self._items = items
        self._next = 0
        self._is_closed = self._is_over = False

    def __iter__(self) -> MapIterator:
        return self

    def __next__(self) -> Any:
        """The next result. Raises what its call raised, and `TimeoutError` after the time of `map`."""
        if self._is_over:
            raise StopIteration
        if self._pool.is_forked:
            raise RuntimeError("this map belongs to the parent of this forked process: its results do not come here")
        try:
            for args in itertools.islice(self._items, 1):
                add(self._pool, self._results, args)
            if self._next == len(self._results.there):
                raise StopIteration
            index, until = self._next, self._until
            self._next += 1
            if self._pool.calls.is_telling():
                left = None if until is None else until - time.monotonic()
                self._pool.lead_in_callback(lambda: bool(self._results.there[index]), left)
            return self._results.take(index, until)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancels the items whose end is not known. A second call does nothing."""
        # First: cancelled items have no end that anybody could wait for, also if this is interrupted.
        self._is_over = True
        if not self._is_closed:
            # Interrupted, it is not closed: its end as garbage does it again.
            self._pool.drop_many(self._results.open_tokens(max(self._next - 1, 0)))
            self._is_closed = True

    def __del__(self) -> None:
        self.close()


def all_at_once(pool: Pool, results: MapResults, items: list[tuple[Any, ...]], until: float | None) -> MapIterator:
    """Submits all items now."""
    results.grow(len(items))
    try:
        pool.submit_map(results, items)
        return MapIterator(pool, results, until)
    except BaseException:
        pool.drop_many(results.open_tokens(0))
        raise


def buffered(
    pool: Pool, results: MapResults, items: Iterator[tuple[Any, ...]], buffersize: int, until: float | None
) -> MapIterator:
    """As `all_at_once`, but at most `buffersize` items are taken from their iterators before their results are asked for."""
    try:
        for args in itertools.islice(items, buffersize):
            add(pool, results, args)
        return MapIterator(pool, results, until, items)
    except BaseException:
        pool.drop_many(results.open_tokens(0))
        raise


def in_chunks(
    pool: Pool, results: ChunkedMap, items: Iterator[tuple[Any, ...]], buffersize: int | None, until: float | None
) -> Iterator[Any]:
    """Submits items in chunks: all now, or `buffersize` of them and the others as results are asked for."""
    try:
        if buffersize is None:
            _add_all(results, items)
        else:
            for args in itertools.islice(items, buffersize):
                results.add(args)
            results.pump()
    except BaseException:
        try:
            results.close()
        except BaseException:
            results.close_later()
            raise
        raise
    # A generator that has begun runs its end, also as garbage.
    found = _results_of(results, None if buffersize is None else items, until)
    next(found)
    return found


def _add_all(results: ChunkedMap, items: Iterable[tuple[Any, ...]]) -> None:
    items, step = iter(items), results.size or _ADDED_AT_ONCE
    for number in itertools.count():
        # A tuple for each item of a long map at the same time would cost the garbage collector as much as the rest of it.
        some = list(itertools.islice(items, step))
        if not some:
            break
        if results.size is not None:
            results.add_listed(some)
        else:
            for args in some:
                results.add(args)
        if number < 4 or results.size is None or number % 16 == 0:
            results.pump()
    results.is_whole = True
    results.pump()


def _results_of(results: ChunkedMap, items: Iterator[tuple[Any, ...]] | None, until: float | None) -> Iterator[Any]:
    """The results in the order of the items, behind a first `None`. Its end cancels what is open."""
    at = 0
    try:
        yield None
        while True:
            if items is not None:
                for args in itertools.islice(items, 1):
                    results.check_open()
                    results.add(args)
                    results.pump()
            elif taken := results.take_returned(at):
                at += len(taken)
                while taken:
                    yield taken.pop()
                continue
            if at == len(results.there):
                return
            at += 1
            yield results.await_one(at - 1, until)
    finally:
        try:
            results.close()
        except BaseException:
            results.close_later()
            raise


def add(pool: Pool, results: MapResults, args: tuple[Any, ...]) -> None:
    """Submits one more item."""
    index = len(results.there)
    results.grow(1)
    pool.submit_one_of_map(results, index, args)
