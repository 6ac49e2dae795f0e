//! Copying a result out of a box, once, and checking its form.
//!
//! The worker can change every byte while we read: each field is loaded exactly once, checked, and what was
//! loaded is what is used.

use std::sync::atomic::Ordering;

use bulkhead_proto::boxes::{self, ELAPSED_NS_AT, LENGTH_AT, OUTPUT_BYTES_AT, ReportStatus, STATUS_AT};
use bulkhead_proto::death::Lie;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::{INLINE_MAX_BYTES, OUTPUT_MAX_BYTES, TEXT_MAX_BYTES};
use bulkhead_sys::page::Page;

use super::{Found, FoundResult};

/// The result of an entry that was seen DONE with Acquire.
pub(super) fn copy(page: &Page, seq: Seq) -> Result<Found, Lie> {
    let index = boxes::index_of(seq);
    let field = |at: usize| page.load(boxes::entry_at(index) + at, Ordering::Relaxed);
    let status = ReportStatus::unpack(field(STATUS_AT)).ok_or(Lie::Result)?;
    let bytes = |limit: usize| -> Result<Vec<u8>, Lie> {
        let length = usize::try_from(field(LENGTH_AT)).ok().filter(|length| *length <= limit);
        let length = length.ok_or(Lie::Result)?;
        Ok(page.read_bytes(boxes::result_at(index, length), length))
    };
    let result = match status {
        ReportStatus::Inline => FoundResult::Inline(Payload::from(bytes(INLINE_MAX_BYTES)?)),
        ReportStatus::Failed => {
            FoundResult::Failed(plain(&String::from_utf8(bytes(TEXT_MAX_BYTES)?).map_err(|_| Lie::Result)?))
        }
        ReportStatus::Descriptor => match field(OUTPUT_BYTES_AT) {
            bytes @ 0..=OUTPUT_MAX_BYTES => FoundResult::Descriptor { bytes },
            _ => return Err(Lie::Result),
        },
    };
    Ok(Found { seq, elapsed_ns: field(ELAPSED_NS_AT), result })
}

/// A worker's text in one line that does nothing to a terminal: what is shown to an administrator, or logged, must not
/// forge a second line or hide what stands before it. Escaped it may be longer, and is cut again.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let length = shown.len();
        match letter {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push(' '),
            // Controls, and what turns the direction of writing or ends a line without being one.
            _ if letter.is_control() => shown.extend(letter.escape_unicode()),
            '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(letter.escape_unicode());
            }
            _ => shown.push(letter),
        }
        if shown.len() > TEXT_MAX_BYTES {
            shown.truncate(length);
            return shown;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_forges_no_line_and_moves_no_cursor() {
        assert_eq!(plain("no\n99\tdone \u{1b}[31mred \u{202e}"), "no\\n99 done \\u{1b}[31mred \\u{202e}");
        assert_eq!(plain("größer als \"7\""), "größer als \"7\"");
    }

    #[test]
    fn an_escaped_text_is_cut_between_letters() {
        let long = plain(&"\u{1b}".repeat(TEXT_MAX_BYTES));
        assert!(long.len() <= TEXT_MAX_BYTES && long.ends_with("\\u{1b}"), "{}", long.len());
        assert_eq!(plain(&"x".repeat(TEXT_MAX_BYTES)).len(), TEXT_MAX_BYTES);
    }
}
