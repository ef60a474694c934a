//! Reading one shard.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsOutput;
use aws_sdk_dynamodbstreams::operation::get_shard_iterator::GetShardIteratorError;
use aws_sdk_dynamodbstreams::primitives::DateTime;
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use serde_json::json;
use shardmill_engine::{
    DynamoDbAnswer, DynamoDbEncoder, Page, Position, Record, Seq, Shard, ShardId, dynamodb_answer,
};

use super::attributes::Unusable;
use super::client::{ANSWER, no_records};
use super::salvage::{Failure, replay, salvage};
use super::{Inner, attributes, listing};
use crate::source::aws::{Call, answered};
use crate::source::limiter::ShardPace;
use crate::source::{ShardReader, SourceError, SourceErrorKind};

/// The most that GetRecords takes for `Limit`.
const MAX_LIMIT: i32 = 1_000;

const JSON: &str = "application/x-amz-json-1.0";

/// The coarsest time of records in milliseconds: DynamoDB Local cuts it to the minute, the service to the second.
const COARSEST: i64 = 60_000;

type GetShardIteratorFailure = SdkError<GetShardIteratorError>;

pub(super) struct DynamoDbReader {
    pub(super) source: Arc<Inner>,
    shard: ShardId,
    pace: ShardPace,
    /// After the last record that was read, or where reading began.
    at: Position,
    next: Next,
    encoder: DynamoDbEncoder,
    /// Records that cannot be decoded are left out.
    skips: bool,
    /// The last call failed: the SDK makes the next one.
    has_failed: bool,
    /// Records from before this time are not wanted; set where the service cannot start at a time itself.
    skip_before: Option<i64>,
    /// How old the last page's last record was when it was read, in milliseconds.
    behind: Option<u64>,
    /// A page that was read but not handed over, because the call was abandoned while it asked whether the shard ended.
    unread: Option<Page>,
}

/// What the next page needs.
enum Next {
    /// An iterator for the reader's position first.
    Place,
    Iterator(String),
    /// Whether the shard has really ended, which the last answer said.
    Verify,
    Nothing,
}

impl DynamoDbReader {
    pub(super) fn new(source: &Arc<Inner>, shard: &ShardId, at: &Position) -> Self {
        Self {
            source: Arc::clone(source),
            shard: shard.clone(),
            pace: source.limiter.shard(&source.stream.arn, shard),
            at: at.clone(),
            next: if *at == Position::ShardEnd { Next::Nothing } else { Next::Place },
            encoder: DynamoDbEncoder::default(),
            skips: false,
            has_failed: false,
            skip_before: None,
            behind: None,
            unread: None,
        }
    }

