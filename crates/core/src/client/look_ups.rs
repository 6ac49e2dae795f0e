//! Look-ups: requests about jobs that are not in the table, which the journal may have.
//!
//! | a connection's line of them | |
//! |---|---|
//! | the first one has jobs left, and the client has credit | a page of its jobs is begun: it waits until all facts so far are stored, and is asked then |
//! | a page was begun and is not answered | the others wait, and the first one too |
//! | the first one has no jobs left | it is done, once the facts that it has made are stored |
//!
//! Their jobs count against the user (`Resource::LookUps`), each request as one more, until they are answered. What is asked and
//! what becomes of an answer is decided in `machine/look_up.rs`.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::action::{LOOK_UP_PAGE, LookUpNo};
use crate::client::{Client, Clients};
use crate::turn::{Resource, Turn};

/// What a request wants of its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookUpVerb {
    /// The result of one.
    Result,
    /// Everything about one.
    Job,
    /// Why one ended as it did.
    Why,
    /// The log of one.
    Log {
        /// Those of its further attempts, too.
        follow: bool,
    },
    /// Their ends.
    Wait,
    /// To end them.
    Cancel,
    /// To run them again.
    Retry,
    /// To drop them.
    Forget,
}

/// A request whose answer waits for the journal.
#[derive(Debug)]
pub(crate) struct LookUp {
    tag: Tag,
    verb: LookUpVerb,
    /// The jobs without an answer, and how often the request named each.
    jobs: BTreeMap<JobId, u32>,
    /// Jobs that were changed, if it changes jobs.
    changed: u32,
    /// Those that were not, and why.
    refused: Vec<RefusedJobs>,
    /// The last of the facts that it has made.
    after: FactNo,
}

impl LookUp {
    /// A request about these jobs, each as often as it is named.
    pub(crate) fn new(tag: Tag, verb: LookUpVerb, named: impl IntoIterator<Item = JobId>) -> Self {
        let mut jobs = BTreeMap::new();
        for job in named {
            *jobs.entry(job).or_default() += 1;
        }
        Self { tag, verb, jobs, changed: 0, refused: Vec::new(), after: FactNo(0) }
    }

    /// What it counts against its user.
    pub(crate) fn weight(&self) -> u64 {
        self.jobs.len() as u64 + 1
    }

    /// Whether it has jobs without an answer.
    pub(crate) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether this is one of them.
    pub(crate) fn names(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// The same, with what became of its other jobs: it is not done before this fact is stored.
    pub(crate) fn with_changes(self, changed: u32, refused: Vec<RefusedJobs>, after: FactNo) -> Self {
        Self { changed, refused, after, ..self }
    }

    /// The request, and what it wants.
    pub(crate) fn request(&self) -> (Tag, LookUpVerb) {
        (self.tag, self.verb)
    }

    /// How many jobs it has changed, and why it has not changed the others.
    pub(crate) fn into_changes(self) -> (u32, Vec<RefusedJobs>) {
        (self.changed, self.refused)
    }
}

/// The look-ups of one client, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct LookUpLine {
    line: VecDeque<LookUp>,
    /// The page of the first one that was begun.
    page: Option<LookUpPage>,
}

/// Jobs of one look-up that are asked for together.
#[derive(Debug)]
struct LookUpPage {
    number: LookUpNo,
    jobs: Vec<JobId>,
    /// The last fact when it was begun.
    after: FactNo,
    is_asked: bool,
}

impl LookUpLine {
    fn weight(&self) -> u64 {
        self.line.iter().map(LookUp::weight).sum()
    }
}

/// What is next for a client.
#[derive(Debug)]
pub(crate) enum NextLookUp {
    /// A page was begun, under the number that was given.
    Begun,
    /// These jobs are to be asked for, under this number.
    Ask(LookUpNo, Vec<JobId>),
    /// This request is answered.
    Done(LookUp),
    /// Nothing before this fact is stored.
    Stored(FactNo),
    /// Nothing, for now.
    Nothing,
}

impl Clients {
    /// Adds a look-up to the line of its client.
    pub(crate) fn add_look_up(&mut self, turn: &mut Turn, id: ClientId, look_up: LookUp) {
        let Some(client) = self.connected(id) else { return };
        turn.charge(client.account, Resource::LookUps, look_up.weight());
        client.look_ups.line.push_back(look_up);
    }

