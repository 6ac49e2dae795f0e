"""`Executor` under the name of the standard library's, with the private names that CPython's tests reach into.

`install()` puts it into `concurrent.futures`: called by `stdlib_runner.py`, and in programs that the tests start by the
`sitecustomize.py` that `test_stdlib.py` writes.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bulkhead import Executor, progress


class _Process:
    """A worker, as the tests handle it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def terminate(self) -> None:
        """Kills it: at a SIGTERM of another process workers do nothing."""
        self.kill()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def join(self, timeout: float | None = None) -> None:
        until = time.monotonic() + (60 if timeout is None else timeout)
        while self.is_alive() and time.monotonic() < until:
            time.sleep(0.005)


class _Joined:
    """The thread that manages the pool, and the queue of calls: there is neither."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def join(self, timeout: float | None = None) -> None:
        while not self._pool._is_closed or self._pool._link is not None:
            time.sleep(0.005)

    def join_thread(self) -> None:
        pass

    def close(self) -> None:
        pass


def _tell_and_call(function: Any, *args: Any, **kwargs: Any) -> Any:
    progress(1, 1)
    return function(*args, **kwargs)


class ProcessPoolExecutor(Executor):
    """The executor of the tests; with `BULKHEAD_STRICT` in the environment a strict one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, strict_stdlib=bool(os.environ.get("BULKHEAD_STRICT")))
        self._last: Any = None

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A strict one knows of its last call whether it has begun."""
        if not self._pool.is_strict:
            return super().submit(fn, *args, **kwargs)
        self._last = super().submit(_tell_and_call, fn, *args, **kwargs)
        return self._last

    @property
    def _processes(self) -> dict[int, _Process]:
        """The workers, those with a call first, once all are there and the last call of a strict one has begun: a worker that is killed
        before fails no call."""
        until = time.monotonic() + 30
        while True:
            rows = [row for row in self._pool.workers() if row["pid"] and row["state"] in ("starting", "idle", "busy")]
            rows.sort(key=lambda row: row["state"] != "busy")
            has_begun = self._last is None or self._last.done() or self._last.progress() is not None
            if (len(rows) >= self._max_workers and has_begun) or self._pool._link is None or time.monotonic() > until:
                break
            time.sleep(0.005)
        return {row["pid"]: _Process(row["pid"]) for row in rows[: self._max_workers]}

    @property
    def _executor_manager_thread(self) -> _Joined:
        return _Joined(self._pool)

    @property
    def _call_queue(self) -> _Joined:
        return _Joined(self._pool)

    @property
    def _broken(self) -> Any:
        return self._pool.broken or False

    @property
    def _mp_context(self) -> Any:
        import multiprocessing

        return self._given_context or multiprocessing.get_context("spawn" if self._pool.settings.tasks_max else None)


def install() -> None:
    """Replaces the standard library's executor in this process."""
    import concurrent.futures as futures
    import concurrent.futures.process as process

    futures.ProcessPoolExecutor = process.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc,assignment]
