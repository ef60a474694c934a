//! Answers that the SDK cannot decode.

use super::*;

/// Record 2's data is no base64.
fn broken() -> Answer {
    let mut bad = record("2");
    bad["Data"] = "!!".into();
    Answer::Ok(json!({
        "Records": [record("1"), bad, record("3")], "NextShardIterator": "i2", "MillisBehindLatest": 0
    }))
}

#[tokio::test]
async fn incident_97_a_record_that_cannot_be_decoded_names_its_place_and_what_is_wrong() {
    let service =
        Service::new([iterator("i1"), page(&["0"], Some("i2")), broken(), page(&["1", "2"], Some("i3"))]);
    let mut reader = service.source().open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
    reader.next_page(10).await.unwrap();
    let error = reader.next_page(10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Undecodable);
    let text = error.to_string();
    for part in [
        "GetRecords: after sequence number 0 the answer cannot be decoded: record 2: ",
        SHARD,
        "OnUndecodable",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains("HTTP status"), "{text}");
    assert_eq!(reader.next_page(10).await.unwrap().records.len(), 2, "it is read again from the same place");
}

#[tokio::test]
async fn incident_97_a_record_that_is_to_be_skipped_is_left_out_and_named() {
    let service = Service::new([iterator("i1"), broken(), page(&["4"], Some("i3"))]);
    let mut reader = service.source().open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
    reader.skip_undecodable(true);
    let read = reader.next_page(10).await.unwrap();
    let numbers: Vec<_> = read.records.iter().map(|record| record.seq.number.as_str()).collect();
    assert_eq!((numbers, read.skipped, read.millis_behind), (vec!["1", "3"], vec![Seq::plain("2")], Some(0)));
    assert_eq!(reader.next_page(10).await.unwrap().records.len(), 1);
    let asked = service.bodies("GetRecords");
    assert_eq!(asked.len(), 2, "an answer is decoded again without asking for it again");
    assert_eq!(asked[1]["ShardIterator"], "i2");
}

#[tokio::test]
async fn incident_97_what_tells_no_sequence_number_is_never_skipped() {
    let no_number = r#"{"Records": [{"Data": "!!", "SequenceNumber": "abc"}], "NextShardIterator": "i2"}"#;
    let nothing = r#"{"Records": [{"Data": "!!"}], "NextShardIterator": "i2"}"#;
    for body in ["garbage", nothing, no_number, r#"{"Records": 1}"#] {
        let service = Service::new([iterator("i1"), Answer::Raw(200, body.to_owned())]);
        let mut reader = service.source().open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
        reader.skip_undecodable(true);
        let error = reader.next_page(10).await.unwrap_err().to_string();
        assert!(error.contains("cannot be decoded") && !error.contains("HTTP status"), "{error}");
    }
    let listing = Service::new([Answer::Raw(200, "<html>".to_owned())]).source().shards().await.unwrap_err();
    assert!(
        listing.to_string().starts_with("DescribeStreamSummary: HTTP status 200 with a web page"),
        "{listing}"
    );
}
