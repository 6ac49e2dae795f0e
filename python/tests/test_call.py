"""How calls become bytes, and what cannot."""

from __future__ import annotations

import functools
import gc
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import calls
import pytest

from bulkhead import _call, _wire


@pytest.fixture
def encoder() -> _call.CallEncoder:
    return _call.CallEncoder()


@pytest.fixture
def no_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)


def test_a_function_is_pickled_once(encoder: _call.CallEncoder) -> None:
    head = encoder.head(calls.add)
    assert head is not None and head is encoder.head(calls.add)
    assert head.prefix[0] == _call.SPLIT and pickle.loads(head.prefix[3:]) is calls.add
    assert int.from_bytes(head.prefix[1:3], "little") == len(head.prefix) - 3
    assert list(encoder.modules) == ["calls"]


@pytest.mark.parametrize("function", [functools.partial(calls.add, 1), "text".upper, [].append, calls.NotBack])
def test_what_carries_state_has_no_head(encoder: _call.CallEncoder, function: Callable[..., Any]) -> None:
    assert encoder.head(function) is None


def test_builtin_functions_have_a_head(encoder: _call.CallEncoder) -> None:
    head = encoder.head(pow)
    assert head is not None and pickle.loads(head.prefix[3:]) is pow


def test_a_long_function_goes_as_a_context(encoder: _call.CallEncoder) -> None:
    pytest.importorskip("cloudpickle")
    table = list(range(5000))
    head = encoder.head(lambda: table)
    assert head is not None and head.blob is not None and head.prefix == bytes([_call.BY_CONTEXT])


def test_a_function_that_is_forgotten_is_not_kept(encoder: _call.CallEncoder) -> None:
    pytest.importorskip("cloudpickle")
    encoder.head(lambda: 1)
    gc.collect()
    assert len(encoder._heads) == 0


def test_flavours_are_of_names(encoder: _call.CallEncoder) -> None:
    assert encoder.flavour(calls.add) == encoder.flavour(functools.partial(calls.add, 3)) != encoder.flavour(calls.echo)
    assert 0 < encoder.flavour(calls.add) < 1 << 32


@pytest.mark.usefixtures("no_cloudpickle")
class TestNames:
    """The error names what cannot be pickled, and the fix."""

    def test_a_lambda(self, encoder: _call.CallEncoder) -> None:
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"the function .*<lambda>.*pip install cloudpickle"):
            encoder.head(lambda: 1)

    def test_an_argument_by_position(self, encoder: _call.CallEncoder) -> None:
        with pytest.raises(TypeError, match=r"argument 2 of calls.add \(an object of type _thread.lock\) cannot be pickled"):
            encoder.arguments(calls.add, (1, threading.Lock()), {})

    def test_an_argument_by_name(self, encoder: _call.CallEncoder) -> None:
        with pytest.raises(TypeError, match="argument b of calls.add"):
            encoder.arguments(calls.add, (1,), {"b": threading.Lock()})

    def test_a_partial(self, encoder: _call.CallEncoder) -> None:
        with pytest.raises(TypeError, match="the function an object of type functools.partial"):
            encoder.whole(functools.partial(calls.echo, threading.Lock()), (), {})

    def test_something_of_main(self, encoder: _call.CallEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        main = sys.modules["__main__"]
        monkeypatch.setattr(main, "__spec__", None, raising=False)
        monkeypatch.delattr(main, "__file__", raising=False)
        monkeypatch.setattr(calls.add, "__module__", "__main__")
        monkeypatch.setattr(main, "add", calls.add, raising=False)
        with pytest.raises(AttributeError, match="defined in __main__, which workers cannot import"):
            encoder.head(calls.add)


def test_cloudpickle_takes_what_pickle_cannot(encoder: _call.CallEncoder) -> None:
    pytest.importorskip("cloudpickle")
    head = encoder.head(lambda value: value + 1)
    assert head is not None and head.blob is None and _wire.loads(head.prefix[3:])(1) == 2
    with pytest.raises(TypeError, match="argument 1 of calls.echo .* also not by cloudpickle"):
        encoder.arguments(calls.echo, (threading.Lock(),), {})
