//! Every fixed maximum that a client or a worker can meet, and the relations between them as `const` assertions.
//!
//! Clients, supervisor and workers all keep to these numbers. Limits that an administrator chooses stand in the config
//! file, never here; these numbers bound them.

/// Must be raised with every change to the meaning of bytes on the client socket or a worker channel.
pub const PROTOCOL_VERSION: u32 = 3;

/// Largest frame on the client socket, length prefix not counted, in bytes.
pub const FRAME_MAX_BYTES: usize = 1 << 20;
/// Most memory that decoding one frame or message may allocate, in bytes; a larger length in the message is an error.
pub const DECODE_MAX_BYTES: usize = 2 * FRAME_MAX_BYTES;
/// Most memory that the daemon uses for incomplete frames of all clients together, in bytes. Above it, the daemon
/// closes a connection.
pub const UNFINISHED_MAX_BYTES: usize = 64 * FRAME_MAX_BYTES;
/// Most memory that replies take up which clients do not read, all together, in bytes. Above it, the daemon closes a
/// connection of the user who holds most.
pub const UNREAD_MAX_BYTES: usize = 64 * FRAME_MAX_BYTES;
/// Unread replies of one connection that are not counted, in bytes.
pub const UNREAD_ALLOWANCE_BYTES: usize = 4 << 10;
/// Most jobs in one submit, ids in one request, and ends or workers in one reply.
pub const BATCH_MAX: usize = 4096;
/// Longest key of a durable submit, in bytes.
pub const KEY_MAX_BYTES: usize = 128;

/// Most rows of one reply with a list of jobs: each takes several pieces of memory, and many clients may ask at once.
pub const ROWS_MAX: usize = 512;

/// Most ends that all clients together may wait for by request; a user of several gets three quarters.
pub const WAITS_MAX: u64 = 1 << 18;

/// Most jobs of requests that wait for what the journal has of them, of all clients together; a user of several gets three quarters.
pub const LOOK_UPS_MAX: u64 = 1 << 18;

/// Most `events` and `logs` requests that go on, of all clients together; a user of several gets three quarters.
pub const READERS_MAX: u64 = 1024;

/// Largest payload that travels inside a frame, a task message or a box entry, in bytes.
pub const INLINE_MAX_BYTES: usize = 4096;
/// Bytes of the arena of one worker: memory that its supervisor makes and seals in size, that it writes its results into, and
/// that clients map for reading. Only touched pages take memory.
pub const ARENA_BYTES: usize = 16 << 20;
/// The unit of an arena, in bytes: blocks begin at a multiple of it.
pub const ARENA_UNIT_BYTES: usize = 4096;
/// Most blocks of one arena that are not free.
pub const ARENA_BLOCKS_MAX: usize = 1024;
/// Longest result that goes into an arena, in bytes. By the bench (`cargo xtask bench arena`, 2 cores, nothing else running), times the
/// rate of results with a descriptor each: 17.0 at 8 KiB, 2.6 at 64 KiB, 2.1 at 128 KiB. With a bound of 256 KiB it was 0.94 there.
pub const BLOCK_MAX_BYTES: usize = 128 << 10;
/// Longest output that goes with a task beforehand because tasks like it lately asked for one, in bytes.
pub const RESERVE_MAX_BYTES: u64 = 1 << 20;
/// Most blocks in one [`crate::client::message::Request::Freed`].
pub const FREED_MAX: usize = 4096;
/// So long after the daemon has ended a connection whose client had received all that was sent, the blocks that were told on it are
/// not used again, in milliseconds.
pub const BLOCK_LEASE_MS: u64 = 10_000;
/// A client that copies a block so long after it received the reply that names it, in milliseconds, makes sure after that that the
/// connection has not ended. The difference to [`BLOCK_LEASE_MS`] is for clocks.
pub const BLOCK_CHECK_MS: u64 = 5000;
/// Largest output that a worker may write into an output descriptor, in bytes.
pub const OUTPUT_MAX_BYTES: u64 = 1 << 30;
/// The key of the bound of all outputs and logs in memory, in the daemon's configuration.
pub const OUTPUTS_KEY: &str = "outputs_bytes_max";
/// The least value of that bound: a 64th of it, which every user comes to, has room for a log and an output.
pub const OUTPUTS_MIN_BYTES: u64 = 128 << 20;
/// The key of the most bytes of one output of a kind, in the table of that kind.
pub const KIND_OUTPUT_KEY: &str = "output_max_bytes";
/// Largest plan of a job that is done in parts, in bytes.
pub const PLAN_MAX_BYTES: u64 = 64 << 20;
/// Least value of that key.
pub const OUTPUT_MIN_BYTES: u64 = 4096;
/// Most files that may come with one job.
pub const FILES_MAX: usize = 8;
/// Longest name of such a file, in bytes.
pub const FILE_NAME_MAX_BYTES: usize = 64;
/// Most registrations that one job may name.
pub const REGISTERED_MAX: usize = 8;
/// Most registrations that connections of all users may have; a user of several gets three quarters.
pub const REGISTRATIONS_MAX: u64 = 4096;
/// Most registrations that a worker keeps which no task of its ring names; beyond them it forgets the one that was used longest ago.
pub const WORKER_REGISTRATIONS_MAX: usize = 64;
/// Most files of clients that a worker may have handed to its closer and not closed, if it is to go on. A close takes a microsecond,
/// unless it hangs (a connection with SO_LINGER, a file on FUSE).
pub const UNCLOSED_MAX: u64 = 256;
/// Most bytes of a context that travel with its registration.
pub const CONTEXT_BYTES_MAX: usize = 3072;
/// Most items of one chunk.
pub const CHUNK_ITEMS_MAX: usize = 65_536;
/// Most parts that a job may be split into.
pub const PARTS_MAX: u32 = 65_536;
/// Most bytes of inline results that all parts of one job may leave for its merge.
pub const RESULTS_MAX_BYTES: u64 = 4 << 20;
/// Largest text of a failure, an error or a name on the wire, in bytes; longer ones are cut.
pub const TEXT_MAX_BYTES: usize = 1024;
/// Largest name of a kind, in bytes.
pub const KIND_NAME_MAX_BYTES: usize = 64;