    pub(super) fn call(&self, api: &'static str) -> Call<'_> {
        let at = (api == "GetRecords").then_some(&self.at);
        Call { at, ..self.source.call(api, Some(&self.shard)) }
    }

    /// An iterator for the shard's oldest record.
    pub(super) async fn iterator_at_start(&self) -> Result<String, SourceError> {
        self.iterator_at(&Position::TrimHorizon).await
    }

    async fn iterator(&mut self) -> Result<String, SourceError> {
        self.skip_before = None;
        let asked = match self.iterator_at(&self.at).await {
            // DynamoDB Local does not know this kind of iterator and says so in its own way: only a second such answer
            // is not a passing fault.
            Err(error) if self.starts_at_time().is_some() && is_internal(&error) => {
                self.iterator_at(&self.at).await
            }
            asked => asked,
        };
        match (self.starts_at_time(), asked) {
            (Some(ms), Err(error)) if error.kind == SourceErrorKind::Rejected || is_internal(&error) => {
                tracing::debug!(shard = %self.shard, %error, "reading from TRIM_HORIZON and skipping what is older");
                self.skip_before = Some(ms.div_euclid(COARSEST) * COARSEST);
                self.iterator_at(&Position::TrimHorizon).await
            }
            (_, asked) => asked,
        }
    }

    const fn starts_at_time(&self) -> Option<i64> {
        match self.at {
            Position::AtTimestamp(ms) => Some(ms),
            _ => None,
        }
    }

    async fn iterator_at(&self, at: &Position) -> Result<String, SourceError> {
        let call = self.call("GetShardIterator");
        let request = self.source.client.get_shard_iterator().stream_arn(self.source.stream.arn.as_str());
        let request = request.shard_id(self.shard.as_str());
        let request = match at {
            Position::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            // A closed shard has no records after its newest one, and its end is found that way too.
            Position::Latest | Position::ShardEnd => request.shard_iterator_type(ShardIteratorType::Latest),
            // Records know their time to the second: one written in this second would be taken for older.
            Position::AtTimestamp(ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_secs(ms.div_euclid(1000))),
            Position::At(seq) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .sequence_number(seq.number.as_str()),
            Position::After(seq) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(seq.number.as_str()),
        };
        // Opening many shards at once must not need a connection for each of them.
        let _permit = self.pace.permit().await;
        let answer = Box::pin(request.send()).await.map_err(|error| call.failed(error))?;
        answer
            .shard_iterator
            .filter(|iterator| !iterator.is_empty())
            .ok_or_else(|| call.unusable("it brought no iterator"))
    }

    /// One read; the reader's place moves only once the page is complete.
    async fn read(&mut self, iterator: &str, limit: usize) -> Result<Page, SourceError> {
        let limit = i32::try_from(limit).unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT);
        let reading = self.pace.start().await;
        let client = &self.source.client;
        let (answer, in_place) = match Box::pin(self.repeated(iterator, limit)).await {
            Some(answered) => answered,
            None => {
                answered(&ANSWER, client.get_records().shard_iterator(iterator).limit(limit).send()).await
            }
        };
        self.has_failed = answer.is_err();
        let (client, call) = (&self.source.client, self.call("GetRecords"));
        if let (Ok(_), Some(answer)) = (&answer, in_place) {
            reading.finish(0);
            self.next = Next::Iterator(answer.next_iterator);
            return Ok(self.arrived(answer.page, Vec::new()));
        }
        let (answer, mut skipped) = match answer {
            Ok(answer) => (answer, Vec::new()),
            Err(error) => {
                if let Some(salvaged) = Box::pin(salvage(client, &call, self.skips, &error)).await {
                    salvaged?
                } else {
                    let error = call.failed(error);
                    if error.kind == SourceErrorKind::Trimmed {
                        // The same iterator never reads again; a new one from the horizon does.
                        self.next = Next::Place;
                    }
                    return Err(error);
                }
            }
        };
        // The limit is on calls; bytes are bounded by the service's own 1 MB a page.
        reading.finish(0);
        let next = answer.next_shard_iterator.clone().filter(|iterator| !iterator.is_empty());
        // An empty object, as a proxy might answer, must not end the shard (I3).
        if next.is_none() && answer.records.is_none() {
            let text = "neither records nor a next iterator";
            return Err(self.call("GetRecords").unusable(text));
        }
        let records = self.convert(answer, &mut skipped)?;
        skipped.sort_unstable();
        self.next = next.map_or(Next::Verify, Next::Iterator);
        Ok(self.arrived(Page::new(records), skipped))
    }

    /// The call without the SDK's part in it, once that has made one.
    async fn repeated(
        &self,
        iterator: &str,
        limit: i32,
    ) -> Option<(Result<GetRecordsOutput, Failure>, Option<DynamoDbAnswer>)> {
        if self.has_failed {
            return None;
        }
        let body = json!({"ShardIterator": iterator, "Limit": limit}).to_string();
        let answer = match self.source.repeat.call(JSON, body.into_bytes()).await? {
            Ok(answer) => answer,
            Err(error) => return Some((Err(error), None)),
        };
        match answer.success().and_then(dynamodb_answer) {
            Some(in_place) => Some((Ok(no_records()), Some(in_place))),
            None => Some((Box::pin(replay(&self.source.client, answer.replay())).await, None)),
        }
    }

    /// The page, and the reader after it.
    fn arrived(&mut self, mut page: Page, skipped: Vec<Seq>) -> Page {
        if let Some(last) = page.records.last().map(|record| &record.seq).max(skipped.last()) {
            self.at = Position::After(last.clone());
        }
        page.millis_behind = self.millis_behind(&page.records);
        page.continuation = self.skip(&mut page.records);
        page.skipped = skipped;
        page
    }

