//! The evidence of a death as lines of text, each with a heading.
//!
//! The last words, the names and the text of its stack come from the worker that died and may hold any bytes, so they are
//! escaped here.
//! Used by the verbs `job` and `deaths`.

use bulkhead_proto::client::evidence::{Evidence, ProcessSeen, TaskProgress};
use bulkhead_proto::client::record_text::Span;

use crate::symbols::SymbolCache;

/// The lines: for each a heading of at most nine letters and a text.
pub(crate) fn details(evidence: &Evidence, symbol_cache: &mut SymbolCache) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    lines.extend(evidence.seen.as_deref().map(|seen| ("seen", seen_text(seen))));
    lines.extend(evidence.progress.map(|progress| ("progress", progress_text(progress))));
    let words = &evidence.last_words;
    lines.extend((!words.is_empty()).then(|| ("said", format!("{words:?}"))));
    let below = |heading| std::iter::once(heading).chain(std::iter::repeat(""));
    lines.extend(below("at").zip(symbol_cache.backtrace(evidence)));
    lines.extend(below("wrote").zip(symbol_cache.stack_text(evidence)));
    lines
}

fn progress_text(TaskProgress { done, total }: TaskProgress) -> String {
    if total == 0 { format!("{done}") } else { format!("{done} of {total}") }
}

fn seen_text(seen: &ProcessSeen) -> String {
    let ProcessSeen { state, cpu_us, task_cpu_us, below_us, resident_bytes, waits_in, pid: _, uid: _ } = seen;
    let cpu = match task_cpu_us {
        Some(us) => format!("{} of processor time for it", Span::us(*us)),
        None => format!("{} of processor time in its life", Span::us(*cpu_us)),
    };
    let below = match below_us {
        0 => String::new(),
        us => format!(", {} by the processes that it has started", Span::us(*us)),
    };
    let place = if waits_in.is_empty() { String::new() } else { format!(", in {}", waits_in.escape_debug()) };
    format!("{state}{place}, {cpu}{below}, {:.1} MiB resident", *resident_bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::evidence::RunState;

    use super::*;

    #[test]
    fn each_thing_that_is_known_has_its_line_and_harms_no_terminal() {
        let seen = ProcessSeen {
            pid: 0,
            uid: Some(0),
            state: RunState::Sleeping,
            cpu_us: 7000,
            task_cpu_us: Some(1240),
            below_us: 2_000_000,
            resident_bytes: 3 << 19,
            waits_in: "futex\u{1b}".to_owned(),
        };
        let evidence = Evidence {
            frames: vec![0x10, 0x20],
            progress: Some(TaskProgress { done: 3, total: 7 }),
            last_words: "row \u{1b}[31m\n4\u{202e}".to_owned(),
            stack_text: "Current thread:\n  File \"a.py\", \u{1b}[2J\r\n\u{202e}".to_owned(),
            seen: Some(Box::new(seen)),
            ..Evidence::default()
        };
        let lines = details(&evidence, &mut SymbolCache::default());
        let lines: Vec<_> = lines.iter().map(|(heading, text)| (*heading, text.as_str())).collect();
        assert_eq!(
            lines,
            [
                (
                    "seen",
                    "sleeping, in futex\\u{1b}, 1.24ms of processor time for it, 2.00s by the processes that it has started, 1.5 MiB resident"
                ),
                ("progress", "3 of 7"),
                ("said", "\"row \\u{1b}[31m\\n4\\u{202e}\""),
                ("at", "0x10"),
                ("", "0x20"),
                ("", "(no names: the worker program is not known)"),
                ("wrote", "Current thread:"),
                ("", "  File \"a.py\", \\u{1b}[2J"),
                ("", "\\u{202e}"),
            ]
        );
        assert!(details(&Evidence::default(), &mut SymbolCache::default()).is_empty());
    }
}
