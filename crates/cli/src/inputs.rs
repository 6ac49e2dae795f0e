//! The inputs of a command's jobs. They are counted first and made one by one when they are sent.
//!
//! A range of ten million numbers is stored as two numbers. The input at any index can be made again, so that a result
//! can be printed beside its input. Used by `run` and `submit`.

use bulkhead_client::JobInput;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::kind::Form;
use bulkhead_proto::limits::INLINE_MAX_BYTES;

use crate::exec_args::ExecInput;
use crate::factorial_size;
use crate::numbers::NumberRange;

/// Most jobs of one command.
pub(crate) const JOBS_MAX: u64 = 100_000_000;

/// The inputs of the jobs of a command.
#[derive(Debug)]
pub(crate) struct Inputs {
    source: InputSet,
    /// How many inputs one repetition has.
    pass: u64,
    total: u64,
    /// Whether every output goes into a descriptor (`--large`).
    large: bool,
    /// Whether outputs of programs are inline.
    short: bool,
}

#[derive(Debug)]
enum InputSet {
    /// Numbers, each range with the place of its first.
    Numbers { ranges: Vec<(u64, NumberRange)>, form: Form },
    /// The same text for each job.
    Text(String),
    /// A text for each job.
    Texts(Vec<String>),
    /// The same program for each job: its words for messages, and its encoded input.
    Program { label: String, fed: ExecInput },
    /// The index of each job.
    Places,
}

impl Inputs {
    /// Factorials of these numbers, in order, `times` times over.
    pub(crate) fn numbers(ranges: &[NumberRange], form: Form, times: u64) -> Result<Self, String> {
        let mut pass = 0;
        let mut placed = Vec::with_capacity(ranges.len());
        for range in ranges {
            placed.push((pass, *range));
            pass += range.count();
        }
        Self::new(InputSet::Numbers { ranges: placed, form }, pass, times)
    }

    /// This text, `times` times.
    pub(crate) fn text(text: String, times: u64) -> Result<Self, String> {
        check_length(&text)?;
        Self::new(InputSet::Text(text), 1, times)
    }

    /// This program, `times` times; `label` names it in messages.
    pub(crate) fn program(label: String, fed: ExecInput, times: u64) -> Result<Self, String> {
        Self::new(InputSet::Program { label, fed }, 1, times)
    }

    /// The beginning of standard input, if the program gets its standard input as a file.
    pub(crate) fn stdin(&self) -> Option<&[u8]> {
        match &self.source {
            InputSet::Program { fed, .. } => fed.stdin.as_deref(),
            _ => None,
        }
    }

    /// A job for each of these texts, in order, `times` times over.
    pub(crate) fn texts(texts: Vec<String>, times: u64) -> Result<Self, String> {
        texts.iter().try_for_each(|text| check_length(text))?;
        let pass = texts.len() as u64;
        Self::new(InputSet::Texts(texts), pass, times)
    }

    /// 0, 1, 2, ... up to `times` less one.
    pub(crate) fn places(times: u64) -> Result<Self, String> {
        Self::new(InputSet::Places, 1, times)
    }

    fn new(source: InputSet, pass: u64, times: u64) -> Result<Self, String> {
        match pass.checked_mul(times).filter(|total| (1..=JOBS_MAX).contains(total)) {
            Some(total) => Ok(Self { source, pass, total, large: false, short: false }),
            None if times == 0 => Err("--count 0 makes no job: give 1 or more".to_owned()),
            None => {
                Err(format!("these are more than {JOBS_MAX} jobs, the limit for one command: give fewer"))
            }
        }
    }

    /// The same jobs, with outputs in descriptors, which may be long.
    pub(crate) fn with_large_outputs(self) -> Self {
        Self { large: true, ..self }
    }

    /// The same jobs, with inline outputs of programs: durable jobs have no others. One that is known to be long stays in a
    /// descriptor, and the daemon says why it does not take it.
    pub(crate) fn with_short_outputs(self) -> Self {
        Self { short: true, ..self }
    }

    /// How many jobs.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The input at an index, in words for messages.
    pub(crate) fn label(&self, place: u64) -> String {
        match &self.source {
            InputSet::Numbers { .. } => self.number(place).to_string(),
            InputSet::Text(text) | InputSet::Program { label: text, .. } => text.clone(),
            InputSet::Texts(texts) => usize::try_from(place % self.pass)
                .ok()
                .and_then(|at| texts.get(at))
                .cloned()
                .unwrap_or_default(),
            InputSet::Places => place.to_string(),
        }
    }

    /// The inputs from one index to another, both included, in words for messages: numbers as the command line takes
    /// them, other inputs by their places, from 1.
    pub(crate) fn span(&self, first: u64, last: u64) -> String {
        match &self.source {
            InputSet::Numbers { ranges, .. } if self.is_one_range(ranges, first, last) => {
                match (self.number(first), self.number(last)) {
                    (one, other) if one == other => one.to_string(),
                    (one, other) => format!("{one}..{other}"),
                }
            }
            InputSet::Texts(_) if first == last => format!("input {} ({:?})", first + 1, self.label(first)),
            _ if first == last => format!("input {}", first + 1),
            _ => format!("inputs {}..{}", first + 1, last + 1),
        }
    }

