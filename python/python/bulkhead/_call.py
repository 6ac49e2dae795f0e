"""A call as bytes: the function and its arguments.

| form | bytes behind it |
|---|---|
| `SPLIT` | length of the function's pickle (2 bytes, little endian), that pickle, the pickle of `(args, kwargs)` |
| `WHOLE` | the pickle of `(function, args, kwargs)` |

A plain function is pickled once and remembered by identity; workers remember what they unpickled by these bytes. So an object
that is both in a closure and in the arguments is two objects in the worker. Bound methods, partials and other objects carry
state and are pickled with each call. Plain pickle is tried first, cloudpickle where that fails, and where a pickle names
something in a `__main__` that workers cannot import.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from . import _wire

if TYPE_CHECKING:
    from collections.abc import Callable

    Head = bytes

SPLIT = 0
WHOLE = 1

FUNCTION_MAX = 2048
"""A function with a longer pickle travels in the form `WHOLE`."""

_PLAIN = (types.FunctionType, types.BuiltinFunctionType)
_WHOLE_HEAD = bytes([WHOLE])


def is_main_importable(main: types.ModuleType | None = None) -> bool:
    """Whether a worker can import the main module again: not in a notebook, at a prompt, with `-c`, or from standard input."""
    main = main or sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return not (spec.name == "__main__" or spec.name.endswith(".__main__"))
    path = getattr(main, "__file__", None)
    return path is not None and not path.startswith("<")


class CallEncoder:
    """Makes calls into bytes, for one executor. Any thread may use it."""

    def __init__(self) -> None:
        self._heads: WeakKeyDictionary[Any, Head] = WeakKeyDictionary()
        self._builtin_heads: dict[Any, Head] = {}
        self.modules: dict[str, None] = {}
        """Modules of the functions that were encoded, in their order."""
        self.has_new_modules = False

    def split_head(self, function: Callable[..., Any]) -> Head | None:
        """What stands before the arguments in the form `SPLIT`; `None` if this function does not travel so."""
        if type(function) is types.FunctionType:
            found = self._heads.get(function)
        elif type(function) is types.BuiltinFunctionType:
            found = self._builtin_heads.get(function)
        else:
            return None
        return found if found is not None else self._new_head(function)

    def encode(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, bytes, list[memoryview]]:
        """The bytes of the call in two pieces, and its buffers.

        Raises what pickling raises, else `TypeError` or `AttributeError` with a text that names the function or the argument and the fix.
        """
        head = self.split_head(function) if type(function) in _PLAIN else None
        if head:
            data, buffers = dumps_any((args, kwargs), lambda: _which_argument(function, args, kwargs))
            return head, data, buffers
        self.note_module(function)
        data, buffers = dumps_any((function, args, kwargs), lambda: _which_part(function, args, kwargs))
        return _WHOLE_HEAD, data, buffers

    def _new_head(self, function: Callable[..., Any]) -> Head | None:
        blob, _ = dumps_any(function, lambda: f"the function {name_of(function)}")
        self.note_module(function)
        # An empty head: looked up once, and too long.
        head = b"" if len(blob) > FUNCTION_MAX else bytes([SPLIT]) + len(blob).to_bytes(2, "little") + blob
        if type(function) is types.FunctionType:
            self._heads[function] = head
        elif getattr(function, "__self__", None) is None or isinstance(function.__self__, types.ModuleType):
            self._builtin_heads[function] = head
        else:
            return None  # A bound method of C carries its object.
        return head or None

    def note_module(self, function: Callable[..., Any]) -> None:
        """Remembers the module of a function, so that workers that wait to replace another one import it before."""
        module = getattr(function, "__module__", None) or getattr(type(function), "__module__", None)
        if isinstance(module, str) and module not in self.modules and module != "builtins":
            self.modules[module] = None
            self.has_new_modules = True


def name_of(value: Any) -> str:
    """A function or class by its module and name, anything else by the name of its type."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(value, '__module__', '?')}.{name}"
    return f"object of type {type(value).__module__}.{type(value).__qualname__}"


def dumps_any(value: Any, describe: Callable[[], str]) -> tuple[bytes, list[memoryview]]:
    """Pickles by pickle, or by cloudpickle where that fails or names an unimportable `__main__`. `describe` names it for errors."""
    failed: Exception | None = None
    try:
        data, buffers = _wire.dumps(value)
        if b"__main__" not in data or is_main_importable():
            return data, buffers
    except Exception as error:
        failed = error
    try:
        import cloudpickle  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise _without_cloudpickle(failed, describe) from failed
    try:
        return _wire.dumps(value, cloudpickle.dumps)
    except Exception as error:
        raise _renamed(error, f"{describe()} cannot be pickled, also not by cloudpickle: {_text(error)}") from error


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
        try:
            import cloudpickle

            cloudpickle.dumps(value, _wire.PROTOCOL)
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
