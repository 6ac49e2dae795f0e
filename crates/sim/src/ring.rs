//! The supervisor's notes on one worker's ring: what it offered, and how far each offer is known to be.
//!
//! The twin of the real one in `link`, by the same rules (3 to 6 and 8 of the claim word): both pass the cases of
//! `tests/tests/ring_twins.rs`, where it stands what this one lets through and the real one does not. It believes a
//! box only about what was offered, and copies each entry once.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use bulkhead_core::action::{Task, TaskFile};
use bulkhead_core::event::{Head, Remains};
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{ScratchId, Seq};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::RING;
use bulkhead_proto::worker::boxes::{ClaimState, ClaimWord, ReportStatus};
use bulkhead_proto::worker::stage::Stage;

use crate::boxes::{FakeResult, Pages};

/// The known state of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKnown {
    Offered,
    Claimed,
    Taken,
    Reported,
    /// The worker broke a rule about it: counts as claimed.
    Violated,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    known: EntryKnown,
    output: OutputMode,
    stage: Stage,
    scratch: Option<ScratchId>,
    /// An output was made for it while it ran, or a reserve before.
    given: bool,
}

/// A new entry that was read from a box.
#[derive(Clone, Debug)]
pub enum EntryRead {
    /// An entry is DONE and well-formed.
    Done(Seq, FakeResult),
    /// A rule was broken.
    Violation(Violation),
}

/// Notes on the offers that are not settled.
#[derive(Debug, Default)]
pub struct RingNotes {
    notes: BTreeMap<Seq, Note>,
}

impl RingNotes {
    /// Notes an offer; false if its entry was not settled yet.
    pub fn offer(&mut self, seq: Seq, task: &Task) -> bool {
        let before = seq.0.checked_sub(RING as u64).map(Seq);
        let free = before.is_none_or(|old| !self.notes.contains_key(&old));
        let scratch = task.files.iter().find_map(|file| match file {
            TaskFile::Shared { scratch } => Some(*scratch),
            TaskFile::Client { .. }
            | TaskFile::Registered { .. }
            | TaskFile::Log { .. }
            | TaskFile::Plan { .. }
            | TaskFile::Results { .. } => None,
        });
        let (output, stage, given) = (task.output, task.stage, task.has_reserve());
        self.notes.insert(seq, Note { known: EntryKnown::Offered, output, stage, scratch, given });
        free
    }

    /// Whether nothing was said of an offer that is its worker's.
    pub fn is_open(&self, seq: Seq) -> bool {
        let is_open = |note: &Note| matches!(note.known, EntryKnown::Offered | EntryKnown::Claimed);
        self.notes.get(&seq).is_some_and(is_open)
    }

    /// An output is made for an offer while its task runs.
    pub fn give(&mut self, seq: Seq) {
        if let Some(note) = self.notes.get_mut(&seq) {
            note.given = true;
        }
    }

    /// An offer is refused an output, and has none from now on.
    pub fn refuse(&mut self, seq: Seq) {
        if let Some(note) = self.notes.get_mut(&seq) {
            note.given = false;
        }
    }

    /// What an offer is for, and the shared output that went with it.
    pub fn what(&self, seq: Seq) -> (Stage, Option<ScratchId>) {
        self.notes.get(&seq).map_or((Stage::Whole, None), |note| (note.stage, note.scratch))
    }

    /// Whether a failed task leaves inline bytes: it has no output of its own, and shares none.
    pub fn leaves_inline(&self, seq: Seq) -> bool {
        let is_inline = |note: &Note| note.stage == Stage::Whole && note.output != OutputMode::Descriptor;
        self.notes.get(&seq).is_some_and(is_inline)
    }

    /// Rule 3; `None` if nothing is known of this offer.
    pub fn take_back(&mut self, pages: &mut Pages, seq: Seq) -> Option<Result<bool, Violation>> {
        let note = self.notes.get_mut(&seq)?;
        let answer = match note.known {
            EntryKnown::Offered | EntryKnown::Claimed => pages.take_back(seq),
            EntryKnown::Taken | EntryKnown::Reported | EntryKnown::Violated => Ok(false),
        };
        match answer {
            Ok(true) => note.known = EntryKnown::Taken,
            Err(_) => note.known = EntryKnown::Violated,
            Ok(false) => {}
        }
        Some(answer)
    }

