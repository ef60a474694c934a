//! `GetRecords` of DynamoDB Streams.

use std::ops::Range;

use bytes::Bytes;

use super::item::{Items, push_text};
use super::once;
use super::scan::{Scan, Text};
use super::seconds::seconds;
use crate::intake::Page;
use crate::json::push_seconds;
use crate::position::Seq;
use crate::record::{DynamoDbRecord, Record};
use crate::time::Wall;

/// An answer of DynamoDB Streams' `GetRecords` in the middle of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbAnswer {
    /// The records as the event shows them, all of them parts of one text.
    pub page: Page,
    /// Where the next answer begins.
    pub next_iterator: String,
}

/// Reads an answer in place: the items' text is copied into the event's form, not decoded. `None` if it has another form
/// than that of a page in the middle of a shard: the SDK tells what it is.
#[must_use]
pub fn dynamodb_answer(body: &Bytes) -> Option<DynamoDbAnswer> {
    let mut scan = Scan::new(body);
    let (mut places, mut next) = (None, None);
    let mut copy = Copy::default();
    scan.object(|scan, name| match name {
        // What is null, and what is there twice, does not occur.
        "Records" => once(&mut places, copy.records(scan)?),
        "NextShardIterator" => once(&mut next, scan.string()?.plain()?),
        _ => scan.skip(),
    })?;
    scan.end()?;
    let next_iterator = next.filter(|next| !next.is_empty())?.to_owned();
    let (length, text) = (copy.out.capacity(), Bytes::from(copy.out));
    let record = |place: Place| {
        let change = DynamoDbRecord { json: text.slice(place.json), key: place.key };
        Record::dynamodb(Seq::plain(place.number), place.arrival, change)
    };
    let mut page = Page::new(places.unwrap_or_default().into_iter().map(record).collect());
    page.answer = Some(length);
    Some(DynamoDbAnswer { page, next_iterator })
}

/// Where a record is in the copied text.
struct Place {
    number: String,
    arrival: Option<Wall>,
    json: Range<usize>,
    /// From the start of `json`.
    key: Range<usize>,
}

/// The copied text, and parts that may come in another order than they are written.
#[derive(Default)]
struct Copy<'a> {
    out: Vec<u8>,
    items: Items<'a>,
    keys: Vec<u8>,
    new_image: Vec<u8>,
    old_image: Vec<u8>,
}

/// A record without its change.
#[derive(Default)]
struct Envelope<'a> {
    event_id: Option<Text<'a>>,
    event_name: Option<Text<'a>>,
    event_version: Option<Text<'a>>,
    event_source: Option<Text<'a>>,
    region: Option<Text<'a>>,
    identity: Option<Identity<'a>>,
}

#[derive(Default)]
struct Identity<'a> {
    kind: Option<Text<'a>>,
    principal: Option<Text<'a>>,
}

/// A change; its items are in [`Copy`].
#[derive(Default)]
struct Change<'a> {
    at: Option<Wall>,
    number: Option<&'a str>,
    size: Option<i64>,
    view: Option<Text<'a>>,
    keys: Option<()>,
    new_image: Option<()>,
    old_image: Option<()>,
}

impl<'a> Copy<'a> {
    fn records(&mut self, scan: &mut Scan<'a>) -> Option<Vec<Place>> {
        // The event adds less than it leaves out.
        self.out.reserve(scan.left());
        let mut places = Vec::new();
        scan.array(|scan| {
            places.push(self.record(scan)?);
            Some(())
        })?;
        Some(places)
    }

