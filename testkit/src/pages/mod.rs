//! A server of prepared `GetRecords` pages, for benchmarks. It is meant to run in a process of its own (the binary
//! `serve_pages`), so that the client's CPU time can be separated from the server's.
//!
//! A page is rendered once per connection, in the encoding of its calls, JSON or CBOR; for each call only its sequence numbers, its next iterator and its date are
//! written over the old ones, and the whole answer leaves in one write. Every record has its own sequence number,
//! strictly increasing in its shard; iterators that name no sequence number, `LATEST` included, start at the first
//! record. All other operations are answered by a [`FakeKinesis`] underneath, each in the encoding of its call. One
//! blocking thread serves each connection: tens of them, not thousands. Over TLS the pages are copied into HTTP/2.

mod tls;

use crate::FakeKinesis;
use crate::cbor::Item;
use crate::service::{CBOR, Tls, TlsOptions};
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Name of the stream that exists from the start; `CreateStream` makes others. All serve the same pages.
    pub stream: String,
    /// Shards of that stream, 1 to 10,000.
    pub shards: u32,
    /// Records of a full page, 1 to 10,000. A lower `Limit` in the call is respected.
    pub records_per_page: usize,
    /// Bytes of data of a record; a page may come to 10 MiB.
    pub record_bytes: usize,
    /// How many full pages' records each shard has; then empty pages come. `None`: it never ends.
    pub pages: Option<u64>,
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// TLS with HTTP/2 or HTTP/1.1. The certificate that a client must trust is written to this file, in PEM.
    pub tls: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let stream = "bench".to_owned();
        Self {
            stream,
            shards: 1,
            records_per_page: 2_000,
            record_bytes: 1_024,
            pages: None,
            port: 0,
            tls: None,
        }
    }
}

/// The binary's options, for `--help`.
pub const USAGE: &str = "serve_pages [--stream NAME] [--shards N] [--records-per-page N] [--record-bytes N] \
                         [--pages N] [--port N] [--tls FILE]";

impl Options {
    /// Reads command-line arguments, without the program's name.
    ///
    /// # Errors
    /// A sentence about the argument that is unknown, lacks its value or is out of range.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} lacks a value; usage: {USAGE}"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name} {value} is not a number"));
            let small = |max| number().and_then(|n| in_range(&name, n, 1, max));
            match name.as_str() {
                "--stream" => options.stream.clone_from(&value),
                "--shards" => options.shards = u32::try_from(small(10_000)?).unwrap_or(1),
                "--records-per-page" => {
                    options.records_per_page = usize::try_from(small(10_000)?).unwrap_or(1);
                }
                "--record-bytes" => options.record_bytes = usize::try_from(small(10 << 20)?).unwrap_or(1),
                "--pages" => options.pages = Some(number()?),
                "--port" => {
                    let port = in_range(&name, number()?, 0, u16::MAX.into())?;
                    options.port = u16::try_from(port).unwrap_or(0);
                }
                "--tls" => options.tls = Some(value.into()),
                _ => return Err(format!("{name} is unknown; usage: {USAGE}")),
            }
        }
        let bytes = options.records_per_page.saturating_mul(options.record_bytes + KEY_BYTES);
        if bytes > 10 << 20 {
            return Err(format!("a page of {bytes} bytes is above the 10 MiB that GetRecords gives"));
        }
        Ok(options)
    }
}

fn in_range(name: &str, n: u64, low: u64, high: u64) -> Result<u64, String> {
    if (low..=high).contains(&n) {
        Ok(n)
    } else {
        Err(format!("{name} {n} must be between {low} and {high}"))
    }
}