    /// What is next for a client: a page is begun under this number, a begun one is asked for, a request that is done leaves the
    /// line.
    pub(crate) fn next_look_up(&mut self, turn: &mut Turn, id: ClientId, number: LookUpNo) -> NextLookUp {
        let Some(client) = self.connected(id) else { return NextLookUp::Nothing };
        let LookUpLine { line, page } = &mut client.look_ups;
        if let Some(page) = page {
            if page.is_asked {
                return NextLookUp::Nothing;
            }
            if !turn.facts().is_stored(page.after) {
                return NextLookUp::Stored(page.after);
            }
            page.is_asked = true;
            return NextLookUp::Ask(page.number, page.jobs.clone());
        }
        let Some(first) = line.front() else { return NextLookUp::Nothing };
        if first.has_jobs() {
            if client.credit <= 0 {
                return NextLookUp::Nothing;
            }
            let jobs = first.jobs.keys().take(LOOK_UP_PAGE).copied().collect();
            let after = turn.facts().awaited().unwrap_or_default();
            *page = Some(LookUpPage { number, jobs, after, is_asked: false });
            return NextLookUp::Begun;
        }
        if !turn.facts().is_stored(first.after) {
            return NextLookUp::Stored(first.after);
        }
        turn.release(client.account, Resource::LookUps, first.weight());
        line.pop_front().map_or(NextLookUp::Nothing, NextLookUp::Done)
    }

    /// The look-ups of a client go on once this fact is stored.
    pub(crate) fn look_up_after(&mut self, fact: FactNo, id: ClientId) {
        self.after_facts.insert((fact, id));
    }

    /// Takes all clients whose look-ups wait for facts. Some may be gone.
    pub(crate) fn take_after_facts(&mut self) -> Vec<ClientId> {
        std::mem::take(&mut self.after_facts).into_iter().map(|(_, id)| id).collect()
    }

    /// The page that was begun is answered without the journal: its number.
    pub(crate) fn ask_begun_page(&mut self, id: ClientId) -> Option<LookUpNo> {
        let page = self.connected(id)?.look_ups.page.as_mut().filter(|page| !page.is_asked)?;
        page.is_asked = true;
        Some(page.number)
    }

    /// Takes the next client whose look-ups go on. It may be gone.
    pub(crate) fn next_after_facts(&mut self, turn: &Turn) -> Option<ClientId> {
        self.after_facts.first().filter(|(fact, _)| turn.facts().is_stored(*fact))?;
        self.after_facts.pop_first().map(|(_, id)| id)
    }

    /// The page with this number is answered: its jobs. `None`: its client is gone.
    ///
    /// # Panics
    /// If another page is asked for.
    pub(crate) fn take_look_up_page(&mut self, id: ClientId, number: LookUpNo) -> Option<Vec<JobId>> {
        let page = self.connected(id)?.look_ups.page.take()?;
        assert!(page.is_asked && page.number == number, "one page of client {id} is asked for at a time");
        Some(page.jobs)
    }

    /// Takes the page that was begun and is not asked for: its number.
    pub(crate) fn drop_begun_page(&mut self, id: ClientId) -> Option<LookUpNo> {
        let page = self.connected(id)?.look_ups.page.take_if(|page| !page.is_asked)?;
        Some(page.number)
    }

    /// The request that is answered, of a client that is connected.
    pub(crate) fn first_look_up(&self, id: ClientId) -> Option<(Tag, LookUpVerb)> {
        self.see(id)?.look_ups.line.front().map(LookUp::request)
    }

    /// What became of a job of the first request, which is not done before this fact is stored.
    pub(crate) fn note_change(
        &mut self,
        id: ClientId,
        job: JobId,
        changed: Result<(), Refusal>,
        after: FactNo,
    ) {
        let Some(first) = self.connected(id).and_then(|client| client.look_ups.line.front_mut()) else {
            return;
        };
        match changed {
            Ok(()) => first.changed += 1,
            Err(why) => RefusedJobs::add(&mut first.refused, job, why),
        }
        first.after = first.after.max(after);
    }

    /// A job of the first request has its answer: how often the request named it.
    pub(crate) fn job_looked_up(&mut self, turn: &mut Turn, id: ClientId, job: JobId) -> u32 {
        let Some(client) = self.connected(id) else { return 0 };
        let account = client.account;
        let named = client.look_ups.line.front_mut().and_then(|first| first.jobs.remove(&job));
        if named.is_some() {
            turn.release(account, Resource::LookUps, 1);
        }
        named.unwrap_or(0)
    }

    /// The first request is refused as a whole: the rest of its jobs gets no answer.
    pub(crate) fn drop_look_up(&mut self, turn: &mut Turn, id: ClientId) -> Option<LookUp> {
        let client = self.connected(id)?;
        let dropped = client.look_ups.line.pop_front()?;
        turn.release(client.account, Resource::LookUps, dropped.weight());
        Some(dropped)
    }

    /// The look-ups of a client that hangs up have no answer.
    pub(super) fn drop_all_look_ups(&mut self, turn: &mut Turn, id: ClientId) {
        let Some(client) = self.connected(id) else { return };
        let line = std::mem::take(&mut client.look_ups);
        turn.release(client.account, Resource::LookUps, line.weight());
    }
}

impl Client {
    /// What its look-ups count.
    pub(super) fn look_ups(&self) -> u64 {
        self.look_ups.weight()
    }
}
