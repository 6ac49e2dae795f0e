"""Pickles with their buffers apart: what a call and its result are while they travel.

Buffers of at least `OUT_OF_BAND_MIN` bytes (NumPy arrays, `pickle.PickleBuffer`) are not copied into the pickle. They lie behind it
in a file in memory, which the other side maps privately: arrays are writable there, and are copied on write only. Numbers are
little endian.

| bytes | a file with buffers, `PIECES` in its first byte |
|---|---|
| 1 | what it is, and `PIECES` |
| 7 | 0 |
| 8 | length of the pickle |
| 8 | number of buffers |
| 8 each | their lengths |
| | the pickle, then each buffer at a multiple of 64 |

`_pickle` is imported instead of `pickle`, whose imports are 10 ms of a worker's start. Used by both halves.
"""

from __future__ import annotations

import _pickle
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from ._native import MemoryFile

    class Dumps(Protocol):
        """`pickle.dumps`, or cloudpickle's."""

        def __call__(self, value: Any, /, protocol: int, *, buffer_callback: Callable[[Any], bool] | None = None) -> bytes:
            """The pickle of the value."""

OUT_OF_BAND_MIN = 32 << 10
PROTOCOL = 5
PIECES = 0x40
_HEAD = struct.Struct("<B7xQQ")
_ALIGN = 64
# Vectors that one pwritev(2) takes.
_IOV_MAX = 1024
# A value of up to this many bytes is read instead of mapped: a mapping costs more, and holds a descriptor.
_READ_MAX = 1 << 20
# With more values that hold a mapping, and so a descriptor, further ones are read.
_MAPPINGS_MAX = 256

# A pickle of this protocol begins with it, so it also says that there is one.
PICKLE_MARK = 0x80
PLAIN_TYPES = frozenset((int, float, bool, str, bytes, type(None)))
"""Types whose pickles name no module and have no buffers apart."""

loads: Callable[..., Any] = _pickle.loads


plain_dumps: Dumps = _pickle.dumps


def dumps(value: Any, dump: Dumps = plain_dumps) -> tuple[bytes, list[memoryview]]:
    """The pickle, and the buffers that `loads` needs beside it, in their order. Raises what pickling raises."""
    buffers: list[memoryview] = []

    def is_inside(buffer: Any) -> bool:
        try:
            raw: memoryview = buffer.raw()
        except BufferError:
            return True  # It is not contiguous, so its class copies it.
        if raw.nbytes < OUT_OF_BAND_MIN:
            return True
        buffers.append(raw)
        return False

    return dump(value, PROTOCOL, buffer_callback=is_inside), buffers


class Pieces:
    """A pickle and its buffers, to be written into a file."""

    def __init__(self, tag: int, data: bytes, buffers: Sequence[memoryview]) -> None:
        """`tag`, without `PIECES`, is what the first byte tells."""
        sizes = [buffer.nbytes for buffer in buffers]
        head = _HEAD.pack(tag | PIECES, len(data), len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
        self._parts: list[memoryview] = [memoryview(head), memoryview(data)]
        self.length = len(head) + len(data)
        for buffer in buffers:
            self._add(memoryview(bytes(-self.length % _ALIGN)))
            self._add(buffer)

    def _add(self, part: memoryview) -> None:
        if part.nbytes:
            self._parts.append(part)
            self.length += part.nbytes

    def joined(self) -> bytes:
        """What `write` writes."""
        return b"".join(self._parts)

    def write(self, descriptor: int) -> None:
        """Fills the file from byte 0 on. Raises `OSError`."""
        parts, at = self._parts, 0
        while parts:
            count = os.pwritev(descriptor, parts[:_IOV_MAX], at)
            at += count
            whole = 0
            while whole < len(parts) and count >= parts[whole].nbytes:
                count -= parts[whole].nbytes
                whole += 1
            parts = parts[whole:]
            if count:
                parts[0] = parts[0][count:]


_mappings = 0


def content_of(file: MemoryFile) -> memoryview:
    """The content of a file, writable and private: a mapping, or a copy if it is short. Raises `OSError`."""
    length = file.length
    if length <= _READ_MAX or _mappings >= _MAPPINGS_MAX:
        return _read(file.fileno(), length)
    import mmap
    import weakref

    mapped = mmap.mmap(file.fileno(), length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    _count_mapping(1)
    weakref.finalize(mapped, _count_mapping, -1).atexit = False
    return memoryview(mapped)


def _count_mapping(change: int) -> None:
    global _mappings
    _mappings += change


def _read(descriptor: int, length: int) -> memoryview:
    content = memoryview(bytearray(length))
    at = 0
    while at < length:
        count = os.preadv(descriptor, [content[at:]], at)
        if count == 0:
            raise OSError(f"a file of {length} bytes ended after {at}")
        at += count
    return content


def load_pieces(content: memoryview) -> Any:
    """The value in a file with buffers. Raises what unpickling raises."""
    _, size, count = _HEAD.unpack_from(content)
    sizes = struct.unpack_from(f"<{count}Q", content, _HEAD.size)
    begin = _HEAD.size + 8 * count
    at = begin + size
    data, buffers = content[begin:at], []
    for length in sizes:
        at += -at % _ALIGN
        buffers.append(content[at : at + length])
        at += length
    return loads(data, buffers=buffers)
