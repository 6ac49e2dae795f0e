#!/usr/bin/env python3
"""Turns full traces from before the types of the protocol got names of their own into those from after it, byte for byte.

usage: bulkhead-sim --seeds 0..300 --trace | protocol_words.py

Texts in quotes stay as they are, but for "lie (...)", which reads "protocol violation (...)". The report at the end of each
seed is left out on both sides: its hash is that of the lines.
"""
import re
import sys

# Outside of quotes: the name, what must stand behind it, the new name.
NAMES = [
    (r"\bLimits(?= \{ timeout_ms: (?:None|Some\(\d+\)), timeout_left_ms)", "RunningLimits"),
    (r"\bLimits(?= \{ timeout_ms: Bound)", "KindLimits"),
    (r"\bProgram(?= \{ path)", "ProgramFile"),
    (r"\bSeen(?= \{ pid)", "ProcessSeen"),
    (r"\bSeen(?= \{ name)", "PlannedFile"),
    (r"\bBefore(?= \{ same_client)", "QueuedBefore"),
    (r"\bDrain(?= \{ left_ms)", "DrainLeft"),
    (r"\bEnd(?= \{ how)", "WhyEnded"),
    (r"\bFailure(?= \{ attempt)", "LastFailure"),
    (r"\bPool(?= \{ name)", "WhyPool"),
    # The struct stands in a list; the variants of the same name stand behind "reply: " or "what: ".
    (r"(?<=\[)Ended(?= \{ job)", "JobEnded"),
    (r"(?<=\}, )Ended(?= \{ job)", "JobEnded"),
    (r"\bProgress(?= \{ done)", "TaskProgress"),
    (r"\bLie(?= \{ lie: )", "Violation"),
    (r"\bLied(?= \{ worker: )", "Violated"),
    (r"\blie(?=: )", "violation"),
    (r"\blies(?=: )", "violations"),
    (r"\bLying\b", "Hostile"),
]
PATTERNS = [(re.compile(pattern), name) for pattern, name in NAMES]
QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")')
TEXT = re.compile(r"\blie \((?=[a-z])")


def outside(part):
    for pattern, name in PATTERNS:
        part = pattern.sub(name, part)
    return part


def main():
    for line in sys.stdin:
        if line.startswith(("Report ", "RunReport ")):
            continue
        parts = QUOTED.split(line)
        texts = (TEXT.sub("protocol violation (", part) if at % 2 else outside(part) for at, part in enumerate(parts))
        sys.stdout.write("".join(texts))


main()
