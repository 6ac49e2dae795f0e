"""A chunk of calls in a worker: one function called for many items, the result of each stored before the next call begins.

Loaded with the first chunk of a worker. What stands in a chunk is written by `_chunks.py`.
"""

from __future__ import annotations

from . import _answer, _call, _chunks, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from ._native import ChunkResults


def run(head: bytes, items: Sequence[bytes], context: Any, function_of: Callable[[bytes], Any], results: ChunkResults) -> None:
    """Runs the calls of a chunk until one ends the worker, or the chunk is to end. `context` is the last one of the chunk."""
    try:
        view = memoryview(head)[1:]
        if view[0] == _call.BY_CONTEXT:
            load, rest, is_by_value = context.load, view[1:], True
        else:
            at = 3 + view[1] + (view[2] << 8)
            blob, rest = bytes(view[3:at]), view[at:]
            load, is_by_value = (lambda: function_of(blob)), _call.is_by_value(blob)
        if head[0] == _chunks.LISTED:
            function, calls = load(), _wire.loads(rest[_chunks.FIRST_BYTES :])
            calls = calls[int.from_bytes(rest[: _chunks.FIRST_BYTES], "little") :]
    except BaseException:
        return refuse(_answer.text(_answer.CALL_NOT_READABLE, _answer.traceback_text()), items, results)
    del view, rest
    if head[0] == _chunks.LISTED:
        _run_listed(function, calls, results)
    else:
        _run_each(load, is_by_value, items, results)


def refuse(answer: bytes, items: Sequence[bytes], results: ChunkResults) -> None:
    """Gives every call this answer, and runs none."""
    if results.begin():
        for _ in items:
            if not results.store(answer, True):
                return


def _run_listed(function: Any, calls: Iterable[Any], results: ChunkResults) -> None:
    if not results.begin():
        return
    store, store_plain, dumps, protocol = results.store, results.store_plain, _wire.plain_dumps, _wire.PROTOCOL
    goes_on: bool | None
    for args in calls:
        try:
            value = function(*args)
        except BaseException as error:
            goes_on = store(_answer.raised(error), True)
        else:
            goes_on = store_plain(value)
            if goes_on is None:
                try:
                    data, is_failed = dumps(value, protocol), False
                except BaseException:
                    data, is_failed = _answer.returned_whole(value)
                del value
                goes_on = store(data, is_failed)
        if not goes_on:
            return


def _run_each(load: Callable[[], Any], is_by_value: bool, items: Sequence[bytes], results: ChunkResults) -> None:
    """The same of calls whose arguments are pickled one by one. A function that goes by value is made anew for each."""
    if not results.begin():
        return
    function = None
    for item in items:
        try:
            if function is None or is_by_value:
                function = load()
            args = _wire.loads(item)
        except BaseException:
            data, is_failed = _answer.text(_answer.CALL_NOT_READABLE, _answer.traceback_text()), True
        else:
            try:
                value = function(*args)
            except BaseException as error:
                data, is_failed = _answer.raised(error), True
            else:
                data, is_failed = _answer.returned_whole(value)
                del value
            del args
        if not results.store(data, is_failed):
            return
