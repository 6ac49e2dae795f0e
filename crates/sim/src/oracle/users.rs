//! `users`: only administrators see or change jobs of other users.
//!
//! It judges replies by the user of the client and the owners of the jobs that they name. Logs are descriptors, not
//! replies, and have an oracle of their own. It never asks the core for the owner of a job.

use bulkhead_core::event::Peer;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::JobId;

use crate::oracle::ledger::Ledger;
use crate::oracle::verdicts::names;
use crate::report::{Verdict, broken};

/// A client gets this reply to this request.
///
/// # Errors
/// It is about a job that is not its own.
pub(crate) fn got(peer: Peer, request: Option<&Request>, reply: &Reply, ledger: &Ledger) -> Verdict {
    let is_strange = |job: &JobId| ledger.jobs.get(job).is_none_or(|job| job.uid != peer.uid);
    match shown(request, reply).into_iter().find(is_strange).filter(|_| !peer.admin) {
        Some(job) => {
            broken("users", format!("user {} asks {request:?}, and gets {reply:?} of job {job}", peer.uid))
        }
        None => Ok(()),
    }
}

/// The jobs that a reply shows or that were changed with it.
fn shown(request: Option<&Request>, reply: &Reply) -> Vec<JobId> {
    match (reply, request) {
        (Reply::Ended(all) | Reply::Held { ended: all, .. }, _) => {
            all.iter().map(|ended| ended.job).collect()
        }
        (Reply::Progress { job, .. } | Reply::Logs { job, .. }, _) => vec![*job],
        (Reply::Jobs { rows, .. }, _) => rows.iter().map(|row| row.job).collect(),
        (Reply::Job(detail), _) => vec![detail.row.job],
        (Reply::Why(why), _) => vec![why.job],
        (Reply::Deaths(rows), _) => rows.iter().map(|row| row.job).collect(),
        (Reply::Events { records, .. }, _) => {
            records.iter().filter_map(|record| subject(&record.what)).collect()
        }
        (
            Reply::Changed { refused, .. },
            Some(Request::Cancel { jobs } | Request::Retry { jobs } | Request::Forget { jobs }),
        ) => {
            let is_changed = |job: &&JobId| !refused.iter().any(|refusal| names(refusal, **job));
            jobs.iter().filter(is_changed).copied().collect()
        }
        _ => Vec::new(),
    }
}

/// The job that a record is about.
fn subject(what: &What) -> Option<JobId> {
    match what {
        What::Accepted { first: job, .. }
        | What::Blamed { job, .. }
        | What::Retried { job, .. }
        | What::Backoff { job, .. }
        | What::Ended { job, .. }
        | What::RetryAsked { job }
        | What::LivesOn { job: Some(job), .. } => Some(*job),
        // All are jobs of one user: see `Ledger::queued_ended`.
        What::EndedQueued { jobs, .. } => jobs.first().map(|range| range.first),
        _ => None,
    }
}
