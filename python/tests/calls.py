"""Functions that the tests run in workers."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def add(a: int, b: int = 1) -> int:
    return a + b


def echo(value: Any) -> Any:
    return value


def fresh_pages(times: int) -> int:
    """How many pages were new to this process while it made and dropped four blocks of 1 MiB so many times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        blocks = [bytes([7]) * (1 << 20) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def pid(_: Any = None) -> int:
    return os.getpid()


def raise_value_error(text: str = "no") -> None:
    raise ValueError(text)


def raise_this(error: BaseException) -> None:
    raise error


def note(path: str, text: str) -> None:
    """Adds a line to a file, as a count of runs."""
    with open(path, "a") as file:
        file.write(text + "\n")


def note_and_return(path: str, number: int) -> int:
    note(path, str(number))
    return number


def die_at(path: str, how: str, number: int, victim: int) -> int:
    """Notes the run, and dies if it is the victim."""
    note(path, str(number))
    if number == victim:
        die(how)
    return number


def hang_at(path: str, number: int, victim: int) -> int:
    """Notes the run, and hangs if it is the victim."""
    note(path, str(number))
    if number == victim:
        time.sleep(1000)
    return number


def note_and_wait(path: str, number: int, gate: str) -> int:
    """Notes the run, and waits until there is such a file."""
    note(path, str(number))
    wait_for(gate)
    return number


def odd(number: int) -> Any:
    """By its last digit a result, an exception, or what cannot be brought back."""
    kind = number % 5
    if kind == 1:
        raise ValueError(str(number))
    if kind == 2:
        return threading.Lock()
    if kind == 3:
        sys.exit(number)
    return NotBack(None) if kind == 4 else number


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(7)
    elif how == "exit0":
        os._exit(0)
    elif how == "segfault":
        ctypes.string_at(8)
    elif how == "overflow":
        overflow()
    elif how == "abort":
        os.abort()
    raise AssertionError(f"it lives on after {how}")


def overflow() -> None:
    """Overflows the C stack, which is made small first: the interpreter would stop a deep recursion before."""
    resource.setrlimit(resource.RLIMIT_STACK, (256 << 10, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    sys.setrecursionlimit(1 << 30)
    callback_type = ctypes.CFUNCTYPE(None)

    def again() -> None:
        callback_type(again)()

    again()


def take_memory(count: int) -> int:
    return len(bytearray(count))


def take_memory_for_good(path: str, count: int) -> int:
    """Takes memory outside of what a limit of the data segment stops: shared pages."""
    import mmap

    note(path, "begun")
    taken = mmap.mmap(-1, count)
    for at in range(0, count, 4096):
        taken[at] = 1
    time.sleep(60)
    return count


def sleep(seconds: float, path: str | None = None) -> float:
    if path is not None:
        Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return seconds


def sleep_holding_the_gil(seconds: int, path: str) -> None:
    """A C function that does not let other threads run, with a process of its own beside it."""
    child = subprocess.Popen(["sleep", "1000"])
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    ctypes.PyDLL(None).sleep(seconds)


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def wait_for(path: str) -> str:
    """Waits until there is such a file."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


def note_interrupts(begun: str, gate: str, hit: str) -> str:
    """Waits until there is the file `gate`; if this process or a child of it has SIGINT meanwhile, it makes the file `hit`."""
    signal.signal(signal.SIGINT, lambda *_: Path(hit).touch())
    child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(1000)"], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    Path(begun).touch()
    wait_for(gate)
    if child.poll() is not None:
        Path(hit).touch()
    child.kill()
    child.communicate()
    return "ended"


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def lock() -> Any:
    return threading.Lock()


class NotBack:
    """Can be pickled, and not be unpickled in the process that is named."""

    def __init__(self, bad_pid: int | None) -> None:
        self.bad_pid = bad_pid

    def __reduce__(self) -> Any:
        return _rebuild, (self.bad_pid,)


def _rebuild(bad_pid: int | None) -> NotBack:
    if bad_pid is None or bad_pid == os.getpid():
        raise RuntimeError("it does not come back")
    return NotBack(bad_pid)


class NeedsTwo(Exception):
    """An exception that pickle makes and cannot read again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} {second}")


def raise_needs_two() -> None:
    raise NeedsTwo(1, 2)


def raise_with_lock() -> None:
    error = ValueError("it has a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def work_until_cancelled(path: str) -> str:
    """Ends by itself when it is cancelled, and says so in the file."""
    from bulkhead import cancelled

    Path(path).write_text("begun")
    while not cancelled():
        time.sleep(0.002)
    Path(path).write_text("ended by itself")
    return "ended"


def end_slowly(path: str, seconds: float) -> None:
    """Ends by itself some time after it is cancelled, and says so in the file."""
    work_until_cancelled(path)
    Path(path).write_text("about to end")
    time.sleep(seconds)
    Path(path).write_text("ended by itself")


def fill(buffer: memoryview) -> tuple[int, int]:
    """Writes into a buffer; its length and sum."""
    buffer[0] = 7
    return len(buffer), sum(buffer)


def report(path: str) -> None:
    from bulkhead import progress, say

    say("about to wait")
    progress(3, 10)
    wait_for(path)


def raise_buffer(length: int) -> None:
    raise ValueError(pickle.PickleBuffer(bytearray(length)))


class Hooked:
    """An argument that calls `Hooked.hook` while it is pickled."""

    hook: Callable[[], object] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if Hooked.hook is not None:
            Hooked.hook()
        return str, ("pickled",)


class Answer:
    """A result whose unpickling calls `Answer.hook`, if it is set in that process."""

    hook: Callable[[], object] | None = None

    def __init__(self, length: int) -> None:
        self.content = bytes(length)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if Answer.hook is not None:
            Answer.hook()
        self.__dict__.update(state)


def answer(length: int) -> Answer:
    return Answer(length)


class Unprintable(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise ValueError("it has no text")


def leave() -> None:
    """Raises what ends a program."""
    raise SystemExit("unpickled")


def be_unprintable() -> None:
    """Raises an exception without a text."""
    raise Unprintable


class RaisesAtUnpickling:
    """A value whose unpickling calls a function."""

    def __init__(self, function: Callable[..., None], length: int) -> None:
        """With so many bytes."""
        self.function = function
        self.length = length

    def __reduce__(self) -> tuple[Any, ...]:
        return _call_first, (self.function, bytes(self.length))


def _call_first(function: Callable[..., None], data: bytes) -> None:
    function()


def leaves_at_unpickling(length: int) -> RaisesAtUnpickling:
    """A result that ends the program that reads it."""
    return RaisesAtUnpickling(leave, length)


def unprintable_at_unpickling(length: int) -> RaisesAtUnpickling:
    """A result that cannot be read, nor the error of that."""
    return RaisesAtUnpickling(be_unprintable, length)


def die_of(_: int) -> None:
    """Kills its worker."""
    die("kill")


def note_and_kill_parent(path: str, number: int, victim: int, times: int) -> int:
    """Notes the run; the first runs of the victim kill the daemon."""
    note(path, str(number))
    if number == victim and Path(path).read_text().split().count(str(number)) <= times:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    return number


def note_and_outlive(path: str) -> int:
    """At its first run: ends the daemon, lives on for a moment, and notes its end. Later runs note that they have begun."""
    if not Path(path).exists():
        note(path, "begun")
        # The signal that comes with the end of the daemon is left out.
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.5)
        note(path, "ended")
        os._exit(0)
    note(path, "again")
    return os.getpid()


def fork_and_kill_parent(path: str) -> int:
    """At its first run: forks a child that lives on, and kills the daemon."""
    if not Path(path).exists():
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        note(path, str(child))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    note(path, "again")
    return os.getpid()


def start_program_and_kill_parent(path: str) -> str:
    """At its first run: starts a program that lives on, and kills the daemon."""
    if not Path(path).exists():
        program = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
        Path(path).write_text(str(program))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
    return "again"
