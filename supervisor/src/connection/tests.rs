//! Tests of one connection over a socket pair. The table of clients and the loop are tested with a whole daemon.

use bulkhead_core::account::{Ledger, LoweredBounds, Resource, Users};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;

use super::*;
use crate::background_closer::BackgroundCloser;
use crate::shell_ledger::ShellLedger;

const ALICE: u32 = 1001;

/// An open connection, and the other end of its socket.
fn connection() -> (Connection, UnixStream) {
    let ledger = ShellLedger::new(Ledger::new(
        Users::Several,
        &[(Resource::Connections, 8)],
        LoweredBounds::default(),
    ));
    let (held, _) = ledger.hold_first(ALICE, Resource::Connections, 1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = ClientSocket::new(ours, held, ALICE, BackgroundCloser::default());
    let mut connection = Connection::new(ClientId(1), Peer { uid: ALICE, admin: false }, socket);
    connection.state = ConnectionState::Open(Frames::default());
    (connection, theirs)
}

/// An end with a result of 4 KiB.
fn reply(job: u64) -> ReplyFrame {
    let output = JobOutput::Inline(Payload::zeroed(4096));
    let ended = JobEnded { job: JobId(job), outcome: Outcome::Done, output, attempts: 1, survivors: vec![] };
    ReplyFrame { tag: Tag(1), reply: Reply::Ended(vec![ended]) }
}

#[test]
fn a_client_that_has_left_holds_no_replies() {
    let (mut connection, theirs) = connection();
    for job in 0..100 {
        connection.reply(&reply(job), None);
    }
    assert!(connection.unread_bytes() > 100 * 4096, "{} bytes", connection.unread_bytes());
    drop(theirs);
    connection.mark_readable(SocketReadiness { readable: true, ending: true, is_over: true });
    assert_eq!((connection.unread_bytes(), connection.has_unsent()), (0, false));
    connection.reply(&reply(100), None);
    assert_eq!((connection.unread_bytes(), connection.has_unsent()), (0, false), "a later reply is dropped");
}

#[test]
fn a_client_that_has_shut_down_its_sending_side_gets_its_replies() {
    let (mut connection, _theirs) = connection();
    connection.reply(&reply(1), None);
    connection.mark_readable(SocketReadiness { readable: true, ending: true, is_over: false });
    connection.reply(&reply(2), None);
    assert!(connection.has_unsent(), "both are to be sent");
}
