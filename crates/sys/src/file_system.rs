//! The file system that holds a path: what sort it is, how much room it has, and what a path leads to.
//!
//! statfs(2) and lstat(2) alone: nothing is opened, so no lock of this process on a file is lost by a close. Driven by the
//! journal. All of it can block while the file system is slow.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What matters of a file system to those who keep data on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystemSort {
    /// Its files are on a disk of this machine, or of a kind that is not known here.
    Disk,
    /// Its files are in memory, and gone with it.
    Memory,
    /// Other machines or programs answer for its files; its name.
    Remote(&'static str),
}

/// The magic numbers of statfs(2) that are known here.
const KNOWN: [(u64, FileSystemSort); 12] = [
    (0x0102_1994, FileSystemSort::Memory), // tmpfs
    (0x8584_58f6, FileSystemSort::Memory), // ramfs
    (0x6969, FileSystemSort::Remote("NFS")),
    (0xff53_4d42, FileSystemSort::Remote("CIFS")),
    (0xfe53_4d42, FileSystemSort::Remote("CIFS")),
    (0x517b, FileSystemSort::Remote("SMB")),
    (0x0102_1997, FileSystemSort::Remote("9p")),
    (0x6573_5546, FileSystemSort::Remote("FUSE")),
    (0x5346_414f, FileSystemSort::Remote("AFS")),
    (0x7375_7245, FileSystemSort::Remote("Coda")),
    (0x00c3_6400, FileSystemSort::Remote("Ceph")),
    (0x0116_1970, FileSystemSort::Remote("GFS2")),
];

/// A file system, as statfs(2) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemSeen {
    /// What sort it is.
    pub sort: FileSystemSort,
    /// Bytes that this process may still write.
    pub free_bytes: u64,
}

/// Looks at the file system of `path`.
///
/// # Errors
/// As statfs(2).
pub fn look(path: &Path) -> io::Result<FileSystemSeen> {
    let seen = rustix::fs::statfs(path)?;
    let block = u64::try_from(seen.f_bsize).unwrap_or(0);
    // The magic numbers have 32 bits; their type differs between machines.
    Ok(FileSystemSeen {
        sort: sort_of(seen.f_type as u64 & 0xffff_ffff),
        free_bytes: seen.f_bavail.saturating_mul(block),
    })
}

fn sort_of(magic: u64) -> FileSystemSort {
    KNOWN.iter().find(|(known, _)| *known == magic).map_or(FileSystemSort::Disk, |(_, sort)| *sort)
}

/// What a path leads to, as lstat(2) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSeen {
    /// Its device.
    pub device: u64,
    /// Its inode number there.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Looks at the file that stands at `path`. `None`: none does.
///
/// # Errors
/// As lstat(2), but for ENOENT.
pub fn look_at_file(path: &Path) -> io::Result<Option<FileSeen>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(|found| {
            Some(FileSeen {
                device: found.dev(),
                inode: found.ino(),
                links: found.nlink(),
                bytes: found.len(),
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_ones_and_memory_are_told_apart() {
        assert_eq!(look(Path::new("/dev/shm")).unwrap().sort, FileSystemSort::Memory);
        assert_eq!(look(Path::new("/proc")).unwrap().sort, FileSystemSort::Disk, "no sort that is known");
        assert!(look(Path::new("/dev/shm")).unwrap().free_bytes > 0);
        assert!(look(Path::new("/missing")).is_err());
        for (magic, name) in
            [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x0102_1997, "9p"), (0x6573_5546, "FUSE")]
        {
            assert_eq!(sort_of(magic), FileSystemSort::Remote(name));
        }
    }

    #[test]
    fn a_file_is_known_by_its_inode_and_has_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(look_at_file(&path).unwrap(), None);
        std::fs::write(&path, "four").unwrap();
        let first = look_at_file(&path).unwrap().unwrap();
        assert_eq!((first.links, first.bytes), (1, 4));
        std::fs::hard_link(&path, folder.path().join("other")).unwrap();
        assert_eq!(look_at_file(&path).unwrap().unwrap(), FileSeen { links: 2, ..first });
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        std::fs::write(&path, "four").unwrap();
        assert_ne!(look_at_file(&path).unwrap().unwrap().inode, first.inode);
    }
}
