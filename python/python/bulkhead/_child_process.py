"""What `multiprocessing` sees in a worker: the same as in a process that it had started by spawn.

`current_process()`, `parent_process()`, the authentication key, and the resource tracker of the client's. Importing
`multiprocessing` takes longer than the rest of a worker's start, so this is done when the user's code imports it: a finder in
`sys.meta_path` waits for the two modules and adds to what they do. Driven by `worker.py`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

_PACKAGE = "multiprocessing"
_TRACKER = "multiprocessing.resource_tracker"


class Identity:
    """Who this process is for `multiprocessing`."""

    def __init__(self, number: int, parent_pid: int, parent_name: str, authkey: bytes | None) -> None:
        """Worker `number` of the process `parent_pid`; the key that the parent's connections use, if it has one."""
        self._number = number
        self._parent_pid = parent_pid
        self._parent_name = parent_name
        self._authkey = authkey
        self._tracker: int | None = None

    def install(self) -> None:
        """From now on `multiprocessing` is told when it is imported."""
        sys.meta_path.insert(0, _Finder({_PACKAGE: self._name_process, _TRACKER: self._set_tracker}))

    def adopt(self, authkey: bytes, trackers: Sequence[int]) -> None:
        """The client's key, and the descriptor of its resource tracker if it runs; the first one is kept, others are closed."""
        self._authkey = authkey
        process: Any = sys.modules.get("multiprocessing.process")
        if process is not None:
            process.current_process().authkey = authkey
        for descriptor in trackers:
            if self._tracker is not None:
                os.close(descriptor)
                continue
            self._tracker = descriptor
            module = sys.modules.get(_TRACKER)
            if module is not None:
                self._set_tracker(module)

    def _name_process(self, package: types.ModuleType) -> None:
        from multiprocessing import context, process

        made: Any = context.SpawnProcess(name=f"SpawnProcess-{self._number}")
        made._identity = (self._number,)
        made._parent_pid = self._parent_pid
        seen: Any = process
        made._config = {"semprefix": "/mp"}
        made._config["authkey"] = seen.AuthenticationString(self._authkey or os.urandom(32))
        seen._current_process = made
        try:
            sentinel = os.pidfd_open(self._parent_pid)
        except OSError:
            return  # A kernel that refuses it: parent_process() is None.
        seen._parent_process = seen._ParentProcess(self._parent_name, self._parent_pid, sentinel)

    def _set_tracker(self, module: Any) -> None:
        if self._tracker is not None and module._resource_tracker._fd is None:
            module._resource_tracker._fd = self._tracker


class _Finder:
    """Finds nothing itself: it calls a function after each of these modules was run for the first time."""

    def __init__(self, after: dict[str, Callable[[types.ModuleType], None]]) -> None:
        self._after = after

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        act = self._after.pop(fullname, None)
        if act is None:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(fullname, path, target) if finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, act)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A loader of another, and what follows it."""

    def __init__(self, inner: Any, act: Callable[[types.ModuleType], None]) -> None:
        self._inner = inner
        self._act = act

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        made: types.ModuleType | None = self._inner.create_module(spec)
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        self._act(module)
