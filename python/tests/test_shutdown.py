"""The end of an executor: in order, at once, at the end of the program, and by the garbage collector."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import calls
import pytest
from conftest import children, is_alive, wait_until, written

import bulkhead
from bulkhead import Executor


def run_script(folder: Path, text: str, *, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a main module with the modules of the tests beside it."""
    (folder / "main.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, str(folder / "main.py")], capture_output=True, text=True, timeout=120, check=check, env=environment, **options
    )


def test_it_waits_for_all_calls(make: Callable[..., Executor]) -> None:
    executor = make(2)
    futures = [executor.submit(calls.sleep, 0.05) for _ in range(10)]
    executor.shutdown()
    assert all(future.done() for future in futures) and futures[0].result() == 0.05
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(calls.add, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(calls.add, [1])


def test_without_wait_the_calls_go_on(make: Callable[..., Executor]) -> None:
    executor = make(2)
    futures = [executor.submit(calls.sleep, 0.2) for _ in range(4)]
    executor.shutdown(wait=False)
    assert [future.result(60) for future in futures] == [0.2] * 4
    wait_until(lambda: executor._pool._link is None, "the daemon is gone")


def test_cancel_futures_leaves_what_runs(make: Callable[..., Executor], tmp_path: Path) -> None:
    executor, gate = make(1), str(tmp_path / "gate")
    held = executor.submit(calls.wait_for, gate)
    wait_until(held.running, "it runs")
    waiting = [executor.submit(calls.add, number) for number in range(100)]
    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: all(future.done() for future in waiting), "the waiting are cancelled")
    assert all(future.cancelled() for future in waiting) and not held.done()
    Path(gate).touch()
    assert held.result(60) == gate


def test_cancel_futures_leaves_the_oldest_calls_though_nothing_has_begun(make: Callable[..., Executor]) -> None:
    executor = make(2)
    futures = [executor.submit(calls.add, number) for number in range(100)]
    executor.shutdown(cancel_futures=True)
    assert not any(future.cancelled() for future in futures[:2])
    assert all(future.done() for future in futures)


@pytest.mark.parametrize("way", ["kill_workers", "terminate_workers"])
def test_workers_are_ended_at_once(make: Callable[..., Executor], tmp_path: Path, way: str) -> None:
    executor, path = make(1), tmp_path / "pid"
    running, waiting = executor.submit(calls.sleep, 1000, str(path)), executor.submit(calls.add, 1)
    pid = int(written(path, "it runs"))
    getattr(executor, way)()
    for future in (running, waiting):
        assert isinstance(future.exception(60), bulkhead.Lost)
    wait_until(lambda: not is_alive(pid), "the worker is gone")
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(calls.add, 1)
    Executor(1).kill_workers()


def test_the_garbage_collector_ends_it() -> None:
    before = children()
    executor = Executor(1)
    future = executor.submit(calls.add, 1)
    del executor
    gc.collect()
    assert future.result(60) == 2
    wait_until(lambda: set(children()) <= set(before), "the daemon is gone")


def test_the_end_of_the_program_waits_for_its_calls(tmp_path: Path) -> None:
    ended = run_script(
        tmp_path,
        "import calls\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    executor = Executor(2)\n"
        f"    futures = [executor.submit(calls.note_and_return, {str(tmp_path / 'runs')!r}, n) for n in range(20)]\n",
    )
    assert sorted(map(int, (tmp_path / "runs").read_text().split())) == list(range(20)) and ended.stderr == ""


def test_a_submit_at_the_end_of_the_program_is_refused(tmp_path: Path) -> None:
    ended = run_script(
        tmp_path,
        "import atexit, calls\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    executor = Executor(1)\n"
        "    def late():\n"
        "        try: executor.submit(calls.add, 1)\n"
        "        except RuntimeError as error: print(error)\n"
        "    atexit.register(late)\n"
        "    executor.submit(calls.add, 1).result()\n",
    )
    assert "cannot schedule new futures after" in ended.stdout and ended.stderr == ""


def test_an_exit_in_the_midst_of_a_call(tmp_path: Path) -> None:
    ended = run_script(
        tmp_path,
        "import sys, calls\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1) as executor:\n"
        "        executor.submit(calls.sleep, 0.2)\n"
        "        sys.exit(3)\n",
        check=False,
    )
    assert ended.returncode == 3 and ended.stderr == ""


def test_ctrl_c_ends_a_program_and_leaves_nothing(tmp_path: Path) -> None:
    import signal

    path = tmp_path / "pid"
    (tmp_path / "main.py").write_text(
        "import calls\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    executor = Executor(1)\n"
        "    try:\n"
        f"        executor.submit(calls.sleep, 1000, {str(path)!r}).result()\n"
        "    except KeyboardInterrupt:\n"
        "        executor.kill_workers()\n"
        "        raise\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")], env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    worker = int(written(path, "it runs"))
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in words and time.monotonic() - begun < 30
    wait_until(lambda: not is_alive(worker), "the worker is gone")


def test_ctrl_c_at_a_terminal_reaches_the_program_alone(tmp_path: Path) -> None:
    """The terminal itself sends SIGINT, to each process of its foreground group."""
    import pty

    begun, gate, hit = tmp_path / "begun", tmp_path / "gate", tmp_path / "hit"
    (tmp_path / "main.py").write_text(
        "import calls, fcntl, os, pathlib, termios\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "    executor = Executor(1)\n"
        f"    future = executor.submit(calls.note_interrupts, {str(begun)!r}, {str(gate)!r}, {str(hit)!r})\n"
        "    try:\n"
        "        future.result()\n"
        "    except KeyboardInterrupt:\n"
        f"        pathlib.Path({str(gate)!r}).touch()\n"
        "        print('interrupted, then', future.result(), executor.submit(calls.add, 41).result(), flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    terminal, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        env=environment,
        start_new_session=True,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        os.close(slave)
        wait_until(begun.exists, "it runs")
        os.write(terminal, b"\x03")
        words, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert words == "interrupted, then ended 42\n"
    assert not hit.exists(), "the worker has had the signal"


def test_futures_outlive_their_executor(make: Callable[..., Executor]) -> None:
    executor = make(2)
    futures = [executor.submit(calls.add, number) for number in range(50)]
    executor.shutdown()
    assert [future.result() for future in cf.as_completed(futures)] and not any(future.cancel() for future in futures)
    assert not futures[0].running() and futures[0].progress() is None


def test_workers_leave_in_order(tmp_path: Path) -> None:
    path = tmp_path / "left"
    (tmp_path / "used.py").write_text(
        f"import atexit\ndef register(): atexit.register(lambda: open({str(path)!r}, 'a').write('left\\n'))\n"
    )
    run_script(
        tmp_path,
        "import used\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    with Executor(1, spares=0) as executor: executor.submit(used.register).result()\n",
    )
    assert path.read_text() == "left\n"
