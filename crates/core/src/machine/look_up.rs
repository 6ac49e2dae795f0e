//! Requests about jobs that are not in the table: the journal may have them.
//!
//! | the job | is answered |
//! |---|---|
//! | is in the table by now | as any job there |
//! | has ended, in the journal | from there (`view/journal_job.rs`); `retry` brings it back into the table |
//! | has not ended, in the journal: it is of an earlier run, and its turn to be loaded has not come | as a job in the table, once it is loaded |
//! | is in neither, or another user's | as a job that is gone, or of an earlier run |
//!
//! The journal is read once all facts are stored that there were when the look-up was begun, so that a client reads what it was told.
//! The answer may be older than a fact about the job that was made meanwhile, for another client for example: then the job is looked
//! up again, so that no fact rests on an old answer. The line of each connection is in `client/look_ups.rs`.

use std::collections::BTreeMap;

use bulkhead_facts::fact::DurableEnd;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::JobEnded;
use bulkhead_proto::client::refusal::{EarlierNumbers, Refusal, UnknownJobs};
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::action::{Action, LookUpNo};
use crate::client::{Client, LookUp, LookUpVerb, NextLookUp, bytes_of};
use crate::config::JournalUse;
use crate::event::{JournalJob, LookUpAnswer, Peer};
use crate::job::TaskRun;
use crate::machine::Core;
use crate::machine::look_up_changes::reloaded;
use crate::machine::requests::{UNKNOWN_BYTES, WAIT_RETRY_MS, changed_bytes};
use crate::turn::{Owner, Resource};
use crate::view::journal_job;

/// Why a job of the journal has no log.
const NO_LOG: &str = "a log is kept in memory, and this job is on the disk alone";
/// What a request about a job of an earlier run that is not loaded needs.
const NOT_LOADED: &str = "it is of an earlier run and not loaded from the journal yet: try again in a moment";

/// What is known of a job after it was looked up.
pub(super) enum Known {
    /// It is in the table.
    InTable(TaskRun),
    /// It has ended, and is in the journal.
    Ended(Box<JournalJob>, DurableEnd),
    /// There is no such job that the client may see.
    Unknown(Option<EarlierNumbers>),
    /// Its rows cannot be read, or it cannot be loaded.
    Refused(Refusal),
}

/// What one answer says of the jobs of a `wait`.
#[derive(Default)]
struct WaitPage {
    ended: Vec<JobEnded>,
    bytes: u64,
    unknown: BTreeMap<Option<EarlierNumbers>, Vec<JobId>>,
}

impl Core {
    /// Whether the journal may have a job of this number.
    pub(super) fn may_be_in_journal(&self, job: JobId) -> bool {
        let is_open = matches!(self.turn.config().journal, JournalUse::Open(_));
        is_open && job != JobId(0) && job <= self.jobs.last_id()
    }

    /// The numbers that earlier runs gave are below this one.
    pub(super) fn first_of_this_run(&self) -> JobId {
        match &self.turn.config().journal {
            JournalUse::Open(open) => open.jobs.0,
            JournalUse::None(_) => JobId(0),
        }
    }

    /// Looks up the job of a request about one job that is not in the table for this client, or refuses it.
    pub(super) fn look_up_one(
        &mut self,
        (id, tag): (ClientId, Tag),
        peer: Peer,
        job: JobId,
        verb: LookUpVerb,
    ) {
        if !self.may_be_in_journal(job) {
            return self.refuse(id, tag, Refusal::unknown(job, self.jobs.last_id(), !peer.admin));
        }
        let look_up = LookUp::new(tag, verb, [job]);
        match self.no_room_to_look_up(id, &look_up) {
            Some(refusal) => self.refuse(id, tag, refusal),
            None => self.look_up(id, look_up),
        }
    }

    /// Why a request has too many jobs to be looked up.
    pub(super) fn no_room_to_look_up(&mut self, id: ClientId, look_up: &LookUp) -> Option<Refusal> {
        let account = self.clients.see(id)?.account();
        let room = self.room(account, Resource::LookUps);
        (look_up.weight() > room.left()).then(|| room.refusal(Resource::LookUps, WAIT_RETRY_MS))
    }

    /// Adds a look-up, which has room, to the line of its client.
    pub(super) fn look_up(&mut self, id: ClientId, look_up: LookUp) {
        self.clients.add_look_up(&mut self.turn, id, look_up);
        self.look_up_next(id);
    }

