//! Extended attributes of files (xattr(7)): POSIX access lists, security labels, users' own.
//!
//! They are read by path, which needs no permission to read the file, and set through a descriptor. A file system that
//! has none of a kind is told as "not there". Driven by `client`, for files that replace others.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, fremovexattr, fsetxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

/// The access list of a file, as the kernel shows it (acl(5)).
pub const ACCESS_LIST: &str = "system.posix_acl_access";

/// The largest value, and the longest list of names, that the kernel returns.
const VALUE_MAX_BYTES: usize = 64 << 10;

/// The value of the attribute `name` of `path`, which is not followed; `None` if it has none.
///
/// # Errors
/// As getxattr(2), for example EACCES.
pub fn get(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; VALUE_MAX_BYTES];
    match lgetxattr(path, name, &mut value[..]) {
        Ok(count) => {
            value.truncate(count);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names of the attributes of `path` that this user may see; names that are not UTF-8 are left out.
///
/// # Errors
/// As listxattr(2).
pub fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut list = vec![0; VALUE_MAX_BYTES];
    let count = match llistxattr(path, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = list[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| str::from_utf8(name).ok().map(str::to_owned)).collect())
}

/// Sets the attribute `name` of an open file.
///
/// # Errors
/// As setxattr(2): EPERM, EOPNOTSUPP, ENOSPC, EDQUOT.
pub fn set(file: &File, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, OsStr::new(name), value, XattrFlags::empty())?)
}

/// Removes the attribute `name` of an open file; one that is not there is no error.
///
/// # Errors
/// As removexattr(2).
pub fn remove(file: &File, name: &str) -> io::Result<()> {
    match fremovexattr(file, OsStr::new(name)) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An access list: the owner rw, user 1 r, the group nothing, mask r, others nothing.
    const LIST: [u8; 44] = [
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
        16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
    ];

    #[test]
    fn what_is_set_is_read_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        assert_eq!(get(&path, ACCESS_LIST).unwrap(), None);
        remove(&file, ACCESS_LIST).unwrap();
        for (name, value) in [("user.word", &b"x"[..]), (ACCESS_LIST, &LIST)] {
            if let Err(error) = set(&file, name, value) {
                skip!("the file system of {} takes no {name}: {error}", path.display());
            }
            assert_eq!(get(&path, name).unwrap().as_deref(), Some(value));
            assert!(names(&path).unwrap().iter().any(|found| found == name), "{name}");
            remove(&file, name).unwrap();
            assert_eq!(get(&path, name).unwrap(), None);
        }
    }

    #[test]
    fn a_file_system_without_attributes_has_none() {
        assert_eq!(get(Path::new("/proc/self/status"), ACCESS_LIST).unwrap(), None);
    }
}
