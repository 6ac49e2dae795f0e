//! Numbers of jobs on the command line: single numbers, ranges that include both ends, and `-` for stdin.
//!
//! All numbers are read and checked before the command looks for a daemon, so a wrong number is a usage error and no
//! request is sent. Used by the verbs about existing jobs.

use std::collections::BTreeSet;
use std::io::Read;

use bulkhead_proto::ids::JobId;

use crate::exit::UsageError;

/// Most jobs of one command.
const IDS_MAX: usize = 1_000_000;

/// The jobs that a command names.
#[derive(Debug, clap::Args)]
pub(crate) struct JobIdArgs {
    /// Jobs: numbers, ranges such as 5..10 (both ends included), or - to read them from stdin
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
}

impl JobIdArgs {
    /// The numbers in the order given, each once.
    pub(crate) fn read(&self) -> Result<Vec<JobId>, UsageError> {
        let mut found = Vec::new();
        for word in &self.jobs {
            if word == "-" {
                let mut text = String::new();
                let read = std::io::stdin().lock().read_to_string(&mut text);
                read.map_err(|error| UsageError(format!("cannot read job numbers from stdin: {error}")))?;
                for word in text.split_whitespace() {
                    push(word, &mut found)?;
                }
            } else {
                push(word, &mut found)?;
            }
        }
        // A number that is given twice counts once: the daemon would refuse a second cancel.
        let mut seen = BTreeSet::new();
        found.retain(|job| seen.insert(*job));
        Ok(found)
    }
}

/// Parses the number of one job.
pub(crate) fn one(word: &str) -> Result<JobId, String> {
    let number = word.parse::<u64>().ok().filter(|number| *number > 0);
    number.map(JobId).ok_or_else(|| "give the number of one job, from 1".to_owned())
}

fn push(word: &str, into: &mut Vec<JobId>) -> Result<(), UsageError> {
    let number = |text: &str| {
        text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
            UsageError(format!(
                "{word:?} is no job number: give a number from 1, a range such as 5..10, or - for stdin"
            ))
        })
    };
    let (first, last) = match word.split_once("..") {
        Some((first, last)) => (number(first)?, number(last.strip_prefix('=').unwrap_or(last))?),
        None => (number(word)?, number(word)?),
    };
    if first > last {
        return Err(UsageError(format!("range {word} runs backwards: write {last}..{first}")));
    }
    if last - first >= (IDS_MAX - into.len()) as u64 {
        return Err(UsageError(format!(
            "{word} makes more than {IDS_MAX} jobs, the limit for one command: give fewer"
        )));
    }
    into.extend((first..=last).map(JobId));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Vec<u64>, String> {
        let ids = JobIdArgs { jobs: words.iter().map(|word| (*word).to_owned()).collect() };
        ids.read().map(|jobs| jobs.into_iter().map(|job| job.0).collect()).map_err(|usage| usage.0)
    }

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(read(&["7", "5..6", "1..=2"]), Ok(vec![7, 5, 6, 1, 2]));
        assert_eq!(read(&["5", "4..6", "5"]), Ok(vec![5, 4, 6]), "each once");
    }

    #[test]
    fn what_is_no_job_is_named() {
        for (word, fault) in
            [("x", "\"x\""), ("0", "from 1"), ("5..", "5.."), ("9..3", "3..9"), ("1..1000001", "1000000")]
        {
            let error = read(&[word]).unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
        assert!(read(&["1..999999", "5..6"]).is_err(), "the limit is for all of them");
    }
}
