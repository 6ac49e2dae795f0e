//! Connections to the database, with the settings that all of them have.
//!
//! The writer's commits are in SQLite's write-ahead log and synced before they return (`synchronous = FULL`). The log is copied into
//! the database only when the writer asks for it. Used by `opening.rs`, `writer.rs` and `reader.rs`.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::bounds::{LOCK_PATIENCE, PAGE_BYTES};

/// Opens the database to write it, and makes it if `create` is set.
///
/// # Errors
/// SQLite's.
pub(crate) fn to_write(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_PATIENCE)?;
    if create {
        // Both have to be set before the first table.
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Makes the database keep a write-ahead log.
///
/// # Errors
/// SQLite's; also if it keeps none.
pub(crate) fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
}

/// Copies all of the log into the database, and empties it; whether it could: not while a reader needs the log.
///
/// # Errors
/// SQLite's.
pub(crate) fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(!row.get::<_, bool>(0)?))
}

/// Opens the database to read it alone.
///
/// # Errors
/// SQLite's.
pub(crate) fn to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_PATIENCE)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{STEPS, migrate};

    #[test]
    fn commits_are_synced_and_the_file_can_shrink() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        for create in [true, false] {
            let mut connection = to_write(&path, create).unwrap();
            keep_log(&connection).unwrap();
            migrate(&mut connection, &STEPS).unwrap();
            let of = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(
                (of("synchronous"), of("auto_vacuum"), of("page_size")),
                (2, 2, i64::from(PAGE_BYTES))
            );
            assert_eq!(of("wal_autocheckpoint"), 0);
        }
        assert!(to_write(&folder.path().join("missing.db"), false).is_err());
        assert!(to_read(&path).unwrap().execute("DELETE FROM kept", []).is_err());
    }
}
