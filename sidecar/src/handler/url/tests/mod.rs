//! One test per row of the table of `Url`, against servers written by hand.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

mod connections;
mod source;

const EVENT: &[u8] = br#"{"Records":[]}"#;

/// A server whose `script` runs for each connection, with the connection's number from 0.
struct Server {
    address: std::net::SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(script(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { address, connections, task }
    }

    /// Answers every request on every connection with this text.
    async fn answering(answer: impl Into<String>) -> Self {
        let answer: Arc<str> = answer.into().into();
        Self::start(move |_, mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                while read_request(&mut stream).await.is_some() {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    fn handler(&self, path: &str, change: impl FnOnce(&mut UrlOptions)) -> UrlHandler {
        let mut options = UrlOptions::new(format!("http://{}{path}", self.address));
        options.reads_response = true;
        change(&mut options);
        UrlHandler::new(options).unwrap()
    }

    async fn invoke(&self) -> Result<BatchResponse, HandlerError> {
        invoke(&self.handler("/", |_| {})).await
    }

    async fn invoke_emulator(&self) -> Result<BatchResponse, HandlerError> {
        invoke(&self.handler("/2015-03-31/functions/function/invocations", |_| {})).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn invoke(handler: &UrlHandler) -> Result<BatchResponse, HandlerError> {
    invoke_within(handler, Duration::from_secs(30), EVENT.to_vec()).await
}

async fn invoke_within(
    handler: &UrlHandler,
    timeout: Duration,
    event: Vec<u8>,
) -> Result<BatchResponse, HandlerError> {
    let mut cx = InvokeContext::for_test("shardId-000000000000");
    cx.deadline = Instant::now() + timeout;
    handler.shared.invoke(event.into(), &cx).await
}

/// Reads one request: its head in lower case, and its body.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let length: usize = head.split("content-length: ").nth(1)?.lines().next()?.parse().unwrap();
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, bytes.split_off(end)))
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[track_caller]
fn assert_function_error(result: Result<BatchResponse, HandlerError>, contains: &str) {
    match result {
        Err(error @ HandlerError::Function(_)) => {
            let text = format!("{error}; {}", error.details().unwrap_or_default());
            assert!(text.contains(contains), "{text}");
        }
        other => panic!("no function error: {other:?}"),
    }
}

#[track_caller]
fn assert_not_reached(result: Result<BatchResponse, HandlerError>, contains: &str) -> Option<Duration> {
    match result {
        Err(HandlerError::NotReached { reason, retry_after }) => {
            assert!(reason.contains(contains), "{reason}");
            retry_after
        }
        other => panic!("not unreached: {other:?}"),
    }
}

#[tokio::test]
async fn the_request_is_a_post_of_the_event_with_lambdas_headers() {
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            let request = read_request(&mut stream).await.unwrap();
            sender.send(request).unwrap();
            stream.write_all(http("200 OK", "", "").as_bytes()).await.unwrap();
        }
    })
    .await;
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    invoke(&server.handler("/a/b?c=d", |_| {})).await.unwrap();
    let (head, body) = requests.recv().await.unwrap();
    assert_eq!(body, EVENT);
    assert!(head.starts_with("post /a/b?c=d http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nhost: {}\r\n", server.address)), "{head}");
    assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
    let id = InvokeContext::for_test("s").request_id;
    assert!(head.contains(&format!("\r\nlambda-runtime-aws-request-id: {id}\r\n")), "{head}");
    let arn = "lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:000000000000:function:test\r\n";
    assert!(head.contains(arn), "{head}");
    let deadline = head.split("lambda-runtime-deadline-ms: ").nth(1).unwrap().lines().next().unwrap();
    let deadline: u128 = deadline.parse().unwrap();
    assert!(deadline > before + 25_000, "30 s from now: {deadline}");
}

#[tokio::test]
async fn a_2xx_is_success_and_its_body_is_the_response() {
    let body = r#"{"batchItemFailures":[{"itemIdentifier":"49"}]}"#;
    let server = Server::answering(http("200 OK", "", body)).await;
    assert_eq!(server.invoke().await.unwrap(), BatchResponse::failed(["49"]));
    let server = Server::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(server.invoke().await.unwrap(), BatchResponse::success());
}

async fn invoke_while(
    handler: &UrlHandler,
    may_start: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<BatchResponse, HandlerError> {
    let cx = InvokeContext::for_test_while("shardId-000000000000", may_start);
    handler.shared.invoke(EVENT.to_vec().into(), &cx).await
}

#[tokio::test]
async fn incident_90_a_request_is_not_written_once_the_lease_has_run_out() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            sender.send(bytes).unwrap();
        }
    })
    .await;
    let handler = server.handler("/", |_| {});
    // Valid until it is connected, as if the machine had been suspended then.
    assert!(assert_not_reached(invoke_while(&handler, || false).await, "lease ran out").is_some());
    assert_eq!(received.recv().await.unwrap(), b"", "a connection and nothing on it");
}

