//! Buffers replies to requests other than the one that is being waited for.
//!
//! Pure. It knows which requests are open and keeps their replies in the order of arrival, at most [`HELD_MAX_BYTES`].
//! A reply to a request that was closed is dropped; a reply to a request that was never sent is a protocol error.
//! Driven by `client.rs`.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{JobEnded, JobOutput};
use bulkhead_proto::ids::Tag;

use crate::error::{Error, ProtocolError};
use crate::logs::JobLog;
use crate::output::JobEnd;

/// Most bytes of replies that are buffered for requests other than the one being waited for.
pub(crate) const HELD_MAX_BYTES: usize = 64 << 20;

/// The content of a reply, each descriptor at the output or the log that it belongs to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Jobs that have ended.
    Ended(Vec<JobEnd>),
    /// Jobs that have ended and whose results the daemon holds: the number of the first end, and the ends.
    Held(u64, Vec<JobEnd>),
    /// The log of an attempt; `None` if the daemon has just dropped it.
    Log(Option<JobLog>),
    /// Any other reply.
    Plain(Reply),
}

/// A reply that has arrived.
#[derive(Debug)]
pub(crate) struct ReceivedReply {
    /// The request it answers.
    pub(crate) tag: Tag,
    /// Its content.
    pub(crate) answer: Answer,
    /// The size of its frame, and of the results that were copied out of arenas for it.
    pub(crate) bytes: usize,
}

/// Bytes of the results of these ends that lie in arenas: they are in no frame, and a copy of them is buffered.
pub(crate) fn bytes_in_arenas(ends: &[JobEnded]) -> usize {
    let blocks = ends.iter().filter_map(|end| match &end.output {
        JobOutput::Block(block) => block.place(),
        _ => None,
    });
    blocks.map(|(_, bytes)| bytes).sum()
}

/// The open requests, each with its buffered replies.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    open: BTreeMap<Tag, VecDeque<ReceivedReply>>,
    highest: u32,
    held: usize,
    held_bytes: usize,
}

impl Inbox {
    /// Opens a request and returns its tag. It stays open until [`Inbox::close`].
    pub(crate) fn open(&mut self) -> Tag {
        self.highest =
            self.highest.checked_add(1).expect("a connection does not live for 4 billion requests");
        let tag = Tag(self.highest);
        self.open.insert(tag, VecDeque::new());
        tag
    }

    /// The last tag that was used.
    pub(crate) fn highest(&self) -> Tag {
        Tag(self.highest)
    }

    /// Closes a request and drops its buffered replies.
    pub(crate) fn close(&mut self, tag: Tag) {
        for dropped in self.open.remove(&tag).into_iter().flatten() {
            self.held -= 1;
            self.held_bytes -= dropped.bytes;
        }
    }

    /// The oldest buffered reply to one of the wanted requests.
    pub(crate) fn take(&mut self, wanted: &impl Fn(Tag) -> bool) -> Option<ReceivedReply> {
        if self.held == 0 {
            return None;
        }
        let (_, queue) = self.open.iter_mut().find(|(tag, queue)| !queue.is_empty() && wanted(**tag))?;
        let arrived = queue.pop_front()?;
        self.held -= 1;
        self.held_bytes -= arrived.bytes;
        Some(arrived)
    }

    /// Buffers a reply.
    pub(crate) fn hold(&mut self, arrived: ReceivedReply) -> Result<(), Error> {
        match self.open.get_mut(&arrived.tag) {
            Some(queue) => {
                self.held += 1;
                self.held_bytes += arrived.bytes;
                queue.push_back(arrived);
                if self.held_bytes > HELD_MAX_BYTES {
                    return Err(Error::ReplyBufferFull { limit_bytes: HELD_MAX_BYTES });
                }
                Ok(())
            }
            None if (1..=self.highest).contains(&arrived.tag.0) => Ok(()),
            None => Err(ProtocolError::Tag(arrived.tag).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::outcome::{Outcome, ResultBlock};
    use bulkhead_proto::ids::JobId;
    use bulkhead_proto::job::Payload;

    use super::*;

    #[test]
    fn results_in_arenas_count_with_their_reply_and_no_place_that_lies_does() {
        let end = |output| JobEnded {
            job: JobId(1),
            outcome: Outcome::Done,
            output,
            attempts: 1,
            survivors: Vec::new(),
        };
        let block = |offset, bytes| {
            end(JobOutput::Block(ResultBlock { block: 1, arena: 5, offset, bytes, is_attached: false }))
        };
        let inline = end(JobOutput::Inline(Payload::zeroed(100)));
        let ends = [block(0, 5000), inline, block(8192, 131_072), block(1, u64::MAX), end(JobOutput::None)];
        assert_eq!(bytes_in_arenas(&ends), 5000 + 131_072);
    }

    fn pong(tag: Tag, bytes: usize) -> ReceivedReply {
        ReceivedReply { tag, answer: Answer::Plain(Reply::Pong { pid: 1 }), bytes }
    }

    #[test]
    fn answers_wait_for_their_askers_within_a_bound() {
        let mut inbox = Inbox::default();
        let (first, second) = (inbox.open(), inbox.open());
        inbox.hold(pong(second, 10)).unwrap();
        assert!(inbox.take(&|tag| tag == first).is_none());
        assert_eq!(inbox.take(&|tag| tag == second).unwrap().tag, second);
        let error = inbox.hold(pong(first, HELD_MAX_BYTES + 1)).unwrap_err();
        assert!(matches!(error, Error::ReplyBufferFull { .. }));
        inbox.close(first);
        assert_eq!((inbox.held, inbox.held_bytes), (0, 0));
    }

    #[test]
    fn a_given_up_request_is_ignored_and_an_unknown_one_is_a_fault() {
        let mut inbox = Inbox::default();
        let tag = inbox.open();
        inbox.close(tag);
        inbox.hold(pong(tag, 1)).unwrap();
        assert_eq!(inbox.held, 0);
        let error = inbox.hold(pong(Tag(9), 1)).unwrap_err();
        assert!(matches!(error, Error::Protocol(ProtocolError::Tag(Tag(9)))));
        assert!(matches!(inbox.hold(pong(Tag(0), 1)), Err(Error::Protocol(_))));
    }
}
