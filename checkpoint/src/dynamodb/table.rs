//! The table: creating it, and the calls that everything else is made of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType, Select, TableDescription, TableStatus,
    TimeToLiveSpecification,
};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::DynamoDbOptions;
use super::attributes::{Item, Update, text};
use super::client::{Answered, call};
use super::error::{Failure, Operation, Reach};

/// How long a new table may take until it can be used.
const CREATION: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The table of one or more applications.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) options: DynamoDbOptions,
    client: Client,
    /// Heartbeats do not wait behind anything else, not even for a connection.
    heartbeats: Client,
    ready: OnceCell<()>,
    created: AtomicBool,
}

/// What became of a conditional write.
#[derive(Debug)]
pub(super) enum Answer {
    /// The item as it is now; empty if it was deleted.
    Done(Item),
    Refused {
        /// The item as it is, if there is one.
        item: Option<Item>,
        /// Whether an attempt before may have been carried out, and refused this one.
        unsure: bool,
    },
}

impl Table {
    pub(super) fn new(name: &str, clients: [Client; 2], options: DynamoDbOptions) -> Self {
        let [client, heartbeats] = clients;
        let (ready, created) = (OnceCell::new(), AtomicBool::new(false));
        Self { name: name.to_owned(), options, client, heartbeats, ready, created }
    }

    /// When a call that begins now must be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.options.call_timeout
    }

    /// Makes sure that the table is there and ours, once.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        self.ready.get_or_try_init(|| Box::pin(self.prepare())).await.copied()
    }

    async fn prepare(&self) -> Result<(), Failure> {
        let give_up = Instant::now() + CREATION;
        loop {
            match self.describe().await? {
                None if self.options.create_table => self.create().await?,
                None => {
                    let reason = format!(
                        "there is no table {}; create it with partition key application (S) and sort key item (S), or \
                         let this worker create it",
                        self.name
                    );
                    return Err(Failure::new(Reach::Setup, reason));
                }
                Some(table) => {
                    check_shape(&self.name, &table).map_err(|reason| Failure::new(Reach::Setup, reason))?;
                    match table.table_status() {
                        Some(TableStatus::Active | TableStatus::Updating) | None => break,
                        Some(TableStatus::Creating) => {}
                        Some(other) => {
                            let reason =
                                format!("the table {} is {other}; wait, or choose another", self.name);
                            return Err(Failure::new(Reach::Call, reason));
                        }
                    }
                }
            }
            if Instant::now() >= give_up {
                let reason = format!("the table {} was not ACTIVE within {CREATION:?}", self.name);
                return Err(Failure::new(Reach::Call, reason));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if self.created.load(Ordering::Relaxed) { self.let_workers_expire().await } else { Ok(()) }
    }

    async fn describe(&self) -> Result<Option<TableDescription>, Failure> {
        const NAME: Operation = "DescribeTable";
        let describing = || self.client.describe_table().table_name(&self.name).send();
        let send = async || match describing().await {
            Ok(answer) => Ok(answer.table),
            Err(error) => match error.as_service_error() {
                Some(DescribeTableError::ResourceNotFoundException(_)) => Ok(None),
                _ => Err(error),
            },
        };
        settled(call(NAME, &self.name, self.deadline(), send).await)
    }

    async fn create(&self) -> Result<(), Failure> {
        const NAME: Operation = "CreateTable";
        let unbuilt =
            |error: aws_sdk_dynamodb::error::BuildError| Failure::new(Reach::Setup, error.to_string());
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let attribute = |name: &str| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build()
        };
        let creating = self
            .client
            .create_table()
            .table_name(&self.name)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key("application", KeyType::Hash).map_err(unbuilt)?)
            .key_schema(key("item", KeyType::Range).map_err(unbuilt)?)
            .attribute_definitions(attribute("application").map_err(unbuilt)?)
            .attribute_definitions(attribute("item").map_err(unbuilt)?);
        let send = async || match creating.clone().send().await {
            Ok(_) => Ok(true),
            // Another worker was faster, or an attempt before this one.
            Err(error) => match error.as_service_error() {
                Some(CreateTableError::ResourceInUseException(_)) => Ok(false),
                _ => Err(error),
            },
        };
        let (created, unsure) = call(NAME, &self.name, self.deadline(), send).await?;
        if created.unwrap_or_default() || unsure {
            self.created.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has the service delete the items of workers that died long ago.
    async fn let_workers_expire(&self) -> Result<(), Failure> {
        const NAME: Operation = "UpdateTimeToLive";
        let specification =
            TimeToLiveSpecification::builder().attribute_name("expires").enabled(true).build();
        let specification = specification.map_err(|error| Failure::new(Reach::Setup, error.to_string()))?;
        let updating = self
            .client
            .update_time_to_live()
            .table_name(&self.name)
            .time_to_live_specification(specification);
        let send = async || match updating.clone().send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
                // It is switched on already.
                let is_on = error.message().is_some_and(|text| text.contains("already enabled"));
                if is_on { Ok(()) } else { Err(error) }
            }
        };
        settled(call(NAME, &self.name, self.deadline(), send).await)
    }

    pub(super) async fn get(&self, application: &str, item: &str) -> Result<Option<Item>, Failure> {
        const NAME: Operation = "GetItem";
        let getting = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key(application, item)))
            .consistent_read(true);
        let answer = settled(call(NAME, &self.name, self.deadline(), || getting.clone().send()).await)?;
        Ok(answer.item)
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
        mut take: impl FnMut(Vec<Item>, i32),
    ) -> Result<(), Failure> {
        const NAME: Operation = "Query";
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression("#application = :application AND begins_with(#item, :prefix)")
            .expression_attribute_names("#application", "application")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":application", text(application))
            .expression_attribute_values(":prefix", text(prefix))
            .select(select)
            .consistent_read(true);
        let mut after = None;
        loop {
            let page = query.clone().set_exclusive_start_key(after);
            let answer = settled(call(NAME, &self.name, self.deadline(), || page.clone().send()).await)?;
            take(answer.items.unwrap_or_default(), answer.count);
            match answer.last_evaluated_key {
                Some(last) if !last.is_empty() => after = Some(last),
                _ => return Ok(()),
            }
        }
    }

    pub(super) async fn update(
        &self,
        application: &str,
        item: &str,
        update: Update,
        until: Instant,
    ) -> Result<Answer, Failure> {
        self.update_by(&self.client, application, item, update, until).await
    }

    /// The same over the heartbeats' own connections.
    pub(super) async fn beat(
        &self,
        application: &str,
        item: &str,
        update: Update,
    ) -> Result<Answer, Failure> {
        self.update_by(&self.heartbeats, application, item, update, self.deadline()).await
    }

    async fn update_by(
        &self,
        client: &Client,
        application: &str,
        item: &str,
        update: Update,
        until: Instant,
    ) -> Result<Answer, Failure> {
        const NAME: Operation = "UpdateItem";
        let updating = client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key(application, item)))
            .set_update_expression(update.expression())
            .set_condition_expression(update.condition())
            .set_expression_attribute_names(update.names())
            .set_expression_attribute_values(update.values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let (answer, unsure) = call(NAME, &self.name, until, || updating.clone().send()).await?;
        match answer {
            Ok(answer) => Ok(Answer::Done(answer.attributes.unwrap_or_default())),
            Err(UpdateItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(Answer::Refused { item: refusal.item, unsure })
            }
            Err(other) => Err(Failure::new(Reach::Call, format!("{NAME} failed: {other}"))),
        }
    }

    /// Deletes an item; only the condition of `update` counts.
    pub(super) async fn delete(
        &self,
        application: &str,
        item: &str,
        update: &Update,
    ) -> Result<Answer, Failure> {
        const NAME: Operation = "DeleteItem";
        let deleting = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key(application, item)))
            .set_condition_expression(update.condition())
            .set_expression_attribute_names(update.names())
            .set_expression_attribute_values(update.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let (answer, unsure) = call(NAME, &self.name, self.deadline(), || deleting.clone().send()).await?;
        match answer {
            Ok(_) => Ok(Answer::Done(Item::new())),
            Err(DeleteItemError::ConditionalCheckFailedException(refusal)) => {
                Ok(Answer::Refused { item: refusal.item, unsure })
            }
            Err(other) => Err(Failure::new(Reach::Call, format!("{NAME} failed: {other}"))),
        }
    }
}

