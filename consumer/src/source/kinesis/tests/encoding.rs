//! GetRecords in CBOR, and in JSON where the service does not understand that.

use super::*;

/// The answer of a service to a call that it cannot place.
const UNKNOWN: (u16, &str) = (404, "<UnknownOperationException/>\n");

/// In which encoding each GetRecords came.
fn in_cbor(service: &Service) -> Vec<bool> {
    let reads = service.requests().into_iter().filter(|request| request.api == "GetRecords");
    reads.map(|request| request.is_cbor).collect()
}

fn script() -> [Answer; 4] {
    [iterator("i1"), page(&["1"], Some("i2")), page(&["2"], Some("i3")), page(&["3"], Some("i4"))]
}

/// The numbers of three pages.
async fn three(service: &Service, encoding: AnswerEncoding) -> Vec<String> {
    let mut reader = reader(service, Position::TrimHorizon).await;
    reader.ask_for(encoding);
    let mut read = Vec::new();
    for _ in 0..3 {
        let page = reader.next_page(10).await.unwrap();
        read.extend(numbers(&page).into_iter().map(str::to_owned));
    }
    read
}

#[tokio::test(start_paused = true)]
async fn only_get_records_is_asked_in_cbor_and_in_json_none() {
    for (encoding, expected) in
        [(AnswerEncoding::Auto, true), (AnswerEncoding::Cbor, true), (AnswerEncoding::Json, false)]
    {
        let service = Service::new(script());
        assert_eq!(three(&service, encoding).await, ["1", "2", "3"]);
        assert_eq!(in_cbor(&service), [expected; 3], "{encoding:?}");
        assert!(!service.requests()[0].is_cbor, "GetShardIterator");
        let asked = json!({"ShardIterator": "i1", "Limit": 10, "StreamARN": ARN});
        assert_eq!(service.bodies("GetRecords")[0], asked);
    }
}

#[tokio::test(start_paused = true)]
async fn after_one_refusal_all_readers_of_a_client_ask_in_json_for_good() {
    for (status, body) in [
        UNKNOWN,
        (415, ""),
        (400, r#"{"__type":"SerializationException"}"#),
        (400, r#"{"__type":"UnknownOperationException","message":"no"}"#),
        (400, r#"{"__type":"InvalidArgumentException","message":"the body is no JSON"}"#),
        (500, "<html>Internal Server Error</html>"),
    ] {
        let [opened, first_page, second_page, _] = script();
        let service = Service::new([opened, first_page, second_page]).refusing_cbor(status, body);
        let source = service.source();
        let mut first = source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
        assert_eq!(numbers(&first.next_page(10).await.unwrap()), ["1"], "{body}");
        assert_eq!(numbers(&first.next_page(10).await.unwrap()), ["2"]);
        let service =
            service.otherwise(json!({"ShardIterator": "i", "Records": [], "NextShardIterator": "i"}));
        let mut second = source.open(&ShardId::from("shardId-2"), &Position::TrimHorizon).await.unwrap();
        second.next_page(10).await.unwrap();
        assert_eq!(in_cbor(&service), [true, false, false, false], "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_cbor_alone_is_told_what_to_write_if_it_is_refused() {
    let service = Service::new(script()).refusing_cbor(UNKNOWN.0, UNKNOWN.1);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    reader.ask_for(AnswerEncoding::Cbor);
    for _ in 0..2 {
        let error = reader.next_page(10).await.unwrap_err().to_string();
        assert!(
            error.contains("in CBOR") && error.ends_with("write Polling.Encoding: auto or json"),
            "{error}"
        );
    }
    assert_eq!(in_cbor(&service), [true; 2], "it never falls back");
}

#[tokio::test(start_paused = true)]
async fn ordinary_errors_have_the_same_kind_and_text_in_cbor_as_in_json() {
    let errors = [
        (400, "ExpiredIteratorException", Kind::IteratorExpired),
        (400, "ProvisionedThroughputExceededException", Kind::Throttled),
        (400, "KMSThrottlingException", Kind::Throttled),
        (400, "LimitExceededException", Kind::Throttled),
        (400, "AccessDeniedException", Kind::AccessDenied),
        (403, "ExpiredTokenException", Kind::AccessDenied),
        (403, "InvalidSignatureException", Kind::AccessDenied),
        (400, "KMSAccessDeniedException", Kind::AccessDenied),
        (400, "KMSDisabledException", Kind::AccessDenied),
        (400, "ResourceNotFoundException", Kind::NotFound),
        (400, "TrimmedDataAccessException", Kind::Trimmed),
        (503, "ServiceUnavailable", Kind::Unavailable),
    ];
    for (status, code, kind) in errors {
        let mut texts = Vec::new();
        for encoding in [AnswerEncoding::Json, AnswerEncoding::Auto, AnswerEncoding::Cbor] {
            let [first, ..] = script();
            let service = Service::new([first, Answer::Error(status, code), page(&["1"], Some("i2"))]);
            let mut reader = reader(&service, Position::TrimHorizon).await;
            reader.ask_for(encoding);
            let error = reader.next_page(10).await.unwrap_err();
            assert_eq!(error.kind, kind, "{encoding:?}: {error}");
            texts.push(error.to_string());
            assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
            assert_eq!(in_cbor(&service), [encoding != AnswerEncoding::Json; 2], "no refusal: {error}");
        }
        assert!(texts.iter().all(|text| text == &texts[0]), "{texts:#?}");
        assert!(texts[0].contains(code), "{}", texts[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_json_as_well_or_after_cbor_was_understood_is_no_refusal() {
    let page_of_a_proxy = || Answer::Raw(404, "<html>Not Found</html>".to_owned());
    let [opened, first, second, _] = script();
    let service =
        Service::new([opened, page_of_a_proxy(), page_of_a_proxy(), first, page_of_a_proxy(), second]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::Unavailable);
    assert_eq!(in_cbor(&service), [true, false], "JSON is tried once");
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::Unavailable);
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["2"]);
    assert_eq!(in_cbor(&service), [true, false, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_says_nothing_about_the_encoding() {
    let [opened, first, ..] = script();
    let service = Service::new([opened, Answer::Refused, Answer::Silence, first]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    for _ in 0..2 {
        assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::Unavailable);
    }
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
    assert_eq!(in_cbor(&service), [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_answers_a_call_in_cbor_in_json_is_understood() {
    let body = json!({"Records": [record("1")], "NextShardIterator": "i2"}).to_string();
    let service = Service::new([iterator("i1"), Answer::Raw(200, body), page(&["2"], Some("i3"))]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["2"]);
    assert_eq!(in_cbor(&service), [true; 2]);
}
