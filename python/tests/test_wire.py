"""Pickles with their buffers apart."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from bulkhead import _wire


class InMemory:
    """Stands for the native half's file in memory."""

    def __init__(self, length: int = 0) -> None:
        self.descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, length)
        self.length = length

    def fileno(self) -> int:
        return self.descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


def _through_a_file(value: Any) -> Any:
    data, buffers = _wire.dumps(value)
    pieces = _wire.Pieces(1, data, buffers)
    file = InMemory(pieces.length)
    pieces.write(file.fileno())
    assert os.fstat(file.fileno()).st_size == pieces.length
    content = _wire.content_of(file)  # type: ignore[arg-type]
    assert content[0] == 1 | _wire.PIECES
    return _wire.load_pieces(content)


def test_short_buffers_stay_in_the_pickle() -> None:
    data, buffers = _wire.dumps(pickle.PickleBuffer(b"x" * (_wire.OUT_OF_BAND_MIN - 1)))
    assert not buffers and len(data) >= _wire.OUT_OF_BAND_MIN - 1
    data, buffers = _wire.dumps(pickle.PickleBuffer(b"x" * _wire.OUT_OF_BAND_MIN))
    assert len(buffers) == 1 and len(data) < 100


@pytest.mark.parametrize("sizes", [[40_000], [100_000, 33_001, 65_537], [3_000_000], [32_768] * 1500])
def test_buffers_come_back_writable_and_private(sizes: list[int]) -> None:
    value = [pickle.PickleBuffer(bytearray(os.urandom(size))) for size in sizes]
    found = _through_a_file(value)
    assert [bytes(buffer) for buffer in found] == [bytes(buffer) for buffer in value]
    found[0][0] ^= 255
    assert found[0][0] != bytes(value[0])[0]


def test_the_number_of_mappings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "_MAPPINGS_MAX", 3)
    before = _wire._mappings
    value = pickle.PickleBuffer(bytes(_wire._READ_MAX + 1))
    found = [_through_a_file(value) for _ in range(9)]
    assert _wire._mappings <= before + 3 and all(len(bytes(buffer)) == len(bytes(value)) for buffer in found)
    del found
    assert _wire._mappings == before


def test_a_file_that_is_too_short_is_an_error() -> None:
    file = InMemory(10)
    file.length = 20
    with pytest.raises(OSError, match="a file of 20 bytes ended after 10"):
        _wire.content_of(file)  # type: ignore[arg-type]
