//! Reading one shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ChildShard, Record as SdkRecord, ShardIteratorType};
use bytes::Bytes;
use serde_json::json;
use shardmill_engine::{
    AnswerEncoding, Data, KinesisAnswer, Page, Position, Record, Seq, Shard, ShardId, kinesis_answer,
};

use super::client::{ANSWER, no_records};
use super::encoding::{CBOR, IN_CBOR, JSON, not_understood, to_cbor};
use super::{Inner, listing};
use crate::source::aws::{Call, Parts, Replay, answered, body_of, millis, number_in, root};
use crate::source::limiter::{Reading, ShardPace};
use crate::source::{ShardReader, SourceError, SourceErrorKind};

/// The most that GetRecords takes for `Limit`.
const MAX_LIMIT: i32 = 10_000;

type GetRecordsFailure = SdkError<GetRecordsError>;

pub(super) struct KinesisReader {
    source: Arc<Inner>,
    shard: ShardId,
    pace: ShardPace,
    /// After the last record that was read, or where reading began.
    at: Position,
    next: Next,
    /// Records that cannot be decoded are left out.
    skips: bool,
    encoding: AnswerEncoding,
    /// The last call failed: the SDK makes the next one.
    has_failed: AtomicBool,
}

/// An answer of the SDK, or what was read in place of it.
struct Asked {
    answer: Result<GetRecordsOutput, GetRecordsFailure>,
    in_place: Option<KinesisAnswer>,
    reading: Reading,
}

/// What the next page needs.
pub(super) enum Next {
    /// An iterator for this position first.
    Place(Position),
    Iterator(String),
    /// An answer named neither a next iterator nor children: a listing tells whether the shard has ended.
    Verify,
    Nothing,
}

impl KinesisReader {
    pub(super) fn new(source: &Arc<Inner>, shard: &ShardId, at: &Position) -> Self {
        Self {
            source: Arc::clone(source),
            shard: shard.clone(),
            pace: source.limiter.shard(&source.stream.arn, shard),
            at: at.clone(),
            skips: false,
            encoding: AnswerEncoding::default(),
            has_failed: AtomicBool::new(false),
            next: match at {
                Position::ShardEnd => Next::Nothing,
                place => Next::Place(place.clone()),
            },
        }
    }

