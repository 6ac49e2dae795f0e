//! What is read from one client in one turn: requests, by what their replies may cost, and bytes.
//!
//! Replies count against a client only once they are in its outbox, so the share bounds how many are under way. A short
//! request takes a 64th of it. Ids and jobs count beside that, because each takes time; so does what a view collects.
//! A request whose reply may fill a frame takes all that is left. The share never refuses a request: one that is too
//! long for what is left is the last of its turn. What all clients together may take: `reading_turns.rs`. Used by
//! `connection.rs`.

use bulkhead_proto::client::message::Request;
use bulkhead_proto::limits::BATCH_MAX;

/// Short requests taken from one client in one turn.
pub(crate) const REQUESTS_PER_TURN: usize = 64;
/// Bytes read from one client in one turn.
const BYTES_PER_TURN: usize = 256 << 10;
/// So many ids count as one request more: a whole batch of them fills the share.
const ITEMS_PER_REQUEST: usize = BATCH_MAX / REQUESTS_PER_TURN;
/// So many jobs of a submit count as one request more: to accept one takes longer than to look an id up.
const JOBS_PER_REQUEST: usize = 16;
/// A request whose answer is collected from many places counts as so many.
const COLLECTED: usize = 8;

/// What is left of the share of one client in this turn.
#[derive(Debug)]
pub(crate) struct RequestShare {
    requests: usize,
    bytes: usize,
}

impl RequestShare {
    /// The share of a new turn.
    pub(crate) fn whole() -> Self {
        Self { requests: REQUESTS_PER_TURN, bytes: BYTES_PER_TURN }
    }

    /// Whether no further request is taken in this turn.
    pub(crate) fn is_used(&self) -> bool {
        self.requests == 0
    }

    /// Whether no further byte is read in this turn.
    pub(crate) fn is_read(&self) -> bool {
        self.bytes == 0
    }

    /// Counts a request that is taken.
    pub(crate) fn take(&mut self, request: &Request) {
        self.requests = self.requests.saturating_sub(cost(request));
    }

    /// Counts a question that is not answered, because its client has left.
    pub(crate) fn take_unanswered(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// Counts bytes that were read.
    pub(crate) fn take_bytes(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
    }

    /// What was taken of the requests, in short ones.
    pub(crate) fn taken_requests(&self) -> usize {
        REQUESTS_PER_TURN - self.requests
    }

    /// How many bytes were read.
    pub(crate) fn taken_bytes(&self) -> usize {
        BYTES_PER_TURN - self.bytes
    }
}

/// Whether a request only asks, and changes nothing. `Connection::parse` skips the questions of a client that has closed its
/// socket.
pub(crate) fn is_question(request: &Request) -> bool {
    match request {
        Request::Wait { .. }
        | Request::Result { .. }
        | Request::Logs { .. }
        | Request::Jobs { .. }
        | Request::Job { .. }
        | Request::Why { .. }
        | Request::Deaths { .. }
        | Request::Workers
        | Request::Status
        | Request::Kinds
        | Request::Events { .. }
        | Request::Ping => true,
        Request::Submit(_)
        | Request::Cancel { .. }
        | Request::CancelWaiting { .. }
        | Request::Retry { .. }
        | Request::Forget { .. }
        | Request::Received { .. }
        | Request::Register(_)
        | Request::DropRegistration { .. }
        | Request::Freed { .. }
        | Request::Drain { .. } => false,
    }
}

/// What a request takes of the share.
fn cost(request: &Request) -> usize {
    match request {
        Request::Wait { jobs }
        | Request::Cancel { jobs }
        | Request::CancelWaiting { jobs }
        | Request::Retry { jobs }
        | Request::Forget { jobs } => 1 + jobs.len() / ITEMS_PER_REQUEST,
        Request::Freed { blocks } => 1 + blocks.len() / ITEMS_PER_REQUEST,
        Request::Submit(submit) => 1 + submit.inputs.len() / JOBS_PER_REQUEST,
        Request::Jobs { .. } | Request::Deaths { .. } | Request::Workers => REQUESTS_PER_TURN,
        Request::Job { .. } | Request::Why { .. } | Request::Status | Request::Kinds => COLLECTED,
        Request::Result { .. }
        | Request::Logs { .. }
        | Request::Events { .. }
        | Request::Drain { .. }
        | Request::Received { .. }
        | Request::Register(_)
        | Request::DropRegistration { .. }
        | Request::Ping => 1,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::message::{Submit, Walk};
    use bulkhead_proto::ids::JobId;
    use bulkhead_proto::job::Payload;

    use super::*;

    /// How many of these requests a turn takes.
    fn taken(request: &Request) -> usize {
        let (mut share, mut count) = (RequestShare::whole(), 0);
        while !share.is_used() {
            share.take(request);
            count += 1;
        }
        count
    }

    #[test]
    fn ids_and_inputs_count_against_the_requests_of_a_turn() {
        let ids = |count| vec![JobId(7); count];
        type WithIds = fn(Vec<JobId>) -> Request;
        let with_ids: [WithIds; 5] = [
            |jobs| Request::Wait { jobs },
            |jobs| Request::Cancel { jobs },
            |jobs| Request::CancelWaiting { jobs },
            |jobs| Request::Retry { jobs },
            |jobs| Request::Forget { jobs },
        ];
        for request in with_ids {
            assert_eq!(taken(&request(ids(1))), 64);
            assert_eq!(taken(&request(ids(64))), 32);
            assert_eq!(taken(&request(ids(1024))), 4);
            assert_eq!(taken(&request(ids(BATCH_MAX))), 1);
        }
        let submit = |count| {
            let inputs = vec![Payload::default(); count];
            Request::Submit(Submit { inputs, ..Submit::default() })
        };
        assert_eq!([1, 16, 256, BATCH_MAX].map(|count| taken(&submit(count))), [64, 32, 4, 1]);
    }

    #[test]
    fn a_reply_that_may_fill_a_frame_is_the_last_of_its_turn() {
        assert_eq!(taken(&Request::Ping), 64);
        assert_eq!(taken(&Request::Status), 8);
        let jobs = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 1 };
        for long in [jobs, Request::Deaths { limit: 1 }, Request::Workers] {
            assert_eq!(taken(&long), 1);
        }
    }
}
