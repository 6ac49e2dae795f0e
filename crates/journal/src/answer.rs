//! What the writer answers: all answers, and nothing else.
//!
//! They come through the door that the daemon gave to `JournalWriter::start`, in this thread's order, and never from within a
//! call of the daemon.

use bulkhead_facts::Misfit;
use bulkhead_facts::fact::FactNo;
use bulkhead_proto::ids::JobId;

use crate::numbers::NumberKind;

/// An answer of the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalAnswer {
    /// All facts up to this one are durable, or have an answer of their own that says something else.
    Stored {
        /// The last of them.
        up_to: FactNo,
        /// How many transactions of this run the database has with them: see `loading.rs`.
        commits: u64,
    },
    /// These facts could not be stored. Submits among them are refused and never will be, also not by a later run; all others are
    /// kept and written anew. A submit whose commit failed so late that the database may have it is not among them: it is kept too.
    NotStored {
        /// The first fact.
        from: FactNo,
        /// The last one.
        to: FactNo,
        /// Why, as a text for people.
        why: String,
    },
    /// This fact does not fit what is stored. It changes nothing, and is not tried again.
    DoesNotFit {
        /// The fact.
        fact: FactNo,
        /// Why.
        misfit: Misfit,
    },
    /// Numbers of a kind below this one may be given out.
    Reserved {
        /// What is numbered.
        kind: NumberKind,
        /// The first number that is not reserved.
        next: u64,
    },
    /// These ended jobs were removed, because of their age or to make room.
    Evicted {
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// The wall clock has jumped: for a day, no job is removed by its age.
    ClockJumped,
    /// Nothing can be stored for now; told again when there is another reason.
    Degraded {
        /// Why, as a text for people.
        why: String,
    },
    /// A commit of new bytes has succeeded after [`Self::Degraded`].
    Recovered,
    /// The writer has ended.
    Closed {
        /// Whether everything was stored, and the end of the run too. If not, facts that have no answer may be stored nevertheless:
        /// the next run finds them.
        is_clean: bool,
    },
}
