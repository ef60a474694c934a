//! Which other applications of the file have leases of a stream.

use rusqlite::params;
use shardmill_engine::LeaseKey;

use super::fault::Fault;
use super::leases::Leases;
use crate::OtherApplication;

const OTHERS: &str = "SELECT application, epoch, count(*) FROM leases WHERE application <> ?1 AND account = ?2 \
     AND region = ?3 AND stream = ?4 GROUP BY application, epoch ORDER BY application, epoch";

/// Reads the whole table: it is called once at a start.
pub(super) fn others(leases: &Leases<'_>, of: &LeaseKey) -> Result<Vec<OtherApplication>, Fault> {
    let mut statement = leases.connection.prepare(OTHERS)?;
    let mut rows = statement.query(params![leases.application, of.account, of.region, of.stream])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let count: i64 = row.get(2)?;
        let leases = usize::try_from(count).unwrap_or(usize::MAX);
        found.push(OtherApplication { name: row.get(0)?, epoch: row.get(1)?, leases });
    }
    Ok(found)
}
