"""What an executor is made with, and the limits of its calls, checked.

Values only. Made by `_executor.py`, read by `_pool.py` and `_link.py`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_LIMIT_MAX_SECONDS = 30 * 24 * 3600
_MEMORY_MIN = 1 << 20
_GRACE_MAX_SECONDS = 60
_RETRIES_MAX = 254
_PRIORITY_MAX = 9
WORKERS_MAX = 1000


class CallOptions:
    """The limits of a call. Times are in milliseconds, memory in bytes; `None`: no limit. Each is equal to itself alone."""

    timeout_ms: int | None = None
    cpu_ms: int | None = None
    memory_bytes: int | None = None
    grace_ms: int = 0
    crashes_max: int = 1
    priority: int = 4

    def changed(self, **given: Any) -> CallOptions:
        """The same with some of the values of `Executor.options` set. Raises `TypeError` and `ValueError`, which name the value."""
        made = CallOptions()
        vars(made).update(vars(self))
        for name, value in given.items():
            vars(made).update(_checked(name, value))
        return made


def _checked(name: str, value: Any) -> list[tuple[str, Any]]:
    if name == "timeout":
        return [("timeout_ms", None if value is None else _milliseconds(name, value, _LIMIT_MAX_SECONDS))]
    if name == "cpu_time":
        return [("cpu_ms", None if value is None else _milliseconds(name, value, _LIMIT_MAX_SECONDS))]
    if name == "cancel_grace":
        return [("grace_ms", _milliseconds(name, value, _GRACE_MAX_SECONDS) if value else 0)]
    if name == "memory":
        return [("memory_bytes", None if value is None else _whole(name, value, _MEMORY_MIN, 1 << 62, "bytes"))]
    if name == "retries":
        return [("crashes_max", 1 + _whole(name, value, 0, _RETRIES_MAX, "further runs"))]
    if name == "priority":
        return [("priority", _whole(name, value, 0, _PRIORITY_MAX, "0 last, 9 first"))]
    raise TypeError(f"there is no option {name!r}")


def _milliseconds(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= most:
        raise ValueError(f"{name} is {value} s, it must be above 0 and at most {most} s")
    return max(1, round(value * 1000))


def _whole(name: str, value: Any, least: int, most: int, unit: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number ({unit}), not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} is {value} ({unit}), it must be from {least} to {most}")
    return value


def chunk_size(chunksize: int | str, options: CallOptions, settings: PoolSettings) -> int | None:
    """How many items of a map go together; `None`: as many as is found to be good. With limits for each call it is 1."""
    if isinstance(chunksize, int):
        return chunksize
    has_limits = (options.timeout_ms, options.cpu_ms, options.memory_bytes, settings.tasks_max) != (None, None, None, None)
    return 1 if has_limits else None


class PoolSettings:
    """What the workers of an executor are."""

    def __init__(
        self,
        *,
        workers: int,
        spares: int,
        tasks_max: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        preload: tuple[str, ...],
        is_strict: bool,
    ) -> None:
        """Checked values of the arguments of `Executor`."""
        self.workers = workers
        self.spares = spares
        self.tasks_max = tasks_max
        self.initializer = initializer
        self.initargs = initargs
        self.preload = preload
        self.is_strict = is_strict


def checked_workers(max_workers: int | None) -> int:
    """The number of workers; by default one for each processor that this process may use."""
    if max_workers is None:
        return min(len(os.sched_getaffinity(0)) or 1, WORKERS_MAX)
    if max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    return _whole("max_workers", max_workers, 1, WORKERS_MAX, "workers")


def checked_spares(spares: int, workers: int) -> int:
    """The number of spares: started workers that wait to replace one."""
    return _whole("spares", spares, 0, WORKERS_MAX - workers + 1, "workers that wait to replace one")


def check_initializer(initializer: object) -> None:
    """Raises `TypeError` if it cannot be called."""
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")


def checked_tasks_max(max_tasks_per_child: int | None, mp_context: Any) -> int | None:
    """As in the standard library: not together with a fork context."""
    if max_tasks_per_child is None:
        return None
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if mp_context is not None and mp_context.get_start_method(allow_none=False) == "fork":
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; supply a different mp_context."
        )
    return max_tasks_per_child


def check_context(mp_context: object) -> None:
    """Raises `TypeError` if it is no context of `multiprocessing`."""
    if mp_context is None:
        return
    context = sys.modules.get("multiprocessing.context")
    if context is None or not isinstance(mp_context, context.BaseContext):
        raise TypeError(
            f"mp_context must be a context of multiprocessing (multiprocessing.get_context()), not {type(mp_context).__name__}"
        )


def checked_preload(preload: Sequence[str]) -> tuple[str, ...]:
    """Names of modules."""
    if isinstance(preload, str):
        raise TypeError(f"preload must be a list of names of modules, not the text {preload!r}: use [{preload!r}]")
    for name in preload:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"preload has {name!r}, which is no name of a module")
    return tuple(preload)
