//! A table of DynamoDB and the calls that every layout of leases in one is made of.

pub(crate) mod attributes;
pub(crate) mod batch;
pub(crate) mod client;
mod create;
pub(crate) mod error;
pub(crate) mod names;
pub(crate) mod process;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use self::attributes::{Item, Update};
use self::client::Answered;
use self::error::{Failure, Operation, Reach};
use self::tally::Tally;
use crate::Usage;

/// What a table's key is and what else it is created with; every key attribute is a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    hash: &'static str,
    range: Option<&'static str>,
    /// An index by one attribute and the table's partition key.
    index: Option<(&'static str, &'static str)>,
    /// The attribute by which the service removes old items.
    expires: Option<&'static str>,
}

impl Shape {
    pub(crate) const fn keyed(hash: &'static str, range: Option<&'static str>) -> Self {
        Self { hash, range, index: None, expires: None }
    }

    pub(crate) const fn with_index(self, name: &'static str, by: &'static str) -> Self {
        Self { index: Some((name, by)), ..self }
    }

    pub(crate) const fn expiring_by(self, attribute: &'static str) -> Self {
        Self { expires: Some(attribute), ..self }
    }

    /// `partition key application (S) and sort key item (S)`.
    pub(crate) fn in_words(&self) -> String {
        let range = self.range.map(|range| format!(" and sort key {range} (S)")).unwrap_or_default();
        format!("partition key {} (S){range}", self.hash)
    }
}

/// A table as errors name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: &'a Shape,
}

/// How the calls to a table are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    /// Whether a table that does not exist is created.
    pub(crate) create_table: bool,
    /// How long a call may take, attempts included.
    pub(crate) timeout: Duration,
}

/// A table.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    shape: Shape,
    options: CallOptions,
    client: Client,
    /// Heartbeats do not wait behind anything else, not even for a connection.
    heartbeats: Client,
    ready: Arc<OnceCell<()>>,
    created: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What became of a conditional write.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The item as it is now; empty if it was deleted.
    Done(Item),
    Refused {
        /// The item as it is, if there is one.
        item: Option<Item>,
        /// Whether an attempt before may have been carried out, and refused this one.
        unsure: bool,
    },
}

/// Which client makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Leases,
    Heartbeats,
}

impl Table {
    pub(crate) fn new(name: &str, shape: Shape, settings: &Builder, options: CallOptions) -> Self {
        let client = || Client::from_conf(settings.clone().build());
        Self {
            name: name.to_owned(),
            shape,
            options,
            client: client(),
            heartbeats: client(),
            ready: Arc::default(),
            created: Arc::default(),
            tally: Arc::default(),
        }
    }

    /// Another table, over the same connections; its calls are counted together with this one's.
    pub(crate) fn sibling(&self, name: &str, shape: Shape) -> Self {
        Self {
            name: name.to_owned(),
            shape,
            options: CallOptions { create_table: false, ..self.options },
            ready: Arc::default(),
            created: Arc::default(),
            ..self.clone()
        }
    }

    /// The same table, whose calls are counted apart.
    pub(crate) fn counted_apart(&self) -> Self {
        Self { tally: Arc::default(), ..self.clone() }
    }

    /// What the calls were so far.
    pub(crate) fn usage(&self) -> Usage {
        self.tally.usage()
    }

