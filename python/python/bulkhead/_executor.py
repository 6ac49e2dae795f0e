"""`Executor`: `concurrent.futures.ProcessPoolExecutor` that does not break.

This file has the public surface and checks what it is given; what happens is in `_pool.py`.
"""

from __future__ import annotations

import time
import weakref
from concurrent.futures import _base

from . import _exit, _map, _options
from ._pool import Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.context import BaseContext
    from typing import Any, Literal, ParamSpec, TypeVar

    from ._future import Future

    P = ParamSpec("P")
    T = TypeVar("T")



class _Calls(_base.Executor):
    """What an executor and its views have in common: a pool, and the limits of calls."""

    _pool: Pool
    _options: _options.CallOptions

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs `fn(*args, **kwargs)` in a worker and gives its future at once.

        What cannot be pickled is the future's exception, with a text that names it. Raises `RuntimeError` after a shutdown, in a forked
        child, while the main module is imported again in a worker, and at the end of the interpreter; `BrokenProcessPool` if the
        initializer has failed; `CannotStart` if the daemon cannot be started.
        """
        return self._pool.submit(self._options, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Runs `fn` with the items of the iterables, as `map` does, and gives the results in the order of the items.

        `timeout`: seconds from this call on, after which `TimeoutError` is raised. `chunksize`: how many items go to a
        worker together, by default as many as take some milliseconds; one by one with a limit of time or memory, or
        `max_tasks_per_child`. With a `chunksize` above 1 these count for a chunk. A crash fails the item that ran, the results
        before it are delivered, the items behind it go to another worker, and nothing runs twice. `buffersize`: how many items are taken from the
        iterables before their results are asked for; by default all of them.
        An exception of an item is raised when its turn comes. Then, at a timeout, and when the iterator is closed or garbage, the remaining
        items are cancelled. Raises as `submit`.
        """
        if chunksize != "auto":
            if not isinstance(chunksize, int):
                raise TypeError(f'chunksize must be a whole number or "auto", not {type(chunksize).__name__}')
            if chunksize < 1:
                raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else timeout + time.monotonic()
        self._pool.check_open()
        results = _map.MapResults(fn, self._options)
        size = _options.chunk_size(chunksize, self._options, self._pool.settings)
        if size != 1:
            from . import _chunks

            in_chunks = _chunks.opened(self._pool, fn, self._options, size)
            if in_chunks is not None:
                return _map.in_chunks(self._pool, in_chunks, zip(*iterables), buffersize, until)
        if buffersize is not None:
            return _map.buffered(self._pool, results, zip(*iterables), buffersize, until)
        return _map.all_at_once(self._pool, results, list(zip(*iterables)), until)

    def options(
        self,
        *,
        timeout: float | None | Literal["as-before"] = "as-before",
        memory: int | None | Literal["as-before"] = "as-before",
        cpu_time: float | None | Literal["as-before"] = "as-before",
        priority: int | Literal["as-before"] = "as-before",
        retries: int | Literal["as-before"] = "as-before",
        cancel_grace: float | Literal["as-before"] = "as-before",
    ) -> Options:
        """The same workers with other limits for calls: `ex.options(timeout=2).submit(f)`. What is not given stays as it is here.

        `timeout`, `cpu_time`, `cancel_grace` in seconds, `memory` in bytes, `priority` from 0 (last) to 9 (first), by default 4;
        `retries`: how many further times a call is run that killed its worker, or whose daemon was killed. Raises `TypeError` and `ValueError`.
        """
        given = dict(
            timeout=timeout, memory=memory, cpu_time=cpu_time, priority=priority, retries=retries, cancel_grace=cancel_grace
        )
        changes = {name: value for name, value in given.items() if value != "as-before"}
        return Options(self, self._options.changed(**changes))


class Options(_Calls):
    """An executor's workers with other limits for calls, made by `Executor.options`. The executor is shut down, not this."""

    def __init__(self, of: _Calls, options: _options.CallOptions) -> None:
        # An executor that is garbage is shut down.
        self._of = of
        self._pool = of._pool
        self._options = options

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does nothing: the workers are the executor's."""


