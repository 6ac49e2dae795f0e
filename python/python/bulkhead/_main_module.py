"""The client's `__main__` in a worker: a stand-in that runs it when a pickle first asks for one of its names.

As under `multiprocessing`'s spawn, the file or module is run under the name `__mp_main__`, and what stands under
`if __name__ == "__main__":` is not. Unlike there, a worker whose calls need nothing of it never runs it. While it runs, no
executor may be made: `is_loading` says so. Both halves: the client describes its main module, the worker stands in for it.
"""

from __future__ import annotations

import os
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    MainPlace: TypeAlias = tuple[Literal["name", "path"], str] | None


is_loading = False
"""Whether this process runs the client's main module right now, because a call asked for something of it."""

GUARD_TEXT = """
        An attempt has been made to make or use an executor before the
        current process has finished its bootstrapping phase.

        This probably means that your program does not use the proper
        idiom in its main module, which a worker imports again:

            if __name__ == '__main__':
                ...

        Put what makes and uses the executor below that line."""


def describe() -> MainPlace:
    """Where a worker finds the main module of this process; `None` if it cannot run it again."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        name = str(spec.name)
        return None if name == "__main__" or name.endswith(".__main__") else ("name", name)
    path = getattr(main, "__file__", None)
    if path is None or path.startswith("<"):
        return None
    return ("path", os.path.abspath(path))


class MainStandIn(types.ModuleType):
    """Is `sys.modules["__main__"]` until somebody asks for one of its names."""

    def __init__(self, place: MainPlace) -> None:
        """Stands in for the main module at this place."""
        super().__init__("__main__")
        self.__dict__["_bulkhead_place"] = place
        self.__dict__["_bulkhead_error"] = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        module = sys.modules.get("__mp_main__")
        if module is None:
            module = self._load(name)
        return getattr(module, name)

    def _load(self, wanted: str) -> types.ModuleType:
        place: MainPlace = self.__dict__["_bulkhead_place"]
        if place is None:
            raise AttributeError(f"{wanted} is defined in a __main__ that workers cannot import: put it into a module")
        if self.__dict__["_bulkhead_error"] is not None:
            raise AttributeError(f"{wanted} cannot be imported from __main__ ({place[1]}): {self.__dict__['_bulkhead_error']}")
        try:
            return run_main(place)
        except BaseException as error:
            self.__dict__["_bulkhead_error"] = f"{type(error).__name__}: {error}"
            raise


def run_main(place: tuple[str, str]) -> types.ModuleType:
    """Runs the main module and makes it `__main__` and `__mp_main__` of this process. Raises what it raises."""
    global is_loading
    import runpy

    module = types.ModuleType("__mp_main__")
    process = _current_process()
    is_loading = True
    if process is not None:
        process._inheriting = True
    try:
        if place[0] == "name":
            content = runpy.run_module(place[1], run_name="__mp_main__", alter_sys=True)
        else:
            content = runpy.run_path(place[1], run_name="__mp_main__")
    finally:
        is_loading = False
        if process is not None:
            del process._inheriting
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


def _current_process() -> Any:
    """The process as `multiprocessing` knows it, if that is imported."""
    package = sys.modules.get("multiprocessing.process")
    return package.current_process() if package is not None else None
