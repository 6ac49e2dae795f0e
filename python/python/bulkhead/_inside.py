"""What the code of a call may tell and ask while it runs in a worker. Outside of a call these functions do nothing.

The call that runs is the worker's (`worker.py`); this module does not start one.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import Task


def _task() -> Task | None:
    worker: Any = sys.modules.get("bulkhead.worker")
    return worker.task if worker is not None else None


def progress(done: int, total: int = 0) -> None:
    """Tells how far the call is, in units of its choice; `Future.progress()` shows it. `total` 0: unknown. It costs no system call."""
    task = _task()
    if task is not None:
        task.progress(done, total)


def say(text: str) -> None:
    """Says what the call is about to do, in at most some hundred characters. If it kills its worker, its certificate shows this."""
    task = _task()
    if task is not None:
        task.say(text)


def cancelled() -> bool:
    """Whether the call should end: it was cancelled, or met a limit of time. Only with `cancel_grace=` of its executor."""
    task = _task()
    return task is not None and task.is_cancelled()
