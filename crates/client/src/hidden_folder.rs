//! The output of a program: a hidden folder beside a path, in which the program makes a file that then gets the path.
//!
//! The folder is `.bulkhead-out-N` with mode 0700, and its descriptor goes to the worker as a file of the job. So the
//! program writes a real file, of the path's own name and with room beside it, and an older file under the path stays
//! as it is until the new one is finished; how it gets the path stands in `destination.rs`. The descriptor is locked
//! (flock), and a lock lasts until all holders of that open file have closed it: a folder whose lock is free belongs to
//! nobody that lives, and is removed by the next command that makes one there. Nothing else is ever removed here. Driven
//! by the command line.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_sys::locked_folder::{LockedFolder, remove_abandoned};

use crate::atomic_file::{AtomicFile, in_folder};
use crate::destination::{Destination, FinishedFile, NotPlaced};
use crate::inheritance::NotKept;
use crate::input_file;

/// After this many names in a row that are free, no folder of a killed command is looked for any more.
const FREE_NAMES: u32 = 64;

/// A folder for one file that is not there yet. Dropping it removes it.
#[derive(Debug)]
pub struct HiddenFolder {
    destination: Destination,
    made: LockedFolder,
    name: PathBuf,
}

impl HiddenFolder {
    /// Makes the folder beside `path`. If `path` is a symbolic link to a file, that file will be replaced.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn create(path: &Path) -> io::Result<Self> {
        let destination = Destination::look(path)?;
        let name = destination.path().file_name().map(PathBuf::from);
        let name = name.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it names no file"))?;
        let place = std::path::absolute(destination.folder())?;
        let made = match make(&place) {
            // The older file will be written through, so the new one need not be beside it.
            Err(_) if destination.is_written_through() => make(&input_file::folder()),
            made => made.map_err(|error| in_folder(error, destination.folder())),
        }?;
        Ok(Self { destination, made, name })
    }

    /// Gives up the folder, and returns a file that gets the path: for programs that may not enter the folder.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn into_file(self) -> io::Result<AtomicFile> {
        AtomicFile::at(self.destination)
    }

    /// The folder, open for reading.
    pub fn folder(&self) -> &Arc<File> {
        self.made.folder()
    }

    /// The path of the file that the program is to make.
    pub fn file_path(&self) -> PathBuf {
        self.made.path().join(&self.name)
    }

    /// Gives the program's file the path. `name` is its other possible name in the folder, used by a worker that did
    /// not get [`Self::file_path`]. Returns what of the older file could not be kept.
    ///
    /// # Errors
    /// There is no regular file, or as [`AtomicFile::publish`].
    pub fn publish(mut self, name: &str) -> Result<Vec<NotKept>, NotPlaced> {
        let (file, path) = self.find(name).map_err(NotPlaced::from)?;
        let placed = self.destination.place(&file, Some(path.clone()));
        if matches!(&placed, Err(NotPlaced { finished: FinishedFile::Kept(kept), .. }) if *kept == path) {
            self.made.leave();
        }
        placed
    }

    /// The file that the program made, and its path.
    fn find(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let missing = |text: String| io::Error::new(ErrorKind::NotFound, text);
        let folder = self.made.current_path().ok_or_else(|| {
            let path = self.made.path().display();
            missing(format!("the folder {path}, in which the program made it, was removed while it ran"))
        })?;
        let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_file());
        let path = [folder.join(&self.name), folder.join(name)].into_iter().find(is_file);
        let path = path.ok_or_else(|| missing("the program left no regular file for it".to_owned()))?;
        Ok((open_made(&path)?, path))
    }
}

