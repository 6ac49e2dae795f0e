//! The files of a program: the path of each, copies where it needs one, and its outputs when it has ended.
//!
//! | file of the job | the path that the program gets |
//! |---|---|
//! | input whose path, as the client told it, leads to it | that path (`real_path.rs`) |
//! | other input | that of a copy (`copies.rs`) |
//! | `stdin` without a path that leads to it, `out` that takes the result | `/proc/self/fd/N`: it is a stream of the program |
//! | folder of an output whose path leads to it | the client's path in it (`output_folder.rs`) |
//! | other folder, other output | one beside copies, where nothing is yet; copied out when the program ended with code 0 |
//!
//! A change to a copy of an input would be lost without a word, so the task fails. Driven by `exec.rs`.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_proto::exec::{Program, STDIN};
use bulkhead_proto::file::{OUT, Way};
use bulkhead_sys::file_copy::file_of;
use bulkhead_sys::open_flags::open_regular;
use bulkhead_sys::program;
use bulkhead_task::{PositionedFile, TaskContext, TaskFailure};

use super::copies::{self, CopyFolder, CopyRoom};
use super::output_folder::{OutputFolder, not_left};
use super::real_path;

/// The files of one program.
pub(super) struct PlacedFiles {
    files: Vec<PlacedFile>,
    /// It is there while it is needed.
    copies: Option<CopyFolder>,
}

struct PlacedFile {
    file: Arc<dyn PositionedFile>,
    /// The name that a copy gets.
    name: PathBuf,
    /// The client's folder, of an output that is made in one.
    folder: Option<OutputFolder>,
    /// Where the client has the file, as it told.
    told: Option<PathBuf>,
    place: FilePlace,
}

enum FilePlace {
    /// The program finds it at this path.
    At(PathBuf),
    /// It has to be copied. The copy is not made yet.
    Away,
    /// It has been copied to this path; then the copy looked so.
    CopiedIn(PathBuf, FileLook),
    /// The program makes it at this path.
    Made(PathBuf),
}

/// What changes if a file is written to or replaced: device, inode, length, and time of modification.
#[derive(PartialEq, Eq)]
struct FileLook([u64; 3], (i64, i64));

impl FileLook {
    fn of(found: &Metadata) -> Self {
        Self([found.dev(), found.ino(), found.len()], (found.mtime(), found.mtime_nsec()))
    }
}

impl PlacedFiles {
    /// Decides on the path of each file. Only looks.
    pub(super) fn decide(program: &Program, files: Vec<Arc<dyn PositionedFile>>) -> Self {
        let decide = |file| PlacedFile::decide(program, file);
        Self { files: files.into_iter().map(decide).collect(), copies: None }
    }

    /// Empties the client's folders, copies inputs, and makes room for outputs.
    pub(super) fn make_ready(&mut self, task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        self.files.iter().filter_map(|file| file.folder.as_ref()).try_for_each(OutputFolder::empty)?;
        if !self.files.iter().any(|file| matches!(file.place, FilePlace::Away)) {
            return Ok(());
        }
        let (copies, mut room) = (CopyFolder::make()?, CopyRoom::whole());
        for file in self.files.iter_mut().filter(|file| matches!(file.place, FilePlace::Away)) {
            let path = copies.path_for(file.file.name(), file.name.as_os_str())?;
            file.place = match file.file.way() {
                Way::In => file.copy_in(path, &mut room, task)?,
                Way::Out => task.file(file.file.name()).map(|_| FilePlace::Made(path))?,
                Way::Folder => FilePlace::Made(path),
            };
        }
        self.copies = Some(copies);
        Ok(())
    }

    /// Tells the program the paths of its files.
    pub(super) fn tell(&self, program: &mut Program) {
        let path = |file: &PlacedFile| match &file.place {
            FilePlace::At(path) | FilePlace::CopiedIn(path, _) | FilePlace::Made(path) => {
                path.as_os_str().as_bytes().to_vec()
            }
            FilePlace::Away => Vec::new(),
        };
        let paths: Vec<Vec<u8>> = self.files.iter().map(path).collect();
        let places = self.files.iter().zip(&paths).map(|(one, path)| (one.file.name(), path.as_slice()));
        program.place_files(&places.collect::<Vec<_>>());
    }

    /// The most bytes of a file that the program writes, if an output of it is made beside copies.
    pub(super) fn file_max_bytes(&self) -> Option<u64> {
        let is_made = |file: &PlacedFile| matches!(file.place, FilePlace::Made(_));
        self.files.iter().any(is_made).then(|| CopyRoom::whole().most())
    }

    /// Takes the outputs of a program that reports success.
    pub(super) fn take_outputs(&self, task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        self.files.iter().try_for_each(PlacedFile::expect)?;
        self.files.iter().try_for_each(|file| file.copy_out(task))
    }

    /// Removes the client's folders, because the client may be gone.
    pub(super) fn remove_folders(&self) {
        self.files.iter().filter_map(|file| file.folder.as_ref()).for_each(OutputFolder::remove);
    }
}

