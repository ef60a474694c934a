//! Which other applications of the table have leases of a stream, and the notes of an application.

use shardmill_engine::LeaseKey;

use super::application::Application;
use super::names;
use crate::table::Answer;
use crate::table::attributes::{Reader, Update, text};
use crate::table::error::{Failure, Reach};
use crate::{NewLease, OtherApplication};

impl Application {
    /// Enters this application for the streams of `leases`, before the leases are there: others find it by that.
    pub(super) async fn enter(&self, leases: &[NewLease]) -> Result<(), Failure> {
        let mut entries: Vec<_> = leases.iter().map(|new| names::reader(&new.key, &self.name)).collect();
        entries.sort_unstable();
        entries.dedup();
        for entry in entries {
            if self.known().entered.contains(&entry) {
                continue;
            }
            let enter = Update::default().set("reader", text(&self.name));
            self.table.update(names::STREAMS, &entry, enter, self.table.deadline()).await?;
            self.known().entered.insert(entry);
        }
        Ok(())
    }

    pub(super) async fn others(&self, of: &LeaseKey) -> Result<Vec<OtherApplication>, Failure> {
        let prefix = names::readers_of(of);
        let mut others = Vec::new();
        for item in self.table.query(names::STREAMS, &prefix).await? {
            let item = Reader(&item).text("item").ok().flatten().unwrap_or_default();
            let Some((epoch, name)) = names::epoch_and_application(item, &prefix) else { continue };
            if name == self.name {
                continue;
            }
            let leases = names::leases_of(&of.account, &of.region, &of.stream, &epoch);
            let leases = self.table.count(&name, &leases).await?;
            if leases > 0 {
                others.push(OtherApplication { name, epoch, leases });
            }
        }
        others.sort();
        Ok(others)
    }

    pub(super) async fn note(&self, name: &str, value: &str) -> Result<Option<String>, Failure> {
        let note = Update::default().set_first("value", text(value));
        let name = names::note(name);
        match self.table.update(&self.name, &name, note, self.table.deadline()).await? {
            Answer::Done(item) => match Reader(&item).required_text("value") {
                Ok(value) => Ok(Some(value.to_owned())),
                Err(problem) => {
                    let reason = format!("the item {name:?} {problem}; correct it, or delete the item");
                    Err(Failure::new(Reach::Setup, reason))
                }
            },
            Answer::Refused { .. } => Err(Failure::new(Reach::Item, "a note was refused")),
        }
    }

    pub(super) async fn forget_note(&self, name: &str) -> Result<(), Failure> {
        self.table.delete(&self.name, &names::note(name), &Update::default()).await.map(|_| ())
    }
}
