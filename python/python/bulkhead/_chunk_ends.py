"""What the chunks of a map become: results are delivered, what had begun fails, and what never began is cut out to be sent again.

It is told of the end of each chunk, and may be told again of one whose handling was interrupted. It also measures what calls take, for the size
of later chunks. `_chunks.py` sends them.
"""

from __future__ import annotations

from . import _answer, _wire
from ._ending import error_of_end
from ._events import is_not_readable
from ._map import MapResults
from ._native import ChunkTicket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._link import Link
    from ._native import ChunkEnd, ChunkValues, Word
    from ._options import CallOptions
    from ._pool import Pool

# A chunk that is not shorter than this costs little beside its calls; a longer one makes workers wait at the end of a map.
_AIM_SECONDS = 0.004
_LEAST_SECONDS = 0.0005
# A chunk has at most so many times the calls of the longest that was measured.
_GROWTH = 8
ITEMS_MAX = 1 << 15
# Memory for the results of a chunk: what is longer than expected goes another way, and ends the chunk.
ROOM_MAX = 1 << 20
# After these ends no item of a chunk is sent again.
_FAIL_ALL = ("cancelled", "withdrawn", "lost", "refused", "expired")
# So many daemons in a row may be lost with the same call at the head of its chunk, before it is held to be the reason.
_LOSSES_MAX = 3


class MapChunk:
    """Neighbouring items of a map that are sent together."""

    __slots__ = ("again", "begin", "behind", "body", "count", "first", "link", "losses", "results", "ticket", "token", "tries")

    def __init__(
        self, results: ChunkEnds, begin: int, count: int, body: bytes | list[bytes], *, first: int = 0, tries: int = 0, losses: int = 0
    ) -> None:
        """`body`: the pickle of a listed chunk, of which `first` calls are left out; or pickles of calls. `tries`: deaths before; `losses`:
        daemons that were lost with it before."""
        self.results = results
        self.begin = begin
        self.count = count
        self.body = body
        self.first = first
        self.tries = tries
        self.losses = losses
        self.behind: Link | None = None
        """It is sent only if all workers of this lost daemon have ended: one of them had begun it."""
        self.link: Link | None = None
        """What it is sent with."""
        self.token = next(results._pool.tokens)
        self.ticket = ChunkTicket(self.token)
        self.again: list[MapChunk] | None = None
        """What is sent instead of it after its end."""

    def part(self, begin: int, count: int, tries: int = 0, losses: int = 0) -> MapChunk:
        """Some of its items as another chunk."""
        skipped = begin - self.begin
        if isinstance(self.body, bytes):
            return MapChunk(self.results, begin, count, self.body, first=self.first + skipped, tries=tries, losses=losses)
        return MapChunk(self.results, begin, count, self.body[skipped : skipped + count], tries=tries, losses=losses)

    def fail_all(self, error_of: Callable[[], Any]) -> None:
        """Ends what is open of it with an error of its own for each item."""
        self.results.fail(self.begin, self.begin + self.count, error_of)
        self.results.leave(self)


