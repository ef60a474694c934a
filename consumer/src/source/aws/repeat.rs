//! Calls of `GetRecords` that repeat one that the SDK made (docs/adr/0039).
//!
//! The SDK makes the first call. Those that follow differ in their body and signature alone, so they go to the same place
//! with the same headers, signed by the SDK's signer with the credentials of its cache, over its connector. After an error, and
//! once a minute, the SDK makes a call, with everything that it does in addition.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{iter, mem};

use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::{
    AuthScheme, AuthSchemeEndpointConfig, AuthSchemeId, SharedAuthScheme,
};
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{ResolveCachedIdentity, SharedIdentityResolver};
use aws_smithy_runtime_api::client::interceptors::SharedInterceptor;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer, Layer, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::{Region, SigningRegion};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::observe;
use super::undecodable::Replay;
use crate::clock::ServiceClock;

/// How AWS authenticates the calls of both services.
const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

/// An answer has 10 MiB of records at most, in base64.
const LARGEST: usize = 16 << 20;

/// The SDK makes a call so often at least: its endpoint may have moved, and the host's clock.
const RENEWED_AFTER: Duration = Duration::from_secs(60);

/// What belongs to one call alone.
const ITS_OWN: [&str; 7] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "content-type",
    "x-amz-date",
    "x-amz-security-token",
];

/// What a client's calls of `GetRecords` have in common, once the SDK has made one. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::source) struct Repeat {
    learnt: Arc<Mutex<Option<Arc<Learnt>>>>,
    clock: ServiceClock,
    /// The client's owner looks at each call, or changes it: the SDK makes them all.
    never: bool,
}

#[derive(Debug)]
struct Learnt {
    components: RuntimeComponents,
    connector: SharedHttpConnector,
    scheme: SharedAuthScheme,
    identities: SharedIdentityResolver,
    /// How to sign, for which region and service.
    signing: ConfigBag,
    uri: String,
    headers: Vec<(String, String)>,
    timeout: Option<Duration>,
    since: Instant,
}

/// What is learned if the call succeeds.
#[derive(Debug)]
struct Candidate(Arc<Learnt>);

impl Storable for Candidate {
    type Storer = StoreReplace<Self>;
}

/// An answer, whatever its status.
pub(in crate::source) struct Answer {
    response: HttpResponse,
    body: Bytes,
}

impl Repeat {
    /// For a client whose calls show the service's time to `clock`; `never` leaves them all to the SDK.
    pub(in crate::source) fn new(clock: &ServiceClock, never: bool) -> Self {
        Self { learnt: Arc::default(), clock: clock.clone(), never }
    }

    fn current(&self) -> Option<Arc<Learnt>> {
        self.learnt.lock().clone().filter(|learnt| learnt.since.elapsed() < RENEWED_AFTER)
    }

    /// The SDK is about to send this request, which it made with these components and settings.
    pub(super) fn watch(
        &self,
        request: &HttpRequest,
        components: &RuntimeComponents,
        bag: &mut ConfigBag,
        operation: &FrozenLayer,
    ) {
        if self.never || self.current().is_some() {
            return;
        }
        if let Some(learnt) = Learnt::from(request, components, bag, operation) {
            bag.interceptor_state().store_put(Candidate(Arc::new(learnt)));
        }
    }

    /// The call that was watched has brought records, or none.
    pub(super) fn learn(&self, bag: &ConfigBag) {
        if let Some(Candidate(learnt)) = bag.load::<Candidate>() {
            *self.learnt.lock() = Some(Arc::clone(learnt));
        }
    }

