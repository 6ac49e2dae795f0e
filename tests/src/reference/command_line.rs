//! From help texts, as clap prints them, to the book's page about the command line.
//!
//! A help text is read into its parts (usage, sections of items, what stands at the end) and written as Markdown. It
//! must drop nothing but what is said once for all verbs. Driven by the test `reference`, which runs the programs.

use std::fmt::Write;

/// How the page begins.
const HEAD: &str = "\
# Command line

<!-- Written from the programs' help by the test `reference`; `BLESS=1 cargo test -p bulkhead-tests --test reference` writes it anew. -->

`bulkhead VERB --help` prints the same. [Running jobs](../running-jobs.md), [Watching](../watching.md) and [The
daemon](../daemon.md) explain what these are for; [Exit codes](exit-codes.md) lists how the command ends.
";

/// Sections of a help text that the page says elsewhere or not at all.
const NOT_SHOWN: [&str; 1] = ["Commands"];
/// Flags that every program has.
const EVERYWHERE: [&str; 2] = ["--help", "--version"];

/// The line above the values that a flag may have.
const VALUES: &str = "Possible values:";

/// A help text in its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Help {
    /// What the command does.
    pub about: String,
    /// The line behind `Usage: `.
    pub usage: String,
    /// Headings with their items.
    pub sections: Vec<(String, Vec<Item>)>,
    /// What stands behind the sections, as it is.
    pub end: String,
}

/// An argument or a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// How it is written, such as `-o, --output <FILE>`.
    pub form: String,
    /// What it means, one paragraph each.
    pub paragraphs: Vec<String>,
}

impl Item {
    /// The long flag; an argument has none.
    pub fn flag(&self) -> Option<&str> {
        let words = self.form.split([' ', ',', '.']);
        words.into_iter().find(|word| word.starts_with("--"))
    }

    /// As an entry of a list; the values that it may have are a list of their own below it.
    fn write(&self, page: &mut String) {
        let (values, text): (Vec<&String>, Vec<&String>) =
            self.paragraphs.iter().partition(|paragraph| paragraph.starts_with("- "));
        let text: Vec<&str> = text.iter().map(|text| text.as_str()).filter(|text| *text != VALUES).collect();
        let _ = writeln!(page, "- `{}`: {}", self.form, text.join(" "));
        for value in values {
            let _ = writeln!(page, "  {value}");
        }
    }
}

impl Help {
    /// Reads a help text.
    ///
    /// # Panics
    /// It has no line `Usage: `: then it is no help text.
    pub fn read(text: &str) -> Self {
        let (about, rest) = text.split_once("\n\nUsage: ").expect("a help text has a usage line");
        let (usage, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        let mut help = Self { about: joined(about), usage: usage.to_owned(), ..Self::default() };
        let mut lines = rest.lines().peekable();
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            // A section is a heading with items; the end begins with a line that is none, or has no items.
            let heading = line.strip_suffix(':').filter(|_| lines.peek().is_some_and(|next| is_item(next)));
            let Some(heading) = heading else {
                help.end = std::iter::once(line).chain(lines.by_ref()).collect::<Vec<_>>().join("\n");
                break;
            };
            let mut body = Vec::new();
            while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(' ')) {
                body.push(line);
            }
            help.sections.push((heading.to_owned(), items(&body)));
        }
        help
    }

    /// The long flags of all sections.
    pub fn flags(&self) -> Vec<&str> {
        self.sections.iter().flat_map(|(_, items)| items.iter().filter_map(Item::flag)).collect()
    }

    /// As Markdown below a heading; `hidden` flags are said elsewhere.
    fn write(&self, title: &str, hidden: &[&str], page: &mut String) {
        let _ = write!(page, "\n## {title}\n\n{}.\n\n```text\n{}\n```\n", self.about, self.usage);
        for (heading, items) in &self.sections {
            let is_shown = |item: &&Item| item.flag().is_none_or(|flag| !hidden.contains(&flag));
            let shown: Vec<&Item> = items.iter().filter(is_shown).collect();
            if shown.is_empty() || NOT_SHOWN.contains(&heading.as_str()) {
                continue;
            }
            let _ = write!(page, "\n{heading}:\n\n");
            for item in shown {
                item.write(page);
            }
        }
        for block in self.end.split("\n\n") {
            write_end(block, page);
        }
    }
}

/// Whether a line begins an item: two to six blanks, then a flag, an argument or a command.
fn is_item(line: &str) -> bool {
    let blanks = line.len() - line.trim_start().len();
    (2..=6).contains(&blanks)
        && line.trim_start().starts_with(|first: char| "-<[".contains(first) || first.is_ascii_lowercase())
        && !line.trim_start().starts_with("bulkhead ")
        && !line.trim_start().contains(" | ")
}

/// The items of a section: text stands behind the form, two blanks apart, or in deeper lines below.
fn items(body: &[&str]) -> Vec<Item> {
    let mut found: Vec<Item> = Vec::new();
    let mut is_new = true;
    for line in body {
        let (text, depth) = (line.trim(), line.len() - line.trim_start().len());
        if text.is_empty() {
            is_new = true;
        } else if depth <= 6 {
            let (form, text) = text.split_once("  ").unwrap_or((text, ""));
            let paragraphs: Vec<String> =
                [text.trim()].into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect();
            is_new = paragraphs.is_empty();
            found.push(Item { form: form.to_owned(), paragraphs });
        } else if let Some(item) = found.last_mut() {
            match item.paragraphs.last_mut().filter(|_| !is_new && !text.starts_with("- ")) {
                Some(paragraph) => *paragraph = format!("{paragraph} {text}"),
                None => item.paragraphs.push(text.to_owned()),
            }
            is_new = false;
        }
    }
    found
}

/// A paragraph behind the sections: lines that are indented stay as they are.
fn write_end(block: &str, page: &mut String) {
    let (code, prose): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| line.starts_with("  "));
    if !prose.is_empty() {
        let _ = write!(page, "\n{}\n", joined(&prose.join("\n")));
    }
    if !code.is_empty() {
        let lines: Vec<&str> = code.iter().map(|line| line.trim_start()).collect();
        let _ = write!(page, "\n```text\n{}\n```\n", lines.join("\n"));
    }
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The page: the command, each verb by name, and the daemon.
pub fn page(command: &Help, verbs: &[(String, Help)], daemon: &Help) -> String {
    let mut page = HEAD.to_owned();
    let mut everywhere = command.flags();
    // The table of exit codes has a page of its own.
    let overview = Help { end: String::new(), ..command.clone() };
    overview.write("bulkhead", &EVERYWHERE, &mut page);
    page += "\nThese options may stand before and behind every verb.\n";
    everywhere.extend(EVERYWHERE);
    for (verb, help) in verbs {
        help.write(&format!("bulkhead {verb}"), &everywhere, &mut page);
    }
    daemon.write("bulkhead-supervisor", &EVERYWHERE, &mut page);
    page
}
