//! The input of the `exec` kind: a program, its arguments, its environment and its standard input.
//!
//! A client encodes it with [`Program::to_input`]; the worker that starts the program decodes it with
//! [`Program::from_input`]. The supervisor never looks into it, and nothing here starts a program. It is an inline
//! payload, so [`INLINE_MAX_BYTES`] is the limit for all of it together. Names, arguments and values are bytes, as the
//! kernel takes them.
//!
//! The client's paths of the job's files go along as words ([`Program::paths`]). Only the worker looks at them, and
//! believes one only if it leads to the file whose descriptor came with the job. The worker then puts the paths into
//! the program with [`Program::place_files`].

use std::fmt;

use crate::codec::{CodecError, Decode, Encode, decode, encode};
use crate::limits::INLINE_MAX_BYTES;

/// First byte of every encoding; must be raised with every change to the meaning of the bytes after it.
const VERSION: u8 = 2;

/// The name of the file that replaces [`Program::stdin`] if the job brings it: for a standard input that is too long to
/// be inline. The program reads it from its beginning.
pub const STDIN: &str = "stdin";

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Program {
    /// The program, then its arguments. The program is a path, or, without a slash, a name that is looked up on PATH.
    pub argv: Vec<Vec<u8>>,
    /// Names and values that are added to the environment that every program gets, or replace those in it.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bytes of its standard input.
    pub stdin: Vec<u8>,
    /// Names of files of the job, each with the absolute path under which the client opened it. One that is left out, or
    /// that does not lead to that file, is no error: the program then gets another path.
    pub paths: Vec<(Vec<u8>, Vec<u8>)>,
    /// The umask with which the program starts; `None`: the worker's. With the client's, files that it makes get the
    /// permissions that they get in the client's shell.
    pub umask: Option<u32>,
}

/// Why a program cannot be sent to a worker, or why bytes are not a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadProgram {
    /// The program to run is missing or empty.
    Nameless,
    /// This argument holds a NUL byte; argument 0 is the program itself.
    NulInArgument(usize),
    /// A variable with this name or its value cannot be in an environment.
    Variable(String),
    /// The encoded program is longer than [`INLINE_MAX_BYTES`]. Sizes are in bytes.
    TooLong {
        /// The program and its arguments.
        argv: usize,
        /// The environment.
        env: usize,
        /// The standard input.
        stdin: usize,
        /// The whole encoding.
        total: usize,
    },
    /// An encoding of another version; `None`: no bytes at all.
    Version(Option<u8>),
    /// The bytes cannot be decoded.
    Malformed(CodecError),
}

impl fmt::Display for BadProgram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nameless => out.write_str("exec of what? give a program and its arguments"),
            Self::NulInArgument(0) => out.write_str("the program's name holds a NUL byte: remove it"),
            Self::NulInArgument(place) => {
                write!(out, "argument {place} of the program holds a NUL byte: remove it")
            }
            Self::Variable(name) => {
                write!(
                    out,
                    "{name:?} cannot be an environment variable: give it a name without =, and no NUL byte in name or \
                     value"
                )
            }
            Self::TooLong { argv, env, stdin, total } => write!(
                out,
                "the program is {total} bytes long (arguments {argv}, environment {env}, standard input {stdin}), \
                 the limit is {INLINE_MAX_BYTES} bytes for all of it: pass long data as a file of the job instead"
            ),
            Self::Version(Some(version)) => {
                write!(
                    out,
                    "the program is encoded in version {version}, this worker reads version {VERSION}"
                )
            }
            Self::Version(None) => out.write_str("there is no program: the input is empty"),
            Self::Malformed(error) => write!(out, "the program cannot be read: {error}"),
        }
    }
}

impl std::error::Error for BadProgram {}

/// For people: the added environment, the program and its arguments, with blanks between them.
impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(out, "{}={} ", String::from_utf8_lossy(name), String::from_utf8_lossy(value))?;
        }
        let words: Vec<_> = self.argv.iter().map(|word| String::from_utf8_lossy(word)).collect();
        out.write_str(&words.join(" "))
    }
}

impl Program {
    /// Encodes it as the input of an `exec` job. Paths of files that make it too long are left out.
    ///
    /// # Errors
    /// The program is missing, an argument or a variable cannot be passed to a program, or all of it is too long.
    pub fn to_input(&self) -> Result<Vec<u8>, BadProgram> {
        self.check()?;
        let bytes = self.to_bytes();
        if bytes.len() <= INLINE_MAX_BYTES {
            return Ok(bytes);
        }
        if !self.paths.is_empty() {
            return Self { paths: Vec::new(), ..self.clone() }.to_input();
        }
        Err(BadProgram::TooLong {
            argv: self.argv.iter().map(Vec::len).sum(),
            env: self.env.iter().map(|(name, value)| name.len() + value.len()).sum(),
            stdin: self.stdin.len(),
            total: bytes.len(),
        })
    }

