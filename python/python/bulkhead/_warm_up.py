"""Workers that have run nothing get ready while they wait: they import what calls have imported, and run the initializer.

The client has a FIFO in the daemon's folder, and writes one byte into it, which nobody reads, when the first call has returned: then the
initializer is known to end. A worker that waits for a call finds the FIFO readable and gets ready, once; one that is started later does so as
soon as it is up. A worker that is given a call before runs the initializer as a part of that call, where the limits of the call hold.

The initializer comes by a file, with what `multiprocessing` knows in the client. It is left to the calls if it is long, or holds descriptors, which
come only with a call; if it took long in the call that ran it first, because the daemon kills a worker that does not begin an offered call
within 10 s; and if it has ended or stopped workers that tried it. Both halves.
"""

from __future__ import annotations

import os

from . import _inherited, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from ._child_process import Identity
    from ._folder import OwnFolder

    # The key of `multiprocessing` and the descriptor of its resource tracker, as far as it is loaded; the client; the pickle.
    Early: TypeAlias = tuple[bytes | None, int | None, int, bytes]

_BELL, _INITIALIZER, _TRIED, _SLOW = "warm", "initializer", "initializer.tried", "initializer.slow"
_INITIALIZER_MAX = 1 << 20
QUICK_SECONDS = 4.0
"""An initializer that took longer is left to the calls."""
# So many workers may have begun to run it early and not come to its end, also those that are in it just now.
_OPEN_MAX = 4


class WarmUp:
    """The client's half."""

    def __init__(self, folder: OwnFolder) -> None:
        """Makes the FIFO. Where that is impossible, workers get ready with their first call."""
        self.has_begun = False
        self._folder = folder
        self._descriptor = -1
        path = os.path.join(folder.path, _BELL)
        try:
            os.mkfifo(path, 0o600)
            with _inherited.opening:
                self._descriptor = _inherited.note(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return

    def begin(self, initializer: Early | None) -> None:
        """Has workers get ready, with this initializer. It may be repeated."""
        if self._descriptor < 0 or self.has_begun:
            return
        try:
            is_slow = os.path.exists(os.path.join(self._folder.path, _SLOW))
            if initializer is not None and len(initializer[-1]) <= _INITIALIZER_MAX and not is_slow:
                self._folder.write(_INITIALIZER, _wire.plain_dumps(initializer, _wire.PROTOCOL))
            os.write(self._descriptor, b"!")
        except OSError:
            pass  # There is no room, or the folder is gone: as above.
        self.has_begun = True

    def close(self) -> None:
        """A second call does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            _inherited.close(descriptor)


def bell(folder: str) -> int | None:
    """The worker's half: a descriptor that is readable once the worker may get ready."""
    try:
        return os.open(os.path.join(folder, _BELL), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None


def note_slow(folder: str) -> None:
    """The worker's half: the initializer took longer than `QUICK_SECONDS`. Called before the call that ran it returns."""
    try:
        os.close(os.open(os.path.join(folder, _SLOW), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        return  # Then workers that wait are killed once for it, and it is left to the calls.


def run_initializer(folder: str, identity: Identity, run: Callable[[bytes], object]) -> None:
    """Calls `run` with the pickle of the initializer, if it may be run early. `run` raises nothing."""
    early: Early
    try:
        with open(os.path.join(folder, _INITIALIZER), "rb") as file:
            early = _wire.loads(file.read())
        authkey, tracker, client, initializer = early
        # Without it this process would start a tracker of its own, which removes shared memory at its end.
        trackers = [os.open(f"/proc/{client}/fd/{tracker}", os.O_WRONLY | os.O_CLOEXEC)] if tracker is not None else []
        if authkey is not None:
            identity.adopt(authkey, trackers)
        descriptor = os.open(os.path.join(folder, _TRIED), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.write(descriptor, b"?")
        marks = os.pread(descriptor, 1 << 20, 0)
        if marks.count(b"?") - marks.count(b"+") <= _OPEN_MAX:
            run(initializer)
        os.write(descriptor, b"+")
    except OSError:
        return
    finally:
        os.close(descriptor)
