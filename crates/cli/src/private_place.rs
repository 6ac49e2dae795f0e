//! Where a private daemon gets its folder: the first of the usual places that has room for it.
//!
//! | place | if |
//! |---|---|
//! | `XDG_RUNTIME_DIR` | as `TMPDIR`, and this user's own |
//! | `TMPDIR` | set, absolute, and short: the path of a socket has a limit of 108 bytes |
//! | `/tmp`, `/dev/shm`, `/var/tmp` | - |
//!
//! A place may be full, read-only or forbidden. [`make_folder`] makes the folder and tries whether a few small files fit;
//! they are removed at once. Driven by `private_daemon.rs`.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bulkhead_client::OwnFolder;

/// The longest path of a place, in bytes.
const PATH_MAX_BYTES: usize = 32;
/// What has to fit: the sockets, folders and logs of a daemon that starts.
const TRIED_FILES: usize = 16;
const TRIED_BYTES: usize = 64 << 10;

/// The places to try, each once.
pub(crate) fn all() -> Vec<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let runtime = named("XDG_RUNTIME_DIR").filter(|folder| OwnFolder::may_be_in(folder));
    let variables = runtime.into_iter().chain(named("TMPDIR"));
    let usual = ["/tmp", "/dev/shm", "/var/tmp"].map(PathBuf::from);
    let mut places: Vec<PathBuf> = Vec::new();
    for place in variables.filter(|place| is_fit(place)).chain(usual) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn is_fit(place: &Path) -> bool {
    place.is_absolute() && place.is_dir() && place.as_os_str().len() < PATH_MAX_BYTES
}

/// Makes a folder for one daemon, and tries whether there is room in it.
pub(crate) fn make_folder(place: &Path) -> io::Result<OwnFolder> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("bulkhead-").permissions(Permissions::from_mode(0o700));
    let made = builder.tempdir_in(place)?;
    let own = OwnFolder::take(made.path())?;
    // From now on it is removed only if its path still leads to it.
    let _path = made.keep();
    try_room(own.path()).map(|()| own)
}

fn try_room(folder: &Path) -> io::Result<()> {
    let tried = folder.join("room");
    let fits = fs::create_dir(&tried).and_then(|()| {
        fs::write(tried.join("bytes"), vec![0; TRIED_BYTES])?;
        (1..TRIED_FILES).try_for_each(|number| fs::write(tried.join(number.to_string()), ""))
    });
    fits.and(fs::remove_dir_all(&tried))
}

/// Whether another place may do where this error came up.
pub(crate) fn is_about_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_folder_is_for_its_user_alone_and_short_and_empty() {
        let folder = make_folder(Path::new("/tmp")).unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(folder.path().as_os_str().len() < 60);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(is_about_place(&make_folder(Path::new("/proc/self")).unwrap_err()));
    }

    #[test]
    fn the_usual_places_are_tried_and_none_twice() {
        let places = all();
        let position = |wanted: &str| places.iter().position(|place| place == Path::new(wanted));
        assert!(position("/tmp") < position("/dev/shm") && position("/dev/shm") < position("/var/tmp"));
        assert!((1..places.len()).all(|at| !places[at..].contains(&places[at - 1])), "{places:?}");
        assert!(!is_fit(Path::new("relative")) && !is_fit(Path::new("/proc/no-such-folder")));
    }
}
