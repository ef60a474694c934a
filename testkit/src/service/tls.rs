//! TLS for what is served: certificates that are made at the start, HTTP/2 or HTTP/1.1 by ALPN.

use hyper::Request;
use hyper::Response;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// How a fake speaks TLS. The default is what AWS's endpoints for Kinesis do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Whether HTTP/2 is offered next to HTTP/1.1. True by default.
    pub http2: bool,
    /// How many calls a client may have under way on a connection of HTTP/2 (`SETTINGS_MAX_CONCURRENT_STREAMS`); 100 by
    /// default, the lowest that RFC 9113 recommends.
    pub maximum_concurrent_streams: u32,
    /// After so many calls a connection of HTTP/2 takes no more (`GOAWAY`), as load balancers do. `None`, the default:
    /// never.
    pub calls_per_connection: Option<u64>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { http2: true, maximum_concurrent_streams: 100, calls_per_connection: None }
    }
}

/// A server's identity and manners. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    options: TlsOptions,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Tls {
    /// Makes a certificate for 127.0.0.1 and localhost, and returns the authority that signed it, in PEM.
    pub(crate) fn new(options: TlsOptions) -> io::Result<(Self, String)> {
        let (config, authority) = identity(&options).map_err(io::Error::other)?;
        Ok((Self { acceptor: TlsAcceptor::from(Arc::new(config)), options }, authority))
    }

    /// Serves a connection until it ends.
    pub(crate) async fn serve<F, B>(&self, socket: TcpStream, respond: impl Fn(Request<Incoming>) -> F)
    where
        F: Future<Output = io::Result<Response<B>>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        // A client that goes away in the middle is no concern of the fake's.
        let Ok(stream) = self.acceptor.accept(socket).await else { return };
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if !is_http2 {
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(respond)).await;
            return;
        }
        let (calls, worn) = (AtomicU64::new(0), Notify::new());
        let counted = |request| {
            if Some(calls.fetch_add(1, Ordering::Relaxed) + 1) == self.options.calls_per_connection {
                worn.notify_one();
            }
            respond(request)
        };
        let mut connection = pin!(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(self.options.maximum_concurrent_streams)
                .serve_connection(io, service_fn(counted))
        );
        tokio::select! {
            _ = connection.as_mut() => return,
            () = worn.notified() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// An authority of one certificate, as every client accepts it: some refuse a server that is its own authority.
fn identity(options: &TlsOptions) -> Result<(ServerConfig, String), Box<dyn Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "shardmill-testkit");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    config.alpn_protocols = match options.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok((config, authority))
}
