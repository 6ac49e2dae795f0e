//! Every assertion of this room bites: each test here breaks one rule and is stopped by its name.
//!
//! The fixture is a turn and two connected clients; where no method can break a rule, a test writes the field that
//! breaks it. What clients say breaks no rule: that is tested from outside, in `core/tests`.

use bulkhead_proto::ids::{ClientId, JobId, PoolId, Tag};

use super::*;
use crate::action::Output;
use crate::config::Config;
use crate::event::{Now, Peer};
use crate::turn::{AccountId, Turn};

const ALICE: ClientId = ClientId(1);
const BOB: ClientId = ClientId(2);
/// Never connected.
const NOBODY: ClientId = ClientId(9);
const PEER: Peer = Peer { uid: 1000, admin: false };
const JOB: JobId = JobId(1);

struct ClientRoom {
    turn: Turn,
    clients: Clients,
}

impl ClientRoom {
    fn new() -> Self {
        let mut turn = Turn::new(Config::default(), Now::default());
        turn.begin(Now { mono_ns: 1_000_000_000, wall_us: 1 }, &mut Output::default());
        let mut clients = Clients::default();
        clients.connect(&mut turn, ALICE, PEER, AccountId::SERVICE);
        clients.connect(&mut turn, BOB, PEER, AccountId::SERVICE);
        Self { turn, clients }
    }

    /// Alice has one attached batch of two jobs.
    fn with_batch() -> Self {
        let mut room = Self::new();
        room.attach(ALICE, 2);
        room
    }

    fn attach(&mut self, id: ClientId, count: u32) {
        self.clients.attach(id, JOB, AttachedBatch::new(count, PoolId(0), false));
    }

    fn vanish(&mut self) {
        self.clients.hang_up(&mut self.turn, ALICE);
        self.clients.vanish(&mut self.turn, ALICE);
    }
}

fn letter(own: bool) -> Letter {
    let reason = if own { LetterReason::Attached(Tag(1)) } else { LetterReason::Asked };
    Letter::new(reason, JOB)
}

#[test]
fn a_client_is_remembered_while_it_has_attached_jobs() {
    let mut room = ClientRoom::with_batch();
    assert!(room.clients.post(ALICE, letter(true)));
    let hung_up = room.clients.hang_up(&mut room.turn, ALICE).unwrap();
    assert_eq!((hung_up.letters.len(), hung_up.batches), (1, vec![(JOB, 2)]));
    room.clients.vanish(&mut room.turn, ALICE);
    assert!(room.clients.vanishes_ns(ALICE).is_some() && !room.clients.post(ALICE, letter(true)));
    room.clients.batch_gone(&mut room.turn, ALICE, JOB);
    assert_eq!((room.clients.vanishes_ns(ALICE), room.turn.next_alarm_ns()), (None, None));
}

#[test]
#[should_panic(expected = "client 1 connected twice")]
fn a_client_connects_once() {
    let mut room = ClientRoom::new();
    room.clients.connect(&mut room.turn, ALICE, PEER, AccountId::SERVICE);
}

#[test]
#[should_panic(expected = "the batch of job 1 is attached once")]
fn a_batch_is_attached_once() {
    ClientRoom::with_batch().attach(ALICE, 2);
}

#[test]
#[should_panic(expected = "the batch of job 1 has jobs")]
fn a_batch_has_jobs() {
    ClientRoom::new().attach(ALICE, 0);
}

#[test]
#[should_panic(expected = "a client is connected when its batch is accepted")]
fn a_batch_is_attached_to_a_connected_client() {
    ClientRoom::new().attach(NOBODY, 1);
}

#[test]
#[should_panic(expected = "client 1 hung up before it vanishes")]
fn a_client_hangs_up_before_it_vanishes() {
    let mut room = ClientRoom::with_batch();
    room.clients.post(ALICE, letter(true));
    room.clients.vanish(&mut room.turn, ALICE);
}

#[test]
#[should_panic(expected = "a client vanishes once")]
fn a_client_vanishes_once() {
    let mut room = ClientRoom::with_batch();
    room.vanish();
    room.vanish();
}

#[test]
#[should_panic(expected = "the batch of job 1 is attached to client 1")]
fn a_batch_is_gone_once() {
    let mut room = ClientRoom::with_batch();
    room.clients.batch_gone(&mut room.turn, ALICE, JOB);
    room.clients.batch_gone(&mut room.turn, ALICE, JOB);
}

#[test]
#[should_panic(expected = "client 1 vanished before it is forgotten")]
fn a_connected_client_is_not_forgotten() {
    let mut room = ClientRoom::with_batch();
    room.clients.remove_vanished(&mut room.turn, ALICE);
}

#[test]
#[should_panic(expected = "a client that vanished is forgotten once")]
fn a_client_is_forgotten_once() {
    let mut room = ClientRoom::with_batch();
    room.vanish();
    assert_eq!(room.clients.remove_vanished(&mut room.turn, ALICE).1, [(JOB, 2)]);
    room.clients.remove_vanished(&mut room.turn, ALICE);
}

