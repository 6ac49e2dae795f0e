//! The flags of the kind `transform`: each is one operation, and the operations run in the order of the flags.
//!
//! The names are those of the chain text that the job gets as its input, so `--scale 320x180 --gray` and `--chain
//! scale=320x180,gray` are the same. An unknown operation is refused before anything is submitted. Whether an operation
//! fits a clip is checked by the job's plan task. Driven by `job_args.rs`.

use bulkhead_frames::OperationChain;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::exit::UsageError;

/// The flags: the name, the form of the value if there is one, and the help text.
const FLAGS: [(&str, Option<&str>, &str); 7] = [
    ("scale", Some("WxH[:FILTER]"), "To this size; the filter is lanczos (sharp, the default) or bilinear"),
    ("crop", Some("WxH+X+Y"), "A part of this size, X pixels from the left and Y from the top"),
    ("rotate", Some("DEGREES"), "Clockwise by 90, 180 or 270"),
    ("blur", Some("N"), "Each pixel becomes the mean of those up to N away"),
    ("gray", None, "No colour; the clip keeps its form"),
    ("mono", None, "No colour, and no planes for it in the clip"),
    (CHAIN, Some("TEXT"), "Operations as a text, such as scale=320x180,gray,blur=2"),
];

const CHAIN: &str = "chain";

/// The operations on each frame, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct TransformArgs {
    /// Each operation in the form of the chain text.
    operations: Vec<String>,
}

impl TransformArgs {
    /// The chain text, which becomes the input of the job.
    pub(crate) fn text(&self) -> Result<String, UsageError> {
        if self.operations.is_empty() {
            let flags: Vec<String> = FLAGS.iter().map(|(name, ..)| format!("--{name}")).collect();
            return Err(UsageError(format!(
                "no operation is given for transform: give at least one of {}",
                flags.join(", ")
            )));
        }
        let chain: OperationChain =
            self.operations.join(",").parse().map_err(|fault| UsageError(format!("{fault}")))?;
        Ok(chain.to_string())
    }

    /// Refuses the flags for any kind but `transform`.
    pub(crate) fn refuse_for(&self, kind: &str) -> Result<(), UsageError> {
        match self.operations.first() {
            None => Ok(()),
            Some(first) => Err(UsageError(format!(
                "{first} is an operation of transform and cannot be used with {kind}"
            ))),
        }
    }
}

impl clap::Args for TransformArgs {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, value, help)| {
            let flag = Arg::new(*name).long(*name).help(*help).help_heading("Transform");
            // A flag without a value gets an empty one, so that clap records an index for each time it is given.
            let flag = flag.action(ArgAction::Append);
            command.arg(match value {
                Some(value) => flag.value_name(*value),
                None => flag.num_args(0).default_missing_value(""),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TransformArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut placed: Vec<(usize, String)> = Vec::new();
        for (name, ..) in FLAGS {
            let values = matches.get_many::<String>(name).into_iter().flatten();
            let operations = values.map(|value| match (name, value.as_str()) {
                (CHAIN, text) => text.to_owned(),
                (name, "") => name.to_owned(),
                (name, value) => format!("{name}={value}"),
            });
            placed.extend(matches.indices_of(name).into_iter().flatten().zip(operations));
        }
        placed.sort_by_key(|(place, _)| *place);
        Ok(Self { operations: placed.into_iter().map(|(_, operation)| operation).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TransformCommand {
        #[command(flatten)]
        chain: TransformArgs,
        #[arg()]
        words: Vec<String>,
    }

    fn read(line: &str) -> Result<String, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = TransformCommand::try_parse_from(words).map_err(|error| error.to_string())?;
        line.chain.text().map_err(|usage| usage.0)
    }

    #[test]
    fn operations_stand_in_the_order_of_their_flags() {
        for (line, chain) in [
            (
                "in.y4m --scale 320x180 --gray --blur 2 --rotate 90",
                "scale=320x180:lanczos,gray,blur=2,rotate=90",
            ),
            (
                "--rotate 90 --blur=2 in --gray --scale 2x4:bilinear",
                "rotate=90,blur=2,gray,scale=2x4:bilinear",
            ),
            ("--gray --mono --gray --blur 1 --gray --blur 3", "gray,mono,gray,blur=1,gray,blur=3"),
            ("--gray --chain blur=1,crop=8x8+0+2 --mono", "gray,blur=1,crop=8x8+0+2,mono"),
        ] {
            assert_eq!(read(line).unwrap(), chain, "{line}");
        }
    }

    #[test]
    fn every_operation_has_a_flag_and_every_flag_an_operation() {
        let fault = "?".parse::<OperationChain>().unwrap_err().to_string();
        for (name, ..) in FLAGS {
            assert_eq!(fault.contains(name), name != CHAIN, "{name}: {fault}");
        }
        // `mono` and the like are words; each of the others ends at its `=`.
        let usage = fault.split("give some of ").nth(1).unwrap();
        for word in usage.split(", ").map(|word| word.split('=').next().unwrap()) {
            assert!(FLAGS.iter().any(|(name, ..)| *name == word), "{word} has no flag");
        }
    }

    #[test]
    fn what_is_no_operation_is_told() {
        for (line, fault) in [
            ("in.y4m", "no operation is given for transform: give at least one of --scale, --crop"),
            ("--scale 320", "give scale a size of 1 to"),
            ("--blur 0", "give blur a radius of 1 to"),
            ("--rotate 45", "90, 180 or 270"),
            ("--crop 1x1", "where it begins"),
            ("--chain grey", "\"grey\" is not known"),
            ("--chain=", "the chain has no operation"),
            ("--gray=1", "unexpected value"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(fault), "{line}: {error}");
        }
        let gray = TransformArgs { operations: vec!["gray".to_owned()] };
        assert_eq!(
            gray.refuse_for("noop").unwrap_err().0,
            "gray is an operation of transform and cannot be used with noop"
        );
    }
}
