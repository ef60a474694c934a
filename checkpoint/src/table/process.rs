//! A process in an item.

use super::attributes::{Reader, Update, number, text};
use crate::ProcessIdentity;

/// The attributes that have host, process id and start.
pub(crate) type ProcessNames = [&'static str; 3];

/// A process that is only half known is unknown: succession then waits for the lease to expire.
pub(crate) fn read(read: Reader<'_>, names: &ProcessNames) -> Result<Option<ProcessIdentity>, String> {
    let [host, pid, started] = names;
    let (host, pid, started) = (read.text(host)?, read.number(pid)?, read.number(started)?);
    Ok(host.zip(pid).zip(started).map(|((host, pid), started)| ProcessIdentity {
        host: host.to_owned(),
        pid,
        started,
    }))
}

pub(crate) fn set(update: Update, names: &ProcessNames, process: Option<&ProcessIdentity>) -> Update {
    let [host, pid, started] = names;
    update
        .set_or_remove(host, process.map(|process| text(&process.host)))
        .set_or_remove(pid, process.map(|process| number(process.pid)))
        .set_or_remove(started, process.map(|process| number(process.started)))
}
