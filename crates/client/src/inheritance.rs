//! What a file takes over from the older file that it replaces: owner, group, mode, access list and labels.
//!
//! Each is kept as far as this user may set it; what could not be kept is returned, to be told. The new file gets
//! never more rights than the older one gave: an owner that changes loses set-user-id, a group that changes gets the
//! permissions of others. Attributes that vouch for the content (`security.capability`, `security.ima`) are not taken
//! over, because the content is another. Driven by `destination.rs` just before the new file gets its name.

use std::fmt;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use bulkhead_sys::extended_attributes::{self, ACCESS_LIST};

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
/// The tags of entries in an access list (`linux/posix_acl.h`).
const TAG_GROUP: u16 = 0x04;
const TAG_OTHERS: u16 = 0x20;
/// The bytes of its version, and of each entry: tag, permissions, id.
const LIST_HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;

/// What of an older file was not kept, for the user.
#[derive(Debug)]
pub struct NotKept {
    /// The file.
    pub path: PathBuf,
    /// What it was.
    pub what: NotKeptKind,
}

/// The kinds of [`NotKept`].
#[derive(Debug)]
pub enum NotKeptKind {
    /// It had other names, under which the older content stays.
    HardLinks {
        /// All its names.
        names: u64,
    },
    /// It belongs to another user now.
    Owner {
        /// The uid before.
        before: u32,
        /// The uid now.
        now: u32,
    },
    /// It belongs to another group now.
    Group {
        /// The gid before.
        before: u32,
        /// The gid now.
        now: u32,
    },
    /// Its mode could not be set.
    Mode(io::Error),
    /// Its access list could not be read or set.
    AccessList(io::Error),
}

impl fmt::Display for NotKept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            NotKeptKind::HardLinks { names } => write!(
                out,
                "{path} was replaced, and the file that it was had {names} names (hard links): the others keep the older content"
            ),
            NotKeptKind::Owner { before, now } => write!(
                out,
                "{path} belonged to user {before} and belongs to user {now} now: only root may give a file away"
            ),
            NotKeptKind::Group { before, now } => write!(
                out,
                "{path} belonged to group {before}, of which you are no member: it belongs to group {now} now, with the \
                 permissions of others"
            ),
            NotKeptKind::Mode(error) => write!(out, "the mode of {path} could not be kept: {error}"),
            NotKeptKind::AccessList(error) => {
                write!(out, "the access list of {path} could not be kept: {error}")
            }
        }
    }
}

/// Gives `new` what the file `older` has, which is not followed if it is a link. Returns what could not be kept; a
/// path where no regular file is has nothing to give.
///
/// # Errors
/// The new file cannot be looked at.
pub(crate) fn take_over(older: &Path, new: &File) -> io::Result<Vec<NotKept>> {
    let Some(had) = older.symlink_metadata().ok().filter(Metadata::is_file) else { return Ok(Vec::new()) };
    let mut lost = Vec::new();
    if had.nlink() > 1 {
        lost.push(NotKeptKind::HardLinks { names: had.nlink() });
    }
    let (keeps_owner, keeps_group) = give(&had, new, &mut lost)?;
    let mut mode = had.mode() & 0o7777;
    match list_for(older, keeps_group) {
        Ok(Some(list)) => note(extended_attributes::set(new, ACCESS_LIST, &list), &mut lost),
        // The folder may have given the new file a list of its own.
        Ok(None) => {
            note(extended_attributes::remove(new, ACCESS_LIST), &mut lost);
            if !keeps_group {
                mode = mode & !0o070 | (mode & 0o007) << 3;
            }
        }
        Err(error) => {
            mode = mode & !0o070 | (mode & 0o007) << 3;
            lost.push(NotKeptKind::AccessList(error));
        }
    }
    copy_labels(older, new);
    let unset = (if keeps_owner { 0 } else { SET_USER }) | (if keeps_group { 0 } else { SET_GROUP });
    if let Err(error) = new.set_permissions(Permissions::from_mode(mode & !unset)) {
        lost.push(NotKeptKind::Mode(error));
    }
    Ok(lost.into_iter().map(|what| NotKept { path: older.to_owned(), what }).collect())
}

/// Sets owner and group, each as far as this user may. Returns which of them are those of the older file.
fn give(had: &Metadata, new: &File, lost: &mut Vec<NotKeptKind>) -> io::Result<(bool, bool)> {
    let has = new.metadata()?;
    let group = has.gid() == had.gid() || fchown(new, None, Some(had.gid())).is_ok();
    let owner = has.uid() == had.uid() || fchown(new, Some(had.uid()), None).is_ok();
    if !owner {
        lost.push(NotKeptKind::Owner { before: had.uid(), now: has.uid() });
    }
    if !group {
        lost.push(NotKeptKind::Group { before: had.gid(), now: has.gid() });
    }
    Ok((owner, group))
}

