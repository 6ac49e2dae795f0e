"""The calls that an executor has under way: it submits them, asks and cancels, and ends the executor.

It starts a link when the first call comes and after the daemon was lost (`_links.py`), gives each call a token, and keeps what the
call completes (`_pending.py`); `_events.py` reads what becomes of it. The executor, its views and its futures share it; it does not
know the executor, so that this one can be collected. A signal handler may submit at any line of the main thread, so each lock is
reentrant, and none is held while anything waits for the daemon, but the start of a link.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from functools import partial

from . import _call, _exit, _inherited, _wire
from ._ending import error_of_end
from ._events import EventReader
from ._future import LEAD_MAX, Future
from ._links import LinkLost, Links
from ._lost_daemon import LostDaemons, SentCall
from ._pending import PendingCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._chunks import ChunkedMap
    from ._link import Link, Rules
    from ._map import MapResults
    from ._native import MemoryFile
    from ._options import CallOptions, PoolSettings
    from ._pending import Target

_NO_ARGUMENTS: dict[str, Any] = {}
# A batch of a map: as many calls are submitted in one go.
_BATCH = 256


class Pool:
    """What an executor, its views and its futures share."""

    def __init__(self, settings: PoolSettings) -> None:
        """Starts nothing."""
        self.settings = settings
        self.is_strict = settings.is_strict
        self.calls = PendingCalls()
        self.pending: dict[int, Target] = self.calls.targets
        self.events = EventReader(self)
        self.links = Links(self._make_link)
        self.lost = LostDaemons(self)
        self.encoder = _call.CallEncoder()
        self.tokens = itertools.count(1)
        self.broken: Exception | None = None
        self.is_shut = False
        self.is_forked = False
        self.is_cancelling = False
        """What is not sent is not to be."""
        self.open_maps: dict[int, ChunkedMap] = {}
        """Maps with items that are not sent, by their marks in `pending`."""
        _exit.watch(self)

    @property
    def _link(self) -> Link | None:
        return self.links.current

    @property
    def _is_closed(self) -> bool:
        return self.links.is_closed

    def _make_link(self) -> Link:
        # Here, because it loads more than the rest of the package. A child that is forked in the midst of an import could never end it.
        with _inherited.opening:
            try:
                from ._link import Link
            except (ImportError, OSError) as error:
                told = _without_descriptor(error)
                raise told from (None if told is error else error)

        return Link(self.settings, self.events.on_events)

    # Submitting.

    def ready(self) -> Link:
        """The link, started if there is none. Raises `RuntimeError` and `BrokenProcessPool` if no call is taken any more."""
        link = self.links.current
        while link is None or self.is_shut or self.broken is not None or _exit.is_exiting or self.is_forked:
            self.check_open()
            link = self.links.start()
        # Before a call has ended, the first workers may be in their start yet: an import there has the time limit of the start.
        if link.has_ended_call and link.modules_noted != len(self.encoder.modules):
            link.note_modules(list(self.encoder.modules))
        return link

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
        except Exception as error:
            self._fail_unsent(link, [(token, future)], error)
        except BaseException:
            self.calls.take_out(token)
            raise
        return future

    def _fail_unsent(self, link: Link, unsent: list[tuple[int, Target]], error: Exception) -> None:
        """Ends calls that could not be sent."""
        if isinstance(error, LinkLost):
            self.links.lose(link)
            left = [(token, target) for token, target in unsent if not self.lost.take(link, token, never_ran=True)]
            if len(left) < len(unsent):
                self.lost.follow(link)
            unsent, error = left, link.error_of_end("lost", str(error), "")
        # The executor may have been ended meanwhile, and they with it.
        self.calls.finish([(token, target, False, error) for token, target in unsent])

    def _send(
        self, link: Link, token: int, options: CallOptions, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        encoder = self.encoder
        head = encoder.head(function)
        if head is None:
            data, buffers = encoder.whole(function, args, kwargs)
            flavour, prefix, context = encoder.flavour(function), _call.WHOLE_HEAD, None
        else:
            data, buffers = encoder.arguments(function, args, kwargs)
            flavour, prefix, context = head.flavour, head.prefix, head if head.blob is not None else None
            if context is not None and not link.has_context(context):
                # More functions are under way than a daemon takes: it goes with the call.
                data, buffers = encoder.whole(function, args, kwargs)
                prefix, context = _call.WHOLE_HEAD, None
            elif buffers:
                data, buffers = encoder.whole(None if context is not None else function, args, kwargs)  # type: ignore[arg-type]
        rules = options, flavour, context
        if not buffers:
            if options.crashes_max > 1:
                self.calls.sent[token] = SentCall(link, rules, prefix, data)
            link.submit(token, rules, prefix, data)
        else:
            keep = partial(self._keep, token, link, rules) if options.crashes_max > 1 else _keep_nothing
            link.submit_pieces(token, rules, _wire.Pieces(_call.WHOLE, data, buffers), self.pending.__contains__, keep)

    def _keep(self, token: int, link: Link, rules: Rules, body: bytes | MemoryFile) -> None:
        self.calls.sent[token] = SentCall(link, rules, b"", body)

    def submit_one_of_map(self, results: MapResults, index: int, args: tuple[Any, ...]) -> None:
        """Submits one item of a map. An error of pickling is the item's. Raises as `ready`."""
        link = self.ready()
        token = results.first_token + index
        self.pending[token] = results, index
        try:
            self._send(link, token, results.options, results.function, args, _NO_ARGUMENTS)
        except Exception as error:
            self._fail_unsent(link, [(token, (results, index))], error)
        except BaseException:
            self.calls.take_out(token)
            raise

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
        begin, bodies = 0, []
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
            self._send_batch(link, results, head, begin, bodies)
            begin, bodies = index + 1, []
            if not is_plain:
                self.submit_one_of_map(results, index, args)
        self._send_batch(link, results, head, begin, bodies)

    def _send_batch(self, link: Link, results: MapResults, head: _call.Head, begin: int, bodies: list[bytes]) -> None:
        first = results.first_token + begin
        targets: list[tuple[int, Target]] = [(first + at, (results, begin + at)) for at in range(len(bodies))]
        self.pending.update(targets)
        rules = results.options, head.flavour, None
        try:
            if bodies:
                if results.options.crashes_max > 1:
                    self.calls.sent.update((first + at, SentCall(link, rules, head.prefix, body)) for at, body in enumerate(bodies))
                link.submit_many(first, rules, head.prefix, bodies)
        except Exception as error:
            self._fail_unsent(link, targets, error)
        except BaseException:
            # What was sent has no place to be completed in.
            self.drop_many([token for token, _ in targets])
            raise

    def pump_maps(self) -> None:
        """Sends what maps have left, as far as there is room."""
        if self.open_maps:
            for results in list(self.open_maps.values()):
                results.pump()

    # Asking and cancelling.

    def is_running(self, token: int) -> bool:
        """Whether a worker runs this call now."""
        link = self.links.current
        if link is None or self.is_forked or token not in self.pending:
            return False
        try:
            return link.session.is_running(token)
        except ConnectionError:
            return False

    def progress_of(self, token: int) -> tuple[int, int] | None:
        """The last progress that the daemon told of this call."""
        return self.calls.progress.get(token)

    def drop(self, token: int) -> None:
        """Ends a call whose future is cancelled already."""
        self.drop_many([token])

    def drop_many(self, tokens: Sequence[int]) -> None:
        """Ends calls of which nobody wants the result any more. An interrupted call is to be repeated."""
        dropped = [token for token in tokens if token in self.pending]
        resent = [token for token in dropped if token in self.calls.sent]
        # They leave the table when the daemon knows: a second call finds what an interrupted one has left.
        self.cancel_with(self.links.current, dropped)
        self.calls.drop(dropped)
        # After a lost daemon they may have been sent again between the two.
        self.cancel_with(self.links.current, resent)

    def cancel_with(self, link: Link | None, tokens: list[int]) -> None:
        """Cancels these calls at the daemon of a link, whether they are in the table or not. It may be repeated."""
        if tokens and link is not None and not self.is_forked:
            if self.is_strict:
                link.session.cancel_waiting(tokens)
            else:
                link.session.cancel(tokens)

    def cancel_strictly(self, future: Future[Any]) -> bool:
        """Cancels a future if no worker runs its call, as the standard library does."""
        link, token, begun = self.links.current, future._token, self.calls.begun
        if link is None or self.is_forked:
            return False
        # Also a call that its worker is about to begin: once `running()` was true, `cancel()` is false.
        if token in begun or self.is_running(token):
            return False
        try:
            link.session.cancel_waiting([token])
            link.session.lead(token, lambda: future.done() or token in begun)
        except ConnectionError:
            return False
        return future.cancelled()

    def wait_leading(self, future: Future[Any], timeout: float | None) -> float | None:
        """Waits for a future while this thread reads the session, if few calls are under way. The seconds that are left."""
        link = self.links.current
        if self.is_forked:
            raise RuntimeError("this future belongs to the parent of this forked process: it is never done here")
        # A done callback has the reading thread to itself: if it did not read, nobody would.
        if link is None or (len(self.pending) > LEAD_MAX and not self.calls.is_telling()):
            return timeout
        if timeout is None:
            link.session.lead(future._token, future.done)
            return None
        until = time.monotonic() + timeout
        link.session.lead(future._token, future.done, max(timeout, 0.0))
        return max(until - time.monotonic(), 0.0)

    def lead_in_callback(self, is_met: Callable[[], bool], timeout: float | None) -> None:
        """In a done callback: reads the session until this is met, because the thread has it to itself. Elsewhere it does nothing."""
        link = self.links.current
        if link is not None and self.calls.is_telling() and not self.is_forked:
            # No call has this token: it looks whenever anything has ended.
            link.session.lead(0, is_met, timeout)

    def workers(self) -> list[dict[str, Any]]:
        """The daemon's rows of its workers; none if there is no daemon."""
        link = self.links.current
        if link is None or self.is_forked:
            return []
        import json

        try:
            found: list[dict[str, Any]] = json.loads(link.session.workers())
        except ConnectionError:
            return []
        return found

    # Ending.

    def fail_if_broken(self) -> None:
        """Ends all calls by what has broken the executor, if anything has."""
        if self.broken is not None and self.pending:
            self._fail_all(self.broken)

    def _fail_all(self, error: Exception) -> None:
        ended, link = self.calls.all_with(error), self.links.current
        if link is not None:
            link.session.cancel([token for token, *_ in ended])
        self.calls.finish(ended)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """As `Executor.shutdown`. Without `wait` a thread waits for the calls that go on; also in a done callback, whose call is one of
        them."""
        if self.is_forked:
            return
        self.is_shut = True
        if cancel_futures:
            self.is_cancelling = True
            self.pump_maps()
            # The oldest ones are with the workers or about to be: as in the standard library, these go on.
            tokens = list(self.pending)[self.settings.workers :]
            # While a lost daemon is replaced there is no link.
            self.lost.cancel(tokens)
            link = self.links.current
            if link is not None:
                link.session.cancel_waiting(tokens)
        if wait and not self.calls.is_telling():
            self.finish()
        elif not self.links.is_closed and not _exit.is_exiting:
            self._finish_beside()

    def _finish_beside(self) -> None:
        try:
            threading.Thread(target=self.finish, name="bulkhead-shutdown").start()
        except RuntimeError:
            # A limit of processes is met, or the interpreter ends. The thread of the session must not outlive the interpreter.
            if self.pending:
                _exit.hold(self)
            else:
                self.finish()

    def finish(self) -> None:
        """Waits until nothing is under way, then ends the daemon."""
        self.pump_maps()
        self.calls.wait_idle(lambda: self.links.is_closed or self.is_forked)
        self._close(at_once=False)

    def end_now(self, text: str) -> None:
        """Ends the daemon with all that runs; what is under way fails as `Lost`."""
        self.is_shut = True
        self._fail_all(error_of_end("lost", text, ""))
        self._close(at_once=True)

    def _close(self, *, at_once: bool) -> None:
        if not self.is_forked:
            self.links.close(at_once=at_once)
            self.calls.tell_waiting()

    def forget(self) -> None:
        """In a forked child: all of it is the parent's."""
        self.is_forked = True
        self.calls.forget()
        self.lost.forget()
        self.links.forget()


def _without_descriptor(error: Exception) -> Exception:
    """What an import means that failed: it says nothing of a limit of open files which is met, and no further module can be loaded then."""
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
        return error
    except OSError as found:
        text = f"the daemon of this executor cannot be started: {found.strerror}: this process may have {os.sysconf('SC_OPEN_MAX')} open files (RLIMIT_NOFILE): raise that (ulimit -n), or close files"
        try:
            from .errors import CannotStart
        except (ImportError, OSError):
            return OSError(found.errno, text)
        return CannotStart(text)


def _keep_nothing(_: bytes | MemoryFile) -> None:
    """Of a call that is sent once."""
