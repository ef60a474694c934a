//! Calls that repeat one of the SDK's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_kinesis::config::IdentityCache;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::*;

/// The SDK alone numbers its calls.
const OF_THE_SDK: [&str; 2] = ["amz-sdk-invocation-id", "amz-sdk-request"];

/// A service with pages without end.
fn endless() -> Service {
    Service::new([]).otherwise(json!({
        "ShardIterator": "i", "Records": [record("1")], "NextShardIterator": "i+/=\"é", "MillisBehindLatest": 0,
    }))
}

fn source_of(client: Client) -> KinesisSource {
    let source = KinesisSource::from_client(client, ARN).unwrap();
    source.attach(&SourceContext::new(ServiceClock::new(), ReadLimiter::without_pacing())).unwrap();
    source
}

async fn reader_of(source: &KinesisSource) -> Box<dyn ShardReader> {
    source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap()
}

/// The calls of `GetRecords`.
fn calls(service: &Service) -> Vec<Request> {
    service.requests().into_iter().filter(|request| request.api == "GetRecords").collect()
}

fn is_of_the_sdk(request: &Request) -> bool {
    request.headers.contains_key(OF_THE_SDK[0])
}

fn key_id(request: &Request) -> &str {
    request.headers["authorization"].split(['=', '/']).nth(1).unwrap()
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The signature that a request must have (IAM User Guide, "Create a signed AWS API request"), and the headers that it covers.
fn signature(request: &Request, secret: &str) -> (String, BTreeSet<String>) {
    let authorization = &request.headers["authorization"];
    let part = |name: &str| authorization.split_once(name).unwrap().1.split(", ").next().unwrap();
    let signed = part("SignedHeaders=");
    let mut canonical = "POST\n/\n\n".to_owned();
    for name in signed.split(';') {
        let value = match request.headers.get(name) {
            None if name == "host" => request.uri.trim_start_matches("https://").trim_end_matches('/'),
            value => value.expect(name),
        };
        writeln!(canonical, "{name}:{}", value.trim()).unwrap();
    }
    write!(canonical, "\n{signed}\n{}", hex(&Sha256::digest(&request.bytes))).unwrap();
    let scope = part("Credential=").split_once('/').unwrap().1;
    let date = &request.headers["x-amz-date"];
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part));
    assert_eq!(part("Signature="), hex(&hmac(&key, &text)), "{canonical}");
    (scope.to_owned(), signed.split(';').map(ToOwned::to_owned).collect())
}

