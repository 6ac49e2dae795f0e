"""What `multiprocessing` sees in a worker, and what of it can be passed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import shared_memory
from typing import Any

import calls

from bulkhead import Executor


def identity() -> tuple[str, int | None, bool, bytes, int]:
    process, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    assert parent is not None and parent.is_alive()
    return process.name, parent.pid, process.daemon, bytes(process.authkey), os.getpid()


def start_a_process() -> int | None:
    process = multiprocessing.get_context("spawn").Process(target=calls.add, args=(1,))
    process.start()
    process.join()
    return process.exitcode


def fill(name: str) -> None:
    memory = shared_memory.SharedMemory(name)
    assert memory.buf is not None
    memory.buf[0] = 42
    memory.close()


def tracker() -> tuple[int, int]:
    from multiprocessing import resource_tracker

    found: Any = resource_tracker._resource_tracker
    return os.stat(found._fd).st_ino if found._fd is not None else 0, found._pid or 0


def send(connection: Any, value: str) -> None:
    connection.send(value)


def test_a_worker_is_a_child_as_under_spawn(executor: Executor) -> None:
    name, parent, is_daemon, authkey, pid = executor.submit(identity).result()
    assert name.startswith("SpawnProcess-") and parent == os.getpid() and not is_daemon
    assert authkey == multiprocessing.current_process().authkey and pid != os.getpid()


def test_it_may_start_processes(executor: Executor) -> None:
    assert executor.submit(start_a_process).result() == 0


def test_shared_memory_outlives_the_worker(make: Callable[..., Executor]) -> None:
    executor = make(1)
    executor.submit(calls.add, 1).result()
    memory = shared_memory.SharedMemory(create=True, size=100)
    try:
        executor.submit(fill, memory.name).result()
        executor.submit(calls.die, "kill").exception()
        executor.shutdown()
        assert memory.buf is not None and memory.buf[0] == 42
        shared_memory.SharedMemory(memory.name).close()
    finally:
        memory.close()
        memory.unlink()


def test_workers_use_the_clients_resource_tracker(executor: Executor) -> None:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    found: Any = resource_tracker._resource_tracker
    inode, pid = executor.submit(tracker).result()
    assert inode == os.stat(found._fd).st_ino and pid == 0


def test_a_connection_as_an_argument(executor: Executor) -> None:
    ours, theirs = multiprocessing.Pipe()
    executor.submit(send, theirs, "hello").result()
    assert ours.recv() == "hello"


def test_a_manager(executor: Executor) -> None:
    with multiprocessing.get_context("spawn").Manager() as manager:
        numbers = manager.list([1, 2])
        executor.submit(numbers.append, 3).result()
        assert list(numbers) == [1, 2, 3]
        queue = manager.Queue()
        executor.submit(queue.put, 5).result()
        assert queue.get(timeout=60) == 5
