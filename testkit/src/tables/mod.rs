//! [`FakeDynamoDb`]: tables of DynamoDB in memory, and what their calls would cost.

mod billing;
mod expression;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_config::SdkConfig;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::state::World;
use crate::service::{Asked, Reply, Response, Service, config, http_client};

/// DynamoDB tables in memory behind the real client, for tests of lease stores; it counts what the service would bill.
/// Cheap to clone; clones are the same service.
///
/// It knows `CreateTable`, `DescribeTable`, `UpdateTimeToLive`, `GetItem`, `Query`, `Scan`, `UpdateItem` and `DeleteItem`
/// with keys of type S, and of their expressions what Shardmill's stores use; anything else is a `ValidationException`.
/// Tables are active at once, reads are never old, no item expires, and nothing is throttled.
///
/// ```
/// use shardmill_testkit::FakeDynamoDb;
///
/// let fake = FakeDynamoDb::new();
/// // Give `fake.sdk_config()` to the store under test, let it work, then:
/// assert_eq!(fake.bill().write_units, 0.0);
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeDynamoDb {
    world: Arc<Mutex<World>>,
}

/// What calls have cost. Writes to an index are not in it.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Bill {
    /// Calls by operation, such as `UpdateItem`; refused ones and the pages of a query are calls.
    pub calls: BTreeMap<String, u64>,
    /// Units of 4 KB, or of 8 KB where a read may be old.
    pub read_units: f64,
    /// Units of 1 KB, those of refused writes among them.
    pub write_units: f64,
}

impl FakeDynamoDb {
    /// A service without tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An SDK configuration that answers from this fake, without sockets, with invented credentials and region
    /// `us-east-1`.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        config(Some(http_client(self.clone())), None)
    }

    /// No tables, and nothing on the bill.
    pub fn reset(&self) {
        *self.world.lock() = World::default();
    }

    /// What the calls have cost since the last [`clear_bill`](Self::clear_bill).
    #[must_use]
    pub fn bill(&self) -> Bill {
        self.world.lock().bill.clone()
    }

    /// Forgets what the calls have cost.
    pub fn clear_bill(&self) {
        self.world.lock().bill = Bill::default();
    }

    /// How many items a table has whose sort key (partition key, if it has no other) begins with `prefix`, and how many
    /// bytes the service would count for them.
    #[must_use]
    pub fn measure(&self, table: &str, prefix: &str) -> (usize, usize) {
        self.world.lock().measure(table, prefix)
    }
}

impl Service for FakeDynamoDb {
    async fn answer(&self, asked: &Asked<'_>) -> Option<Reply> {
        let operation = asked.target.rsplit('.').next().unwrap_or_default();
        let input: Value = serde_json::from_slice(asked.body).unwrap_or_default();
        let response = match self.world.lock().perform(operation, &input) {
            Ok(answer) => Response::new(200, answer.to_string().into(), None, now_ms(), 0),
            Err((error, item)) => {
                let mut body = json!({ "__type": error.code, "message": error.message });
                if let Some(item) = item {
                    body["Item"] = item.into();
                }
                Response::new(400, body.to_string().into(), Some(error.code.to_owned()), now_ms(), 0)
            }
        };
        Some(Reply::whole(response))
    }
}

fn now_ms() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or_default()
}
