//! Files that come with a job: payloads that are too long to be inline are passed as open file descriptors.
//!
//! A client attaches the descriptors to the frame of its submit, in the order of its [`FileUse`]s. The supervisor passes
//! them on to the workers that run the job, and never opens, reads or maps one. Names and directions come from a client
//! and may be hostile. Only the worker that uses a descriptor checks what it refers to.

use serde::{Deserialize, Serialize};

use crate::codec::{Decode, Encode};
use crate::limits::{FILE_NAME_MAX_BYTES, FILES_MAX};

/// The name of the input file of a kind that reads one.
pub const IN: &str = "in";
/// The name of the output file of [`crate::job::OutputMode::File`].
pub const OUT: &str = "out";

/// Whether the job reads or writes the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The job reads it.
    #[default]
    In,
    /// The job writes it.
    Out,
    /// An empty folder, open for reading, in which a program makes one file. Only the kind `exec` uses one.
    Folder,
}

/// The name and the direction of one descriptor of a submit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct FileUse {
    /// The name that the job uses for it.
    pub name: String,
    /// Whether the job reads or writes it.
    pub way: Way,
}

impl FileUse {
    /// A file of this name.
    pub fn new(name: &str, way: Way) -> Self {
        Self { name: name.to_owned(), way }
    }
}

/// A sentence about the first thing that is wrong with the files of a submit; `None` if nothing is.
pub fn fault(files: &[FileUse]) -> Option<String> {
    if files.len() > FILES_MAX {
        return Some(format!("{} files come with the job, at most {FILES_MAX} may", files.len()));
    }
    files.iter().enumerate().find_map(|(place, file)| {
        if !is_name(&file.name) {
            let name: String = file.name.chars().take(FILE_NAME_MAX_BYTES).collect();
            return Some(format!(
                "{name:?} cannot name a file of a job: use 1 to {FILE_NAME_MAX_BYTES} of A-Z, a-z, 0-9 and _, not a \
                 digit first"
            ));
        }
        let again = files[..place].iter().any(|other| other.name == file.name);
        again.then(|| format!("two files of the job are named {:?}", file.name))
    })
}

/// Whether a file may have this name: it can be the name of an environment variable and a word of a command line.
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=FILE_NAME_MAX_BYTES).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_name_is_named() {
        for bad in ["", "1st", "a-b", "a/b", "\u{e4}", "a=b", &"x".repeat(FILE_NAME_MAX_BYTES + 1)] {
            let said = fault(&[FileUse::new(bad, Way::In)]).unwrap();
            assert!(said.contains("cannot name a file"), "{bad:?}: {said}");
        }
        assert_eq!(fault(&[FileUse::new(IN, Way::In), FileUse::new("_2", Way::Out)]), None);
    }

    #[test]
    fn two_of_a_name_and_too_many_are_refused() {
        let twice = [FileUse::new("a", Way::In), FileUse::new("b", Way::In), FileUse::new("a", Way::Out)];
        assert_eq!(fault(&twice).unwrap(), "two files of the job are named \"a\"");
        let many: Vec<_> = (0..=FILES_MAX).map(|n| FileUse::new(&format!("f{n}"), Way::In)).collect();
        assert!(fault(&many).unwrap().contains(&FILES_MAX.to_string()));
        assert_eq!(fault(&many[1..]), None);
    }
}
