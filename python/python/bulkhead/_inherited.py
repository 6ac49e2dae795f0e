"""Descriptors that a forked child must not keep: they would keep the parent's daemons alive, and their folders locked.

A descriptor is opened and noted within one hold of `opening`, and a fork of another thread waits for that; so no child inherits one
that is not noted. The child closes them. Only the socket of a session is opened by native code, which waits for the daemon, and noted then: a child
that is forked between has a copy, which keeps nothing alive. The lock also keeps a fork from coming into an import of `_pool.py`. Driven by `_private.py`, `_folder.py` and `_link.py`.
"""

from __future__ import annotations

import os
from _thread import RLock

opening = RLock()
"""Held for the few lines in which a descriptor is opened and noted, and for an import, never while anything waits for another process."""

_noted: set[int] = set()


def note(descriptor: int) -> int:
    """Notes a descriptor of this process; gives it back."""
    _noted.add(descriptor)
    return descriptor


def forget(descriptor: int) -> None:
    """Its owner is about to close it."""
    _noted.discard(descriptor)


def close(descriptor: int) -> None:
    """Closes a noted descriptor."""
    with opening:
        _noted.discard(descriptor)
        os.close(descriptor)


def _close_in_child() -> None:
    global opening
    opening = RLock()
    for descriptor in _noted:
        try:
            os.close(descriptor)
        except OSError:
            continue  # The program has closed it.
    _noted.clear()


os.register_at_fork(
    before=lambda: opening.acquire(), after_in_parent=lambda: opening.release(), after_in_child=_close_in_child
)
