//! Connections that have died without a word.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::{self, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::lanes::Place;

/// A call that is given up after nothing came for so long says that its connection is dead. One that is cancelled for another
/// reason costs a handshake then.
const SILENCE: Duration = Duration::from_secs(1);

/// A call that waits for the head of its answer, or for more of its body. With HTTP/1.1 a connection ends with the call that is
/// given up; with HTTP/2 only the call does, and the next one would be as silent.
pub(super) struct Silence {
    since: Instant,
    connection: Option<CaptureSmithyConnection>,
}

impl Silence {
    pub(super) fn watch(request: &mut HttpRequest) -> Self {
        let connection = request.extension::<CaptureSmithyConnection>().cloned().unwrap_or_else(|| {
            let connection = CaptureSmithyConnection::new();
            request.add_extension(connection.clone());
            connection
        });
        Self { since: Instant::now(), connection: Some(connection) }
    }

    pub(super) fn is_on_a_connection(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.get().is_some())
    }

    /// No other call is made on the connection.
    pub(super) fn end_connection(&self) {
        if let Some(connection) = self.connection.as_ref().and_then(CaptureSmithyConnection::get) {
            connection.poison();
        }
    }

    fn is_broken(&mut self) {
        self.since = Instant::now();
    }

    /// The answer is complete, or there is an error, of which the SDK makes what it means.
    pub(super) fn is_over(&mut self) {
        self.connection = None;
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if self.since.elapsed() >= SILENCE {
            self.end_connection();
        }
    }
}

/// The body of an answer. Its call has its place until this is dropped.
pub(super) struct Rest {
    body: SdkBody,
    silence: Silence,
    _place: Place,
}

impl Rest {
    /// The head has come.
    pub(super) fn new(body: SdkBody, mut silence: Silence, place: Place) -> Self {
        silence.is_broken();
        let mut rest = Self { body, silence, _place: place };
        rest.note_its_end();
        rest
    }

    fn note_its_end(&mut self) {
        if self.body.is_end_stream() {
            self.silence.is_over();
        }
    }
}

impl Body for Rest {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {
                self.silence.is_broken();
                self.note_its_end();
            }
            Some(Err(_)) | None => self.silence.is_over(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use aws_smithy_runtime_api::client::connection::ConnectionMetadata;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::time::advance;

    use super::super::lanes::tests::three_lanes;
    use super::*;

    type Piece = Result<Frame<Bytes>, io::Error>;

    struct Pieces(UnboundedReceiver<Piece>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
            self.0.poll_recv(cx)
        }
    }

    /// A body whose first piece has been read, what it is sent through, and whether its connection is not used again.
    async fn begun() -> (Rest, UnboundedSender<Piece>, Arc<AtomicBool>) {
        let is_given_up = Arc::<AtomicBool>::default();
        let given_up = Arc::clone(&is_given_up);
        let poison = move || given_up.store(true, Ordering::Relaxed);
        let connection = ConnectionMetadata::builder().proxied(false).poison_fn(poison).build();
        let capture = CaptureSmithyConnection::new();
        capture.set_connection_retriever(move || Some(connection.clone()));
        let mut request = HttpRequest::empty();
        request.add_extension(capture);

        let (sender, pieces) = unbounded_channel();
        let (shared, origin) = three_lanes();
        let body = SdkBody::from_body_1_x(Pieces(pieces));
        let mut rest = Rest::new(body, Silence::watch(&mut request), Place::take(&shared, &origin));
        sender.send(Ok(Frame::data(Bytes::from_static(b"piece")))).unwrap();
        assert!(next(&mut rest).await.is_some_and(|piece| piece.is_ok()));
        (rest, sender, is_given_up)
    }

    async fn next(rest: &mut Rest) -> Option<Result<Frame<Bytes>, body::Error>> {
        poll_fn(|cx| Pin::new(&mut *rest).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_given_up_while_it_is_silent_ends_its_connection() {
        let (rest, _sender, is_given_up) = begun().await;
        advance(SILENCE).await;
        drop(rest);
        assert!(is_given_up.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_given_up_while_it_moves_leaves_its_connection() {
        let (mut rest, sender, is_given_up) = begun().await;
        for _ in 0..5 {
            advance(SILENCE.mul_f32(0.9)).await;
            sender.send(Ok(Frame::data(Bytes::new()))).unwrap();
            next(&mut rest).await.unwrap().unwrap();
        }
        drop(rest);
        assert!(!is_given_up.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_ended_leaves_its_connection_however_late_it_is_dropped() {
        let (mut complete, sender, is_complete_given_up) = begun().await;
        drop(sender);
        assert!(next(&mut complete).await.is_none());
        let (mut failed, sender, is_failed_given_up) = begun().await;
        sender.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
        assert!(next(&mut failed).await.unwrap().is_err());
        advance(SILENCE * 60).await;
        drop((complete, failed));
        let given_up = [is_complete_given_up, is_failed_given_up];
        assert_eq!(given_up.map(|flag| flag.load(Ordering::Relaxed)), [false; 2]);
    }
}