/// A server about to run.
#[derive(Debug)]
pub struct PageServer {
    listener: TcpListener,
    service: Arc<Service>,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Service {
    options: Options,
    fake: FakeKinesis,
}

impl PageServer {
    /// Opens the port.
    ///
    /// # Errors
    /// The port is taken, the options' stream name or shard count is bad, or the certificate cannot be written.
    pub fn bind(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port))?;
        let fake = FakeKinesis::new();
        fake.create_stream(&options.stream, options.shards).map_err(io::Error::other)?;
        let tls = match &options.tls {
            None => None,
            Some(file) => {
                let (tls, certificate) = Tls::new(TlsOptions::default())?;
                std::fs::write(file, certificate)?;
                Some(tls)
            }
        };
        Ok(Self { listener, service: Arc::new(Service { options, fake }), tls })
    }

    /// `http://127.0.0.1:PORT`, or `https://127.0.0.1:PORT` with TLS.
    ///
    /// # Errors
    /// The operating system does not show it.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.listener.local_addr()?))
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// With TLS: the operating system refuses a thread.
    pub fn run(self) -> io::Result<()> {
        if let Some(tls) = self.tls {
            return tls::run(self.listener, &self.service, &tls);
        }
        for socket in self.listener.incoming().flatten() {
            let service = Arc::clone(&self.service);
            // A client that goes away ends its thread; that is all there is to do about it.
            std::thread::spawn(move || serve(&service, &socket));
        }
        Ok(())
    }
}

fn serve(service: &Service, socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket);
    let mut writer = socket;
    let mut page: Option<Page> = None;
    while let Some(request) = Request::read(&mut reader)? {
        writer.write_all(&service.answer(&request, &mut page))?;
    }
    Ok(())
}

impl Service {
    /// The whole answer, head and body. `page` is what was rendered for the connection before.
    fn answer<'p>(&self, request: &Request, page: &'p mut Option<Page>) -> Cow<'p, [u8]> {
        let whole = |status, body: &[u8]| Cow::Owned(response(status, body, request.is_cbor));
        let answer = match request.operation() {
            "GetRecords" => get_records(&self.options, request, page).map(Cow::Borrowed),
            "GetShardIterator" => {
                get_shard_iterator(&request.body).map(|answer| whole(200, answer.to_string().as_bytes()))
            }
            _ => {
                let answer = self.fake.handle(&request.target, &request.body, self.fake.now_ms());
                Ok(whole(answer.status, &answer.body))
            }
        };
        answer.unwrap_or_else(|message| {
            let body = json!({ "__type": "InvalidArgumentException", "message": message });
            whole(400, body.to_string().as_bytes())
        })
    }
}

/// As much of a request as matters here.
struct Request {
    target: String,
    /// Whether it came in CBOR, and its answer has to.
    is_cbor: bool,
    /// JSON, whichever it came in; nothing if it was malformed.
    body: Vec<u8>,
}

impl Request {
    /// `None`: the client has closed the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let (mut target, mut is_cbor, mut length) = (String::new(), false, 0);
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if line == "\r\n" {
                break;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("x-amz-target") {
                value.clone_into(&mut target);
            } else if name.eq_ignore_ascii_case("content-type") {
                is_cbor = value == CBOR;
            } else if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(io::Error::other)?;
            }
        }
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        Ok(Some(Self::new(target, is_cbor, body)))
    }

    fn new(target: String, is_cbor: bool, mut body: Vec<u8>) -> Self {
        if is_cbor {
            body = Item::from_cbor(&body).map(|item| item.to_json().into_bytes()).unwrap_or_default();
        }
        Self { target, is_cbor, body }
    }

    fn operation(&self) -> &str {
        self.target.rsplit('.').next().unwrap_or_default()
    }
}

/// An answer whose body is JSON, or nothing, in the encoding of its call.
fn response(status: u16, json: &[u8], is_cbor: bool) -> Vec<u8> {
    let cbor = serde_json::from_slice(json).ok().filter(|_| is_cbor);
    let cbor = cbor.map(|json| Item::from_json(&json).to_cbor());
    let body = cbor.as_deref().unwrap_or(json);
    let mut answer = head(status, body.len(), is_cbor);
    answer.extend_from_slice(body);
    answer
}

fn head(status: u16, length: usize, is_cbor: bool) -> Vec<u8> {
    let content_type = if is_cbor { CBOR } else { "application/x-amz-json-1.1" };
    let reason = if status == 200 { "OK" } else { "Bad Request" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ndate: {}\r\ncontent-type: {content_type}\r\n\
         x-amzn-requestid: 00000000-0000-4000-8000-000000000000\r\ncontent-length: {length}\r\n\r\n",
        date()
    );
    head.into_bytes()
}

