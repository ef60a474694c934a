// Command: [target/release/function]
// cargo add lambda_runtime aws_lambda_events serde_json && cargo add tokio --features full
use aws_lambda_events::event::kinesis::KinesisEvent;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

async fn handler(event: LambdaEvent<KinesisEvent>) -> Result<Value, Error> {
    for record in event.payload.records {
        let order: Value = serde_json::from_slice(&record.kinesis.data).unwrap_or_default();
        if order["amount"].as_i64().is_none_or(|amount| amount < 0) {
            println!("{:?}: not an amount", record.event_id);
            let failed = record.kinesis.sequence_number;
            return Ok(json!({"batchItemFailures": [{"itemIdentifier": failed}]}));
        }
    }
    Ok(json!({"batchItemFailures": []}))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(handler)).await
}
