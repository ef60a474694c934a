//! Calls that repeat one of the SDK's.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use parking_lot::Mutex;

use super::*;

type Headers = BTreeMap<String, String>;

/// Keeps the headers of every request.
#[derive(Clone, Debug)]
struct Keeps {
    service: SharedHttpClient,
    seen: Arc<Mutex<Vec<Headers>>>,
}

#[derive(Debug)]
struct Connector(SharedHttpConnector, Arc<Mutex<Vec<Headers>>>);

impl HttpClient for Keeps {
    fn http_connector(&self, set: &HttpConnectorSettings, with: &RuntimeComponents) -> SharedHttpConnector {
        let connector = self.service.http_connector(set, with);
        SharedHttpConnector::new(Connector(connector, Arc::clone(&self.seen)))
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let headers = request.headers().iter().map(|(name, value)| (name.into(), value.into()));
        self.1.lock().push(headers.collect());
        self.0.call(request)
    }
}

#[tokio::test]
async fn a_page_after_the_first_is_asked_for_with_the_headers_of_the_sdk_but_not_by_it() {
    let case = Case::new();
    let seen = Arc::default();
    let service = case.fake.sdk_config().http_client().unwrap();
    let keeps = Keeps { service, seen: Arc::clone(&seen) };
    let config = case.fake.sdk_config().into_builder().http_client(keeps).build();
    let source = DynamoDbSource::new(&config, case.source.stream().arn.as_str()).unwrap();
    source.attach(&SourceContext::new(ServiceClock::new(), ReadLimiter::without_pacing())).unwrap();
    let mut reader = source.open(&case.shard(), &Position::TrimHorizon).await.unwrap();
    for n in 1..=3 {
        let change = case.put("a", n);
        assert_eq!(numbers(&reader.next_page(10).await.unwrap()), [number(&change)]);
    }
    let is_read = |headers: &Headers| headers["x-amz-target"].ends_with(".GetRecords");
    let mut reads: Vec<Headers> = seen.lock().iter().filter(|headers| is_read(headers)).cloned().collect();
    let numbers_calls = |headers: &mut Headers| {
        let numbers = ["amz-sdk-invocation-id", "amz-sdk-request"].map(|name| headers.remove(name).is_some());
        for of_one_call in ["authorization", "x-amz-date", "content-length"] {
            assert!(headers.remove(of_one_call).is_some(), "{of_one_call}");
        }
        numbers == [true, true]
    };
    assert_eq!(reads.iter_mut().map(numbers_calls).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((&reads[1], &reads[2]), (&reads[0], &reads[0]));
}
