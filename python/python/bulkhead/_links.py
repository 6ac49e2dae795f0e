"""The links of an executor, one after the other: the one that takes its calls now, and those that were lost and are not closed.

| lock | held |
|---|---|
| `_starting` | by a thread that starts a link, for as long as a daemon takes to come up |
| `_changing` | for the few lines that change which link is which |

Neither is held while a link is closed, because that waits for the thread that passes events on, and what it calls may take both.
They are reentrant: a signal handler may submit at any line of the main thread. Driven by `_pool.py`.
"""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._link import Link


class LinkLost(Exception):
    """The daemon of a link was gone before a call was sent. Not what pickling the call raised, which may be a `ConnectionError` too."""


class Links:
    """See the head of this file."""

    def __init__(self, make: Callable[[], Link]) -> None:
        """Starts nothing. `make` starts a link, and raises `CannotStart`."""
        self.current: Link | None = None
        """The link that takes calls."""
        self.is_closed = False
        """Whether none is started any more."""
        self._make = make
        self._lost: list[Link] = []
        self._starting = threading.RLock()
        self._changing = threading.RLock()

    def start(self) -> Link | None:
        """The link that takes calls, started if there is none. `None`: they are closed. Raises what starting raises."""
        self.close_lost()
        found = self.start_next()
        if found is None or not found.is_gone:
            self.close_lost()
        return found

    def start_next(self) -> Link | None:
        """The same without closing those that were lost."""
        made = None
        with self._starting:
            if self.current is None and not self.is_closed:
                made = self._make()
                with self._changing:
                    # A signal handler of this thread may have submitted, or ended the executor, meanwhile.
                    if self.current is None and not self.is_closed:
                        self.current = made
                    else:
                        self._lost.append(made)
                if made.is_gone:
                    self.lose(made)
                    return made
        # It may be lost by now; whoever sends something with it finds that.
        return self.current or (None if self.is_closed else made)

    def lose(self, link: Link) -> None:
        """The daemon of this link is gone, or is given up: the next call starts another."""
        with self._changing:
            link.is_gone = True
            if self.current is link:
                self.current = None
                self._lost.append(link)

    def close_lost(self) -> None:
        """Closes the links that were lost."""
        while self._lost:
            with self._changing:
                if not self._lost:
                    return
                link = self._lost.pop()
            try:
                link.close(at_once=True)
            except BaseException:
                self._lost.append(link)
                raise

    def close(self, *, at_once: bool) -> None:
        """Closes all of them, once a start that is under way has ended; no other is started then. `at_once` as in `Link.close`."""
        with self._starting, self._changing:
            self.is_closed = True
            link = self.current
        if link is not None:
            link.close(at_once=at_once)
            self.current = None
        self.close_lost()

    def forget(self) -> None:
        """In a forked child: all of them are the parent's."""
        self._starting, self._changing = threading.RLock(), threading.RLock()
        for link in [*self._lost, *([self.current] if self.current is not None else [])]:
            link.forget()
