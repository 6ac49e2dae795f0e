"""What becomes of a program when something goes wrong in one call: a table for each pool that is installed.

`python faults.py` prints it as Markdown. Each cell is found by a program of its own, which is ended after a deadline; nothing that it
starts is left behind. The table in the documentation was made by this script.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

import calls
from measure import is_alive
from pools import Pool, load

FOLDER = os.path.dirname(os.path.abspath(__file__))
POOLS = {"bulkhead": "Bulkhead", "fork": "ProcessPoolExecutor", "loky": "loky", "pebble": "pebble", "mp.Pool": "multiprocessing.Pool"}
CALLS, GUILTY = 200, 100
DEADLINE_S = 60
PATIENCE_S = 3
"""How long a call may show nothing until the table says that it hangs: the calls take milliseconds."""

DEATHS = {
    "kill": "a worker is killed (`kill -9`)",
    "segfault": "a call reads address 0 (segfault)",
    "exit": "a call ends its process (`os._exit`)",
    "stack": "a call overflows the C stack",
}
STUCK = {
    "hang": "`cancel()` of a call that sleeps",
    "gil": "`cancel()` of a call that hangs in C with the GIL held, and has a child process",
}
FAULTS = {**DEATHS, "memory": "a call takes 4 GiB, 200 MiB are allowed", **STUCK, "parent": "the program itself is killed (`kill -9`)"}


def count_runs(path: str) -> tuple[int, int]:
    """How many calls have begun, and how many of them more than once."""
    try:
        with open(path) as file:
            runs = Counter(file.read().split())
    except FileNotFoundError:
        return 0, 0
    return len(runs), sum(1 for count in runs.values() if count > 1)


def death(name: str, way: str, **options: Any) -> str:
    """One guilty call among many innocent ones."""
    with tempfile.TemporaryDirectory() as folder:
        runs = os.path.join(folder, "runs")
        pool = Pool(name, **options)
        pool.result(pool.submit(calls.identity, 0))
        good, seen = 0, "nothing: it hangs"
        under_way = []
        for number in range(CALLS):
            try:
                under_way.append(pool.submit(calls.fault, number, GUILTY, way, runs))
            except Exception:
                break
        for number, call in enumerate(under_way):
            try:
                pool.result(call, PATIENCE_S)
                good += 1
            except Exception as error:
                if number == GUILTY and not isinstance(error, TimeoutError) and type(error).__name__ != "TimeoutError":
                    seen = f"`{type(error).__name__}`"
        twice = count_runs(runs)[1]
        try:
            is_usable = pool.result(pool.submit(calls.identity, 5), PATIENCE_S) == 5
        except Exception:
            is_usable = False
        text = f"{good} of {CALLS - 1} others done; {seen}; the pool {'goes on' if is_usable else 'is dead'}"
        return text + (f"; {twice} calls ran twice" if twice else "")


def memory(name: str) -> str:
    """Only Bulkhead has a limit; the others are not given four gigabytes to try."""
    if name != "bulkhead":
        return "no limit can be set"
    from bulkhead import Executor

    with Executor(2, memory=200 << 20) as executor:
        try:
            executor.submit(bytearray, 4 << 30).result(PATIENCE_S)
            seen = "nothing"
        except BaseException as error:
            seen = f"`{type(error).__name__}`"
        return f"{seen}; the pool {'goes on' if executor.submit(calls.identity, 5).result(PATIENCE_S) == 5 else 'is dead'}"


def stuck(name: str) -> str:
    """Cancel of a running call that holds the GIL and has a child."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pids")
        pool = Pool(name)
        call = pool.submit(calls.hold_gil_with_child, path)
        pids = await_pids(path)
        returned = getattr(call, "cancel", lambda: "there is no cancel()")()
        try:
            left = await_ends(pids)
            if isinstance(returned, str):
                return returned
            return f"gives {returned}; {describe(left)}"
        finally:
            end_all(pids)


