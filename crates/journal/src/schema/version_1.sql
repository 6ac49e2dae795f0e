-- Times are microseconds since 1970 (_us); spans are microseconds too. Kinds and pools are named.

-- Numbers below this one were given out, or are reserved.
CREATE TABLE number(name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;

-- The runs of the daemon; `next_job` is the first job number of the run. Each commit changes `commits`, `seen_us` (the wall clock),
-- `seen_boot_us` (the clock since boot) and `doubted_until_us`: until then, on the clock since boot, the wall clock is not believed.
CREATE TABLE epoch(
    number INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL,
    version TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    next_job INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    seen_us INTEGER NOT NULL,
    seen_boot_us INTEGER NOT NULL,
    doubted_until_us INTEGER NOT NULL,
    ended_us INTEGER
);

-- What the jobs first to first + count - 1 share. A row goes with the last of its jobs.
CREATE TABLE submit(
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    key BLOB,
    digest BLOB NOT NULL,
    kind TEXT NOT NULL,
    pool TEXT NOT NULL,
    flavour INTEGER NOT NULL,
    policy TEXT NOT NULL,
    urgency INTEGER NOT NULL,
    accepted_us INTEGER NOT NULL,
    expires_us INTEGER
);
CREATE UNIQUE INDEX submit_key ON submit(uid, key) WHERE key IS NOT NULL;

-- Jobs that have not ended, in the order in which each user's jobs are loaded: urgency is 9 less the priority.
-- `lost_since` counts since the last request to run it again, as do
-- `crashes` and `retries`. `expires_us` is that of a job that was asked to run again; else that of its submit counts.
CREATE TABLE job(
    uid INTEGER NOT NULL,
    urgency INTEGER NOT NULL,
    id INTEGER NOT NULL,
    submit INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    lost_since INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    alone INTEGER NOT NULL,
    expires_us INTEGER,
    PRIMARY KEY(uid, urgency, id)
) WITHOUT ROWID;

-- Inputs of jobs that may run again, also empty ones: a job that is not done and has no row here is damaged.
CREATE TABLE input(job INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, bytes BLOB NOT NULL);

-- Jobs that have ended. `cause` is for people; `detail` (JSON) has all of it, and is NULL for a job that is simply done.
-- `bytes` is about what the job takes in the database, with its input if that stays, without its attempts.
CREATE TABLE result(
    job INTEGER PRIMARY KEY,
    submit INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    started_us INTEGER,
    waited_us INTEGER NOT NULL,
    ran_us INTEGER NOT NULL,
    end_fence INTEGER,
    fence INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    lost_since INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    alone INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    cause TEXT,
    detail TEXT,
    output BLOB
);
CREATE INDEX result_end ON result(at_us);
CREATE INDEX result_user ON result(uid, at_us);
CREATE INDEX result_not_done ON result(at_us) WHERE outcome <> 'done';

-- Attempts that ended without ending their job by that alone; `death` is JSON. They outlive a job that is forgotten or removed:
-- `is_orphan` is 1 then, and they go by their own age, or to make room.
CREATE TABLE attempt(
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    kind TEXT NOT NULL,
    how TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    message TEXT,
    death TEXT,
    is_orphan INTEGER NOT NULL
);
CREATE INDEX attempt_job ON attempt(job, fence);
CREATE INDEX attempt_orphan ON attempt(at_us) WHERE is_orphan;
CREATE INDEX attempt_orphan_user ON attempt(uid, at_us) WHERE is_orphan;

-- How many ended jobs each user has, and about how many bytes they and all attempts of the user's jobs take.
CREATE TABLE kept(uid INTEGER PRIMARY KEY, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL);

CREATE VIEW jobs_v1 AS
-- For people and scripts: columns may be added, none changes its meaning. Times are UTC, spans are seconds.
--   job           its number
--   user          the uid of who submitted it
--   kind, pool    by their names
--   state         'unfinished' (waits or runs) or 'ended'
--   outcome       'done', 'failed', 'crashed', 'timed-out', 'cancelled', 'expired', 'lost'; NULL: unfinished
--   cause         why it is not done, as a sentence
--   attempts      attempts that are on record: those of an unfinished job may be one more
--   crashes       deaths of workers that were charged to it
--   accepted      when it was accepted
--   started       when its last attempt began; NULL: unfinished, or it never began
--   ended         when it ended
--   waited, ran   how long it waited for its first attempt, and how long its last one took
--   output_bytes  the length of its output
SELECT
    result.job AS job, result.uid AS user, result.kind AS kind, submit.pool AS pool, 'ended' AS state,
    outcome, cause, attempts, crashes,
    datetime(accepted_us / 1000000, 'unixepoch') AS accepted,
    datetime(started_us / 1000000, 'unixepoch') AS started,
    datetime(at_us / 1000000, 'unixepoch') AS ended,
    waited_us / 1e6 AS waited, ran_us / 1e6 AS ran, length(output) AS output_bytes
FROM result JOIN submit ON submit.first = result.submit
UNION ALL
SELECT
    id, job.uid, kind, pool, 'unfinished', NULL, NULL, attempts, crashes,
    datetime(accepted_us / 1000000, 'unixepoch'), NULL, NULL, NULL, NULL, NULL
FROM job JOIN submit ON submit.first = job.submit;
