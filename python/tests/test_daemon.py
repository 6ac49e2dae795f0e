"""The private daemon: it ends with its program, leaves nothing, can be lost, and says in words why it does not start."""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import calls
import pytest
from conftest import is_alive, wait_until, written

import bulkhead
from bulkhead import Executor, _folder, _link, _private
from bulkhead._earlier_modules import EarlierModules


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for folders of daemons that nobody else uses."""
    made = Path("/tmp") / f"bh{os.urandom(3).hex()}"
    made.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def folders(place: Path) -> list[str]:
    return [name for name in os.listdir(place) if name.startswith("bulkhead-py-")]


def processes_of(folder: str) -> list[int]:
    """The processes whose command line names this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if folder.encode() in (entry / "cmdline").read_bytes() and is_alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def start_program(place: Path, folder: Path, body: str) -> subprocess.Popen[bytes]:
    (folder / "main.py").write_text(
        "import os, time, calls\nfrom bulkhead import Executor\n"
        "if __name__ == '__main__':\n"
        "    executor = Executor(2)\n" + body
    )
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(folder / "main.py")], env={**os.environ, "PYTHONPATH": path, "XDG_RUNTIME_DIR": str(place)}
    )


def test_its_folder_goes_with_it(place: Path) -> None:
    with Executor(1) as executor:
        executor.submit(calls.add, 1).result()
        assert len(folders(place)) == 1
    assert folders(place) == []


