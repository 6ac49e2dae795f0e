"""One private daemon, the session with it, and what the session has registered there. When the daemon is gone, so is the link.

Driven by `_pool.py`, which makes the next one.
"""

from __future__ import annotations

import os
import sys
import threading

from . import _call, _inherited, _main_module, _spawning, _wire
from ._earlier_modules import EarlierModules
from ._ending import again, error_of_end
from ._links import LinkLost
from ._native import CONTEXT_BYTES_MAX, FILES_MAX, MemoryFile, Session
from ._private import STOP_TIMEOUT, DaemonSettings, PrivateDaemon, in_words, working_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    from ._folder import OwnFolder
    from ._native import ChunkTicket, Word
    from ._options import CallOptions, PoolSettings

    # The limits of a call, its flavour, and its function if that goes as a context.
    Rules: TypeAlias = tuple[CallOptions, int, _call.Head | None]

_FUNCTION_CONTEXTS_MAX = 32
# Contexts at the daemon, those that calls still use too. It takes 4096.
_CONTEXTS_MAX = 4000
_RULES_MAX = 4096
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MODULES = "modules"


class Link:
    """A daemon that runs, and a session with it."""

    def __init__(self, settings: PoolSettings, on_events: Callable[[Link, list[Any]], object]) -> None:
        """Starts the daemon and connects. Raises `CannotStart`."""
        self.has_ended_call = False
        """Whether a call has ended: workers come up."""
        self.is_gone = False
        """Whether its daemon is gone, or was given up."""
        self.given_up_by: Exception | None = None
        """The error of the calls that are lost with it, if it was given up."""
        self.modules_noted = 0
        """How many modules of the executor's functions its workers have been given."""
        self._settings = settings
        self._on_events = on_events
        self._changing = threading.RLock()
        self._rules: dict[_call.Head | None, dict[tuple[CallOptions, int, bool], int]] = {}
        self._rules_count = 0
        self._function_contexts: dict[_call.Head, int] = {}
        # Calls with a long input, and its length; also some that have ended.
        self._files: list[tuple[int, int]] = []
        self._base_contexts: tuple[int, ...] = ()
        self._initializer: int | None = None
        self._multiprocessing: int | None = None
        self._tracker_fd: int | None = None
        self._grace_ms = 0
        self.files_bytes_max = _files_bytes_max()
        initializer = None
        if settings.initializer is not None:
            initializer = _spawning.dumps_for_child((settings.initializer, settings.initargs))
        self._early_initializer = initializer[0] if initializer is not None and not initializer[1] else None
        # What a worker has made of a class of the main module comes back by this name.
        sys.modules["__mp_main__"] = sys.modules["__main__"]
        daemon = DaemonSettings(
            settings.workers, settings.spares, tasks_max=settings.tasks_max, files_bytes_max=self.files_bytes_max
        )
        try:
            self._start(daemon, initializer)
        except OSError as error:
            told = in_words(error)
            if told is None:
                raise
            raise told from error

    def _start(self, daemon: DaemonSettings, initializer: tuple[bytes, list[int]] | None) -> None:
        self.daemon = PrivateDaemon(daemon, self._worker_args, _environment(self._settings.workers))
        session = None
        try:
            self.daemon.wait_ready()
            session = self.session = Session(self.daemon.socket, lambda events: self._on_events(self, events))
            _inherited.note(session.fileno())
            if initializer is not None:
                self._initializer = self._register(_call.INITIALIZER, *initializer)
            self._update_base_contexts()
        except BaseException:
            if session is not None:
                self._close_session()
            self.daemon.stop()
            raise

    def _worker_args(self, folder: OwnFolder) -> list[str]:
        """The arguments of the interpreter, once what its workers read at their start is written."""
        from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

        process: Any = sys.modules.get("multiprocessing.process")
        current = process.current_process() if process is not None else None
        folder_here = working_folder()
        preparation: dict[str, Any] = {
            "sys_path": [folder_here if path == "" else path for path in sys.path if path or folder_here],
            "sys_argv": sys.argv,
            "folder": folder_here,
            "main": _main_module.describe(),
            "pid": os.getpid(),
            "process_name": current.name if current is not None else "MainProcess",
            "authkey": bytes(current.authkey) if current is not None else None,
            "modules_path": os.path.join(folder.path, _MODULES),
            "preload": self._settings.preload,
        }
        self._earlier = EarlierModules(preparation["modules_path"])
        path = folder.write("preparation", _wire.plain_dumps(preparation, _wire.PROTOCOL))
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        code = f"import sys; sys.path[:0] = [{package!r}]; sys.path = [p for p in sys.path if p]; from bulkhead.worker import main; main({path!r})"
        return [*_args_from_interpreter_flags(), "-c", code]

    def note_modules(self, modules: Sequence[str]) -> None:
        """Adds those of these modules that it does not know to what later workers import at their start."""
        self._earlier.note(modules[self.modules_noted :])
        self.modules_noted = len(modules)

    def warm_up(self) -> None:
        """A call has returned: workers that wait get ready. It may be repeated."""
        process: Any = sys.modules.get("multiprocessing.process")
        authkey = bytes(process.current_process().authkey) if process is not None else None
        initializer = self._early_initializer
        self.daemon.warm_up.begin((authkey, self._tracker_fd, os.getpid(), initializer) if initializer is not None else None)

    def submit(self, token: int, rules: Rules, prefix: bytes, data: bytes) -> None:
        """Submits a call. Raises `LinkLost`, and `OSError` if there is no memory or descriptor for it."""
        session = self.session
        try:
            while True:
                try:
                    session.submit(token, self._number_of(rules), prefix, data)
                    return
                except KeyError:
                    continue  # Another thread has dropped a context of these rules since: they are made anew.
        except ConnectionError as error:
            raise LinkLost(str(error)) from None

    def submit_many(self, first_token: int, rules: Rules, prefix: bytes, bodies: Sequence[bytes]) -> None:
        """The same for a call with each of these arguments, with tokens from the first one on."""
        try:
            while True:
                try:
                    self.session.submit_many(first_token, self._number_of(rules), prefix, bodies)
                    return
                except KeyError:
                    continue  # As above.
        except ConnectionError as error:
            raise LinkLost(str(error)) from None

    def submit_chunk(self, ticket: ChunkTicket, rules: Rules, head: bytes, items: list[bytes], room: int) -> bool:
        """Submits a chunk of calls, as `Session.submit_chunk` does. Raises as `submit`."""
        try:
            while True:
                try:
                    return self.session.submit_chunk(ticket, self._number_of(rules, in_chunks=True), head, items, room)
                except KeyError:
                    continue  # As above.
        except ConnectionError as error:
            raise LinkLost(str(error)) from None

    def _number_of(self, rules: Rules, *, in_chunks: bool = False) -> int:
        """The session's number of these rules."""
        tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
        if tracker is not None and tracker._resource_tracker._fd != self._tracker_fd:
            self._update_base_contexts()
        options, flavour, head = rules
        found = self._rules.get(head)
        number = found.get((options, flavour, in_chunks)) if found is not None else None
        return number if number is not None else self._new_rules(options, flavour, head, in_chunks)

    def _new_rules(self, options: CallOptions, flavour: int, head: _call.Head | None, in_chunks: bool) -> int:
        with self._changing:
            contexts = self._base_contexts
            if head is not None:
                contexts = (*contexts, self._function_context(head))
            made = self.session.rules(**vars(options), flavour=flavour, contexts=contexts, in_chunks=in_chunks)
            if self._rules_count >= _RULES_MAX:
                self._forget_rules()
            self._rules.setdefault(head, {})[options, flavour, in_chunks] = made
            self._rules_count += 1
            self._grace_ms = max(self._grace_ms, options.grace_ms)
            return made

    def _forget_rules(self) -> None:
        self._rules, self._rules_count = {}, 0

    def has_context(self, head: _call.Head) -> bool:
        """Whether a function is registered, or may be: calls that are under way keep theirs at the daemon."""
        return head in self._function_contexts or self.session.contexts < _CONTEXTS_MAX

    def _function_context(self, head: _call.Head) -> int:
        found = self._function_contexts.get(head)
        if found is None:
            if len(self._function_contexts) >= _FUNCTION_CONTEXTS_MAX:
                oldest = next(iter(self._function_contexts))
                context = self._function_contexts.pop(oldest)
                self._rules_count -= len(self._rules.pop(oldest, ()))
                self.session.unregister(context)
            assert head.blob is not None
            found = self._function_contexts[head] = self._register(_call.FUNCTION, head.blob)
        return found

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
                self._forget_rules()
                if before is not None:
                    self.session.unregister(before)
            self._tracker_fd = descriptor
            found = (self._multiprocessing, self._initializer)
            self._base_contexts = tuple(context for context in found if context is not None)
            self._forget_rules()

    def submit_pieces(
        self, token: int, rules: Rules, pieces: _wire.Pieces, is_open: Callable[[int], bool], keep: Callable[[bytes | MemoryFile], object]
    ) -> None:
        """Submits a call that lies in a file of its own. `keep` is given what is sent before that is done.

        Raises `ValueError` if it is longer than the daemon takes, before anything is copied, and as `submit`.
        """
        most = self.files_bytes_max // 4 * 3
        if pieces.length > most:
            raise ValueError(
                f"the arguments are {pieces.length} bytes long, the limit of one call is {most} bytes (three eighths of this machine's"
                " memory): write them to a file and pass its path"
            )
        self._wait_for_memory(pieces.length, is_open)
        self._files.append((token, pieces.length))
        if self.session.files >= FILES_MAX:
            # No descriptor is held for it until it is sent.
            joined = pieces.joined()
            keep(joined)
            self.submit(token, rules, b"", joined)
            return
        file = MemoryFile(pieces.length)
        pieces.write(file.fileno())
        keep(file)
        self._submit_file(token, rules, file)

    def submit_again(self, token: int, rules: Rules, prefix: bytes, body: bytes | MemoryFile) -> None:
        """Submits a call that was sent with another link before. Raises as `submit`."""
        if isinstance(body, bytes):
            self.submit(token, rules, prefix, body)
        else:
            self._submit_file(token, rules, body)

    def _submit_file(self, token: int, rules: Rules, file: MemoryFile) -> None:
        try:
            while True:
                try:
                    self.session.submit_file(token, self._number_of(rules), file)
                    return
                except KeyError:
                    continue  # As in `submit`.
        except ConnectionError as error:
            raise LinkLost(str(error)) from None

    def _wait_for_memory(self, length: int, is_open: Callable[[int], bool]) -> None:
        """Waits while inputs of calls under way take half of the machine's memory."""
        while self._files and sum(held for _, held in self._files) + length > self.files_bytes_max:
            self._files = [(token, held) for token, held in self._files if is_open(token)]
            if sum(held for _, held in self._files) + length > self.files_bytes_max:
                self._wait_for_end(self._files[0][0], is_open)
                if self.is_gone:
                    return
        if len(self._files) > 2 * FILES_MAX:
            self._files = [(token, held) for token, held in self._files if is_open(token)]

    def _wait_for_end(self, token: int, is_open: Callable[[int], bool]) -> None:
        self.session.lead(token, lambda: not is_open(token), 1.0)

    def error_of_end(self, word: Word, text: str, certificate: str) -> Any:
        """The exception of a call of this link that has ended so, or `CANCELLED`."""
        if word == "lost" and self.given_up_by is not None:
            return again(self.given_up_by)
        return error_of_end(word, text, certificate)

    def forget(self) -> None:
        """In a forked child: all of it stays the parent's."""
        self.session.abandon()
        self.daemon.forget()

    def close(self, *, at_once: bool) -> None:
        """Ends session and daemon. What runs is killed, but that calls which were given a time to end by themselves have it; workers that run
        nothing may leave in order. `at_once`: neither."""
        self._close_session()
        self.daemon.stop(STOP_TIMEOUT + self._grace_ms / 1000, at_once=at_once)

    def _close_session(self) -> None:
        _inherited.forget(self.session.fileno())
        self.session.close()


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