#[tokio::test]
async fn a_call_is_the_sdks_own_but_for_its_body_and_is_signed_as_aws_asks() {
    for encoding in [AnswerEncoding::Json, AnswerEncoding::Cbor] {
        let service = endless();
        let credentials = Credentials::new("id", "secret", Some("token+/=".to_owned()), None, "test");
        let settings = service.settings().credentials_provider(credentials);
        let source = source_of(Client::from_conf(settings.build()));
        let mut reader = reader_of(&source).await;
        reader.ask_for(encoding);
        for _ in 0..3 {
            assert_eq!(numbers(&reader.next_page(7).await.unwrap()), ["1"]);
        }
        let calls = calls(&service);
        assert_eq!(calls.iter().map(is_of_the_sdk).collect::<Vec<_>>(), [true, false, false]);
        let (scope, covered) = signature(&calls[0], "secret");
        let covered: BTreeSet<String> =
            covered.into_iter().filter(|name| !OF_THE_SDK.contains(&name.as_str())).collect();
        for own in &calls[1..] {
            assert_eq!(own.body, json!({"ShardIterator": "i+/=\"é", "Limit": 7, "StreamARN": ARN}));
            assert_eq!(own.is_cbor, encoding == AnswerEncoding::Cbor);
            assert_eq!(signature(own, "secret"), (scope.clone(), covered.clone()));
            let mut of_the_sdk = calls[0].headers.clone();
            let mut headers = own.headers.clone();
            of_the_sdk.retain(|name, _| !OF_THE_SDK.contains(&name.as_str()));
            // Another time, another body.
            for name in ["authorization", "x-amz-date", "content-length"] {
                assert!(of_the_sdk.remove(name).is_some() && headers.remove(name).is_some(), "{name}");
            }
            assert_eq!((headers, &own.uri), (of_the_sdk, &calls[0].uri));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_error_the_sdk_makes_the_next_call_and_the_error_is_as_it_makes_it() {
    let failures: [(fn() -> Answer, Kind); 7] = [
        (|| Answer::Error(400, "ProvisionedThroughputExceededException"), Kind::Throttled),
        (|| Answer::Error(400, "ExpiredIteratorException"), Kind::IteratorExpired),
        (|| Answer::Error(500, "InternalFailure"), Kind::Unavailable),
        (|| Answer::Raw(502, "<html>a proxy</html>".to_owned()), Kind::Unavailable),
        (|| Answer::Raw(200, "{\"Records\": [{".to_owned()), Kind::Unavailable),
        (|| Answer::Refused, Kind::Unavailable),
        (|| Answer::Silence, Kind::Unavailable),
    ];
    for (encoding, (failure, kind)) in
        [AnswerEncoding::Json, AnswerEncoding::Cbor].into_iter().flat_map(|one| failures.map(|of| (one, of)))
    {
        let good = || page(&["1"], Some("i"));
        let answers = [iterator("i"), failure(), good(), failure(), good(), good()];
        let service = Service::new(answers);
        let source = source_of(service.client());
        let mut reader = reader_of(&source).await;
        reader.ask_for(encoding);
        let mut errors = Vec::new();
        for _ in 0..5 {
            errors.extend(reader.next_page(1).await.err());
        }
        let is_of_the_sdk: Vec<bool> = calls(&service).iter().map(is_of_the_sdk).collect();
        assert_eq!(is_of_the_sdk, [true, true, false, true, false]);
        let [of_the_sdk, own] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!((of_the_sdk.kind, own.kind), (kind, kind), "{own}");
        // The first one was before any record.
        let own = own.to_string().replace("after sequence number 1 ", "from TRIM_HORIZON ");
        assert_eq!(own, of_the_sdk.to_string());
    }
}

#[tokio::test]
async fn after_an_error_of_a_shard_the_sdk_makes_its_next_call_although_other_shards_succeed() {
    let good = || page(&["1"], Some("i"));
    let failure = || Answer::Error(500, "InternalFailure");
    let service = Service::new([
        iterator("a"),
        good(),
        iterator("b"),
        good(),
        failure(),
        good(),
        good(),
        good(),
        good(),
    ]);
    let source = source_of(service.client());
    let mut readers = [reader_of(&source).await, reader_of(&source).await];
    for reader in &mut readers {
        reader.ask_for(AnswerEncoding::Json);
        reader.next_page(1).await.unwrap();
    }
    readers[0].next_page(1).await.unwrap_err();
    for reader in [1, 1, 0, 0] {
        readers[reader].next_page(1).await.unwrap();
    }
    let is_of_the_sdk: Vec<bool> = calls(&service).iter().map(is_of_the_sdk).collect();
    // What was learned before the error is learned anew by the other shard's call.
    assert_eq!(is_of_the_sdk, [true, false, false, true, false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn once_a_minute_the_sdk_makes_a_call() {
    let service = endless();
    let source = source_of(service.client());
    let mut reader = reader_of(&source).await;
    for _ in 0..4 {
        reader.next_page(1).await.unwrap();
        tokio::time::advance(Duration::from_secs(25)).await;
    }
    let is_of_the_sdk: Vec<bool> = calls(&service).iter().map(is_of_the_sdk).collect();
    assert_eq!(is_of_the_sdk, [true, false, false, true]);
}

#[tokio::test]
async fn a_source_that_is_dropped_leaves_nothing_behind() {
    let service = endless();
    let source = source_of(service.client());
    let mut reader = reader_of(&source).await;
    for _ in 0..3 {
        reader.next_page(1).await.unwrap();
    }
    assert!(service.users() > 1, "the client has it");
    drop((reader, source));
    assert_eq!(service.users(), 1);
}

/// Looks at calls and does nothing.
#[derive(Debug)]
struct Looks;

impl Intercept for Looks {
    fn name(&self) -> &'static str {
        "Looks"
    }
}

#[tokio::test]
async fn a_client_whose_owner_looks_at_its_calls_makes_them_all() {
    let service = endless();
    let source = source_of(Client::from_conf(service.settings().interceptor(Looks).build()));
    let mut reader = reader_of(&source).await;
    for _ in 0..3 {
        reader.next_page(1).await.unwrap();
    }
    assert!(calls(&service).iter().all(is_of_the_sdk));
}

/// Gives other credentials each time, which expire at once, and after some none.
#[derive(Debug)]
struct Rotating {
    given: AtomicUsize,
    most: usize,
}

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let n = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        future::ProvideCredentials::ready(if n > self.most {
            Err(CredentialsError::not_loaded("there are no more"))
        } else {
            let expired = std::time::SystemTime::UNIX_EPOCH;
            Ok(Credentials::new(format!("id{n}"), "secret", None, Some(expired), "test"))
        })
    }
}

/// Gives credentials that expire at once, and the second time nothing, ever.
#[derive(Debug, Default)]
struct Hanging(AtomicUsize);

impl ProvideCredentials for Hanging {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let expired = Some(std::time::SystemTime::UNIX_EPOCH);
        future::ProvideCredentials::new(async move {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Ok(Credentials::new("id", "secret", None, expired, "test")),
                _ => std::future::pending().await,
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_do_not_come_hold_a_shard_no_longer_than_a_call_may_take() {
    let service = endless();
    let settings = service.settings().credentials_provider(Hanging::default());
    let settings = settings.identity_cache(IdentityCache::no_cache());
    let source = source_of(Client::from_conf(settings.build()));
    let mut reader = reader_of(&source).await;
    reader.next_page(1).await.unwrap();
    let begin = Instant::now();
    let error = reader.next_page(1).await.unwrap_err();
    assert_eq!((error.kind, begin.elapsed().as_secs()), (Kind::Unavailable, 30), "{error}");
}

#[tokio::test]
async fn credentials_that_expire_are_renewed_and_their_absence_is_the_sdks_error() {
    let service = endless();
    let rotating = Rotating { given: AtomicUsize::new(0), most: 4 };
    let source = source_of(Client::from_conf(service.settings().credentials_provider(rotating).build()));
    let mut reader = reader_of(&source).await;
    for _ in 0..3 {
        reader.next_page(1).await.unwrap();
    }
    let calls = calls(&service);
    // The first ones opened the shard.
    assert_eq!(calls.iter().map(key_id).collect::<Vec<_>>(), ["id2", "id3", "id4"]);
    assert_eq!(calls.iter().map(is_of_the_sdk).collect::<Vec<_>>(), [true, false, false]);
    let error = reader.next_page(1).await.unwrap_err();
    assert_eq!(error.kind, Kind::AccessDenied, "{error}");
    assert!(error.to_string().contains("there are no more"), "{error}");
}
