//! A consumer inside a web service: one process, one shutdown, the consumer's status behind the service's own health
//! endpoint.
//!
//! `cargo run -p shardmill-examples --example axum_service`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use shardmill::checkpoint::MemoryStore;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, ConsumerStatus, EventSourceMapping, InvokeContext,
    KinesisSource,
};
use shardmill_examples::{Failure, LocalStream, log_warnings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Clone)]
struct Service {
    processed: Arc<AtomicU64>,
    consumer: ConsumerStatus,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    log_warnings();
    let stream = LocalStream::create("clicks", 2).await?;
    let mapping = EventSourceMapping::builder(&stream.arn, "click-counter").build()?;
    let source = KinesisSource::new(&stream.aws, &stream.arn)?;
    let processed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&processed);
    let handler = move |batch: Batch, _: InvokeContext| {
        counter.fetch_add(batch.len() as u64, Ordering::Relaxed);
        async { BatchResponse::success() }
    };
    let consumer = Consumer::builder(mapping, source, handler).lease_store(MemoryStore::default()).build()?;
    let service = Service { processed, consumer: consumer.status() };

    let shutdown = CancellationToken::new();
    let run = tokio::spawn(consumer.run(shutdown.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/clicks", get(clicks)).route("/ready", get(ready)).with_state(service);
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let server = tokio::spawn(async move { server.await });

    for click in 0..20 {
        stream.put(&format!("visitor-{click}"), "click").await?;
    }
    let total = loop {
        let body = http_get(address, "/clicks").await?;
        if body.ends_with("20") {
            break body;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("GET /clicks: {}", total.lines().last().unwrap_or_default());
    assert!(http_get(address, "/ready").await?.starts_with("HTTP/1.1 200"));

    // One token stops both; the consumer writes its checkpoints and releases its leases before `run` returns.
    shutdown.cancel();
    run.await??;
    server.await??;
    Ok(())
}

async fn clicks(State(service): State<Service>) -> Json<u64> {
    Json(service.processed.load(Ordering::Relaxed))
}

async fn ready(State(service): State<Service>) -> StatusCode {
    let report = service.consumer.report();
    if report.source_answered && report.store_answered {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn http_get(address: std::net::SocketAddr, path: &str) -> Result<String, Failure> {
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
