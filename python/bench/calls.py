"""The functions that the pools run. A module of its own, so that every pool imports it the same way."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import time
from typing import Any


def identity(value: Any) -> Any:
    """Gives its argument."""
    return value


def negative(array: Any) -> Any:
    """A new array of the same size."""
    return -array


def note_time(path: str) -> None:
    """Writes the moment, which other processes can compare (CLOCK_MONOTONIC), into a file."""
    with open(path, "w") as file:
        file.write(repr(time.monotonic()))


def die(path: str) -> None:
    """Notes the moment and kills its own process."""
    note_time(path)
    os.kill(os.getpid(), signal.SIGKILL)


def nap(number: int) -> int:
    """Takes two milliseconds."""
    time.sleep(0.002)
    return number


def fault(number: int, guilty: int, way: str, runs: str) -> int:
    """A nap, noted in the file of all runs; the guilty one kills its process in this way."""
    descriptor = os.open(runs, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
    time.sleep(0.002)
    if number != guilty:
        return number
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "segfault":
        ctypes.string_at(0)
    elif way == "exit":
        os._exit(3)
    elif way == "stack":
        faulthandler._stack_overflow()  # type: ignore[attr-defined]
    elif way == "memory":
        bytearray(4 << 30)
    elif way == "hang":
        time.sleep(60)
    raise AssertionError(f"{way} did not end its process")


def hold_gil_with_child(path: str) -> None:
    """Starts a child, notes both pids, and sleeps in C for a minute without letting the interpreter go."""
    child = subprocess.Popen(["sleep", "61"])
    with open(path + ".new", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.rename(path + ".new", path)
    ctypes.PyDLL(None).sleep(60)