    /// Makes a call with this body; `None` if that is the SDK's to do: nothing was sent then.
    pub(in crate::source) async fn call<E>(
        &self,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Option<Result<Answer, SdkError<E, HttpResponse>>> {
        let learnt = self.current()?;
        let call = async {
            let request = learnt.request(content_type, body).await?;
            Some(learnt.answer(request, &self.clock).await)
        };
        let answer = match learnt.timeout {
            Some(timeout) => match tokio::time::timeout(timeout, call).await {
                Ok(answer) => answer?,
                Err(elapsed) => Err(SdkError::timeout_error(elapsed)),
            },
            None => call.await?,
        };
        if answer.as_ref().ok().and_then(Answer::success).is_none() {
            self.learnt.lock().take_if(|current| Arc::ptr_eq(current, &learnt));
        }
        Some(answer)
    }
}

impl Learnt {
    fn from(
        request: &HttpRequest,
        components: &RuntimeComponents,
        bag: &ConfigBag,
        operation: &FrozenLayer,
    ) -> Option<Self> {
        let (region, service) = scope(request.headers().get("authorization")?)?;
        let timeouts = bag.load::<TimeoutConfig>();
        let mut layer = Layer::new("repeat");
        layer.store_put(SigningRegion::from(Region::new(region.to_owned())));
        layer.store_put(SigningName::from(service.to_owned()));
        // By these the identity cache bounds how long credentials may take.
        layer.store_or_unset(timeouts.cloned());
        layer.store_or_unset(bag.load::<RetryConfig>().cloned());
        let mut signing = ConfigBag::base();
        signing.push_shared_layer(operation.clone());
        signing.push_layer(layer);
        let host = components.time_source()?;
        let ahead = ahead_of(&host, request.headers().get("x-amz-date")?)?;
        let time = SigningTime { host, ahead };
        // Interceptors have no part in this, and ours holds what is learned.
        let components = components.to_builder().with_interceptors(iter::empty::<SharedInterceptor>());
        let components = components.with_time_source(Some(time)).build().ok()?;
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(timeouts.and_then(TimeoutConfig::connect_timeout));
        settings.set_read_timeout(timeouts.and_then(TimeoutConfig::read_timeout));
        let connector = components.http_client()?.http_connector(&settings.build(), &components);
        let scheme = components.auth_scheme(SIGV4)?;
        let identities = scheme.identity_resolver(&components)?;
        let headers = request.headers().iter().filter(|(name, _)| !ITS_OWN.contains(name));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let limits = timeouts.map(|set| [set.operation_timeout(), set.operation_attempt_timeout()]);
        let timeout = limits.into_iter().flatten().flatten().min();
        let uri = request.uri().to_owned();
        let since = Instant::now();
        Some(Self { components, connector, scheme, identities, signing, uri, headers, timeout, since })
    }

    /// The signed request; `None` without credentials, of which the SDK makes an error.
    async fn request(&self, content_type: &'static str, body: Vec<u8>) -> Option<HttpRequest> {
        let Self { components, signing, .. } = self;
        let cache = components.identity_cache();
        let identity =
            cache.resolve_cached_identity(self.identities.clone(), components, signing).await.ok()?;
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_method("POST").ok()?;
        request.set_uri(self.uri.as_str()).ok()?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        headers.insert("content-type", content_type);
        headers.insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body);
        let endpoint = AuthSchemeEndpointConfig::empty();
        let signer = self.scheme.signer();
        signer.sign_http_request(&mut request, &identity, endpoint, components, signing).ok()?;
        Some(request)
    }

    async fn answer<E>(
        &self,
        mut request: HttpRequest,
        clock: &ServiceClock,
    ) -> Result<Answer, SdkError<E, HttpResponse>> {
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let end = || connection.get().iter().for_each(ConnectionMetadata::poison);
        let sent = clock.now().mono;
        let mut response = self.connector.call(request).await.map_err(SdkError::dispatch_failure)?;
        observe(clock, &response, sent);
        // As the SDK does: another connection may lead to a healthy server.
        if matches!(response.status().as_u16(), 500 | 502 | 503 | 504) {
            end();
        }
        let length = response.headers().get("content-length").and_then(|length| length.parse().ok());
        let body = mem::replace(response.body_mut(), SdkBody::taken());
        match whole(body, length).await {
            Ok(body) => Ok(Answer { response, body }),
            Err(error) => {
                end();
                Err(SdkError::response_error(error, response))
            }
        }
    }
}

