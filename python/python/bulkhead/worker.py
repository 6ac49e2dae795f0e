"""A worker: the process that runs calls. The daemon starts it as `python -c "...; main(PATH)"`.

It becomes what the client is (`sys.path`, working directory, the name of `__main__`), imports the modules that earlier calls
needed, and then serves the daemon, one call at a time, in its main thread. It keeps no state of a call; modules, and what they
hold, stay as they are between calls.

Functions of the package that a call uses go on to here: `progress`, `say`, `cancelled`.
"""

from __future__ import annotations

import os
import sys
import time

from . import _answer, _call, _native, _warm_up, _wire, _workers_end
from ._child_process import Identity
from ._earlier_modules import EarlierModules
from ._main_module import MainStandIn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_FUNCTIONS_MAX = 1024
_MODULES_MAX = 2000
# A copy of so many bytes costs less than a view of them.
_SLICED_MAX = 4096
_SPLIT, _loads = _call.SPLIT, _wire.loads

task: _native.Task | None = None
"""The call that runs now."""

_functions: dict[bytes, Any] = {}
_earlier = EarlierModules("")
_folder = ""
_known_modules = 0
_identity: Identity | None = None
_initialized: _Initialized | None = None


class _Initialized:
    """What the context of an initializer becomes: whether it failed, and how."""

    def __init__(self, error: str | None) -> None:
        self.error = error


class _LongFunction:
    """What the context of a function becomes: its pickle, which is unpickled for each call, so that no state of a call is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def load(self) -> Any:
        """The function. Raises what unpickling raises."""
        return _wire.loads(self._data)


def main(preparation_path: str) -> None:
    """Runs the worker until the daemon lets it go, and exits."""
    global _earlier, _folder, _identity
    _native.take_lane()
    if not _workers_end.hold(os.path.dirname(preparation_path)):
        sys.exit(0)
    try:
        with open(preparation_path, "rb") as file:
            preparation = _wire.loads(file.read())
    except FileNotFoundError:
        sys.exit(0)  # The daemon was killed, and its folder removed: nobody waits for this worker.
    sys.path[:] = preparation["sys_path"]
    sys.argv[:] = preparation["sys_argv"]
    folder = preparation["folder"]
    try:
        if folder is not None:
            os.chdir(folder)
    except OSError:
        pass  # It was removed meanwhile; relative paths then fail by name.
    sys.modules["__main__"] = MainStandIn(preparation["main"])
    _identity = Identity(_number(), preparation["pid"], preparation["process_name"], preparation["authkey"])
    _identity.install()
    _earlier = EarlierModules(preparation["modules_path"])
    _import_earlier(preparation["preload"])
    if not os.path.exists(preparation_path):
        sys.exit(0)  # As above; what follows would make the folder again.
    _folder = os.path.dirname(preparation_path)
    bell = _warm_up.bell(_folder)
    idle = (bell, lambda: _get_ready(_folder)) if bell is not None else None
    code = _native.serve(_handle, chunk=_run_chunk, load=_load, stack=_write_stacks_to, idle=idle)
    sys.exit(code)


def _number() -> int:
    """The worker's number, from the name of its folder: w7."""
    name = os.path.basename(os.environ.get("BULKHEAD_BOOT_FOLDER", ""))
    return int(name[1:]) if name[1:].isdigit() else os.getpid()


def _import(name: str) -> None:
    """Imports a module, or the client's main module. What cannot be imported is left to the call that needs it."""
    if name == "__main__":
        getattr(sys.modules[name], "bulkhead preload", None)
    elif name not in sys.modules:
        try:
            __import__(name)
        except BaseException:
            pass


def _import_earlier(preload: Sequence[str]) -> None:
    """Imports what the user named, and what earlier calls imported."""
    global _known_modules
    for name in preload:
        _import(name)
    _earlier.import_all(_import)
    _known_modules = len(sys.modules)


def _get_ready(folder: str) -> None:
    """Between two calls, once the first call of the executor has returned: what the next one would need."""
    global _known_modules
    _earlier.import_all(_import)
    _known_modules = len(sys.modules)
    if _initialized is None and _identity is not None:
        _warm_up.run_initializer(folder, _identity, lambda data: _initialize_once(memoryview(data), ()))
        if len(sys.modules) != _known_modules:
            _note_modules()


def _note_modules() -> None:
    """Adds the modules that a call has imported to the list that later workers import at their start."""
    global _known_modules
    new = [name for name in list(sys.modules)[_known_modules:] if not name.startswith(("__", "bulkhead"))]
    _known_modules = len(sys.modules)
    if _known_modules < _MODULES_MAX:
        _earlier.note(new, "+")


def _write_stacks_to(descriptor: int) -> None:
    import faulthandler

    faulthandler.enable(file=descriptor, all_threads=True)
    faulthandler.register(_native.STACK_SIGNAL, file=descriptor, all_threads=True)


