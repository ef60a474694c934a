//! The ways to reach the fake: inside the SDK's client, and on loopback over HTTP/1.1 or TLS.

use super::tls::{Tls, TlsOptions};
use super::{Asked, Reply, Response, Signature, encoding};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

/// A fake behind the transports.
pub(crate) trait Service: Clone + fmt::Debug + Send + Sync + 'static {
    /// Answers a request, with faults, call log and the fake's clock. `None`: disconnect.
    fn answer(&self, asked: &Asked<'_>) -> impl Future<Output = Option<Reply>> + Send;

    /// Whether requests in CBOR are understood.
    fn speaks_cbor(&self) -> bool {
        false
    }

    /// Answers a request that is none of the service's own, by its path. `None`: it is one of the service's.
    fn control(&self, _path: &str, _body: &[u8]) -> Option<Response> {
        None
    }
}

/// An HTTP client that answers from this fake.
pub(crate) fn http_client(fake: impl Service) -> SharedHttpClient {
    SharedHttpClient::new(InProcess { fake, read_timeout: None })
}

/// Serves the fake on a port of 127.0.0.1; 0 takes a free one.
pub(crate) async fn serve(fake: impl Service, port: u16, tls: Option<TlsOptions>) -> io::Result<Server> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let (tls, certificate) = tls.map(Tls::new).transpose()?.unzip();
    let task = tokio::spawn(accept(fake, listener, tls));
    Ok(Server { address, certificate, task })
}

pub(crate) fn config(http_client: Option<SharedHttpClient>, endpoint_url: Option<String>) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "shardmill-testkit");
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials));
    builder.set_http_client(http_client).set_endpoint_url(endpoint_url);
    builder.build()
}

#[derive(Debug, Clone)]
struct InProcess<S> {
    fake: S,
    read_timeout: Option<Duration>,
}

impl<S: Service> HttpClient for InProcess<S> {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Self { fake: self.fake.clone(), read_timeout: settings.read_timeout() })
    }
}

impl<S: Service> HttpConnector for InProcess<S> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { fake, read_timeout } = self.clone();
        HttpConnectorFuture::new(async move {
            let call = in_process(&fake, request);
            match read_timeout {
                None => call.await,
                Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
                    Err(ConnectorError::timeout(format!("no answer within {limit:?}").into()))
                }),
            }
        })
    }
}

async fn in_process(fake: &impl Service, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let header = |name| request.headers().get(name).unwrap_or_default().to_owned();
    let (target, content_type) = (header("x-amz-target"), header("content-type"));
    let signature = Signature::read(&header("authorization"), &header("x-amz-date"));
    let collected = request.into_body().collect().await.map_err(ConnectorError::io)?;
    let body = collected.to_bytes();
    let asked = Asked { target: &target, body: &body, signature };
    let Some(reply) = encoding::answer(fake, &content_type, asked).await else {
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "the fake closed the connection");
        return Err(ConnectorError::io(reset.into()));
    };
    let status = reply.response.status.try_into().map_err(|e| ConnectorError::other(Box::new(e), None))?;
    let body = match (reply.cut, reply.slow.is_zero()) {
        (None, true) => SdkBody::from(reply.response.body),
        _ => SdkBody::from_body_1_x(ReplyBody::new(&reply)),
    };
    let mut response = HttpResponse::new(status, body);
    for (name, value) in reply.response.headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// A fake that is being served. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Only with TLS.
    certificate: Option<String>,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL, `http://127.0.0.1:PORT`, or with TLS `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of the authority that a client has to trust, in PEM; `None` without TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// An SDK configuration for this endpoint, with the SDK's own HTTP client, which trusts it, and invented credentials.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        config(self.certificate().map(trusting), Some(self.url()))
    }
}

/// What the SDK takes by default, but for whom it trusts.
fn trusting(authority: &str) -> SharedHttpClient {
    let trusted = TrustStore::empty().with_pem_certificate(authority);
    let mut builder =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    // Without certificates in PEM nothing can be wrong with it.
    if let Ok(context) = TlsContext::builder().with_trust_store(trusted).build() {
        builder = builder.tls_context(context);
    }
    builder.build_https()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts until aborted; its connections end with it.
async fn accept(fake: impl Service, listener: TcpListener, tls: Option<Tls>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                connections.spawn(serve_connection(fake.clone(), socket, tls.clone()));
            }
            // Out of file descriptors, most likely: leave the others time to end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(fake: impl Service, socket: TcpStream, tls: Option<Tls>) {
    let _ = socket.set_nodelay(true);
    let respond = move |request| {
        let fake = fake.clone();
        async move { respond(&fake, request).await }
    };
    match tls {
        Some(tls) => tls.serve(socket, respond).await,
        None => {
            let http1 = hyper::server::conn::http1::Builder::new();
            // A client that goes away in the middle is no concern of the fake's.
            let _ = http1.serve_connection(TokioIo::new(socket), service_fn(respond)).await;
        }
    }
}

async fn respond(fake: &impl Service, request: Request<Incoming>) -> io::Result<hyper::Response<ReplyBody>> {
    let header =
        |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (target, content_type) = (header("x-amz-target"), header("content-type"));
    let signature = Signature::read(&header("authorization"), &header("x-amz-date"));
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = match fake.control(&path, &body) {
        Some(response) => Reply::whole(response),
        None => {
            let asked = Asked { target: &target, body: &body, signature };
            let answer = encoding::answer(fake, &content_type, asked).await;
            answer.ok_or(io::ErrorKind::ConnectionReset)?
        }
    };
    let mut response = hyper::Response::builder()
        .status(StatusCode::from_u16(reply.response.status).map_err(io::Error::other)?)
        .header("content-length", reply.response.body.len());
    for (name, value) in &reply.response.headers {
        response = response.header(*name, value);
    }
    response.body(ReplyBody::new(&reply)).map_err(io::Error::other)
}

/// Pieces of a body that comes slowly.
const PIECES: u32 = 10;

/// A body in one piece or slowly in several, whole or a part of it and then an error.
struct ReplyBody {
    rest: Bytes,
    /// Bytes of a piece.
    piece: usize,
    /// What a slow body waits before each piece.
    pause: Duration,
    waits: Option<Pin<Box<Sleep>>>,
    cut: bool,
    flushed: bool,
}

impl ReplyBody {
    fn new(reply: &Reply) -> Self {
        let body = &reply.response.body;
        let rest = body.slice(..reply.cut.unwrap_or(body.len()));
        let pause = reply.slow / PIECES;
        let piece = if pause.is_zero() { rest.len() } else { rest.len().div_ceil(PIECES as usize) };
        Self { rest, piece, pause, waits: None, cut: reply.cut.is_some(), flushed: false }
    }

    /// Whether the pause before the next piece is over.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pause.is_zero() {
            return Poll::Ready(());
        }
        let pause = self.pause;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        std::task::ready!(waits.as_mut().poll(cx));
        self.waits = None;
        Poll::Ready(())
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.rest.is_empty() {
            std::task::ready!(self.poll_pause(cx));
            let length = self.piece.min(self.rest.len());
            return Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))));
        }
        if self.cut && !std::mem::replace(&mut self.flushed, true) {
            // The server sends what it has while it waits; an error at once would take the headers along.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if std::mem::take(&mut self.cut) {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the fake cut its answer");
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        if self.cut {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
