//! Resolves the addresses of a death's frames to functions and lines, from the file of the worker program.
//!
//! The command does this, and neither the worker, whose memory may be corrupted, nor the daemon, which must not wait
//! for a file. The file is used only if it is the one that ran (same inode, length and modification time): a file that
//! replaced it would give wrong functions. Names in the file are escaped before they are printed. Used by the verbs
//! `job` and `deaths`.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use addr2line::gimli::{Dwarf, EndianSlice, RunTimeEndian};
use bulkhead_proto::client::evidence::{Evidence, ProgramFile};
use bulkhead_proto::plain::PlainLine;
use object::{Object, ObjectSection, SectionKind, SymbolMap, SymbolMapName};

/// Most bytes that are read of a program file.
const PROGRAM_MAX_BYTES: u64 = 1 << 30;

/// A section of a program. Program files are leaked: the command reads few and ends soon.
type FileBytes = EndianSlice<'static, RunTimeEndian>;

/// The symbols of one program.
struct ProgramSymbols {
    lines: addr2line::Context<FileBytes>,
    symbols: SymbolMap<SymbolMapName<'static>>,
    /// Where its text sections are.
    code: Vec<Range<u64>>,
}

/// The symbols of each program that was looked up, so that each file is read once.
#[derive(Default)]
pub(crate) struct SymbolCache {
    programs: Vec<(ProgramFile, Result<ProgramSymbols, String>)>,
}

impl SymbolCache {
    /// A death's frames as lines, the innermost first: function, file and line if they are known, else the address; of other
    /// files than the worker program, the name and the address in it. A last line says why names are missing or whether the stack was searched.
    pub(crate) fn backtrace(&mut self, evidence: &Evidence) -> Vec<String> {
        let program = evidence.program.as_ref().map(|program| self.symbols(program));
        let look_up = |frame: u64| match &program {
            Some(Ok(symbols)) => symbols.look_up(frame),
            Some(Err(_)) | None => vec![format!("{frame:#x}")],
        };
        let mut lines = Vec::new();
        let mut others = evidence.other_frames.iter().peekable();
        for (further_in, &frame) in evidence.frames.iter().enumerate() {
            while let Some(other) = others.next_if(|other| usize::from(other.after) <= further_in) {
                lines.push(other.to_string());
            }
            lines.extend(look_up(frame));
        }
        lines.extend(others.map(ToString::to_string));
        if evidence.shortened {
            lines.push("(frames of other files, or the text of its stack, do not fit this list: `bulkhead job` shows them)".to_owned());
        }
        if lines.is_empty() {
            return lines;
        }
        let note = match &program {
            _ if evidence.frames.is_empty() => None,
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(format!("(no names: {error})")),
            None => Some("(no names: the worker program is not known)".to_owned()),
        };
        lines.extend(note);
        if evidence.searched {
            lines.push("(the stack had to be searched: a call that was over may be among them)".to_owned());
        }
        lines
    }

    /// The text that a worker wrote of its stack, as lines; an address of the program, as `Registry::with_thread_stacks` of the
    /// worker library writes it, becomes a function with its place.
    pub(crate) fn stack_text(&mut self, evidence: &Evidence) -> Vec<String> {
        let program = evidence.program.as_ref().map(|program| self.symbols(program));
        let show = |line: &str| {
            let address = line.strip_prefix("  program+0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
            match (&program, address) {
                (Some(Ok(symbols)), Some(address)) => {
                    symbols.look_up(address).iter().map(|name| format!("  {name}")).collect()
                }
                _ => vec![PlainLine(line).to_string()],
            }
        };
        evidence.stack_text.lines().flat_map(show).collect()
    }

    fn symbols(&mut self, program: &ProgramFile) -> Result<&ProgramSymbols, &String> {
        let known = self.programs.iter().position(|(known, _)| known == program);
        let place = known.unwrap_or_else(|| {
            self.programs.push((program.clone(), ProgramSymbols::of(program)));
            self.programs.len() - 1
        });
        self.programs[place].1.as_ref()
    }
}

impl ProgramSymbols {
    fn of(program: &ProgramFile) -> Result<Self, String> {
        let file: &'static [u8] =
            read(program).map_err(|error| format!("{}: {error}", program.path.escape_debug()))?.leak();
        Self::of_file(file).map_err(|error| format!("{}: {error}", program.path.escape_debug()))
    }