class Executor(_Calls):
    """Runs calls in worker processes, as `concurrent.futures.ProcessPoolExecutor` does, and survives what goes wrong in them.

    A call that crashes, hangs or takes too much memory fails its own future; all others go on. Workers are started when the first
    call comes, always as fresh interpreters (as `multiprocessing`'s "spawn"), by a private daemon that ends with this program.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        timeout: float | None = None,
        memory: int | None = None,
        cpu_time: float | None = None,
        retries: int = 0,
        cancel_grace: float = 0,
        spares: int = 1,
        preload: Sequence[str] = (),
        strict_stdlib: bool = False,
        daemon: None = None,
        pool: None = None,
    ) -> None:
        """Starts nothing yet.

        `max_workers`: calls that run at the same time; by default one for each processor that this process may use.
        `mp_context`: checked, and without effect on how workers start.
        `initializer`, `initargs`: run in each worker, at the latest as a part of its first call. If it raises, the executor takes no further calls.
        `max_tasks_per_child`: how many calls a worker runs before another replaces it.
        `timeout`: seconds that a call may run; then its future has `JobTimeout`. `cpu_time`: the same, of processor time.
        `memory`: bytes that a call may have beyond what its worker had before; then it has `MemoryError` or `WorkerCrashed`.
        `retries`: how many further times a call is run that killed its worker, or whose daemon was killed. By default nothing runs twice.
        `cancel_grace`: seconds that a call which is cancelled or meets a limit of time has to end by itself
        (`bulkhead.cancelled()`); by default it is killed at once.
        `spares`: started workers that wait to replace one that dies. `preload`: modules that workers import at their start.
        `strict_stdlib`: as in the standard library, `cancel()` leaves a running call alone, and a crash breaks the executor.
        `daemon`, `pool`: for a later version.

        Raises `TypeError` and `ValueError`, which name the argument; `RuntimeError` while a worker imports the main module again.
        """
        _exit.check_not_importing_main()
        if daemon is not None or pool is not None:
            raise ValueError(
                "daemon= and pool= are not supported by this version: an executor has a private daemon; leave them out"
            )
        _options.check_context(mp_context)
        _options.check_initializer(initializer)
        workers = _options.checked_workers(max_workers)
        settings = _options.PoolSettings(
            workers=workers,
            spares=_options.checked_spares(spares, workers),
            tasks_max=_options.checked_tasks_max(max_tasks_per_child, mp_context),
            initializer=initializer,
            initargs=tuple(initargs),
            preload=_options.checked_preload(preload),
            is_strict=bool(strict_stdlib),
        )
        self._options = _options.CallOptions().changed(
            timeout=timeout, memory=memory, cpu_time=cpu_time, retries=retries, cancel_grace=cancel_grace
        )
        self._max_workers = workers
        self._given_context = mp_context
        self._pool = Pool(settings)
        weakref.finalize(self, self._pool.shutdown, False, False).atexit = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no further calls, and ends workers and daemon once the calls have ended.

        `wait`: returns only then. `cancel_futures`: cancels what no worker has begun, but for the oldest calls, as many
        as there are workers; these go on to their end, and what runs does.
        """
        self._pool.shutdown(wait, cancel_futures)

    def terminate_workers(self) -> None:
        """Sends SIGTERM to all workers, at which one does nothing unless a call has set a handler; then it does what `kill_workers` does, and gives
        that handler no time. Futures that are not done have a `BrokenProcessPool`."""
        import os

        for row in self._pool.workers():
            if row.get("pid"):
                try:
                    os.kill(row["pid"], 15)
                except ProcessLookupError:
                    pass
        self._pool.end_now("terminate_workers() was called")

    def kill_workers(self) -> None:
        """Kills all workers, with the processes that they started, and ends the executor. Futures that are not done have a `BrokenProcessPool`."""
        self._pool.end_now("kill_workers() was called")
