//! The table of one or more applications: its items are named by an application and a name.

use std::time::Duration;

use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::types::Select;
use tokio::time::Instant;

use super::DynamoDbOptions;
use crate::Usage;
use crate::table::attributes::{Item, Update, text};
use crate::table::error::Failure;
use crate::table::{self, Answer, CallOptions, Lane, Shape};

const SHAPE: Shape = Shape::keyed("application", Some("item")).expiring_by("expires");

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) full_listing_interval: Duration,
    table: table::Table,
}

impl Table {
    pub(super) fn new(name: &str, settings: &Builder, options: &DynamoDbOptions) -> Self {
        let calls = CallOptions { create_table: options.create_table, timeout: options.call_timeout };
        Self {
            full_listing_interval: options.full_listing_interval,
            table: table::Table::new(name, SHAPE, settings, calls),
        }
    }

    /// The same table for another application.
    pub(super) fn counted_apart(&self) -> Self {
        Self { table: self.table.counted_apart(), ..*self }
    }

    /// What the calls were so far.
    pub(super) fn usage(&self) -> Usage {
        self.table.usage()
    }

    pub(super) fn name(&self) -> &str {
        &self.table.name
    }

    /// When a call that begins now must be over.
    pub(super) fn deadline(&self) -> Instant {
        self.table.deadline()
    }

    /// Makes sure that the table is there and ours, once.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        self.table.ready().await
    }

    pub(super) async fn get(&self, application: &str, item: &str) -> Result<Option<Item>, Failure> {
        self.table.get(key(application, item)).await
    }

    /// The items of a partition whose names begin with `prefix`.
    pub(super) async fn query(&self, application: &str, prefix: &str) -> Result<Vec<Item>, Failure> {
        let mut items = Vec::new();
        self.pages(application, prefix, Select::AllAttributes, |page, _| items.extend(page)).await?;
        Ok(items)
    }

    /// How many there are.
    pub(super) async fn count(&self, application: &str, prefix: &str) -> Result<usize, Failure> {
        let mut total = 0;
        let add = |_, count| total += usize::try_from(count).unwrap_or_default();
        self.pages(application, prefix, Select::Count, add).await?;
        Ok(total)
    }

    async fn pages(
        &self,
        application: &str,
        prefix: &str,
        select: Select,
        take: impl FnMut(Vec<Item>, i32),
    ) -> Result<(), Failure> {
        let query = self
            .table
            .query()
            .key_condition_expression("#application = :application AND begins_with(#item, :prefix)")
            .expression_attribute_names("#application", "application")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":application", text(application))
            .expression_attribute_values(":prefix", text(prefix))
            .select(select);
        self.table.pages(query, take).await
    }

    pub(super) async fn update(
        &self,
        application: &str,
        item: &str,
        update: Update,
        until: Instant,
    ) -> Result<Answer, Failure> {
        self.table.update(Lane::Leases, key(application, item), &update, until).await
    }

    /// The same over the heartbeats' own connections.
    pub(super) async fn beat(
        &self,
        application: &str,
        item: &str,
        update: Update,
    ) -> Result<Answer, Failure> {
        self.table.update(Lane::Heartbeats, key(application, item), &update, self.deadline()).await
    }

    /// Deletes an item; only the condition of `update` counts.
    pub(super) async fn delete(
        &self,
        application: &str,
        item: &str,
        update: &Update,
    ) -> Result<Answer, Failure> {
        self.table.delete(key(application, item), update).await
    }
}

fn key(application: &str, item: &str) -> Item {
    Item::from([("application".to_owned(), text(application)), ("item".to_owned(), text(item))])
}
