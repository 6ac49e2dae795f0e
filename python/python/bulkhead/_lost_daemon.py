"""What goes on after a daemon was lost: calls with `retries` run again, and maps go on, with the next daemon.

| what was under way | what becomes of it |
|---|---|
| a call without `retries` | it fails as `Lost` at once (`_events.py`) |
| a call with `retries` | it is submitted again once all workers of the lost daemon have ended; if that is not proven in time, it is `Lost` |
| items of chunks that never began, or were not sent | they go to the next daemon (`_chunks.py`) |

A thread of its own does it, because it waits. It never closes the lost session before it has submitted the calls: a done callback that waits
for one of them may have that session's thread. Driven by `_events.py`, `_pool.py` and `_chunks.py`.
"""

from __future__ import annotations

import threading
import time

from ._ending import CANCELLED
from ._links import LinkLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._link import Link, Rules
    from ._native import MemoryFile
    from ._options import CallOptions
    from ._pool import Pool

PROOF_SECONDS = 10.0
"""How long the workers of a lost daemon may take to end. They are killed with it."""
NOT_PROVEN = f"it is not run again, because a worker of that daemon, or a process that it forked, has not ended after {PROOF_SECONDS:.0f} s"


class SentCall:
    """A call with `retries` as it was sent, to be sent again."""

    __slots__ = ("body", "link", "never_ran", "prefix", "rules")

    def __init__(self, link: Link, rules: Rules, prefix: bytes, body: bytes | MemoryFile) -> None:
        """The link that it is sent with, and what is sent."""
        self.link = link
        self.rules = rules
        self.prefix = prefix
        self.body = body
        self.never_ran = False
        """Whether it did not reach the daemon of this link."""


class LostDaemons:
    """See the head of this file."""

    def __init__(self, pool: Pool) -> None:
        """For the calls of this pool."""
        self._pool = pool
        # Calls that wait to be sent again, and the link that they were lost with.
        self._taken: dict[int, Link] = {}
        self._running = threading.Lock()
        self._lowered: dict[tuple[CallOptions, int], CallOptions] = {}

    def take(self, link: Link, token: int, *, never_ran: bool = False) -> bool:
        """Whether this call, which was lost with this link, is submitted again; then `follow` is to be called. It may be repeated."""
        call = self._pool.calls.sent.get(token)
        if call is None or link.given_up_by is not None or self._pool.links.is_closed:
            return False
        if call.link is link:
            if not never_ran and call.rules[0].crashes_max < 2:
                return False
            call.never_ran = never_ran
            link.daemon.workers.is_needed = True
            self._taken[token] = link
        # Else it was sent again already.
        return True

    def follow(self, link: Link) -> None:
        """Has a thread send what was lost with this link, and what its maps have left. It may be repeated."""
        try:
            threading.Thread(target=self._follow, args=[link], name="bulkhead-lost-daemon").start()
        except RuntimeError:
            self._give_up(link, "no thread could be started to run it again")

    def _follow(self, link: Link) -> None:
        with self._running:
            try:
                link.daemon.workers.is_needed = True
                # Its process may live: it is lost when its connection is.
                link.daemon.stop()
                is_proven = link.daemon.workers.have_ended(time.monotonic() + PROOF_SECONDS)
                found = self._pool.links.start_next()
            except Exception as error:
                self._fail(link, error)
            else:
                if found is None:
                    self._give_up(link, "the executor was ended")
                else:
                    try:
                        self._send_all(link, found, is_proven)
                    except Exception as error:
                        self._fail(link, error)
        self._pool.links.close_lost()

    def _send_all(self, link: Link, found: Link, is_proven: bool) -> None:
        for token in self._taken_with(link):
            # Before it is sent: if the next daemon is lost too, it is taken again, with that one.
            if self._taken.pop(token, None) is None:
                continue  # It was cancelled meanwhile.
            call = self._pool.calls.sent.get(token)
            if call is not None and call.link is link and token in self._pool.pending:
                if is_proven or call.never_ran:
                    self._send(found, token, call)
                else:
                    self._lose(link, token, NOT_PROVEN)
        for results in list(self._pool.open_maps.values()):
            results.move(link, found)

    def _taken_with(self, link: Link) -> list[int]:
        # A copy is one step. To list the items makes tuples, at which the garbage collector may let another thread take a call.
        return [token for token, lost in self._taken.copy().items() if lost is link]

    def cancel(self, tokens: list[int]) -> None:
        """Cancels those of these calls that wait to be sent again."""
        for token in tokens:
            if self._taken.pop(token, None) is not None and token in self._pool.pending:
                self._pool.calls.finish([(token, self._pool.pending[token], False, CANCELLED)])

    def _send(self, link: Link, token: int, call: SentCall) -> None:
        options, flavour, head = call.rules
        if not call.never_ran:
            options = self._once_less(options)
        # Before it is sent: its end may be read at once.
        call.link, call.rules, call.never_ran = link, (options, flavour, head), False
        try:
            link.submit_again(token, call.rules, call.prefix, call.body)
        except LinkLost:
            self._pool.links.lose(link)
            if self.take(link, token, never_ran=True):
                self.follow(link)
            else:
                self._lose(link, token, "its next daemon was lost too")
        except Exception as error:
            self._pool.calls.finish([(token, self._pool.pending[token], False, error)] if token in self._pool.pending else [])
        if token not in self._pool.pending:
            link.session.cancel([token])

    def _once_less(self, options: CallOptions) -> CallOptions:
        """The same limits with one retry less."""
        key = options, options.crashes_max - 1
        return self._lowered.setdefault(key, options.changed(retries=options.crashes_max - 2))

    def _give_up(self, link: Link, why: str) -> None:
        self._fail(link, link.error_of_end("lost", why, ""))

    def _fail(self, link: Link, error: Exception) -> None:
        from ._ending import again

        for token in self._taken_with(link):
            target = self._pool.pending.get(token)
            if target is not None:
                self._pool.calls.finish([(token, target, False, again(error))])
            self._taken.pop(token, None)
        for results in list(self._pool.open_maps.values()):
            results.fail_with(link, error)

    def _lose(self, link: Link, token: int, why: str) -> None:
        target = self._pool.pending.get(token)
        if target is not None:
            self._pool.calls.finish([(token, target, False, link.error_of_end("lost", why, ""))])

    def forget(self) -> None:
        """In a forked child: its thread is not there."""
        self._taken.clear()