    fn record(&mut self, scan: &mut Scan<'a>) -> Option<Place> {
        let (mut envelope, mut change) = (Envelope::default(), None);
        scan.object(|scan, name| match name {
            "dynamodb" => once(&mut change, self.change(scan)?),
            "eventID" => once(&mut envelope.event_id, scan.string()?),
            "eventName" => once(&mut envelope.event_name, scan.string()?),
            "eventVersion" => once(&mut envelope.event_version, scan.string()?),
            "eventSource" => once(&mut envelope.event_source, scan.string()?),
            "awsRegion" => once(&mut envelope.region, scan.string()?),
            "userIdentity" => once(&mut envelope.identity, identity(scan)?),
            _ => scan.skip(),
        })?;
        let change: Change<'_> = change?;
        let number = change.number.filter(|number| !number.is_empty())?.to_owned();
        let start = self.out.len();
        let key = self.write(scan, &envelope, &change, &number, start)?;
        Some(Place { number, arrival: change.at, json: start..self.out.len(), key })
    }

    fn change(&mut self, scan: &mut Scan<'a>) -> Option<Change<'a>> {
        let mut change = Change::default();
        scan.object(|scan, name| match name {
            "Keys" => once(&mut change.keys, copied(&mut self.items, scan, &mut self.keys)?),
            "NewImage" => once(&mut change.new_image, copied(&mut self.items, scan, &mut self.new_image)?),
            "OldImage" => once(&mut change.old_image, copied(&mut self.items, scan, &mut self.old_image)?),
            "ApproximateCreationDateTime" => once(&mut change.at, seconds(scan.number()?)?),
            "SequenceNumber" => once(&mut change.number, scan.string()?.plain()?),
            "SizeBytes" => once(&mut change.size, scan.number()?.parse().ok()?),
            "StreamViewType" => once(&mut change.view, scan.string()?),
            _ => scan.skip(),
        })?;
        Some(change)
    }

    /// Writes a record as `DynamoDbEncoder` does; where the item's key is, from `start`.
    fn write(
        &mut self,
        scan: &Scan<'a>,
        envelope: &Envelope<'a>,
        change: &Change<'a>,
        number: &str,
        start: usize,
    ) -> Option<Range<usize>> {
        let out = &mut self.out;
        out.push(b'{');
        member(scan, out, b"\"eventID\":", envelope.event_id.as_ref())?;
        member(scan, out, b"\"eventName\":", envelope.event_name.as_ref())?;
        member(scan, out, b"\"eventVersion\":", envelope.event_version.as_ref())?;
        member(scan, out, b"\"eventSource\":", envelope.event_source.as_ref())?;
        member(scan, out, b"\"awsRegion\":", envelope.region.as_ref())?;
        name(out, b"\"dynamodb\":");
        out.push(b'{');
        if let Some(at) = change.at {
            name(out, b"\"ApproximateCreationDateTime\":");
            push_seconds(out, at);
        }
        let mut key = 0..0;
        if change.keys.is_some() {
            name(out, b"\"Keys\":");
            key = out.len() - start..out.len() - start + self.keys.len();
            out.extend_from_slice(&self.keys);
        }
        for (is_there, title, image) in [
            (change.new_image.is_some(), &b"\"NewImage\":"[..], &self.new_image),
            (change.old_image.is_some(), b"\"OldImage\":", &self.old_image),
        ] {
            if is_there {
                name(out, title);
                out.extend_from_slice(image);
            }
        }
        name(out, b"\"SequenceNumber\":\"");
        crate::json::push_escaped(out, number);
        out.push(b'"');
        if let Some(size) = change.size {
            name(out, b"\"SizeBytes\":");
            out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
        }
        member(scan, out, b"\"StreamViewType\":", change.view.as_ref())?;
        out.push(b'}');
        if let Some(identity) = &envelope.identity {
            name(out, b"\"userIdentity\":");
            out.push(b'{');
            member(scan, out, b"\"type\":", identity.kind.as_ref())?;
            member(scan, out, b"\"principalId\":", identity.principal.as_ref())?;
            out.push(b'}');
        }
        Some(key)
    }
}

fn copied<'a>(items: &mut Items<'a>, scan: &mut Scan<'a>, into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    items.copy(scan, into)
}

fn identity<'a>(scan: &mut Scan<'a>) -> Option<Identity<'a>> {
    let mut identity = Identity::default();
    scan.object(|scan, name| match name {
        "Type" => once(&mut identity.kind, scan.string()?),
        "PrincipalId" => once(&mut identity.principal, scan.string()?),
        _ => scan.skip(),
    })?;
    Some(identity)
}

