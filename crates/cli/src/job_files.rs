//! The files of a job: opened before the job is submitted, and given their names when it is done.
//!
//! A file that the job reads is passed as it is, or copied first if it is a pipe or device. A file that the job writes
//! has no name until the job is done, so that a failed job or a killed command leaves the older files unchanged. Every
//! wrong name or path that can be found is reported before the command looks for a daemon. Used by `run` and `submit`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bulkhead_client::input_file::{self, InputCopyError, InputSource};
use bulkhead_client::{Error, Interrupts, JobFile, JobInput};
use bulkhead_proto::exec::{Program, STDIN};
use bulkhead_proto::file::{self, FileUse, Way};
use bulkhead_proto::job::OutputMode;

use crate::bytes;
use crate::exit::UsageError;
use crate::output_target::OutputTarget;
use crate::progress::{CopyProgress, ProgressMode};

/// The name of `-` as an input, for messages.
const STANDARD: &str = "standard input";

/// A file as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileArg {
    /// Its name for the job.
    pub(crate) name: String,
    /// Its path; `-` is stdin or stdout.
    pub(crate) path: PathBuf,
}

impl FileArg {
    pub(crate) fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self { name: name.to_owned(), path: path.into() }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !path.is_empty() => Ok(Self::new(name, path)),
            _ => Err("give NAME=PATH, such as table=data.csv".to_owned()),
        }
    }

    /// Its name and its absolute path, unless it is stdin or stdout.
    pub(crate) fn named_path(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let path = std::path::absolute(&self.path).ok().filter(|_| !self.is_standard())?;
        Some(named(&self.name, path))
    }

    fn is_standard(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// The flags for files that jobs read.
#[derive(Debug, clap::Args)]
pub(crate) struct InputFileArgs {
    /// A file that the job reads, and its name for the job; may be repeated. - is stdin; a pipe is copied first
    #[arg(long = "in", help_heading = "Files", value_name = "NAME=PATH", value_parser = FileArg::parse)]
    pub(crate) ins: Vec<FileArg>,
    /// Most bytes to copy from a pipe or device
    #[arg(long, help_heading = "Files", value_name = "SIZE", value_parser = bytes::parse, default_value = "64G")]
    pub(crate) input_max: u64,
}

/// The flags for files that jobs write.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputFileArgs {
    /// A file that the job writes, and its name for the job; may be repeated. It appears when the job is done
    #[arg(long = "out", help_heading = "Files", value_name = "NAME=PATH", value_parser = FileArg::parse)]
    pub(crate) outs: Vec<FileArg>,
}

/// The files that a command asks for.
#[derive(Debug, Default)]
pub(crate) struct FileRequest {
    /// Files that the job reads.
    pub(crate) ins: Vec<FileArg>,
    /// Files that the job writes.
    pub(crate) outs: Vec<FileArg>,
    /// The file into which the job itself writes its result, if it does.
    pub(crate) result: Option<PathBuf>,
    /// Whether the job runs a program, which makes the files of `outs` itself.
    pub(crate) makes_files: bool,
    /// The file into which this command writes the results, if it does.
    pub(crate) results: Option<PathBuf>,
    /// The beginning of standard input, which was read already, if standard input becomes a file of the job.
    pub(crate) stdin: Option<Vec<u8>>,
}

impl FileRequest {
    /// Checks names and paths without opening anything.
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        if let Some(fault) = file::fault(&self.uses()) {
            return Err(UsageError(fault));
        }
        let standard = self.ins.iter().filter(|one| one.is_standard()).count();
        if standard + self.stdin.iter().count() > 1 {
            return Err(UsageError("standard input can be read only once: give - to one file".to_owned()));
        }
        let outs = self.outs.iter().map(|one| one.path.as_path()).chain(self.result.as_deref());
        let mut taken = BTreeSet::new();
        // ./x is x. A path that cannot be made absolute is reported when it is opened.
        let is_twice =
            |path: &&Path| !taken.insert(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()));
        match outs.chain(self.results.as_deref()).find(is_twice) {
            Some(twice) => {
                Err(UsageError(format!("two outputs go to {}: give each a file of its own", twice.display())))
            }
            None => Ok(()),
        }
    }

    /// Whether the job writes to standard output.
    pub(crate) fn takes_stdout(&self) -> bool {
        self.outs.iter().any(FileArg::is_standard) || self.result.as_deref() == Some(Path::new("-"))
    }

    fn uses(&self) -> Vec<FileUse> {
        let ins = self.ins.iter().map(|one| FileUse::new(&one.name, Way::In));
        let outs = self.outs.iter().map(|one| FileUse::new(&one.name, Way::Out));
        let result = self.result.iter().map(|_| FileUse::new(file::OUT, Way::Out));
        let stdin = self.stdin.iter().map(|_| FileUse::new(STDIN, Way::In));
        ins.chain(outs).chain(result).chain(stdin).collect()
    }

    /// Opens all files. Outputs come first: an output that cannot be opened is then reported before an input pipe is
    /// copied, which may take long. Signals are watched from the first copy on.
    pub(crate) fn open(
        &self,
        input_max: u64,
        shown: ProgressMode,
        interrupts: &mut Option<Interrupts>,
    ) -> Result<JobFiles> {
        let mut open = JobFiles::default();
        open.attached.takes_result = self.result.is_some();
        let result = self.result.as_ref().map(|path| FileArg::new(file::OUT, path));
        let makes_files = self.outs.iter().map(|_| self.makes_files).chain([false]);
        for (one, is_made) in self.outs.iter().chain(&result).zip(makes_files) {
            let new = match is_made {
                true => OutputTarget::for_program(&one.path, &one.name)?,
                false => OutputTarget::for_job(&one.path)?,
            };
            let (attached, path) = new.job_file(&one.name);
            open.attached.files.push(attached);
            open.attached.paths.extend(path.map(|path| named(&one.name, path)));
            open.outs.0.push(new);
        }
        for one in &self.ins {
            let read = open_in(one, input_max, shown, interrupts)?;
            open.attached.files.push(JobFile::read(&one.name, read));
        }
        if let Some(head) = &self.stdin {
            let (InputSource::Plain(rest) | InputSource::Stream(rest)) = InputSource::stdin()?;
            let read = copy(head, &rest, STANDARD, input_max, shown, interrupts)?;
            open.attached.files.push(JobFile::read(STDIN, read));
        }
        Ok(open)
    }
}