def test_it_ends_with_a_program_that_is_killed(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = start_program(place, tmp_path, f"    executor.submit(calls.sleep_holding_the_gil, 1000, {str(path)!r}).result()\n")
    worker, child = map(int, written(path, "it runs").split())
    assert len(processes_of(str(place))) >= 3
    program.kill()
    program.wait()
    wait_until(lambda: not processes_of(str(place)) and not is_alive(worker) and not is_alive(child), "all processes are gone")
    wait_until(lambda: folders(place) == [], "the folder is gone")


def test_a_forked_child_does_not_hold_it(place: Path, tmp_path: Path) -> None:
    path, child_path = tmp_path / "pid", tmp_path / "child"
    program = start_program(
        place,
        tmp_path,
        f"    future = executor.submit(calls.sleep, 1000, {str(path)!r})\n"
        f"    calls.wait_for({str(path)!r})\n"
        "    if os.fork() == 0:\n"
        f"        open({str(child_path)!r}, 'w').write(str(os.getpid()))\n"
        "        time.sleep(1000)\n"
        "    time.sleep(1000)\n",
    )
    child = int(written(child_path, "it has forked"))
    try:
        worker = int(wait_until(path.read_text, "the call has begun"))
        program.kill()
        program.wait()
        wait_until(lambda: not is_alive(worker), "the worker is gone")
        wait_until(lambda: folders(place) == [], "the folder is gone")
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_program_and_its_daemon_are_killed(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = start_program(place, tmp_path, f"    executor.submit(calls.sleep, 1000, {str(path)!r}).result()\n")
    worker = int(written(path, "it runs"))
    daemon = next(pid for pid in processes_of(str(place)) if b"bulkhead-supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(program.pid, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    program.kill()
    program.wait()
    wait_until(lambda: not is_alive(worker), "the worker is gone")
    assert len(folders(place)) == 1
    with Executor(1, spares=0) as executor:
        executor.submit(calls.add, 1).result()
        assert len(folders(place)) == 1
    assert folders(place) == []


def test_a_daemon_that_is_lost(place: Path, make: Callable[..., Executor], tmp_path: Path) -> None:
    path, executor = tmp_path / "pid", make(2)
    futures = [executor.submit(calls.sleep, 1000, str(path)), *[executor.submit(calls.sleep, 1000) for _ in range(50)]]
    found = executor.map(calls.add, range(3))
    worker = int(written(path, "it runs"))
    assert executor._pool._link is not None
    os.kill(executor._pool._link.daemon.pid, signal.SIGKILL)
    for future in futures:
        assert isinstance(future.exception(60), bulkhead.Lost)
    # None of its items had begun.
    assert list(found) == [1, 2, 3]
    wait_until(lambda: not is_alive(worker), "the worker is gone")
    assert executor.submit(calls.add, 1).result(60) == 2
    assert list(executor.map(calls.add, range(3))) == [1, 2, 3]
    executor.shutdown()
    # A worker that was just being started may have made its folder again: the next start removes it.
    with Executor(1, spares=0) as other:
        other.submit(calls.add, 1).result()
    assert folders(place) == []


def test_a_daemon_that_is_lost_between_calls(make: Callable[..., Executor]) -> None:
    executor = make(1)
    for number in range(3):
        try:
            assert executor.submit(calls.add, number).result(60) == number + 1
        except bulkhead.Lost:
            assert executor.submit(calls.add, number).result(60) == number + 1
        assert executor._pool._link is not None
        os.kill(executor._pool._link.daemon.pid, signal.SIGKILL)


class TestItCannotStart:
    """The text says why, and what to do."""

    def test_no_place_has_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_private, "places", lambda: ["/proc/self", "/sys"])
        with pytest.raises(bulkhead.CannotStart, match="no place has room .*/proc/self: .*/sys: .*set TMPDIR"):
            Executor(1).submit(calls.add, 1)

    def test_its_program_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_private, "supervisor_path", lambda: "/nowhere/bulkhead-supervisor")
        with pytest.raises(bulkhead.CannotStart, match="/nowhere/bulkhead-supervisor is not there: .*force-reinstall"):
            Executor(1).submit(calls.add, 1)

    @pytest.mark.parametrize(
        ("content", "mode", "text"),
        [
            (b"\x7fELF\1\1\1" + bytes(60), 0o755, "cannot be run on this machine"),
            (b"#!/nowhere/sh\n", 0o755, "cannot be run on this machine"),
            (b"#!/bin/sh\n", 0o644, "may not be executed"),
            (b"#!/bin/sh\nexit 127\n", 0o755, "a library is missing, or the C library is too old"),
            (b"#!/bin/sh\necho 'failed 28 no space for the lock'\n", 0o755, "did not start: no space for the lock"),
            (b"#!/bin/sh\nkill -9 $$\n", 0o755, "ended by signal 9 before it took calls: set BULKHEAD_LOG=debug"),
        ],
    )
    def test_its_program_does_not_run(
        self, content: bytes, mode: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path
    ) -> None:
        program = tmp_path / "bulkhead-supervisor"
        program.write_bytes(content)
        program.chmod(mode)
        monkeypatch.setattr(_private, "supervisor_path", lambda: str(program))
        with pytest.raises(bulkhead.CannotStart, match=text):
            Executor(1).submit(calls.add, 1)
        assert folders(place) == []

    @pytest.mark.parametrize("step", ["Popen", "Session", "pipe"])
    @pytest.mark.parametrize(
        ("code", "text"),
        [
            (errno.EAGAIN, "no further process or thread .RLIMIT_NPROC is .*: raise it .ulimit -u"),
            (errno.EMFILE, "no descriptor left .RLIMIT_NOFILE is .*: raise it .ulimit -n"),
            (errno.ENFILE, "this machine has no descriptor left"),
            (errno.ENOMEM, "no memory left .RLIMIT_AS is .*: raise it .ulimit -v"),
            (errno.ENOSPC, "no room left: make some, or set TMPDIR"),
        ],
    )
    def test_a_limit_is_met(self, step: str, code: int, text: str, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        def refuse(*_: Any, **__: Any) -> Any:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched:
            patched.setattr({"Popen": _private.subprocess, "Session": _link, "pipe": _private.os}[step], step, refuse)  # type: ignore[attr-defined]
            with pytest.raises(bulkhead.CannotStart, match=text):
                Executor(1).submit(calls.add, 1)
        assert folders(place) == []

    def test_the_limit_of_open_files_is_met_anywhere(self, place: Path, tmp_path: Path) -> None:
        """Each start has one descriptor more than the one before, until one succeeds."""
        program = start_program(
            place,
            tmp_path,
            "    import resource, bulkhead, bulkhead._link, bulkhead.errors\n"
            "    for spare in range(200):\n"
            "        held = [os.open('/dev/null', 0)]\n"
            "        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1 + spare, 4096))\n"
            "        try:\n"
            "            executor.submit(calls.add, 1)\n"
            "            break\n"
            "        except bulkhead.CannotStart as error:\n"
            "            assert 'RLIMIT_NOFILE' in str(error) or 'open files' in str(error), error\n"
            "        finally:\n"
            "            os.close(held[0])\n"
            "            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))\n"
            "    assert spare > 2\n"
            "    assert executor.submit(calls.add, 1).result(60) == 2\n",
        )
        assert program.wait(120) == 0
        assert folders(place) == []

    def test_no_interpreter_is_known(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)
        monkeypatch.setattr(sys, "executable", "")
        with pytest.raises(bulkhead.CannotStart, match="does not know its interpreter"):
            Executor(1).submit(calls.add, 1)
        assert folders(place) == []


@pytest.mark.filterwarnings("ignore")
def test_workers_that_do_not_start_are_told(make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    executor, working = make(2), sys.executable
    monkeypatch.setattr(_private, "_worker_program", lambda: "/bin/false")
    futures = [executor.submit(calls.add, number) for number in range(3)]
    for future in futures:
        with pytest.raises(bulkhead.CannotStart, match="workers of this executor do not start .*exit code 1.*import bulkhead.worker"):
            future.result(60)
    monkeypatch.setattr(_private, "_worker_program", lambda: working)
    wait_until(lambda: executor._pool._link is None, "the daemon is given up")
    assert executor.submit(calls.add, 1).result(60) == 2


def die_until_nothing_runs(executor: Executor) -> list[Any]:
    """Kills workers until a call is not begun any more; the futures."""
    futures = [executor.submit(calls.die, "exit") for _ in range(5)]
    futures.append(executor.submit(calls.add, 1))
    return futures


def test_workers_that_do_not_start_any_more_are_told(make: Callable[..., Executor], place: Path) -> None:
    executor = make(1)
    assert executor.submit(calls.add, 1).result(60) == 2
    # Without it a new worker ends at once.
    os.unlink(place / folders(place)[0] / "preparation")
    futures = die_until_nothing_runs(executor)
    with pytest.raises(bulkhead.CannotStart, match="workers of this executor do not start .*in a row did not come up"):
        futures[-1].result(60)
    assert executor.submit(calls.add, 1).result(60) == 2


def test_the_first_call_is_submitted_before_a_worker_is_up(
    make: Callable[..., Executor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate, program = tmp_path / "gate", tmp_path / "interpreter"
    program.write_text(f"#!/bin/sh\nwhile [ ! -e {gate} ]; do sleep 0.01; done\nexec {sys.executable} \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setattr(_private, "_worker_program", lambda: str(program))
    executor = make(1)
    future = executor.submit(calls.add, 1)
    assert {row["state"] for row in executor._pool.workers()} == {"starting"} and not future.done()
    link = executor._pool._link
    assert link is not None
    # A worker that starts imports none of the calls' modules, because its start has a time limit.
    second = executor.submit(calls.add, 2)
    modules = Path(link.daemon.folder.path) / "modules"
    assert not modules.exists()
    gate.touch()
    assert (future.result(60), second.result(60)) == (2, 3)
    assert "calls" in modules.read_text().split()


def test_workers_that_do_not_start_any_more_while_one_runs(make: Callable[..., Executor], place: Path, tmp_path: Path) -> None:
    executor, gate = make(2), str(tmp_path / "gate")
    held = executor.submit(calls.wait_for, gate)
    wait_until(held.running, "it runs")
    link = executor._pool._link
    assert link is not None

    def are_up() -> bool:
        states = [row["state"] for row in executor._pool.workers()]
        return len(states) == 3 and "starting" not in states

    wait_until(are_up, "both workers and the spare are up")
    os.unlink(place / folders(place)[0] / "preparation")
    for _ in range(2):
        assert isinstance(executor.submit(calls.die, "exit").exception(60), bulkhead.WorkerCrashed)
    wait_until(lambda: json.loads(link.session.status())["health"] == "degraded", "it is degraded")
    last, waiting = executor.submit(calls.die, "exit"), executor.submit(calls.add, 1)
    Path(gate).touch()
    assert held.result(60) == gate
    assert isinstance(last.exception(60), bulkhead.WorkerCrashed)
    with pytest.raises(bulkhead.CannotStart):
        waiting.result(60)
    assert executor.submit(calls.add, 1).result(60) == 2


@pytest.mark.parametrize("how", ["os._exit(9)", "time.sleep(1000)"])
def test_a_module_that_ends_or_stops_its_worker_hurts_its_own_calls(
    make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    name = f"killer{os.urandom(3).hex()}"
    (tmp_path / f"{name}.py").write_text(
        f"import os, sys, time\nif 'bulkhead.worker' in sys.modules: {how}\ndef call(): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    executor = make(2)
    limited = executor.options(timeout=2)
    for number in range(4):
        found = limited.submit(module.call).exception(60)
        assert isinstance(found, (bulkhead.WorkerCrashed, bulkhead.JobTimeout)), found
        assert executor.submit(calls.add, number).result(60) == number + 1


def test_earlier_modules(tmp_path: Path) -> None:
    earlier = EarlierModules(str(tmp_path / "modules"))
    loaded: list[str] = []
    earlier.import_all(loaded.append)
    earlier.note(["one", "two"])
    earlier.note(["three"], "+")
    earlier.import_all(loaded.append)
    assert sorted(loaded) == ["one", "three", "two"]
    loaded.clear()
    # Its worker has ended there.
    earlier.note(["bad"])
    earlier.note(["bad"], "?")
    earlier.import_all(loaded.append)
    assert sorted(loaded) == ["one", "three", "two"]
    # A call has imported it since.
    earlier.note(["bad"], "+")
    earlier.import_all(loaded.append)
    assert "bad" in loaded


def test_a_start_that_fails_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_private, "_worker_outputs", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Executor(1).submit(calls.add, 1)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setattr(_folder.OwnFolder, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Executor(1).submit(calls.add, 1)
    assert folders(place) == [] and len(os.listdir("/proc/self/fd")) <= before


def test_a_working_folder_that_was_removed(place: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = os.getcwd()
    os.chdir(gone)
    try:
        gone.rmdir()
        with Executor(1, spares=0) as executor:
            assert executor.submit(calls.add, 1).result(60) == 2
    finally:
        os.chdir(before)
    assert folders(place) == []


def test_the_end_waits_for_a_grace(make: Callable[..., Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_private, "STOP_TIMEOUT", 0.2)
    monkeypatch.setattr(_link, "STOP_TIMEOUT", 0.2)
    path, executor = tmp_path / "said", make(1, cancel_grace=30)
    future = executor.submit(calls.end_slowly, str(path), 1.0)
    written(path, "it runs")
    future.cancel()
    executor.shutdown()
    assert path.read_text() == "ended by itself"


def test_more_open_files_than_the_daemon_needs_do_not_reach_it(place: Path, tmp_path: Path) -> None:
    held = os.open(tmp_path / "held", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(held, True)
    with Executor(1, spares=0) as executor:
        assert executor.submit(calls.add, 1).result() == 2
        for pid in processes_of(str(place)):
            open_files = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.exists()]
            assert str(tmp_path / "held") not in open_files
    os.close(held)


def test_an_unusual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    assert _folder.places()[0] == "/dev/shm"
    with Executor(1, spares=0) as executor:
        assert executor.submit(calls.add, 1).result() == 2