    /// Whether all of it can be sent, the paths of files included.
    pub fn fits(&self) -> bool {
        self.to_bytes().len() <= INLINE_MAX_BYTES
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(encode(self));
        bytes
    }

    /// The client's path of the job's file of this name, if it came along. Nothing has checked it.
    pub fn path_of(&self, file: &str) -> Option<&[u8]> {
        let found = self.paths.iter().find(|(name, _)| name == file.as_bytes());
        found.map(|(_, path)| path.as_slice())
    }

    /// Decodes the input of an `exec` job.
    ///
    /// # Errors
    /// `bytes` are not a program, or it holds what cannot be passed to a program.
    pub fn from_input(bytes: &[u8]) -> Result<Self, BadProgram> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                let program: Self = decode(rest).map_err(BadProgram::Malformed)?;
                program.check().map(|()| program)
            }
            other => Err(BadProgram::Version(other.map(|(version, _)| *version))),
        }
    }

    /// Puts the paths of the job's files into the program: the environment variable `NAME` is set to the path of the
    /// file `NAME`, and so is each word `{NAME}` of an argument. A word is an argument, or a stretch of one between
    /// blanks, `=`, `:`, `,`, quotes, `<`, `>` or `;`. So `${NAME}` of a shell, `$ENV{NAME}` and the braces of awk stay
    /// as they are, and a word `{{NAME}}` becomes `{NAME}`. The program's own name stays too, and so do the bytes of an
    /// inserted path.
    pub fn place_files(&mut self, files: &[(&str, &[u8])]) {
        for argument in self.argv.iter_mut().skip(1) {
            *argument = placed(argument, files);
        }
        self.env.retain(|(name, _)| files.iter().all(|(file, _)| file.as_bytes() != name));
        self.env.extend(files.iter().map(|(name, path)| (name.as_bytes().to_vec(), path.to_vec())));
    }

    fn check(&self) -> Result<(), BadProgram> {
        if self.argv.first().is_none_or(Vec::is_empty) {
            return Err(BadProgram::Nameless);
        }
        if let Some(place) = self.argv.iter().position(|argument| argument.contains(&0)) {
            return Err(BadProgram::NulInArgument(place));
        }
        let is_bad = |(name, value): &&(Vec<u8>, Vec<u8>)| {
            name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'=')) || value.contains(&0)
        };
        match self.env.iter().find(is_bad) {
            Some((name, _)) => Err(BadProgram::Variable(String::from_utf8_lossy(name).into_owned())),
            None => Ok(()),
        }
    }
}

/// `argument` with each word `{NAME}` replaced by the path of the file `NAME`, and each `{{NAME}}` by `{NAME}`.
fn placed(argument: &[u8], files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut written = Vec::with_capacity(argument.len());
    for stretch in argument.split_inclusive(|byte| ends_word(*byte)) {
        let end = stretch.last().is_some_and(|byte| ends_word(*byte));
        let (word, end) = stretch.split_at(stretch.len() - usize::from(end));
        written.extend_from_slice(file_of(word, files).unwrap_or(word));
        written.extend_from_slice(end);
    }
    written
}

/// Whether a word of an argument ends before this byte.
fn ends_word(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'=' | b':' | b',' | b'\'' | b'"' | b'<' | b'>' | b';')
}

