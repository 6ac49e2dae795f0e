//! The replies that one request was promised, and those still to come.
//!
//! There is one entry for each kind of request, as the protocol's documentation says it. `ledger.rs` judges whether an end
//! is true; this file does not know jobs.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::event::Peer;
use bulkhead_proto::client::message::{Reply, Request, Submit, Walk};
use bulkhead_proto::client::refusal::{Refusal, UnknownJobs};
use bulkhead_proto::ids::JobId;

/// A request and its replies so far.
#[derive(Debug)]
pub struct Promise {
    /// The client.
    pub peer: Peer,
    /// The request.
    pub request: Request,
    /// Replies so far.
    pub replies: u64,
    /// The request as a whole was refused.
    pub refused: bool,
    /// The rest of what was asked for may stay without an answer.
    is_cut: bool,
    /// Entries that are still to come for each job, of an attached submit or a wait.
    pub left: BTreeMap<JobId, u32>,
    /// Jobs among them for which a later request waits.
    replaced: BTreeSet<JobId>,
    /// Entries that came for each job.
    pub came: BTreeMap<JobId, u32>,
    /// The last record that was streamed.
    pub last_record: u64,
    /// Whether a stream of records has caught up.
    pub caught_up: bool,
    /// Numbers of records that were left out between those that were streamed, and how many it was told to have missed.
    pub gaps: u64,
    /// See `gaps`.
    pub missed: u64,
}

impl Promise {
    /// Before the first reply.
    pub fn new(peer: Peer, request: Request) -> Self {
        let mut left = BTreeMap::new();
        if let Request::Wait { jobs } = &request {
            jobs.iter().for_each(|job| *left.entry(*job).or_default() += 1);
        }
        let last_record = if let Request::Events { after, .. } = request { after } else { 0 };
        Self {
            peer,
            request,
            replies: 0,
            refused: false,
            is_cut: false,
            left,
            replaced: BTreeSet::new(),
            came: BTreeMap::new(),
            last_record,
            caught_up: false,
            gaps: 0,
            missed: 0,
        }
    }

    /// The submit that was asked for.
    pub fn submit(&self) -> Option<&Submit> {
        if let Request::Submit(submit) = &self.request { Some(submit) } else { None }
    }

    /// Takes a reply; gives what is wrong with it. `lives` gives how often a job has begun anew.
    pub fn take(&mut self, reply: &Reply, lives: impl Fn(JobId) -> u32) -> Result<(), String> {
        self.replies += 1;
        if self.refused {
            return Err("the request was refused already".to_owned());
        }
        let first = self.replies == 1;
        match (&self.request, reply) {
            (Request::Submit(_), Reply::Accepted { .. }) if first => self.take_accepted(reply),
            (Request::Submit(submit), Reply::Held { ended: all, .. }) if submit.held && !first => {
                let jobs: Vec<JobId> = all.iter().map(|ended| ended.job).collect();
                jobs.into_iter().try_for_each(|job| self.take_end(job, lives(job)))
            }
            // The end of a held job is not held if another client had it run again.
            (Request::Submit(submit), Reply::Ended(all))
                if submit.held && all.iter().any(|ended| lives(ended.job) == 1) =>
            {
                Err("the job is held, and its end has no number".to_owned())
            }
            (Request::Submit(submit), Reply::Ended(all)) if submit.attached && !first => {
                let jobs: Vec<JobId> = all.iter().map(|ended| ended.job).collect();
                jobs.into_iter().try_for_each(|job| self.take_end(job, lives(job)))
            }
            (Request::Submit(submit), Reply::Progress { job, done, total }) if submit.progress && !first => {
                self.take_progress(*job, *done, *total)
            }
            (Request::Wait { .. }, Reply::Ended(all)) => {
                let jobs: Vec<JobId> = all.iter().map(|ended| ended.job).collect();
                jobs.iter().try_for_each(|job| self.take_end(*job, 1))?;
                self.has_heard_of(&jobs);
                Ok(())
            }
            // Forgotten before its end could be told.
            (Request::Submit(submit), Reply::Unknown(unknown)) if submit.attached && !first => {
                self.take_unknown(unknown)
            }
            (Request::Wait { .. }, Reply::Unknown(unknown)) => {
                self.take_unknown(unknown)?;
                self.has_heard_of(&unknown.jobs);
                Ok(())
            }
            (Request::Events { .. }, Reply::Events { .. }) => self.take_events(reply),
            (Request::Drain { .. }, Reply::Drained { .. }) if self.replies == 2 => Ok(()),
            (Request::Logs { job, follow }, Reply::Logs { job: of, .. })
                if job == of && (first || *follow) =>
            {
                Ok(())
            }
            // A job that is looked up may refuse the others that are; those of the table are told of.
            (Request::Wait { .. }, Reply::Refused(Refusal::WrongState { .. })) => {
                self.is_cut = true;
                Ok(())
            }
            (_, Reply::Refused(_)) if first => {
                self.refused = true;
                self.left.clear();
                Ok(())
            }
            (request, _) if first && is_answer(request, reply) => Ok(()),
            _ => Err("it was not promised".to_owned()),
        }
    }

    fn take_accepted(&mut self, reply: &Reply) -> Result<(), String> {
        let (Some(submit), Reply::Accepted { first, count, refused }) = (self.submit(), reply) else {
            return Err("it was not promised".to_owned());
        };
        let all = *count as usize == submit.inputs.len();
        if all == refused.is_some() {
            return Err(format!("{count} of {} jobs accepted, refused: {refused:?}", submit.inputs.len()));
        }
        if submit.attached {
            self.left = (0..u64::from(*count)).map(|next| (JobId(first.0 + next), 1)).collect();
        }
        Ok(())
    }