/// Opens a file that its program may have made unreadable.
fn open_made(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let own = path.symlink_metadata()?.permissions();
            fs::set_permissions(path, Permissions::from_mode(own.mode() | 0o400))?;
            let file = File::open(path)?;
            file.set_permissions(own)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Makes a locked folder under the first free name, and removes those of killed commands.
fn make(place: &Path) -> io::Result<LockedFolder> {
    let (mut made, mut free) = (None, 0);
    for number in 0_u32.. {
        let path = place.join(format!(".bulkhead-out-{number}"));
        remove_abandoned(&path);
        if made.is_none() {
            made = LockedFolder::make_at(&path)?;
        } else if path.symlink_metadata().is_err() {
            free += 1;
        } else {
            free = 0;
        }
        if made.is_some() && free >= FREE_NAMES {
            break;
        }
    }
    made.ok_or_else(|| ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let all = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_programs_file_gets_the_path_and_nothing_stays_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("old.db");
        fs::write(&path, "older").unwrap();
        for publish in [false, true] {
            let hidden = HiddenFolder::create(&path).unwrap();
            assert!(hidden.file_path().ends_with("old.db") && !hidden.file_path().exists());
            fs::write(hidden.file_path(), "new").unwrap();
            fs::write(hidden.file_path().with_extension("journal"), "x").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"older");
            if publish {
                hidden.publish("b").unwrap();
            }
        }
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(place.path()), ["old.db"]);
    }

    #[test]
    fn what_is_no_file_replaces_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("out");
        fs::write(&path, "older").unwrap();
        type Leave = fn(&Path) -> io::Result<()>;
        let link: Leave = |path| std::os::unix::fs::symlink("/etc/passwd", path);
        for leave in [(|_| Ok(())) as Leave, |path| fs::create_dir(path), link] {
            let hidden = HiddenFolder::create(&path).unwrap();
            leave(&hidden.file_path()).unwrap();
            assert!(hidden.publish("b").unwrap_err().to_string().contains("no regular file"));
            assert_eq!(fs::read(&path).unwrap(), b"older");
            assert_eq!(names(place.path()), ["out"]);
        }
    }

    #[test]
    fn folders_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let place = tempfile::tempdir().unwrap();
        for number in [0, 1, 40] {
            fs::create_dir_all(place.path().join(format!(".bulkhead-out-{number}/x"))).unwrap();
        }
        fs::write(place.path().join(".bulkhead-out-3"), "a file").unwrap();
        let first = HiddenFolder::create(&place.path().join("a")).unwrap();
        let second = HiddenFolder::create(&place.path().join("a")).unwrap();
        assert_eq!(names(place.path()), [".bulkhead-out-0", ".bulkhead-out-1", ".bulkhead-out-3"]);
        drop((first, second));
        assert_eq!(names(place.path()), [".bulkhead-out-3"]);
    }

    #[test]
    fn a_file_that_cannot_be_brought_elsewhere_stays_and_its_folder_with_it() {
        let place = tempfile::tempdir().unwrap();
        let mut hidden = HiddenFolder::create(&place.path().join("out")).unwrap();
        let path = hidden.file_path();
        fs::write(&path, "new").unwrap();
        hidden.made.leave();
        drop(hidden);
        drop(HiddenFolder::create(&place.path().join("other")).unwrap());
        assert_eq!(fs::read(path).unwrap(), b"new");
    }

    #[test]
    fn a_folder_that_was_moved_is_found_and_one_that_is_gone_is_told() {
        let above = tempfile::tempdir().unwrap();
        let (place, moved) = (above.path().join("place"), above.path().join("moved"));
        fs::create_dir(&place).unwrap();
        let hidden = HiddenFolder::create(&place.join("out")).unwrap();
        fs::write(hidden.file_path(), "new").unwrap();
        fs::rename(&place, &moved).unwrap();
        let FinishedFile::Kept(kept) = hidden.publish("b").unwrap_err().finished else { panic!() };
        let content = fs::read(&kept);
        fs::remove_file(&kept).unwrap();
        assert_eq!(content.unwrap(), b"new");
        assert_eq!(names(&moved), [""; 0]);
        let hidden = HiddenFolder::create(&moved.join("out")).unwrap();
        fs::remove_dir_all(&moved).unwrap();
        let said = hidden.publish("b").unwrap_err().to_string();
        assert!(said.contains("was removed while it ran"), "{said}");
    }
}