/// What replaces a word that names a file in braces; `None` for any other word.
fn file_of<'a>(word: &'a [u8], files: &[(&str, &'a [u8])]) -> Option<&'a [u8]> {
    let inner = word.strip_prefix(b"{")?.strip_suffix(b"}")?;
    let of = |name: &[u8]| files.iter().find(|(file, _)| file.as_bytes() == name);
    let doubled = || inner.strip_prefix(b"{")?.strip_suffix(b"}");
    match of(inner) {
        Some((_, path)) => Some(path),
        None => doubled().and_then(of).map(|_| inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Program {
        Program {
            argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"exit \xff".to_vec()],
            env: vec![(b"A".to_vec(), b"b=c".to_vec())],
            stdin: vec![0, 1, 255],
            paths: vec![(b"a".to_vec(), b"/\xff".to_vec())],
            umask: Some(0o027),
        }
    }

    #[test]
    fn a_program_survives_its_journey() {
        let program = shell();
        let input = program.to_input().unwrap();
        assert_eq!((program.path_of("a"), program.path_of("b")), (Some(&b"/\xff"[..]), None));
        assert_eq!(Program::from_input(&input), Ok(program));
        assert_eq!(shell().to_string(), "A=b=c sh -c exit \u{fffd}");
        assert_eq!(Program::from_input(&[1, 0]), Err(BadProgram::Version(Some(1))));
        assert_eq!(Program::from_input(&[]), Err(BadProgram::Version(None)));
        for cut in 1..input.len() {
            assert!(Program::from_input(&input[..cut]).is_err(), "cut after {cut} bytes");
        }
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let nul = |place: usize| {
            let mut program = shell();
            program.argv[place].push(0);
            program
        };
        let variable =
            |name: &[u8], value: &[u8]| Program { env: vec![(name.into(), value.into())], ..shell() };
        for (program, fault) in [
            (Program::default(), "exec of what"),
            (Program { argv: vec![Vec::new()], ..Program::default() }, "exec of what"),
            (nul(0), "the program's name holds a NUL"),
            (nul(2), "argument 2 of the program"),
            (variable(b"", b"x"), "\"\" cannot be an environment variable"),
            (variable(b"A=B", b"x"), "\"A=B\" cannot be an environment variable"),
            (variable(b"A", b"\0"), "\"A\" cannot be an environment variable"),
        ] {
            assert!(program.to_input().unwrap_err().to_string().contains(fault), "{fault}");
            let mut forged = vec![VERSION];
            forged.extend(encode(&program));
            assert!(Program::from_input(&forged).unwrap_err().to_string().contains(fault), "{fault}");
        }
    }

    #[test]
    fn the_limit_is_one_for_all_of_it_and_says_what_is_long() {
        let mut program = Program { stdin: vec![7; INLINE_MAX_BYTES - 64], ..shell() };
        assert!(program.to_input().unwrap().len() <= INLINE_MAX_BYTES);
        let deep = vec![(b"a".to_vec(), vec![b'/'; INLINE_MAX_BYTES])];
        let with_path = Program { paths: deep, ..program.clone() };
        assert!(program.fits() && !with_path.fits());
        let sent = Program::from_input(&with_path.to_input().unwrap()).unwrap();
        assert_eq!(sent, Program { paths: Vec::new(), ..program.clone() }, "the path stays behind");
        program.stdin.resize(INLINE_MAX_BYTES, 7);
        let said = program.to_input().unwrap_err().to_string();
        assert!(said.contains("standard input 4096") && said.contains("the limit is 4096 bytes"), "{said}");
    }

    /// The arguments of a program with the files `a` at `/3` and `b` at `{a}`.
    fn with_files(words: &[&str]) -> Program {
        let mut program = Program {
            argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            env: vec![(b"a".to_vec(), b"old".to_vec()), (b"LANG".to_vec(), b"C".to_vec())],
            ..Program::default()
        };
        program.place_files(&[("a", b"/3"), ("b", b"{a}")]);
        program
    }

    #[test]
    fn files_are_told_by_argument_and_by_variable() {
        let program = with_files(&["{a}", "{a}"]);
        assert_eq!(program.argv, [b"{a}".to_vec(), b"/3".to_vec()], "the program's own name stays");
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(program.env, [pair("LANG", "C"), pair("a", "/3"), pair("b", "{a}")]);
    }

    #[test]
    fn braces_name_a_file_only_where_they_are_a_whole_word() {
        for (word, placed) in [
            ("{a}", "/3"),
            ("if={a}", "if=/3"),
            ("{a}:{b},{a}", "/3:{a},/3"),
            ("cat {a}>{b};x<{a}", "cat /3>{a};x</3"),
            ("'{a}' \"{a}\"\t{a}\n{a}", "'/3' \"/3\"\t/3\n/3"),
            ("{{a}}", "{a}"),
            ("x={{b}}", "x={b}"),
            ("{{{a}}}", "{{{a}}}"),
            ("${a}", "${a}"),
            ("${{a}}", "${{a}}"),
            ("print $ENV{a}", "print $ENV{a}"),
            ("/x/{a}", "/x/{a}"),
            ("-i{a}", "-i{a}"),
            ("NR>1{a}", "NR>1{a}"),
            ("({a})", "({a})"),
            ("{b}{a}", "{b}{a}"),
            ("{c} {{c}} { } {} {", "{c} {{c}} { } {} {"),
            ("{a }", "{a }"),
            ("a $a {print}", "a $a {print}"),
            ("", ""),
        ] {
            let said = with_files(&["x", word]).argv.remove(1);
            assert_eq!(String::from_utf8_lossy(&said), placed, "{word}");
        }
        let mut bytes = Program { argv: vec![b"x".to_vec(), b"\xff={a}".to_vec()], ..Program::default() };
        bytes.place_files(&[("a", b"/\xfe")]);
        assert_eq!(bytes.argv[1], b"\xff=/\xfe");
    }
}
