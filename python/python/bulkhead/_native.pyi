"""The native half of the package: `Session` in the program that submits calls, `serve` in the workers that run them.

It moves bytes and never looks into them: what a call or a result is, how it is pickled, and what a future becomes is Python's.
`_executor.py` and `worker.py` drive it. Nothing of it is public.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, final

VERSION: str
"""Version of the package, as in its wheel."""
INLINE_MAX_BYTES: int
"""Longest input or output that travels inside a message: 4096."""
INPUT_BLOCK_MAX_BYTES: int
"""Longest input that goes through the session's shared memory; what is longer goes into a `MemoryFile`."""
CONTEXT_BYTES_MAX: int
"""Longest context that travels as bytes; what is longer goes into a `MemoryFile`."""
FILES_MAX: int
"""Most calls with a `MemoryFile` that should be under way at once, see `Session.files`."""
LAST_WORDS_MAX_BYTES: int
"""Longest text of `Task.say`, in bytes of UTF-8; a longer one is cut."""
STACK_SIGNAL: int
"""The signal by which the daemon asks a worker for the stacks of its threads, before it kills it."""

Word: TypeAlias = Literal[
    "failed",  # the worker half itself raised: the text is its error
    "crashed",  # it killed its worker
    "timed-out",  # it met a limit of wall time, of processor time, or of time without progress
    "cancelled",  # it was cancelled after it was sent
    "expired",
    "lost",  # the daemon ended, or the connection to it: the call may have run
    "refused",  # the daemon did not take it: nothing has run
    "withdrawn",  # it was cancelled before it was sent: nothing has run
    "unread",  # it is done, and the daemon has dropped its result to make room for others
]

End: TypeAlias = tuple[Word, str, str]
"""A call without a result: the word, a text for people, and its certificate as JSON (the object of `bulkhead job ID --json`, but
for the lines of its backtraces: attempts, deaths, signals, addresses, last words and stack text), or `""` where there is none. Only ends of calls that were
accepted have one: `crashed`, `timed-out`, `failed`, and `cancelled` if `Session.certify_cancelled` is true."""

What: TypeAlias = (
    bytes
    | LongBytes
    | MemoryFile
    | End
    | ChunkEnd
    | tuple[Literal["progress"], int, int]
    | tuple[Literal["runs-on"]]
    | tuple[Literal["notice"], str]
    | tuple[Literal["gone"], str]
)
"""What is told of a token.

- `bytes`, `LongBytes`, `MemoryFile`: the call is done, and this is its result. Last event of its token.
- `End`: the call has no result. Last event of its token.
- `ChunkEnd`: the chunk has ended, whatever the end is. Last event of its token.
- `("progress", done, total)`: how far it is. Others may follow.
- `("runs-on",)`: a cancel of waiting calls came too late for it: a worker has begun it. Its end is still to come.
- `("notice", text)`, token 0: a text of the daemon for people: why calls do not start, or that they start again.
- `("gone", text)`, token 0: the connection has ended, for this reason. Every token that was open was told `lost` before.
  It is the last event of all.
"""

Event: TypeAlias = tuple[int, What]

@final
class MemoryFile:
    """Bytes in memory behind a descriptor (memfd): a call or a result that is too long for messages, or has buffers.

    The descriptor is closed when the object goes. `mmap.mmap` keeps one of its own as long as it lives (before Python 3.13): a
    program that keeps thousands of results must read them into memory instead (`os.preadv`).
    All holders share the position of the file: use it by position alone.
    """

    def __new__(cls, length: int = 0) -> MemoryFile:
        """A new file of so many zero bytes, to be filled by `os.pwritev(file.fileno(), ...)`.

        Raises `OSError`: no descriptor (EMFILE, ENFILE) or no memory (ENOMEM, ENOSPC) is left for it.
        """

    def fileno(self) -> int:
        """The descriptor, which stays this object's."""

    @property
    def length(self) -> int:
        """How long it is, in bytes."""

@final
class LongBytes:
    """A result of more than `INLINE_MAX_BYTES`. It has no bytes any more once `on_events` has returned."""

    def bytes(self) -> bytes:
        """A copy of them."""