fn note(result: io::Result<()>, lost: &mut Vec<NotKeptKind>) {
    if let Err(error) = result {
        lost.push(NotKeptKind::AccessList(error));
    }
}

/// The access list of the older file. If the group changes, its entry gives no more than the one of others.
fn list_for(older: &Path, keeps_group: bool) -> io::Result<Option<Vec<u8>>> {
    let mut list = extended_attributes::get(older, ACCESS_LIST)?;
    if let Some(list) = list.as_mut().filter(|_| !keeps_group) {
        restrict_group(list);
    }
    Ok(list)
}

fn restrict_group(list: &mut [u8]) {
    let entries = list.get_mut(LIST_HEADER_BYTES..).unwrap_or_default();
    let tag = |entry: &[u8]| u16::from_le_bytes([entry[0], entry[1]]);
    let others = entries.chunks_exact(ENTRY_BYTES).find(|entry| tag(entry) == TAG_OTHERS);
    let allowed = others.map_or(0, |entry| entry[2]);
    for entry in entries.chunks_exact_mut(ENTRY_BYTES) {
        if tag(entry) == TAG_GROUP {
            entry[2] &= allowed;
        }
    }
}

/// Copies labels and users' own attributes. A failure is not told: most systems have none, and where a policy sets the
/// label of a new file, it has the last word.
fn copy_labels(older: &Path, new: &File) {
    let is_copied = |name: &&String| {
        name.starts_with("user.") || *name == "security.selinux" || *name == "security.SMACK64"
    };
    for name in extended_attributes::names(older).unwrap_or_default().iter().filter(is_copied) {
        if let Ok(Some(value)) = extended_attributes::get(older, name) {
            drop(extended_attributes::set(new, name, &value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    const USER: u32 = 65_534;

    /// An access list: the owner rw, `USER` rw, the group rw, mask rw, others r.
    fn list() -> Vec<u8> {
        let mut list = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1_u16, 6_u16, u32::MAX), (2, 6, USER), (4, 6, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)]
        {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        list
    }

    fn pair() -> (tempfile::TempDir, PathBuf, PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let (older, path) = (folder.path().join("older"), folder.path().join("new"));
        std::fs::write(&older, "older").unwrap();
        let new = File::create(&path).unwrap();
        (folder, older, path, new)
    }

    #[test]
    fn owner_mode_list_and_attributes_are_taken_over() {
        let (_folder, older, path, new) = pair();
        if chown(&older, Some(USER), Some(USER)).is_err() {
            skip!("only root may give a file away");
        }
        let file = File::open(&older).unwrap();
        if let Err(error) = extended_attributes::set(&file, ACCESS_LIST, &list())
            .and_then(|()| extended_attributes::set(&file, "user.word", b"x"))
        {
            skip!("the file system of {} has no access lists: {error}", older.display());
        }
        std::fs::set_permissions(&older, Permissions::from_mode(0o4664)).unwrap();
        assert!(take_over(&older, &new).unwrap().is_empty());
        let has = path.metadata().unwrap();
        assert_eq!((has.uid(), has.gid(), has.mode() & 0o7777), (USER, USER, 0o4664));
        assert_eq!(extended_attributes::get(&path, ACCESS_LIST).unwrap(), Some(list()));
        assert_eq!(extended_attributes::get(&path, "user.word").unwrap().as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn a_list_that_the_folder_gave_goes_if_the_older_file_had_none() {
        let (_folder, older, path, new) = pair();
        if let Err(error) = extended_attributes::set(&new, ACCESS_LIST, &list()) {
            skip!("the file system of {} has no access lists: {error}", older.display());
        }
        std::fs::set_permissions(&older, Permissions::from_mode(0o600)).unwrap();
        take_over(&older, &new).unwrap();
        assert_eq!(extended_attributes::get(&path, ACCESS_LIST).unwrap(), None);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn hard_links_are_told_and_what_is_not_there_gives_nothing() {
        let (folder, older, _, new) = pair();
        assert!(take_over(&folder.path().join("no"), &new).unwrap().is_empty());
        assert!(take_over(&older, &new).unwrap().is_empty());
        std::fs::hard_link(&older, folder.path().join("other")).unwrap();
        let lost = take_over(&older, &new).unwrap();
        assert!(lost[0].to_string().contains("had 2 names (hard links)"), "{lost:?}");
    }

    #[test]
    fn another_group_gets_what_others_have() {
        let mut list = list();
        restrict_group(&mut list);
        let group = LIST_HEADER_BYTES + 2 * ENTRY_BYTES;
        assert_eq!(list[group..group + 4], [4, 0, 4, 0], "no write");
        restrict_group(&mut []);
        restrict_group(&mut [2, 0, 0]);
    }
}
