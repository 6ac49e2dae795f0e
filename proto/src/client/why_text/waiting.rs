//! The sentences of `bulkhead why` on what a job waits for: jobs that go first, workers, unread results, descriptors.
//!
//! `why_text.rs` calls these functions for a job that waits. They never speak of earlier attempts, and say no more than
//! the fields of [`QueuedBefore`], [`WhyPool`] and [`Unread`] do.

use super::{counted, many, span};
use crate::client::view::PoolHealth;
use crate::client::why::{
    DrainLeft, Longest, OutputFilesWait, OutputWait, QueuedBefore, Unread, WhyPool, WhyShare,
};
use crate::kind::DEFAULT_POOL;
use crate::limits::{OUTPUTS_KEY, UNCLOSED_MAX};

/// The jobs that go before it in the queue.
pub(super) fn say_before(before: &QueuedBefore, said: &mut Vec<String>) {
    let QueuedBefore { same_client, same_user, clients, others, users, users_first, alone } = *before;
    if same_client > 0 {
        said.push(format!(
            "{} before it.",
            counted(same_client, "job of its client goes", "jobs of its client go")
        ));
    }
    if same_user > 0 {
        let jobs = counted(same_user, "more urgent job", "more urgent jobs");
        said.push(format!(
            "{jobs} of other clients of its user {} before it.",
            if same_user == 1 { "goes" } else { "go" }
        ));
    }
    if clients > 0 {
        let clients = many(clients, "other client of its user has", "other clients of its user have");
        said.push(format!("{clients} queued jobs of its priority; clients take turns."));
    }
    if others > 0 {
        let whose = many(users, "other user", "other users");
        let (jobs, are) = if others == 1 { ("job", "is") } else { ("jobs", "are") };
        said.push(format!("{others} {jobs} of {whose} {are} queued; users take turns."));
    }
    if users_first > 0 {
        let first = many(users_first, "of these users holds", "of these users hold");
        let go = if users_first == 1 { "goes" } else { "go" };
        said.push(format!("{first} fewer workers of the pool than the user of this job, and {go} first."));
    }
    if alone > 0 {
        let first = many(alone, "job that has to run alone waits", "jobs that have to run alone wait");
        said.push(format!("{first} for a worker that has run nothing, and then goes first."));
    }
    if same_client + same_user + clients + others == 0 {
        said.push("It is the next one in the queue.".to_owned());
    }
}

/// The state of the pool that will run it; `fresh` if it needs a worker that has run nothing.
pub(super) fn say_pool(pool: &WhyPool, fresh: bool, said: &mut Vec<String>) {
    let up = pool.busy + pool.idle + pool.spent + pool.unclosed + pool.closed;
    if pool.name != DEFAULT_POOL {
        said.push(format!("Its kind has workers of its own, pool {}.", pool.name));
    }
    if pool.busy > 0 && pool.idle == 0 {
        let all = match (pool.slots, pool.busy) {
            (1, _) => "The only worker is busy".to_owned(),
            (slots, busy) if slots == busy => format!("All {slots} workers are busy"),
            (slots, busy) => {
                format!("{} busy, in {slots} slots", many(u64::from(busy), "worker is", "workers are"))
            }
        };
        let longest = pool.longest.map_or_else(String::new, |longest| format!(": {}", of_longest(longest)));
        said.push(format!("{all}{longest}."));
    }
    said.extend(share_text(pool));
    if pool.spent > 0 {
        let spent = many(u64::from(pool.spent), "worker gets", "workers get");
        said.push(format!(
            "{spent} no further task (recycle_strict) until a spare is up, which takes its place."
        ));
    }
    if pool.unclosed > 0 {
        let unclosed = many(u64::from(pool.unclosed), "worker gets", "workers get");
        said.push(format!(
            "{unclosed} no further task: more than {UNCLOSED_MAX} files of clients wait there to be closed, behind a close that \
             hangs. This ends when they are closed, or when a spare takes the place of the worker."
        ));
    }
    if pool.closed > 0 {
        let closed = many(u64::from(pool.closed), "worker", "workers");
        said.push(format!("{closed} cannot be sent a task now: the channel is full or closed."));
    }
    if up < pool.slots || fresh && pool.spares == 0 {
        say_missing(pool, fresh, up, said);
    }
    if pool.health == PoolHealth::Degraded {
        said.push(format!("The pool is degraded: {}.", pool.health_reason));
    }
    said.extend(pool.drain.map(drain_text));
}

