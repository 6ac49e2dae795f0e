"""Bulkhead: a process pool whose workers may crash, hang or run out of memory without harm to anything else.

    from bulkhead import Executor

    with Executor() as executor:
        print(executor.submit(pow, 2, 100).result())

`Executor` takes the place of `concurrent.futures.ProcessPoolExecutor`. What a future raises beside the call's own exceptions
stands in `bulkhead.errors`. `progress`, `say` and `cancelled` are for the code that runs in a worker. Nothing is imported before it
is used: workers import this package too.
"""

from __future__ import annotations


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._executor import Executor, Options
    from ._future import Future
    from ._inside import cancelled, progress, say
    from .errors import (
        CallNotReadable,
        CannotStart,
        InitializerFailed,
        JobTimeout,
        Lost,
        ResultNotReadable,
        WorkerCrashed,
    )

__all__ = [
    "CallNotReadable",
    "CannotStart",
    "Executor",
    "Future",
    "InitializerFailed",
    "JobTimeout",
    "Lost",
    "Options",
    "ResultNotReadable",
    "WorkerCrashed",
    "cancelled",
    "progress",
    "say",
]

_PLACES = {"Executor": "_executor", "Options": "_executor", "Future": "_future"}
_PLACES.update(dict.fromkeys(("cancelled", "progress", "say"), "_inside"))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._native import VERSION

        return VERSION
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"{__name__}.{_PLACES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