def hang(name: str) -> str:
    """Cancel of a running call that sleeps in Python."""
    pool = Pool(name)
    call = pool.submit(time.sleep, 30)
    time.sleep(0.5)
    returned = getattr(call, "cancel", lambda: "there is no cancel()")()
    if isinstance(returned, str):
        return returned
    others = [pool.submit(calls.identity, number) for number in range(8)]
    busy = pool.submit(time.sleep, 0.5), pool.submit(time.sleep, 0.5)
    begun = time.monotonic()
    for other in (*others, *busy):
        pool.result(other)
    both = time.monotonic() - begun < 0.9
    return f"gives {returned}; {'both workers are free for others' if both else 'its worker stays occupied'}"


def parent(name: str) -> str:
    """The program that has the pool is killed while a call with a child process runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pids")
        program = subprocess.Popen([sys.executable, os.path.abspath(__file__), name, "victim", path])
        pids = await_pids(path)
        program.kill()
        program.wait()
        try:
            return describe(await_ends(pids))
        finally:
            end_all(pids)


def victim(name: str, path: str) -> None:
    """The program of `parent`."""
    pool = Pool(name)
    pool.submit(calls.hold_gil_with_child, path)
    time.sleep(DEADLINE_S)


def await_pids(path: str) -> list[int]:
    """The pids of a worker and its child, once the worker has written them."""
    end = time.monotonic() + DEADLINE_S
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(f"{path} was not written")
        time.sleep(0.01)
    with open(path) as file:
        return [int(word) for word in file.read().split()]


def await_ends(pids: list[int]) -> list[bool]:
    """Which of them are left after a while."""
    end = time.monotonic() + PATIENCE_S
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.002)
    return [is_alive(pid) for pid in pids]


def describe(left: list[bool]) -> str:
    """In words what is left of a worker and of its child."""
    names = [name for name, is_left in zip(("worker", "child"), left) if is_left]
    return "nothing is left" if not names else f"left running: {' and '.join(names)}"


def end_all(pids: list[int]) -> None:
    """Ends what a pool left running."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def cell(name: str, fault: str) -> str:
    """The outcome of one fault in one pool."""
    load(name)
    if fault in DEATHS:
        return death(name, fault)
    return {"memory": memory, "hang": hang, "gil": stuck, "parent": parent}[fault](name)


def ask(name: str, fault: str) -> str:
    """The same in a program of its own, in a process group of its own, which is ended afterwards."""
    command = [sys.executable, os.path.abspath(__file__), name, fault]
    # A file, because what a pool leaves running holds a pipe open.
    with tempfile.TemporaryFile("w+") as out:
        program = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            program.wait(DEADLINE_S)
            out.seek(0)
            lines = out.read().strip().splitlines()
            return lines[-1] if lines else f"the program ended with {program.returncode}"
        except subprocess.TimeoutExpired:
            return "the program hangs"
        finally:
            try:
                os.killpg(program.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            program.wait()


def main() -> None:
    """The table; or one cell: `faults.py POOL FAULT`."""
    if len(sys.argv) == 4:
        load(sys.argv[1])
        victim(sys.argv[1], sys.argv[3])
        return
    if len(sys.argv) == 3:
        print(cell(sys.argv[1], sys.argv[2]), flush=True)
        # A pool that was broken may keep its program from ending.
        os._exit(0)
    pools = []
    for name in POOLS:
        try:
            load(name)
            pools.append(name)
        except ImportError:
            print(f"{POOLS[name]} is not installed", file=sys.stderr)
    print("| what goes wrong | " + " | ".join(POOLS[name] for name in pools) + " |")
    print("|---" * (len(pools) + 1) + "|")
    for fault, words in FAULTS.items():
        print(f"| {words} | " + " | ".join(ask(name, fault) for name in pools) + " |", flush=True)


if __name__ == "__main__":
    main()
