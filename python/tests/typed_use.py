"""Read by mypy in `test_types.py`, and never run: each line that reveals a type has it in a comment."""

from __future__ import annotations

from bulkhead import Executor, JobTimeout, cancelled


def scale(text: str, *, times: int = 1) -> list[float]:
    return [float(text)] * times


with Executor(2, timeout=3.5) as executor:
    future = executor.submit(scale, "4", times=2)
    reveal_type(future)  # Future[list[float]]
    reveal_type(future.result())  # list[float]
    reveal_type(executor.map(scale, ["1"]))  # Iterator[list[float]]
    reveal_type(executor.options(memory=1 << 30).submit(scale, "1").result(2))  # list[float]
    reveal_type(future.progress())  # tuple[int, int] | None
    reveal_type(JobTimeout("x").python_traceback)  # str | None
    reveal_type(cancelled())  # bool
    executor.submit(scale, 4)  # error: Argument 2 to "submit" of "_Calls" has incompatible type "int"; expected "str"
    executor.submit(scale, "4", time=2)  # error: Unexpected keyword argument "time" for "submit" of "_Calls"; did you mean "times"?
