"""The private daemon of an executor: `bulkhead-supervisor --private` from this package, with workers that run this interpreter.

It ends with this process, also if that is killed: the daemon stops at the end of its standard input, a pipe whose other end
only this process holds. It has a session of its own, so Ctrl-C at a terminal does not reach it. Workers get this process's
environment, standard output and standard error. Driven by `_pool.py`.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
import time

from . import _inherited
from ._folder import OwnFolder, places, remove_abandoned
from ._warm_up import WarmUp
from ._workers_end import WorkersEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
_LINE_MAX_BYTES = 8 << 10
# Errors that are about the place of the folder: another place may do.
_OF_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)
# A program that needs a library which is not there ends with this code.
_CODE_CANNOT_RUN = 127


def supervisor_path() -> str:
    """The daemon's program: the one in this package, which has the same version, and never one from PATH."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "bulkhead-supervisor")


def working_folder() -> str | None:
    """The working directory of this process; `None`: it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


class DaemonSettings:
    """What the configuration of the daemon is made of."""

    def __init__(self, workers: int, spares: int, *, tasks_max: int | None, files_bytes_max: int) -> None:
        """Workers and spares by number; `tasks_max` calls for each worker; `files_bytes_max` of inputs in files."""
        self.workers = workers
        self.spares = spares
        self.tasks_max = tasks_max
        self.files_bytes_max = files_bytes_max

    def to_toml(self, program: str, args: list[str]) -> str:
        """The configuration file."""
        lines = [
            'mode = "user"',
            f"workers = {self.workers}",
            f"spares = {self.spares}",
            f"worker_program = {_quoted(program)}",
            f"worker_args = [{', '.join(map(_quoted, args))}]",
            'worker_env = "inherit"',
            "builtin_kinds = false",
            f"files_bytes_max = {self.files_bytes_max}",
        ]
        if self.tasks_max is not None:
            lines += [f"recycle_tasks = {self.tasks_max}", "recycle_strict = true"]
        kinds = [line for kind in ("call", "chunk") for line in (f"[kinds.{kind}]", "ring = 64", "crashes_max = 1")]
        return "\n".join([*lines, *kinds, ""])


def _quoted(text: str) -> str:
    """A text as a basic string of TOML."""
    made = []
    for char in text:
        if char in '"\\':
            made.append("\\" + char)
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            made.append(f"\\u{ord(char):04x}")
        else:
            made.append(char)
    return '"' + "".join(made) + '"'


class PrivateDaemon:
    """A daemon that this process has started. It is up after `wait_ready`; `stop` ends it and removes its folder."""

    def __init__(self, settings: DaemonSettings, worker_args: Callable[[OwnFolder], list[str]], environment: dict[str, str]) -> None:
        """Starts it, and does not wait for it. `worker_args` writes what the workers need into the folder.

        Raises `CannotStart` if there is no place for its folder, or its program cannot be run.
        """
        self._owner = os.getpid()
        self._stopping = threading.RLock()
        self._is_stopped = False
        program = _worker_program()
        remove_abandoned()
        self.folder = _folder_with(lambda folder: settings.to_toml(program, worker_args(folder)).encode())
        try:
            self.workers = WorkersEnd(self.folder.path)
            self.warm_up = WarmUp(self.folder)
            try:
                self._spawn(environment)
            except BaseException:
                self.workers.close()
                self.warm_up.close()
                raise
        except BaseException:
            self.folder.remove()
            raise

    def _spawn(self, environment: dict[str, str]) -> None:
        program, folder = supervisor_path(), self.folder.path
        with _inherited.opening:
            stdin, self._stdin = os.pipe()
            _inherited.note(self._stdin)
        outputs: list[tuple[str, int]] = []
        try:
            outputs += _worker_outputs()
            options = [word for name, fd in outputs for word in (f"--worker-{name}-fd", str(fd))]
            log = subprocess.DEVNULL if environment.get("BULKHEAD_LOG", "off") == "off" else None
            self._process = subprocess.Popen(
                [program, "--private", "--own-folder", "--ready-when-listening", *options]
                + ["--config", folder + "/config.toml", "--socket", self.socket, "--state", folder + "/state"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[fd for _, fd in outputs],
                env=environment,
                # Interpreters of some versions do not load modules in a directory that was removed.
                cwd="/" if working_folder() is None else None,
                start_new_session=True,
            )
        except BaseException as error:
            # Also a daemon that was started by an interrupted call ends then.
            _inherited.close(self._stdin)
            if isinstance(error, OSError) and in_words(error) is None:
                raise _cannot_start(_why_not_run(program, error)) from error
            raise
        finally:
            os.close(stdin)
            for _, descriptor in outputs:
                os.close(descriptor)

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return self.folder.path + "/s"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Waits until it takes calls. Raises `CannotStart` with its own words if it ends instead, or takes more than 30 s."""
        output = self._process.stdout
        assert output is not None
        said, until = b"", time.monotonic() + START_TIMEOUT
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while not said.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or len(said) > _LINE_MAX_BYTES:
                self.stop()
                raise _cannot_start(f"the daemon did not start within {START_TIMEOUT:.0f} s: set BULKHEAD_LOG=debug to see its log")
            if poll.poll(left * 1000):
                some = os.read(output.fileno(), 4096)
                if not some:
                    break
                said += some
        if said != b"ready\n":
            code = self._end_of_process()
            self.stop()
            raise _cannot_start(_why_not_started(said, code))

    def _end_of_process(self, patience: float = STOP_TIMEOUT) -> int | None:
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def forget(self) -> None:
        """In a forked child: it stays the parent's. `_inherited.py` closes what the daemon needs to end with the parent."""
        self._owner = -1
        self.workers.forget()
        self._process.returncode = 0  # It is no child of this process: nobody is to wait for it.

    def stop(self, patience: float = STOP_TIMEOUT, *, at_once: bool = True) -> None:
        """Ends it with all that it runs, waits for its end, and removes its folder. A second call does nothing, and an interrupted one can be
        repeated.

        Not `at_once`: it is asked first. Workers leave in order then, and have 2 seconds for their exit handlers; what has a time to end by
        itself has it, within `patience` seconds.
        """
        if self._owner != os.getpid():
            return
        with self._stopping:
            if self._is_stopped:
                return
            if not at_once and self._stdin >= 0:
                self._process.terminate()
                self._end_of_process(patience)
            if self._stdin >= 0:
                descriptor, self._stdin = self._stdin, -1
                _inherited.close(descriptor)
            if self._end_of_process() is None:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            if not self.workers.is_needed:
                self.workers.close()
            self.warm_up.close()
            self.folder.remove()
            self._is_stopped = True