/// The `Date` header's value, always 29 characters.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(0);
    aws_smithy_types::DateTime::from_secs(seconds).fmt(Format::HttpDate).unwrap_or_default()
}

/// A place in a shard: its number, and how many records come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: u64,
    record: u64,
}

/// 30 digits that put these numbers above all those that the fake underneath gives out.
const SEQUENCE_PREFIX: &str = "499000000000000000000000000000";
const ITERATOR_PREFIX: &str = "AAAAAAAAAAEprepared";
const KEY_BYTES: usize = "key-00000".len();

impl Place {
    /// 6 digits of shard and 20 of record: the end of sequence numbers and iterators.
    fn digits(self) -> String {
        format!("{:06}{:020}", self.shard, self.record)
    }

    fn read(text: &str, prefix: &str) -> Option<Self> {
        let digits = text.strip_prefix(prefix).filter(|d| d.len() == 26)?;
        Some(Self { shard: digits[..6].parse().ok()?, record: digits[6..].parse().ok()? })
    }
}

const MALFORMED: &str = "The body is neither JSON nor CBOR.";

fn get_shard_iterator(body: &[u8]) -> Result<Value, &'static str> {
    let input: Value = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
    let text = |name: &str| input[name].as_str().unwrap_or_default();
    let shard =
        text("ShardId").strip_prefix("shardId-").and_then(|n| n.parse().ok()).ok_or("Invalid ShardId.")?;
    let numbered = || {
        Place::read(text("StartingSequenceNumber"), SEQUENCE_PREFIX)
            .filter(|place| place.shard == shard)
            .ok_or("Invalid StartingSequenceNumber.")
    };
    let record = match text("ShardIteratorType") {
        "TRIM_HORIZON" | "LATEST" | "AT_TIMESTAMP" => 0,
        "AT_SEQUENCE_NUMBER" => numbered()?.record,
        "AFTER_SEQUENCE_NUMBER" => numbered()?.record.saturating_add(1),
        _ => return Err("Invalid ShardIteratorType."),
    };
    Ok(json!({ "ShardIterator": format!("{ITERATOR_PREFIX}{}", Place { shard, record }.digits()) }))
}

fn get_records<'p>(
    options: &Options,
    request: &Request,
    page: &'p mut Option<Page>,
) -> Result<&'p [u8], &'static str> {
    let input: Value = serde_json::from_slice(&request.body).map_err(|_| MALFORMED)?;
    let iterator = input["ShardIterator"].as_str().unwrap_or_default();
    let place = Place::read(iterator, ITERATOR_PREFIX).ok_or("Invalid ShardIterator.")?;
    let limit = input["Limit"].as_u64().and_then(|l| usize::try_from(l).ok()).unwrap_or(usize::MAX);
    let full = options.records_per_page as u64;
    let rest =
        options.pages.map_or(u64::MAX, |pages| pages.saturating_mul(full).saturating_sub(place.record));
    let count = usize::try_from(rest).unwrap_or(usize::MAX).min(limit).min(options.records_per_page);
    let rendered = match page.take() {
        Some(rendered) if rendered.numbers.len() == count && rendered.is_cbor == request.is_cbor => {
            page.insert(rendered)
        }
        _ => page.insert(Page::render(count, options.record_bytes, request.is_cbor)),
    };
    Ok(rendered.at(place))
}

/// A whole answer, head and body, and the places in it that change from call to call.
#[derive(Debug)]
struct Page {
    answer: Vec<u8>,
    is_cbor: bool,
    date: Range<usize>,
    /// Where each sequence number's changing digits begin.
    numbers: Vec<usize>,
    iterator: usize,
}

