"""A call as bytes: the function and its arguments.

| form | bytes behind it |
|---|---|
| `SPLIT` | length of the function's pickle (2 bytes, little endian), that pickle, the pickle of `(args, kwargs)` |
| `WHOLE` | the pickle of `(function, args, kwargs)`; in a file with buffers also with `PIECES` |
| `BY_CONTEXT` | the pickle of `(args, kwargs)`; the function is the last context of the call; in `PIECES` the function is `None` |

A plain function that pickle names by its module is pickled once and remembered by identity; workers remember it by these bytes. One
that goes by value (cloudpickle) carries globals and captured values, so it is pickled with each call and unpickled for each. An
object that is both in a closure and in the arguments is two objects in the worker. Bound methods, partials and other objects carry
state and are pickled with each call. Plain pickle is tried first; cloudpickle where that fails, and where a pickle names
something in a `__main__` that workers cannot import.
"""

from __future__ import annotations

import sys
import types

from . import _wire
from ._main_module import describe as describe_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from weakref import WeakKeyDictionary

SPLIT = 0
WHOLE = 1
BY_CONTEXT = 2

# What the first byte of a context says.
FUNCTION = 1
INITIALIZER = 2
MULTIPROCESSING = 3

FUNCTION_MAX = 2048
"""A function with a longer pickle is registered once as a context."""
_BY_VALUE_MAX = 256
_PLAIN_TYPES, _PROTOCOL, _plain_dumps = _wire.PLAIN_TYPES, _wire.PROTOCOL, _wire.plain_dumps

WHOLE_HEAD = bytes([WHOLE])
CONTEXT_HEAD = bytes([BY_CONTEXT])


class Head:
    """What is remembered of a plain function."""

    __slots__ = ("blob", "flavour", "prefix")

    def __init__(self, blob: bytes, flavour: int) -> None:
        """From its pickle."""
        self.flavour = flavour
        self.blob = blob if len(blob) > FUNCTION_MAX else None
        """Its pickle, if it goes as a context."""
        self.prefix = CONTEXT_HEAD if self.blob is not None else bytes([SPLIT]) + len(blob).to_bytes(2, "little") + blob
        """What stands before the arguments."""


class CallEncoder:
    """Makes calls into bytes, for one executor. Any thread may use it."""

    def __init__(self) -> None:
        # Here, because a worker, which needs this file for its constants, starts a millisecond earlier without it.
        from weakref import WeakKeyDictionary

        self._heads: WeakKeyDictionary[Any, Head] = WeakKeyDictionary()
        self._builtin_heads: dict[Any, Head] = {}
        # Functions that go by value, by their pickles.
        self._by_value: dict[bytes, Head] = {}
        self._flavours: dict[str, int] = {}
        self.modules: dict[str, None] = {}
        """Modules of the functions that were encoded, in their order."""

    def head(self, function: Callable[..., Any]) -> Head | None:
        """What stands before the arguments of a plain function; `None` for what is pickled with each call. Raises as `arguments`."""
        kind = type(function)
        if kind is types.FunctionType:
            return self._heads.get(function) or self._new_head(function)
        if kind is types.BuiltinFunctionType and isinstance(function.__self__, (types.ModuleType, type(None))):  # type: ignore[attr-defined]
            return self._builtin_heads.get(function) or self._new_head(function)
        return None

    def _new_head(self, function: Callable[..., Any]) -> Head:
        blob, _ = dumps_any(function, lambda: f"the function {name_of(function)}", is_whole=True)
        self.note_module(function)
        if is_by_value(blob):
            return self._head_by_value(blob, function)
        made = Head(blob, self.flavour(function))
        if type(function) is types.FunctionType:
            self._heads[function] = made
        else:
            self._builtin_heads[function] = made
        return made

    def short_head(self, function: Callable[..., Any]) -> Head | None:
        """The same of any callable, as it is now; `None` if its pickle is long. Raises as `arguments`."""
        blob, _ = dumps_any(function, lambda: f"the function {name_of(function)}", is_whole=True)
        self.note_module(function)
        return Head(blob, self.flavour(function)) if len(blob) <= FUNCTION_MAX else None

    def _head_by_value(self, blob: bytes, function: Callable[..., Any]) -> Head:
        found = self._by_value.get(blob)
        if found is None:
            if len(self._by_value) >= _BY_VALUE_MAX:
                self._by_value.clear()
            found = self._by_value[blob] = Head(blob, self.flavour(function))
        return found

    def arguments(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, list[memoryview]]:
        """The pickle of the arguments, and its buffers.

        Raises what pickling raises; the text names the argument and the fix.
        """
        if not kwargs:
            for value in args:
                if type(value) not in _PLAIN_TYPES:
                    break
            else:
                return _plain_dumps((args, kwargs), _PROTOCOL), []
        return dumps_any((args, kwargs), lambda: _which_argument(function, args, kwargs))

    def whole(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, list[memoryview]]:
        """The pickle of the whole call, and its buffers. Raises as `arguments`."""
        self.note_module(function)
        return dumps_any((function, args, kwargs), lambda: _which_part(function, args, kwargs))

    def flavour(self, function: Callable[..., Any]) -> int:
        """The number of a function's name: calls of one take about the same time."""
        inner = getattr(function, "func", function)
        name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
        found = self._flavours.get(name)
        if found is None:
            import zlib

            found = self._flavours[name] = zlib.crc32(name.encode("utf-8", "replace")) | 1
        return found

    def note_module(self, function: Callable[..., Any]) -> None:
        """Remembers the module of a function, so that workers that wait to replace another one import it before."""
        module = getattr(function, "__module__", None) or getattr(type(function), "__module__", None)
        if isinstance(module, str) and module not in self.modules and module != "builtins":
            self.modules[module] = None


