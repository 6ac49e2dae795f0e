"""Executors at a fork and at the end of the interpreter.

A forked child has the parent's executors as dead objects, and lets go of what would keep the parent's daemon alive. At the end of
the interpreter executors that were not shut down are: their calls end first, as in the standard library, while threads can still
run. Every pool is known here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._pool import Pool

is_exiting = False
"""Whether the interpreter is about to end."""

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_held: set[Pool] = set()


def watch(pool: Pool) -> None:
    """Makes a pool known."""
    _pools.add(pool)


def hold(pool: Pool) -> None:
    """Keeps a pool until the interpreter ends, which finishes it."""
    _held.add(pool)


def check_not_importing_main() -> None:
    """Raises `RuntimeError` while a worker, or a child of `multiprocessing`, imports the main module of its parent."""
    main: Any = sys.modules.get("bulkhead._main_module")
    process: Any = sys.modules.get("multiprocessing.process")
    is_child = process is not None and getattr(process.current_process(), "_inheriting", False)
    if is_child or (main is not None and main.is_loading):
        from ._main_module import GUARD_TEXT

        raise RuntimeError(GUARD_TEXT)


def _at_exit() -> None:
    global is_exiting
    is_exiting = True
    for pool in list(_pools):
        pool.is_shut = True
        pool.finish()
    native: Any = sys.modules.get("bulkhead._native")
    if native is not None:
        native.join_left()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        # Nothing that was half done at the fork keeps the other pools from it.
        with contextlib.suppress(Exception):
            pool.forget()
    _pools.clear()
    _held.clear()


def _register() -> None:
    global is_exiting
    # `atexit` comes too late: threads cannot be joined any more. The standard library's executors use the same call.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(_at_exit)
        except RuntimeError:
            # The interpreter ends already: nothing is started any more.
            is_exiting = True
    else:
        import atexit

        atexit.register(_at_exit)
    os.register_at_fork(after_in_child=_after_fork_in_child)


_register()