/// Name and path of a file of the job, in the form in which a program gets them.
fn named(name: &str, path: PathBuf) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), path.into_os_string().into_vec())
}

/// Opens a file to be read, or makes a copy of it if it is no regular file.
fn open_in(
    one: &FileArg,
    input_max: u64,
    shown: ProgressMode,
    interrupts: &mut Option<Interrupts>,
) -> Result<File> {
    let name = if one.is_standard() { STANDARD.to_owned() } else { one.path.display().to_string() };
    let source = if one.is_standard() { InputSource::stdin() } else { InputSource::open(&one.path) };
    let stream = match source.map_err(|error| UsageError(format!("cannot read {name}: {error}")))? {
        InputSource::Plain(file) => return Ok(file),
        InputSource::Stream(stream) if stream.is_terminal() => {
            return Err(UsageError(format!("{name} is a terminal: give a file or a pipe")).into());
        }
        InputSource::Stream(stream) => stream,
    };
    copy(&[], &stream, &name, input_max, shown, interrupts)
}

/// Copies `head` and the rest of a stream into an unnamed file, with a progress bar.
fn copy(
    head: &[u8],
    stream: &File,
    name: &str,
    input_max: u64,
    shown: ProgressMode,
    interrupts: &mut Option<Interrupts>,
) -> Result<File> {
    if interrupts.is_none() {
        *interrupts = Some(Interrupts::new()?);
    }
    let bar = CopyProgress::new(name, shown);
    let copied = input_file::copy(head, stream, input_max, interrupts.as_mut(), |bytes| bar.so_far(bytes));
    match copied {
        Err(InputCopyError::Interrupted) => Err(Error::Interrupted.into()),
        Err(error @ InputCopyError::TooLong { .. }) => {
            Err(UsageError(format!("cannot copy {name}: {error}; raise --input-max")).into())
        }
        other => other.with_context(|| format!("cannot copy {name}")),
    }
}

/// The open files of a job.
#[derive(Debug, Default)]
pub(crate) struct JobFiles {
    /// The files to attach to the job.
    pub(crate) attached: AttachedFiles,
    /// The files that the job writes.
    pub(crate) outs: OutputFiles,
}

impl JobFiles {
    /// Passes files in place of folders, for a daemon of another user, whose programs may not enter them.
    pub(crate) fn without_folders(mut self) -> Result<Self> {
        self.outs.0 = self.outs.0.into_iter().map(OutputTarget::without_folder).collect::<Result<_>>()?;
        self.attached.paths.clear();
        for (file, out) in self.attached.files.iter_mut().zip(&self.outs.0) {
            let (passed, path) = out.job_file(&file.name);
            self.attached.paths.extend(path.map(|path| named(&file.name, path)));
            *file = passed;
        }
        Ok(self)
    }
}

/// Files to attach to each job.
#[derive(Debug, Default)]
pub(crate) struct AttachedFiles {
    files: Vec<JobFile>,
    takes_result: bool,
    /// The paths of files that a program makes, with their names.
    paths: Vec<(Vec<u8>, Vec<u8>)>,
}

impl AttachedFiles {
    /// Adds the files to a job.
    pub(crate) fn to(&self, job: JobInput) -> JobInput {
        let output = if self.takes_result { OutputMode::File } else { job.output };
        JobInput {
            output,
            files: self.files.clone(),
            bytes: self.with_paths(job.bytes),
            ..JobInput::default()
        }
    }

