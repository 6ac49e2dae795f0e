-- A database of version 1 with three jobs of one submit: done, crashed and queued. Never changed: later versions must read it.
PRAGMA auto_vacuum = incremental;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE number(name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO number VALUES('epoch',2);
INSERT INTO number VALUES('job',1);
INSERT INTO number VALUES('log',1);
INSERT INTO number VALUES('output',1);
INSERT INTO number VALUES('record',1);
INSERT INTO number VALUES('scratch',1);
INSERT INTO number VALUES('worker',1);
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
INSERT INTO epoch VALUES(1,'00000000-0000-4000-8000-000000000001','0.0.0-test',11039,1796039056846103,1,2,1796039056869966,7000000,0,1796039056869933);
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
INSERT INTO submit VALUES(1,3,1000,X'6b',X'9a907adc27a972ee6b3912a4876b9bfd858b247428c1838702f4575fb114b1a9','a','default',3,'{"priority":1,"timeout_ms":1,"no_progress_ms":null,"cpu_ms":null,"memory_bytes":null,"grace_ms":null,"expires_ms":null,"crashes_max":null,"retries_max":null,"output":"inline"}',8,1000000,NULL);
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
INSERT INTO job VALUES(1000,8,3,1,0,0,0,0,0,0,0,0,0,NULL);
CREATE TABLE input(job INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, bytes BLOB NOT NULL);
INSERT INTO input VALUES(2,-5796723930563297850,X'696e');
INSERT INTO input VALUES(3,-5796723930563297850,X'696e');
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
INSERT INTO result VALUES(1,1,1000,'a','done',4000000000000000,3999999999999999,5,7,1,1,1,0,0,0,0,0,0,102,NULL,NULL,X'726573756c74');
INSERT INTO result VALUES(2,1,1000,'a','crashed',4000000000000000,3999999999999999,5,7,1,1,1,1,0,0,0,0,1,255,'crashed: killed 1 worker, by SIGSEGV; quarantined','{"outcome":{"outcome":"crashed","crashes":1,"last":"SIGSEGV"},"survivors":[{"pid":9,"uid":null,"name":"x"}]}',NULL);
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
INSERT INTO attempt VALUES(1,2,1,1,1000,'a','charged',9,NULL,'{"at_us":9,"part":null,"attempt":1,"worker":4,"pid":99,"death":{"death":"fault","signal":11,"core":false,"address":16},"charged":true,"evidence":{"frames":[],"other_frames":[],"searched":false,"program":null,"progress":null,"last_words":"","stack_text":"","seen":null,"shortened":false}}',0);
CREATE TABLE kept(uid INTEGER PRIMARY KEY, jobs INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO kept VALUES(1000,2,740);
CREATE UNIQUE INDEX submit_key ON submit(uid, key) WHERE key IS NOT NULL;
CREATE INDEX result_end ON result(at_us);
CREATE INDEX result_user ON result(uid, at_us);
CREATE INDEX result_not_done ON result(at_us) WHERE outcome <> 'done';
CREATE INDEX attempt_job ON attempt(job, fence);
CREATE INDEX attempt_orphan ON attempt(at_us) WHERE is_orphan;
CREATE INDEX attempt_orphan_user ON attempt(uid, at_us) WHERE is_orphan;
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
FROM job JOIN submit ON submit.first = job.submit
;
COMMIT;
PRAGMA application_id = 0x424c4b48;
PRAGMA user_version = 1;
