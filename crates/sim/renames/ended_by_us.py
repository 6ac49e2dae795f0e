#!/usr/bin/env python3
"""Turns full traces from before the shell told only "by us" of a kill into those from after it, byte for byte.

usage: bulkhead-sim --seeds 0..300 --trace | ended_by_us.py

An event `Died` had the reason of a kill, and whether the worker had been asked to leave; the core knows both. The report at
the end of each seed is left out on both sides: its hash is that of the lines.
"""
import re
import sys

DIED = re.compile(r"(\bevent +Died \{ worker: WorkerId\(\d+\), )death: (.*?)(, evidence: Evidence \{)")


def end(match):
    death = match[2]
    if death.startswith("Killed {"):
        how = "ByUs"
    elif death == "Retired":
        how = "Itself(Exited { code: 0 })"
    else:
        how = f"Itself({death})"
    return f"{match[1]}end: {how}{match[3]}"


def main():
    for line in sys.stdin:
        if not line.startswith(("Report ", "RunReport ")):
            sys.stdout.write(DIED.sub(end, line))


main()