    fn call(&self, api: &'static str) -> Call<'_> {
        let at = (api == "GetRecords").then_some(&self.at);
        Call { at, ..self.source.call(api, Some(&self.shard)) }
    }

    /// An iterator for the shard's oldest record.
    pub(super) async fn iterator_at_start(&self) -> Result<String, SourceError> {
        self.iterator(&Position::TrimHorizon).await
    }

    async fn iterator(&self, at: &Position) -> Result<String, SourceError> {
        let call = self.call("GetShardIterator");
        let stream = &self.source.stream;
        let request = self
            .source
            .client
            .get_shard_iterator()
            .stream_name(&stream.stream)
            .stream_arn(stream.arn.as_str());
        let request = request.shard_id(self.shard.as_str());
        let request = match at {
            Position::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            // A closed shard has no records after its newest one, and its end is found that way too.
            Position::Latest | Position::ShardEnd => request.shard_iterator_type(ShardIteratorType::Latest),
            Position::AtTimestamp(ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(*ms)),
            Position::After(Seq { number, sub: 0 }) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(number.as_str()),
            // Inside a KPL aggregate the rest of the aggregate is still to come: `intake` skips what was read of it.
            Position::At(Seq { number, .. }) | Position::After(Seq { number, .. }) => request
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(number.as_str()),
        };
        // Opening many shards at once must not need a connection for each of them.
        let _permit = self.pace.permit().await;
        let answer = Box::pin(request.send()).await.map_err(|error| call.failed(error))?;
        answer
            .shard_iterator
            .filter(|iterator| !iterator.is_empty())
            .ok_or_else(|| call.unusable("it brought no iterator"))
    }

    /// The end of the shard, unless a listing shows that it continues.
    async fn verify_end(&mut self) -> Result<Page, SourceError> {
        let permit = self.pace.permit().await;
        let ended = Box::pin(listing::children_if_ended(&self.source, &self.shard)).await?;
        drop(permit);
        let Some(children) = ended else {
            let text = "it names no next iterator, but the shard has not ended";
            let error = self.call("GetRecords").unusable(text);
            // Opened again at the last position, it continues.
            return Err(SourceError { kind: SourceErrorKind::IteratorExpired, ..error });
        };
        self.next = Next::Nothing;
        Ok(Page::last(children))
    }

    /// One read; the reader's place moves only once the page is complete.
    async fn read(&self, iterator: &str, limit: i32) -> Result<(Page, Next), SourceError> {
        let call = self.call("GetRecords");
        let Asked { answer, in_place, reading } = self.ask(iterator, limit).await?;
        if let (Ok(_), Some(answer)) = (&answer, in_place) {
            reading.finish(answer.bytes);
            return Ok((answer.page, Next::Iterator(answer.next_iterator)));
        }
        let (answer, skipped) = match answer {
            Ok(answer) => (answer, Vec::new()),
            Err(error) => match Box::pin(self.salvage(&error)).await {
                Some(salvaged) => salvaged?,
                None => return Err(call.failed(error)),
            },
        };
        let converted = convert(answer, call)?;
        reading.finish(converted.bytes);
        let mut page = converted.page;
        page.skipped = skipped;
        Ok((page, converted.next))
    }

    /// Asks in the encoding that is wanted; where the service may not understand it, in JSON, once. An error if that is not
    /// wanted.
    async fn ask(&self, iterator: &str, limit: i32) -> Result<Asked, SourceError> {
        let spoken = &self.source.spoken;
        if !spoken.asks_in_cbor(self.encoding) {
            return Ok(self.get_records(iterator, limit, false).await);
        }
        let asked = self.get_records(iterator, limit, true).await;
        spoken.hear(&asked.answer);
        match asked.answer {
            Err(error) if spoken.may_be_refusal(&error) => {
                if self.encoding == AnswerEncoding::Cbor {
                    return Err(not_understood(self.call("GetRecords").failed(error)));
                }
            }
            answer => return Ok(Asked { answer, ..asked }),
        }
        drop(asked.reading);
        let asked = self.get_records(iterator, limit, false).await;
        // What fails in JSON as well was not about the encoding, and what does not arrive shows nothing.
        let is_understood = match &asked.answer {
            Ok(_) => true,
            Err(error) => error.raw_response().is_some() && !spoken.may_be_refusal(error),
        };
        if is_understood {
            spoken.fall_back(&self.source.stream);
        }
        Ok(asked)
    }

    async fn get_records(&self, iterator: &str, limit: i32, in_cbor: bool) -> Asked {
        let reading = self.pace.start().await;
        let (answer, in_place) = match Box::pin(self.repeated(iterator, limit, in_cbor)).await {
            Some(answered) => answered,
            None => {
                let request = self.source.client.get_records().shard_iterator(iterator).limit(limit);
                let request = request.stream_arn(self.source.stream.arn.as_str());
                let call = answered(&ANSWER, request.send());
                if in_cbor { IN_CBOR.scope((), call).await } else { call.await }
            }
        };
        self.has_failed.store(answer.is_err(), Ordering::Relaxed);
        Asked { answer, in_place, reading }
    }

    /// The call without the SDK's part in it, once that has made one.
    async fn repeated(
        &self,
        iterator: &str,
        limit: i32,
        in_cbor: bool,
    ) -> Option<(Result<GetRecordsOutput, GetRecordsFailure>, Option<KinesisAnswer>)> {
        if self.has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let stream = self.source.stream.arn.as_str();
        let body = json!({"ShardIterator": iterator, "Limit": limit, "StreamARN": stream}).to_string();
        let (content_type, body) =
            if in_cbor { (CBOR, to_cbor(body.as_bytes())?) } else { (JSON, body.into_bytes()) };
        let answer = match self.source.repeat.call(content_type, body).await? {
            Ok(answer) => answer,
            Err(error) => return Some((Err(error), None)),
        };
        match answer.success().and_then(kinesis_answer) {
            Some(in_place) => Some((Ok(no_records()), Some(in_place))),
            None => Some((Box::pin(self.replay(answer.replay())).await, None)),
        }
    }

    /// What can be decoded of an answer, and the records that cannot; an error if they are not to be skipped, `None` if it
    /// is not about single records.
    async fn salvage(
        &self,
        error: &GetRecordsFailure,
    ) -> Option<Result<(GetRecordsOutput, Vec<Seq>), SourceError>> {
        let parts = Parts::of(&body_of(error)?)?;
        let (mut good, mut skipped) = (Vec::new(), Vec::new());
        for record in &parts.records {
            let Err(error) = self.replay(parts.with(vec![record.clone()])).await else {
                good.push(record.clone());
                continue;
            };
            // Any other failure says nothing about the record: the page is read again.
            body_of(&error)?;
            let number = number_in(&record["SequenceNumber"]);
            match number {
                Some(number) if self.skips => skipped.push(Seq::plain(number)),
                _ => {
                    let what =
                        format!("record {}: {}", number.unwrap_or("without a sequence number"), root(&error));
                    return Some(Err(self.call("GetRecords").undecodable(&what)));
                }
            }
        }
        let answer = self.replay(parts.with(good)).await.ok()?;
        Some(Ok((answer, skipped)))
    }

    /// The SDK decodes an answer as if the service had just sent it.
    async fn replay(&self, answer: Replay) -> Result<GetRecordsOutput, GetRecordsFailure> {
        let replayed = aws_sdk_kinesis::config::Builder::new()
            .http_client(answer.client())
            .credentials_provider(Replay::credentials())
            .retry_config(Replay::retries());
        let request = self.source.client.get_records().shard_iterator("replayed");
        request.customize().config_override(replayed).send().await
    }
}

#[async_trait]
impl ShardReader for KinesisReader {
    async fn next_page(&mut self, limit: usize) -> Result<Page, SourceError> {
        if let Next::Place(at) = &self.next {
            self.next = Next::Iterator(self.iterator(at).await?);
        }
        let iterator = match &self.next {
            Next::Iterator(iterator) => iterator,
            Next::Verify => return self.verify_end().await,
            Next::Place(_) | Next::Nothing => return Ok(Page::last(Vec::new())),
        };
        let limit = i32::try_from(limit).unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT);
        let (page, next) = self.read(iterator, limit).await?;
        self.next = next;
        if let Some(last) = page.records.last().map(|record| &record.seq).max(page.skipped.last()) {
            self.at = Position::After(last.clone());
        }
        // What was read comes first.
        if matches!(self.next, Next::Verify) && page.records.is_empty() && page.skipped.is_empty() {
            return self.verify_end().await;
        }
        Ok(page)
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