    fn of_file(file: &'static [u8]) -> Result<Self, String> {
        let lines = lines_of(file)?;
        let file = object::File::parse(file).map_err(|error| error.to_string())?;
        let text = file.sections().filter(|section| section.kind() == SectionKind::Text);
        let code =
            text.map(|section| section.address()..section.address().saturating_add(section.size())).collect();
        Ok(Self { lines, symbols: file.symbol_map(), code })
    }

    /// The function at an address and those that were inlined into it, the innermost first.
    fn look_up(&self, address: u64) -> Vec<String> {
        let mut found = Vec::new();
        if self.is_code(address)
            && let Ok(mut frames) = self.lines.find_frames(address).skip_all_loads()
        {
            let mut all = Vec::new();
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.and_then(|name| Some(name.demangle().ok()?.into_owned()));
                all.push((name, frame.location.and_then(|place| Some((place.file?, place.line?)))));
            }
            // The last one is the function itself, all others were inlined into it.
            if let Some((name, _)) = all.last_mut() {
                *name = self.whole_name(name.take(), address);
            }
            found.extend(all.into_iter().filter_map(|(name, place)| Some(describe(&name?, place))));
        }
        if found.is_empty() {
            let name = self.symbol(address).map(|name| describe(&name, None));
            found.push(name.unwrap_or_else(|| format!("{address:#x}")));
        }
        found
    }

    /// Whether the address lies in a text section. The debug information also has lines of functions that the linker
    /// left out, at addresses without code.
    fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|section| section.contains(&address))
    }

    /// The name of the function at this address. Line tables alone have no names, or short ones: `fault`, where the symbol
    /// table has `sys::raise::fault`.
    fn whole_name(&self, name: Option<String>, address: u64) -> Option<String> {
        let symbol = self.symbol(address);
        match name {
            None => symbol,
            Some(name) => symbol.filter(|whole| whole.ends_with(&format!("::{name}"))).or(Some(name)),
        }
    }

    /// The name in the symbol table.
    fn symbol(&self, address: u64) -> Option<String> {
        let symbol = self.symbols.containing(address).filter(|_| self.is_code(address))?;
        Some(addr2line::demangle_auto(symbol.name().into(), None).into_owned())
    }
}

/// One frame as text. Any user may have made the file that the names come from, so they are escaped.
fn describe(name: &str, place: Option<(&str, u32)>) -> String {
    let name = name.escape_debug();
    match place {
        Some((file, line)) => format!("{name} ({}:{line})", shorten(file).escape_debug()),
        None => name.to_string(),
    }
}

/// The path of a source file without the prefix of the Rust toolchain's own sources.
fn shorten(file: &str) -> &str {
    let rust = file.strip_prefix("/rustc/").and_then(|rest| rest.split_once('/'));
    rust.map_or(file, |(_, file)| file)
}

