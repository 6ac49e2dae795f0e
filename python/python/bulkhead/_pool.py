"""The calls that an executor has under way, and what becomes of them.

It starts a link when the first call comes and after the daemon was lost, gives each call a token, and completes futures and maps
from the session's events. The executor, its views and its futures share it; it does not know the executor, so that this one can
be collected. Locks: a signal handler may submit at any line of the main thread, so each lock here is reentrant, and none is
held while anything waits for the daemon, but the start of the link.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

from . import _answer, _call, _exit, _wire
from ._ending import CANCELLED, error_of_end
from ._future import LEAD_MAX, Future, complete
from ._native import ChunkEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._chunks import ChunkedMap, MapChunk
    from ._link import Link
    from ._map import MapResults
    from ._native import Event, MemoryFile
    from ._options import CallOptions, PoolSettings

    Target = Future[Any] | tuple[MapResults, int] | MapChunk | ChunkedMap

_NO_ARGUMENTS: dict[str, Any] = {}
# A batch of a map: as many calls are submitted in one go.
_BATCH = 256
# In the daemon's notice of a pool whose workers end before they are up.
_NO_WORKER = "no worker comes up"


class Pool:
    """What an executor, its views and its futures share."""

    def __init__(self, settings: PoolSettings) -> None:
        """Starts nothing."""
        self.settings = settings
        self.is_strict = settings.is_strict
        self.pending: dict[int, Target] = {}
        self.encoder = _call.CallEncoder()
        self.tokens = itertools.count(1)
        self.broken: Exception | None = None
        self.is_shut = False
        self.is_forked = False
        self.is_cancelling = False
        """What is not sent is not to be."""
        self.open_maps: dict[int, ChunkedMap] = {}
        """Maps with chunks that are not sent, by their marks in `pending`."""
        self._is_closed = False
        self._link: Link | None = None
        self._old_links: list[Link] = []
        self._changing = threading.RLock()
        self._idle = threading.Condition(threading.RLock())
        self._cancel_answers: dict[int, threading.Event] = {}
        self._progress: dict[int, tuple[int, int]] = {}
        # The call whose result was being unpickled at the last Ctrl-C.
        self._interrupted = 0
        _exit.watch(self)

    # Submitting.

    def ready(self) -> Link:
        """The link, started if there is none. Raises `RuntimeError` and `BrokenProcessPool` if no call is taken any more."""
        link = self._link
        if link is None or self.is_shut or self.broken is not None or _exit.is_exiting or self.is_forked:
            link = self._start()
        if self.encoder.has_new_modules:
            self.encoder.has_new_modules = False
            link.note_modules(list(self.encoder.modules))
        return link

    def _start(self) -> Link:
        # Here, because they load more than the rest of the package.
        from ._link import Link

        self.check_open()
        self._close_old_links()
        with self._changing:
            found = self._link
            if found is None:
                found = Link(self.settings, self._on_events)
                if self._link is None:
                    self._link = found
                    return found
                # A signal handler of this thread has submitted meanwhile, and so started another.
                found.close(at_once=True)
                found = self._link
            return found

    def check_open(self) -> None:
        """Raises what a submit raises now, without starting anything."""
        if self.is_forked:
            raise RuntimeError("this executor belongs to the parent of this forked process: make one after the fork")
        if self.broken is not None:
            from .errors import BrokenProcessPool, InitializerFailed

            kind = InitializerFailed if isinstance(self.broken, InitializerFailed) else BrokenProcessPool
            raise kind(str(self.broken))
        if self.is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exit.is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        _exit.check_not_importing_main()

    def submit(self, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Submits one call. An error of pickling is the future's exception. Raises as `ready`."""
        link = self.ready()
        future: Future[Any] = Future()
        future._pool = self
        token = future._token = next(self.tokens)
        try:
            self.pending[token] = future
            self._send(link, token, options, function, args, kwargs)
        except ConnectionError as error:
            self._take_out(token)
            if self._link is link:
                self._lose(link)
            future.set_exception(error_of_end("lost", str(error), ""))
        except Exception as error:
            self._take_out(token)
            future.set_exception(error)
        except BaseException:
            self._take_out(token)
            raise
        self._fail_what_is_late()
        return future

    def _take_out(self, token: int) -> Target | None:
        """Forgets a call that was not sent. `finish` may wait for it."""
        target = self.pending.pop(token, None)
        self._tell_idle()
        return target

    def _tell_idle(self) -> None:
        if not self.pending:
            with self._idle:
                self._idle.notify_all()

    def _fail_what_is_late(self) -> None:
        """After a submit, and after the end of the session, which tells nothing more: whichever comes later ends what is left."""
        if self._is_closed and self.pending:
            self._fail_all(error_of_end("lost", "the executor was ended", ""))

    def _send(
        self, link: Link, token: int, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        encoder = self.encoder
        head = encoder.head(function)
        if head is not None:
            data, buffers = encoder.arguments(function, args, kwargs)
            rules = link.rules(options, head.flavour, head if head.blob is not None else None)
            if not buffers:
                link.session.submit(token, rules, head.prefix, data)
                return
            data, buffers = encoder.whole(None if head.blob is not None else function, args, kwargs)  # type: ignore[arg-type]
        else:
            data, buffers = encoder.whole(function, args, kwargs)
            rules = link.rules(options, encoder.flavour(function))
            if not buffers:
                link.session.submit(token, rules, _call.WHOLE_HEAD, data)
                return
        link.submit_pieces(token, rules, _wire.Pieces(_call.WHOLE, data, buffers), self.pending.__contains__)

    def submit_one_of_map(self, results: MapResults, index: int, args: tuple[Any, ...]) -> None:
        """Submits one item of a map. An error of pickling is the item's. Raises as `ready`."""
        link = self.ready()
        token = results.first_token + index
        self.pending[token] = results, index
        try:
            self._send(link, token, results.options, results.function, args, _NO_ARGUMENTS)
        except ConnectionError as error:
            self._lose(link)
            results.put(index, False, error_of_end("lost", str(error), ""))
        except Exception as error:
            results.put(index, False, error)
        except BaseException:
            self._take_out(token)
            raise
        else:
            self._fail_what_is_late()
            return
        self._take_out(token)

    def submit_map(self, results: MapResults, items: Sequence[tuple[Any, ...]]) -> None:
        """Submits all items of a map, small ones in batches. An error of pickling is the item's. Raises as `ready`."""
        link = self.ready()
        try:
            head = self.encoder.head(results.function)
        except Exception:
            head = None  # Each item then has this error.
        if head is None or head.blob is not None:
            for index, args in enumerate(items):
                self.submit_one_of_map(results, index, args)
            return
        rules, begin, bodies = link.rules(results.options, head.flavour), 0, []
        dumps, protocol, no_arguments = _wire.plain_dumps, _wire.PROTOCOL, _NO_ARGUMENTS
        for index, args in enumerate(items):
            try:
                data = dumps((args, no_arguments), protocol)
                is_plain = len(data) < _wire.OUT_OF_BAND_MIN and b"__main__" not in data and b"multiprocessing." not in data
            except Exception:
                is_plain = False
            if is_plain:
                bodies.append(data)
                if len(bodies) < _BATCH:
                    continue
            self._send_batch(link, results, rules, head.prefix, begin, bodies)
            begin, bodies = index + 1, []
            if not is_plain:
                self.submit_one_of_map(results, index, args)
        self._send_batch(link, results, rules, head.prefix, begin, bodies)

    def _send_batch(self, link: Link, results: MapResults, rules: int, prefix: bytes, begin: int, bodies: list[bytes]) -> None:
        first, indices = results.first_token + begin, range(begin, begin + len(bodies))
        for index in indices:
            self.pending[results.first_token + index] = results, index
        try:
            if bodies:
                link.session.submit_many(first, rules, prefix, bodies)
        except Exception as error:
            failed = error
            if isinstance(error, ConnectionError):
                self._lose(link)
                failed = error_of_end("lost", str(error), "")
            for index in indices:
                if self._take_out(results.first_token + index) is not None:
                    results.put(index, False, failed)
        self._fail_what_is_late()

    # Completing.

    def _on_events(self, link: Link, events: list[Event]) -> None:
        """What the session tells. After Ctrl-C in the midst of it, it is called again with the same events."""
        pending, done, touched, told = self.pending, [], set(), []
        for token, what in events:
            target = pending.get(token)
            if type(what) is ChunkEnd:
                if target is not None:
                    told.append(token)
                    touched.add(target.results)  # type: ignore[union-attr]
                    for error in target.results.absorb(target, what):  # type: ignore[union-attr]
                        self._judge(error)
                continue
            if type(what) is tuple and len(what) != 3 or target is None:
                if type(what) is tuple:
                    self._hear(link, token, what)
                continue
            if type(what) is bytes and what[0] == _answer.RETURNED:
                try:
                    is_result, value = True, _wire.loads(memoryview(what)[1:])
                except Exception:
                    is_result, value = self._read(token, what)
                except BaseException as error:
                    is_result, value = False, self._stopped(token, error)
            elif type(what) is tuple:
                if what[0] == "progress":
                    self._progress[token] = what[1:]
                    continue
                is_result, value = False, error_of_end(*what)
            else:
                is_result, value = self._read(token, what)  # type: ignore[arg-type]
            told.append(token)
            if type(target) is Future:
                done.append((target, is_result, value))
            else:
                results, index = target  # type: ignore[misc]
                results.there[index] = results.set(index, is_result, value)
                touched.add(results)
            if not is_result:
                self._judge(value)
        if told:
            link.has_ended_call = True
        self._finish_told(done, told, touched)
        for results in list(self.open_maps.values()):
            results.pump()

    def _read(self, token: int, what: bytes | MemoryFile) -> tuple[bool, Any]:
        try:
            return _answer.read(what)
        except BaseException as error:
            return False, self._stopped(token, error)

    def _stopped(self, token: int, error: BaseException) -> Exception:
        """Ctrl-C while a result is unpickled is the program's: it is raised, and the result is read again. What raises the same again is
        the result itself."""
        if isinstance(error, KeyboardInterrupt) and self._interrupted != token:
            self._interrupted = token
            raise error
        return _answer.not_readable(error)

    def _finish_told(self, done: list[tuple[Future[Any], bool, Any]], told: list[int], touched: set[MapResults]) -> None:
        cancelled = [future for future, _, value in done if value is CANCELLED]
        complete(entry for entry in done if entry[2] is not CANCELLED)
        for future in cancelled:
            future._give_up()
        done.clear()
        for token in told:
            self.pending.pop(token, None)
            self._progress.pop(token, None)
            if self._cancel_answers and (answer := self._cancel_answers.pop(token, None)) is not None:
                answer.set()
        for results in touched:
            results.tell()
        self._tell_idle()

    def _hear(self, link: Link, token: int, what: tuple[Any, ...]) -> None:
        """Events that end no call."""
        if what[0] == "gone":
            self._lose(link)
        elif what[0] == "notice":
            if _NO_WORKER in what[1] and not link.has_ended_call:
                self._fail_all(_workers_do_not_start(what[1]))
                self._lose(link)
        elif what[0] == "runs-on":
            answer = self._cancel_answers.pop(token, None)
            if answer is not None:
                answer.set()

    def _judge(self, error: Any) -> None:
        """Whether this end breaks the executor."""
        if self.broken is not None or error is CANCELLED:
            return
        errors: Any = sys.modules.get("bulkhead.errors")
        if errors is None:
            return
        if isinstance(error, errors.InitializerFailed):
            self.broken = error
            self._fail_all(error)
        elif self.is_strict and isinstance(error, (errors.WorkerCrashed, errors.Lost)):
            self.broken = errors.BrokenProcessPool(
                "A child process terminated abruptly, the process pool is not usable anymore (strict_stdlib=True)"
            )
            self._fail_all(self.broken)

    def _fail_all(self, error: Exception) -> None:
        """Ends all that is under way with this error."""
        tokens = list(self.pending)
        link = self._link
        if link is not None:
            link.session.cancel(tokens)
        done, touched = [], set()
        for token in tokens:
            target = self.pending.get(token)
            if type(target) is Future:
                done.append((target, False, _again(error)))
            elif target is not None and type(target) is not tuple:
                target.fail_all(lambda: _again(error))  # type: ignore[union-attr]
                touched.add(target.results)  # type: ignore[union-attr]
            elif target is not None:
                results, index = target  # type: ignore[misc]
                results.there[index] = results.set(index, False, _again(error))
                touched.add(results)
        self._finish_told(done, tokens, touched)

    # Asking and cancelling.

    def is_running(self, token: int) -> bool:
        """Whether a worker runs this call now."""
        link = self._link
        if link is None or self.is_forked or token not in self.pending:
            return False
        try:
            return link.session.is_running(token)
        except ConnectionError:
            return False

    def progress_of(self, token: int) -> tuple[int, int] | None:
        """The last progress that the daemon told of this call."""
        return self._progress.get(token)

    def drop(self, token: int) -> None:
        """Ends a call whose future is cancelled already."""
        self.drop_many([token])

    def drop_many(self, tokens: Sequence[int]) -> None:
        """Ends calls of which nobody wants the result any more."""
        dropped = [token for token in tokens if self.pending.pop(token, None) is not None]
        for token in dropped:
            self._progress.pop(token, None)
        link = self._link
        if dropped and link is not None and not self.is_forked:
            if self.is_strict:
                link.session.cancel_waiting(dropped)
            else:
                link.session.cancel(dropped)
        self._tell_idle()

    def cancel_strictly(self, future: Future[Any]) -> bool:
        """Cancels a future if no worker runs its call, as the standard library does."""
        link = self._link
        if link is None or self.is_forked:
            return False
        # Also a call that its worker is about to begin: once `running()` was true, `cancel()` is false.
        if self.is_running(future._token):
            return False
        answer = self._cancel_answers[future._token] = threading.Event()
        link.session.cancel_waiting([future._token])
        while not answer.wait(0.1):
            if future.done() or self._link is not link:
                break
        return future.cancelled()

    def wait_leading(self, future: Future[Any], timeout: float | None) -> float | None:
        """Waits for a future while this thread reads the session, if few calls are under way. The seconds that are left."""
        link = self._link
        if self.is_forked:
            raise RuntimeError("this future belongs to the parent of this forked process: it is never done here")
        if link is None or len(self.pending) > LEAD_MAX:
            return timeout
        if timeout is None:
            link.session.lead(future._token, future.done)
            return None
        until = time.monotonic() + timeout
        link.session.lead(future._token, future.done, max(timeout, 0.0))
        return max(until - time.monotonic(), 0.0)

    def workers(self) -> list[dict[str, Any]]:
        """The daemon's rows of its workers; none if there is no daemon."""
        link = self._link
        if link is None or self.is_forked:
            return []
        import json

        try:
            found: list[dict[str, Any]] = json.loads(link.session.workers())
        except ConnectionError:
            return []
        return found

    # Ending.

    def _lose(self, link: Link) -> None:
        """The daemon of this link is gone: the next submit starts another."""
        with self._changing:
            if self._link is link:
                self._link = None
                self._old_links.append(link)

    def _close_old_links(self) -> None:
        # Without the lock: the thread of a session, which is joined here, may be about to take it.
        with self._changing:
            links, self._old_links = self._old_links, []
        for link in links:
            link.close(at_once=True)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """As `Executor.shutdown`. Without `wait` a thread waits for the calls that go on."""
        if self.is_forked:
            return
        self.is_shut = True
        if cancel_futures and self._link is not None:
            self.is_cancelling = True
            for results in list(self.open_maps.values()):
                results.pump()
            # The oldest ones are with the workers or about to be: as in the standard library, these go on.
            self._link.session.cancel_waiting(list(self.pending)[self.settings.workers :])
        if wait:
            self.finish()
        elif not self._is_closed and not _exit.is_exiting:
            threading.Thread(target=self.finish, name="bulkhead-shutdown").start()

    def finish(self) -> None:
        """Waits until nothing is under way, then ends the daemon."""
        with self._idle:
            while self.pending and not self._is_closed and not self.is_forked:
                self._idle.wait()
        self._close()

    def end_now(self, text: str) -> None:
        """Ends the daemon with all that runs; what is under way fails as `Lost`."""
        self.is_shut = True
        self._fail_all(error_of_end("lost", text, ""))
        self._close(at_once=True)

    def _close(self, *, at_once: bool = False) -> None:
        if self.is_forked:
            return
        with self._changing:
            self._is_closed = True
            link, self._link = self._link, None
        self._close_old_links()
        if link is not None:
            link.close(at_once=at_once)
        self._fail_what_is_late()

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self.is_forked = True
        self._changing = threading.RLock()
        for link in [*self._old_links, *([self._link] if self._link is not None else [])]:
            link.forget()


def _workers_do_not_start(text: str) -> Exception:
    from .errors import CannotStart

    return CannotStart(
        f"the workers of this executor do not start ({text}): see what they wrote to standard error, and whether this interpreter runs"
        f" 'import bulkhead.worker': {sys.executable}"
    )


def _again(error: Exception) -> Exception:
    """The same error for another call: each future has an exception of its own."""
    made = type(error)(str(error))
    made.__cause__ = error.__cause__
    return made