fn key(application: &str, item: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([("application".to_owned(), text(application)), ("item".to_owned(), text(item))])
}

/// The answer of a call that has no condition.
fn settled<T, E: std::error::Error>(answer: Result<Answered<Result<T, E>>, Failure>) -> Result<T, Failure> {
    answer?.0.map_err(|error| Failure::new(Reach::Call, error.to_string()))
}

/// Whether the table's key is ours. The error says what differs.
fn check_shape(name: &str, table: &TableDescription) -> Result<(), String> {
    let found: Vec<_> = table.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
    let is_text = |name| {
        table.attribute_definitions().iter().any(|attribute| {
            attribute.attribute_name() == name && *attribute.attribute_type() == ScalarAttributeType::S
        })
    };
    let expected = [("application", &KeyType::Hash), ("item", &KeyType::Range)];
    if found == expected && is_text("application") && is_text("item") {
        return Ok(());
    }
    let shown = |key: &KeySchemaElement| {
        let types = table.attribute_definitions();
        let attribute = types.iter().find(|attribute| attribute.attribute_name() == key.attribute_name());
        let kind = attribute.map_or("?", |attribute| attribute.attribute_type().as_str());
        format!("{} ({}, {kind})", key.attribute_name(), key.key_type())
    };
    let found: Vec<_> = table.key_schema().iter().map(shown).collect();
    Err(format!(
        "the table {name} has the key {}, not application (HASH, S), item (RANGE, S): it is another program's; name \
         another table",
        found.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[(&str, KeyType, ScalarAttributeType)]) -> TableDescription {
        keys.iter()
            .fold(TableDescription::builder(), |table, (name, key, kind)| {
                let definition =
                    AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone());
                let element = KeySchemaElement::builder().attribute_name(*name).key_type(key.clone());
                table.attribute_definitions(definition.build().unwrap()).key_schema(element.build().unwrap())
            })
            .build()
    }

    #[test]
    fn a_table_of_another_shape_is_refused_with_what_it_has() {
        use {KeyType as Key, ScalarAttributeType as Type};
        let ours = [("application", Key::Hash, Type::S), ("item", Key::Range, Type::S)];
        assert_eq!(check_shape("t", &table(&ours)), Ok(()));
        let of_kcl = check_shape("t", &table(&[("leaseKey", Key::Hash, Type::S)])).unwrap_err();
        assert!(of_kcl.contains("has the key leaseKey (HASH, S), not application"), "{of_kcl}");
        let numbers = [("application", Key::Hash, Type::S), ("item", Key::Range, Type::N)];
        assert!(check_shape("t", &table(&numbers)).unwrap_err().contains("item (RANGE, N)"));
        assert!(check_shape("t", &table(&ours[..1])).is_err());
    }
}
