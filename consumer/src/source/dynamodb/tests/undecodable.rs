//! Answers that the SDK cannot decode.

use super::*;

fn record(number: &str, tags: &Value) -> Value {
    json!({"eventID": number, "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1", "dynamodb": {"SequenceNumber": number, "SizeBytes": 10,
        "ApproximateCreationDateTime": 1_790_000_000.0, "StreamViewType": "NEW_AND_OLD_IMAGES",
        "Keys": {"id": {"S": number}}, "NewImage": {"id": {"S": number}, "tags": tags}}})
}

fn answer(case: &Case, records: &[Value]) {
    let body = json!({"Records": records, "NextShardIterator": "next"}).to_string();
    case.fake.faults().on(Operation::GetRecords).inject(Fault::Body(body));
}

#[tokio::test]
async fn incident_97_dynamodb_locals_empty_map_without_a_type_is_read_as_an_empty_map() {
    let case = Case::new();
    answer(&case, &[record("1", &json!({})), record("2", &json!({"M": {"a": {"L": [{}]}}}))]);
    let mut reader = case.reader(Position::TrimHorizon).await;
    let page = reader.next_page(10).await.unwrap();
    assert_eq!(numbers(&page), ["1", "2"]);
    assert_eq!(case.asked(Operation::GetRecords), 1, "no second read");
    let event = event(&case.source, page.records);
    assert_eq!(event["Records"][0]["dynamodb"]["NewImage"]["tags"], json!({"M": {}}));
    assert_eq!(event["Records"][1]["dynamodb"]["NewImage"]["tags"], json!({"M": {"a": {"L": [{"M": {}}]}}}));
}

#[tokio::test]
async fn incident_97_a_record_with_an_unknown_type_names_itself_or_is_skipped() {
    for unknown in [json!({"X": "new"}), json!({"N": 7}), json!("text")] {
        for skips in [false, true] {
            let case = Case::new();
            let records = ["1", "2", "3"].map(|n| record(n, if n == "2" { &unknown } else { &Value::Null }));
            let records = records.map(|mut record| {
                let image = record["dynamodb"]["NewImage"].as_object_mut().unwrap();
                image.retain(|_, value| !value.is_null());
                record
            });
            answer(&case, &records);
            let mut reader = case.reader(Position::TrimHorizon).await;
            reader.skip_undecodable(skips);
            let read = reader.next_page(10).await;
            if skips {
                let page = read.unwrap();
                assert_eq!(
                    (numbers(&page), &page.skipped),
                    (vec!["1", "3"], &vec![Seq::plain("2")]),
                    "{unknown}"
                );
                continue;
            }
            let error = read.unwrap_err();
            assert_eq!(error.kind, Kind::Undecodable, "{error}");
            let text = error.to_string();
            let start = "GetRecords: from TRIM_HORIZON the answer cannot be decoded: record 2: ";
            assert!(text.starts_with(start) && text.contains("OnUndecodable"), "{text}");
        }
    }
}
