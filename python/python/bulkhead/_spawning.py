"""Lets the arguments of an initializer hold what `multiprocessing` passes only to its own children: queues, locks, pipes.

For the time of pickling it takes the place of the child that `multiprocessing` would start, and collects the descriptors. They
travel with the context of the initializer to each worker. Both halves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import sys

from . import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_descriptors: Sequence[int] = ()


class PassedDescriptor:
    """A descriptor of the client by its place among those that travel with a context."""

    def __init__(self, place: int) -> None:
        self.place = place

    def detach(self) -> int:
        """A copy of it in the worker, which is the caller's. `multiprocessing` calls this while it unpickles."""
        return os.dup(_descriptors[self.place])


class _Child:
    """Stands for the child process that is being started."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, descriptor: int) -> int:
        self.descriptors.append(descriptor)
        return len(self.descriptors) - 1

    def DupFd(self, place: int) -> PassedDescriptor:
        return PassedDescriptor(place)


def dumps_for_child(value: Any) -> tuple[bytes, list[int]]:
    """The pickle of an initializer and its arguments, and the descriptors that it names. Raises what pickling raises."""
    try:
        return _dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise type(error)(f"the initializer, or what stands in initargs, cannot be pickled: {type(error).__name__}: {error}") from error


def _dumps(value: Any) -> tuple[bytes, list[int]]:
    if "multiprocessing.context" not in sys.modules:
        return _wire.plain_dumps(value, _wire.PROTOCOL), []
    from multiprocessing import context, reduction

    child = _Child()
    before = context.get_spawning_popen()
    context.set_spawning_popen(child)  # type: ignore[arg-type]
    try:
        return bytes(reduction.ForkingPickler.dumps(value, _wire.PROTOCOL)), child.descriptors
    finally:
        context.set_spawning_popen(before)


@contextlib.contextmanager
def readable(descriptors: Sequence[int]) -> Iterator[list[int]]:
    """The same files by descriptors that may also be read: the daemon passes no others on. For the write end of a pipe."""
    opened: list[int] = []
    try:
        found = []
        for descriptor in descriptors:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                descriptor = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
                opened.append(descriptor)
            found.append(descriptor)
        yield found
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextlib.contextmanager
def descriptors_are(descriptors: Sequence[int]) -> Iterator[None]:
    """While a context is loaded: its descriptors."""
    global _descriptors
    _descriptors = descriptors
    try:
        yield
    finally:
        _descriptors = ()
