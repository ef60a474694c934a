//! Records that are put while other things happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tokio::task::JoinHandle;

use crate::{Put, Stream};

/// Partition keys of a [`Writer`].
pub const KEYS: usize = 40;

/// Puts a record of every key again and again, one after the other for each key.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Put>>,
}

impl Writer {
    /// Starts to write.
    #[must_use]
    pub fn start(stream: &Stream) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let task = write(stream.client().clone(), stream.name().to_owned(), Arc::clone(&stop));
        Self { stop, task: tokio::spawn(task) }
    }

    /// Stops, and notes in the stream what the service accepted.
    pub async fn stop(self, stream: &mut Stream) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap().into_iter().for_each(|put| stream.note(put));
    }
}

async fn write(client: Client, stream: String, stop: Arc<AtomicBool>) -> Vec<Put> {
    let mut accepted = Vec::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let entry = |n: usize| {
            let entry = PutRecordsRequestEntry::builder().partition_key(format!("key-{n}"));
            entry.data(Blob::new(format!("{n}: {round}"))).build().unwrap()
        };
        let put = client.put_records().stream_name(&stream);
        let answer = put.set_records(Some((0..KEYS).map(entry).collect())).send().await.unwrap();
        for (n, record) in answer.records().iter().enumerate() {
            // What the service refuses in the middle of a reshard was not put.
            if let (Some(shard), Some(sequence)) = (record.shard_id(), record.sequence_number()) {
                let (shard, sequence) = (shard.to_owned(), sequence.to_owned());
                accepted.push(Put { shard, sequence, key: format!("key-{n}") });
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    accepted
}
