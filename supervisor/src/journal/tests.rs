//! The loop's end of the journal, with real threads and a real database.

use std::time::Duration;

use bulkhead_core::action::LookUpNo;
use bulkhead_journal::settings::JournalSettings;
use bulkhead_proto::ids::ClientId;
use mio::{Events, Poll};
use tempfile::TempDir;

use super::*;
use crate::poll_source::PollSource;

/// No answer takes so long on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// A journal in a folder of its own, and what its threads wake.
struct Desk {
    journal: DaemonJournal,
    poll: Poll,
    _folder: TempDir,
}

impl Desk {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = JournalSettings { room_min_bytes: 0, ..JournalSettings::new(folder.path(), "0") };
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), PollSource::Threads.token()).unwrap());
        let choice = JournalChoice::In { settings, is_named: true };
        let StartedJournal { journal, .. } = DaemonJournal::start(choice, waker).unwrap();
        Self { journal, poll, _folder: folder }
    }

    fn running(&mut self) -> &mut RunningJournal {
        self.journal.0.as_mut().unwrap()
    }

    /// Hears what the threads tell, until this holds.
    fn hear_until(&mut self, holds: impl Fn(&DaemonJournal, &[Event]) -> bool) -> Vec<Event> {
        let (mut heard, mut ready) = (Vec::new(), Events::with_capacity(4));
        loop {
            self.journal.hear(&mut heard);
            if holds(&self.journal, &heard) {
                return heard;
            }
            self.poll.poll(&mut ready, Some(PATIENCE)).unwrap();
            assert!(!ready.is_empty(), "nothing more is told: {heard:?}");
        }
    }
}

#[test]
fn the_end_of_a_run_does_not_wait_for_a_writer_that_has_ended() {
    let mut desk = Desk::open();
    desk.running().writer.close(NextNumbers::default());
    let heard = desk.hear_until(|journal, _| journal.has_ended());
    assert!(heard.iter().any(|event| matches!(event, Event::JournalFailed { .. })), "{heard:?}");
    desk.journal.ask_for_end(JobId(1), GivenNumbers::default());
    assert!(desk.journal.has_ended());
    desk.journal.leave();
}

#[test]
fn a_reader_that_panics_answers_what_it_was_asked_and_what_comes_later() {
    let mut desk = Desk::open();
    let question = |number| {
        let (number, client) = (LookUpNo(number), ClientId(7));
        LookUpQuestion { number, client, uid: 7, jobs: vec![JobId(1)] }
    };
    let news = Arc::clone(&desk.running().news);
    let taken = std::sync::mpsc::channel();
    desk.running().reader = reader_thread::spawn(news, move |requests| {
        requests.recv().unwrap();
        taken.1.recv().unwrap();
        panic!("on purpose");
    })
    .unwrap();
    // One is in the hands of the thread when it panics, the other still in the channel.
    assert!(desk.journal.look_up(question(1)).is_none() && desk.journal.look_up(question(2)).is_none());
    taken.0.send(()).unwrap();
    let refused = |events: &[Event]| -> Vec<(u64, u64)> {
        let one = |event: &Event| {
            let Event::LookedUp { number, client, found: Err(why) } = event else { return None };
            why.contains("restart the daemon").then_some((number.0, client.0))
        };
        events.iter().filter_map(one).collect()
    };
    let heard = desk.hear_until(|_, heard| !refused(heard).is_empty());
    assert_eq!(refused(&heard), [(1, 7), (2, 7)]);
    let later = desk.journal.look_up(question(3));
    assert_eq!(refused(later.as_slice()), [(3, 7)]);
}