@final
class ChunkTicket:
    """One chunk to be submitted. A second submit of the same ticket does nothing."""

    def __new__(cls, token: int) -> ChunkTicket:
        """With the token of its end."""

    @property
    def is_sent(self) -> bool:
        """Whether it was submitted."""

@final
class ChunkValues:
    """The results that the handler of a chunk stored."""

    @property
    def values(self) -> list[object]:
        """The values that `store_plain` took, and the bytes that `store` took."""

    @property
    def pickled(self) -> list[int]:
        """Indices of bytes that are no failures."""

    @property
    def failed(self) -> list[int]:
        """Indices of failures, which are bytes."""

    @property
    def length(self) -> int:
        """How long the results were together."""

@final
class ChunkEnd:
    """What became of the calls of a chunk."""

    @property
    def results(self) -> ChunkValues:
        """Of the calls from the first on."""

    @property
    def stop(self) -> Literal["all", "long", "long-failed", "begun", "unbegun", "fault"]:
        """What became of the call behind the last result: there is none; it is done, and its result had no room in the memory of the chunk,
        so it is `end`, and no later call has begun; it had begun and has no result; it never began. `fault`: what the worker left
        cannot be true, and calls without a result may have run."""

    @property
    def text(self) -> str:
        """The fault in words."""

    @property
    def end(self) -> bytes | MemoryFile | End:
        """The end of the job. Its bytes are a long result, or, after `all`, how long the calls took, in nanoseconds (little endian)."""

