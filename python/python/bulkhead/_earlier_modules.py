"""The modules that calls have needed so far: later workers import them at their start, so that one that replaces another is warm.

They stand in a file of the daemon's folder, which client and workers append to.

| a line | who writes it |
|---|---|
| `NAME` | the client: it is about to submit a function of this module |
| `?NAME` | a worker in its start, right before it imports such a module for the first time; it holds the lock of the file `trying` |
| `+NAME` | a worker: the import has ended, also by an exception, or a call has done it |

A module with `?` and without `+` has ended the worker that tried it. It is left to the call that needs it, so it cannot keep all
workers from coming up.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# How long a worker waits for another one that tries modules. It comes up without them then.
_PATIENCE = 3.0
_LOOK_PAUSE = 0.005


class EarlierModules:
    """The list of one daemon."""

    def __init__(self, path: str) -> None:
        """The path of its file, which need not be there."""
        self._path = path

    def note(self, names: Iterable[str], mark: str = "") -> None:
        """Appends a line for each name. Without the folder, or room in it, later workers import them with their first call."""
        text = "".join(f"{mark}{name}\n" for name in names if "\n" not in name)
        if not text:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.write(descriptor, text.encode("utf-8", "replace"))
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _marks(self) -> dict[str, str]:
        """The last mark of each name, in the order of the names; `+` stays."""
        marks: dict[str, str] = {}
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.read().split("\n")
        except OSError:
            return marks
        for line in filter(None, lines):
            mark, name = (line[0], line[1:]) if line[0] in "?+" else ("", line)
            if marks.get(name) != "+":
                marks[name] = mark or marks.get(name, "")
        return marks

    def import_all(self, load: Callable[[str], object]) -> None:
        """Calls `load` for each name that has ended no worker. `load` imports it, and raises nothing."""
        loaded = set()
        for name, mark in self._marks().items():
            if mark == "+":
                load(name)
                loaded.add(name)
        if all(mark == "+" for mark in self._marks().values()):
            return
        lock = self._try_lock()
        if lock is None:
            return
        try:
            for name, mark in self._marks().items():
                if mark == "":
                    self.note([name], "?")
                    load(name)
                    self.note([name], "+")
                elif mark == "+" and name not in loaded:
                    load(name)
        finally:
            os.close(lock)

    def _try_lock(self) -> int | None:
        """The lock under which modules are tried, or `None` if another worker takes too long with it."""
        import fcntl

        try:
            descriptor = os.open(os.path.join(os.path.dirname(self._path), "trying"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except OSError:
                if time.monotonic() >= until:
                    os.close(descriptor)
                    return None
            time.sleep(_LOOK_PAUSE)