    /// Goes on with the look-ups of a client, until its journal, its credit or its facts are waited for.
    pub(super) fn look_up_next(&mut self, id: ClientId) {
        loop {
            match self.clients.next_look_up(&mut self.turn, id, self.look_ups.next()) {
                NextLookUp::Begun => _ = self.look_ups.begin(),
                NextLookUp::Ask(number, jobs) => {
                    let uid = self.clients.see(id).map_or(0, |client| client.peer().uid);
                    return self.turn.act(Action::LookUp { number, client: id, uid, jobs });
                }
                NextLookUp::Done(look_up) => self.end_look_up(id, look_up),
                NextLookUp::Stored(fact) => match self.unread(id) {
                    Some((number, why)) => return self.looked_up(number, id, Err(why)),
                    None => return self.clients.look_up_after(fact, id),
                },
                NextLookUp::Nothing => return,
            }
        }
    }

    /// While the journal stores nothing, a page that waits for facts is answered with that. `None`: it waits.
    fn unread(&mut self, id: ClientId) -> Option<(LookUpNo, String)> {
        let why = self.journal.failed.as_ref()?;
        let why = format!("it stores nothing now: {why}");
        self.clients.ask_begun_page(id).map(|number| (number, why))
    }

    /// The journal stores nothing from now on: nothing that was asked waits for that.
    pub(super) fn fail_look_ups(&mut self) {
        for id in self.clients.take_after_facts() {
            self.look_up_next(id);
        }
    }

    /// Facts are stored: look-ups that waited for them go on.
    pub(super) fn look_ups_go_on(&mut self) {
        while let Some(id) = self.clients.next_after_facts(&self.turn) {
            self.look_up_next(id);
        }
    }

    /// A connection is over: its look-ups have no answer.
    pub(super) fn drop_look_ups(&mut self, id: ClientId) {
        if let Some(number) = self.clients.drop_begun_page(id) {
            self.look_ups.answered(number);
        }
    }

    /// Every job of a request has its answer.
    fn end_look_up(&mut self, id: ClientId, look_up: LookUp) {
        let (tag, verb) = look_up.request();
        if matches!(verb, LookUpVerb::Cancel | LookUpVerb::Retry | LookUpVerb::Forget) {
            let (count, refused) = look_up.into_changes();
            let bytes = changed_bytes(&refused);
            self.reply(id, tag, Reply::Changed { count, refused }, bytes);
        }
    }

    /// The journal was read.
    pub(super) fn looked_up(
        &mut self,
        number: LookUpNo,
        id: ClientId,
        found: Result<Vec<LookUpAnswer>, String>,
    ) {
        let stale = self.look_ups.answered(number);
        let Some(jobs) = self.clients.take_look_up_page(id, number) else { return };
        let Some(peer) = self.clients.see(id).map(Client::peer) else { return };
        let Some((tag, verb)) = self.clients.first_look_up(id) else { return };
        let answers = match found {
            Ok(answers) => answers,
            Err(why) => {
                let unread = LookUpAnswer { found: Err(why), run_until_us: None };
                vec![unread; jobs.len()]
            }
        };
        let mut page = WaitPage::default();
        for (job, answer) in jobs.into_iter().zip(answers) {
            if stale.contains(&job) && self.jobs.find_visible(peer, job).is_none() {
                // It stays in the line, and is asked for again.
                continue;
            }
            let mut known = self.known(peer, job, answer);
            let named = self.clients.job_looked_up(&mut self.turn, id, job);
            match verb {
                LookUpVerb::Result | LookUpVerb::Job | LookUpVerb::Why | LookUpVerb::Log { .. } => {
                    self.answer_one((id, tag), peer, (job, verb), known);
                }
                LookUpVerb::Wait => {
                    if let Err(refusal) = self.answer_wait((id, tag), (job, named), known, &mut page) {
                        self.send_wait_page((id, tag), peer, std::mem::take(&mut page));
                        self.refuse(id, tag, refusal);
                        self.clients.drop_look_up(&mut self.turn, id);
                        return self.look_up_next(id);
                    }
                }
                LookUpVerb::Cancel | LookUpVerb::Retry | LookUpVerb::Forget => {
                    for _ in 0..named {
                        // A job that is named twice is in another state the second time.
                        let changed = self.change_known(peer, (job, verb), &mut known);
                        self.note_change(id, job, changed);
                    }
                }
            }
        }
        self.send_wait_page((id, tag), peer, page);
        self.look_up_next(id);
    }

    /// What is known of a job now.
    fn known(&mut self, peer: Peer, job: JobId, answer: LookUpAnswer) -> Known {
        if let Some(run) = self.jobs.find_visible(peer, job) {
            return Known::InTable(run);
        }
        let LookUpAnswer { found, run_until_us } = answer;
        match found {
            Ok(Some(found)) if Owner::User(found.submit.uid).may_be_seen_by(peer) => {
                match found.end.clone() {
                    Some(end) => Known::Ended(found, end),
                    None => self.load(*found),
                }
            }
            Ok(_) => Known::Unknown(self.earlier(job, run_until_us)),
            Err(why) => {
                let needed = format!("the journal cannot be read: {why}");
                Known::Refused(Refusal::WrongState { job, needed })
            }
        }
    }