#[tokio::test]
async fn incident_90_the_free_try_on_a_fresh_connection_needs_a_valid_lease_too() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let server = Server::start(move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_request(&mut stream).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(http("200 OK", "", "{}").as_bytes()).await.unwrap();
            if read_request(&mut stream).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                reset(stream);
            }
        }
    })
    .await;
    let handler = server.handler("/", |_| {});
    invoke(&handler).await.unwrap();
    let asked = AtomicUsize::new(0);
    let once = move || asked.fetch_add(1, Ordering::SeqCst) == 0;
    assert_not_reached(invoke_while(&handler, once).await, "lease ran out");
    // The kernel takes the connection before the server does.
    while server.connections() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!((server.connections(), requests.load(Ordering::SeqCst)), (2, 2), "no third request");
}

#[tokio::test]
async fn r23_a_429_without_retry_after_is_there_and_a_503_may_be_away() {
    for (status, is_there) in [("429 Too Many Requests", true), ("503 Service Unavailable", false)] {
        let server = Server::answering(http(status, "", "busy")).await;
        assert_eq!(assert_not_reached(server.invoke().await, &status[..3]).is_some(), is_there);
    }
}

#[tokio::test]
async fn invocations_share_one_kept_connection() {
    let server = Server::answering(http("200 OK", "", "{}")).await;
    let handler = server.handler("/", |_| {});
    for _ in 0..5 {
        invoke(&handler).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_2xx_with_x_amz_function_error_is_a_function_error() {
    let answer = http("200 OK", "X-Amz-Function-Error: Unhandled\r\n", r#"{"errorMessage":"boom"}"#);
    assert_function_error(Server::answering(answer).await.invoke().await, "boom");
}

#[tokio::test]
async fn r23_without_not_reached_statuses_an_answer_of_429_is_a_function_error() {
    let server = Server::answering(http("429 Too Many Requests", "", "busy")).await;
    let handler = server.handler("/", |o| o.not_reached_status = vec![]);
    let error = invoke(&handler).await.unwrap_err();
    assert!(matches!(error, HandlerError::Function(_)), "{error}");
}

#[tokio::test]
async fn r23_a_not_reached_status_is_not_reached_and_honours_retry_after() {
    for status in ["408 Request Timeout", "429 Too Many Requests", "503 Service Unavailable"] {
        let server = Server::answering(http(status, "Retry-After: 7\r\n", "busy")).await;
        let wait = assert_not_reached(server.invoke().await, &status[..3]);
        assert_eq!(wait, Some(Duration::from_secs(7)));
    }
    let server = Server::answering(http("404 Not Found", "", "")).await;
    let handler = server.handler("/", |o| o.not_reached_status = vec![404]);
    assert_eq!(assert_not_reached(invoke(&handler).await, "404"), None);
}

#[tokio::test]
async fn r23_a_not_reached_status_whose_body_never_comes_is_not_reached() {
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 10\r\n\r\n";
    let server = Server::answering(head).await;
    let handler = server.handler("/", |_| {});
    assert_not_reached(invoke_within(&handler, Duration::from_millis(500), EVENT.to_vec()).await, "503");
}

#[tokio::test]
async fn every_other_status_is_a_function_error() {
    for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Oops", "502 Bad Gateway"] {
        let server = Server::answering(http(status, "", "details")).await;
        assert_function_error(server.invoke().await, "details");
    }
    let server = Server::answering(http("302 Found", "Location: /x\r\n", "")).await;
    assert_function_error(server.invoke().await, "redirects are not followed");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_a_function_error_at_the_deadline() {
    let server = Server::start(|_, stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let handler = server.handler("/", |_| {});
    let result = invoke_within(&handler, Duration::from_millis(200), EVENT.to_vec()).await;
    assert_function_error(result, "no answer within Function.Timeout");
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_a_function_error() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    let server = Server::answering(half).await;
    let handler = server.handler("/", |_| {});
    let result = invoke_within(&handler, Duration::from_millis(200), EVENT.to_vec()).await;
    assert_function_error(result, "no answer within Function.Timeout");
    let server = Server::start(move |_, mut stream| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
    })
    .await;
    assert_function_error(server.invoke().await, "broke off");
}

#[tokio::test]
async fn a_body_over_6_mib_is_a_function_error_and_one_of_6_mib_is_not() {
    let json = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    let server = Server::answering(http("200 OK", "", &json(MAXIMUM_RESPONSE_BYTES))).await;
    assert_eq!(server.invoke().await.unwrap(), BatchResponse::success());
    let server = Server::answering(http("200 OK", "", &json(MAXIMUM_RESPONSE_BYTES + 1))).await;
    assert_function_error(server.invoke().await, "6 MiB");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_function_error_only_where_json_is_needed() {
    let server = Server::answering(http("200 OK", "", "done!")).await;
    assert_function_error(server.invoke().await, "not JSON");
    let handler = server.handler("/", |o| o.reads_response = false);
    assert_eq!(invoke(&handler).await.unwrap(), BatchResponse::success());
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_function_error() {
    assert_function_error(Server::answering("SSH-2.0-OpenSSH\r\n\r\n").await.invoke().await, "HTTP/1.1");
}

#[tokio::test]
async fn r24_413_is_too_large_also_when_the_server_stops_reading() {
    let server = Server::answering(http("413 Payload Too Large", "", "")).await;
    assert!(matches!(server.invoke().await, Err(HandlerError::TooLarge(_))));
    let server = Server::start(|_, mut stream| async move {
        let mut some = [0; 1000];
        stream.read_exact(&mut some).await.unwrap();
        let answer = http("413 Payload Too Large", "connection: close\r\n", "");
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        // A moment in which the client may still write.
        let mut rest = vec![0; 1 << 20];
        while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let handler = server.handler("/", |_| {});
    let result = invoke_within(&handler, Duration::from_secs(30), vec![b' '; 40 << 20]).await;
    assert!(matches!(result, Err(HandlerError::TooLarge(_))), "{result:?}");
}

#[tokio::test]
async fn the_emulators_busy_400_is_not_reached_but_a_400_with_a_body_is_a_function_error() {
    let busy = Server::answering(http("400 Bad Request", "", "")).await;
    assert_not_reached(busy.invoke_emulator().await, "busy");
    assert_function_error(busy.invoke().await, "400");
    let other = Server::answering(http("400 Bad Request", "", "no")).await;
    assert_function_error(other.invoke_emulator().await, "no");
}

#[tokio::test]
async fn the_emulators_200_that_tells_of_a_timeout_or_an_exception_is_a_function_error() {
    let timeout = Server::answering(http("200 OK", "", "Task timed out after 3.00 seconds")).await;
    assert_function_error(timeout.invoke_emulator().await, "Task timed out");
    let exception = r#"{"errorMessage":"boom","errorType":"ValueError","stackTrace":[]}"#;
    let exception = Server::answering(http("200 OK", "", exception)).await;
    assert_function_error(exception.invoke_emulator().await, "boom");
    assert_eq!(exception.invoke().await.unwrap(), BatchResponse::success());
    let crash = Server::answering(http("502 Bad Gateway", "", "crash")).await;
    assert_function_error(crash.invoke_emulator().await, "crash");
}

#[tokio::test]
async fn the_emulators_empty_200_and_an_answer_with_item_failures_are_no_errors() {
    let empty = Server::answering(http("200 OK", "", "")).await;
    assert_eq!(empty.invoke_emulator().await.unwrap(), BatchResponse::success());
    let both = r#"{"errorMessage":"","errorType":"","batchItemFailures":[{"itemIdentifier":"1"}]}"#;
    let both = Server::answering(http("200 OK", "", both)).await;
    assert_eq!(both.invoke_emulator().await.unwrap(), BatchResponse::failed(["1"]));
}

#[tokio::test]
async fn the_emulator_gets_one_invocation_at_a_time() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    static OVERLAPPED: AtomicBool = AtomicBool::new(false);
    let server = Server::start(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let others = RUNNING.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            OVERLAPPED.fetch_or(others > 0, Ordering::SeqCst);
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            if stream.write_all(http("200 OK", "", "{}").as_bytes()).await.is_err() {
                return;
            }
            SERVED.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let handler = server.handler("/x/invocations", |_| {});
    let elsewhere = server.handler("/x", |_| {});
    // The consumer that invokes asks for a place first, and all shards share the one there is.
    let at_once = |handler: &UrlHandler| handler.places().maximum();
    assert_eq!((at_once(&handler), at_once(&handler.clone()), at_once(&elsewhere)), (Some(1), Some(1), None));
    let mapping = shardmill::EventSourceMapping::builder(
        "arn:aws:kinesis:us-east-1:000000000000:stream/orders",
        "orders-worker",
    );
    let mapping = mapping.batch_size(1).build().unwrap();
    let store = shardmill::checkpoint::MemoryStore::default();
    let consumer = shardmill::Consumer::builder(mapping, source::Shards(8), handler);
    let consumer = consumer.lease_store(store).build().unwrap();
    let shutdown = shardmill::CancellationToken::new();
    let run = tokio::spawn(consumer.run(shutdown.clone()));
    while SERVED.load(Ordering::SeqCst) < 32 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    run.await.unwrap().unwrap();
    assert!(!OVERLAPPED.load(Ordering::SeqCst), "one at a time");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_url_that_cannot_be_used_is_refused_and_no_secret_is_repeated() {
    let refuse = |url: &str| UrlHandler::new(UrlOptions::new(url)).unwrap_err();
    assert!(matches!(refuse("localhost:8080"), UrlError::Scheme { .. } | UrlError::Invalid { .. }));
    assert!(matches!(refuse("ftp://host/"), UrlError::Scheme { .. }));
    assert!(matches!(refuse("http://"), UrlError::Invalid { .. }));
    assert!(matches!(refuse("/path"), UrlError::Scheme { .. }));
    assert!(!refuse("http://me:secret@host/").to_string().contains("secret"));
}

#[tokio::test]
async fn the_probe_opens_a_connection_and_sends_nothing() {
    let server = Server::answering("").await;
    server.handler("/", |_| {}).probe().await.unwrap();
}
