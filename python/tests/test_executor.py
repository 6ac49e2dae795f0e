"""Calls that go well, and what a caller does wrong."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import functools
import itertools
import operator
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import calls
import pytest

import bulkhead
from bulkhead import Executor


def test_it_is_an_executor_and_its_futures_are_futures(executor: Executor) -> None:
    future = executor.submit(calls.add, 1, b=2)
    assert isinstance(executor, cf.Executor) and isinstance(future, cf.Future) and isinstance(future, bulkhead.Future)
    assert future.result() == 3 and future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None


def test_many_calls_from_many_threads(executor: Executor) -> None:
    found: dict[int, list[int]] = {}

    def work(thread: int) -> None:
        futures = [executor.submit(calls.add, thread, number) for number in range(300)]
        found[thread] = [future.result(60) for future in futures]

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {thread: [thread + number for number in range(300)] for thread in range(4)}


@pytest.mark.parametrize("size", [0, 1, 3000, 4093, 4094, 4095, 4096, 4097, 10_000, 70_000, 131_072, 300_000, 1 << 20, 5 << 20])
def test_arguments_and_results_of_every_length(executor: Executor, size: int) -> None:
    value = os.urandom(size)
    assert executor.submit(calls.echo, value).result() == value
    assert executor.submit(calls.echo, size).result() == size
    assert list(executor.map(calls.echo, [value] * 3)) == [value] * 3


def test_functions_of_every_kind(executor: Executor) -> None:
    assert executor.submit(pow, 2, 10).result() == 1024
    assert executor.submit(functools.partial(calls.add, 5), 6).result() == 11
    assert executor.submit("a,b".split, ",").result() == ["a", "b"]
    assert executor.submit(operator.itemgetter(1), [1, 2]).result() == 2
    assert executor.submit(calls.NotBack, None).exception() is not None


def test_lambdas_and_closures_with_cloudpickle(executor: Executor) -> None:
    pytest.importorskip("cloudpickle")
    table = list(range(3000))
    assert executor.submit(lambda at: table[at], 7).result() == 7
    big = lambda at: table[-at]  # noqa: E731
    assert [future.result() for future in [executor.submit(big, 1) for _ in range(20)]] == [2999] * 20
    assert list(executor.map(lambda number: number * 2, range(5))) == [0, 2, 4, 6, 8]
    many = [executor.submit(lambda number=number, big=table: number + len(big)) for number in range(80)]  # type: ignore[misc]
    assert [future.result() for future in many] == [3000 + number for number in range(80)]


def test_an_exception_comes_back_with_its_traceback(executor: Executor) -> None:
    error = executor.submit(calls.raise_value_error, "wrong").exception()
    assert isinstance(error, ValueError) and error.args == ("wrong",)
    assert "in raise_value_error" in str(error.__cause__)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError("no"), OSError(2, "x")])
def test_every_exception_is_the_futures(executor: Executor, error: BaseException) -> None:
    worker = executor.submit(calls.pid).result()
    found = executor.submit(calls.raise_this, error).exception()
    assert type(found) is type(error) and found.args == error.args
    assert worker in {executor.submit(calls.pid).result() for _ in range(20)}


class TestNotPicklable:
    """What cannot travel is named, and the worker goes on."""

    def test_an_argument(self, executor: Executor) -> None:
        with pytest.raises(TypeError, match="argument 1 of calls.echo"):
            executor.submit(calls.echo, threading.Lock()).result()
        with pytest.raises(TypeError, match="argument 1 of calls.echo"):
            list(executor.map(calls.echo, [1, threading.Lock()]))

    def test_a_result(self, executor: Executor) -> None:
        worker = executor.submit(calls.lock)
        with pytest.raises(pickle.PicklingError, match="the result of type _thread.lock cannot be pickled"):
            worker.result()

    def test_a_generator(self, executor: Executor) -> None:
        with pytest.raises(pickle.PicklingError, match="type builtins.generator.* return a list instead of a generator"):
            executor.submit(calls.numbers, 3).result()

    def test_an_exception(self, executor: Executor) -> None:
        with pytest.raises(pickle.PicklingError, match=r"the exception builtins.ValueError \(it has a lock\)") as caught:
            executor.submit(calls.raise_with_lock).result()
        assert "raise_with_lock" in str(caught.value.__cause__)
        with pytest.raises(pickle.PicklingError, match=r"the exception calls.NeedsTwo \(1 2\)"):
            executor.submit(calls.raise_needs_two).result()

    def test_a_result_that_the_client_cannot_read(self, executor: Executor) -> None:
        with pytest.raises(bulkhead.ResultNotReadable, match="it does not come back"):
            executor.submit(calls.NotBack, os.getpid()).result()

    def test_a_call_that_the_worker_cannot_read(self, executor: Executor) -> None:
        with pytest.raises(bulkhead.CallNotReadable, match="it does not come back"):
            executor.submit(calls.echo, calls.NotBack(None)).result()

    def test_a_module_that_the_worker_cannot_import(self, executor: Executor, tmp_path: Path) -> None:
        (tmp_path / "only_here.py").write_text("def f(): return 1\n")
        executor.submit(calls.pid).result()
        sys.path.insert(0, str(tmp_path))
        try:
            import only_here  # type: ignore[import-not-found]

            with pytest.raises(bulkhead.CallNotReadable, match="No module named 'only_here'") as caught:
                executor.submit(only_here.f).result()
            assert f"where the program did when it made its first call: [{sys.path[1]!r}" in str(caught.value)
        finally:
            sys.path.remove(str(tmp_path))
        assert executor.submit(calls.add, 1).result() == 2


def test_errors_are_broken_pools_but_for_timeouts() -> None:
    from concurrent.futures.process import BrokenProcessPool

    for kind in (bulkhead.WorkerCrashed, bulkhead.Lost, bulkhead.InitializerFailed, bulkhead.CallNotReadable, bulkhead.ResultNotReadable):
        assert issubclass(kind, BrokenProcessPool)
    assert issubclass(bulkhead.JobTimeout, TimeoutError) and issubclass(bulkhead.JobTimeout, cf.TimeoutError)
    error = bulkhead.WorkerCrashed("text")
    error.certificate = {"job": 1}
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "text" and copy.certificate == {"job": 1} and copy.python_traceback is None


def test_arguments_of_the_executor_are_checked() -> None:
    import multiprocessing

    wrong: list[tuple[type[Exception], str, dict[str, object]]] = [
        (ValueError, "max_workers must be greater than 0", {"max_workers": 0}),
        (ValueError, "max_workers is 5000", {"max_workers": 5000}),
        (TypeError, "initializer must be a callable", {"initializer": 3}),
        (TypeError, "mp_context must be a context", {"mp_context": "spawn"}),
        (ValueError, "incompatible with the 'fork'", {"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")}),
        (ValueError, "max_tasks_per_child must be >= 1", {"max_tasks_per_child": 0}),
        (ValueError, "timeout is -1 s", {"timeout": -1}),
        (TypeError, "memory must be a whole number", {"memory": 1.5}),
        (ValueError, "memory is 5", {"memory": 5}),
        (ValueError, "retries is 300", {"retries": 300}),
        (ValueError, "cancel_grace is 61 s", {"cancel_grace": 61}),
        (ValueError, "spares is -1", {"spares": -1}),
        (TypeError, "preload must be a list", {"preload": "numpy"}),
        (ValueError, "which is no name of a module", {"preload": ["a b"]}),
        (ValueError, "daemon= and pool= are not supported", {"daemon": "system"}),
    ]
    for kind, text, arguments in wrong:
        with pytest.raises(kind, match=text):
            Executor(**arguments)  # type: ignore[arg-type]
    Executor(1, multiprocessing.get_context("fork"), None, (), spares=0).shutdown()


def test_nothing_is_started_before_the_first_call() -> None:
    from conftest import children

    before = children()
    with Executor(2):
        assert children() == before


def test_print_stdin_and_the_folder_of_a_worker(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "used.py").write_text(
        "import os, sys\n"
        "def say(): print('printed', flush=True); print('to stderr', file=sys.stderr); return sys.stdin.read()\n"
        "def change(path): os.chdir(path)\n"
        "def where(): return os.getcwd()\n"
        "def argv(): return sys.argv\n"
    )
    (tmp_path / "main.py").write_text(
        "import used, os\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1, spares=0) as executor:\n"
        "        assert executor.submit(used.say).result() == ''\n"
        "        assert executor.submit(used.where).result() == os.getcwd()\n"
        "        executor.submit(used.change, '/').result()\n"
        "        assert executor.submit(used.where).result() == '/'\n"
        "        assert executor.submit(used.argv).result()[1:] == ['a', 'b'], executor.submit(used.argv).result()\n"
    )
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), "a", "b"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=True
    )
    assert ended.stdout == "printed\n" and "to stderr" in ended.stderr


def test_options_of_the_interpreter_go_along(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "used.py").write_text("import sys\ndef f(): return sys.flags.optimize, sys.warnoptions, sys._xoptions, sys.flags.dev_mode\n")
    (tmp_path / "main.py").write_text(
        "import used\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1, spares=0) as executor: assert executor.submit(used.f).result() == used.f(), executor.submit(used.f).result()\n"
    )
    flags = ["-O", "-W", "error::ImportWarning", "-X", "importtime", "-X", "utf8"]
    subprocess.run([sys.executable, *flags, str(tmp_path / "main.py")], timeout=120, check=True, stderr=subprocess.DEVNULL)


def test_an_executor_within_a_call(executor: Executor) -> None:
    assert executor.submit(nested, 4).result() == 24


def nested(number: int) -> int:
    with Executor(1, spares=0) as inner:
        return sum(inner.map(calls.add, range(number), [number] * number)) + 2


def test_asyncio(executor: Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, calls.add, number) for number in range(50)))

    assert asyncio.run(main()) == list(range(1, 51))


def test_a_submit_in_a_signal_handler(executor: Executor) -> None:
    executor.submit(calls.pid).result()
    made: dict[int, cf.Future[int]] = {}
    numbers = itertools.count()

    def submit(*_: object) -> None:
        number = next(numbers)
        made[number] = executor.submit(calls.add, number)

    before = signal.signal(signal.SIGALRM, submit)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(made) < 100:
            futures = [executor.submit(calls.add, number) for number in range(50)]
            assert [future.result() for future in futures] == list(range(1, 51))
            assert list(executor.map(calls.add, range(200))) == list(range(1, 201))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(future.result(60) == number + 1 for number, future in made.items())


def test_warnings_as_errors_do_not_hurt() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Executor(1, spares=0) as executor:
            assert executor.submit(calls.add, 1).result() == 2


@pytest.mark.parametrize("is_chosen", [False, True])
def test_a_worker_keeps_the_memory_of_long_arguments(
    is_chosen: bool, make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the user has chosen what the C library keeps."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if is_chosen:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(128 << 10))
    executor = make(1, spares=0)
    executor.submit(calls.fresh_pages, 4).result()
    pages = executor.submit(calls.fresh_pages, 20).result()
    of_all = 20 * 4 * 256
    assert pages > of_all // 2 if is_chosen else pages < of_all // 20


def test_threads_of_numerics(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    executor = make(1, spares=0)
    assert executor.submit(os.getenv, "OMP_NUM_THREADS").result() == str(len(os.sched_getaffinity(0)))
    assert executor.submit(os.getenv, "MKL_NUM_THREADS").result() == "7"
    assert executor.submit(os.getenv, "TMPDIR").result() == os.environ.get("TMPDIR")
