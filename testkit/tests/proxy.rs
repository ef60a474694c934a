//! The fault proxy, between raw sockets and between the real SDK client and a served fake.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code")]

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::SdkError;
use shardmill_testkit::{FakeKinesis, FaultProxy, ProxyMode};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Sends back what it gets, and says goodbye when the other side does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = socket.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    address
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn round_trip(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut got = vec![0; text.len()];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(got, text.as_bytes());
}

#[tokio::test]
async fn it_passes_bytes_and_each_sides_end() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let socket = connect(&proxy).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let (mut reads, mut writes) = socket.into_split();
    let expected = sent.clone();
    tokio::spawn(async move {
        writes.write_all(&sent).await.unwrap();
        writes.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    reads.read_to_end(&mut got).await.unwrap();
    assert!(got == expected, "{} bytes came back changed", got.len());
    assert_eq!((proxy.accepted(), proxy.mode()), (1, ProxyMode::Pass));
}

#[tokio::test]
async fn latency_delays_existing_connections_in_both_directions() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let mut socket = connect(&proxy).await;
    round_trip(&mut socket, "before").await;
    proxy.set(ProxyMode::Latency(Duration::from_millis(100))).await.unwrap();
    let start = Instant::now();
    round_trip(&mut socket, "late").await;
    assert!(start.elapsed() >= Duration::from_millis(200), "it took only {:?}", start.elapsed());
}

#[tokio::test]
async fn cut_after_gives_exactly_so_many_bytes_on_old_and_new_connections() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let mut old = connect(&proxy).await;
    round_trip(&mut old, "not counted").await;
    for cut in [0, 7] {
        proxy.set(ProxyMode::CutAfter(cut)).await.unwrap();
        for mut socket in [old, connect(&proxy).await] {
            if cut > 4 {
                round_trip(&mut socket, "four").await;
            }
            socket.write_all(b"and more").await.unwrap();
            let mut got = Vec::new();
            // Closed in order, or reset if the other end wrote meanwhile: the bytes are what counts.
            let _ = socket.read_to_end(&mut got).await;
            assert_eq!(got.len(), usize::try_from(cut.saturating_sub(4)).unwrap());
        }
        proxy.set(ProxyMode::Pass).await.unwrap();
        old = connect(&proxy).await;
        round_trip(&mut old, "not counted either").await;
    }
}

#[tokio::test]
async fn reset_ends_old_connections_at_once_and_new_ones_on_arrival() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let mut old = connect(&proxy).await;
    round_trip(&mut old, "works").await;
    proxy.set(ProxyMode::Reset).await.unwrap();
    assert_eq!(proxy.open(), 0);
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut new = connect(&proxy).await;
    assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.set(ProxyMode::Pass).await.unwrap();
    round_trip(&mut connect(&proxy).await, "works again").await;
}

#[tokio::test]
async fn a_black_hole_accepts_and_never_answers_and_lets_late_bytes_through_at_its_end() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let mut old = connect(&proxy).await;
    round_trip(&mut old, "works").await;
    proxy.set(ProxyMode::BlackHole).await.unwrap();
    let mut new = connect(&proxy).await;
    for socket in [&mut old, &mut new] {
        socket.write_all(b"hello?").await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut [0])).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    proxy.set(ProxyMode::Pass).await.unwrap();
    for socket in [&mut old, &mut new] {
        let mut late = [0; 6];
        socket.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"hello?");
    }
}

#[tokio::test]
async fn refuse_closes_the_port_and_it_comes_back_at_the_same_place() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let mut old = connect(&proxy).await;
    round_trip(&mut old, "works").await;
    proxy.set(ProxyMode::Refuse).await.unwrap();
    assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.set(ProxyMode::Pass).await.unwrap();
    round_trip(&mut connect(&proxy).await, "works again").await;
}

#[tokio::test]
async fn the_sdk_sees_each_mode_and_recovers() {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 1).unwrap();
    let server = fake.serve().await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let config = aws_sdk_kinesis::config::Builder::from(&server.sdk_config())
        .endpoint_url(proxy.url())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().read_timeout(Duration::from_secs(2)).build());
    let client = Client::from_conf(config.build());
    let list = async || client.list_shards().stream_name("orders").send().await;
    assert_eq!(list().await.unwrap().shards().len(), 1);
    let modes = [ProxyMode::CutAfter(10), ProxyMode::Reset, ProxyMode::BlackHole, ProxyMode::Refuse];
    for mode in modes {
        proxy.set(mode).await.unwrap();
        let error = list().await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{mode:?}: {error:?}");
        let timed_out = matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout());
        assert_eq!(timed_out, mode == ProxyMode::BlackHole, "{mode:?}: {error:?}");
        proxy.set(ProxyMode::Pass).await.unwrap();
        assert_eq!(list().await.unwrap().shards().len(), 1, "after {mode:?}");
    }
    drop(proxy);
    list().await.unwrap_err();
}

#[tokio::test]
async fn one_connection_stalls_and_the_others_go_on() {
    let proxy = FaultProxy::start(echo().await).await.unwrap();
    let (mut first, mut second) = (connect(&proxy).await, connect(&proxy).await);
    round_trip(&mut first, "first").await;
    round_trip(&mut second, "second").await;
    assert_eq!(proxy.accepted(), 2);
    proxy.stall(0);
    first.write_all(b"late").await.unwrap();
    round_trip(&mut second, "goes on").await;
    round_trip(&mut connect(&proxy).await, "and so does a new one").await;
    assert!(first.try_read(&mut [0; 4]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    proxy.resume(0);
    let mut got = [0; 4];
    first.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"late");
}
