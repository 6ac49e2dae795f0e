"""The folder of a private daemon: its socket, its configuration, and what its workers read at their start.

It lies in the first usual place that has room, belongs to this user alone, and is locked (flock(2)) as long as this process
lives. A folder that nobody locks was left by a program that was killed together with its daemon: the next start removes it. Driven by
`_private.py`.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from . import _inherited

_PREFIX = "bulkhead-py-"
# The path of a socket may be 64 bytes long.
_PLACE_MAX_BYTES = 31
# What a daemon of two workers needs in its folder, and some more.
_ROOM_BYTES = 256 << 10


def places() -> list[str]:
    """Where a folder may be made, the best place first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and not _is_own(runtime):
        runtime = None
    found = [runtime, os.environ.get("TMPDIR"), "/tmp", "/dev/shm", "/var/tmp"]
    fit = [place for place in found if place and os.path.isabs(place) and len(os.fsencode(place)) <= _PLACE_MAX_BYTES]
    return [place for place in dict.fromkeys(fit) if os.path.isdir(place)]


def _is_own(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


class OwnFolder:
    """A locked folder of this process. `remove` ends it."""

    path: str

    def __init__(self, place: str) -> None:
        """Makes it in this place. Raises `OSError` if it cannot be made there, or has no room."""
        for _ in range(100):
            self.path = os.path.join(place, _PREFIX + os.urandom(5).hex())
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                continue
            try:
                with _inherited.opening:
                    self._lock = _inherited.note(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except FileNotFoundError:
                continue  # Another process has just removed it as a folder that nobody holds.
            except OSError:
                os.rmdir(self.path)
                raise
            if _try_lock(self._lock) and _leads_to(self.path, self._lock):
                break
            _inherited.close(self._lock)
        else:
            raise OSError(f"100 names of folders in {place} were taken")
        try:
            self._try_room()
        except BaseException:
            self.remove()
            raise

    def _try_room(self) -> None:
        path = os.path.join(self.path, "room")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(_ROOM_BYTES))
        finally:
            os.close(descriptor)
            os.unlink(path)

    def write(self, name: str, content: bytes) -> str:
        """Writes a file as a whole; its path."""
        path = os.path.join(self.path, name)
        with open(path + ".new", "wb", opener=_private_opener) as file:
            file.write(content)
        os.rename(path + ".new", path)
        return path

    def remove(self) -> None:
        """Removes it with its content. What cannot be removed is left to the next start."""
        _remove(self.path)
        if self._lock >= 0:
            descriptor, self._lock = self._lock, -1
            _inherited.close(descriptor)


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _leads_to(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except OSError:
        return False


def _remove(path: str) -> None:
    """Removes a folder. A worker that is about to die may make a file again meanwhile, so it is tried for a second."""
    import shutil

    for _ in range(100):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            break
        time.sleep(0.01)


def remove_abandoned() -> None:
    """Removes the folders of this user that no living program holds."""
    for place in places():
        try:
            with os.scandir(place) as entries:
                found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
        except OSError:
            continue
        for path in found:
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        found = os.fstat(descriptor)
        is_own = found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)
        if is_own and _try_lock(descriptor) and _leads_to(path, descriptor):
            _remove(path)
    finally:
        os.close(descriptor)
