"""Forked children of a program with an executor: its executor is dead there, and lives on in the parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import calls
import pytest

from bulkhead import Executor, _future, _inherited
from bulkhead._private import PrivateDaemon


def in_child(act: Callable[[], str]) -> str:
    """Forks, and gives what `act` returned or raised in the child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # A child that hangs ends, and has said nothing.
        try:
            text = act()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text


def shut(executor: Executor) -> str:
    executor.shutdown()
    return "shut"


pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_the_parents_executor_says_so(executor: Executor) -> None:
    future = executor.submit(calls.sleep, 0.5)
    assert "belongs to the parent of this forked process" in in_child(lambda: str(executor.submit(calls.add, 1)))
    assert "belongs to the parent of this forked process" in in_child(lambda: str(executor.map(calls.add, [1])))
    assert "belongs to the parent of this forked process" in in_child(lambda: str(future.result(5)))
    assert in_child(lambda: shut(executor)) == "shut"
    assert in_child(lambda: str(future.cancel())) == "True"
    assert future.result(60) == 0.5 and executor.submit(calls.add, 1).result() == 2


def test_the_parents_map_says_so(executor: Executor) -> None:
    results = executor.map(calls.sleep, [0.5])
    assert "belongs to the parent of this forked process" in in_child(lambda: str(next(results)))
    assert list(results) == [0.5]


def use_all(executor: Executor, future: _future.Future[float]) -> str:
    """What a child may do with the parent's objects, and with an executor of its own."""
    future.cancel()
    executor.shutdown()
    with Executor(1, spares=0) as own:
        made = own.submit(calls.add, 41)
        made.add_done_callback(lambda _: None)
        return str(made.result(60))


def test_locks_that_other_threads_hold_at_the_fork(executor: Executor) -> None:
    future = executor.submit(calls.sleep, 0.5)
    condition = future._condition
    links, entered, go = executor._pool.links, threading.Event(), threading.Event()

    def hold() -> None:
        with _future._making, condition, links._starting, links._changing:
            entered.set()
            assert go.wait(120)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    try:
        assert entered.wait(60)
        found = in_child(lambda: use_all(executor, future))
    finally:
        go.set()
        thread.join(60)
    assert found == "42"
    assert future.result(60) == 0.5


def open_ones(descriptors: list[int]) -> str:
    found = []
    for descriptor in descriptors:
        try:
            os.fstat(descriptor)
            found.append(descriptor)
        except OSError:
            continue
    return f"open: {found}"


def test_a_fork_while_a_daemon_starts_does_not_hold_it(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    executor, entered, go = make(1), threading.Event(), threading.Event()
    started: list[PrivateDaemon] = []
    usual = PrivateDaemon.wait_ready

    def wait_ready(daemon: PrivateDaemon) -> None:
        started.append(daemon)
        entered.set()
        assert go.wait(60)
        usual(daemon)

    monkeypatch.setattr(PrivateDaemon, "wait_ready", wait_ready)
    thread = threading.Thread(target=lambda: executor.submit(calls.add, 1), daemon=True)
    thread.start()
    try:
        assert entered.wait(60)
        daemon = started[0]
        found = in_child(lambda: open_ones([daemon._stdin, daemon.folder._lock]))
    finally:
        go.set()
        thread.join(60)
    assert found == "open: []"


def test_a_fork_while_a_daemon_is_closed_does_not_hold_it(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    executor = make(1)
    executor.submit(calls.add, 1).result(60)
    link = executor._pool._link
    assert link is not None
    descriptors = [link.daemon._stdin, link.daemon.folder._lock]
    found: list[str] = []
    usual = PrivateDaemon.stop

    def stop(daemon: PrivateDaemon, *args: float, **options: bool) -> None:
        if not found:
            found.append(in_child(lambda: open_ones(descriptors)))
        usual(daemon, *args, **options)

    monkeypatch.setattr(PrivateDaemon, "stop", stop)
    executor.kill_workers()
    assert found == ["open: []"]
    assert not set(descriptors) & _inherited._noted


def test_a_child_makes_its_own(executor: Executor) -> None:
    executor.submit(calls.add, 1).result()

    def act() -> str:
        with Executor(1, spares=0) as own:
            return str(own.submit(calls.add, 41).result(60))

    assert in_child(act) == "42"
    assert executor.submit(calls.add, 1).result() == 2


def test_a_child_that_ends_in_order_does_not_end_the_parents(executor: Executor) -> None:
    import subprocess
    import sys

    script = (
        "import os, sys, calls\nfrom bulkhead import Executor\n"
        "executor = Executor(1, spares=0)\n"
        "executor.submit(calls.add, 1).result()\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "os.wait()\n"
        "print(executor.submit(calls.add, 1).result())\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout == "2\n"


def test_fork_processes_of_multiprocessing(executor: Executor) -> None:
    import multiprocessing

    executor.submit(calls.add, 1).result()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=calls.add, args=(1,))
    process.start()
    process.join(60)
    assert process.exitcode == 0 and executor.submit(calls.add, 1).result() == 2
