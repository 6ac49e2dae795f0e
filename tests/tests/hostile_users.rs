//! Users who want what is not theirs: jobs of others, the daemon's end, all of its connections.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;

use bulkhead_proto::client::frame::Hello;
use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::client::view::{AccountRow, HoldingRow};
use bulkhead_proto::ids::JobId;
use bulkhead_sys::hostile_peer;
use bulkhead_tests::daemon::{binary, eventually};
use bulkhead_tests::other_users::{ALICE, BOB, CAROL, connect_as, system_daemon};
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::raid::{assert_answers, may_become_others};
use bulkhead_tests::wire::{Wire, submit};
use bulkhead_tests::{or_skip, skip};

/// What the daemon says to it; it may do so before it hears anything.
fn verdict(wire: &mut Wire) -> u32 {
    drop(wire.socket.write_all(&Hello::new(0).to_bytes()));
    wire.hello().verdict
}

/// Whether it says what it would say of a job that was forgotten, so that nobody learns that there is one.
fn is_unknown(reply: &Reply, job: JobId) -> bool {
    let unknown = Refusal::Gone { job, others: true };
    match reply {
        Reply::Refused(refusal) => *refusal == unknown,
        Reply::CancelledWaiting { ended, running, refused } if ended.is_empty() && running.is_empty() => {
            refused.iter().flat_map(RefusedJobs::refusals).eq([unknown])
        }
        Reply::Changed { count: 0, refused } => refused.iter().flat_map(RefusedJobs::refusals).eq([unknown]),
        Reply::Unknown(jobs) => jobs.refusals().eq([(job, unknown)]),
        _ => false,
    }
}

#[test]
fn jobs_of_another_user_do_not_exist() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let mut alice = connect_as(&daemon, ALICE).welcome();
    let mut bob = connect_as(&daemon, BOB).welcome();
    let done = alice.submit("noop", &["secret"]);
    assert!(matches!(alice.call(Request::Wait { jobs: vec![done] }), Reply::Ended(_)));
    let runs = alice.submit("sleep", &["600000"]);
    for job in [done, runs] {
        let jobs = || vec![job];
        for request in [
            Request::Wait { jobs: jobs() },
            Request::Result { job },
            Request::Cancel { jobs: jobs() },
            Request::CancelWaiting { jobs: jobs() },
            Request::Retry { jobs: jobs() },
            Request::Forget { jobs: jobs() },
            Request::Job { job },
        ] {
            let asked = format!("{request:?}");
            let reply = bob.call(request);
            assert!(is_unknown(&reply, job), "{asked}: {reply:?}");
        }
    }
    let rows = bob.call(Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 100 });
    assert!(matches!(&rows, Reply::Jobs { rows, .. } if rows.is_empty()), "{rows:?}");
    let Reply::Events { records, .. } = bob.call(Request::Events { after: 0, follow: false }) else {
        panic!("no events")
    };
    let told = records.iter().map(|record| record.what.to_string()).collect::<Vec<_>>().join("\n");
    assert!(!told.contains("job accepted") && !told.contains("job=1"), "{told}");
    // Nothing of hers was changed.
    assert!(matches!(alice.call(Request::Result { job: done }), Reply::Ended(_)));
    assert!(matches!(alice.call(Request::Cancel { jobs: vec![runs] }), Reply::Changed { count: 1, .. }));
}

#[test]
fn who_is_no_administrator_does_not_drain() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let mut alice = connect_as(&daemon, ALICE).welcome();
    for grace_ms in [None, Some(0), Some(u64::MAX)] {
        let reply = alice.call(Request::Drain { grace_ms });
        assert!(
            matches!(&reply, Reply::Refused(refusal) if refusal.to_string().contains("not allowed")),
            "{reply:?}"
        );
    }
    assert_eq!(alice.run("noop", &["still here"])[0].outcome, Outcome::Done);
}

/// The kernel says who connected; who speaks later does not count, in either direction.
#[test]
fn a_connection_stays_its_makers() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    // Made by Alice, spoken on by root, who this test is.
    let mut handed_on = connect_as(&daemon, ALICE).welcome();
    let roots = Wire::connect(&daemon.socket()).submit("noop", &["root's"]);
    assert!(is_unknown(&handed_on.call(Request::Job { job: roots }), roots));
    assert!(matches!(handed_on.call(Request::Drain { grace_ms: Some(0) }), Reply::Refused(_)));
}

/// Root in a user namespace of its own is nobody here.
#[test]
fn root_of_another_namespace_is_no_root() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let program = daemon.folder().join("bulkhead");
    copy_program(&binary("bulkhead"), &program);
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "60001", "--regid", "65534", "--clear-groups"]);
        command.args(["unshare", "--user", "--map-root-user", "--pid", "--fork"]);
        command.args(arguments).output().expect("setpriv runs, it is part of every Debian")
    };
    let who = inside(&["id", "-u"]);
    if who.stdout != b"0\n" {
        skip!("no user namespace is to be had here");
    }
    let socket = daemon.socket();
    let ask = |arguments: &[&str]| {
        let own = [program.to_str().unwrap(), "--socket", socket.to_str().unwrap()];
        inside(&[&own, arguments].concat())
    };
    let drain = ask(&["drain"]);
    let said = String::from_utf8_lossy(&drain.stderr).into_owned();
    assert!(!drain.status.success() && said.contains("not allowed"), "{said}");
    assert!(ask(&["run", "noop", "x"]).status.success(), "it is served as who it is");
}