    fn ask_for(&mut self, encoding: AnswerEncoding) {
        self.encoding = encoding;
    }
}

pub(super) struct Converted {
    pub(super) page: Page,
    pub(super) next: Next,
    /// Bytes that count against the shard's limit of 2 MiB a second.
    pub(super) bytes: usize,
}

pub(super) fn convert(answer: GetRecordsOutput, call: Call<'_>) -> Result<Converted, SourceError> {
    let children = answer.child_shards.unwrap_or_default();
    let next = answer.next_shard_iterator.filter(|iterator| !iterator.is_empty());
    // A service that ends a shard says how far behind the answer is. An empty object, as a proxy might answer, does
    // not, and must not end the shard: everything still in it would be skipped (I3).
    if next.is_none() && children.is_empty() && answer.millis_behind_latest.is_none() {
        return Err(call.unusable("neither a next iterator nor the end of the shard"));
    }
    let mut bytes = 0;
    let mut records = Vec::with_capacity(answer.records.len());
    for record in answer.records {
        let record =
            convert_record(record).ok_or_else(|| call.unusable("a record without a sequence number"))?;
        bytes += record.data().map_or(0, Data::len);
        records.push(record);
    }
    let next = match next {
        Some(iterator) => Next::Iterator(iterator),
        None if children.is_empty() => Next::Verify,
        None => Next::Nothing,
    };
    let mut page = Page::new(records);
    page.end_of_shard = matches!(next, Next::Nothing);
    page.children = children.into_iter().map(convert_child).collect();
    page.millis_behind = answer.millis_behind_latest.and_then(|ms| u64::try_from(ms).ok());
    Ok(Converted { page, next, bytes })
}

/// Moves everything that the SDK allocated; allocates nothing.
fn convert_record(record: SdkRecord) -> Option<Record> {
    if record.sequence_number.is_empty() {
        return None;
    }
    let arrival = record.approximate_arrival_timestamp.as_ref().map(millis);
    let data = Data::Raw(Bytes::from(record.data.into_inner()));
    Some(Record::new(Seq::plain(record.sequence_number), record.partition_key, arrival, data))
}

fn convert_child(child: ChildShard) -> Shard {
    let parents = child.parent_shards.into_iter().map(ShardId::new).collect();
    let mut shard = Shard::new(ShardId::new(child.shard_id), parents);
    shard.hash_range = child.hash_key_range.as_ref().and_then(listing::hash_range);
    shard
}