impl PlacedFile {
    fn decide(program: &Program, file: Arc<dyn PositionedFile>) -> Self {
        let told = program.path_of(file.name());
        let folder = OutputFolder::new(&file, told);
        let by_descriptor = || PathBuf::from(program::path_of(file.as_fd()));
        let place = match (file.way(), told) {
            (Way::In, Some(told)) if real_path::leads_to(told, file.as_fd()) => Some(path(told).to_owned()),
            (Way::In, _) if file.name() == STDIN => Some(by_descriptor()),
            (Way::Out, None) if file.name() == OUT => Some(by_descriptor()),
            (Way::In | Way::Out, _) => None,
            (Way::Folder, _) => folder.as_ref().and_then(OutputFolder::path),
        };
        let name = name_of(&file, told).to_owned();
        let place = place.map_or(FilePlace::Away, FilePlace::At);
        Self { name, folder, told: told.map(|told| path(told).to_owned()), place, file }
    }

    fn copy_in(
        &self,
        path: PathBuf,
        room: &mut CopyRoom,
        task: &mut dyn TaskContext,
    ) -> Result<FilePlace, TaskFailure> {
        let name = self.file.name();
        // This refuses what is no regular file, and notices a change when the task ends.
        task.file(name)?;
        let folder = path.parent().unwrap_or(&path);
        let failed = |error| {
            TaskFailure::new(format!("file {name:?} cannot be copied to {}: {error}", path.display()))
        };
        let from = file_of(self.file.as_fd()).map_err(failed)?;
        let original = from.metadata().map_err(failed)?;
        room.check(name, &original)?;
        let to = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        copies::copy(name, (&from, &to), folder, room, task)?;
        copies::finish(&to, &original).map_err(failed)?;
        let look = FileLook::of(&to.metadata().map_err(failed)?);
        Ok(FilePlace::CopiedIn(path, look))
    }

    /// Fails if an output is no regular file, or if a copy of an input has changed.
    fn expect(&self) -> Result<(), TaskFailure> {
        match &self.place {
            FilePlace::At(_) => self.folder.as_ref().map_or(Ok(()), OutputFolder::expect_file),
            FilePlace::Made(path) => not_left(self.file.name(), path.symlink_metadata()),
            FilePlace::CopiedIn(path, look) => self.expect_unchanged(path, look),
            FilePlace::Away => Ok(()),
        }
    }

    fn expect_unchanged(&self, path: &Path, look: &FileLook) -> Result<(), TaskFailure> {
        // A file without a name is what a command made of a pipe: nobody would find a change to it.
        let is_nameless = || {
            let original = file_of(self.file.as_fd()).and_then(|file| file.metadata());
            original.is_ok_and(|original| original.nlink() == 0)
        };
        if path.symlink_metadata().is_ok_and(|found| FileLook::of(&found) == *look) || is_nameless() {
            return Ok(());
        }
        let name = self.file.name();
        let text = format!(
            "the program changed or removed file {name:?}, of which it has a copy, because its path leads elsewhere \
             for the daemon's programs: the change is lost; have it write to a file of --out"
        );
        Err(TaskFailure::new(text).with_output())
    }

    /// Copies what the program made to the client's folder or file.
    fn copy_out(&self, task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        let FilePlace::Made(made) = &self.place else { return Ok(()) };
        let name = self.file.name();
        let failed = |error: std::io::Error| {
            TaskFailure::new(format!("file {name:?} cannot be copied to {}: {error}", self.home().display()))
                .with_output()
        };
        let from = open_regular(made).map_err(failed)?;
        let original = from.metadata().map_err(failed)?;
        let to = match &self.folder {
            Some(folder) => folder.create().map_err(failed)?,
            None => {
                self.file.set_length(0).map_err(failed)?;
                file_of(self.file.as_fd()).map_err(failed)?
            }
        };
        // The program's limit of file size has bounded it.
        let mut room = CopyRoom::endless();
        copies::copy(name, (&from, &to), &self.home(), &mut room, task).map_err(TaskFailure::with_output)?;
        if self.folder.is_some() { copies::finish(&to, &original).map_err(failed) } else { Ok(()) }
    }

    /// The folder of the output, as its user knows it.
    fn home(&self) -> PathBuf {
        let told = self.told.as_deref().and_then(Path::parent);
        let home = if self.folder.is_some() { told.and_then(Path::parent) } else { told };
        home.map_or_else(|| PathBuf::from("the file that the command passed"), Path::to_owned)
    }
}

fn path(told: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(told))
}

/// The name for a copy: that of the client's path, for tools that go by its extension. A descriptor's path has none.
fn name_of<'a>(file: &'a Arc<dyn PositionedFile>, told: Option<&'a [u8]>) -> &'a Path {
    let is_descriptor = |path: &&Path| {
        path.starts_with("/proc")
            || ["/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|one| path.starts_with(one))
    };
    let told = told.map(path).filter(|path| !is_descriptor(path)).and_then(Path::file_name);
    Path::new(told.unwrap_or(OsStr::new(file.name())))
}
