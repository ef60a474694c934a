//! Connections to the function's server, and how much of a request each of them has passed on.
//!
//! Whether a failure spends an attempt depends on two facts that a general HTTP client does not expose: whether the
//! connection had been used before, and whether the whole request had been written. So the pool is our own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tower::Service as _;

use crate::handler::chain;

/// A connection that idled longer is not used again: something between may have silently forgotten it.
const MAXIMUM_IDLE: Duration = Duration::from_secs(30);
/// Idle connections that are kept.
const MAXIMUM_POOLED: usize = 256;

/// How far the request on a connection has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: AtomicU8,
    write_failed: AtomicBool,
}

const WAITING: u8 = 0;
/// The HTTP layer holds the end of the body.
const BODY_TAKEN: u8 = 1;
/// Everything up to the end of the body went to the operating system.
const WRITTEN: u8 = 2;

impl Progress {
    fn restart(&self) {
        self.stage.store(WAITING, Ordering::SeqCst);
    }

    fn body_taken(&self) {
        self.stage.store(BODY_TAKEN, Ordering::SeqCst);
    }

    fn flushed(&self) {
        let _ = self.stage.compare_exchange(BODY_TAKEN, WRITTEN, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether the whole request has been written.
    pub(super) fn wholly_written(&self) -> bool {
        self.stage.load(Ordering::SeqCst) == WRITTEN && !self.write_failed.load(Ordering::SeqCst)
    }
}

/// A request body of one piece that reports when it has been taken.
#[derive(Debug)]
pub(super) struct EventBody {
    bytes: Option<Bytes>,
    progress: Arc<Progress>,
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.bytes.take().map(|bytes| Ok(Frame::data(bytes)));
        self.progress.body_taken();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

type Socket = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A socket that notes when a request has left, and that keeps reading when writing has failed: a server may have
/// answered (413, say) before it stopped listening, and that answer counts.
struct Tracked {
    socket: Socket,
    progress: Arc<Progress>,
}

impl Tracked {
    fn swallow(&self, result: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match ready!(result) {
            Ok(n) if n > 0 || length == 0 => Poll::Ready(Ok(n)),
            Ok(_) | Err(_) => {
                self.progress.write_failed.store(true, Ordering::SeqCst);
                Poll::Ready(Ok(length))
            }
        }
    }

    fn write_failed(&self) -> bool {
        self.progress.write_failed.load(Ordering::SeqCst)
    }
}

impl Read for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl Write for Tracked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_failed() {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.swallow(result, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.write_failed() {
            return Poll::Ready(Ok(length));
        }
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.swallow(result, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    // Called only when nothing is left in the HTTP layer's own buffer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_failed() {
            return Poll::Ready(Ok(()));
        }
        match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
            Ok(()) => self.progress.flushed(),
            Err(_) => self.progress.write_failed.store(true, Ordering::SeqCst),
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// One open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<EventBody>,
    progress: Arc<Progress>,
    task: AbortHandle,
    /// Whether a request went over it before.
    pub(super) reused: bool,
}

impl Connection {
    /// The body of the next request; what was noted about the one before is forgotten.
    pub(super) fn body(&self, event: Bytes) -> EventBody {
        self.progress.restart();
        EventBody { bytes: Some(event), progress: Arc::clone(&self.progress) }
    }

    pub(super) fn wholly_written(&self) -> bool {
        self.progress.wholly_written()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Debug)]
enum Connector {
    Plain(HttpConnector),
    Tls(HttpsConnector<HttpConnector>),
}

/// The idle connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    server: Uri,
    idle: Mutex<VecDeque<(Connection, Instant)>>,
}

impl Pool {
    /// `server`: an absolute http or https URL.
    pub(super) fn new(server: Uri) -> io::Result<Self> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector = if server.scheme() == Some(&http::uri::Scheme::HTTPS) {
            // The provider is named: with several in the build there is no process-wide default.
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?;
            Connector::Tls(builder.https_only().enable_http1().wrap_connector(http))
        } else {
            Connector::Plain(http)
        };
        Ok(Self { connector, server, idle: Mutex::default() })
    }

    /// Opens a socket: name resolution, TCP and, for https, TLS.
    pub(super) async fn open(&self) -> Result<Socket, String> {
        match self.connector.clone() {
            Connector::Plain(mut http) => {
                let opened = http.call(self.server.clone()).await;
                opened.map(MaybeHttpsStream::Http).map_err(|e| chain(&e))
            }
            Connector::Tls(mut https) => https.call(self.server.clone()).await.map_err(|e| chain(e.as_ref())),
        }
    }

    /// A connection that nothing went over yet.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let progress = Arc::new(Progress::default());
        let io = Tracked { socket: self.open().await?, progress: Arc::clone(&progress) };
        let (sender, driver) = hyper::client::conn::http1::handshake(io).await.map_err(|e| chain(&e))?;
        let task = tokio::spawn(async move {
            // A request in flight gets the failure itself; an idle connection has no caller to report it to.
            let _ = driver.await;
        });
        Ok(Connection { sender, progress, task: task.abort_handle(), reused: false })
    }

    /// The idle connection used last that still looks open.
    pub(super) async fn take(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.lock().pop_back()?;
            if since.elapsed() > MAXIMUM_IDLE {
                continue;
            }
            let ready = tokio::time::timeout(Duration::from_millis(100), connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn put(&self, connection: Connection) {
        if connection.sender.is_closed() || !connection.wholly_written() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.lock();
        while idle.front().is_some_and(|(_, since)| now - *since > MAXIMUM_IDLE) {
            idle.pop_front();
        }
        if idle.len() < MAXIMUM_POOLED {
            idle.push_back((connection, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Connection, Instant)>> {
        self.idle.lock()
    }
}