#[test]
#[should_panic(expected = "the client of an attached job is connected")]
fn an_attached_end_waits_for_a_connected_client() {
    let mut room = ClientRoom::with_batch();
    room.vanish();
    room.clients.add_untold(ALICE, 10, 0);
}

#[test]
#[should_panic(expected = "bytes of ends that a client was not told are counted before they go")]
fn bytes_that_wait_for_a_client_are_counted() {
    let mut room = ClientRoom::new();
    room.clients.add_untold(ALICE, 10, 1);
    room.clients.remove_untold(ALICE, 11, 1);
}

#[test]
#[should_panic(expected = "outputs that a client was not told are counted before they go")]
fn outputs_that_wait_for_a_client_are_counted() {
    let mut room = ClientRoom::new();
    room.clients.add_untold(ALICE, 10, 1);
    room.clients.remove_untold(ALICE, 10, 2);
}

#[test]
#[should_panic(expected = "client 1 waits for the job 1 that it is told of")]
fn an_end_that_is_told_was_waited_for() {
    let mut room = ClientRoom::new();
    assert!(room.clients.wait(&mut room.turn, (ALICE, Tag(1)), JOB));
    room.clients.letter_read(&mut room.turn, ALICE, letter(false));
    // An attached end is no wait.
    room.clients.letter_read(&mut room.turn, ALICE, letter(true));
    room.clients.letter_read(&mut room.turn, ALICE, letter(false));
}

#[test]
#[should_panic(expected = "client 1 waits for the job 1 that it is told of")]
fn an_end_that_answers_a_wait_was_waited_for() {
    let room = ClientRoom::new();
    assert_eq!(room.clients.wait_of(NOBODY, JOB), None);
    room.clients.wait_of(ALICE, JOB);
}

#[test]
fn a_client_waits_for_a_job_once_and_the_latest_request_is_answered() {
    let mut room = ClientRoom::new();
    assert!(room.clients.wait(&mut room.turn, (ALICE, Tag(1)), JOB));
    assert!(!room.clients.wait(&mut room.turn, (ALICE, Tag(2)), JOB));
    assert!(room.clients.wait(&mut room.turn, (BOB, Tag(1)), JOB), "another client waits by itself");
    let waits = |id| room.clients.see(id).map(Client::asked_waits);
    assert_eq!(
        (room.clients.wait_of(ALICE, JOB), waits(ALICE), waits(BOB)),
        (Some(Tag(2)), Some(1), Some(1))
    );
}

#[test]
#[should_panic(expected = "bytes in envelopes are counted before they go")]
fn an_envelope_holds_no_more_than_all_of_them() {
    let mut room = ClientRoom::new();
    room.clients.seal(&mut room.turn, (ALICE, (Tag(1), false)), &mut Envelopes::miscounted(Tag(1)));
}

#[test]
#[should_panic(expected = "client 2 is told once that pool 0 is degraded")]
fn a_client_is_told_once_that_a_pool_is_degraded() {
    let mut room = ClientRoom::new();
    room.clients.note_told_degraded(BOB, PoolId(0), false);
    assert_eq!(room.clients.forget_told_degraded(PoolId(0)), [BOB]);
    room.clients.note_told_degraded(BOB, PoolId(0), false);
    room.clients.note_told_degraded(BOB, PoolId(0), false);
}

/// A worker with too many registrations forgets those that no offer names, although one that is in use was used before them.
#[test]
fn a_worker_never_forgets_what_an_offer_names() {
    use bulkhead_proto::ids::{RegistrationId, WorkerId};
    use bulkhead_proto::limits::WORKER_REGISTRATIONS_MAX;

    use crate::action::RegisteredContent;

    let (mut room, worker) = (ClientRoom::new(), WorkerId(7));
    let kind = bulkhead_proto::registration::RegistrationKind::Context;
    let last = WORKER_REGISTRATIONS_MAX as u64 + 3;
    for number in 1..=last {
        let content =
            RegisteredContent { kind, bytes: bulkhead_proto::job::Payload::default(), files: Vec::new() };
        room.clients.register(&mut room.turn, ((ALICE, number as u32), AccountId::SERVICE), content, 0);
        room.clients.lend_registrations(worker, [RegistrationId(number)].into_iter());
    }
    // The offer that names the first one stays; the others leave.
    for number in 2..=last {
        room.clients.offer_over(&mut room.turn, worker, [RegistrationId(number)].into_iter());
    }
    let mut out = Output::default();
    room.turn.end(&mut out);
    let mut forgotten = Vec::new();
    for action in &out.actions {
        if let crate::action::Action::Forget { registration, .. } = action {
            forgotten.push(registration.0);
        }
    }
    assert_eq!(forgotten, [2, 3]);
}