def _load(content: bytes | _native.MemoryFile, descriptors: tuple[int, ...] = ()) -> Any:
    """A context: what `multiprocessing` knows in the client, the initializer, or a function that is too long to go with each call."""
    data = content if isinstance(content, bytes) else bytes(_wire.content_of(content))
    kind, rest = data[0], memoryview(data)[1:]
    if kind == _call.MULTIPROCESSING:
        if _identity is not None:
            _identity.adopt(bytes(rest), [os.dup(descriptor) for descriptor in descriptors])
        return None
    if kind == _call.INITIALIZER:
        begun = time.monotonic()
        initialized = _initialize_once(rest, descriptors)
        if time.monotonic() - begun > _warm_up.QUICK_SECONDS:
            _warm_up.note_slow(_folder)
        return initialized
    return _LongFunction(bytes(rest))


def _initialize_once(data: memoryview, descriptors: tuple[int, ...]) -> _Initialized:
    global _initialized
    if _initialized is None:
        _initialized = _Initialized(_initialize(data, descriptors))
    return _initialized


def _initialize(data: memoryview, descriptors: tuple[int, ...]) -> str | None:
    """Runs the initializer; the traceback if it fails."""
    from . import _spawning

    try:
        with _spawning.descriptors_are(descriptors):
            initializer, args = _wire.loads(data)
        initializer(*args)
    except BaseException:
        text = _answer.traceback_text()
        import logging

        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            # What was logged into a queue is there before the client hears of the failure.
            util._run_finalizers()
        return text
    return None


def _handle(data: bytes | _native.MemoryFile, contexts: tuple[Any, ...], now: _native.Task) -> Any:
    """Runs one call; what goes back."""
    global task
    for context in contexts:
        if type(context) is _Initialized and context.error is not None:
            return _answer.text(_answer.INITIALIZER_FAILED, context.error)
    try:
        function, args, kwargs = _read_call(data, contexts)
    except BaseException as error:
        return _answer.text(_answer.CALL_NOT_READABLE, _answer.traceback_text() + _where_it_looked(error))
    del data, contexts
    task = now
    try:
        answer = _answer.returned(function(*args, **kwargs))
    except BaseException as error:
        answer = _answer.raised(error)
    finally:
        task = None
        if len(sys.modules) != _known_modules:
            _note_modules()
    return answer


def _where_it_looked(error: BaseException) -> str:
    """Where this worker looks for modules, if one was not found."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    return f"workers look for modules where the program did when it made its first call: {sys.path}"


def _run_chunk(head: bytes, items: list[bytes], contexts: tuple[Any, ...], now: _native.Task, results: _native.ChunkResults) -> None:
    """Runs the calls of a chunk, whose results go into `results` one by one."""
    global task
    from . import _chunk_run

    for context in contexts:
        if type(context) is _Initialized and context.error is not None:
            return _chunk_run.refuse(_answer.text(_answer.INITIALIZER_FAILED, context.error), items, results)
    task = now
    try:
        _chunk_run.run(head, items, contexts[-1] if contexts else None, _function, results)
    finally:
        task = None
        if len(sys.modules) != _known_modules:
            _note_modules()


def _read_call(data: bytes | _native.MemoryFile, contexts: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Function, arguments and keyword arguments. Raises what unpickling raises."""
    if type(data) is bytes and data[0] == _SPLIT:
        at = 3 + data[1] + (data[2] << 8)
        args, kwargs = _loads(data[at:] if len(data) < _SLICED_MAX else memoryview(data)[at:])
        return _functions.get(data[3:at]) or _function(data[3:at]), args, kwargs
    view = memoryview(data) if isinstance(data, bytes) else _wire.content_of(data)
    form = view[0]
    if form == _SPLIT:
        at = 3 + view[1] + (view[2] << 8)
        args, kwargs = _loads(view[at:])
        return _function(bytes(view[3:at])), args, kwargs
    if form == _call.BY_CONTEXT:
        function = contexts[-1].load()
        args, kwargs = _wire.loads(view[1:])
    elif form & _wire.PIECES:
        # What came by copy is made writable, as what lies in a file is.
        function, args, kwargs = _wire.load_pieces(memoryview(bytearray(data)) if isinstance(data, bytes) else view)
        if function is None:
            function = contexts[-1].load()
    else:
        function, args, kwargs = _wire.loads(view[1:])
    return function, args, kwargs


def _function(data: bytes) -> Any:
    if _call.is_by_value(data):
        return _wire.loads(data)
    function = _functions.get(data)
    if function is None:
        function = _wire.loads(data)
        if len(_functions) >= _FUNCTIONS_MAX:
            _functions.clear()
        _functions[data] = function
    return function