    /// Rule 5; false if the offer is unknown or nothing was said about it yet.
    pub fn settle(&mut self, pages: &mut Pages, seq: Seq) -> bool {
        let said = |note: &Note| matches!(note.known, EntryKnown::Taken | EntryKnown::Reported);
        let known = self.notes.remove(&seq).is_some_and(|note| said(&note));
        if known {
            pages.settle(seq);
        }
        known
    }

    /// Rules 4 to 6: new entries, in the order of seq.
    pub fn poll(&mut self, pages: &Pages) -> Vec<EntryRead> {
        let mut found = Vec::new();
        let mut claimed = false;
        for (seq, note) in &mut self.notes {
            if !matches!(note.known, EntryKnown::Offered | EntryKnown::Claimed) {
                continue;
            }
            match read(pages, *seq, note, claimed) {
                Ok(Some(written)) => {
                    note.known = EntryKnown::Reported;
                    found.push(EntryRead::Done(*seq, written));
                }
                Ok(None) => claimed |= note.known == EntryKnown::Claimed,
                Err(violation) => {
                    note.known = EntryKnown::Violated;
                    found.push(EntryRead::Violation(violation));
                }
            }
        }
        found
    }

    /// The first entry that is neither settled, taken nor reported.
    pub fn head(&self, pages: &Pages) -> Option<Head> {
        let open = |note: &Note| !matches!(note.known, EntryKnown::Taken | EntryKnown::Reported);
        let (seq, _) = self.notes.iter().find(|(_, note)| open(note))?;
        Some(Head { seq: *seq, claimed: !pages.is(*seq, ClaimState::Offered) })
    }

    /// Rule 8, after the proof of death and a last poll.
    pub fn remains(&mut self, pages: &mut Pages) -> Vec<Remains> {
        let mut remains = Vec::new();
        for (seq, note) in &mut self.notes {
            let claimed = match note.known {
                EntryKnown::Taken | EntryKnown::Reported => continue,
                EntryKnown::Violated => true,
                EntryKnown::Offered | EntryKnown::Claimed => pages.take_back(*seq) != Ok(true),
            };
            remains.push(Remains { seq: *seq, claimed });
        }
        remains
    }
}

/// Reads one entry: its result if DONE, and what is wrong with it.
fn read(pages: &Pages, seq: Seq, note: &mut Note, claimed: bool) -> Result<Option<FakeResult>, Violation> {
    let word =
        ClaimWord::unpack(pages.word(seq)).filter(|word| word.seq == seq).ok_or(Violation::ClaimWord)?;
    match word.state {
        ClaimState::Offered if note.known == EntryKnown::Offered => Ok(None),
        ClaimState::Claimed if !claimed => {
            note.known = EntryKnown::Claimed;
            Ok(None)
        }
        ClaimState::Done => well_formed(pages, seq, note).map(Some),
        ClaimState::Settled | ClaimState::Offered | ClaimState::Claimed | ClaimState::Taken => {
            Err(Violation::ClaimWord)
        }
    }
}

fn well_formed(pages: &Pages, seq: Seq, note: &Note) -> Result<FakeResult, Violation> {
    let written = pages.written(seq).ok_or(Violation::Result)?;
    match (ReportStatus::unpack(written.status), note.output) {
        (Some(ReportStatus::Failed { .. }), _)
        | (
            Some(ReportStatus::Inline),
            OutputMode::Inline | OutputMode::File | OutputMode::Auto | OutputMode::Arena,
        )
        | (Some(ReportStatus::Block), OutputMode::Arena)
        | (Some(ReportStatus::Descriptor), OutputMode::Descriptor) => Ok(written.clone()),
        (Some(ReportStatus::Descriptor), OutputMode::Auto | OutputMode::Arena) if note.given => {
            Ok(written.clone())
        }
        _ => Err(Violation::Result),
    }
}