/// A body in one piece. Each part of it is copied as it comes, so that a body of known length is never there twice, and no buffer
/// of a connection is held by it.
async fn whole(mut body: SdkBody, length: Option<usize>) -> Result<Bytes, BoxError> {
    let mut whole = BytesMut::with_capacity(length.unwrap_or_default().min(LARGEST));
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    // Records keep it, and what it has too much.
    let is_tight = whole.capacity() - whole.len() <= whole.len() / 8;
    Ok(if is_tight { whole.freeze() } else { Bytes::copy_from_slice(&whole) })
}

impl Answer {
    /// The body of a success.
    pub(in crate::source) fn success(&self) -> Option<&Bytes> {
        (self.response.status().as_u16() == 200).then_some(&self.body)
    }

    /// For the SDK, which decodes what `GetRecords` did not answer as usual.
    pub(in crate::source) fn replay(self) -> Replay {
        Replay::of(&self.response, self.body)
    }
}

/// Region and service of a signature: `AWS4-HMAC-SHA256 Credential=ID/20261128/eu-west-1/kinesis/aws4_request, ..`.
fn scope(authorization: &str) -> Option<(&str, &str)> {
    let credential = authorization.split_once("Credential=")?.1.split(',').next()?;
    let mut parts = credential.rsplit('/').skip(1);
    let service = parts.next()?;
    Some((parts.next()?, service))
}

/// How many seconds the SDK's time, by which it signed a request, was ahead of the host's: it learns from each answer how wrong
/// the host's clock is.
fn ahead_of(host: &SharedTimeSource, amz_date: &str) -> Option<i64> {
    let part = |from, to| amz_date.get(from..to);
    let (date, time) =
        (part(0, 4).zip(part(4, 6)).zip(part(6, 8))?, part(9, 11).zip(part(11, 13)).zip(part(13, 16))?);
    let (((year, month), day), ((hour, minute), second)) = (date, time);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}");
    let signed = DateTime::from_str(&text, Format::DateTime).ok()?.secs();
    let ahead = signed - DateTime::from(host.now()).secs();
    // The request was signed before.
    Some(if ahead.abs() <= 2 { 0 } else { ahead })
}

/// The host's time, corrected as the SDK corrects it.
#[derive(Debug)]
struct SigningTime {
    host: SharedTimeSource,
    ahead: i64,
}

impl TimeSource for SigningTime {
    fn now(&self) -> SystemTime {
        let (now, by) = (self.host.now(), Duration::from_secs(self.ahead.unsigned_abs()));
        let corrected = if self.ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        corrected.unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_async::time::StaticTimeSource;

    use super::*;

    #[tokio::test]
    async fn a_body_takes_no_more_memory_than_it_needs_whatever_length_is_declared() {
        let bytes = vec![7; 300_000];
        for length in [Some(300_000), Some(1), Some(usize::MAX), None] {
            let whole = whole(SdkBody::from(bytes.clone()), length).await.unwrap();
            assert_eq!(whole, bytes);
            let capacity = BytesMut::from(whole).capacity();
            assert!(capacity <= 340_000, "{length:?}: {capacity}");
        }
    }

    #[test]
    fn a_signature_names_its_region_and_service() {
        let found = scope(
            "AWS4-HMAC-SHA256 Credential=AK/ID/20261128/eu-west-1/kinesis/aws4_request, SignedHeaders=host, Signature=0",
        );
        assert_eq!(found, Some(("eu-west-1", "kinesis")));
        assert_eq!(scope("Bearer abc"), None);
    }

    #[test]
    fn a_signature_shows_how_the_sdk_corrects_the_hosts_time() {
        let host = SharedTimeSource::new(StaticTimeSource::from_secs(1_790_000_000));
        let ahead = |date| ahead_of(&host, date);
        assert_eq!(["20260921T141318Z", "20260921T141322Z"].map(ahead), [Some(0), Some(0)]);
        assert_eq!(["20260921T140320Z", "20260921T142320Z"].map(ahead), [Some(-600), Some(600)]);
        assert_eq!(["", "20260921", "2026-09-21T14:13:20Z", "20261321T141320Z"].map(ahead), [None; 4]);
        let time = SigningTime { host: host.clone(), ahead: -600 };
        assert_eq!(DateTime::from(time.now()).secs(), 1_790_000_000 - 600);
    }
}
