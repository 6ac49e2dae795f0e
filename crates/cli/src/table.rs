//! Prints rows in columns. A column is as wide as its widest cell; lines have no blanks at their end.
//!
//! Pure. It never cuts a cell, so that scripts can grep for it; `--json` gives them more. Used by the verbs that print
//! lists.

/// Returns the lines: the headings, then one line for each row.
pub(crate) fn lay_out<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = headings.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.truncate(text.trim_end().len());
        text
    };
    let body = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(headings)).chain(body).collect()
}

/// A value, or `-`.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [["7".to_owned(), "factorial".to_owned()], ["1000".to_owned(), String::new()]];
        assert_eq!(lay_out(["JOB", "KIND"], &rows), ["JOB   KIND", "7     factorial", "1000"]);
        assert_eq!(or_dash::<u8>(None), "-");
    }
}
