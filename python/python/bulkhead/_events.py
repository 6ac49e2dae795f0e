"""What a session tells, read: results are unpickled, ends become exceptions, and what breaks the executor is seen.

The thread that reads the session calls it, which may be any. Driven by `_pool.py`.
"""

from __future__ import annotations

import sys
import threading

from . import _answer, _wire
from ._ending import CANCELLED
from ._native import ChunkEnd, LongBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._link import Link
    from ._native import Event
    from ._pending import Ended
    from ._pool import Pool

# In the daemon's notices of a pool: nothing runs there; so many workers ended in their start, one after the other.
_NO_WORKER = "no worker comes up"
_NO_START = "in a row did not come up"


class EventReader:
    """Reads the events of the sessions of one executor."""

    def __init__(self, pool: Pool) -> None:
        """For the calls of this pool."""
        self._pool = pool
        # The call whose result was being unpickled at the last Ctrl-C.
        self._interrupted = 0
        # What a signal's handler has raised meanwhile, for the program.
        self.of_handler: BaseException | None = None

    def on_events(self, link: Link, events: list[Event]) -> None:
        """What the session tells. After an interruption in the midst of it, it is called again with the same events."""
        calls = self._pool.calls
        ended: list[Ended] = []
        target_of, loads, returned = calls.targets.get, _wire.loads, _answer.RETURNED
        is_followed = False
        for token, what in events:
            target = target_of(token)
            kind = type(what)
            if kind is LongBytes:
                what = what.bytes()  # type: ignore[union-attr]
                kind = bytes
            if kind is bytes and target is not None and what[0] == returned:  # type: ignore[index]
                try:
                    ended.append((token, target, True, loads(what)))
                    continue
                except Exception as raised:
                    ended.append((token, target, *self._end_of(link, token, what, raised)))
                    continue
                except BaseException as interruption:
                    ended.append((token, target, False, self.stopped(token, interruption)))
                    continue
            if kind is tuple and (len(what) != 3 or what[0] == "progress"):  # type: ignore[arg-type,index]
                self._hear(link, token, what)  # type: ignore[arg-type]
            elif target is not None:
                if type(what) is ChunkEnd:
                    for error in target.results.absorb(target, what):  # type: ignore[union-attr,arg-type]
                        self.judge(error)
                    if target.again:  # type: ignore[union-attr]
                        target.results.tell()  # type: ignore[union-attr]
                    else:
                        ended.append((token, target, True, None))
                    link.has_ended_call = True
                    continue
                if kind is tuple and what[0] == "lost" and self._pool.lost.take(link, token):  # type: ignore[index]
                    is_followed = True
                    continue
                is_result, value = self._end_of(link, token, what)
                ended.append((token, target, is_result, value))
                if not is_result:
                    self.judge(value)
        if is_followed:
            # First, because a done callback may wait for what is sent again.
            self._pool.links.lose(link)
            self._pool.lost.follow(link)
        if ended:
            link.has_ended_call = True
            if not link.daemon.warm_up.has_begun and any(is_result for _, _, is_result, _ in ended):
                link.note_modules(list(self._pool.encoder.modules))
                link.warm_up()
            calls.finish(ended)
        self._pool.fail_if_broken()
        self._pool.pump_maps()
        self.raise_of_handler()

    def _end_of(self, link: Link, token: int, what: Any, raised: Exception | None = None) -> tuple[bool, Any]:
        """Whether a call returned, and what it returned or raised. `raised` as in `read_fairly`."""
        if type(what) is tuple:
            return False, link.error_of_end(*what)
        return self.read_fairly(token, lambda: _answer.read(what), raised)

    def read_fairly(self, token: int, read: Callable[[], tuple[bool, Any]], raised: BaseException | None = None) -> tuple[bool, Any]:
        """What `read` gives: whether a call returned, and what. A result that cannot be unpickled is read twice. `raised`: the error of a first
        time. What comes only once is no error of the result: in the main thread a signal's handler has
        raised it, and it is the program's."""
        try:
            is_result, value = read()
            if raised is None and is_not_readable(is_result, value):
                raised = value.__cause__
                is_result, value = read()
            if raised is not None and not is_not_readable(is_result, value):
                # Handlers run in the main thread alone.
                if threading.get_ident() == threading.main_thread().ident:
                    self.of_handler = raised
            return is_result, value
        except BaseException as error:
            return False, self.stopped(token, error)

    def raise_of_handler(self) -> None:
        """Raises what a signal's handler has raised while a result was unpickled, once the results are where they belong."""
        if self.of_handler is not None:
            error, self.of_handler = self.of_handler, None
            raise error

    def stopped(self, token: int, error: BaseException) -> Exception:
        """Ctrl-C while a result is unpickled is the program's: it is raised, and the result is read again. What raises the same again is
        the result itself."""
        if isinstance(error, KeyboardInterrupt) and self._interrupted != token:
            self._interrupted = token
            raise error
        return _answer.not_readable(error)

    def _hear(self, link: Link, token: int, what: tuple[Any, ...]) -> None:
        """Events that end no call."""
        calls = self._pool.calls
        if what[0] == "gone":
            self._pool.links.lose(link)
        elif what[0] == "notice":
            self._hear_notice(link, what[1])
        elif token in calls.targets:
            if what[0] == "progress":
                calls.progress[token] = what[1:]
            elif what[0] == "runs-on":
                calls.begun.add(token)

    def _hear_notice(self, link: Link, text: str) -> None:
        # Workers that came up and were ended by something else are started again; what ends in its start does so again.
        if _NO_WORKER in text and (_NO_START in text or not link.has_ended_call):
            # What has ended, and waits for its certificate, ends as it has.
            link.given_up_by = _workers_do_not_start(text)
            self._pool.links.lose(link)
            self._pool.links.close_lost()

    def judge(self, error: Any) -> None:
        """Whether this end breaks the executor: then all calls end by it, once those are complete that were told with it."""
        pool = self._pool
        if pool.broken is not None or error is CANCELLED:
            return
        errors: Any = sys.modules.get("bulkhead.errors")
        if errors is None:
            return
        if isinstance(error, errors.InitializerFailed):
            pool.broken = error
        elif pool.is_strict and isinstance(error, (errors.WorkerCrashed, errors.Lost)):
            pool.broken = errors.BrokenProcessPool(
                "A child process terminated abruptly, the process pool is not usable anymore (strict_stdlib=True)"
            )


def is_not_readable(is_result: bool, value: Any) -> bool:
    """Whether this is the error of a result that could not be unpickled."""
    errors: Any = sys.modules.get("bulkhead.errors")
    return not is_result and errors is not None and isinstance(value, errors.ResultNotReadable)


def _workers_do_not_start(text: str) -> Exception:
    from .errors import CannotStart

    return CannotStart(
        f"the workers of this executor do not start ({text}): see what they wrote to standard error, and whether this interpreter runs"
        f" 'import bulkhead.worker': {sys.executable}"
    )
