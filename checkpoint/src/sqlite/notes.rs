//! The notes of an application, next to its leases.

use rusqlite::params;

use super::fault::Fault;
use super::leases::Leases;

/// Made with the first note, so that a file without one stays as every version knows it.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS notes (application TEXT NOT NULL, name TEXT NOT NULL, \
     value TEXT NOT NULL, PRIMARY KEY (application, name)) WITHOUT ROWID";

/// Notes `value` unless there is a note of that name, and reads what is noted then.
pub(super) fn note(leases: &Leases<'_>, name: &str, value: &str) -> Result<String, Fault> {
    let Leases { connection, application, .. } = leases;
    connection.execute(TABLE, [])?;
    let new = params![application, name, value];
    connection.execute("INSERT INTO notes VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", new)?;
    let find = "SELECT value FROM notes WHERE application = ?1 AND name = ?2";
    Ok(connection.query_row(find, params![application, name], |row| row.get(0))?)
}

/// Forgets the note of that name, if there is one.
pub(super) fn forget(leases: &Leases<'_>, name: &str) -> Result<(), Fault> {
    let Leases { connection, application, .. } = leases;
    connection.execute(TABLE, [])?;
    connection
        .execute("DELETE FROM notes WHERE application = ?1 AND name = ?2", params![application, name])?;
    Ok(())
}
