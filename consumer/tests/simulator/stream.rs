//! One process's way to the stream, in front of its source.

use std::time::Duration;

use async_trait::async_trait;
use shardmill::engine::{AnswerEncoding, Page, Position, ShardId};
use shardmill::{
    ServiceClock, ShardListing, ShardReader, SourceContext, SourceError, SourceErrorKind, StreamSource,
};

use crate::weather::{Trouble, Weather};

/// How long a call hangs that is not answered: the SDK's own limit.
const LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Far {
    pub(crate) source: Box<dyn StreamSource>,
    pub(crate) weather: Weather,
}

struct FarReader {
    reader: Box<dyn ShardReader>,
    weather: Weather,
}

async fn reach<T>(
    weather: &Weather,
    api: &'static str,
    call: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    weather.runs().await;
    let fate = weather.fate(api);
    let error = |kind| Err(SourceError::new(kind, api, "simulated"));
    match fate.trouble {
        Some(Trouble::Throttle) => return error(SourceErrorKind::Throttled),
        Some(Trouble::LostAnswer) => return error(SourceErrorKind::Unavailable),
        Some(Trouble::Hang | Trouble::HangAfter) => {
            tokio::time::sleep(LIMIT).await;
            weather.runs().await;
            return error(SourceErrorKind::Unavailable);
        }
        Some(Trouble::Late(_) | Trouble::LateAnswer(_)) => tokio::time::sleep(fate.there + fate.back).await,
        None => {}
    }
    let result = call.await;
    weather.runs().await;
    result
}

#[async_trait]
impl StreamSource for Far {
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        self.source.attach(cx)
    }

    fn stream_arn(&self) -> Option<&str> {
        self.source.stream_arn()
    }

    async fn shards(&self) -> Result<ShardListing, SourceError> {
        reach(&self.weather, "ListShards", self.source.shards()).await
    }

    async fn summary(&self) -> Result<Option<shardmill::StreamSummary>, SourceError> {
        reach(&self.weather, "DescribeStreamSummary", self.source.summary()).await
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let reader = self.source.open(shard, at).await?;
        Ok(Box::new(FarReader { reader, weather: self.weather.clone() }))
    }

    fn clock(&self) -> Option<ServiceClock> {
        self.source.clock()
    }

    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        self.source.may_read(shard).await
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}

#[async_trait]
impl ShardReader for FarReader {
    async fn next_page(&mut self, limit: usize) -> Result<Page, SourceError> {
        reach(&self.weather, "GetRecords", self.reader.next_page(limit)).await
    }

    fn skip_undecodable(&mut self, skips: bool) {
        self.reader.skip_undecodable(skips);
    }

    fn ask_for(&mut self, encoding: AnswerEncoding) {
        self.reader.ask_for(encoding);
    }
}