/// What keeps the user of the job from having a worker, and what would help.
fn share_text(pool: &WhyPool) -> Option<String> {
    const HELP: &str = "a greater `lend_max` would help, as would a limit of time for the tasks that run \
                        (`timeout_max_seconds`) or a most of workers for each user (`running_max`)";
    let share = &pool.share;
    if let Some(most) = share.running_max.filter(|most| share.held >= *most) {
        let held = many(u64::from(share.held), "worker runs tasks", "workers run tasks");
        return Some(format!("{held} of its user, who may hold no more: `running_max` is {most}."));
    }
    if let Some(most) = share.stuck_max.filter(|most| share.held >= *most) {
        return Some(stuck_text(share, pool.slots, most));
    }
    if !share.others_hold_all {
        return None;
    }
    share.lend_after_ms?;
    let none = "Its user holds none of them";
    Some(match (share.lends_in_ms?, share.lend_max) {
        (_, 0) => format!("{none}, and the pool lends no slot (`lend_max` is 0): {HELP}."),
        (_, most) if share.lent >= most => {
            format!("{none}, and the pool has lent as many slots as it may (`lend_max` is {most}): {HELP}.")
        }
        (0, _) => format!("{none}: the pool lends its user a slot as soon as a spare is ready."),
        (left, _) => format!("{none}: if that stays so, the pool lends its user a slot in {}.", span(left)),
    })
}

/// Stuck workers keep the user of the job from having one more.
fn stuck_text(share: &WhyShare, slots: u16, most: u16) -> String {
    let WhyShare { held, stuck, .. } = *share;
    let until = "`bulkhead status` shows stuck workers and where in the kernel they wait";
    match stuck {
        0 => format!(
            "As many stuck workers of the pool were replaced as it has slots ({slots}), so a user may hold {most} of its \
             workers, half of the slots, and its user holds {held}: {until}."
        ),
        _ => format!(
            "{} stuck with tasks of its user. Until they are gone, its user may hold {most} workers of the pool (half of its {slots} \
             slots, less the stuck ones) and holds {held}: {until}.",
            many(u64::from(stuck), "worker is", "workers are")
        ),
    }
}

pub(super) fn drain_text(drain: DrainLeft) -> String {
    match drain.left_ms {
        Some(left) => format!("The daemon is draining: jobs that have not ended in {} are lost.", span(left)),
        None => "The daemon is draining: it takes no new jobs and runs this one before it stops.".to_owned(),
    }
}

/// Why a worker is missing, and when the next one is spawned.
fn say_missing(pool: &WhyPool, fresh: bool, up: u16, said: &mut Vec<String>) {
    let what = match (up, fresh && pool.spares == 0) {
        (0, _) => "No worker is up".to_owned(),
        (_, true) => "No spare is ready (a worker that has run nothing)".to_owned(),
        (up, false) => format!("{up} of {} slots have a worker", pool.slots),
    };
    let mut why = Vec::new();
    if pool.starting > 0 {
        why.push(many(u64::from(pool.starting), "worker is starting", "workers are starting"));
    }
    if pool.dying + pool.stuck > 0 {
        let dying = u64::from(pool.dying + pool.stuck);
        why.push(many(dying, "killed worker has not ended yet", "killed workers have not ended yet"));
    }
    why.extend(pool.next_spawn_ms.map(|ms| match ms {
        0 => "the next worker is spawned at once".to_owned(),
        ms => format!("the next worker is spawned in {}", span(ms)),
    }));
    let why = why.join(", ");
    said.push(if why.is_empty() { format!("{what}.") } else { format!("{what}: {why}.") });
}

fn of_longest(longest: Longest) -> String {
    let (worker, time) = (longest.worker, span(longest.for_ms));
    match longest.job {
        Some(job) => format!("worker {worker} has run job {job} for {time}, longer than any other"),
        None => format!("worker {worker} has run a job of another user for {time}, longer than any other"),
    }
}

pub(super) fn unread_text(unread: &Unread) -> String {
    let Unread { bytes, bytes_max, outputs, outputs_max, of_user } = unread;
    let held = match (of_user, outputs >= outputs_max) {
        (Some(met), _) => format!("{met}, and {bytes} bytes wait for this client"),
        (None, true) => {
            format!("{outputs} outputs are unread (limit {outputs_max} on one connection, which is fixed)")
        }
        (None, false) => format!(
            "{bytes} bytes of results are unread (limit {bytes_max} on one connection, which is fixed)"
        ),
    };
    format!(
        "It waits because its client does not read its results: {held}; its jobs start again when it reads."
    )
}

/// The memory in outputs and logs that leaves no room for one more.
pub(super) fn outputs_text(wait: &OutputWait) -> String {
    if let Some(OutputFilesWait { held, held_by_all, share, bound }) = wait.files {
        return format!(
            "It waits to open a file for its output or its log: its user's take {held} of {share} files, and those of all users \
             {held_by_all} of {bound} (RLIMIT_NOFILE). Results that are read or forgotten give room."
        );
    }
    let OutputWait { held, running, held_by_all, share, bound, files: _ } = wait;
    format!(
        "It waits for room in memory for its output or its log: its user's take {held} of {share} bytes, {running} of them \
         for tasks that run, and those of all users {held_by_all} of {bound} ({OUTPUTS_KEY}). Results that are read or \
         forgotten give room."
    )
}

pub(super) fn shortage(ms: u64) -> String {
    format!("No file could be made for an output; the daemon tries again in {}.", span(ms))
}
