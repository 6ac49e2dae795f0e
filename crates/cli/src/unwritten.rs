//! Results that have arrived and are not yet where they are to go: on stdout, or in a file that has its name.
//!
//! The daemon keeps each of them until `run` reports it as received, within its bounds. So an error of a write says how
//! to get them, and the daemon is asked first: a command that would find nothing is never named. Only ranges of job
//! numbers are kept here. Driven by the verb `run`.
//!
//! | the results are | what is said of them |
//! |---|---|
//! | with the daemon | `bulkhead result N` prints the first one |
//! | with the daemon, but some were dropped for newer ones | the same, of the first that is left |
//! | dropped by the daemon | that |
//! | of a daemon that has gone, or that ends with this command | that no daemon keeps them |

use bulkhead_client::{DaemonClient, Error};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;

use crate::index_ranges::IndexRanges;

/// Jobs whose results wait to be written.
#[derive(Debug, Default)]
pub(crate) struct UnwrittenResults {
    /// Buffered, or in a file that has no name yet.
    buffered: IndexRanges,
    count: u64,
    /// Never written, because the run was given up before.
    left: IndexRanges,
}

impl UnwrittenResults {
    /// The result of this job is about to be written.
    pub(crate) fn note(&mut self, job: JobId) {
        self.buffered.insert(job.0);
        self.count += 1;
    }

    /// The result of this job has arrived, and will not be written.
    pub(crate) fn note_left(&mut self, job: JobId) {
        self.left.insert(job.0);
    }

    /// All that were to be written are.
    pub(crate) fn clear(&mut self) {
        (self.buffered, self.count) = (IndexRanges::default(), 0);
    }

    /// How many are about to be written.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// What became of them, if there are any. `is_private`: the daemon ends with this command.
    pub(crate) fn fate(&self, client: &mut DaemonClient, is_private: bool) -> Option<String> {
        let mut all = self.buffered.clone();
        self.left.iter().flat_map(|(first, last)| first..=last).for_each(|job| all.insert(job));
        let (first, last) = all.span()?;
        let subject = match all.count() {
            1 => format!("the result of job {first}"),
            count => format!("the {count} results of jobs {first} to {last}"),
        };
        Some(match is_private {
            true => format!("no daemon keeps {subject}, because none was running when this command began"),
            false => told(&subject, (first, all.count()), first_kept(client, &all)),
        })
    }
}

/// The first of these jobs whose result the daemon has.
fn first_kept(client: &mut DaemonClient, jobs: &IndexRanges) -> Result<Option<JobId>, Error> {
    let Some((first, last)) = jobs.span() else { return Ok(None) };
    for row in client.jobs(Some(JobState::Ended), JobId(first.saturating_sub(1))) {
        let job = row?.job;
        if job.0 > last {
            break;
        }
        if jobs.contains(job.0) {
            return Ok(Some(job));
        }
    }
    Ok(None)
}

fn told(subject: &str, (first, count): (u64, u64), kept: Result<Option<JobId>, Error>) -> String {
    match kept {
        Ok(Some(job)) if job.0 == first => {
            let what = if count == 1 { "it" } else { "the first one" };
            format!("the daemon still has {subject}, and `bulkhead result {job}` prints {what}")
        }
        Ok(Some(job)) => format!(
            "the daemon still has some of {subject}, and has dropped others to make room: `bulkhead result {job}` prints \
             the first that is left"
        ),
        Ok(None) => format!("the daemon has already dropped {subject}, by its bounds for kept results"),
        Err(Error::Closed { .. } | Error::Goodbye(_) | Error::Io(_)) => {
            format!("no daemon keeps {subject} any more")
        }
        Err(error) => format!("it is unknown whether the daemon still has {subject}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_command_that_finds_something_is_named() {
        let one = "the result of job 7";
        let cases = [
            (
                Ok(Some(JobId(7))),
                "the daemon still has the result of job 7, and `bulkhead result 7` prints it",
            ),
            (Ok(None), "the daemon has already dropped the result of job 7, by its bounds for kept results"),
            (Err(Error::Closed { in_a_frame: false }), "no daemon keeps the result of job 7 any more"),
            (
                Err(Error::Interrupted),
                "it is unknown whether the daemon still has the result of job 7: interrupted",
            ),
        ];
        for (kept, text) in cases {
            assert_eq!(told(one, (7, 1), kept), text);
        }
        let many = "the 3 results of jobs 5 to 9";
        assert!(told(many, (5, 3), Ok(Some(JobId(5)))).ends_with("`bulkhead result 5` prints the first one"));
        let some = told(many, (5, 3), Ok(Some(JobId(8))));
        assert!(some.contains("some of the 3 results") && some.contains("`bulkhead result 8`"), "{some}");
    }

    #[test]
    fn what_is_written_is_forgotten_and_what_is_left_stays() {
        let mut unwritten = UnwrittenResults::default();
        unwritten.note(JobId(7));
        unwritten.note_left(JobId(9));
        assert_eq!(unwritten.count(), 1);
        unwritten.clear();
        assert_eq!(
            (unwritten.count(), unwritten.buffered.span(), unwritten.left.span()),
            (0, None, Some((9, 9)))
        );
    }
}