def is_by_value(blob: bytes) -> bool:
    """Whether the pickle of a function holds the function itself: cloudpickle's names the functions that make it anew."""
    return b"cloudpickle" in blob


def name_of(value: Any) -> str:
    """A function or class by its module and name, anything else by the name of its type."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(value, '__module__', '?')}.{name}"
    return f"an object of type {type(value).__module__}.{type(value).__qualname__}"


def dumps_any(value: Any, describe: Callable[[], str], *, is_whole: bool = False) -> tuple[bytes, list[memoryview]]:
    """Pickles by pickle, or by what can do more where that fails. `describe` names the value for errors.

    `is_whole`: nothing goes out of band. `multiprocessing`'s own pickler knows connections, cloudpickle lambdas and what is
    defined in a `__main__` that workers cannot import.
    """
    failed: Exception | None = None
    try:
        data, buffers = (_wire.plain_dumps(value, _wire.PROTOCOL), []) if is_whole else _wire.dumps(value)
        if b"multiprocessing.connection" in data and "multiprocessing.reduction" in sys.modules:
            return _forking_dumps(value), []
        if b"__main__" not in data or describe_main() is not None:
            return data, buffers
    except Exception as error:
        failed = error
        if "multiprocessing.reduction" in sys.modules:
            try:
                return _forking_dumps(value), []
            except Exception:
                pass
    cloudpickle_dumps = cloud_dumps()
    if cloudpickle_dumps is None:
        raise _without_cloudpickle(failed, describe) from failed
    try:
        return (cloudpickle_dumps(value, _wire.PROTOCOL), []) if is_whole else _wire.dumps(value, cloudpickle_dumps)
    except Exception as error:
        raise _renamed(error, f"{describe()} cannot be pickled, also not by cloudpickle: {_text(error)}") from error


def _forking_dumps(value: Any) -> bytes:
    from multiprocessing.reduction import ForkingPickler

    return bytes(ForkingPickler.dumps(value, _wire.PROTOCOL))


def cloud_dumps() -> _wire.Dumps | None:
    """cloudpickle's, if it is installed."""
    try:
        import cloudpickle  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    found: _wire.Dumps = cloudpickle.dumps
    return found


def _without_cloudpickle(failed: Exception | None, describe: Callable[[], str]) -> Exception:
    if failed is None:
        return AttributeError(
            f"{describe()} cannot be sent to a worker: it names something that is defined in __main__, which workers cannot import"
            " (a notebook, a prompt, -c, or standard input): put it into a module, or install cloudpickle (pip install cloudpickle)"
        )
    fix = "define it at the top of a module, leave out what cannot be pickled, or install cloudpickle (pip install cloudpickle)"
    return _renamed(failed, f"{describe()} cannot be pickled: {_text(failed)}: {fix}")


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _renamed(error: Exception, text: str) -> Exception:
    """An exception of the same kind with a text that says more; the same one if its class takes no text."""
    import pickle

    for kind in (pickle.PicklingError, AttributeError, TypeError, RecursionError):
        if type(error) is kind:
            return kind(text)
    if hasattr(error, "add_note"):
        error.add_note(text)
    return error


def _fails(value: Any) -> bool:
    """Whether this value cannot be pickled, by pickle or by cloudpickle if it is there."""
    try:
        _wire.dumps(value)
    except Exception:
        cloudpickle_dumps = cloud_dumps()
        try:
            return cloudpickle_dumps is None or not cloudpickle_dumps(value, _wire.PROTOCOL)
        except Exception:
            return True
    return False


def _which_argument(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The first argument that cannot be pickled, in words."""
    for number, value in enumerate(args, 1):
        if _fails(value):
            return f"argument {number} of {name_of(function)} ({name_of(value)})"
    for name, value in kwargs.items():
        if _fails(value):
            return f"argument {name} of {name_of(function)} ({name_of(value)})"
    return f"a call of {name_of(function)}"


def _which_part(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return f"the function {name_of(function)}" if _fails(function) else _which_argument(function, args, kwargs)
