//! Tests of what the machine makes of a configuration: the ledger, whose bounds name what sets them.

use bulkhead_proto::ids::JobId;

use super::ledger_of;
use crate::account::{BoundOrigin, Resource};
use crate::config::{Config, JournalTerms, JournalUse, LoweredBounds};

/// A change of one field of a configuration.
type Change = fn(&mut Config);

/// Each bound of the core follows the field of the key that it names. The fields that fixed ones follow are no keys.
#[test]
fn each_bound_names_what_sets_it() {
    const FIELDS: [(&str, Change); 16] = [
        ("queue_max", |config| config.queue_max += 1),
        ("queue_bytes_max", |config| config.queue_bytes_max += 1),
        ("files_max", |config| config.files_max += 1),
        ("files_bytes_max", |config| config.files_bytes_max += 1),
        ("arena_bytes_max", |config| config.arena_bytes_max += 1),
        ("keep_jobs_max", |config| config.keep_jobs_max += 1),
        ("keep_bytes_max", |config| config.keep_bytes_max += 1),
        ("keep_outputs_max", |config| config.keep_outputs_max += 1),
        ("outputs_bytes_max", |config| config.outputs_bytes_max += 1),
        ("journal_queue_max", |config| raise_journal(config, (4, 0))),
        ("journal_queue_bytes_max", |config| raise_journal(config, (0, 4))),
        // The supervisor computes it from that limit.
        ("RLIMIT_NOFILE", |config| config.open_outputs_max -= 1),
        ("", |config| config.keep_logs_max += 1),
        ("", |config| config.quarantine_max += 1),
        ("", |config| config.records_max += 1),
        // Bounds of the shell: its own test has them.
        ("clients_max", |_| ()),
    ];
    let shell = [
        Resource::Connections,
        Resource::Descriptors,
        Resource::PartialBytes,
        Resource::UnreadBytes,
        Resource::UnreadDescriptors,
    ];
    let terms =
        JournalTerms { jobs: (JobId(1), JobId(9)), facts_max: 100, fact_bytes_max: 100, was_unclean: false };
    let journal = JournalUse::Open(terms);
    let fixed = Config { open_outputs_max: 1000, journal, ..Config::default() };
    let usual = ledger_of(&fixed);
    for resource in Resource::ALL.into_iter().filter(|resource| !shell.contains(resource)) {
        let follows = FIELDS.iter().filter(|(_, raise)| {
            let mut config = fixed.clone();
            raise(&mut config);
            ledger_of(&config).bound(resource) != usual.bound(resource)
        });
        let follows: Vec<_> = follows.map(|(key, _)| *key).collect();
        match usual.origin(resource) {
            BoundOrigin::Key(key) | BoundOrigin::System(key) => assert_eq!(follows, [key], "{resource:?}"),
            BoundOrigin::Fixed => {
                assert!(follows.iter().all(|key| key.is_empty()), "{resource:?}: {follows:?}")
            }
            BoundOrigin::Unbounded => assert_eq!(usual.bound(resource), u64::MAX, "{resource:?}"),
        }
    }
}

fn raise_journal(config: &mut Config, (facts, bytes): (u64, u64)) {
    if let JournalUse::Open(terms) = &mut config.journal {
        terms.facts_max += facts;
        terms.fact_bytes_max += bytes;
    }
}

/// A bound that the limit of open files has lowered names that limit: its key would change nothing.
#[test]
fn a_bound_that_was_lowered_names_what_lowered_it() {
    let lowered = LoweredBounds { files: true, keep_logs: true, ..LoweredBounds::default() };
    let mut ledger = ledger_of(&Config { lowered, ..Config::default() });
    let alice = ledger.open(7);
    let key = |resource| ledger.room(alice, resource).met(resource).key;
    assert_eq!(key(Resource::Files).as_deref(), Some("RLIMIT_NOFILE"));
    assert_eq!(key(Resource::FileBytes).as_deref(), Some("files_bytes_max"));
    assert_eq!(key(Resource::Logs).as_deref(), Some("keep_outputs_max"), "a quarter of them");
    let lowered = LoweredBounds { keep_outputs: true, ..lowered };
    let ledger = ledger_of(&Config { lowered, ..Config::default() });
    assert_eq!(ledger.origin(Resource::Logs), BoundOrigin::OPEN_FILES);
}
