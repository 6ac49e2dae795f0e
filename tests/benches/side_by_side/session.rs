//! No-op jobs on one session: four threads that submit, and one, beside the blocking client.
//!
//! One thread more reads in each case. Nothing is pinned. The cases take turns in one run, each with a connection of its own, so
//! that a change of the machine's load meets all. The aim is that threads which submit at once do not slow each other down.

use std::path::Path;
use std::sync::Arc;

use bulkhead_client::{
    JobInput, ReceivedOutput, RunOptions, Session, SessionEnd, SessionEvent, SessionOptions, Spec, discovery,
};
use bulkhead_tests::daemon::Setup;

use crate::figures::{Aim, Figures, median, median_ratio, seconds};
use crate::layout;

const JOBS: u64 = 400_000;
const THREADS: u64 = 4;
const ROUNDS: usize = 7;

pub(crate) fn run(figures: &mut Figures) {
    let daemon = layout::daemon(&Setup::default());
    let socket = daemon.socket();
    submit_from(&socket, 1, JOBS / 10);
    let (mut one, mut four, mut blocking) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each goes first as often as the other, but for one.
        let (first, second) = if round % 2 == 0 { (1, THREADS) } else { (THREADS, 1) };
        for threads in [first, second] {
            let rate = JOBS as f64 / seconds(|| submit_from(&socket, threads, JOBS));
            if threads == 1 { one.push(rate) } else { four.push(rate) }
        }
        blocking.push(JOBS as f64 / seconds(|| run_blocking(&socket)));
    }
    let (ratio, to_blocking) = (median_ratio(&four, &one), median_ratio(&one, &blocking));
    figures.add("session_blocking_client_per_s", median(blocking), Aim::None);
    figures.add("session_one_thread_per_s", median(one), Aim::None);
    figures.add("session_four_threads_per_s", median(four), Aim::None);
    figures.add("session_ratio_blocking", to_blocking, Aim::None);
    figures.add("session_ratio_four_one", ratio, Aim::AtLeast(0.9));
}

/// Submits so many jobs from these threads, and checks that each gives its own number back.
fn submit_from(socket: &Path, threads: u64, jobs: u64) {
    let client = discovery::find(Some(socket)).expect("the daemon listens");
    let session = Session::over(client, SessionOptions::default()).expect("a new connection");
    let spec = Arc::new(Spec::new("noop"));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (session, spec) = (&session, &spec);
            scope.spawn(move || {
                for token in (thread..jobs).step_by(usize::try_from(threads).expect("a few threads")) {
                    submit(session, spec, token);
                }
            });
        }
        let (mut leader, mut events, mut seen) = (session.lead(), Vec::new(), 0);
        while seen < jobs {
            leader.turn(None, None, &mut events).expect("the daemon answers");
            for event in events.drain(..) {
                let SessionEvent::Job { token, end: SessionEnd::Ended(end) } = event else { continue };
                let ReceivedOutput::Inline(bytes) = end.output else { panic!("an inline output") };
                assert_eq!(bytes, token.to_string().into_bytes());
                seen += 1;
            }
        }
    });
}

fn submit(session: &Session, spec: &Arc<Spec>, token: u64) {
    let mut input = JobInput::from(token.to_string().into_bytes());
    while let Err(refused) = session.submit(token, spec, input) {
        assert!(refused.is_full(), "{refused}");
        session.wait_for_room(None);
        input = refused.into_input();
    }
}

fn run_blocking(socket: &Path) {
    let mut client = discovery::find(Some(socket)).expect("the daemon listens");
    let inputs = (0..JOBS).map(|index| JobInput::from(index.to_string().into_bytes()));
    let mut seen = 0;
    for item in client.run(Spec::new("noop"), inputs, RunOptions { ordered: false, ..RunOptions::default() })
    {
        let item = item.expect("the daemon answers");
        let ReceivedOutput::Inline(bytes) = item.end.output else { panic!("an inline output") };
        assert_eq!(bytes, item.index.to_string().into_bytes());
        seen += 1;
    }
    assert_eq!(seen, JOBS);
}
