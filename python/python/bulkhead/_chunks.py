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

from . import _call, _wire
from ._chunk_ends import ITEMS_MAX, ROOM_MAX, ChunkEnds, MapChunk
from ._ending import CANCELLED, again
from ._links import LinkLost
from ._lost_daemon import NOT_PROVEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._link import Link
    from ._options import CallOptions
    from ._pool import Pool

LISTED, EACH = 1, 2
FIRST_BYTES = 4
"""Bytes of a listed chunk before its pickle: how many of the calls are not run."""

# So many chunks of a map are with each worker, or on the way to it, while the size is chosen here.
_CHUNKS_PER_WORKER = 4
# Pickles of the arguments of a chunk, and of one call of it; what is longer goes alone.
_BYTES_MAX = 1 << 20
_ITEM_BYTES_MAX = _wire.OUT_OF_BAND_MIN
# A program that waits for an item looks so often at the results of its chunk, which may hang at a later item.
_LOOKS_SECONDS = 0.02
_LOOKS_SECONDS_MAX = 0.32
_ROOM_LEAST = 1024
_AGAIN_SECONDS = 0.05


class _Claim:
    """One call of `ChunkedMap.pump`."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class ChunkedMap(ChunkEnds):
    """What the items of a map that goes in chunks became, and what is left to be sent."""

    def __init__(self, pool: Pool, link: Link, head: _call.Head, function: Callable[..., Any], options: CallOptions, size: int | None) -> None:
        """`size`: items of a chunk; `None`: by the time that they take."""
        super().__init__(pool, link, function, options)
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
        self._unsent: dict[MapChunk, None] = {}
        # Listed chunks that are not in `_unsent` yet.
        self._listed: deque[MapChunk] = deque()
        # Items that are in no chunk yet, by index and pickle.
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._cutting: MapChunk | None = None
        self._singles: list[int] = []
        self._is_over = False

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
        for token, chunk in self._returned.copy().items():
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
        room = min(int(chunk.count * self._result_bytes * 1.5) + _ROOM_LEAST, ROOM_MAX)
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
            # `close` may have taken it out of the table before it was sent.
            pool.cancel_with(link, [chunk.token])
            pool.calls.drop([chunk.token])
        return is_sent

    def _forget(self, chunk: MapChunk) -> None:
        self._pool.calls.take_out(chunk.token)
        self.leave(chunk)

    # The daemon is lost.

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

    def close(self) -> None:
        """Cancels all that is open. Interrupted, it is to be done again (`close_later`): no end of a chunk may be left that does it."""
        if self._pool.is_forked:
            return  # All of it is the parent's.
        self._is_over = True
        self._pool.drop_many([*list(self._open), *self._singles])
        self.pump()

    def close_later(self) -> None:
        """Closes it in another thread, in a moment."""
        _call_later(self.close)

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
            end = look if until is None else min(look, until)
            self._pool.lead_in_callback(lambda: bool(self.there[index]), max(end - time.monotonic(), 0.0))
            if end == until:
                break
            if not self.wait(index, look):
                self._take_counted(index)
                patience = min(patience * 2, _LOOKS_SECONDS_MAX)
        return self.take(index, until)


def opened(pool: Pool, function: Callable[..., Any], options: CallOptions, size: int | None) -> ChunkedMap | None:
    """A map that goes in chunks; `None` if its function is too long for that, or the daemon has no memory for chunks. Raises as `Pool.ready`."""
    link = pool.ready()
    try:
        size = None if size is None else min(size, ITEMS_MAX)
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

