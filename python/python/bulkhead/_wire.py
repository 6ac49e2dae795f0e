"""Pickles with their buffers apart: what a call and its result are while they travel.

Buffers of at least `OUT_OF_BAND_MIN` bytes (NumPy arrays, `pickle.PickleBuffer`) are not copied into the pickle; how they travel is
the native half's business. `_pickle` is imported instead of `pickle`, whose imports are 10 ms of a worker's start. Used by both
halves.
"""

from __future__ import annotations

import _pickle
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OUT_OF_BAND_MIN = 32 << 10
PROTOCOL = 5

loads: Callable[..., Any] = _pickle.loads


class Dumps(Protocol):
    """`pickle.dumps`, or cloudpickle's."""

    def __call__(self, value: Any, /, protocol: int, *, buffer_callback: Callable[[Any], bool] | None = None) -> bytes: ...


plain_dumps: Dumps = _pickle.dumps


def dumps(value: Any, dump: Dumps = plain_dumps) -> tuple[bytes, list[memoryview]]:
    """The pickle, and the buffers that `loads` needs beside it, in their order. Raises what pickling raises."""
    buffers: list[memoryview] = []

    def keep(buffer: Any) -> bool:
        try:
            raw: memoryview = buffer.raw()
        except BufferError:
            return True  # Not contiguous: it is copied into the pickle.
        if raw.nbytes < OUT_OF_BAND_MIN:
            return True
        buffers.append(raw)
        return False

    return dump(value, PROTOCOL, buffer_callback=keep), buffers


def load(data: Any, buffers: Sequence[Any] = ()) -> Any:
    """The value. Raises what unpickling raises, which may be anything."""
    return loads(data, buffers=buffers) if buffers else loads(data)
