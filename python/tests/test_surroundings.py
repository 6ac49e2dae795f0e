"""Machines and programs that lack something: containers, read-only disks, users without rights, closed descriptors, small limits.

Each outcome stands in the table "Where it runs" of the manual. Programs run with `-c`, so they need no file. Those that need mounts of
their own, or another user, run as root only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bulkhead

TESTS = os.path.dirname(os.path.abspath(__file__))
UID = 54321
"""A user that no file of the system knows."""

WORKS = """
import calls, sys
from bulkhead import Executor
with Executor(2) as executor:
    assert list(executor.map(calls.add, range(20))) == list(range(1, 21))
    assert executor.submit(calls.echo, bytearray(100 << 20)).result() == bytearray(100 << 20)
    assert isinstance(executor.submit(calls.die, "segfault").exception(), Exception)
    assert executor.submit(calls.add, 1).result() == 2
print("it works")
"""

IS_REFUSED = """
import calls, sys
from bulkhead import CannotStart, Executor
try:
    Executor(2).submit(calls.add, 1).result(60)
except CannotStart as error:
    print("cannot start:", error)
"""


def environment(**variables: str) -> dict[str, str]:
    """That of a program: no place for its folder is named, and the tests' modules can be imported."""
    found = {name: value for name, value in os.environ.items() if name not in ("TMPDIR", "XDG_RUNTIME_DIR", "HOME")}
    return {**found, "PYTHONPATH": TESTS, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def run(code: str, *before: str, **variables: str) -> str:
    """What a program prints that is started by the words `before`; it has to end in order."""
    ended = subprocess.run(
        [*before, sys.executable, "-c", code], env=environment(**variables), capture_output=True, text=True, timeout=180
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def shell(script: str) -> list[str]:
    """Words that run a script of the shell before a program."""
    return ["/bin/sh", "-ec", f'{script}; exec "$@"', "sh"]


def mounts(script: str) -> list[str]:
    """The same with mounts that nobody else sees."""
    words = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0 or shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("only root can mount, with unshare of util-linux")
    return [*words, *shell(script)]


def other_user() -> list[str]:
    """Words that run a program as a user without a name. It may read all files, because interpreters lie in homes."""
    capability = "+dac_read_search"
    words = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", f"--inh-caps={capability}", f"--ambient-caps={capability}"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None or subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("only root can become another user, with setpriv of util-linux")
    return words


READ_ONLY = "for place in / /tmp /var/tmp /dev/shm /run; do mount --bind $place $place; mount -o remount,bind,ro $place; done"


class TestPlaces:
    """The folder of the daemon lies in the first place that has room; large values lie in none."""

    @pytest.mark.parametrize("size", ["64k", "64m"])
    def test_a_small_shared_memory(self, size: str) -> None:
        small = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
        assert run(WORKS, *mounts(small)) == "it works\n"

    def test_a_small_shared_memory_is_the_only_place(self) -> None:
        small = f"{READ_ONLY}; mount -t tmpfs -o size=64m tmpfs /dev/shm"
        assert run(WORKS, *mounts(small)) == "it works\n"

    def test_a_full_shared_memory(self) -> None:
        full = "mount -t tmpfs -o size=64k tmpfs /dev/shm; dd if=/dev/zero of=/dev/shm/full bs=64k 2>/dev/null || true"
        assert run(WORKS, *mounts(full), TMPDIR="/dev/shm") == "it works\n"

    def test_all_is_read_only(self) -> None:
        text = run(IS_REFUSED, *mounts(READ_ONLY))
        assert text.startswith("cannot start: no place has room for the folder of the daemon (/tmp: Read-only file system;"), text
        assert "set TMPDIR to a folder that you may write to" in text

    def test_all_is_read_only_but_for_the_named_place(self) -> None:
        assert run(WORKS, *mounts(f"{READ_ONLY}; mount -t tmpfs tmpfs /mnt"), TMPDIR="/mnt") == "it works\n"

    def test_nothing_may_be_written_to(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        bare = "; ".join(f"mount --bind {tmp_path} {place}" for place in ("/var/tmp", "/dev/shm", "/tmp"))
        text = run(IS_REFUSED, *mounts(bare), *other_user())
        assert "/tmp: Permission denied; /dev/shm: Permission denied; /var/tmp: Permission denied" in text, text


class TestUsers:
    """A user without a name, and one that may start few processes."""

    def test_a_user_without_a_name(self) -> None:
        code = f"{WORKS}\nimport os, pwd\nassert os.getuid() == {UID}\ntry: pwd.getpwuid({UID})\nexcept KeyError: print('no name')\n"
        assert run(code, *other_user()) == "it works\nno name\n"

    @pytest.mark.parametrize("most", [1, 2, 4, 6, 8, 12])
    def test_few_processes_are_allowed(self, most: int) -> None:
        limit = f"import resource\nresource.setrlimit(resource.RLIMIT_NPROC, ({most}, {most}))\n"
        # The session's thread may be the one that is not allowed.
        text = run(f"{limit}{IS_REFUSED}except BlockingIOError as error: print('cannot start:', error)\nelse: print('it works')\n", *other_user())
        assert text == "it works\n" or text.startswith("cannot start: "), text


class TestThePackage:
    """A package whose parts cannot be run says so, and how to mend it."""

    @pytest.fixture
    def site(self, tmp_path: Path) -> Path:
        """A folder with a copy of the package."""
        shutil.copytree(os.path.dirname(bulkhead.__file__), tmp_path / "site" / "bulkhead", ignore=shutil.ignore_patterns("__pycache__"))
        return tmp_path / "site"

    @staticmethod
    def refused(site: Path, *before: str) -> str:
        path = os.pathsep.join([str(site), TESTS])
        text = run("import bulkhead\n" + IS_REFUSED, *before, PYTHONPATH=path)
        assert text.startswith(f"cannot start: {site}/bulkhead/bin/bulkhead-supervisor"), text
        return text

    def test_the_daemon_is_missing(self, site: Path) -> None:
        (site / "bulkhead/bin/bulkhead-supervisor").unlink()
        assert "is not there: the package is not whole; install it again" in self.refused(site)

    def test_the_daemon_is_not_executable(self, site: Path) -> None:
        (site / "bulkhead/bin/bulkhead-supervisor").chmod(0o644)
        assert "may not be executed: its file is not executable" in self.refused(site)

    def test_the_daemon_is_of_another_processor(self, site: Path) -> None:
        with open(site / "bulkhead/bin/bulkhead-supervisor", "r+b") as file:
            file.seek(18)
            file.write(b"\x34\x12")
        assert "cannot be run on this machine" in self.refused(site)

    def test_a_file_system_that_runs_no_programs(self, site: Path) -> None:
        folder = site / "bulkhead/bin"
        text = self.refused(site, *mounts(f"mount --bind {folder} {folder}; mount -o remount,bind,noexec {folder}"))
        assert "its file system is mounted with noexec" in text

    def test_a_file_system_that_maps_no_programs(self, site: Path) -> None:
        code = "try:\n    from bulkhead import Executor; Executor(1).submit(abs, 1)\nexcept ImportError as error: print(error)\n"
        before = mounts(f"mount --bind {site} {site}; mount -o remount,bind,noexec {site}")
        assert "_native.abi3.so: failed to map segment from shared object" in run(code, *before, PYTHONPATH=str(site))


class TestPrograms:
    """What a program did before it uses an executor."""

    def test_its_folder_was_deleted(self, tmp_path: Path) -> None:
        # A file: with -c the folder is a place of modules, and CPython 3.13.0 cannot import a native one from any place then.
        body = "".join(f"    {line}\n" for line in WORKS.splitlines())
        (tmp_path / "main.py").write_text(
            "import os, tempfile\nif __name__ == '__main__':\n"
            "    folder = tempfile.mkdtemp()\n    os.chdir(folder)\n    os.rmdir(folder)\n" + body
        )
        ended = subprocess.run(
            [sys.executable, str(tmp_path / "main.py")], env=environment(), capture_output=True, text=True, timeout=180
        )
        assert ended.stdout == "it works\n", ended.stderr

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
    def test_its_standard_streams_are_closed(self, closed: str, tmp_path: Path) -> None:
        path = tmp_path / "said"
        run(f"{WORKS}\nopen({str(path)!r}, 'w').write('it works')", "/bin/sh", "-ec", f'exec "$@" {closed}', "sh")
        assert path.read_text() == "it works"

    @pytest.mark.parametrize("least", [32, 64])
    def test_few_files_may_be_open_unless_more_are_asked_for(self, least: int) -> None:
        limit = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({least}, 1024))\n"
        assert run(limit + WORKS) == "it works\n"

    @pytest.mark.parametrize("most", [20, 64, 500])
    def test_too_few_files_may_be_open(self, most: int) -> None:
        limit = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))\n"
        text = run(limit + IS_REFUSED)
        assert text.startswith(f"cannot start: the daemon did not start: the limit of open files is {most}, but 2 workers, "), text

    @pytest.mark.parametrize("most", [4, 6, 8, 10, 12])
    def test_not_even_a_start_has_files(self, most: int) -> None:
        code = "from bulkhead import Executor, CannotStart\nimport bulkhead._link, bulkhead.errors, calls, json, resource, subprocess\n" + (
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))\n"
            "try: Executor(2).submit(calls.add, 1)\n"
            "except (CannotStart, OSError) as error: print(type(error).__name__, error)\n"
        )
        text = run(code)
        assert "Too many open files" in text or text.startswith("CannotStart"), text

    @pytest.mark.parametrize("most", [4, 5, 6, 8, 10, 12])
    @pytest.mark.parametrize("modules", ["os", "bulkhead.errors"])
    def test_no_file_can_be_opened_for_the_first_import(self, most: int, modules: str) -> None:
        """Modules that the first call loads are not there yet."""
        code = f"from bulkhead import Executor\nimport calls, {modules}\nimport resource\nexecutor = Executor(1)\n" + (
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, 4096))\n"
            "held = []\n"
            "try:\n"
            "    while True: held.append(os.open('/dev/null', 0))\n"
            "except OSError: pass\n"
            "try: executor.submit(calls.add, 1)\n"
            "except OSError as error: found = f'OSError {error}'\n"
            "except RuntimeError as error: found = f'{type(error).__name__} {error}'\n"
            "for descriptor in held: os.close(descriptor)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))\n"
            "print(found)\n"
            "print(executor.submit(calls.add, 1).result(60))\n"
            "executor.shutdown()\n"
        )
        text = run("import os\n" + code)
        assert re.match("(CannotStart|OSError) .*open files", text) and text.endswith("\n2\n"), text
        assert modules == "os" or text.startswith("CannotStart"), text

    def test_it_ignores_the_end_of_children(self) -> None:
        code = "import signal, subprocess\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + WORKS + (
            "with Executor(1) as executor: print(executor.submit(subprocess.call, ['false']).result())\n"
        )
        assert run(code) == "it works\n1\n"

    def test_it_forks_while_threads_submit(self) -> None:
        code = (
            "import calls, os, signal, sys, threading, warnings\nfrom bulkhead import Executor\n"
            "warnings.simplefilter('ignore', DeprecationWarning)\n"
            "executor, is_over, counts = Executor(2), threading.Event(), []\n"
            "def work():\n"
            "    count = 0\n"
            "    while not is_over.is_set():\n"
            "        assert executor.submit(calls.add, count).result(60) == count + 1\n"
            "        count += 1\n"
            "    counts.append(count)\n"
            "threads = [threading.Thread(target=work) for _ in range(3)]\n"
            "for thread in threads: thread.start()\n"
            # A fork while a thread imports leaves the lock of the import held in the child, as with any package.
            "assert executor.submit(calls.add, 1).result(60) == 2\n"
            "for number in range(30):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        signal.alarm(100)\n"
            "        code = 1\n"
            "        try: executor.submit(calls.add, 1)\n"
            "        except RuntimeError: code = 0\n"
            "        if number % 10 == 0:\n"
            "            with Executor(1, spares=0) as own: code += own.submit(calls.add, 1).result(60) != 2\n"
            "        os._exit(code)\n"
            "    assert os.waitpid(pid, 0)[1] == 0, number\n"
            "is_over.set()\n"
            "for thread in threads: thread.join()\n"
            "executor.shutdown()\n"
            "print(len(counts), all(counts))\n"
        )
        assert run(code) == "3 True\n"