/// Largest task message to a worker, in bytes; ipc-channel never fragments a message of this size.
pub const TASK_MESSAGE_MAX_BYTES: usize = 32 << 10;
/// Largest frame on a lane, in bytes; a longer one is a protocol violation.
pub const LANE_FRAME_MAX_BYTES: usize = 4096;
/// Entries in a worker's ring: the most offers it may hold.
pub const RING: usize = 256;
/// Most frames that the supervisor reads from one lane in one turn.
pub const LANE_FRAMES_PER_TURN: usize = 64;

/// Most arguments that a config gives to the worker program of a pool.
pub const WORKER_ARGS_MAX: usize = 256;
/// Most variables of the environment that a config gives to the workers of a pool.
pub const WORKER_VARIABLES_MAX: usize = 1024;
/// Longest arguments and environment of one pool together, in bytes. The kernel takes no longer one (MAX_ARG_STRLEN).
pub const WORKER_TEXTS_MAX_BYTES: usize = 128 << 10;

/// Most workers in one pool.
pub const WORKERS_MAX: u16 = 1024;
/// Charged deaths that the daemon keeps for `deaths`; beyond them, the oldest are dropped.
pub const DEATHS_KEPT: usize = 1000;
/// Most flavours of tasks whose durations the daemon keeps, of all users together.
pub const FLAVOURS_MAX: usize = 64;
/// Most ranges of job numbers in one record.
pub const JOB_RANGES_MAX: usize = 16;
/// `why` counts at most this many jobs before another one, and then says `or more`.
pub const WHY_COUNT_MAX: u64 = 10_000;
/// Most return addresses that are kept of one death.
pub const BACKTRACE_MAX: usize = 16;
/// Most frames that are kept of one death of files other than the program's.
pub const OTHER_FRAMES_MAX: usize = 16;
/// Most such files of one death.
pub const IMAGES_MAX: usize = 8;
/// Longest name of such a file, in bytes; a longer one is cut.
pub const IMAGE_NAME_MAX_BYTES: usize = 64;
/// Bytes of the page in which a worker's own runtime writes its stack: a word that says for which offer, and the text.
pub const STACK_PAGE_BYTES: usize = 8192;
/// Longest such text, in bytes; a longer one is cut.
pub const STACK_TEXT_MAX_BYTES: usize = STACK_PAGE_BYTES - 8;
/// Longest last words of a task, in bytes; longer ones are cut.
pub const LAST_WORDS_MAX_BYTES: usize = 200;

/// Processes of one task that its worker tells it could not end. There may be more; then these are the first.
pub const SURVIVORS_TOLD: usize = 8;
/// Processes in a status that the daemon could not end.
pub const SURVIVORS_SHOWN: usize = 64;
/// Most accounts in a `status` for an administrator, from the core and from the supervisor each.
pub const ACCOUNTS_SHOWN: usize = 64;
/// Longest path of a worker program that is recorded with a death, in bytes; a longer one is left out.
pub const PROGRAM_PATH_MAX_BYTES: usize = 200;
/// Longest path of a daemon's socket, in bytes: the paths of the sockets that workers create below it are longer, and
/// must fit an address too.
pub const SOCKET_PATH_MAX_BYTES: usize = 64;
/// Priorities run from 0 (last) to this (first).
pub const PRIORITY_MAX: u8 = 9;
/// Longest job limit a client may ask for, in milliseconds (30 days).
pub const LIMIT_MAX_MS: u64 = 30 * 24 * 3600 * 1000;