    /// Set if an earlier run gave this number.
    fn earlier(&self, job: JobId, until_us: Option<u64>) -> Option<EarlierNumbers> {
        (job < self.first_of_this_run()).then_some(EarlierNumbers { until_us })
    }

    /// Loads a job of an earlier run before its turn.
    fn load(&mut self, found: JournalJob) -> Known {
        let job = found.job;
        let refused = |needed: String| Known::Refused(Refusal::WrongState { job, needed });
        if !self.drain.is_open() {
            return refused(
                "the daemon is stopping: it goes on with this job when it starts again".to_owned(),
            );
        }
        let kind = &found.submit.kind;
        if !self.turn.config().kinds.iter().any(|known| known.name == *kind && !known.plans) {
            return refused(format!("it waits for a daemon that offers its kind {kind}: this one does not"));
        }
        if let Some(reloaded) = reloaded(found) {
            self.reloaded(vec![reloaded], false);
        }
        let not_loaded = || Known::Refused(Refusal::WrongState { job, needed: NOT_LOADED.to_owned() });
        self.jobs.find(job).map_or_else(not_loaded, Known::InTable)
    }

    /// Why there is no such job.
    pub(super) fn unknown(&self, peer: Peer, job: JobId, earlier: Option<EarlierNumbers>) -> Refusal {
        match earlier {
            Some(EarlierNumbers { until_us }) => Refusal::OfEarlierRun { job, others: !peer.admin, until_us },
            None => Refusal::unknown(job, self.jobs.last_id(), !peer.admin),
        }
    }

    /// Answers a request about one job.
    fn answer_one(
        &mut self,
        (id, tag): (ClientId, Tag),
        peer: Peer,
        (job, verb): (JobId, LookUpVerb),
        known: Known,
    ) {
        let (found, end) = match known {
            Known::InTable(_) => return self.asked_about_one((id, tag), peer, job, verb),
            Known::Unknown(earlier) => return self.refuse(id, tag, self.unknown(peer, job, earlier)),
            Known::Refused(refusal) => return self.refuse(id, tag, refusal),
            Known::Ended(found, end) => (found, end),
        };
        let shown = match verb {
            LookUpVerb::Job => journal_job::detail(&found, &end),
            LookUpVerb::Why => journal_job::why(&found, &end),
            LookUpVerb::Log { .. } => {
                return self.refuse(id, tag, Refusal::NoLog { job, why: NO_LOG.to_owned() });
            }
            LookUpVerb::Result
            | LookUpVerb::Wait
            | LookUpVerb::Cancel
            | LookUpVerb::Retry
            | LookUpVerb::Forget => {
                let ended = journal_job::told(&found, &end);
                let bytes = bytes_of(&ended);
                return self.reply(id, tag, Reply::Ended(vec![ended]), bytes);
            }
        };
        self.reply(id, tag, shown.reply, shown.bytes);
    }

    /// Answers a `wait` for one job, which it names so often.
    ///
    /// # Errors
    /// The request is refused as a whole.
    fn answer_wait(
        &mut self,
        (id, tag): (ClientId, Tag),
        (job, named): (JobId, u32),
        known: Known,
        page: &mut WaitPage,
    ) -> Result<(), Refusal> {
        match known {
            Known::Ended(found, end) => {
                let ended = journal_job::told(&found, &end);
                page.bytes += bytes_of(&ended);
                page.ended.push(ended);
            }
            Known::Unknown(earlier) => {
                let named = usize::try_from(named).unwrap_or_default();
                page.unknown.entry(earlier).or_default().extend(std::iter::repeat_n(job, named));
            }
            Known::InTable(run) => match self.no_room_to_wait(id, &[job]) {
                Some(refusal) => return Err(refusal),
                None => self.wait_for(id, tag, run),
            },
            Known::Refused(refusal) => return Err(refusal),
        }
        Ok(())
    }

    /// Sends what one answer says of the jobs of a `wait`.
    fn send_wait_page(&mut self, (id, tag): (ClientId, Tag), peer: Peer, page: WaitPage) {
        if !page.ended.is_empty() {
            self.reply(id, tag, Reply::Ended(page.ended), page.bytes);
        }
        for (earlier, jobs) in page.unknown {
            let bytes = UNKNOWN_BYTES * (4 + jobs.len() as u64);
            let unknown = UnknownJobs { jobs, last: self.jobs.last_id(), others: !peer.admin, earlier };
            self.reply(id, tag, Reply::Unknown(unknown), bytes);
        }
    }
}
