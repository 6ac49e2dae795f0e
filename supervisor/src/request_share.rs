//! How many requests of one client are taken in one turn, by what their replies may cost.
//!
//! Replies count against a client only once they are in its outbox, so the share bounds how many are under way. A short
//! request takes a 64th of it; ids count beside that, because a reply may have a refusal for each; a request whose
//! reply may fill a frame takes all that is left. It never refuses a request: one that is too long for what is left is
//! the last of its turn. Owned by `connection.rs`.

use bulkhead_proto::client::message::Request;
use bulkhead_proto::limits::BATCH_MAX;

/// Short requests taken from one client in one turn.
const REQUESTS_PER_TURN: usize = 64;
/// So many ids count as one request more: a whole batch of them fills the share.
const IDS_PER_REQUEST: usize = BATCH_MAX / REQUESTS_PER_TURN;

/// What is left of the share of one client in this turn.
#[derive(Debug)]
pub(crate) struct RequestShare {
    left: usize,
}

impl RequestShare {
    /// The share of a new turn.
    pub(crate) fn whole() -> Self {
        Self { left: REQUESTS_PER_TURN }
    }

    /// Whether no further request is taken in this turn.
    pub(crate) fn is_used(&self) -> bool {
        self.left == 0
    }

    /// Counts a request that is taken.
    pub(crate) fn take(&mut self, request: &Request) {
        self.left = self.left.saturating_sub(cost(request));
    }
}

/// What a request takes of the share.
fn cost(request: &Request) -> usize {
    match request {
        Request::Wait { jobs }
        | Request::Cancel { jobs }
        | Request::Retry { jobs }
        | Request::Forget { jobs } => 1 + jobs.len() / IDS_PER_REQUEST,
        Request::Jobs { .. } | Request::Deaths { .. } | Request::Workers => REQUESTS_PER_TURN,
        // The inputs of a submit have one reply together.
        Request::Submit(_)
        | Request::Result { .. }
        | Request::Logs { .. }
        | Request::Job { .. }
        | Request::Why { .. }
        | Request::Status
        | Request::Kinds
        | Request::Events { .. }
        | Request::Drain { .. }
        | Request::Received { .. }
        | Request::Ping => 1,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::message::Walk;
    use bulkhead_proto::ids::JobId;

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
    fn ids_count_against_the_requests_of_a_turn() {
        let ids = |count| vec![JobId(7); count];
        type WithIds = fn(Vec<JobId>) -> Request;
        let with_ids: [WithIds; 4] = [
            |jobs| Request::Wait { jobs },
            |jobs| Request::Cancel { jobs },
            |jobs| Request::Retry { jobs },
            |jobs| Request::Forget { jobs },
        ];
        for request in with_ids {
            assert_eq!(taken(&request(ids(1))), 64);
            assert_eq!(taken(&request(ids(64))), 32);
            assert_eq!(taken(&request(ids(1024))), 4);
            assert_eq!(taken(&request(ids(BATCH_MAX))), 1);
        }
    }

    #[test]
    fn a_reply_that_may_fill_a_frame_is_the_last_of_its_turn() {
        assert_eq!(taken(&Request::Ping), 64);
        let jobs = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 1 };
        for long in [jobs, Request::Deaths { limit: 1 }, Request::Workers] {
            assert_eq!(taken(&long), 1);
        }
    }
}
