"""What people use today, measured by the same rules: each verb prints one JSON object of figures.

Run by the bench, with Python 3; gmpy2 is needed by `factorial` alone. Workers are forked, two unless told.
"""

import json
import os
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import Pool, get_context


def same(value):
    return value


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def noop(count, rounds):
    def submit(pool):
        futures = [pool.submit(same, index) for index in range(count)]
        for index, future in enumerate(futures):
            assert future.result() == index

    def through(results):
        for index, value in enumerate(results):
            assert value == index

    found = {}
    with ProcessPoolExecutor(2) as pool:
        pool.submit(same, 0).result()
        found["ppe_submit"] = count / median([seconds(lambda: submit(pool)) for _ in range(rounds)])
        many = 10 * count
        found["ppe_map_1000"] = many / median(
            [seconds(lambda: through(pool.map(same, range(many), chunksize=1000))) for _ in range(rounds)]
        )
    with Pool(2) as pool:
        many = 20 * count
        found["pool_map"] = many / median([seconds(lambda: through(pool.map(same, range(many)))) for _ in range(rounds)])
    return found


def pin(core):
    os.sched_setaffinity(0, {core})


def latency(count, worker_core):
    with ProcessPoolExecutor(2, initializer=pin, initargs=(worker_core,)) as pool:
        for _ in range(200):
            pool.submit(same, 0).result()
        spans = []
        for index in range(count):
            begun = time.perf_counter_ns()
            assert pool.submit(same, index).result() == index
            spans.append(time.perf_counter_ns() - begun)
    spans.sort()
    return {"p50_us": spans[len(spans) // 2] / 1000, "p99_us": spans[len(spans) * 99 // 100] / 1000}


def turn_over(data):
    zlib.adler32(data)
    return bytes(len(data))


def payload(mebibytes, rounds):
    data = os.urandom(mebibytes << 20)

    def once(pool):
        zlib.adler32(pool.submit(turn_over, data).result())

    with ProcessPoolExecutor(2) as pool:
        once(pool)
        span = median([seconds(lambda: once(pool)) for _ in range(rounds)])
    return {"ppe_mib_per_s": 2 * mebibytes / span}


def bits_of(n):
    import gmpy2

    return gmpy2.fac(n).bit_length()


def bits_by_hand(n):
    import math

    return math.factorial(n).bit_length()


def gmpy2(number, count):
    inputs = [number] * count
    with Pool(2) as pool:
        assert len(set(pool.map(bits_of, inputs, 1))) == 1
        return {"gmpy2_s": seconds(lambda: pool.map(bits_of, inputs, 1))}


def factorial(rounds):
    big = [200_000] * 8
    spans = {"cpython_loop_s": [], "cpython_threads_s": [], "cpython_processes_s": []}

    def all_of(pool):
        assert len(set(pool.map(bits_by_hand, big))) == 1

    with ThreadPoolExecutor(2) as threads, get_context("fork").Pool(2) as processes:
        for _ in range(rounds):
            spans["cpython_loop_s"].append(seconds(lambda: [bits_by_hand(n) for n in big]))
            spans["cpython_threads_s"].append(seconds(lambda: all_of(threads)))
            spans["cpython_processes_s"].append(seconds(lambda: all_of(processes)))
    return {name: median(values) for name, values in spans.items()}


VERBS = {"noop": noop, "latency": latency, "payload": payload, "gmpy2": gmpy2, "factorial": factorial}

if __name__ == "__main__":
    verb, *numbers = sys.argv[1:]
    print(json.dumps(VERBS[verb](*map(int, numbers))))
