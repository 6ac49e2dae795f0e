"""One private daemon, the session with it, and what the session has registered there. When the daemon is gone, so is the link.

Driven by `_pool.py`, which makes the next one.
"""

from __future__ import annotations

import os
import sys
import threading

from . import _call, _main_module, _spawning, _wire
from ._native import CONTEXT_BYTES_MAX, FILES_MAX, MemoryFile, Session
from ._private import DaemonSettings, PrivateDaemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._folder import OwnFolder
    from ._options import CallOptions, PoolSettings

_FUNCTION_CONTEXTS_MAX = 32
# Contexts that are not used any more, and of which calls may still wait to be sent. The daemon takes 4096.
_DROPPED_MAX = 2000
_RULES_MAX = 4096
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MODULES = "modules"


class Link:
    """A daemon that runs, and a session with it."""

    def __init__(self, settings: PoolSettings, on_events: Callable[[Link, list[Any]], object]) -> None:
        """Starts the daemon and connects. Raises `CannotStart`."""
        self.has_ended_call = False
        """Whether a call has ended: workers come up."""
        self._settings = settings
        self._changing = threading.RLock()
        self._rules: dict[Any, int] = {}
        self._function_contexts: dict[_call.Head, int] = {}
        self._files: list[int] = []
        self._dropped: list[int] = []
        self._base_contexts: tuple[int, ...] = ()
        self._initializer: int | None = None
        self._multiprocessing: int | None = None
        self._tracker_fd: int | None = None
        self.files_bytes_max = _files_bytes_max()
        initializer = None
        if settings.initializer is not None:
            initializer = _spawning.dumps_for_child((settings.initializer, settings.initargs))
        # What a worker has made of a class of the main module comes back by this name.
        sys.modules["__mp_main__"] = sys.modules["__main__"]
        daemon = DaemonSettings(
            settings.workers, settings.spares, tasks_max=settings.tasks_max, files_bytes_max=self.files_bytes_max
        )
        self.daemon = PrivateDaemon(daemon, self._worker_args, _environment(settings.workers))
        try:
            self.daemon.wait_ready()
            self.session = Session(self.daemon.socket, lambda events: on_events(self, events))
        except BaseException:
            self.daemon.stop()
            raise
        self._session_fd = self.session.fileno()
        try:
            if initializer is not None:
                self._initializer = self._register(_call.INITIALIZER, *initializer)
            self._update_base_contexts()
        except BaseException:
            self.close(at_once=True)
            raise

    def _worker_args(self, folder: OwnFolder) -> list[str]:
        """The arguments of the interpreter, once what its workers read at their start is written."""
        from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

        process: Any = sys.modules.get("multiprocessing.process")
        current = process.current_process() if process is not None else None
        preparation = {
            "sys_path": [os.getcwd() if path == "" else path for path in sys.path],
            "sys_argv": sys.argv,
            "folder": os.getcwd(),
            "main": _main_module.describe(),
            "pid": os.getpid(),
            "process_name": current.name if current is not None else "MainProcess",
            "authkey": bytes(current.authkey) if current is not None else None,
            "modules_path": os.path.join(folder.path, _MODULES),
            "preload": self._settings.preload,
        }
        path = folder.write("preparation", _wire.plain_dumps(preparation, _wire.PROTOCOL))
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        code = f"import sys; sys.path[:0] = [{package!r}]; sys.path = [p for p in sys.path if p]; from bulkhead.worker import main; main({path!r})"
        return [*_args_from_interpreter_flags(), "-c", code]

    def note_modules(self, modules: list[str]) -> None:
        """Adds modules that later workers import at their start."""
        path = os.path.join(self.daemon.folder.path, _MODULES)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # The folder is gone or full: later workers import them with their first call.
        try:
            os.write(descriptor, ("\n".join(modules) + "\n").encode("utf-8", "replace"))
        finally:
            os.close(descriptor)

    def rules(self, options: CallOptions, flavour: int, head: _call.Head | None = None, *, in_chunks: bool = False) -> int:
        """The number of the rules for a call of this flavour; `head` if the function goes as a context; `in_chunks` for chunks of calls."""
        tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
        if tracker is not None and tracker._resource_tracker._fd != self._tracker_fd:
            self._update_base_contexts()
        key = options, flavour, head, in_chunks
        found = self._rules.get(key)
        return found if found is not None else self._new_rules(options, flavour, head, in_chunks)

    def _new_rules(self, options: CallOptions, flavour: int, head: _call.Head | None, in_chunks: bool) -> int:
        with self._changing:
            contexts = self._base_contexts
            if head is not None:
                contexts = (*contexts, self._function_context(head))
            made = self.session.rules(**vars(options), flavour=flavour, contexts=contexts, in_chunks=in_chunks)
            if len(self._rules) >= _RULES_MAX:
                self._rules.clear()
            self._rules[options, flavour, head, in_chunks] = made
            return made

    def _function_context(self, head: _call.Head) -> int:
        found = self._function_contexts.get(head)
        if found is None:
            if len(self._function_contexts) >= _FUNCTION_CONTEXTS_MAX:
                oldest = next(iter(self._function_contexts))
                self._drop_context(self._function_contexts.pop(oldest))
                self._rules = {key: number for key, number in self._rules.items() if key[2] is not oldest}
            assert head.blob is not None
            found = self._function_contexts[head] = self._register(_call.FUNCTION, head.blob)
        return found

    def _drop_context(self, context: int) -> None:
        """Unregisters a context once no call that names it can wait to be sent: the daemon refuses a call whose context has gone."""
        self._dropped.append(context)
        most = 0 if self.session.open == 0 else _DROPPED_MAX
        while len(self._dropped) > most:
            self.session.unregister(self._dropped.pop(0))

    def _register(self, kind: int, data: bytes, descriptors: list[int] | None = None) -> int:
        content: bytes | MemoryFile = bytes([kind]) + data
        if len(content) > CONTEXT_BYTES_MAX:  # type: ignore[arg-type]
            file = MemoryFile(len(data) + 1)
            os.pwritev(file.fileno(), [bytes([kind]), data], 0)
            content = file
        with _spawning.readable(descriptors or ()) as passed:
            return self.session.register(content, passed)

    def _update_base_contexts(self) -> None:
        """Registers what `multiprocessing` knows here, again when its resource tracker has been started."""
        with self._changing:
            process: Any = sys.modules.get("multiprocessing.process")
            tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
            descriptor = tracker._resource_tracker._fd if tracker is not None else None
            if process is not None and (self._multiprocessing is None or descriptor != self._tracker_fd):
                before = self._multiprocessing
                authkey = bytes(process.current_process().authkey)
                passed = [descriptor] if descriptor is not None else []
                self._multiprocessing = self._register(_call.MULTIPROCESSING, authkey, passed)
                if before is not None:
                    self._drop_context(before)
            self._tracker_fd = descriptor
            found = (self._multiprocessing, self._initializer)
            self._base_contexts = tuple(context for context in found if context is not None)
            self._rules.clear()

    def submit_pieces(self, token: int, rules: int, pieces: _wire.Pieces, is_open: Callable[[int], bool]) -> None:
        """Submits a call that lies in a file of its own.

        Raises `ValueError` if it is longer than the daemon takes, before anything is copied, and what `Session.submit_file` raises.
        """
        most = self.files_bytes_max // 4 * 3
        if pieces.length > most:
            raise ValueError(
                f"the arguments are {pieces.length} bytes long, the limit of one call is {most} bytes (three eighths of this machine's"
                " memory): write them to a file and pass its path"
            )
        while self.session.files >= FILES_MAX and self._files:
            earlier = self._files.pop(0)
            self.session.lead(earlier, lambda earlier=earlier: not is_open(earlier), 1.0)  # type: ignore[misc]
        file = MemoryFile(pieces.length)
        pieces.write(file.fileno())
        self.session.submit_file(token, rules, file)
        self._files.append(token)
        if len(self._files) > 2 * FILES_MAX:
            del self._files[:FILES_MAX]

    def forget(self) -> None:
        """In a forked child: all of it stays the parent's."""
        self.session.abandon()
        os.close(self._session_fd)
        self.daemon.forget()

    def close(self, *, at_once: bool) -> None:
        """Ends session and daemon. What runs is killed; workers that run nothing may leave in order, unless `at_once`."""
        self.session.close()
        self.daemon.stop(at_once=at_once)


def _files_bytes_max() -> int:
    """How many bytes of arguments may lie in files at a time: half of the machine's memory."""
    return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, 64 << 20)


def _environment(workers: int) -> dict[str, str]:
    """The environment of the daemon, and so of the workers: this process's, with as many threads for numerics as a worker has cores."""
    environment = dict(os.environ)
    cores = max(1, len(os.sched_getaffinity(0)) // workers)
    for name in _THREAD_VARIABLES:
        environment.setdefault(name, str(cores))
    environment.setdefault("BULKHEAD_LOG", "off")
    return environment
