"""The pools that are compared, behind one face: Bulkhead's executor and what people use today.

A pool that is not installed raises `ImportError` where it is made, and its figures are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

WORKERS = 2

NAMES = ("bulkhead", "fork", "spawn", "forkserver", "loky", "pebble", "mp.Pool")
"""`fork`, `spawn` and `forkserver` are ProcessPoolExecutor with these start methods."""


class Pool:
    """One pool of `WORKERS` workers."""

    def __init__(self, name: str, **options: Any) -> None:
        """Makes it. `options` are the executor's own."""
        self.name = name
        self.inner = make(name, options)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Submits a call; gives what `result` takes."""
        if self.name == "mp.Pool":
            return self.inner.apply_async(function, args)
        if self.name == "pebble":
            return self.inner.schedule(function, args=args)
        return self.inner.submit(function, *args)

    def result(self, call: Any, timeout: float = 60) -> Any:
        """Waits for the result of a call, and raises what it raised."""
        return call.get(timeout) if self.name == "mp.Pool" else call.result(timeout)

    def map(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int) -> Iterable[Any]:
        """All results in order."""
        if self.name == "mp.Pool":
            return self.inner.imap(function, items, chunksize)  # type: ignore[no-any-return]
        if self.name == "pebble":
            return self.inner.map(function, items, chunksize=chunksize).result()  # type: ignore[no-any-return]
        return self.inner.map(function, items, chunksize=chunksize)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends it, with its workers."""
        if self.name == "mp.Pool":
            self.inner.terminate()
            self.inner.join()
        elif self.name == "pebble":
            self.inner.stop()
            self.inner.join()
        elif self.name == "loky":
            self.inner.shutdown(wait=True, kill_workers=True)
        else:
            self.inner.shutdown()


def load(name: str) -> None:
    """Imports what a pool needs, so that it is not timed."""
    if name == "bulkhead":
        from bulkhead import Executor  # noqa: F401
    elif name in ("fork", "spawn", "forkserver"):
        import concurrent.futures.process
        import multiprocessing  # noqa: F401
    elif name == "mp.Pool":
        import multiprocessing.pool  # noqa: F401
    else:
        __import__(name)


def make(name: str, options: dict[str, Any]) -> Any:
    """The pool itself."""
    if name == "bulkhead":
        from bulkhead import Executor

        return Executor(WORKERS, **options)
    if name in ("fork", "spawn", "forkserver"):
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context(name))
    if name == "mp.Pool":
        import multiprocessing

        return multiprocessing.get_context("fork").Pool(WORKERS)
    if name == "loky":
        import loky

        return loky.get_reusable_executor(WORKERS, timeout=1000)
    if name == "pebble":
        import pebble

        return pebble.ProcessPool(WORKERS)
    raise ValueError(f"no pool is called {name}: there are {', '.join(NAMES)}")
