//! The HTTP server of the endpoints: few connections and short ones, so that no client uses up the
//! descriptors or the time of the process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::guard;

/// Connections at once. A further one takes the place of the one that has kept silent the longest.
const MAXIMUM_CONNECTIONS: usize = 32;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may take in all.
const LIFE: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted: no descriptor is free, say.
const PAUSE: Duration = Duration::from_millis(100);

/// One open connection.
#[derive(Debug)]
struct Place {
    close: CancellationToken,
    state: Arc<State>,
}

/// What a connection's task knows of it; the place lets go of it when the task has ended.
#[derive(Debug, Default)]
struct State {
    /// Requests that are being answered.
    answering: AtomicUsize,
}

/// Serves until `stop` is cancelled, then answers what was asked.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut places: Vec<Place> = Vec::new();
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Dropped unanswered if all others are being answered.
        if let Some(place) = place(&mut places) {
            connections.spawn(connection(stream, router.clone(), place, stop.clone()));
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// A place for one more connection.
fn place(places: &mut Vec<Place>) -> Option<(CancellationToken, Arc<State>)> {
    places.retain(|place| Arc::strong_count(&place.state) > 1);
    if places.len() >= MAXIMUM_CONNECTIONS {
        let is_silent = |place: &Place| place.state.answering.load(Ordering::SeqCst) == 0;
        // The first one is the oldest.
        let silent = places.iter().position(is_silent)?;
        places.remove(silent).close.cancel();
    }
    let (close, state) = (CancellationToken::new(), Arc::new(State::default()));
    places.push(Place { close: close.clone(), state: Arc::clone(&state) });
    Some((close, state))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    (close, state): (CancellationToken, Arc<State>),
    stop: CancellationToken,
) {
    let service = service_fn(|request| {
        let (router, state) = (router.clone(), Arc::clone(&state));
        async move {
            state.answering.fetch_add(1, Ordering::SeqCst);
            let answer = answer(request, router).await;
            state.answering.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        // A client that goes away or dawdles affects only itself.
        _ = served.as_mut() => return,
        () = close.cancelled() => return,
        () = tokio::time::sleep(LIFE) => return,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

async fn answer(request: Request<Incoming>, mut router: Router) -> Response {
    if let Some(refusal) = guard::refusal(request.uri(), request.headers()) {
        return (refusal.status, refusal.why).into_response();
    }
    // A router is always ready, and what cannot be routed is a 404.
    match router.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn server() -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/healthz", axum::routing::get(|| async { "ok" }));
        tokio::spawn(serve(listener, router, stop.clone()));
        (address, stop)
    }

    async fn ask(stream: &mut TcpStream, head: &str) -> String {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn incident_83_a_connection_answers_one_request_and_is_closed() {
        let (address, _stop) = server().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut stream, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut stream, "GET /healthz HTTP/1.1\r\nhost: evil.example\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 421") && answer.contains("by an IP address"), "{answer}");
    }

    #[tokio::test]
    async fn incident_83_a_further_connection_takes_the_place_of_the_one_that_kept_silent_the_longest() {
        let (address, _stop) = server().await;
        let mut silent = Vec::new();
        for _ in 0..400 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut late, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut byte = [0];
        assert_eq!(silent[0].read(&mut byte).await.unwrap_or(0), 0, "the oldest one was closed");
    }

    #[tokio::test(start_paused = true)]
    async fn incident_83_a_request_whose_head_does_not_come_is_closed() {
        let (address, _stop) = server().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let before = tokio::time::Instant::now();
        let answer = ask(&mut stream, "GET /healthz HTTP/1.1\r\n").await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(before.elapsed() >= HEAD, "it had its time");
    }

    #[test]
    fn connections_that_are_being_answered_keep_their_places() {
        let mut places = Vec::new();
        let held: Vec<_> = (0..MAXIMUM_CONNECTIONS).map(|_| place(&mut places).unwrap()).collect();
        for (_, state) in &held {
            state.answering.fetch_add(1, Ordering::SeqCst);
        }
        assert!(place(&mut places).is_none());
        held[7].1.answering.fetch_sub(1, Ordering::SeqCst);
        let next = place(&mut places);
        assert!(next.is_some() && held[7].0.is_cancelled() && !held[6].0.is_cancelled());
        drop(held);
        let _more = place(&mut places);
        assert_eq!(places.len(), 2, "those that have ended leave their places");
    }
}