class ChunkEnds(MapResults):
    """See the head of this file."""

    def __init__(self, pool: Pool, link: Link, function: Callable[..., Any], options: CallOptions) -> None:
        """No chunk is sent yet."""
        super().__init__(function, options)
        self._pool = pool
        self._link = link
        self.mark = self.first_token + (1 << 32) - 1
        """Stands among the calls under way for what is not sent."""
        self._open: dict[int, MapChunk] = {}
        # Chunks that have ended, and of which parts are sent again. Until `_chunks.py` has queued these, each is among the calls under way.
        self._returned: dict[int, MapChunk] = {}
        # Of finished calls, with less weight the older they are.
        self._seconds = self._items = 0.0
        self._longest = 1
        self._result_bytes = 64.0

    def leave(self, chunk: MapChunk) -> None:
        """A chunk is with no worker any more."""
        self._open.pop(chunk.token, None)

    def _goes_on(self, link: Link) -> bool:
        """Whether what is not sent of this map goes to the next daemon, if that of this link is lost."""
        return link.given_up_by is None and not self._pool.links.is_closed

    def absorb(self, chunk: MapChunk, end: ChunkEnd) -> list[Any]:
        """Takes what a chunk left, and prepares what is left of it to be sent again: `pump` sends that, and until then the chunk is
        under way. The errors of its items."""
        errors = self._deliver(chunk, end.results)
        at, last = chunk.begin + len(end.results.values), chunk.begin + chunk.count
        again_sent: list[MapChunk] = []
        if end.stop == "all":
            self._measure(chunk, end)
        elif end.stop in ("long", "long-failed"):
            errors += self._take_long(chunk, at, end)
            at += 1
        else:
            word = end.end[0] if isinstance(end.end, tuple) else "failed"
            if word == "lost" and end.stop != "fault" and chunk.link is not None and self._goes_on(chunk.link):
                again_sent, failures = self._absorb_loss(chunk, at, last, end)
                errors += failures
                at = last
            else:
                again_sent, at, failure = self._absorb_death(chunk, at, end, word)
                errors.append(failure)
        if at < last:
            again_sent.append(chunk.part(at, last - at))
        if chunk.again is None:
            chunk.again = again_sent
        if chunk.again:
            self._returned[chunk.token] = chunk
            self._pool.open_maps[self.mark] = self  # type: ignore[assignment]
        self.leave(chunk)
        return errors

    def _absorb_death(self, chunk: MapChunk, at: int, end: ChunkEnd, word: str) -> tuple[list[MapChunk], int, Any]:
        """What is sent again for itself of a chunk that ended early; the first of the items behind, that are sent again too; and its error."""
        error, last = self._error_of(chunk, end), chunk.begin + chunk.count
        if end.stop == "fault" or word in _FAIL_ALL or (end.stop == "unbegun" and (word == "failed" or chunk.tries > 0)):
            self.fail(at, last, error)
            return [], last, error()
        if end.stop == "unbegun":
            return [chunk.part(at, last - at, tries=1)], last, error()
        if word == "crashed" and chunk.tries + 1 < self.options.crashes_max:
            return [chunk.part(at, 1, tries=chunk.tries + 1)], at + 1, error()
        self.fail(at, at + 1, error)
        return [], at + 1, error()

    def _absorb_loss(self, chunk: MapChunk, at: int, last: int, end: ChunkEnd) -> tuple[list[MapChunk], list[Any]]:
        """What is sent again of a chunk whose daemon was lost; and the errors of its items that are not."""
        parts, errors, error = [], [], self._error_of(chunk, end)
        if chunk.link is not None:
            # Its workers have to end before what had begun is sent again: `_send` asks this of a link that is gone.
            self._pool.links.lose(chunk.link)
        # Daemons that were lost with the same item at the head.
        losses = chunk.losses if at == chunk.begin else 0
        if end.stop == "begun":
            if chunk.tries + 1 < self.options.crashes_max and chunk.link is not None:
                chunk.link.daemon.workers.is_needed = True
                parts.append(chunk.part(at, 1, tries=chunk.tries + 1))
                parts[0].behind = chunk.link
            else:
                errors.append(error())
                self.fail(at, at + 1, error)
            at, losses = at + 1, 0
        if at < last and losses + 1 < _LOSSES_MAX:
            parts.append(chunk.part(at, last - at, losses=losses + 1))
        elif at < last:
            errors.append(error())
            self.fail(at, at + 1, error)
            if at + 1 < last:
                parts.append(chunk.part(at + 1, last - at - 1))
        return parts, errors

    def _deliver(self, chunk: MapChunk, results: ChunkValues) -> list[Any]:
        """Takes the results from the first one on. Those that are failures."""
        begin, values, raised = chunk.begin, results.values, None
        if not results.failed and not any(self.there[begin : begin + len(values)]):
            try:
                if len(results.pickled) == len(values):
                    values = list(map(_wire.loads, values))
                elif results.pickled:
                    values = values.copy()
                    for index in results.pickled:
                        values[index] = _wire.loads(values[index])
            except Exception as error:
                raised = error
            except BaseException as error:
                self._pool.events.stopped(chunk.token, error)
            else:
                self.set_returned(begin, values)
                return []
        errors, failed, pickled = [], set(results.failed), set(results.pickled)
        for index, value in enumerate(results.values):
            if self.there[begin + index]:
                continue
            is_result = True
            if index in failed or index in pickled:
                is_result, value = self._read(chunk, value, index in failed)
            if not is_result:
                # Before it is marked: after an interruption it is not looked at again.
                self._pool.events.judge(value)
                errors.append(value)
            self.there[begin + index] = self.set(begin + index, is_result, value)
        if raised is not None and not any(is_not_readable(False, error) for error in errors):
            self._pool.events.of_handler = raised
        return errors

    def _read(self, chunk: MapChunk, answer: Any, is_failed: bool) -> tuple[bool, Any]:
        """Whether a call of a chunk returned, and what it returned or raised."""
        return self._pool.events.read_fairly(chunk.token, lambda: _answer.read_of_chunk(answer, is_failed))

    def _take_long(self, chunk: MapChunk, index: int, end: ChunkEnd) -> list[Any]:
        if isinstance(end.end, tuple):
            is_result, value = False, (chunk.link or self._link).error_of_end(*end.end)
        else:
            is_result, value = self._read(chunk, end.end, end.stop == "long-failed")
            length = len(end.end) if isinstance(end.end, bytes) else end.end.length
            self._result_bytes = min(self._result_bytes + length / (len(end.results.values) + 1), float(ROOM_MAX))
        if not is_result:
            self._pool.events.judge(value)
        self.there[index] = self.set(index, is_result, value)
        return [] if is_result else [value]

    def _error_of(self, chunk: MapChunk, end: ChunkEnd) -> Callable[[], Any]:
        if end.stop == "fault":
            text = f"the results of the chunk cannot be read, and its calls may have run: {end.text}"
            return lambda: error_of_end("failed", text, "")
        what = end.end if isinstance(end.end, tuple) else ("failed", "the chunk ended before its last call", "")
        return self._end_error(chunk.link or self._link, *what)

    def _end_error(self, link: Link, word: Word, text: str, certificate: str) -> Callable[[], Any]:
        """Makes the error of a chunk's end."""
        return lambda: link.error_of_end(word, text, certificate)

    def _measure(self, chunk: MapChunk, end: ChunkEnd) -> None:
        length = end.results.length / max(chunk.count, 1)
        self._result_bytes = max(self._result_bytes * 0.75 + length * 0.25, length if self._items == 0 else 0.0, 1.0)
        if isinstance(end.end, bytes):
            self._seconds = self._seconds / 2 + int.from_bytes(end.end, "little") / 1e9
            self._items = self._items / 2 + chunk.count
            self._longest = max(self._longest, chunk.count)

    def _paced(self, left: int) -> int:
        """How many items the next chunk has, by what was measured."""
        if self._items == 0:
            return 1
        of_one = max(self._seconds / self._items, 1e-8)
        most = min(int(_AIM_SECONDS / of_one), _GROWTH * self._longest, ITEMS_MAX, int(ROOM_MAX / self._result_bytes))
        share = max(left // (2 * self._pool.settings.workers), int(_LEAST_SECONDS / of_one))
        return max(min(most, share), 1)

    def fail(self, begin: int, end: int, error_of: Callable[[], Any]) -> None:
        """Ends items that are open with an error of its own for each."""
        for index in range(begin, end):
            if not self.there[index]:
                self.there[index] = self.set(index, False, error_of())

    def _take_counted(self, index: int) -> None:
        """Takes what is there of the chunk that has this item, while it runs."""
        found = [chunk for chunk in list(self._open.values()) if chunk.begin <= index < chunk.begin + chunk.count]
        for chunk in found:
            counted = (chunk.link or self._link).session.counted(chunk.token)
            for error in self._deliver(chunk, counted) if counted is not None else ():
                self._pool.events.judge(error)
        self._pool.fail_if_broken()
        self._pool.events.raise_of_handler()
