//! `bulkhead status`: the state of the daemon, its pools and its counts, in a few lines.
//!
//! One line says what this version does not do: jobs live only as long as the daemon.

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::{
    AccountRow, HoldingRow, PoolRow, Status, SurvivorRow, WorkerRow, WorkerState,
};

use crate::args::GlobalArgs;
use crate::state_names::pool_health;
use crate::stdio::StdoutWriter;
use crate::verb::workers;
use crate::{duration, plural, time};

const EXAMPLES: &str = "\
Examples:
  bulkhead status
  bulkhead status --json | jq .totals
  bulkhead status --json | jq '.accounts[] | {uid, full: [.holds[] | select(.held == .share)]}'";

/// Accounts in the text, and what each holds: the fullest first. `--json` has all.
const ACCOUNTS_TOLD: usize = 5;
const HOLDINGS_TOLD: usize = 3;

/// Shows the state of the daemon: pools, queue, and counts since its start
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let status = global.connect()?.status()?;
        let mut out = StdoutWriter::new();
        if global.json {
            out.json(&status)?;
        } else {
            describe(&status, time::now_us()).iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

fn describe(status: &Status, now_us: u64) -> Vec<String> {
    let Status { totals, outputs, .. } = status;
    let up = duration::rough(now_us.saturating_sub(status.started_us));
    let durability = if status.durable {
        "durable: accepted jobs outlive the daemon"
    } else {
        "volatile: jobs live as long as this daemon and end as lost with it"
    };
    let mut lines = vec![
        format!("daemon    bulkhead {}, pid {}, up {up}", status.version, status.pid),
        format!("jobs are  {durability}"),
        format!(
            "jobs      {} queued (of {}), {} retrying, {} running",
            status.queued,
            most_queued(status),
            status.retrying,
            status.running
        ),
        format!(
            "kept      {} ended jobs with {} bytes of results, {} of them quarantined",
            status.kept, status.kept_bytes, status.quarantined
        ),
        format!(
            "memory    {} bytes of outputs and logs (of {} at most): {} for tasks that run, {} unread, {} kept, {} in logs",
            outputs.held, outputs.max, outputs.running, outputs.unread, outputs.kept, outputs.logs
        ),
        format!("clients   {}", status.clients),
        format!(
            "accepted  {}: {} done, {} failed, {} crashed, {} timed out, {} cancelled, {} expired, {} lost",
            totals.accepted,
            totals.done,
            totals.failed,
            totals.crashed,
            totals.timed_out,
            totals.cancelled,
            totals.expired,
            totals.lost
        ),
        format!(
            "since     {} deaths, {} retries, {} workers spawned, {} jobs refused, {} results dropped early",
            totals.deaths, totals.retries, totals.spawned, totals.refused, totals.evicted
        ),
    ];
    if !status.shortage.is_empty() {
        lines.insert(3, format!("short     jobs with large results wait: {}", status.shortage));
    }
    let pools = pools(status).into_iter();
    lines.splice(
        2..2,
        pools
            .chain(status.lent.iter().map(lent))
            .chain(status.stuck.iter().map(stuck))
            .chain(status.survivors.iter().map(lives_on)),
    );
    lines.extend(accounts(status));
    if status.draining {
        lines.insert(1, "draining  it accepts no new jobs, and stops when the last one has ended".to_owned());
    }
    lines
}

/// The bound of the queue, and how much is beyond it.
fn most_queued(status: &Status) -> String {
    let most = format!("{} at most, queue_max", status.queue_max);
    match status.queued.saturating_sub(status.queue_max) {
        0 => most,
        beyond => format!("{most}; {beyond} of them beyond it, for users who hold few and for retries"),
    }
}

fn lent(row: &WorkerRow) -> String {
    let slot = row.slot.map(|slot| slot.to_string()).unwrap_or_default();
    let whom = row.lent_to.map_or_else(|| "another user".to_owned(), |uid| format!("user {uid}"));
    let whom = if row.state == WorkerState::Stuck { "nobody: its worker is stuck".to_owned() } else { whom };
    format!("lent      slot {slot} of pool {}, worker {}, to {whom}", row.pool, row.worker)
}

fn stuck(row: &WorkerRow) -> String {
    let pid = row.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    let seen =
        row.seen.as_ref().map(|seen| format!(", in {}", workers::waiting(row, seen))).unwrap_or_default();
    format!("stuck     worker {}, pid {pid}: killed, and has not died yet{seen}", row.worker)
}

fn lives_on(row: &SurvivorRow) -> String {
    let of = match (row.job, row.worker) {
        (Some(job), _) => format!(", of job {job}"),
        (None, Some(worker)) => format!(", of worker {worker}"),
        (None, None) => String::new(),
    };
    format!("lives on  {}{of}: it could not be ended", row.survivor)
}

/// One line for each pool. A single pool is printed without its name, and without counts that the next lines have.
fn pools(status: &Status) -> Vec<String> {
    let several = status.pools.len() > 1;
    let line = |pool: &PoolRow| {
        let slots = plural::count(u64::from(pool.slots), "slot");
        let spares = plural::count(u64::from(pool.spares), "spare");
        match several {
            false => format!("pool      {}, {slots}, {spares}", health(pool)),
            true => format!(
                "pool      {}: {}, {slots}, {} busy, {spares}, {} waiting",
                pool.name,
                health(pool),
                pool.busy,
                pool.waiting
            ),
        }
    };
    status.pools.iter().map(line).collect()
}

/// One line for each account: one's own, and for administrators those that are fullest.
fn accounts(status: &Status) -> Vec<String> {
    let told = status.accounts.iter().take(ACCOUNTS_TOLD);
    let mut lines: Vec<_> = told.filter_map(account).collect();
    let more = status.accounts.len().saturating_sub(ACCOUNTS_TOLD) as u64 + status.accounts_left_out;
    if more > 0 {
        let more = plural::count(more, "account");
        lines.push(format!("account   {more} more: --json has {}", status.accounts.len()));
    }
    lines
}

/// What an account holds most of, by its share. `None`: it holds nothing that is bounded.
fn account(row: &AccountRow) -> Option<String> {
    let most = |row: &HoldingRow| row.share.or(row.bound);
    let is_full = |row: &HoldingRow| row.left == Some(0);
    let part = |row: &HoldingRow| {
        let part = u128::from(row.held) * 1_000_000 / u128::from(most(row).unwrap_or(1).max(1));
        (is_full(row), part)
    };
    let mut holds: Vec<_> = row.holds.iter().filter(|row| row.held > 0 && most(row).is_some()).collect();
    holds.sort_by_key(|row| std::cmp::Reverse(part(row)));
    let told = holds.iter().take(HOLDINGS_TOLD).map(|row| {
        let set_by = row.key.as_deref().or(row.fixed.then_some("fixed"));
        let filled = row.bound.filter(|_| is_full(row) && row.share.is_some_and(|share| row.held < share));
        let filled = filled.map(|bound| format!("all users together fill its {bound}"));
        let notes: Vec<_> = set_by.map(str::to_owned).into_iter().chain(filled).collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        format!("{} of {} {}{notes}", row.held, most(row).unwrap_or(row.held), row.resource)
    });
    let told: Vec<_> = told.collect();
    let whose = row.uid.map_or_else(|| "service".to_owned(), |uid| format!("user {uid}"));
    (!told.is_empty()).then(|| format!("account   {whose}: {}", told.join(", ")))
}

fn health(pool: &PoolRow) -> String {
    let word = pool_health(pool.health);
    if pool.health_reason.is_empty() { word.to_owned() } else { format!("{word} ({})", pool.health_reason) }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::evidence::ProcessSeen;
    use bulkhead_proto::client::outcome::Survivor;
    use bulkhead_proto::client::view::{OutputMemory, PoolHealth, Totals};
    use bulkhead_proto::ids::{JobId, SlotId, WorkerId};

    use super::*;

    fn holding(resource: &str, held: u64, share: Option<u64>, key: Option<&str>) -> HoldingRow {
        let key = key.map(str::to_owned);
        let (bound, fixed) = (share.map(|share| share + 1), share.is_some() && key.is_none());
        let left = share.map(|share| share - held);
        HoldingRow { resource: resource.to_owned(), held, share, left, bound, key, fixed }
    }

    fn worker(number: u64, slot: Option<SlotId>, state: WorkerState) -> WorkerRow {
        WorkerRow {
            worker: WorkerId(number),
            pool: "default".to_owned(),
            slot,
            lent: false,
            lent_to: None,
            pid: None,
            state,
            job: None,
            offers: 0,
            ended: 7,
            spawned_us: 0,
            stopped: None,
            seen: None,
            program: None,
        }
    }

    /// A daemon that is not well, and is asked to leave.
    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 812,
            started_us: 0,
            durable: false,
            draining: true,
            health: PoolHealth::Degraded,
            health_reason: "10 deaths in 10 s".to_owned(),
            slots: 2,
            spares: 1,
            pools: vec![PoolRow {
                name: "default".to_owned(),
                health: PoolHealth::Degraded,
                health_reason: "10 deaths in 10 s".to_owned(),
                slots: 2,
                busy: 1,
                spares: 1,
                waiting: 5,
                lent: 1,
                lend_max: 2,
                running_max: None,
            }],
            lent: vec![WorkerRow {
                lent: true,
                lent_to: Some(1002),
                ..worker(4, Some(SlotId(2)), WorkerState::Busy)
            }],
            stuck: vec![WorkerRow {
                pid: Some(99),
                offers: 1,
                seen: Some(ProcessSeen {
                    pid: 99,
                    waits_in: "nfs_wait".to_owned(),
                    ..ProcessSeen::default()
                }),
                ..worker(3, None, WorkerState::Stuck)
            }],
            survivors: vec![SurvivorRow {
                survivor: Survivor { pid: 813, uid: Some(0), name: "sudo".to_owned() },
                worker: Some(WorkerId(3)),
                job: Some(JobId(17)),
            }],
            clients: 1,
            queued: 5,
            retrying: 0,
            running: 2,
            kept: 3,
            kept_bytes: 12,
            outputs: OutputMemory { held: 60, running: 10, unread: 20, kept: 5, logs: 25, max: 100 },
            quarantined: 1,
            queue_max: 1_000_000,
            shortage: "no output descriptor: 64 are open".to_owned(),
            totals: Totals { accepted: 10, deaths: 4, ..Totals::default() },
            accounts: vec![AccountRow {
                uid: Some(1001),
                holds: vec![
                    holding("jobs", 900, None, None),
                    holding("queued jobs", 30, Some(75), Some("queue_max")),
                    holding("connections", 3, Some(3), Some("clients_max")),
                    holding("jobs to wait for", 5, Some(100), None),
                    holding("kept jobs", 0, None, Some("keep_jobs_max")),
                ],
            }],
            accounts_left_out: 2,
        }
    }

    #[test]
    fn it_says_what_jobs_are_worth_and_why_the_pool_is_ill() {
        let status = status();
        let text = describe(&status, 61_000_000).join("\n");
        for part in [
            "pid 812, up 1m01s",
            "volatile: jobs live as long as this daemon",
            "it accepts no new jobs",
            "degraded (10 deaths in 10 s), 2 slots, 1 spare",
            "lent      slot 2 of pool default, worker 4, to user 1002",
            "stuck     worker 3, pid 99: killed, and has not died yet, in nfs_wait (unknown)",
            "lives on  process 813 (sudo, user 0), of job 17: it could not be ended",
            "5 queued (of 1000000 at most, queue_max)",
            "accepted  10:",
            "short     jobs with large results wait: no output descriptor: 64 are open",
            "memory    60 bytes of outputs and logs (of 100 at most): 10 for tasks that run, 20 unread, 5 kept, 25 in logs",
            "4 deaths",
            "account   user 1001: 3 of 3 connections (clients_max), 30 of 75 queued jobs (queue_max), 5 of 100 jobs to wait for (fixed)",
            "account   2 accounts more: --json has 1",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_queue_beyond_its_bound_is_told_and_whose_room_that_leaves() {
        let mut status = Status { queued: 1_000_010, ..status() };
        let queue = &mut status.accounts[0].holds[1];
        (queue.left, queue.bound) = (Some(0), Some(100));
        let text = describe(&status, 61_000_000).join("\n");
        for part in [
            "1000010 queued (of 1000000 at most, queue_max; 10 of them beyond it, for users who hold few and for retries)",
            "30 of 75 queued jobs (queue_max; all users together fill its 100)",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn several_pools_are_told_by_name() {
        let status = status();
        let heavy = PoolRow {
            name: "heavy".to_owned(),
            health: PoolHealth::Healthy,
            health_reason: String::new(),
            slots: 1,
            ..status.pools[0].clone()
        };
        let both = Status { pools: vec![status.pools[0].clone(), heavy], ..status };
        let lines = describe(&both, 61_000_000);
        assert_eq!(
            lines[3..5],
            [
                "pool      default: degraded (10 deaths in 10 s), 2 slots, 1 busy, 1 spare, 5 waiting",
                "pool      heavy: healthy, 1 slot, 1 busy, 1 spare, 5 waiting",
            ]
        );
    }
}
