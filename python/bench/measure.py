"""One measurement of one pool, in a process of its own: `python measure.py POOL VERB`. Prints a JSON object of figures.

`run.py` calls it for each pool by turns. A figure is a rate in calls per second, or a time whose unit is in its name.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import calls
from pools import Pool, load

Figures = dict[str, float]
DEADLINE_S = 20


@contextmanager
def warm_pool(name: str, **options: Any) -> Iterator[Pool]:
    """A pool all of whose workers have had calls."""
    pool = Pool(name, **options)
    try:
        for call in [pool.submit(calls.nap, number) for number in range(20)]:
            pool.result(call)
        yield pool
    finally:
        pool.close()


def rates(name: str) -> Figures:
    """No-op calls: all submitted and then collected, and by `map` with chunks of 1 and of 100."""
    with warm_pool(name) as pool:
        count = 8000
        begun = time.perf_counter()
        for call in [pool.submit(calls.identity, number) for number in range(count)]:
            pool.result(call)
        found = {"submit": count / (time.perf_counter() - begun)}
        for chunk, count in ((1, 8000), (100, 200_000)):
            begun = time.perf_counter()
            total = sum(pool.map(calls.identity, range(count), chunk))
            found[f"map{chunk}"] = count / (time.perf_counter() - begun)
            assert total == count * (count - 1) // 2
    return found


def latency(name: str) -> Figures:
    """One no-op call at a time: the middle one."""
    with warm_pool(name) as pool:
        spans = []
        for number in range(1500):
            begun = time.perf_counter()
            pool.result(pool.submit(calls.identity, number))
            spans.append(time.perf_counter() - begun)
    return {"latency_us": sorted(spans)[len(spans) // 2] * 1e6}


def sizes(name: str) -> Figures:
    """Calls a second whose argument and result are bytes of this length, with 64 under way."""
    found = {}
    with warm_pool(name) as pool:
        for word, length, count in (("8k", 8 << 10, 4000), ("64k", 64 << 10, 2000), ("1m", 1 << 20, 200)):
            value, under_way = os.urandom(length), []
            begun = time.perf_counter()
            for _ in range(count):
                under_way.append(pool.submit(calls.identity, value))
                if len(under_way) == 64:
                    assert len(pool.result(under_way.pop(0))) == length
            for call in under_way:
                pool.result(call)
            found[word] = count / (time.perf_counter() - begun)
    return found


def numpy64m(name: str) -> Figures:
    """An array of 64 MiB in, and another one out: the middle of five."""
    import numpy

    with warm_pool(name) as pool:
        array = numpy.arange(8 << 20, dtype="f8")
        pool.result(pool.submit(calls.negative, array[:100]))
        spans = []
        for _ in range(5):
            begun = time.perf_counter()
            result = pool.result(pool.submit(calls.negative, array))
            spans.append(time.perf_counter() - begun)
            assert result[7] == -7.0
            del result
    return {"numpy64m_ms": sorted(spans)[2] * 1e3}


def start(name: str) -> Figures:
    """From making the pool to its first result, without the import."""
    begun = time.perf_counter()
    pool = Pool(name)
    pool.result(pool.submit(calls.identity, 1))
    found = {"first_result_ms": (time.perf_counter() - begun) * 1e3}
    pool.close()
    return found


def kill(name: str) -> Figures:
    """A call that kills its worker: until its error is here, and until the next call of the only worker that is left is done.

    Bulkhead alone: one worker, a warm spare; the middle of nine.
    """
    from bulkhead import Executor

    errors, next_calls = [], []
    with Executor(1, spares=1) as executor, tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "moment")
        for number in range(10):
            executor.submit(calls.identity, 1).result()
            time.sleep(0.3)
            guilty = executor.submit(calls.die, path)
            follower = executor.submit(calls.identity, 2)
            assert guilty.exception(DEADLINE_S) is not None
            seen = time.monotonic()
            assert follower.result(DEADLINE_S) == 2
            done = time.monotonic()
            with open(path) as file:
                died = float(file.read())
            if number > 0:
                errors.append((seen - died) * 1e3)
                next_calls.append((done - died) * 1e3)
    middle = len(errors) // 2
    return {"kill_to_error_ms": sorted(errors)[middle], "kill_to_next_call_ms": sorted(next_calls)[middle]}


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def await_until(is_so: Callable[[], bool], what: str) -> None:
    """Waits for something that has to happen."""
    end = time.monotonic() + DEADLINE_S
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"after {DEADLINE_S} s still not: {what}")
        time.sleep(0.0002)


def cancel(name: str) -> Figures:
    """Cancel of a call that holds the GIL: until its worker and the child that it started are gone. Bulkhead alone."""
    from bulkhead import Executor

    with Executor(1) as executor, tempfile.TemporaryDirectory() as folder:
        spans = []
        for number in range(5):
            path = os.path.join(folder, f"pids{number}")
            call = executor.submit(calls.hold_gil_with_child, path)
            await_until(lambda path=path: os.path.exists(path), "the call runs")  # type: ignore[misc]
            with open(path) as file:
                pids = [int(word) for word in file.read().split()]
            time.sleep(0.05)
            begun = time.monotonic()
            assert call.cancel()
            await_until(lambda pids=pids: not any(map(is_alive, pids)), f"{pids} are gone")  # type: ignore[misc]
            spans.append((time.monotonic() - begun) * 1e3)
    return {"cancel_ms": sorted(spans)[2]}


def descendants(pid: int) -> list[int]:
    """All processes below this one."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for child in map(int, file.read().split()):
                found += [child, *descendants(child)]
    return found


def memory(name: str) -> Figures:
    """Proportional set size of all processes of the pool after 2000 calls, in MiB."""
    with warm_pool(name) as pool:
        for call in [pool.submit(calls.identity, number) for number in range(2000)]:
            pool.result(call)
        time.sleep(0.5)
        total = 0
        for pid in descendants(os.getpid()):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return {"pss_mib": total / 1024}


VERBS = {verb.__name__: verb for verb in (rates, latency, sizes, numpy64m, start, kill, cancel, memory)}


def main() -> None:
    """Measures what the command line names."""
    name, verb = sys.argv[1:]
    load(name)
    print(json.dumps(VERBS[verb](name)))


if __name__ == "__main__":
    main()
