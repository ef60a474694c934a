//! Messages to a topic, against a server that answers as it is told.

use std::time::Duration;

use super::super::testing::discarded;
use super::super::testing::fake::{Answer, FakeService, PATIENT, config, dead_endpoint, limits_of};
use super::*;

const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:orders-dlq";
const SENT: Answer =
    xml(200, "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>");

const fn xml(status: u16, body: &'static str) -> Answer {
    Answer::Http(status, "content-type: text/xml\r\n", body)
}

fn destination(topic: &FakeService) -> SnsDestination {
    SnsDestination::with_limits(&config(), topic_named(TOPIC).unwrap(), Some(&topic.endpoint), PATIENT)
}

/// The fields of a form.
fn fields(body: &[u8]) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            bytes.push(match first {
                b'+' => b' ',
                b'%' => {
                    let (digits, tail) = rest.split_at(2);
                    rest = tail;
                    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
                }
                plain => plain,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let body = std::str::from_utf8(body).unwrap();
    body.split('&').map(|field| field.split_once('=').unwrap()).map(|(k, v)| (decode(k), decode(v))).collect()
}

#[tokio::test]
async fn r73_a_batch_is_one_message_of_its_exact_text_without_a_subject_in_the_topics_own_region() {
    let topic = FakeService::answering([SENT]).await;
    let failure = discarded("49", 10);
    destination(&topic).deliver(&failure).await.unwrap();
    let requests = topic.requests();
    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut sent = fields(&request.body);
    sent.sort();
    let expected = [
        text("Action", "Publish"),
        text("Message", &failure.message()),
        text("TopicArn", TOPIC),
        text("Version", "2010-03-31"),
    ];
    assert_eq!(sent, expected, "nothing else is sent");
    assert!(
        request.head.contains("/eu-west-1/sns/aws4_request"),
        "the ARN's region, not the configuration's"
    );
}

#[tokio::test]
async fn i3_a_refused_delivery_says_topic_code_and_remedy_and_can_be_repeated() {
    const fn error(status: u16, body: &'static str) -> Answer {
        xml(status, body)
    }
    let cases = [
        (
            error(
                403,
                "<ErrorResponse><Error><Code>AuthorizationError</Code><Message>no</Message></Error></ErrorResponse>",
            ),
            "Publish failed: AuthorizationError (no); allow sns:Publish on this topic",
        ),
        (
            error(
                404,
                "<ErrorResponse><Error><Code>NotFound</Code><Message>gone</Message></Error></ErrorResponse>",
            ),
            "NotFound (gone); create topic orders-dlq in eu-west-1, account 123456789012",
        ),
        (
            error(
                400,
                "<ErrorResponse><Error><Code>KMSAccessDenied</Code><Message>key</Message></Error></ErrorResponse>",
            ),
            "KMSAccessDenied (key); allow kms:GenerateDataKey and kms:Decrypt on the key that encrypts the topic",
        ),
        (
            error(403, "<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>"),
            "InvalidClientTokenId; check this worker's credentials",
        ),
    ];
    let topic = FakeService::answering(cases.map(|(answer, _)| answer).into_iter().chain([SENT])).await;
    let destination = destination(&topic);
    for (_, expected) in cases {
        let error = destination.deliver(&discarded("49", 10)).await.unwrap_err().to_string();
        assert!(error.contains(TOPIC) && error.contains(expected), "{error}");
    }
    destination.deliver(&discarded("49", 10)).await.unwrap();
}

#[tokio::test]
async fn i3_an_answer_without_a_message_id_does_not_count_as_delivered() {
    let empty = xml(200, "<PublishResponse><PublishResult></PublishResult></PublishResponse>");
    let topic = FakeService::answering([empty]).await;
    let error = destination(&topic).deliver(&discarded("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains("has no message id; check the endpoint"), "{error}");
}

#[tokio::test]
async fn a_topic_that_accepts_and_never_answers_fails_by_the_deliverys_limit_and_recovers() {
    let topic = FakeService::answering([Answer::Never]).await;
    let mut destination = destination(&topic);
    destination.service.limits.total = Duration::from_millis(500);
    let error = destination.deliver(&discarded("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains(TOPIC) && error.contains("within 500ms"), "{error}");
    topic.answer(SENT);
    destination.service.limits = PATIENT;
    destination.deliver(&discarded("49", 10)).await.unwrap();
    let client = Client::new(&config());
    assert_eq!(
        SnsDestination::from_client(client, TOPIC).unwrap().service.limits.total,
        Duration::from_secs(10)
    );
}

#[tokio::test]
async fn a_topic_that_cannot_be_reached_is_an_error_with_its_cause() {
    let destination = SnsDestination::with_limits(
        &config(),
        topic_named(TOPIC).unwrap(),
        Some(&dead_endpoint().await),
        Limits::DEFAULT,
    );
    let error = destination.deliver(&discarded("49", 10)).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.source.is_some());
}

#[tokio::test]
async fn a_probe_asks_for_attributes_and_is_content_where_it_may_not() {
    let there = "<GetTopicAttributesResponse><GetTopicAttributesResult><Attributes/>\
                 </GetTopicAttributesResult></GetTopicAttributesResponse>";
    let denied = "<ErrorResponse><Error><Code>AuthorizationError</Code></Error></ErrorResponse>";
    let missing = "<ErrorResponse><Error><Code>NotFound</Code></Error></ErrorResponse>";
    let topic = FakeService::answering([xml(200, there), xml(403, denied), xml(404, missing)]).await;
    let destination = destination(&topic);
    assert_eq!(destination.probe().await.unwrap(), Probe::Answers);
    let Probe::NotAsked(why) = destination.probe().await.unwrap() else { panic!("it was not allowed") };
    assert!(why.contains("sns:GetTopicAttributes is not allowed"), "{why}");
    let error = destination.probe().await.unwrap_err().to_string();
    assert!(error.contains("GetTopicAttributes failed: NotFound; create topic"), "{error}");
    for request in topic.requests().iter() {
        assert!(fields(&request.body).contains(&("Action".into(), "GetTopicAttributes".into())));
    }
}

#[test]
fn r77_fifo_topics_and_texts_that_are_no_topic_are_refused() {
    for (arn, expected) in [
        ("arn:aws:sns:eu-west-1:123456789012:orders.fifo", "is a FIFO queue or topic"),
        ("arn:aws:sqs:eu-west-1:123456789012:orders", "is not the ARN of an SNS topic"),
        ("arn:aws:sns:eu-west-1:123456789012:orders:4f2a", "has a topic name that SNS does not permit"),
        ("orders", "is not an ARN"),
        ("", "write the topic's ARN"),
    ] {
        let error = SnsDestination::new(&config(), arn).unwrap_err().to_string();
        assert!(error.contains(arn) && error.contains(expected), "{error}");
        SnsDestination::from_client(Client::new(&config()), arn).unwrap_err();
    }
}

#[test]
fn a_client_of_its_own_has_three_attempts_and_bounded_calls() {
    let destination = SnsDestination::new(&config(), TOPIC).unwrap();
    let client = destination.client;
    let set = client.config();
    assert_eq!(limits_of(set.retry_config(), set.timeout_config()), (3, [Some(3), Some(5)]));
}
