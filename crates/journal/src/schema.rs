//! The schema of the database, and the way to it from every earlier version.
//!
//! `user_version` counts schemas from 1, and [`STEPS`] leads from each to the next, each step in a transaction of its own. A
//! schema that was released is never changed: a new version is one more step. `schema/version_1.sql` documents the tables, and
//! the view for people. Used by `opening.rs`.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Says that a database is a journal: "BLKH".
pub(crate) const APPLICATION_ID: i32 = 0x424c_4b48;

/// The steps: the first makes the tables of version 1, each further one leads to the next version.
pub(crate) const STEPS: [&str; 1] = [include_str!("schema/version_1.sql")];

/// Brings a database to the last version of `steps`.
///
/// # Errors
/// SQLite's. The database is then at the last version whose step succeeded.
pub(crate) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let from = version(connection)?;
    for (step, to) in steps.iter().zip(1_u32..).skip(from as usize) {
        let change = Transaction::new(connection, TransactionBehavior::Immediate)?;
        change.execute_batch(step)?;
        change.pragma_update(None, "application_id", APPLICATION_ID)?;
        change.pragma_update(None, "user_version", to)?;
        change.commit()?;
    }
    Ok(())
}

/// The version of a database; 0: it has no tables yet.
///
/// # Errors
/// SQLite's.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_leads_from_each_version_to_the_next_and_keeps_the_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &STEPS).unwrap();
        connection.execute("INSERT INTO kept VALUES (7, 2, 30)", []).unwrap();
        let more = "ALTER TABLE kept ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'";
        let steps = [&STEPS[..], &[more]].concat();
        for _ in 0..2 {
            migrate(&mut connection, &steps).unwrap();
            let kept = connection.query_row("SELECT jobs, colour FROM kept WHERE uid = 7", [], |row| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
            });
            assert_eq!(kept.unwrap(), (2, "red".to_owned()));
            assert_eq!(version(&connection).unwrap() as usize, steps.len());
        }
        let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
        assert_eq!(id, APPLICATION_ID);
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = [&STEPS[..], &["CREATE TABLE more(x); INSERT INTO missing VALUES (1)"]].concat();
        assert!(migrate(&mut connection, &steps).is_err());
        assert_eq!(version(&connection).unwrap() as usize, STEPS.len());
        assert!(connection.prepare("SELECT * FROM more").is_err(), "the step is undone as a whole");
    }
}