    /// A job that a wait named several times has one end.
    fn has_heard_of(&mut self, jobs: &[JobId]) {
        for job in jobs {
            self.left.remove(job);
        }
    }

    /// A later request of the same client waits for these jobs: it is answered instead of this one, unless the answer is
    /// on its way.
    pub fn is_replaced(&mut self, jobs: &[JobId]) {
        if matches!(self.request, Request::Wait { .. }) {
            self.replaced.extend(jobs.iter().filter(|job| self.left.contains_key(job)));
        }
    }

    fn take_unknown(&mut self, unknown: &UnknownJobs) -> Result<(), String> {
        if unknown.jobs.is_empty() {
            return Err("it names no job".to_owned());
        }
        let never = unknown.refusals().any(|(_, refusal)| matches!(refusal, Refusal::NeverWas { .. }));
        if never && self.replies > 1 {
            return Err("the first reply has all jobs that never were".to_owned());
        }
        unknown.jobs.iter().try_for_each(|job| self.take_end(*job, 1))
    }

    fn take_progress(&self, job: JobId, done: u64, total: u64) -> Result<(), String> {
        match self.left.contains_key(&job) {
            false => Err(format!("job {job} has ended, or was not asked for")),
            true if total > 0 && done > total => Err(format!("job {job} has done {done} of {total}")),
            true => Ok(()),
        }
    }

    fn take_end(&mut self, job: JobId, lives: u32) -> Result<(), String> {
        let known = self.left.contains_key(&job) || self.came.contains_key(&job);
        let came = self.came.entry(job).or_default();
        *came += 1;
        match self.left.get_mut(&job) {
            Some(left) if *left > 1 => *left -= 1,
            Some(_) => drop(self.left.remove(&job)),
            // An attached job that was retried ends once more.
            None if known && *came <= lives => {}
            None => return Err(format!("job {job} was not asked for, or told already")),
        }
        Ok(())
    }

    fn take_events(&mut self, reply: &Reply) -> Result<(), String> {
        let (Request::Events { follow, .. }, Reply::Events { records, missed, caught_up }) =
            (&self.request, reply)
        else {
            return Err("it was not promised".to_owned());
        };
        if self.caught_up && !follow {
            return Err("the stream was over".to_owned());
        }
        self.caught_up |= caught_up;
        let after = matches!(self.request, Request::Events { after, .. } if after > 0);
        self.missed += missed;
        for record in records {
            let expected = self.last_record + 1;
            if record.index < expected {
                return Err(format!("record {} instead of {expected}", record.index));
            }
            self.gaps += record.index - expected;
            self.last_record = record.index;
        }
        // Users see only records about their own jobs; administrators see all. Without an index to begin after, a stream
        // leaves out what was dropped before.
        if *caught_up && after && self.peer.admin && self.missed < self.gaps {
            return Err(format!("{} records are left out, and {} are told", self.gaps, self.missed));
        }
        Ok(())
    }

    /// Whether the request got all that it was promised; `ended` tells whether a job has ended.
    pub fn is_kept(&self, ended: impl Fn(JobId) -> bool) -> bool {
        let caught_up = self.caught_up || !matches!(self.request, Request::Events { .. });
        let owed = self.left.keys().any(|job| ended(*job) && !self.replaced.contains(job));
        // A follower may wait for a first attempt for ever.
        let follows = matches!(self.request, Request::Logs { follow: true, .. });
        let is_answered = self.replies > 0 || !self.replaced.is_empty();
        // A drop is answered only if it is refused.
        let is_mute = matches!(self.request, Request::DropRegistration { .. });
        self.refused || self.is_cut || follows || is_mute || is_answered && caught_up && !owed
    }
}

/// Whether a reply is the one answer to a request.
fn is_answer(request: &Request, reply: &Reply) -> bool {
    match (request, reply) {
        (Request::Result { job }, Reply::Ended(all)) => all.len() == 1 && all[0].job == *job,
        (
            Request::Cancel { jobs } | Request::Retry { jobs } | Request::Forget { jobs },
            Reply::Changed { count, refused },
        ) => {
            let refused: usize = refused.iter().map(|same| same.jobs().len()).sum();
            *count as usize + refused == jobs.len()
        }
        (Request::CancelWaiting { jobs }, Reply::CancelledWaiting { ended, running, refused }) => {
            let refused = refused.iter().flat_map(|same| same.jobs());
            let mut told: Vec<JobId> = ended.iter().chain(running).chain(refused).copied().collect();
            told.sort_unstable();
            told == *jobs
        }
        (Request::Jobs { limit, walk, .. }, Reply::Jobs { rows, last, more }) => {
            let is_before = |one: &JobId, other: &JobId| match walk {
                Walk::Up(_) => one < other,
                Walk::Down(_) => one > other,
            };
            let (Walk::Up(begin) | Walk::Down(begin)) = walk;
            let sorted = rows.windows(2).all(|pair| is_before(&pair[0].job, &pair[1].job));
            let within = rows.iter().all(|row| is_before(begin, &row.job) && !is_before(last, &row.job));
            sorted && within && rows.len() <= *limit as usize && (!more || is_before(begin, last))
        }
        (Request::Register(register), Reply::Registered { number }) => register.number == *number,
        (Request::Job { job }, Reply::Job(detail)) => detail.row.job == *job,
        (Request::Deaths { limit }, Reply::Deaths(rows)) => rows.len() <= *limit as usize,
        (Request::Why { job }, Reply::Why(why)) => why.job == *job,
        (Request::Workers, Reply::Workers(_))
        | (Request::Status, Reply::Status(_))
        | (Request::Kinds, Reply::Kinds(_))
        | (Request::Drain { .. }, Reply::Draining { .. })
        | (Request::Ping, Reply::Pong { .. }) => true,
        _ => false,
    }
}
