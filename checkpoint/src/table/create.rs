//! Creating a table, and refusing one that is another program's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata as _};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
};
use tokio::time::Instant;

use super::error::{Failure, Operation, Reach};
use super::{Shape, Table, settled};

/// How long a new table may take until it can be used.
const CREATION: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

impl Table {
    /// Makes sure that the table is there and of the right shape, once.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        self.ready.get_or_try_init(|| Box::pin(self.prepare())).await.copied()
    }

    async fn prepare(&self) -> Result<(), Failure> {
        let give_up = Instant::now() + CREATION;
        loop {
            match self.describe().await? {
                None if self.options.create_table => self.create().await?,
                None => {
                    let region = self.client.config().region().map_or("its region", |region| region.as_ref());
                    let reason = format!(
                        "there is no table {} in {region}; correct its name or the region, create it with {}, or let a worker create \
                         it (CreateTable)",
                        self.name,
                        self.shape.in_words()
                    );
                    return Err(Failure::new(Reach::Setup, reason));
                }
                Some(table) => {
                    check_shape(&self.name, &self.shape, &table)
                        .map_err(|reason| Failure::new(Reach::Setup, reason))?;
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
        match self.shape.expires.filter(|_| self.created.load(Ordering::Relaxed)) {
            Some(attribute) => self.let_items_expire(attribute).await,
            None => Ok(()),
        }
    }

    /// Whether there is a table of this name.
    pub(crate) async fn exists(&self) -> Result<bool, Failure> {
        Ok(self.describe().await?.is_some())
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
        settled(self.call(NAME, self.deadline(), send).await)
    }

    async fn create(&self) -> Result<(), Failure> {
        const NAME: Operation = "CreateTable";
        let unbuilt = |error: BuildError| Failure::new(Reach::Setup, error.to_string());
        let mut creating =
            self.client.create_table().table_name(&self.name).billing_mode(BillingMode::PayPerRequest);
        for element in key_schema(self.shape.hash, self.shape.range) {
            creating = creating.key_schema(element.map_err(unbuilt)?);
        }
        let indexed = self.shape.index.map(|(_, by)| by);
        for name in [Some(self.shape.hash), self.shape.range, indexed].into_iter().flatten() {
            let attribute =
                AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            creating = creating.attribute_definitions(attribute.build().map_err(unbuilt)?);
        }
        if let Some((name, by)) = self.shape.index {
            let mut index = GlobalSecondaryIndex::builder()
                .index_name(name)
                .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build());
            for element in key_schema(by, Some(self.shape.hash)) {
                index = index.key_schema(element.map_err(unbuilt)?);
            }
            creating = creating.global_secondary_indexes(index.build().map_err(unbuilt)?);
        }
        let send = async || match creating.clone().send().await {
            Ok(_) => Ok(true),
            // Another worker was faster, or an attempt before this one.
            Err(error) => match error.as_service_error() {
                Some(CreateTableError::ResourceInUseException(_)) => Ok(false),
                _ => Err(error),
            },
        };
        let (created, unsure) = self.call(NAME, self.deadline(), send).await?;
        if created.unwrap_or_default() || unsure {
            self.created.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has the service delete items whose time, which the attribute has, is long over.
    async fn let_items_expire(&self, attribute: &str) -> Result<(), Failure> {
        const NAME: Operation = "UpdateTimeToLive";
        let specification =
            TimeToLiveSpecification::builder().attribute_name(attribute).enabled(true).build();
        let specification = specification.map_err(|error| Failure::new(Reach::Setup, error.to_string()))?;
        let updating = self
            .client
            .update_time_to_live()
            .table_name(&self.name)
            .time_to_live_specification(specification);
        let send = async || match updating.clone().send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                // It is switched on already.
                let is_on = error.message().is_some_and(|text| text.contains("already enabled"));
                if is_on { Ok(()) } else { Err(error) }
            }
        };
        settled(self.call(NAME, self.deadline(), send).await)
    }
}

fn key_schema(hash: &str, range: Option<&str>) -> Vec<Result<KeySchemaElement, BuildError>> {
    let keys = std::iter::once((hash, KeyType::Hash)).chain(range.map(|range| (range, KeyType::Range)));
    let element = |(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    keys.map(element).collect()
}

/// Whether the table's key is the wanted one. The error says what differs.
fn check_shape(name: &str, shape: &Shape, table: &TableDescription) -> Result<(), String> {
    let expected: Vec<String> = std::iter::once(format!("{} (HASH, S)", shape.hash))
        .chain(shape.range.map(|range| format!("{range} (RANGE, S)")))
        .collect();
    let shown = |key: &KeySchemaElement| {
        let types = table.attribute_definitions();
        let attribute = types.iter().find(|attribute| attribute.attribute_name() == key.attribute_name());
        let kind = attribute.map_or("?", |attribute| attribute.attribute_type().as_str());
        format!("{} ({}, {kind})", key.attribute_name(), key.key_type())
    };
    let found: Vec<String> = table.key_schema().iter().map(shown).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "the table {name} has the key {}, not {}: it is another program's; name another table",
        found.join(", "),
        expected.join(", ")
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
        let shape = Shape::keyed("application", Some("item"));
        let check = |keys: &[(&str, Key, Type)]| check_shape("t", &shape, &table(keys));
        let ours = [("application", Key::Hash, Type::S), ("item", Key::Range, Type::S)];
        assert_eq!(check(&ours), Ok(()));
        let of_kcl = [("leaseKey", Key::Hash, Type::S)];
        let refused = check(&of_kcl).unwrap_err();
        assert!(refused.contains("has the key leaseKey (HASH, S), not application"), "{refused}");
        let numbers = [("application", Key::Hash, Type::S), ("item", Key::Range, Type::N)];
        assert!(check(&numbers).unwrap_err().contains("item (RANGE, N)"));
        assert!(check(&ours[..1]).is_err());
        let kcl = Shape::keyed("leaseKey", None);
        assert_eq!(check_shape("t", &kcl, &table(&of_kcl)), Ok(()));
        let refused = check_shape("t", &kcl, &table(&ours)).unwrap_err();
        assert!(refused.contains("item (RANGE, S), not leaseKey (HASH, S)"), "{refused}");
    }
}
