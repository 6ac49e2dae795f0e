"""Whether all workers of a daemon have ended, by a FIFO in the daemon's folder.

Each worker holds the write end from its first line on, before it serves any call; the client holds the read end. So once the daemon has ended,
which starts no worker then, the end of the FIFO proves that no worker runs a call any more. A program that a worker starts does not hold it
(close-on-exec); a child that it forks does, because that may be in the midst of the call. Both halves.
"""

from __future__ import annotations

import errno
import os
import time

from . import _inherited

_NAME = "alive"


class WorkersEnd:
    """The client's half."""

    def __init__(self, folder: str) -> None:
        """Makes the FIFO. Where that is impossible, the end is never proven."""
        self.is_needed = False
        """Whether it is kept open behind the end of the daemon."""
        self.has_ended = False
        """Whether the end of all workers was seen."""
        self._descriptor = -1
        path = os.path.join(folder, _NAME)
        try:
            os.mkfifo(path, 0o600)
            with _inherited.opening:
                self._descriptor = _inherited.note(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise

    def have_ended(self, until: float) -> bool:
        """Waits for the end of all workers, once the daemon has ended; `False`: one lives at the moment `until`. The FIFO is closed then."""
        import select

        while self._descriptor >= 0:
            if self._is_at_end():
                self.has_ended = True
                break
            left = until - time.monotonic()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self._descriptor, 0)
            poll.poll(left * 1000)
        self.close()
        return self.has_ended

    def _is_at_end(self) -> bool:
        try:
            return not os.read(self._descriptor, 1)
        except BlockingIOError:
            return False

    def close(self) -> None:
        """A second call does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            _inherited.close(descriptor)

    def forget(self) -> None:
        """In a forked child: `_inherited.py` has closed it there."""
        self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def hold(folder: str) -> bool:
    """The worker's half: holds the FIFO for the life of this process; `False`: the client is gone. Raises `OSError`."""
    try:
        os.open(os.path.join(folder, _NAME), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True  # There is none, or the folder is gone, which the next step finds.
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True