/// A member's name with its colon; its value is to follow.
fn name(out: &mut Vec<u8>, name: &[u8]) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(name);
}

fn member<'a>(scan: &Scan<'a>, out: &mut Vec<u8>, title: &[u8], text: Option<&Text<'a>>) -> Option<()> {
    let Some(text) = text else { return Some(()) };
    name(out, title);
    push_text(scan, text, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventContext, encode};
    use crate::record::Batch;

    fn read(text: &str) -> Option<DynamoDbAnswer> {
        dynamodb_answer(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn event(text: &str) -> String {
        let answer = read(text).unwrap();
        let context = EventContext {
            event_source_arn: "arn".into(),
            region: "eu-west-1".into(),
            invoke_identity_arn: "role".into(),
            shard: "shardId-0".into(),
        };
        let batch = Batch::new(answer.page.records).unwrap();
        String::from_utf8(encode(&batch, &context, None).to_vec()).unwrap()
    }

    #[test]
    fn items_are_copied_in_the_order_of_their_names_and_with_the_escapes_that_json_demands() {
        let text = r#" {"Records":[{"userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"},"eventID":"1",
            "dynamodb":{"SizeBytes":5,"OldImage":{"b":{"N":"1.0"}, "a" : {"M":{"z":{"L":[{"NULL":true},{"BS":["eA=="]}]},"y":{"SS":["x","\u00e9\/\"\n"]}}}},
            "Keys":{"id":{"S":"k"}},"SequenceNumber":"7","ApproximateCreationDateTime":1.79E9}}],"NextShardIterator":"n"}"#;
        let expected = concat!(
            r#"{"Records":[{"eventID":"1","dynamodb":{"ApproximateCreationDateTime":1790000000.0,"Keys":{"id":{"S":"k"}},"#,
            r#""OldImage":{"a":{"M":{"y":{"SS":["x","é/\"\n"]},"z":{"L":[{"NULL":true},{"BS":["eA=="]}]}}},"b":{"N":"1.0"}},"#,
            r#""SequenceNumber":"7","SizeBytes":5},"userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"eventSourceARN":"arn"}]}"#
        );
        assert_eq!(event(text), expected);
        let answer = read(text).unwrap();
        assert_eq!(answer.page.records[0].change().unwrap().key(), br#"{"id":{"S":"k"}}"#);
    }

    #[test]
    fn an_answer_of_another_form_is_left_to_the_sdk() {
        let usual = r#"{"Records":[{"dynamodb":{"SequenceNumber":"7","Keys":{"a":{"S":"k"}}}}],"NextShardIterator":"n"}"#;
        assert!(read(usual).is_some());
        for (part, other) in [
            (r#""n""#, r#""""#),
            (r#"{"S":"k"}"#, "{}"),
            (r#"{"S":"k"}"#, r#"{"S":"k","N":"1"}"#),
            (r#"{"S":"k"}"#, r#"{"X":"k"}"#),
            (r#"{"S":"k"}"#, r#"{"B":"k"}"#),
            (r#"{"S":"k"}"#, r#"{"S":null}"#),
            (r#"{"S":"k"}"#, "null"),
            (r#"{"S":"k"}"#, r#"{"S":"k"},"a":{"S":"k"}"#),
            (r#""7""#, r#""""#),
            ("\"a\"", r#""\u0061""#),
        ] {
            let text = usual.replacen(part, other, 1);
            assert_ne!(text, usual);
            assert_eq!(read(&text), None, "{text}");
        }
        let deep = format!("{}{{\"N\":\"1\"}}{}", r#"{"L":["#.repeat(40), "]}".repeat(40));
        assert_eq!(read(&usual.replacen(r#"{"S":"k"}"#, &deep, 1)), None, "nesting is bounded");
        for end in 0..usual.len() {
            assert_eq!(read(&usual[..end]), None, "cut after {end}");
        }
    }
}
