//! The rules for the documents that people read: a link leads somewhere, and the book's summary lists its pages.
//!
//! Each rule takes the texts of the documents and a question about files, so that it can be tested on made-up ones. It
//! never reads a file itself. Driven by the test `tidy_book`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::StyleFault;
use super::tree::{files_below, root};

/// Pages that are written from the code: what stands there alone was explained by nobody.
const WRITTEN: [&str; 1] = ["docs/src/reference/command-line.md"];
/// Where the pages of the book stand.
const PAGES: &str = "docs/src";
/// The list of all pages.
const SUMMARY: &str = "docs/src/SUMMARY.md";
/// Documents outside the book whose links are checked.
const OTHERS: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "BENCHMARKS.md", "worker/GUIDE.md"];

/// The texts of documents, by their paths from the root.
pub type Documents = BTreeMap<PathBuf, String>;

/// Every document of the project.
///
/// # Panics
/// If one of them cannot be read.
pub fn documents() -> Documents {
    let root = root();
    let in_book = files_below(&root.join("docs")).into_iter();
    let in_book = in_book.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let all = in_book.chain(OTHERS.iter().map(|path| root.join(path)));
    all.map(|path| {
        let text = std::fs::read_to_string(&path).expect("a document is readable UTF-8");
        (path.strip_prefix(&root).expect("documents stand below the root").to_owned(), text)
    })
    .collect()
}

/// The text of all pages of the book that people wrote.
pub fn prose() -> String {
    let is_page =
        |path: &Path| path.starts_with(PAGES) && !WRITTEN.iter().any(|page| path == Path::new(page));
    let pages = documents().into_iter().filter(|(path, _)| is_page(path));
    pages.map(|(_, text)| text).collect()
}

/// Every relative link leads to a file that `is_there`, and its `#anchor` to a heading. A link of a page of the book
/// stays in the book: the built book has no other files.
pub fn links(documents: &Documents, is_there: impl Fn(&Path) -> bool) -> Vec<StyleFault> {
    let mut found = Vec::new();
    for (document, text) in documents {
        for (line, target) in targets(text).filter(|(_, target)| !is_web(target)) {
            let fault = link_fault(documents, &is_there, document, target);
            found.extend(fault.map(|fault| StyleFault::of_line(document, line, fault)));
        }
    }
    found
}

/// What is wrong with one link.
fn link_fault(
    documents: &Documents,
    is_there: impl Fn(&Path) -> bool,
    document: &Path,
    target: &str,
) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { Some(document.to_owned()) } else { resolve(document, file) };
    let Some(path) = path else { return Some(format!("the link {target} leads out of the project")) };
    if !documents.contains_key(&path) && !is_there(&path) {
        return Some(format!("the link {target} leads to {}, which is not there", path.display()));
    }
    if document.starts_with(PAGES) && !path.starts_with(PAGES) {
        return Some(format!("the link {target} leaves the book: write the path as code, without a link"));
    }
    let anchor = anchor?;
    let headings = documents.get(&path).map(|text| anchors(text)).unwrap_or_default();
    (!headings.iter().any(|heading| heading == anchor))
        .then(|| format!("the link {target}: {} has no heading #{anchor}", path.display()))
}

/// The summary names each page of the book once, and nothing else.
pub fn summary(documents: &Documents) -> Vec<StyleFault> {
    let Some(text) = documents.get(Path::new(SUMMARY)) else {
        return vec![StyleFault::of_file(SUMMARY, "the book has no summary")];
    };
    let mut found = Vec::new();
    let mut listed: Vec<PathBuf> = Vec::new();
    for (line, target) in targets(text) {
        let page = resolve(Path::new(SUMMARY), target).unwrap_or_default();
        if !documents.contains_key(&page) {
            found.push(StyleFault::of_line(SUMMARY, line, format!("the page {target} is not there")));
        }
        if listed.contains(&page) {
            found.push(StyleFault::of_line(SUMMARY, line, format!("the page {target} is listed twice")));
        }
        listed.push(page);
    }
    let pages =
        documents.keys().filter(|path| path.starts_with(PAGES) && path.as_path() != Path::new(SUMMARY));
    let unlisted = pages.filter(|page| !listed.contains(page));
    found.extend(unlisted.map(|page| StyleFault::of_file(page, "the page is not in SUMMARY.md")));
    found
}

/// The lines that are prose, with their numbers from 1: no code block, and code inside a line blanked out.
fn lines_of_prose(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
        match (fence, mark) {
            (None, Some(_)) => fence = mark,
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((number + 1, without_code(line))),
            (Some(_), _) => {}
        }
        None
    })
}

/// The line with blanks in place of what stands between backticks.
fn without_code(line: &str) -> String {
    let pieces: Vec<&str> = line.split('`').collect();
    let last = pieces.len() - 1;
    let blank = |(place, piece): (usize, &&str)| match place % 2 == 1 && place < last {
        true => " ".repeat(piece.len()),
        false => (*piece).to_owned(),
    };
    pieces.iter().enumerate().map(blank).collect::<Vec<_>>().join("`")
}

/// The targets of all links, `[text](target)` and `[name]: target`, with the number of their line.
fn targets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    lines_of_prose(text).flat_map(move |(number, blanked)| {
        let line = lines[number - 1];
        let inline = blanked.match_indices("](").filter_map(|(at, _)| line.get(at + 2..)?.split(')').next());
        let named = blanked.starts_with('[').then(|| line.split_once("]: ")).flatten();
        let all = inline.chain(named.map(|(_, target)| target));
        all.filter_map(|target| target.split_whitespace().next().map(|target| (number, target)))
            .collect::<Vec<_>>()
    })
}

/// Whether a link leads out of the tree on purpose.
fn is_web(target: &str) -> bool {
    ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme))
}

/// The path from the root that a relative link means; `None` if it leads above the root.
fn resolve(document: &Path, link: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    let folder = document.parent().unwrap_or_else(|| Path::new(""));
    for part in folder.join(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// The anchors of a document's headings: small letters, without punctuation, blanks as dashes, a number behind the
/// second of two equal ones. This is how GitHub and mdBook form them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (number, _) in lines_of_prose(text) {
        let Some((marks, title)) = lines[number - 1].split_once(' ') else { continue };
        if marks.is_empty() || marks.len() > 6 || marks.bytes().any(|byte| byte != b'#') {
            continue;
        }
        let kept = title
            .trim()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || *letter == '-' || *letter == '_' || *letter == ' ');
        let plain: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let plain = plain.to_lowercase();
        let mut anchor = plain.clone();
        for copy in 1.. {
            if !found.contains(&anchor) {
                break;
            }
            anchor = format!("{plain}-{copy}");
        }
        found.push(anchor);
    }
    found
}
