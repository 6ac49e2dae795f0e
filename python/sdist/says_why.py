"""The build of the source package: it builds nothing, and says why no wheel fits this machine.

pip takes the source package where it finds no wheel: on another system than Linux, with another C library than glibc, on another
processor. The daemon and the native half are built by `cargo xtask wheel` in the repository, with a toolchain that pip does not have. pip
calls the functions of this file by their names (PEP 517 and 660), before it downloads anything.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import NoReturn

ONLY = "bulkhead runs on Linux with glibc only"
NAMES = {"darwin": "macOS", "win32": "Windows", "cygwin": "Windows"}


def why_not() -> str:
    """Why no wheel fits here, in words."""
    if sys.platform != "linux":
        return f"{ONLY}, and this is {NAMES.get(sys.platform, sys.platform)}"
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        libc = ""
    if not libc.startswith("glibc"):
        return f"{ONLY}, and this Linux has another C library (musl, as in Alpine): use an image with glibc, as Debian's"
    if sys.implementation.name != "cpython":
        return f"bulkhead runs with CPython only, and this is {sys.implementation.name}"
    version = f"CPython {sys.version_info[0]}.{sys.version_info[1]}"
    return (
        f"no wheel of bulkhead was taken for this machine ({platform.machine()}, {libc}, {version}), and its source package builds none:"
        " leave out --no-binary if it was given, or build a wheel in bulkhead's repository with `cargo xtask wheel`"
    )


def refuse(*_: object, **__: object) -> NoReturn:
    """Ends the build with the text."""
    sys.exit(f"\n{why_not()}\n")


get_requires_for_build_wheel = prepare_metadata_for_build_wheel = build_wheel = refuse
get_requires_for_build_editable = prepare_metadata_for_build_editable = build_editable = refuse
get_requires_for_build_sdist = build_sdist = refuse
