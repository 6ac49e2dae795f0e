//! The figures of a run: printed as they come, compared with their aims, and written as one flat JSON object.

use std::path::Path;
use std::time::{Duration, Instant};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aim {
    /// Nothing: it is only reported.
    None,
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn verdict(self, value: f64) -> String {
        match self {
            Self::None => String::new(),
            Self::AtLeast(least) if value >= least => format!(">= {least}"),
            Self::AtLeast(least) => format!(">= {least}  MISSED"),
            Self::AtMost(most) if value <= most => format!("<= {most}"),
            Self::AtMost(most) => format!("<= {most}  MISSED"),
        }
    }
}

/// All figures so far.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    found: serde_json::Map<String, serde_json::Value>,
    missed: Vec<String>,
    parts: Vec<String>,
}

impl Figures {
    /// Measures this part of its section alone, beside others named so.
    pub(crate) fn choose(&mut self, part: &str) {
        self.parts.push(part.to_owned());
    }

    /// Whether this part of a section is to be measured: all are, unless some are chosen.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|chosen| chosen == part)
    }

    /// Begins a part.
    pub(crate) fn section(&mut self, name: &str, what: &str) {
        println!("\n{name}: {what}");
    }

    /// Says something that is no figure.
    pub(crate) fn note(&mut self, text: &str) {
        println!("  {text}");
    }

    /// Takes in a figure.
    pub(crate) fn add(&mut self, name: &str, value: f64, aim: Aim) {
        let verdict = aim.verdict(value);
        let digits = if value.abs() >= 1000.0 { 0 } else { 3 };
        println!("  {name:<34} {value:>14.digits$}   {verdict}");
        if verdict.ends_with("MISSED") {
            self.missed.push(name.to_owned());
        }
        let rounded = (value * 1e6).round() / 1e6;
        self.found.insert(name.to_owned(), rounded.into());
    }

    /// Says what missed its aim, and writes the file.
    pub(crate) fn close(self, json: Option<&Path>) {
        match self.missed.as_slice() {
            [] => println!("\nevery aim was met"),
            missed => println!("\nmissed: {}", missed.join(", ")),
        }
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self.found).expect("numbers are JSON");
            std::fs::write(path, text + "\n").expect("the file of figures can be written");
            println!("figures are in {}", path.display());
        }
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The middle one of what the rounds gave, each by itself: what changes from round to round meets both of a pair.
pub(crate) fn median_ratio(over: &[f64], under: &[f64]) -> f64 {
    median(over.iter().zip(under).map(|(over, under)| over / under).collect())
}

/// So many thousandths of these are smaller, in microseconds.
pub(crate) fn quantile_us(spans: &mut [Duration], thousandths: usize) -> f64 {
    spans.sort_unstable();
    spans[(spans.len() * thousandths / 1000).min(spans.len() - 1)].as_secs_f64() * 1e6
}

/// Seconds that something takes.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// The median of several runs, in seconds.
pub(crate) fn median_seconds(rounds: usize, mut work: impl FnMut()) -> f64 {
    median((0..rounds).map(|_| seconds(&mut work)).collect())
}