    /// The input of a program with the paths of the files that it makes.
    fn with_paths(&self, input: Vec<u8>) -> Vec<u8> {
        if self.paths.is_empty() {
            return input;
        }
        let told = Program::from_input(&input).and_then(|mut program| {
            program.paths.extend(self.paths.iter().cloned());
            program.to_input()
        });
        // It was a program that could be encoded, so this does not fail; without paths the program finds its files too.
        told.unwrap_or(input)
    }
}

/// Files that a job writes.
#[derive(Debug, Default)]
pub(crate) struct OutputFiles(Vec<OutputTarget>);

impl OutputFiles {
    /// The length of the file with the job's result, which was opened last.
    pub(crate) fn result_bytes(&self) -> Result<u64> {
        let last = self.0.last().context("the job wrote no file")?;
        Ok(last.file().metadata().context("cannot read the size of the file that the job wrote")?.len())
    }

    /// Gives the files their names, or copies them to a pipe or device, after the job ended `done`. One that fails does
    /// not keep the others from it.
    pub(crate) fn finish(&mut self, mut interrupts: Option<&mut Interrupts>) -> Vec<Result<()>> {
        self.0.drain(..).map(|out| out.finish(interrupts.as_deref_mut())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ins: &[&str], outs: &[&str], result: Option<&str>) -> FileRequest {
        let parse = |all: &[&str]| all.iter().map(|text| FileArg::parse(text).unwrap()).collect();
        FileRequest {
            ins: parse(ins),
            outs: parse(outs),
            result: result.map(PathBuf::from),
            ..FileRequest::default()
        }
    }

    #[test]
    fn names_and_paths_that_cannot_be_are_told() {
        for (ins, outs, result, fault) in [
            (&["a=x", "a=y"][..], &[][..], None, "two files of the job are named \"a\""),
            (&["a=x"], &["a=y"], None, "two files of the job are named \"a\""),
            (&[], &["out=x"], Some("y"), "two files of the job are named \"out\""),
            (&["1a=x"], &[], None, "cannot name a file of a job"),
            (&["a=-", "b=-"], &[], None, "only once"),
            (&[], &["a=x", "b=x"], None, "two outputs go to x"),
            (&[], &["a=x", "b=./x"], None, "two outputs go to ./x"),
            (&[], &["a=-"], Some("-"), "two outputs go to -"),
        ] {
            let error = wanted(ins, outs, result).check().unwrap_err().0;
            assert!(error.contains(fault), "{error}");
        }
        let fed = FileRequest { stdin: Some(Vec::new()), ..wanted(&["a=-"], &[], None) };
        assert!(fed.check().unwrap_err().0.contains("only once"));
        let fine = wanted(&["a=x", "b=-"], &["c=x"], Some("x.out"));
        assert!(fine.check().is_ok() && !fine.takes_stdout());
        assert!(wanted(&[], &[], Some("-")).takes_stdout());
        assert_eq!(FileArg::parse("a=b=c"), Ok(FileArg::new("a", "b=c")));
        assert!(FileArg::parse("a").is_err() && FileArg::parse("a=").is_err());
    }

    #[test]
    fn outputs_are_tried_before_inputs_are_read() {
        let mut interrupts = None;
        let wanted = wanted(&["a=/nowhere/in"], &["b=/nowhere/out"], None);
        let error = wanted.open(1, ProgressMode::default(), &mut interrupts).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write to /nowhere/out: "), "{error:#}");
        assert!(interrupts.is_none());
    }

    #[test]
    fn what_is_plain_is_passed_and_what_is_not_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        std::fs::write(&path, "plain").unwrap();
        let files = FileRequest { ins: vec![FileArg::new("a", &path)], ..FileRequest::default() };
        let job =
            files.open(9, ProgressMode::default(), &mut None).unwrap().attached.to(b"x".to_vec().into());
        let text = std::io::read_to_string(job.files[0].file.try_clone().unwrap()).unwrap();
        assert_eq!((text.as_str(), job.output), ("plain", OutputMode::Inline));
        let mut interrupts = None;
        let zero = wanted(&["a=/dev/zero"], &[], Some("-"));
        let error = zero.open(1 << 20, ProgressMode::default(), &mut interrupts).unwrap_err();
        let said = "cannot copy /dev/zero: it is longer than the limit of 1048576 bytes; raise --input-max";
        assert_eq!(error.downcast_ref::<UsageError>().unwrap().0, said);
        assert!(interrupts.is_some(), "from then on signals are watched");
        let missing =
            wanted(&["a=/nowhere/in"], &[], None).open(1, ProgressMode::default(), &mut None).unwrap_err();
        assert!(missing.is::<UsageError>() && missing.to_string().starts_with("cannot read /nowhere/in: "));
    }
}