def _folder_with(config: Callable[[OwnFolder], bytes]) -> OwnFolder:
    """A folder with the configuration, which `config` makes; it may write into the folder too. Raises `CannotStart`: there is no place."""
    refused = []
    for place in places():
        try:
            folder = OwnFolder(place)
        except OSError as error:
            if error.errno not in _OF_PLACE:
                raise
            refused.append(f"{place}: {error.strerror}")
            continue
        try:
            folder.write("config.toml", config(folder))
            return folder
        except BaseException as error:
            folder.remove()
            if not isinstance(error, OSError) or error.errno not in _OF_PLACE:
                raise
            refused.append(f"{place}: {error.strerror}")
    raise _cannot_start(
        f"no place has room for the folder of the daemon ({'; '.join(refused) or 'none is there'}): set TMPDIR to a folder that"
        f" you may write to, with a path below 32 bytes and some MiB of room"
    )


def _worker_program() -> str:
    """The interpreter for workers: this one, or what `multiprocessing.set_executable` says."""
    spawn = sys.modules.get("multiprocessing.spawn")
    found = os.fsdecode(spawn.get_executable() or "") if spawn is not None else sys.executable
    if not found:
        raise _cannot_start(
            "this process does not know its interpreter (sys.executable is empty, as in an embedded Python): call"
            " multiprocessing.set_executable(path) with the path of one before"
        )
    return found


def _worker_outputs() -> list[tuple[str, int]]:
    """Copies of the descriptors of standard output and error, as far as they are open. Other numbers: 0 to 2 are the daemon's.

    A program that was started without one of them may have another file by its number.
    """
    import fcntl

    copies = []
    for name, descriptor, stream in (("stdout", 1, sys.__stdout__), ("stderr", 2, sys.__stderr__)):
        if stream is None:
            continue
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                continue
            copies.append((name, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)))
        except OSError as error:
            if error.errno != errno.EBADF:
                for _, copy in copies:
                    os.close(copy)
                # EINVAL: the limit of open files is below this number.
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) if error.errno == errno.EINVAL else error
    return copies


def _cannot_start(text: str) -> Exception:
    from .errors import CannotStart

    return CannotStart(text)


def in_words(error: OSError) -> Exception | None:
    """`CannotStart` for an error of the start that is about a limit of this process, user or machine; `None`: it is another."""
    if isinstance(error, ConnectionError):
        text = str(error)
    elif error.errno == errno.EAGAIN:
        text = f"this user may start no further process or thread (RLIMIT_NPROC is {_limit('RLIMIT_NPROC')}): raise it (ulimit -u), or that of the container, or end processes"
    elif error.errno == errno.EMFILE:
        text = f"this process has no descriptor left (RLIMIT_NOFILE is {os.sysconf('SC_OPEN_MAX')}): raise it (ulimit -n), or close files"
    elif error.errno == errno.ENFILE:
        text = "this machine has no descriptor left (fs.file-max): raise it, or end programs with many open files"
    elif error.errno == errno.ENOMEM:
        text = f"there is no memory left (RLIMIT_AS is {_limit('RLIMIT_AS')}): raise it (ulimit -v), or end what takes memory"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"{error.filename or 'a file system'} has no room left: make some, or set TMPDIR to a folder that has it"
    else:
        return None
    return _cannot_start(f"the daemon of this executor cannot be started: {text}")


def _limit(name: str) -> str:
    import resource

    soft = resource.getrlimit(getattr(resource, name))[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def _why_not_run(program: str, error: OSError) -> str:
    if error.errno == errno.ENOENT and not os.path.exists(program):
        return f"{program} is not there: the package is not whole; install it again (pip install --force-reinstall bulkhead)"
    if error.errno in (errno.ENOEXEC, errno.ENOENT):
        return f"{program} cannot be run on this machine ({error.strerror}): the wheel is for Linux with glibc, on another processor"
    if error.errno == errno.EACCES:
        return f"{program} may not be executed: its file is not executable, or its file system is mounted with noexec"
    return f"{program} cannot be started: {error.strerror}"


def _why_not_started(said: bytes, code: int | None) -> str:
    words = said.decode(errors="replace").strip()
    if words.startswith("failed "):
        return f"the daemon did not start: {words.split(' ', 2)[-1]}"
    if code == _CODE_CANNOT_RUN:
        return f"{supervisor_path()} cannot be run: a library is missing, or the C library is too old (it needs Linux with glibc)"
    how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
    return f"the daemon ended {how} before it took calls: set BULKHEAD_LOG=debug to see its log"
