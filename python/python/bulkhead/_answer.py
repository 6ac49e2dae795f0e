"""What a call's end is as bytes: its first byte says what it is, or what the pickle or the text behind it is.

A value that was returned is its pickle alone, which begins with `RETURNED`: a byte before it would cost a copy on either side. The worker makes answers; the client reads them. An exception goes with the text of its traceback, which the client shows as
its cause, as `ProcessPoolExecutor` does.
"""

from __future__ import annotations


from . import _call, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import LongResult, MemoryFile

RETURNED = _wire.PICKLE_MARK
RAISED = 1
INITIALIZER_FAILED = 2
CALL_NOT_READABLE = 3

_TEXT_MAX = 16 << 10
_PLAIN_TYPES, _PROTOCOL, _plain_dumps = _wire.PLAIN_TYPES, _wire.PROTOCOL, _wire.plain_dumps


def returned(value: Any) -> bytes | LongResult:
    """The answer of a call that returned. If the value cannot be pickled, the answer is that error, which names its type."""
    try:
        if type(value) in _PLAIN_TYPES:
            return _plain_dumps(value, _PROTOCOL)
        data, buffers = _dumps(value)
    except Exception as error:
        return raised(_not_picklable(error, value))
    if buffers:
        pieces = _wire.Pieces(RETURNED, data, buffers)
        return pieces.length, pieces.write
    return data


def raised(error: BaseException) -> bytes:
    """The answer of a call that raised. An exception that cannot be pickled is replaced by one that names its type."""
    import traceback

    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = "".join(lines)
    error.__traceback__ = None
    try:
        data = _dumps_whole((error, text))
        _wire.loads(data)
    except BaseException as reason:
        data = _dumps_whole((_not_picklable(reason, error), text))
    return bytes([RAISED]) + data


def returned_whole(value: Any) -> tuple[bytes, bool]:
    """The pickle of a value alone, for a call of a chunk; or an answer, and `True`: what pickling it raised."""
    try:
        return _dumps_whole(value), False
    except Exception as error:
        return raised(_not_picklable(error, value)), True
    except BaseException as error:
        return raised(error), True


def text(tag: int, words: str) -> bytes:
    """An answer that is a text."""
    return bytes([tag]) + words[-_TEXT_MAX:].encode("utf-8", "replace")


def traceback_text() -> str:
    """The traceback of the exception that is handled now."""
    import traceback

    return traceback.format_exc()


def _dumps(value: Any) -> tuple[bytes, list[memoryview]]:
    """By pickle; by cloudpickle if that fails and it is there."""
    try:
        return _wire.dumps(value)
    except Exception:
        cloud_dumps = _call.cloud_dumps()
        if cloud_dumps is None:
            raise
        return _wire.dumps(value, cloud_dumps)


def _dumps_whole(value: Any) -> bytes:
    """The same with nothing out of band."""
    try:
        return _wire.plain_dumps(value, _wire.PROTOCOL)
    except Exception:
        cloud_dumps = _call.cloud_dumps()
        if cloud_dumps is None:
            raise
        return cloud_dumps(value, _wire.PROTOCOL)


def _not_picklable(reason: BaseException, value: Any) -> Exception:
    import pickle

    kind = type(value)
    what = f"the exception {kind.__module__}.{kind.__qualname__} ({value})" if isinstance(value, BaseException) else (
        f"the result of type {kind.__module__}.{kind.__qualname__}"
    )
    fix = "return a list instead of a generator" if kind.__name__ in ("generator", "map", "filter", "zip") else (
        "return plain data, or give the class a __reduce__ method"
    )
    made = pickle.PicklingError(f"{what} cannot be pickled: {type(reason).__name__}: {reason}: {fix}")
    made.__cause__ = reason if isinstance(reason, Exception) else None
    return made


def read(answer: bytes | MemoryFile) -> tuple[bool, Any]:
    """Whether the call returned, and the value or the exception; what cannot be read is a `ResultNotReadable`. Raises only what is no
    `Exception` (Ctrl-C)."""
    try:
        if type(answer) is bytes:
            view = memoryview(answer)
        else:
            view = _wire.content_of(answer)  # type: ignore[arg-type]
        tag = view[0]
        if tag == RETURNED:
            return True, _wire.loads(view)
        if tag == RETURNED | _wire.PIECES:
            return True, _wire.load_pieces(view)
        if tag == RAISED:
            error, words = _wire.loads(view[1:])
            return False, _with_cause(error, words)
        return False, _failure(tag, bytes(view[1:]).decode("utf-8", "replace"))
    except Exception as error:
        return False, not_readable(error)


def read_of_chunk(answer: bytes | MemoryFile, is_failed: bool) -> tuple[bool, Any]:
    """The same of a call of a chunk, whose value is a pickle alone."""
    if is_failed:
        return read(answer)
    try:
        return True, _wire.loads(answer if type(answer) is bytes else _wire.content_of(answer))  # type: ignore[arg-type]
    except Exception as error:
        return False, not_readable(error)


def _with_cause(error: BaseException, words: str) -> BaseException:
    # The class and its look are those of the standard library.
    from concurrent.futures.process import _RemoteTraceback

    error.__cause__ = _RemoteTraceback(f'\n"""\n{words}"""')  # type: ignore[arg-type]
    return error


def _failure(tag: int, words: str) -> Exception:
    from . import errors

    if tag == INITIALIZER_FAILED:
        return errors.InitializerFailed(f"the initializer of the executor failed in a worker, so that it takes no further calls:\n{words}")
    return errors.CallNotReadable(
        f"the worker could not unpickle the call, so nothing was run: its modules must be importable there (it has this sys.path):\n{words}"
    )


def not_readable(error: BaseException) -> Exception:
    """The exception of a call whose answer raised this when it was unpickled."""
    from . import errors

    made = errors.ResultNotReadable(f"what the call returned or raised cannot be unpickled here: {type(error).__name__}: {error}")
    made.__cause__ = error
    return made