    fn convert(
        &mut self,
        answer: GetRecordsOutput,
        skipped: &mut Vec<Seq>,
    ) -> Result<Vec<Record>, SourceError> {
        let records = answer.records.unwrap_or_default();
        let mut converted = Vec::with_capacity(records.len());
        for record in records {
            match attributes::convert(&mut self.encoder, &record) {
                Ok(record) => converted.push(record),
                Err(Unusable::Item(number, _)) if self.skips => skipped.push(Seq::plain(number)),
                Err(error) => return Err(self.call("GetRecords").undecodable(&error.to_string())),
            }
        }
        Ok(converted)
    }

    fn millis_behind(&mut self, records: &[Record]) -> Option<u64> {
        let now = self.source.clock.now().wall.as_millis();
        if let Some(arrival) = records.last().and_then(|record| record.arrival) {
            self.behind = u64::try_from(now.saturating_sub(arrival.as_millis())).ok();
        }
        match records.is_empty() {
            false => self.behind,
            // Between the records of a closed shard there are many empty pages, and no tip to wait at.
            true if self.source.is_closed(&self.shard) => Some(self.behind.unwrap_or_default().max(1)),
            true => None,
        }
    }

    /// Drops what is older than the start; returns the last dropped position.
    fn skip(&mut self, records: &mut Vec<Record>) -> Option<Seq> {
        let start = self.skip_before?;
        let is_old = |record: &Record| record.arrival.is_some_and(|arrival| arrival.as_millis() < start);
        let old = records.iter().position(|record| !is_old(record)).unwrap_or(records.len());
        if old < records.len() {
            self.skip_before = None;
        }
        records.drain(..old).next_back().map(|record| record.seq)
    }

    /// The children of the shard, whose last answer named no next iterator, unless it continues.
    async fn verify_end(&mut self) -> Result<Vec<Shard>, SourceError> {
        let turn = self.source.ends.acquire().await;
        let ended = Box::pin(listing::children_if_ended(&self.source, &self.shard)).await;
        drop(turn);
        if let Some(children) = ended? {
            self.next = Next::Nothing;
            return Ok(children);
        }
        self.next = Next::Place;
        let text = "it names no next iterator, but the shard has not ended";
        Err(SourceError { kind: SourceErrorKind::IteratorExpired, ..self.call("GetRecords").unusable(text) })
    }
}

/// Whether the service said that something inside it went wrong.
fn is_internal(error: &SourceError) -> bool {
    let source = error.source.as_ref().and_then(|error| error.downcast_ref::<GetShardIteratorFailure>());
    source.and_then(ProvideErrorMetadata::code).is_some_and(|code| code.starts_with("Internal"))
}

#[async_trait]
impl ShardReader for DynamoDbReader {
    async fn next_page(&mut self, limit: usize) -> Result<Page, SourceError> {
        if let Some(page) = self.unread.take() {
            return Ok(page);
        }
        if matches!(self.next, Next::Place) {
            self.next = Next::Iterator(self.iterator().await?);
        }
        match &self.next {
            Next::Nothing => return Ok(Page::last(Vec::new())),
            Next::Iterator(iterator) => {
                let iterator = iterator.clone();
                let page = self.read(&iterator, limit).await?;
                if !matches!(self.next, Next::Verify) {
                    return Ok(page);
                }
                let has_news =
                    !page.records.is_empty() || !page.skipped.is_empty() || page.continuation.is_some();
                self.unread = has_news.then_some(page);
            }
            Next::Place | Next::Verify => {}
        }
        let ended = self.verify_end().await;
        match (self.unread.take(), ended) {
            (page, Ok(children)) => {
                let mut page = page.unwrap_or_default();
                (page.end_of_shard, page.children) = (true, children);
                Ok(page)
            }
            // What was read comes first; the next call asks again.
            (Some(page), Err(_)) => Ok(page),
            (None, Err(error)) => Err(error),
        }
    }

    async fn take_turn(&mut self) {
        // What opens the shard first is another call, with a permit of its own.
        if matches!(self.next, Next::Iterator(_)) {
            self.pace.take_turn().await;
        }
    }

    fn give_turn_back(&mut self) {
        self.pace.give_turn_back();
    }

    fn skip_undecodable(&mut self, skips: bool) {
        self.skips = skips;
    }
}