    fn is_one_range(&self, ranges: &[(u64, NumberRange)], first: u64, last: u64) -> bool {
        let at =
            |place: u64| (place / self.pass, ranges.partition_point(|(one, _)| *one <= place % self.pass));
        at(first) == at(last)
    }

    /// The jobs, in order.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobInput> + '_ {
        (0..self.total).map(|place| {
            let job = self.job(place);
            if self.large { JobInput { output: OutputMode::Descriptor, ..job } } else { job }
        })
    }

    fn job(&self, place: u64) -> JobInput {
        match &self.source {
            InputSet::Numbers { form, .. } => {
                let n = self.number(place);
                let bytes = format!("{n} {}", form.name()).into_bytes();
                JobInput { output: factorial_size::output_mode(n, *form), ..bytes.into() }
            }
            InputSet::Program { fed, .. } => {
                let output = if self.short { OutputMode::Inline } else { OutputMode::Descriptor };
                JobInput { output, ..fed.input.clone().into() }
            }
            InputSet::Text(_) | InputSet::Texts(_) | InputSet::Places => {
                self.label(place).into_bytes().into()
            }
        }
    }

    fn number(&self, place: u64) -> u64 {
        let InputSet::Numbers { ranges, .. } = &self.source else { return place };
        let place = place % self.pass;
        let behind = ranges.partition_point(|(first, _)| *first <= place);
        let (first, range) = ranges[behind - 1];
        range.first + (place - first)
    }
}

fn check_length(text: &str) -> Result<(), String> {
    match text.len() {
        0..=INLINE_MAX_BYTES => Ok(()),
        length => Err(format!("the input is {length} bytes long, the limit is {INLINE_MAX_BYTES} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(inputs: &Inputs) -> Vec<String> {
        inputs.jobs().map(|job| String::from_utf8(job.bytes).unwrap()).collect()
    }

    #[test]
    fn each_text_is_a_job_of_its_own() {
        let inputs = Inputs::texts(vec!["a b".to_owned(), "c".to_owned()], 2).unwrap();
        assert_eq!(texts(&inputs), ["a b", "c", "a b", "c"]);
        assert_eq!([inputs.span(0, 0), inputs.span(1, 3)], ["input 1 (\"a b\")", "inputs 2..4"]);
        assert!(Inputs::texts(vec!["x".repeat(INLINE_MAX_BYTES + 1)], 1).is_err());
    }

    #[test]
    fn numbers_and_ranges_come_in_order_and_again() {
        let ranges = [NumberRange { first: 5, last: 5 }, NumberRange { first: 1, last: 3 }];
        let inputs = Inputs::numbers(&ranges, Form::Bits, 2).unwrap();
        assert_eq!(inputs.total(), 8);
        let once = ["5 bits", "1 bits", "2 bits", "3 bits"];
        assert_eq!(texts(&inputs), [once, once].concat());
        assert_eq!(inputs.label(7), "3");
        let spans = [(0, 0), (1, 3), (2, 2), (0, 3), (3, 5)].map(|(first, last)| inputs.span(first, last));
        assert_eq!(spans, ["5", "1..3", "2", "inputs 1..4", "inputs 4..6"]);
    }

    #[test]
    fn texts_repeat_and_places_count() {
        assert_eq!(texts(&Inputs::text("hello".to_owned(), 2).unwrap()), ["hello", "hello"]);
        assert_eq!(texts(&Inputs::places(3).unwrap()), ["0", "1", "2"]);
    }

    #[test]
    fn long_outputs_get_descriptors_one_by_one() {
        let inputs = Inputs::numbers(&[NumberRange { first: 1480, last: 1490 }], Form::Decimal, 1).unwrap();
        let modes: Vec<_> = inputs.jobs().map(|job| job.output).collect();
        assert_eq!((modes[0], modes[10]), (OutputMode::Inline, OutputMode::Descriptor));
    }

    #[test]
    fn any_output_may_be_large() {
        let inputs = Inputs::text("x".to_owned(), 2).unwrap().with_large_outputs();
        assert!(inputs.jobs().all(|job| job.output == OutputMode::Descriptor));
    }

    #[test]
    fn too_many_jobs_and_too_long_inputs_are_refused() {
        assert!(Inputs::places(0).is_err());
        assert!(Inputs::places(JOBS_MAX + 1).unwrap_err().contains("100000000"));
        let ranges = [NumberRange { first: 0, last: 10_000_000 }];
        assert!(Inputs::numbers(&ranges, Form::Bits, u64::MAX).is_err());
        assert!(Inputs::text("x".repeat(INLINE_MAX_BYTES + 1), 1).unwrap_err().contains("4097"));
    }
}
