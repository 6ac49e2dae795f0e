"""Bulkhead's executor beside ProcessPoolExecutor, and other pools where they are installed: `cargo xtask bench python`.

Each figure is a ratio inside one run: the pools take turns, each in a process of its own, and of `TURNS` turns the middle ratio counts,
which is not the ratio of the two middle figures that are printed above it. So a noisy machine moves both. An aim is printed beside its figure; a figure that misses it is marked, and nothing fails: the machine
decides the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

FOLDER = os.path.dirname(os.path.abspath(__file__))
TURNS = 5
TIMES_OF = {"start": 5}
"""A start is one time of some tens of milliseconds and no mean of many: so many times as many turns."""
DEADLINE_S = 300


class Ratio(NamedTuple):
    """A ratio of Bulkhead to a peer."""

    key: str
    verb: str
    figure: str
    peer: str
    aim: float
    is_faster: bool
    """Whether the figure is a rate: more is better, and the aim is a least one. A time: ours by theirs, at most the aim."""


RATIOS = (
    Ratio("python_submit_ratio", "rates", "submit", "fork", 14, True),
    Ratio("python_map1_ratio", "rates", "map1", "fork", 18, True),
    Ratio("python_map100_ratio", "rates", "map100", "fork", 2, True),
    Ratio("python_latency_ratio", "latency", "latency_us", "fork", 0.55, False),
    Ratio("python_8k_ratio", "sizes", "8k", "fork", 4, True),
    Ratio("python_64k_ratio", "sizes", "64k", "fork", 2, True),
    Ratio("python_1m_ratio", "sizes", "1m", "fork", 1.3, True),
    Ratio("python_numpy64m_ratio", "numpy64m", "numpy64m_ms", "fork", 5, True),
    Ratio("python_first_result_ratio_spawn", "start", "first_result_ms", "spawn", 1.05, False),
    Ratio("python_pss_ratio_spawn", "memory", "pss_mib", "spawn", 1.3, False),
)

ALONE = (
    ("python_kill_to_error_ms", "kill", "kill_to_error_ms", 5.0),
    ("python_kill_to_next_call_ms", "kill", "kill_to_next_call_ms", 5.0),
    ("python_cancel_ms", "cancel", "cancel_ms", 20.0),
)

OTHERS = ("loky", "pebble", "mp.Pool")
"""Pools whose figures are shown without an aim, in one turn."""


def measure(pool: str, verb: str) -> dict[str, float] | str:
    """The figures of one pool, or why there are none."""
    command = [sys.executable, os.path.join(FOLDER, "measure.py"), pool, verb]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        return f"it has not ended after {DEADLINE_S} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"it ended with {done.returncode}"
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


class Report:
    """Prints figures as they come and keeps them."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def add(self, key: str, value: float, aim: float | None, is_least: bool) -> None:
        """Adds a figure."""
        self.figures[key] = value
        line = f"  {key:<36} {value:>12.3f}"
        if aim is not None:
            is_met = value >= aim if is_least else value <= aim
            line += f"   {'>=' if is_least else '<='} {aim:g}{'' if is_met else '   MISSED'}"
        print(line, flush=True)

    def note(self, text: str) -> None:
        """Says what is left out."""
        print(f"  {text}", flush=True)


def compare(report: Report, verb: str, turns: int) -> None:
    """All ratios of one verb."""
    ratios = [ratio for ratio in RATIOS if ratio.verb == verb]
    peers = sorted({ratio.peer for ratio in ratios})
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in ("bulkhead", *peers)}
    for _ in range(turns * TIMES_OF.get(verb, 1)):
        for name, rows in seen.items():
            found = measure(name, verb)
            if isinstance(found, str):
                report.note(f"{verb}: no figures of {name}: {found}")
                return
            rows.append(found)
    for ratio in ratios:
        pairs = list(zip(seen["bulkhead"], seen[ratio.peer]))
        is_time = ratio.figure.endswith(("_ms", "_us", "_mib"))
        swap = ratio.is_faster and is_time
        values = [theirs[ratio.figure] / ours[ratio.figure] if swap else ours[ratio.figure] / theirs[ratio.figure] for ours, theirs in pairs]
        for name in ("bulkhead", ratio.peer):
            middle = statistics.median(row[ratio.figure] for row in seen[name])
            report.add(f"python_{ratio.figure}_{name}", middle, None, True)
        report.add(ratio.key, statistics.median(values), ratio.aim, ratio.is_faster)


def compare_imports(report: Report, turns: int) -> None:
    """The import of the executor, in fresh processes by turns."""
    statements = ("from bulkhead import Executor", "from concurrent.futures import ProcessPoolExecutor")
    ratios = []
    for _ in range(turns * 4):
        spans = []
        for statement in statements:
            code = f"import time; begun = time.perf_counter(); {statement}; print(time.perf_counter() - begun)"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            spans.append(float(done.stdout))
        ratios.append(spans[0] / spans[1])
    report.add("python_import_ratio", statistics.median(ratios), 0.75, False)


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = [*dict.fromkeys(ratio.verb for ratio in RATIOS), "kill", "cancel", "import"]
    parser.add_argument("verbs", nargs="*", help=f"what to measure, by default all: {', '.join(verbs)}")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"turns of each pool ({TURNS})")
    parser.add_argument("--others", action="store_true", help=f"one turn of {', '.join(OTHERS)} too")
    parser.add_argument("--json", metavar="FILE", help="also writes the figures there")
    arguments = parser.parse_args()
    chosen = arguments.verbs or verbs
    unknown = [verb for verb in chosen if verb not in verbs]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(verbs)}")
    print(f"machine: {os.cpu_count()} cores; load before the run {os.getloadavg()[0]:.2f}; Python {sys.version.split()[0]}; medians of {arguments.turns} turns")
    report = Report()
    for verb in chosen:
        print(f"\n{verb}")
        if verb == "import":
            compare_imports(report, arguments.turns)
        elif verb in ("kill", "cancel"):
            found = measure("bulkhead", verb)
            if isinstance(found, str):
                report.note(f"{verb}: {found}")
                continue
            for key, of, figure, aim in ALONE:
                if of == verb:
                    report.add(key, found[figure], aim, False)
        else:
            compare(report, verb, arguments.turns)
            for name in OTHERS if arguments.others else ():
                found = measure(name, verb)
                if isinstance(found, str):
                    report.note(f"{verb}: no figures of {name}: {found}")
                else:
                    for figure, value in found.items():
                        report.add(f"python_{figure}_{name}", value, None, True)
    if arguments.json:
        folder = os.path.dirname(os.path.abspath(arguments.json))
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            json.dump(report.figures, file, indent=1)
        os.replace(file.name, arguments.json)


if __name__ == "__main__":
    main()
