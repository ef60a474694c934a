//! A Lambda function that does what its records say, with AWS's own `lambda_runtime`; see ../python/app.py.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let mut records = Vec::new();
    for record in event.payload["Records"].as_array().ok_or("no records")? {
        let kinesis = &record["kinesis"];
        let data = kinesis["data"].as_str().ok_or("no data")?;
        let data = base64_simd::STANDARD.decode_to_vec(data)?;
        let data: Value = serde_json::from_slice(&data)?;
        records.push((&kinesis["sequenceNumber"], data));
    }
    let numbers: Vec<_> = records.iter().map(|(_, data)| &data["n"]).collect();
    let mut note = json!({"requestId": event.context.request_id, "records": numbers}).to_string();
    note.push('\n');
    let file = std::env::var("INVOCATIONS")?;
    OpenOptions::new().create(true).append(true).open(file)?.write_all(note.as_bytes())?;
    for (sequence_number, data) in &records {
        match data["do"].as_str() {
            Some("report") => return Ok(json!({"batchItemFailures": [{"itemIdentifier": sequence_number}]})),
            Some("raise") => return Err(format!("record {} is bad", data["n"]).into()),
            Some("sleep") => tokio::time::sleep(Duration::from_secs(1000)).await,
            Some("exit") => std::process::exit(1),
            Some("large") => return Ok("x".repeat(6 * 1024 * 1024 + 1).into()),
            _ => {}
        }
    }
    Ok(Value::Null)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