    /// [`client::call`], with each attempt counted.
    async fn call<T, E, F>(
        &self,
        operation: Operation,
        until: Instant,
        mut send: impl FnMut() -> F,
    ) -> Result<Answered<Result<T, E>>, Failure>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let counted = || {
            let sent = send();
            async {
                let result = sent.await;
                self.tally.ended(operation, &result);
                result
            }
        };
        client::call(operation, self.named(), until, counted).await
    }

    fn named(&self) -> Named<'_> {
        Named { name: &self.name, shape: &self.shape }
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    pub(crate) async fn get(&self, key: Item) -> Result<Option<Item>, Failure> {
        const NAME: Operation = "GetItem";
        let getting = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .consistent_read(true);
        let answer = settled(self.call(NAME, self.deadline(), || getting.clone().send()).await)?;
        self.tally.read(answer.consumed_capacity());
        Ok(answer.item)
    }

    /// A query that reads what was written before it.
    pub(crate) fn query(&self) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.name);
        query.return_consumed_capacity(ReturnConsumedCapacity::Total).consistent_read(true)
    }

    /// All pages of a query.
    pub(crate) async fn pages(
        &self,
        query: QueryFluentBuilder,
        mut take: impl FnMut(Vec<Item>, i32),
    ) -> Result<(), Failure> {
        const NAME: Operation = "Query";
        let mut after = None;
        loop {
            let page = query.clone().set_exclusive_start_key(after);
            let answer = settled(self.call(NAME, self.deadline(), || page.clone().send()).await)?;
            self.tally.read(answer.consumed_capacity());
            take(answer.items.unwrap_or_default(), answer.count);
            match answer.last_evaluated_key {
                Some(last) if !last.is_empty() => after = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// Every item of the table.
    pub(crate) async fn scan(&self) -> Result<Vec<Item>, Failure> {
        const NAME: Operation = "Scan";
        let scan = self.client.scan().table_name(&self.name);
        let scan = scan.return_consumed_capacity(ReturnConsumedCapacity::Total).consistent_read(true);
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let page = scan.clone().set_exclusive_start_key(after);
            let answer = settled(self.call(NAME, self.deadline(), || page.clone().send()).await)?;
            self.tally.read(answer.consumed_capacity());
            items.extend(answer.items.unwrap_or_default());
            match answer.last_evaluated_key {
                Some(last) if !last.is_empty() => after = Some(last),
                _ => return Ok(items),
            }
        }
    }

    pub(crate) async fn update(
        &self,
        lane: Lane,
        key: Item,
        update: &Update,
        until: Instant,
    ) -> Result<Answer, Failure> {
        const NAME: Operation = "UpdateItem";
        let client = if lane == Lane::Heartbeats { &self.heartbeats } else { &self.client };
        let updating = client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .set_update_expression(update.expression())
            .set_condition_expression(update.condition())
            .set_expression_attribute_names(update.names())
            .set_expression_attribute_values(update.values())
            .return_values(ReturnValue::AllNew)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let (answer, unsure) = self.call(NAME, until, || updating.clone().send()).await?;
        match answer {
            Ok(answer) => {
                self.tally.wrote(answer.consumed_capacity());
                Ok(Answer::Done(answer.attributes.unwrap_or_default()))
            }
            Err(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(Answer::Refused { item: refusal.item, unsure })
            }
            Err(other) => Err(Failure::new(Reach::Call, format!("{NAME} failed: {other}"))),
        }
    }

    /// Deletes an item; only the condition of `update` counts.
    pub(crate) async fn delete(&self, key: Item, update: &Update) -> Result<Answer, Failure> {
        const NAME: Operation = "DeleteItem";
        let deleting = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key))
            .set_condition_expression(update.condition())
            .set_expression_attribute_names(update.names())
            .set_expression_attribute_values(update.values())
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let (answer, unsure) = self.call(NAME, self.deadline(), || deleting.clone().send()).await?;
        match answer {
            Ok(answer) => {
                self.tally.wrote(answer.consumed_capacity());
                Ok(Answer::Done(Item::new()))
            }
            Err(DeleteItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(Answer::Refused { item: refusal.item, unsure })
            }
            Err(other) => Err(Failure::new(Reach::Call, format!("{NAME} failed: {other}"))),
        }
    }
}

/// The answer of a call that has no condition.
fn settled<T, E: std::error::Error>(answer: Result<Answered<Result<T, E>>, Failure>) -> Result<T, Failure> {
    answer?.0.map_err(|error| Failure::new(Reach::Call, error.to_string()))
}

/// What DynamoDB permits as a table's name.
pub(crate) fn check_name(table: &str) -> Result<(), String> {
    let permitted = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if (3..=255).contains(&table.len()) && table.bytes().all(permitted) {
        return Ok(());
    }
    Err(format!("{table:?} is no table's name; permitted: 3 to 255 of a-z, A-Z, 0-9, _, - and ."))
}