/// Reads the file if it is the one that ran.
fn read(program: &ProgramFile) -> Result<Vec<u8>, String> {
    // Checked with stat before it is opened: opening a FIFO may block for ever.
    let is_same = |found: &std::fs::Metadata| {
        let modified_ns = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
        let seen = (found.ino(), found.len(), modified_ns);
        found.is_file() && seen == (program.inode, program.bytes, program.modified_ns)
    };
    let check = |found: std::io::Result<std::fs::Metadata>| match found {
        Ok(found) if is_same(&found) => Ok(()),
        Ok(_) => Err("it is not the file that ran".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    check(std::fs::metadata(&program.path))?;
    let file = File::open(&program.path).map_err(|error| error.to_string())?;
    check(file.metadata())?;
    let mut bytes = Vec::new();
    file.take(PROGRAM_MAX_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn is_plain(range: object::CompressedFileRange) -> bool {
    range.format == object::CompressionFormat::None
}

fn lines_of(file: &'static [u8]) -> Result<addr2line::Context<FileBytes>, String> {
    let file = object::File::parse(file).map_err(|error| error.to_string())?;
    let endian = if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let load = |section: addr2line::gimli::SectionId| {
        // A compressed section is treated as missing: functions then come from the symbol table.
        let found = file.section_by_name(section.name());
        let bytes = found.filter(|section| section.compressed_file_range().is_ok_and(is_plain));
        let bytes = bytes.and_then(|section| section.data().ok()).unwrap_or_default();
        Ok::<_, addr2line::gimli::Error>(FileBytes::new(bytes, endian))
    };
    let lines = Dwarf::load(load).and_then(addr2line::Context::from_dwarf);
    lines.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::evidence::OtherFrame;

    use super::*;

    /// This test's own program.
    fn own() -> ProgramFile {
        let path = std::env::current_exe().unwrap();
        let file = std::fs::metadata(&path).unwrap();
        let modified_ns = file.mtime() * 1_000_000_000 + file.mtime_nsec();
        let path = path.to_str().unwrap().to_owned();
        ProgramFile { path, inode: file.ino(), bytes: file.len(), modified_ns }
    }

    /// Where a function of this program is, by its symbol.
    fn address_of(part: &str) -> u64 {
        let file = std::fs::read(own().path).unwrap();
        let symbols = object::File::parse(&*file).unwrap().symbol_map();
        symbols.symbols().iter().find(|symbol| symbol.name().contains(part)).unwrap().address()
    }

    fn evidence(program: Option<ProgramFile>) -> Evidence {
        let frames = vec![address_of("7symbols8is_plain") + 1, 0];
        Evidence { frames, program: program.map(Box::new), ..Evidence::default() }
    }

    #[test]
    fn an_address_is_a_function_with_its_place() {
        let lines = SymbolCache::default().backtrace(&evidence(Some(own())));
        assert!(lines[0].starts_with("bulkhead::symbols::is_plain ("), "{lines:?}");
        assert!(lines[0].contains("symbols.rs:"), "{lines:?}");
        assert_eq!(lines[1..], ["0x0"], "what is no code stays a number");
        let address = address_of("7symbols8is_plain") + 1;
        let stack_text =
            format!("thread x (7):\n  program+{address:#x}\n  program+0x\u{1b}\n  program+0x0\n");
        let lines = SymbolCache::default().stack_text(&Evidence { stack_text, ..evidence(Some(own())) });
        assert!(lines[1].starts_with("  bulkhead::symbols::is_plain ("), "{lines:?}");
        assert_eq!((&lines[2], &lines[3]), (&"  program+0x\\u{1b}".to_owned(), &"  0x0".to_owned()));
        let other = |image: &str, after| OtherFrame { image: image.to_owned(), offset: 0x1b, after };
        let other_frames = vec![other("libc.so\u{1b}", 0), other("libx.so", 1), other("liby.so", 2)];
        let lines = SymbolCache::default().backtrace(&Evidence { other_frames, ..evidence(Some(own())) });
        assert_eq!(
            [&lines[0], &lines[2], &lines[4]],
            ["libc.so\\u{1b}+0x1b", "libx.so+0x1b", "liby.so+0x1b"]
        );
        let alone = Evidence { other_frames: vec![other("libz.so", 0)], ..Evidence::default() };
        assert_eq!(SymbolCache::default().backtrace(&alone), ["libz.so+0x1b"]);
        let searched = Evidence { searched: true, ..evidence(Some(own())) };
        assert!(SymbolCache::default().backtrace(&searched)[2].contains("searched"));
    }

    #[test]
    fn another_file_than_the_one_that_ran_is_not_asked() {
        let plain = format!("{:#x}", address_of("7symbols8is_plain") + 1);
        for (program, why) in [
            (ProgramFile { bytes: own().bytes + 1, ..own() }, "it is not the file that ran"),
            (ProgramFile { inode: own().inode + 1, ..own() }, "it is not the file that ran"),
            (ProgramFile { modified_ns: 7, ..own() }, "it is not the file that ran"),
            (ProgramFile { path: "/nowhere/at\nall".to_owned(), ..own() }, "No such file"),
            (ProgramFile { path: "/dev".to_owned(), ..own() }, "it is not the file that ran"),
        ] {
            let lines = SymbolCache::default().backtrace(&evidence(Some(program)));
            assert_eq!(lines[..2], [plain.clone(), "0x0".to_owned()]);
            assert!(lines[2].contains(why) && !lines[2].contains('\n'), "{lines:?}");
        }
        let lines = SymbolCache::default().backtrace(&evidence(None));
        assert!(lines[2].contains("not known"), "{lines:?}");
        assert_eq!(SymbolCache::default().backtrace(&Evidence::default()), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_no_program_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"\x7fELF and no more").unwrap();
        let found = file.as_file().metadata().unwrap();
        let program = ProgramFile {
            path: file.path().to_str().unwrap().to_owned(),
            inode: found.ino(),
            bytes: found.len(),
            modified_ns: found.mtime() * 1_000_000_000 + found.mtime_nsec(),
        };
        let lines = SymbolCache::default().backtrace(&evidence(Some(program)));
        assert!(lines[2].starts_with("(no names: /"), "{lines:?}");
    }
}