#[test]
fn one_user_cannot_take_every_connection() {
    or_skip!(may_become_others());
    let daemon = system_daemon("clients_max = 8\n");
    let mut taken: Vec<_> = (0..6).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    for _ in 0..100 {
        let mut refused = connect_as(&daemon, ALICE);
        assert_eq!(verdict(&mut refused), Hello::BUSY);
        let why = refused.goodbye();
        assert!(
            why.contains("share of the connections is used up (limit 6 of 8, set by clients_max)"),
            "{why}"
        );
    }
    let mut bob = connect_as(&daemon, BOB).welcome();
    assert_eq!(bob.run("noop", &["x"])[0].outcome, Outcome::Done);
    assert_answers(&mut Wire::connect(&daemon.socket()));
    let log = daemon.log();
    let said = log.matches("client turned away").count();
    assert!((1..50).contains(&said), "said {said} times");
    drop(taken.pop());
    let mut back = eventually("her seat is free again", || {
        let mut wire = connect_as(&daemon, ALICE);
        (verdict(&mut wire) == Hello::WELCOME).then_some(wire)
    });
    assert_answers(&mut back);
}

/// Two users fill the bound; one who holds nothing still connects, beyond it.
#[test]
fn who_has_no_connection_gets_one() {
    or_skip!(may_become_others());
    let daemon = system_daemon("clients_max = 64\n");
    let alice: Vec<_> = (0..48).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    let bob: Vec<_> = (0..16).map(|_| connect_as(&daemon, BOB).welcome()).collect();
    for uid in [ALICE, BOB] {
        assert_eq!(verdict(&mut connect_as(&daemon, uid)), Hello::BUSY);
    }
    let mut carol = connect_as(&daemon, CAROL).welcome();
    assert_eq!(carol.run("noop", &["x"])[0].outcome, Outcome::Done);
    assert_eq!(verdict(&mut connect_as(&daemon, CAROL)), Hello::BUSY, "one is a 64th");
    drop((alice, bob));
}

#[test]
fn a_user_sees_its_own_account_and_an_administrator_all() {
    or_skip!(may_become_others());
    let daemon = system_daemon("clients_max = 100\nqueue_max = 40\n");
    let mut alice = connect_as(&daemon, ALICE).welcome();
    let _more: Vec<_> = (0..4).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    let mut bob = connect_as(&daemon, BOB).welcome();
    alice.submit("sleep", &["600000"; 20]);
    let status = |wire: &mut Wire| match wire.call(Request::Status) {
        Reply::Status(status) => status,
        reply => panic!("no status: {reply:?}"),
    };
    let row = |account: &AccountRow, resource: &str| {
        let row = account.holds.iter().find(|row| row.resource == resource).cloned();
        row.unwrap_or_else(|| panic!("no {resource} in {account:?}"))
    };
    let told = |held, share, bound, key: &str| (held, Some(share), Some(bound), Some(key.to_owned()));
    let of = |row: HoldingRow| (row.held, row.share, row.bound, row.key);
    let hers = status(&mut alice).accounts;
    assert_eq!(hers.iter().map(|account| account.uid).collect::<Vec<_>>(), [Some(ALICE)]);
    assert_eq!(of(row(&hers[0], "connections")), told(5, 75, 100, "clients_max"), "the shell's");
    let queued = row(&hers[0], "queued jobs");
    assert!(queued.held > 0 && of(queued.clone()) == told(queued.held, 30, 40, "queue_max"), "{queued:?}");
    let connections = hers[0].holds.iter().filter(|row| row.resource == "connections").count();
    assert_eq!(connections, 1, "the core counts them as well: {hers:?}");
    let his = status(&mut bob).accounts;
    assert_eq!(his.iter().map(|account| account.uid).collect::<Vec<_>>(), [Some(BOB)]);
    assert_eq!(row(&his[0], "queued jobs").held, 0, "his own shows bounds of which he holds nothing");
    let all = status(&mut Wire::connect(&daemon.socket())).accounts;
    let uids: Vec<_> = all.iter().filter_map(|account| account.uid).collect();
    assert_eq!(uids, [0, ALICE, BOB], "one's own first, then by how full they are");
    // A worker that came up meanwhile may have taken one.
    assert!((1..=queued.held).contains(&row(&all[1], "queued jobs").held), "{all:?}");
    let refused = match alice.call(Request::Submit(submit("noop", &["x"; 40], false))) {
        Reply::Accepted { refused: Some(refusal), .. } | Reply::Refused(refusal) => refusal.to_string(),
        reply => panic!("not refused: {reply:?}"),
    };
    assert!(refused.contains("your share of the queued jobs is used up (limit 30 of 40, set by queue_max)"));
}

/// What waits for its close waits on its sender's own account.
#[test]
fn lingering_descriptors_cost_nobody_but_their_sender() {
    or_skip!(may_become_others());
    let daemon = system_daemon("clients_max = 4\n");
    let (mut readers, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (lingers, reader) = hostile_peer::lingering().unwrap();
        readers.push(reader);
        let mut alice = connect_as(&daemon, ALICE).welcome();
        hostile_peer::send(alice.socket.as_fd(), b"x", &[lingers.as_fd(); 9], hostile_peer::SendMode::Plain)
            .unwrap();
        // Ours may be the last: then it waits for its reader.
        ours.push(std::thread::spawn(move || drop(lingers)));
        assert!(alice.goodbye().contains("at most 8 may"));
    }
    let mut bob = connect_as(&daemon, BOB).welcome();
    assert_eq!(bob.run_submit(submit("noop", &["x"], true))[0].outcome, Outcome::Done);
    drop(readers);
    ours.into_iter().for_each(|closing| closing.join().unwrap());
    eventually("her seats are free again", || {
        (verdict(&mut connect_as(&daemon, ALICE)) == Hello::WELCOME).then_some(())
    });
}
