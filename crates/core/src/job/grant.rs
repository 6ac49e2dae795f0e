//! Grants: the limits, budgets and output mode that a job gets of those that it asks for.
//!
//! A kind gives the usual value and the most that users may ask for; where it gives none, the daemon's configuration
//! does. [`grant`] is called once, at admission, and writes the result into the job's policy, which alone is read
//! later.

use bulkhead_proto::bound::{Bound, KindLimits};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::job::{CRASHES_MAX, OutputMode, Policy};
use bulkhead_proto::kind::Kind;

/// The value of one limit for a job that asks for `asked`; `Err` is the most that it may ask for. A job that asks for
/// nothing gets the usual value, and at most `most` unless its user is an administrator.
fn grant_one(bound: Bound, asked: Option<u64>, admin: bool) -> Result<Option<u64>, u64> {
    let most = bound.most.filter(|_| !admin);
    match (asked, most) {
        (Some(asked), Some(most)) if asked > most => Err(most),
        (Some(asked), _) => Ok(Some(asked)),
        (None, Some(most)) => Ok(Some(bound.usual.unwrap_or(most).min(most))),
        (None, None) => Ok(bound.usual),
    }
}

/// Writes the granted values into the policy of a job of this kind.
///
/// # Errors
/// A refusal that names the first limit that is above what the user may ask for.
pub(crate) fn grant(kind: &Kind, policy: &mut Policy, admin: bool) -> Result<(), Refusal> {
    grant_limits(&kind.limits, policy, admin)?;
    policy.crashes_max.get_or_insert(kind.crashes_max.unwrap_or(CRASHES_MAX));
    policy.retries_max.get_or_insert(kind.retries_max.unwrap_or(0));
    policy.grace_ms.get_or_insert(kind.cancel_grace_ms);
    if policy.output == OutputMode::Inline {
        policy.output = kind.output;
    }
    Ok(())
}

fn grant_limits(limits: &KindLimits, policy: &mut Policy, admin: bool) -> Result<(), Refusal> {
    let sorts = [
        ("timeout_ms", limits.timeout_ms, &mut policy.timeout_ms),
        ("no_progress_ms", limits.no_progress_ms, &mut policy.no_progress_ms),
        ("cpu_ms", limits.cpu_ms, &mut policy.cpu_ms),
        ("memory_bytes", limits.memory_bytes, &mut policy.memory_bytes),
    ];
    for (name, bound, value) in sorts {
        let asked = *value;
        *value = grant_one(bound, asked, admin).map_err(|most| {
            let asked = asked.unwrap_or(most);
            let needed = format!(
                "{name} {asked} is above {most}, the most that users may ask for: ask for less, or let an administrator submit it"
            );
            Refusal::Denied { needed }
        })?;
    }
    Ok(())
}

/// The first file that a job of this kind needs and that is not among `files`, in words for its client.
pub(crate) fn missing_file(kind: &Kind, files: &[FileUse]) -> Option<String> {
    // A program makes a file that its kind writes in a folder that it gets.
    let is_made =
        |needed: &FileUse| needed.way == Way::Out && files.contains(&FileUse::new(&needed.name, Way::Folder));
    let needed = kind.needs.iter().find(|needed| !files.contains(needed) && !is_made(needed))?;
    let (name, way) = (&needed.name, if needed.way == Way::In { "read" } else { "write" });
    let other_way = files.iter().any(|file| file.name == *name);
    let told = if other_way { "it came the other way" } else { "none of that name came" };
    Some(format!("a {} job needs a file {name:?} to {way}, and {told}", kind.name))
}
