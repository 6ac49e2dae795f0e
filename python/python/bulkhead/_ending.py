"""What a call becomes that has no result: from the daemon's word, its text and its certificate to an exception.

Driven by `_pool.py`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


CANCELLED: Any = object()
"""Stands for the exception of a call that was cancelled."""


def error_of_end(word: str, text: str, certificate_json: str) -> Any:
    """The exception of an end, or `CANCELLED`."""
    if word in ("cancelled", "withdrawn"):
        return CANCELLED
    from . import errors

    certificate = _parsed(certificate_json)
    stack = _stack_of(certificate)
    error: Any
    if word == "crashed":
        error = errors.WorkerCrashed(_with_stack(_crash_text(text), stack))
        error.__cause__ = _memory_error(certificate)
    elif word == "timed-out":
        error = errors.JobTimeout(_with_stack(text, stack))
    elif word in ("unread", "failed"):
        return errors.ResultNotReadable(f"the call has run, and its result could not be brought here: {text}")
    elif word == "lost":
        error = errors.Lost(f"the daemon of this executor ended before the call did, which may have run: {text}")
    else:
        error = errors.Lost(f"the daemon did not take the call, so nothing was run ({word}): {text}")
    error.certificate = certificate
    error.python_traceback = stack
    return error


def _parsed(certificate_json: str) -> dict[str, Any] | None:
    if not certificate_json:
        return None
    import json

    found: dict[str, Any] = json.loads(certificate_json)
    return found


def _last_death(certificate: dict[str, Any] | None) -> dict[str, Any]:
    deaths = (certificate or {}).get("deaths") or [{}]
    return deaths[-1]  # type: ignore[no-any-return]


def _stack_of(certificate: dict[str, Any] | None) -> str | None:
    """The Python stack that the worker wrote before it died."""
    death = _last_death(certificate)
    evidence = death.get("evidence") or {}
    found = evidence.get("stack_text") or death.get("stack_text")
    return found or None


def _crash_text(text: str) -> str:
    return text.removesuffix("; quarantined").replace("crashed: killed 1 worker, by ", "the call killed its worker: ", 1)


def _with_stack(text: str, stack: str | None) -> str:
    return f"{text}\n{stack.rstrip()}" if stack else text


def _memory_error(certificate: dict[str, Any] | None) -> MemoryError | None:
    """The cause of a kill by a limit of memory, so that code which looks for `MemoryError` finds it."""
    death = str(_last_death(certificate))
    if "limit_bytes" not in death and "allocation-failed" not in death:
        return None
    return MemoryError("the call went beyond its limit of memory")


def again(error: Any) -> Any:
    """The same error for another call: each future has an exception of its own."""
    made = type(error)(str(error))
    made.__cause__ = error.__cause__
    return made
