//! The state tables in the headers of files, read, so that a test beside the code can compare them with it.
//!
//! Two forms: `| from \ to | a | b |`, in which a filled cell is a way that may be gone, and a table whose last column is
//! `leaves to`, with states and, in brackets, why. A package that cannot depend on this one takes this file in by its
//! path. Nothing here knows any state.

use std::collections::{BTreeMap, BTreeSet};

/// For each state those that it may be left for: none, for the last ones.
pub type Moves = BTreeMap<String, BTreeSet<String>>;

/// All states of an enum without data, as an array. A state that is left out does not compile, so that a new one comes
/// into the comparison with the table.
///
/// ```
/// enum Phase { Open, Closed }
/// let all = bulkhead_tests::every_state!(Phase: Open, Closed);
/// assert_eq!(all.len(), 2);
/// ```
///
/// ```compile_fail,E0004
/// enum Phase { Open, Closed, Added }
/// let all = bulkhead_tests::every_state!(Phase: Open, Closed);
/// ```
#[macro_export]
macro_rules! every_state {
    ($states:ident: $($state:ident),+ $(,)?) => {{
        let _is_whole = |state: $states| match state {
            $($states::$state => {})+
        };
        [$($states::$state),+]
    }};
}

/// Compares the table in the header of a file with its code.
///
/// # Panics
/// If they differ.
pub fn assert_told<N: ToString>(source: &str, code: impl IntoIterator<Item = (N, Vec<N>)>) {
    let lower = |name: N| name.to_string().to_lowercase();
    let code: Moves =
        code.into_iter().map(|(from, to)| (lower(from), to.into_iter().map(lower).collect())).collect();
    let told = read(source).expect("the header has a table of states");
    assert_eq!(told, code, "left: the table in the header, right: the code");
}

/// The table in the header of a source; `None` if it has none.
pub fn read(source: &str) -> Option<Moves> {
    let header = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let rows: Vec<Vec<&str>> = header.filter_map(cells).collect();
    let (top, rows) = rows.split_first()?;
    // Between the two is the line of dashes.
    let rows = rows.get(1..)?;
    match (top.first(), top.last()) {
        (Some(&"from \\ to"), _) => {
            // A state that is never left may have only its column.
            let columns = top.iter().skip(1).map(|state| ((*state).to_owned(), BTreeSet::new()));
            Some(columns.chain(rows.iter().map(|row| (row[0].to_owned(), filled(top, row)))).collect())
        }
        (_, Some(&"leaves to")) => Some(rows.iter().map(|row| (row[0].to_owned(), named(row))).collect()),
        _ => None,
    }
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

/// The columns that have something in this row.
fn filled(top: &[&str], row: &[&str]) -> BTreeSet<String> {
    let cells = top.iter().zip(row).skip(1);
    cells.filter(|(_, cell)| !cell.is_empty()).map(|(state, _)| (*state).to_owned()).collect()
}

/// The states in the last cell of a row: what stands between commas, without what stands in brackets.
fn named(row: &[&str]) -> BTreeSet<String> {
    let mut depth = 0_usize;
    let mut text = String::new();
    for letter in row.last().copied().unwrap_or_default().chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => text.push(letter),
            _ => {}
        }
    }
    let states = text.split(',').map(str::trim).filter(|state| !state.is_empty() && *state != "-");
    states.map(str::to_owned).collect()
}
