"""The exceptions of Bulkhead: what a future raises when its call was not returned by its function.

Importing this module imports `concurrent.futures.process`, so the package does it only when an error is made or asked for. All
but `JobTimeout` are a `BrokenProcessPool`, so code that was written for `ProcessPoolExecutor` catches them. The
executor is not broken by them: it goes on, apart from `InitializerFailed`.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as _FuturesTimeout
from concurrent.futures.process import BrokenProcessPool
from typing import Any

__all__ = [
    "BrokenProcessPool",
    "CallNotReadable",
    "CannotStart",
    "InitializerFailed",
    "JobTimeout",
    "Lost",
    "ResultNotReadable",
    "WorkerCrashed",
]


class WorkerCrashed(BrokenProcessPool):
    """The call killed its worker: by a signal, by `os._exit`, or by a limit of memory that the daemon enforced.

    No other call is affected. The text names the signal and the address; `python_traceback` has the Python stack of the crash.
    """

    certificate: dict[str, Any] | None = None
    """What the daemon knows of the call and its deaths, as `bulkhead job --json` shows it; `None` if it could not be asked."""

    python_traceback: str | None = None
    """The Python stacks of all threads at the crash, as `faulthandler` writes them; `None` if nothing was written, as after SIGKILL."""


class JobTimeout(_FuturesTimeout, *(() if _FuturesTimeout is TimeoutError else (TimeoutError,))):  # type: ignore[misc]
    """The call met its limit of wall time or processor time. Its worker was killed, with the processes that it had started."""

    certificate: dict[str, Any] | None = None
    """As `WorkerCrashed.certificate`."""

    python_traceback: str | None = None
    """Where the call hung: the Python stacks of all threads just before the kill."""


class Lost(BrokenProcessPool):
    """The daemon ended before the call did: the call may have run, in part or whole. The next submit starts a new daemon.

    A call with `retries` has it only if it was lost as often, or an old worker had not ended after 10 seconds.
    """

    certificate: dict[str, Any] | None = None
    """As `WorkerCrashed.certificate`; mostly `None`."""

    python_traceback: str | None = None
    """As `WorkerCrashed.python_traceback`; mostly `None`."""


class InitializerFailed(BrokenProcessPool):
    """The initializer raised an exception in a worker, whose traceback is in the text. The executor takes no further calls."""


class CallNotReadable(BrokenProcessPool):
    """The worker could not unpickle the call: a module that it cannot import, for instance. Nothing was run."""


class ResultNotReadable(BrokenProcessPool):
    """The call returned or raised something that this process cannot unpickle. The call has run."""


class CannotStart(BrokenProcessPool):
    """The daemon of an executor, or its workers, could not be started. Nothing was run. The text says why, and what to do."""