impl Page {
    fn render(count: usize, record_bytes: usize, is_cbor: bool) -> Self {
        let nowhere = Place { shard: 0, record: 0 }.digits();
        let number = format!("{SEQUENCE_PREFIX}{nowhere}");
        let arrival = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let arrival = i64::try_from(arrival).unwrap_or(0) * 1000 + 123;
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut record = |n: usize| {
            let mut data = vec![0; record_bytes];
            for byte in &mut data {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *byte = random.to_le_bytes()[5];
            }
            let members = [
                ("SequenceNumber", Item::Text(number.clone())),
                ("ApproximateArrivalTimestamp", Item::Time(arrival)),
                ("Data", Item::Data(data)),
                ("PartitionKey", Item::Text(format!("key-{n:05}"))),
            ];
            Item::Map(members.map(|(name, value)| (name.to_owned(), value)).into())
        };
        let records = (0..count).map(&mut record).collect();
        // A reader that paces itself by how far it is behind must continue at once until the first empty page.
        let behind = if count == 0 { 0 } else { 60_000 };
        let members = [
            ("Records", Item::Array(records)),
            ("MillisBehindLatest", Item::Integer(behind)),
            ("NextShardIterator", Item::Text(format!("{ITERATOR_PREFIX}{nowhere}"))),
        ];
        let page = Item::Map(members.map(|(name, value)| (name.to_owned(), value)).into());
        let body = if is_cbor { page.to_cbor() } else { page.to_json().into_bytes() };

        let mut answer = head(200, body.len(), is_cbor);
        let date_at = "HTTP/1.1 200 OK\r\ndate: ".len();
        let start = answer.len();
        answer.extend_from_slice(&body);
        let ends_of = |text: &str| {
            let found = memchr::memmem::find_iter(&answer[start..], text.as_bytes());
            found.map(|at| start + at + text.len() - nowhere.len()).collect::<Vec<_>>()
        };
        let (numbers, iterator) = (ends_of(&number), ends_of(&format!("{ITERATOR_PREFIX}{nowhere}")));
        assert_eq!((numbers.len(), iterator.len()), (count, 1), "no data look like a number of these");
        Self { is_cbor, date: date_at..date_at + 29, numbers, iterator: iterator[0], answer }
    }

    /// The page at a place.
    fn at(&mut self, mut place: Place) -> &[u8] {
        let mut digits = place.digits().into_bytes();
        for at in &self.numbers {
            self.answer[*at..*at + digits.len()].copy_from_slice(&digits);
            increment(&mut digits);
        }
        place.record = place.record.saturating_add(self.numbers.len() as u64);
        self.answer[self.iterator..self.iterator + digits.len()].copy_from_slice(place.digits().as_bytes());
        let date = date();
        if date.len() == self.date.len() {
            self.answer[self.date.clone()].copy_from_slice(date.as_bytes());
        }
        &self.answer
    }
}

/// Adds one to a decimal number in ASCII.
fn increment(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(ToOwned::to_owned))
    }

    #[test]
    fn options_are_read_and_bad_ones_named() {
        let options = parse(
            "--shards 4 --records-per-page 10 --record-bytes 5 --pages 3 --stream s --port 1 --tls ca.pem",
        )
        .unwrap();
        let expected = Options {
            stream: "s".into(),
            shards: 4,
            records_per_page: 10,
            record_bytes: 5,
            pages: Some(3),
            port: 1,
            tls: Some("ca.pem".into()),
        };
        assert_eq!(options, expected);
        assert_eq!(parse("").unwrap(), Options::default());
        for (line, word) in [
            ("--shards", "lacks a value"),
            ("--shards x", "not a number"),
            ("--shards 0", "between 1 and 10000"),
            ("--port 65536", "between 0 and 65535"),
            ("--size 1", "unknown"),
            ("--records-per-page 10000 --record-bytes 2000", "10 MiB"),
        ] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }

    #[test]
    fn the_digits_count_up_over_carries() {
        let mut digits = Place { shard: 3, record: 999 }.digits().into_bytes();
        increment(&mut digits);
        assert_eq!(digits, Place { shard: 3, record: 1_000 }.digits().into_bytes());
        assert_eq!(SEQUENCE_PREFIX.len() + digits.len(), 56);
    }
}
