"""The items of `Executor.map` in chunks: several calls that go to a worker together, each with a result of its own.

The worker stores the result of a call, then counts it, before the next call begins (`_chunk_run.py`). So at any end of a chunk it is
known which calls have a result, which one had begun, and which never began: the first are delivered, the second fails with
the end of the chunk, the others are submitted again. Nothing runs twice, unless `retries` asks for it.

| form | the arguments of its calls are | used |
|---|---|---|
| `LISTED` | one pickle, as the standard library's chunks are | with a `chunksize` of the program |
| `EACH` | a pickle for each call | where the size is chosen here, by the time that calls took; and for calls that need it |

A chunk is sent when there is room for it, by the thread of the program or by the one that tells events. Ctrl-C may
interrupt that at any line, and it is then done again: so each step may be repeated, and a `ChunkTicket` is submitted once.

There is no lock: a signal handler that waits for a result may interrupt a thread that has it, while the one that tells events wants it.
One thread at a time is in `_pump`, which alone touches `_unsent` and takes from `_waiting`. Others leave there what is to be done,
by calls that the interpreter does not interrupt, and the thread in `_pump` looks again before it leaves (`pump`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque

from . import _answer, _call, _wire
from ._ending import CANCELLED, again, error_of_end
from ._links import LinkLost
from ._lost_daemon import NOT_PROVEN
from ._map import MapResults
from ._native import ChunkTicket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._link import Link
    from ._native import ChunkEnd, ChunkValues, Word
    from ._options import CallOptions
    from ._pool import Pool

LISTED, EACH = 1, 2
FIRST_BYTES = 4
"""Bytes of a listed chunk before its pickle: how many of the calls are not run."""

# A chunk that is not shorter than this costs little beside its calls; a longer one makes workers wait at the end of a map.
_AIM_SECONDS = 0.004
_LEAST_SECONDS = 0.0005
# So many chunks of a map are with each worker, or on the way to it, while the size is chosen here.
_CHUNKS_PER_WORKER = 4
# A chunk has at most so many times the calls of the longest that was measured.
_GROWTH = 8
_ITEMS_MAX = 1 << 15
# Pickles of the arguments of a chunk, and of one call of it; what is longer goes alone.
_BYTES_MAX = 1 << 20
_ITEM_BYTES_MAX = _wire.OUT_OF_BAND_MIN
# A program that waits for an item looks so often at the results of its chunk, which may hang at a later item.
_LOOKS_SECONDS = 0.02
_LOOKS_SECONDS_MAX = 0.32
# Memory for the results of a chunk: what is longer than expected goes another way, and ends the chunk.
_ROOM_MAX = 1 << 20
_ROOM_LEAST = 1024
_AGAIN_SECONDS = 0.05
# So many daemons in a row may be lost with the same call at the head of its chunk, before it is held to be the reason.
_LOSSES_MAX = 3
_ROOM_FOR_ALL = ("cancelled", "withdrawn", "lost", "refused", "expired")


class MapChunk:
    """Neighbouring items of a map that are sent together."""

    __slots__ = ("again", "begin", "behind", "body", "count", "first", "link", "losses", "results", "ticket", "token", "tries")

    def __init__(
        self, results: ChunkedMap, begin: int, count: int, body: bytes | list[bytes], *, first: int = 0, tries: int = 0, losses: int = 0
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
        self.token = results.next_token()
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


class _Claim:
    """One call of `ChunkedMap.pump`."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class ChunkedMap(MapResults):
    """What the items of a map that goes in chunks became, and what is left to be sent."""

    def __init__(self, pool: Pool, link: Link, head: _call.Head, function: Callable[..., Any], options: CallOptions, size: int | None) -> None:
        """`size`: items of a chunk; `None`: by the time that they take."""
        super().__init__(function, options)
        self._pool = pool
        self._link = link
        self._head = head
        self.size = size
        self.is_whole = False
        """Whether all items are known."""
        # Calls of `pump` in their order: the first that is not over is in `_pump`, and alone removes those before it.
        self._claims: list[_Claim] = []
        self._is_asked = self._is_flushing = False
        # The lost link of which it is known that this map goes on with the next one.
        self._followed: Link | None = None
        self._unsent_error: Callable[[], Any] | None = None
        self._open: dict[int, MapChunk] = {}
        # Chunks that have ended, and of which parts are sent again. Until these are in `_unsent`, each is still among the calls under way.
        self._returned: dict[int, MapChunk] = {}
        self._unsent: dict[MapChunk, None] = {}
        # Listed chunks that are not in `_unsent` yet.
        self._listed: deque[MapChunk] = deque()
        # Items that are in no chunk yet, by index and pickle.
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._cutting: MapChunk | None = None
        self._singles: list[int] = []
        self._is_over = False
        # Of finished calls, with less weight the older they are.
        self._seconds = self._items = 0.0
        self._longest = 1
        self._result_bytes = 64.0
        self.mark = self.first_token + (1 << 32) - 1
        """Stands among the calls under way for what is not sent."""

    def next_token(self) -> int:
        """The token of a new chunk."""
        return next(self._pool.tokens)

    def check_open(self) -> None:
        """Raises what a submit raises now."""
        self._pool.check_open()

    # Items come.

    def add(self, args: tuple[Any, ...]) -> None:
        """One more item, to be sent in a chunk with its neighbours or alone. Raises nothing for what cannot be pickled."""
        index = len(self.there)
        self.grow(1)
        try:
            data: bytes | None = _wire.plain_dumps(args, _wire.PROTOCOL)
            if data is None or len(data) > _ITEM_BYTES_MAX or not _is_plain(data):
                data = self._odd(args)
        except Exception:
            data = self._odd(args)
        if data is not None:
            self._waiting.append((index, data))
        else:
            self._singles.append(self.first_token + index)
            self._pool.submit_one_of_map(self, index, args)

    def _odd(self, args: tuple[Any, ...]) -> bytes | None:
        """The pickle of arguments that need more than plain pickle; `None` for what goes alone: it is long, or cannot be pickled."""
        try:
            data, buffers = _call.dumps_any(args, lambda: "")
        except Exception:
            return None
        return data if not buffers and len(data) <= _ITEM_BYTES_MAX else None

    def add_listed(self, items: Sequence[tuple[Any, ...]]) -> None:
        """So many items as one chunk; one by one if one of them needs it."""
        begin = len(self.there)
        try:
            data, buffers = _wire.dumps(items)
            is_listed = not buffers and len(data) <= _BYTES_MAX and _is_plain(data)
        except Exception:
            is_listed = False
        if is_listed:
            self.grow(len(items))
            self._listed.append(MapChunk(self, begin, len(items), data))
            return
        for args in items:
            self.add(args)
        self.flush()

    def flush(self) -> None:
        """Sends all items that are known."""
        self._is_flushing = True
        self.pump()

    # Chunks are cut and sent.

    def pump(self) -> None:
        """Sends what there is to be sent, as far as there is room, or has the thread do it that does so just now. It may be interrupted
        and done again."""
        if self._pool.is_forked:
            return
        self._is_asked = True
        while self._is_asked:
            own = first = _Claim()
            try:
                try:
                    self._claims.append(own)
                    first = next(claim for claim in list(self._claims) if not claim.is_over)
                    if first is own:
                        while self._claims[0] is not own:
                            del self._claims[0]
                        self._is_asked = False
                        self._pump()
                finally:
                    own.is_over = True
            finally:
                # An interruption may have come right before that line.
                own.is_over = True
            if first is not own and not first.is_over:
                return  # It looks again once it is over.

    def _pump(self) -> None:
        pool = self._pool
        while self._listed:
            if not self._listed[0].ticket.is_sent:
                self._unsent[self._listed[0]] = None
            self._listed.popleft()
        self._take_returned()
        if pool.is_cancelling:
            self._fail_unsent(lambda: CANCELLED)
        elif pool.broken is not None:
            self._fail_unsent(lambda: again(pool.broken))
        elif self._unsent_error is not None:
            self._fail_unsent(self._unsent_error)
        while self._is_flushing:
            self._is_flushing = False
            while self._cut(is_flush=True):
                pass
        while not self._is_over:
            if not self._unsent and not self._cut():
                break
            chunk = next(iter(self._unsent))
            if not self._send(chunk):
                if not self._open and not self._link.is_gone:
                    _call_later(self.pump)
                break
            self._unsent.pop(chunk, None)
        self._note_unsent()

    def _take_returned(self) -> None:
        """Queues the parts of chunks that have ended before all others."""
        for token, chunk in list(self._returned.items()):
            parts = [one for one in chunk.again or () if not one.ticket.is_sent]
            self._unsent = {**{one: None for one in parts}, **self._unsent}
            self._note_unsent()
            self._pool.calls.take_out(token)
            self._returned.pop(token, None)

    def _note_unsent(self) -> None:
        if self._is_over:
            self._unsent.clear()
            self._waiting.clear()
            self._listed.clear()
        if self._unsent or self._waiting or self._listed:
            self._pool.open_maps[self.mark] = self
            self._pool.pending[self.mark] = self
        elif self.mark in self._pool.open_maps:
            self._pool.calls.take_out(self.mark)
            self._pool.open_maps.pop(self.mark, None)

    def _cut(self, *, is_flush: bool = False) -> bool:
        """Makes the next chunk of items that are known; `False`: there is none to be made now."""
        waiting = self._waiting
        if self._cutting is None:
            body = self._next_body(is_flush)
            if not body:
                return False
            self._cutting = MapChunk(self, waiting[0][0], len(body), body)
        chunk = self._cutting
        self._unsent[chunk] = None
        end = chunk.begin + chunk.count
        while waiting and waiting[0][0] < end:
            waiting.popleft()
        self._cutting = None
        return True

    def _next_body(self, is_flush: bool) -> list[bytes]:
        left = len(self._waiting)
        if self.size is not None:
            if left < self.size and not (is_flush or self.is_whole or self._pool.is_shut):
                return []
            most = self.size
        else:
            if not is_flush and len(self._open) >= _CHUNKS_PER_WORKER * self._pool.settings.workers:
                return []
            most = self._paced(left)
        body: list[bytes] = []
        length = 0
        # The list is made in one step: another thread may add to what waits.
        for index, data in list(itertools.islice(self._waiting, most)):
            length += len(data)
            if body and (length > _BYTES_MAX or index != self._waiting[0][0] + len(body)):
                break
            body.append(data)
        return body

    def _paced(self, left: int) -> int:
        """How many items the next chunk has, by what was measured."""
        if self._items == 0:
            return 1
        of_one = max(self._seconds / self._items, 1e-8)
        most = min(int(_AIM_SECONDS / of_one), _GROWTH * self._longest, _ITEMS_MAX, int(_ROOM_MAX / self._result_bytes))
        share = max(left // (2 * self._pool.settings.workers), int(_LEAST_SECONDS / of_one))
        return max(min(most, share), 1)

    def _send(self, chunk: MapChunk) -> bool:
        """Submits a chunk, unless that was done; `False`: there is no room, or the next daemon is to take it."""
        if chunk.ticket.is_sent:
            return True
        pool, link = self._pool, self._link
        if link.is_gone and self._goes_on(link):
            self._follow(link)
            return False
        if chunk.behind is not None and not chunk.behind.daemon.workers.has_ended:
            chunk.fail_all(self._end_error(link, "lost", NOT_PROVEN, ""))
            self.tell()
            return True
        chunk.link = link
        room = min(int(chunk.count * self._result_bytes * 1.5) + _ROOM_LEAST, _ROOM_MAX)
        # In this order, and in `_forget` the other way round: `close` ends what is open, wherever this is interrupted.
        self._open[chunk.token] = chunk
        pool.pending[chunk.token] = chunk
        try:
            head = self._head
            rules = self.options, head.flavour, head if head.blob is not None else None
            if isinstance(chunk.body, bytes):
                parts = bytes([LISTED]), head.prefix, chunk.first.to_bytes(FIRST_BYTES, "little"), chunk.body
                is_sent = link.submit_chunk(chunk.ticket, rules, b"".join(parts), [b""] * chunk.count, room)
            else:
                is_sent = link.submit_chunk(chunk.ticket, rules, bytes([EACH]) + head.prefix, chunk.body, room)
        except Exception as error:
            text, is_lost = str(error), isinstance(error, LinkLost)
            if is_lost:
                pool.links.lose(link)
                if self._goes_on(link):
                    self._forget(chunk)
                    self._follow(link)
                    return False
            chunk.fail_all(self._end_error(link, "lost" if is_lost else "refused", text, ""))
            self._forget(chunk)
            self.tell()
            return True
        if not is_sent:
            self._forget(chunk)
        elif self._is_over:
            pool.drop_many([chunk.token])
        return is_sent

    def _forget(self, chunk: MapChunk) -> None:
        self._pool.calls.take_out(chunk.token)
        self.leave(chunk)

    # The daemon is lost.

    def _goes_on(self, link: Link) -> bool:
        """Whether what is not sent of this map goes to the next daemon, if that of this link is lost."""
        return link.given_up_by is None and not self._pool.links.is_closed

    def _follow(self, link: Link) -> None:
        if self._followed is not link:
            # Where the thread that follows looks.
            self._pool.open_maps[self.mark] = self
            self._pool.lost.follow(link)
            self._followed = link

    def move(self, lost: Link, found: Link) -> None:
        """Goes on with the link `found`, if it went with `lost`."""
        if self._link is not lost:
            return
        try:
            is_open = found.session.open_chunks()
        except ConnectionError:
            # The next one after it takes this map.
            self._pool.links.lose(found)
            is_open = True
        if not is_open:
            return self.fail_with(lost, found.error_of_end("refused", "the next daemon has no memory for chunks", ""))
        self._link = found
        self.pump()

    def fail_with(self, lost: Link, error: Any) -> None:
        """Ends what is not sent by this error, if this map went with the link `lost`."""
        if self._link is lost:
            self.fail_all(lambda: again(error))

    def _absorb_loss(self, chunk: MapChunk, at: int, last: int, end: ChunkEnd) -> tuple[list[MapChunk], list[Any]]:
        """What is sent again of a chunk whose daemon was lost; and the errors of its items that are not."""
        parts, errors, error = [], [], self._error_of(chunk, end)
        if end.stop == "begun":
            if chunk.tries + 1 < self.options.crashes_max and chunk.link is not None:
                chunk.link.daemon.workers.is_needed = True
                parts.append(chunk.part(at, 1, tries=chunk.tries + 1))
                parts[0].behind = chunk.link
            else:
                errors.append(error())
                self.fail(at, at + 1, error)
            at += 1
        if at < last and chunk.losses + 1 < _LOSSES_MAX:
            parts.append(chunk.part(at, last - at, losses=chunk.losses + 1))
        elif at < last:
            errors.append(error())
            self.fail(at, last, error)
        return parts, errors

    # Chunks end.

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
            error = self._error_of(chunk, end)
            word = end.end[0] if isinstance(end.end, tuple) else "failed"
            is_sent_again = word == "lost" and end.stop != "fault" and chunk.link is not None and self._goes_on(chunk.link)
            if is_sent_again:
                again_sent, failures = self._absorb_loss(chunk, at, last, end)
                errors += failures
                at = last
            else:
                errors.append(error())
            if is_sent_again:
                pass
            elif end.stop == "fault" or word in _ROOM_FOR_ALL or (end.stop == "unbegun" and (word == "failed" or chunk.tries > 0)):
                self.fail(at, last, error)
                at = last
            elif end.stop == "unbegun":
                again_sent.append(chunk.part(at, last - at, tries=1))
                at = last
            else:
                if word == "crashed" and chunk.tries + 1 < self.options.crashes_max:
                    again_sent.append(chunk.part(at, 1, tries=chunk.tries + 1))
                else:
                    self.fail(at, at + 1, error)
                at += 1
        if at < last:
            again_sent.append(chunk.part(at, last - at))
        if chunk.again is None:
            chunk.again = again_sent
        if chunk.again:
            self._returned[chunk.token] = chunk
            self._pool.open_maps[self.mark] = self
        self.leave(chunk)
        return errors

    def _deliver(self, chunk: MapChunk, results: ChunkValues) -> list[Any]:
        """Takes the results from the first one on. Those that are failures."""
        begin, values = chunk.begin, results.values
        if not results.failed and not any(self.there[begin : begin + len(values)]):
            try:
                if len(results.pickled) == len(values):
                    values = list(map(_wire.loads, values))
                elif results.pickled:
                    values = values.copy()
                    for index in results.pickled:
                        values[index] = _wire.loads(values[index])
            except Exception:
                pass
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
            try:
                if index in failed or index in pickled:
                    is_result, value = _answer.read_of_chunk(value, index in failed)  # type: ignore[arg-type]
            except BaseException as error:
                is_result, value = False, self._pool.events.stopped(chunk.token, error)
            self.there[begin + index] = self.set(begin + index, is_result, value)
            if not is_result:
                errors.append(value)
        return errors

    def _take_long(self, chunk: MapChunk, index: int, end: ChunkEnd) -> list[Any]:
        if isinstance(end.end, tuple):
            is_result, value = False, (chunk.link or self._link).error_of_end(*end.end)
        else:
            try:
                is_result, value = _answer.read_of_chunk(end.end, end.stop == "long-failed")
            except BaseException as error:
                is_result, value = False, self._pool.events.stopped(chunk.token, error)
            length = len(end.end) if isinstance(end.end, bytes) else end.end.length
            self._result_bytes = min(self._result_bytes + length / (len(end.results.values) + 1), float(_ROOM_MAX))
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

    def fail(self, begin: int, end: int, error_of: Callable[[], Any]) -> None:
        """Ends items that are open with an error of its own for each."""
        for index in range(begin, end):
            if not self.there[index]:
                self.there[index] = self.set(index, False, error_of())

    @property
    def results(self) -> ChunkedMap:
        """Itself, as a chunk has it."""
        return self

    def fail_all(self, error_of: Callable[[], Any]) -> None:
        """Ends what is not sent: nothing of it runs."""
        self._unsent_error = error_of
        self.pump()

    def _fail_unsent(self, error_of: Callable[[], Any]) -> None:
        for chunk in list(self._unsent):
            if not chunk.ticket.is_sent:
                chunk.fail_all(error_of)
            self._unsent.pop(chunk, None)
        while self._waiting:
            index = self._waiting[0][0]
            self.fail(index, index + 1, error_of)
            self._waiting.popleft()
        self.tell()

    def leave(self, chunk: MapChunk) -> None:
        """A chunk is with no worker any more."""
        self._open.pop(chunk.token, None)

    def close(self) -> None:
        """Cancels all that is open."""
        if self._pool.is_forked:
            return  # All of it is the parent's.
        self._is_over = True
        try:
            self._pool.drop_many([*list(self._open), *self._singles])
            self.pump()
        except BaseException:
            # Interrupted: no end of a chunk may be left that has it done again.
            _call_later(self.close)
            raise

    def await_one(self, index: int, until: float | None) -> Any:
        """As `take`, once this item is sent if there is room."""
        if self._pool.is_forked:
            raise RuntimeError("this map belongs to the parent of this forked process: its results do not come here")
        if not self.there[index] and self._waiting:
            if self.size is not None:
                self.flush()
            else:
                self.pump()
        patience = _LOOKS_SECONDS
        while not self.there[index]:
            look = time.monotonic() + patience
            if until is not None and until <= look:
                break
            self._pool.lead_in_callback(lambda: bool(self.there[index]), max(look - time.monotonic(), 0.0))
            if not self.wait(index, look):
                self._take_counted(index)
                patience = min(patience * 2, _LOOKS_SECONDS_MAX)
        return self.take(index, until)

    def _take_counted(self, index: int) -> None:
        """Takes what is there of the chunk that has this item, while it runs."""
        found = [chunk for chunk in list(self._open.values()) if chunk.begin <= index < chunk.begin + chunk.count]
        for chunk in found:
            counted = (chunk.link or self._link).session.counted(chunk.token)
            for error in self._deliver(chunk, counted) if counted is not None else ():
                self._pool.events.judge(error)
        self._pool.fail_if_broken()


def opened(pool: Pool, function: Callable[..., Any], options: CallOptions, size: int | None) -> ChunkedMap | None:
    """A map that goes in chunks; `None` if its function is too long for that, or the daemon has no memory for chunks. Raises as `Pool.ready`."""
    link = pool.ready()
    try:
        size = None if size is None else min(size, _ITEMS_MAX)
        head = pool.encoder.head(function) or pool.encoder.short_head(function)
        is_open = head is not None and link.session.open_chunks()
    except Exception:
        return None  # Each item then has this error.
    return ChunkedMap(pool, link, head, function, options, size) if head is not None and is_open else None


def _is_plain(data: bytes) -> bool:
    return b"__main__" not in data and b"multiprocessing." not in data


def _call_later(act: Callable[[], object]) -> None:
    """Tries again where no end of a chunk will: blocks of cancelled chunks become free without an event."""
    timer = threading.Timer(_AGAIN_SECONDS, act)
    timer.daemon = True
    timer.start()