@final
class Session:
    """One connection to a daemon, on which any thread submits calls, and a thread of its own reads their ends.

    `on_events` gets a list of events, in the order in which they came, from one thread at a time: the session's own, or one that
    is in `lead`. It may delete entries of the list that it is done with. If it raises - Ctrl-C, or another signal's handler, in a thread
    that leads - it is called again at once with what it left in the list, and `lead` raises the exception afterwards: so an entry may
    be seen twice, and none is lost. After three times of an `Exception` it is called in a thread with an empty stack, once for each entry
    that is left; what it raises then goes to `sys.unraisablehook`.

    Tokens are the caller's: any number from 1 to 2**64 - 1 of which no event of an open call is to come.
    Methods do not wait for the daemon, except `lead`, `is_running`, `workers` and `close`.
    A forked child calls `abandon` first of all, and closes the descriptor of `fileno`: a lock may be held by a thread that the child
    has not.
    """

    def __new__(
        cls,
        path: str,
        on_events: Callable[[list[Event]], object],
        *,
        progress: bool = True,
        certify_cancelled: bool = False,
        arena_bytes: int = 67_108_864,
    ) -> Session:
        """Connects to the daemon that listens at `path`.

        `arena_bytes`: shared memory for inputs from `INLINE_MAX_BYTES` to `INPUT_BLOCK_MAX_BYTES`; only touched pages take memory. A
        daemon that refuses it, or a machine without room for it, makes these inputs go by `MemoryFile`.
        Raises `ConnectionError`: nobody listens there, or it is no daemon of this version; the text says what to do.
        """

    def rules(
        self,
        *,
        timeout_ms: int | None = None,
        cpu_ms: int | None = None,
        memory_bytes: int | None = None,
        grace_ms: int = 0,
        crashes_max: int = 1,
        priority: int = 4,
        flavour: int = 0,
        contexts: Sequence[int] = (),
        in_chunks: bool = False,
    ) -> int:
        """The number of a set of rules, to be named in `submit`. Equal rules have equal numbers.

        `grace_ms`: how long a running call may take to end by itself after a cancel or a limit of time, 0 to 60,000.
        `crashes_max`: how many workers the call may kill until it is `crashed`: 1 runs it once, whatever happens.
        `flavour`: calls of one flavour take about the same time; a number for each function (0: none).
        `contexts`: numbers of `register`, whose values `serve`'s handler gets, in this order; at most 7.
        `in_chunks`: for `submit_chunk`; `crashes_max` is 1 then.
        Raises `ValueError`: a value is out of its range; `KeyError`: no such context.
        """

    def register(self, content: bytes | MemoryFile, descriptors: Sequence[int] = ()) -> int:
        """Registers a context: bytes that each worker loads once, within the first call that names it: a large function. Copies of at
        most 7 open descriptors go with it, such as the ends of a pipe; the caller keeps its own.

        Content of more than `CONTEXT_BYTES_MAX` goes into a file by itself. Raises `ConnectionError`: the daemon is gone; `ValueError`: too
        many descriptors; `OSError`: one is not open, or none is free. A
        daemon that refuses it refuses the calls that name it.
        """

    def unregister(self, context: int) -> None:
        """Drops a context and the rules that name it. The daemon drops it when no open call names it, at the next `unregister` or
        look at `contexts`. Raises `KeyError`: no such context."""

    @property
    def contexts(self) -> int:
        """How many contexts the daemon has of this session, those that open calls keep too."""

    def submit(self, token: int, rules: int, head: bytes, body: bytes) -> None:
        """Submits a call whose input is `head + body`: two parts, so that a head that many calls share is not copied in Python.

        How it travels is chosen by its length. Where there is no room, it waits here, and is sent as room comes.
        Raises `ConnectionError`: the connection has ended (or this is a forked child), and nothing was submitted; `KeyError`: no
        such rules; `ValueError`: the token is in use; `OSError`: no memory or descriptor for a long input.
        """

    def submit_many(self, first_token: int, rules: int, head: bytes, bodies: Sequence[bytes]) -> None:
        """Submits a call for each body, with tokens from `first_token` on, as `submit` does, in one go.

        Raises as `submit`, and nothing was submitted then.
        """

    def submit_file(self, token: int, rules: int, file: MemoryFile) -> None:
        """Submits a call whose input is this file, which nobody may change afterwards. Raises as `submit`."""

    def open_chunks(self) -> bool:
        """Registers memory for chunks with the daemon, once, and waits for its answer; `False`: there is none. Raises as `is_running`."""

    def submit_chunk(self, ticket: ChunkTicket, rules: int, head: bytes, items: Sequence[bytes], room: int) -> bool:
        """Submits a chunk of calls: a head for all, and an item for each. `room`: bytes for all results together.

        `False`: there is no room for it until other chunks have ended. Raises as `submit`; `ValueError` also if it never has room.
        """

    def counted(self, token: int) -> ChunkValues | None:
        """The results that an open chunk has so far; `None`: there is no such chunk."""

    def cancel(self, tokens: Sequence[int]) -> None:
        """Ends these calls, also those that run, with their processes. Each still has its last event. Unknown tokens are ignored."""

    def cancel_waiting(self, tokens: Sequence[int]) -> None:
        """Ends those of these calls that no worker has begun; of the others `("runs-on",)` is told."""

    def lead(self, token: int, is_done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Waits for the last event of a call; this thread reads meanwhile, if no other does: it saves a hop between threads.

        `is_done` is asked at the beginning, because the event may have been told before, and after each event of the call. Gives `False` if
        `timeout` seconds have passed, or the connection has ended, before it was true. Signals are handled while it waits. `on_events`
        may call it: it is then called within for further events.
        Raises what a signal's handler raises (`KeyboardInterrupt`).
        """

    def is_running(self, token: int) -> bool:
        """Asks the daemon whether a worker has begun this call, or is about to as its next one, and it has not ended. `False` for a call that waits
        in a worker behind another.

        Raises as `lead`; `ConnectionError`: the daemon is gone.
        """

    def workers(self) -> str:
        """The workers as JSON, a list: the rows of `bulkhead workers --json` (`pid`, `state`, ...). Raises as `is_running`."""

    def status(self) -> str:
        """The state of the daemon as JSON: the object of `bulkhead status --json`. Raises as `is_running`."""

    @property
    def open(self) -> int:
        """How many calls have a last event to come."""

    @property
    def files(self) -> int:
        """How many of them have a file, each of which takes a descriptor of this process until it was sent. A caller that would go beyond
        `FILES_MAX` uses `submit`: a long input then waits as bytes."""

    def fileno(self) -> int:
        """The descriptor of the connection. A forked child closes it, so that it does not hold the parent's connection open."""

    def abandon(self) -> None:
        """In a forked child: from now on every method raises `ConnectionError`, but for `fileno` and `close`, which does nothing. It takes
        no lock, and neither does `fileno`."""

    def close(self) -> None:
        """Ends the connection: the end of each call that has none is told, then nothing more, and the thread is joined. A submit in
        another thread that comes too late raises. A daemon that lives on cancels what is open some 30 seconds later; a private one is
        stopped next.

        It waits for a thread that is in `on_events`, unless it is called there. To be called before the interpreter is finalised. A second
        call does nothing. Raises what interrupts `on_events` (`KeyboardInterrupt`), and all is told then too.
        """

@final
class Task:
    """The call that a worker runs, as its handler sees it. After the handler has returned the methods do nothing."""

    def progress(self, done: int, total: int) -> None:
        """Tells how far it is; `total` 0: unknown. It restarts the limit of time without progress. No system call."""

    def say(self, text: str) -> None:
        """Sets the last words, which are shown if the call kills its worker. No system call."""

    def is_cancelled(self) -> bool:
        """Whether the call is to end: it was cancelled or met a limit of time. Only with a grace."""

@final
class ChunkResults:
    """Where the results of a chunk go, while its handler runs."""

    def begin(self) -> bool:
        """Begins the first call; `False`: there is none. Raises `RuntimeError`: the client has closed the chunk."""

    def store_plain(self, value: object) -> bool | None:
        """As `store` with the pickle of the value, if it is a number, a short text, `None` or a bool; `None`: it is not, or has no room, and
        nothing was done."""

    def store(self, result: bytes, is_failed: bool) -> bool:
        """Stores and counts the result of the call that has begun, and begins the next one; `False`: none is to begin. Raises as `begin`."""

LongResult: TypeAlias = tuple[int, Callable[[int], object]]
"""A result that has buffers: its length in bytes, and a function that is then called, within the same call, with the descriptor of
a file of this length to fill from byte 0 on by `os.pwritev`. If there is no room for it, the call ends as `failed`, the text says
what bound was met, and the function is not called. If the function raises, the call ends as `failed`."""

def join_left() -> None:
    """Waits for the threads that ended their session themselves, while others run: before the interpreter is finalized."""

def take_lane() -> None:
    """Moves the connection to the daemon off standard input, where children would inherit it; first of all in a worker.

    Raises `OSError`: this process was not started by a daemon.
    """

def serve(
    handler: Callable[[bytes | MemoryFile, tuple[object, ...], Task], bytes | LongResult],
    *,
    chunk: Callable[[bytes, list[bytes], tuple[object, ...], Task, ChunkResults], object] | None = None,
    load: Callable[[bytes | MemoryFile, tuple[int, ...]], object] | None = None,
    stack: Callable[[int], object] | None = None,
    idle: tuple[int, Callable[[], object]] | None = None,
) -> int:
    """Serves the daemon that started this process, one call at a time, all in this thread; gives the exit code.

    `handler(input, contexts, task)` gives the result: bytes of any length, or a `LongResult`. `input` is a `MemoryFile` if the
    call was submitted as one, or was too long for the session's shared memory; map it privately, or read it by position. `contexts` are
    the values of `load` for the contexts that the call's rules name. A handler that raises ends its call as `failed`.
    `chunk(head, items, contexts, task, results)` runs the calls of a chunk: `results.begin()`, then for each item `results.store`, until that is `False`.
    `load(content, descriptors)` makes a value of a context, once in this worker. The descriptors stay the context's, which closes them
    when it is dropped; they are closed in programs that the worker starts. A `load` that raises ends the call as `failed`, and the next one tries again.
    `stack(fd)` is called once, before the first call, with the descriptor of the page for this process's stack text: it
    calls `faulthandler.enable(file=fd)` and `faulthandler.register(STACK_SIGNAL, file=fd, all_threads=True)`.
    It must have done both: a worker that has no handler of that signal dies of it.
    `idle` is a descriptor, of which a copy is kept, and what is called once when it is readable and no call waits; what that raises goes to
    `sys.unraisablehook`. Raises `OSError` if no descriptor is left for the copy.
    """