/// Longest grace, of a kind (`cancel_grace_ms`) or that a client asks for: how long a task may take to end by itself when
/// it is to end, in milliseconds.
pub const CANCEL_GRACE_MAX_MS: u32 = 60_000;
/// Least memory limit a client may ask for, in bytes.
pub const MEMORY_MIN_BYTES: u64 = 1 << 20;

/// Largest `n` of the `factorial` kind.
pub const FACTORIAL_N_MAX: u64 = 10_000_000;
/// Most bytes of a result of the `factorial` kind: 10,000,000! has 65,657,060 digits.
pub const FACTORIAL_OUTPUT_MAX_BYTES: u64 = 63 << 20;
/// Most bytes that a program of the `exec` kind may write to its standard output.
pub const EXEC_OUTPUT_MAX_BYTES: u64 = 64 << 20;
/// Longest `sleep`, in milliseconds (one day).
pub const SLEEP_MAX_MS: u64 = 24 * 3600 * 1000;

const _: () =
    assert!(INLINE_MAX_BYTES + TEXT_MAX_BYTES < TASK_MESSAGE_MAX_BYTES, "one task fits its message");
const _: () = assert!(TASK_MESSAGE_MAX_BYTES < FRAME_MAX_BYTES);
const _: () = assert!(
    CONTEXT_BYTES_MAX + FILES_MAX * (FILE_NAME_MAX_BYTES + 8) + 64 < LANE_FRAME_MAX_BYTES,
    "a registration fits its frame on the lane"
);
const _: () = assert!(EXEC_OUTPUT_MAX_BYTES <= OUTPUT_MAX_BYTES);
const _: () = assert!(OUTPUTS_MIN_BYTES / 4 * 3 > 2 * RESULTS_MAX_BYTES + OUTPUTS_MIN_BYTES / 16);
const _: () = assert!(OUTPUTS_MIN_BYTES / 64 > crate::log::LOG_BYTES + OUTPUTS_MIN_BYTES / 256);
const _: () = assert!(
    DEATHS_KEPT
        * (KIND_NAME_MAX_BYTES
            + 256
            + 10 * BACKTRACE_MAX
            + LAST_WORDS_MAX_BYTES
            + PROGRAM_PATH_MAX_BYTES
            + 40)
        < FRAME_MAX_BYTES - (64 << 10),
    "all fit one frame, without the frames of other files"
);
const _: () = assert!(DECODE_MAX_BYTES > FRAME_MAX_BYTES + BATCH_MAX * 64, "a full batch decodes");
const _: () =
    assert!(WAITS_MAX - WAITS_MAX / 4 >= 4 * BATCH_MAX as u64, "one user's share has room for whole batches");
/// About the memory of one wait, in bytes.
const WAIT_BYTES: usize = 64;
/// Replies that one turn may add to what is unread before the bound is looked at again, in bytes.
const REPLIES_OF_A_TURN_BYTES: usize = 16 << 20;
/// The daemon itself, with 4096 connections that do nothing, in bytes.
const IDLE_BYTES: usize = 48 << 20;
const _: () = assert!(
    UNFINISHED_MAX_BYTES
        + UNREAD_MAX_BYTES
        + 4096 * UNREAD_ALLOWANCE_BYTES
        + REPLIES_OF_A_TURN_BYTES
        + (WAITS_MAX + LOOK_UPS_MAX) as usize * WAIT_BYTES
        + IDLE_BYTES
        <= 256 << 20,
    "no flood of clients takes more memory than that, beside the jobs and results that the configuration allows"
);
const _: () = assert!(
    UNFINISHED_MAX_BYTES >= 32 * FRAME_MAX_BYTES && UNREAD_MAX_BYTES >= 32 * FRAME_MAX_BYTES,
    "frames of many honest clients are under way at once"
);
const _: () = assert!(RING.is_power_of_two() && RING <= BATCH_MAX);
const _: () = assert!(TEXT_MAX_BYTES <= INLINE_MAX_BYTES, "a failure's text fits a box entry");
/// Whether there may be a block of `bytes` bytes at `offset` of an arena. All who hear of a block check this.
pub fn is_block(offset: u64, bytes: u64) -> bool {
    let end = offset.checked_add(bytes);
    (1..=BLOCK_MAX_BYTES as u64).contains(&bytes)
        && offset.is_multiple_of(ARENA_UNIT_BYTES as u64)
        && end.is_some_and(|end| end <= ARENA_BYTES as u64)
}

const _: () = assert!(ARENA_BYTES.is_multiple_of(ARENA_UNIT_BYTES) && BLOCK_MAX_BYTES < ARENA_BYTES);
const _: () =
    assert!(RESERVE_MAX_BYTES > BLOCK_MAX_BYTES as u64, "what is too long for an arena may be reserved");
const _: () = assert!(INLINE_MAX_BYTES < BLOCK_MAX_BYTES && ARENA_BLOCKS_MAX.is_power_of_two());
const _: () = assert!(BLOCK_CHECK_MS < BLOCK_LEASE_MS);
