//! Reads over TLS with HTTP/2: how many are under way at once, and over which connections.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Config, SharedHttpClient};
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use shardmill::Connections;
use shardmill_testkit::kinesis::{Fault, Operation, Server};
use shardmill_testkit::{FakeKinesis, FaultProxy, ProxyMode, TlsOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The default of `Worker.MaximumConcurrentReads`.
const READS: usize = 256;

/// A stream behind TLS, and a proxy that sees the connections to it.
struct Service {
    fake: FakeKinesis,
    server: Server,
    proxy: FaultProxy,
}

impl Service {
    async fn start(options: TlsOptions) -> Self {
        let fake = FakeKinesis::new();
        fake.create_stream("orders", 1).unwrap();
        let server = fake.serve_tls(options).await.unwrap();
        let proxy = FaultProxy::start(server.address()).await.unwrap();
        Self { fake, server, proxy }
    }

    fn client(&self, http: SharedHttpClient) -> Client {
        self.client_at(http, &format!("https://{}", self.proxy.address()))
    }

    fn client_at(&self, http: SharedHttpClient, url: &str) -> Client {
        let config = self.server.sdk_config().into_builder().http_client(http).endpoint_url(url);
        let config = config.retry_config(RetryConfig::disabled());
        Client::new(&config.timeout_config(TimeoutConfig::disabled()).build())
    }

    fn spread(&self, reads: usize) -> Client {
        let trusted = TrustStore::empty().with_pem_certificate(self.server.certificate().unwrap());
        let context = TlsContext::builder().with_trust_store(trusted).build().unwrap();
        self.client(Connections::for_reads(reads).tls_context(context).http_client())
    }

    /// How many reads were under way at once, at most.
    fn at_once(&self) -> usize {
        self.fake.calls().of(Operation::GetRecords).max_in_flight()
    }

    /// How many reads arrived.
    fn arrived(&self) -> usize {
        self.fake.calls().of(Operation::GetRecords).len()
    }
}

async fn iterator(client: &Client) -> String {
    let call = client.get_shard_iterator().stream_name("orders").shard_id("shardId-000000000000");
    let opened = call.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
    opened.unwrap().shard_iterator.unwrap()
}

/// So many reads that begin at the same time.
fn reads(client: &Client, iterator: &str, count: usize) -> JoinSet<()> {
    let read = |_| {
        let call = client.get_records().shard_iterator(iterator);
        async move { drop(call.send().await.unwrap()) }
    };
    (0..count).map(read).collect()
}

async fn ended(reads: &mut JoinSet<()>, count: usize) {
    for _ in 0..count {
        reads.join_next().await.unwrap().unwrap();
    }
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never reached: {what}");
}

#[tokio::test]
async fn with_the_sdks_own_client_no_more_reads_are_under_way_than_a_connection_permits() {
    let service = Service::start(TlsOptions::default()).await;
    let http = service.server.sdk_config().http_client().unwrap();
    let client = service.client(http);
    let iterator = iterator(&client).await;
    let hang = service.fake.faults().on(Operation::GetRecords).hold(Fault::Hang);
    let _reads = reads(&client, &iterator, READS);
    until("the connection is full", || service.at_once() == 100).await;
    // The others have had every chance to come.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((service.arrived(), service.at_once(), hang.hits()), (100, 100, 100));
}

#[tokio::test]
async fn all_reads_are_under_way_at_once_over_few_connections() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    let _hang = service.fake.faults().on(Operation::GetRecords).hold(Fault::Hang);
    let _reads = reads(&client, &iterator, READS);
    until("all reads are under way", || service.at_once() == READS).await;
    assert_eq!(service.proxy.accepted(), 6, "one for every fifty, and none that was opened in vain");
}

#[tokio::test]
async fn one_call_after_the_other_takes_one_connection() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    for _ in 0..20 {
        ended(&mut reads(&client, &iterator, 1), 1).await;
    }
    assert_eq!((service.arrived(), service.proxy.accepted()), (20, 1));
}

#[tokio::test]
async fn a_connection_that_stalls_delays_only_the_reads_on_it() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    let slow =
        service.fake.faults().on(Operation::GetRecords).hold(Fault::Latency(Duration::from_millis(300)));
    ended(&mut reads(&client, &iterator, READS), READS).await;
    assert_eq!(service.proxy.accepted(), 6);
    drop(slow);

    service.proxy.stall(0);
    let mut first = reads(&client, &iterator, READS);
    // The connection holds a sixth of them.
    ended(&mut first, READS - READS.div_ceil(6)).await;
    for _ in 0..20 {
        ended(&mut reads(&client, &iterator, 50), 50).await;
    }
    let arrived = service.arrived();
    assert!((READS + 1_000..READS + 1_000 + READS).contains(&arrived), "{arrived}");
    assert!(!first.is_empty(), "some reads are on the connection that stalls");

    service.proxy.resume(0);
    while let Some(read) = first.join_next().await {
        read.unwrap();
    }
    assert_eq!((service.arrived(), service.proxy.accepted()), (2 * READS + 1_000, 6));
}

#[tokio::test]
async fn a_connection_on_which_a_call_got_no_answer_is_not_used_again() {
    let seconds = Duration::from_secs;
    // Either may be the one that ends a call.
    for limit in [
        TimeoutConfig::builder().operation_timeout(seconds(2)).build(),
        TimeoutConfig::builder().read_timeout(seconds(2)).build(),
    ] {
        let service = Service::start(TlsOptions::default()).await;
        let client = service.spread(READS);
        let iterator = iterator(&client).await;
        service.proxy.stall(0);
        let call = |limit: TimeoutConfig| {
            let limited = Config::builder().timeout_config(limit);
            client.get_records().shard_iterator(&iterator).customize().config_override(limited).send()
        };
        call(limit.clone()).await.unwrap_err();
        assert_eq!((service.arrived(), service.proxy.accepted()), (0, 1), "{limit:?}");
        call(TimeoutConfig::builder().operation_timeout(seconds(60)).build()).await.unwrap();
        assert_eq!((service.arrived(), service.proxy.accepted()), (1, 2), "{limit:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_silent_in_the_middle_of_a_body_is_not_used_again() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    let slow = Fault::SlowBody(Duration::from_secs(600));
    let slow = service.fake.faults().on(Operation::GetRecords).hold(slow);
    let call = |seconds| {
        let limit = TimeoutConfig::builder().operation_timeout(Duration::from_secs(seconds)).build();
        let limited = Config::builder().timeout_config(limit);
        client.get_records().shard_iterator(&iterator).customize().config_override(limited).send()
    };
    call(2).await.unwrap_err();
    assert_eq!((service.arrived(), service.proxy.accepted()), (1, 1));
    drop(slow);
    call(60).await.unwrap();
    assert_eq!((service.arrived(), service.proxy.accepted()), (2, 2));
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_does_not_attract_the_reads_of_those_that_are_open() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    let latency = Fault::Latency(Duration::from_millis(100));
    let _slow = service.fake.faults().on(Operation::GetRecords).hold(latency);
    ended(&mut reads(&client, &iterator, READS), READS).await;
    assert_eq!(service.proxy.accepted(), 6);

    // One of the six is lost, and nothing can be connected any more.
    (6..1_000).for_each(|connection| service.proxy.stall(connection));
    service.proxy.stall(0);
    let limited = |limit| Config::builder().timeout_config(limit);
    let lost = TimeoutConfig::builder().operation_timeout(Duration::from_secs(2)).build();
    let call = client.get_records().shard_iterator(&iterator).customize().config_override(limited(lost));
    call.send().await.unwrap_err();
    let limit = TimeoutConfig::builder().connect_timeout(Duration::from_millis(100)).build();
    let mut failed = 0;
    for _ in 0..20 {
        let read = |_| {
            let call = client.get_records().shard_iterator(&iterator).customize();
            let call = call.config_override(limited(limit.clone()));
            async move { call.send().await.is_err() }
        };
        let reads: JoinSet<bool> = (0..60).map(read).collect();
        failed += reads.join_all().await.into_iter().filter(|is_failed| *is_failed).count();
    }
    // A sixth of the first ones, and one a second.
    assert!((1..100).contains(&failed), "{failed} of 1,200");
}

#[tokio::test]
async fn connections_that_are_reset_are_opened_again() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    ended(&mut reads(&client, &iterator, READS), READS).await;
    let before = service.proxy.accepted();
    service.proxy.set(ProxyMode::Reset).await.unwrap();
    service.proxy.set(ProxyMode::Pass).await.unwrap();
    until("the client has seen it", || service.proxy.open() == 0).await;
    ended(&mut reads(&client, &iterator, READS), READS).await;
    let opened = service.proxy.accepted() - before;
    assert!((1..=6).contains(&opened), "{opened}");
}

/// Load balancers end connections so.
#[tokio::test]
async fn connections_that_take_no_more_calls_are_replaced_and_no_call_fails() {
    let mut options = TlsOptions::default();
    options.calls_per_connection = Some(100);
    let service = Service::start(options).await;
    let client = service.spread(READS);
    let iterator = iterator(&client).await;
    for _ in 0..10 {
        ended(&mut reads(&client, &iterator, READS), READS).await;
    }
    let accepted = service.proxy.accepted();
    assert!((20..=60).contains(&accepted), "{accepted} connections for 2,560 calls");
}

#[tokio::test]
async fn a_host_without_http2_gets_a_connection_for_each_read() {
    let mut options = TlsOptions::default();
    options.http2 = false;
    let service = Service::start(options).await;
    let client = service.spread(64);
    let _hang = service.fake.faults().on(Operation::GetRecords).hold(Fault::Hang);
    let _reads = reads(&client, "of no shard", 64);
    until("all reads are under way", || service.at_once() == 64).await;
    // The first call, with which the protocol was learned, has one of those for HTTP/2.
    assert_eq!(service.proxy.accepted(), 64);
}

/// As when a load balancer is set up anew.
#[tokio::test]
async fn a_host_that_speaks_http2_later_gets_few_connections_again() {
    let mut options = TlsOptions::default();
    options.http2 = false;
    let (old, new) = (Service::start(options).await, Service::start(TlsOptions::default()).await);
    let (set_target, target) = watch::channel(old.proxy.address());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let target = *target.borrow();
            let mut server = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let trusted = [&old, &new].into_iter().fold(TrustStore::empty(), |trusted, service| {
        trusted.with_pem_certificate(service.server.certificate().unwrap())
    });
    let context = TlsContext::builder().with_trust_store(trusted).build().unwrap();
    let client = old.client_at(Connections::for_reads(READS).tls_context(context).http_client(), &url);
    // It learns that the host speaks HTTP/1.1.
    drop(iterator(&client).await);

    set_target.send_replace(new.proxy.address());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(300)).await;
    tokio::time::resume();
    until("its connection is closed", || old.proxy.open() == 0).await;
    let _hang = new.fake.faults().on(Operation::GetRecords).hold(Fault::Hang);
    let iterator = iterator(&client).await;
    let _reads = reads(&client, &iterator, READS);
    until("all reads are under way", || new.at_once() == READS).await;
    assert_eq!((old.proxy.accepted(), new.proxy.accepted()), (1, 6));
}

#[tokio::test]
async fn a_host_that_is_not_reached_fails_every_call_and_is_tried_again() {
    let service = Service::start(TlsOptions::default()).await;
    let client = service.spread(READS);
    service.proxy.set(ProxyMode::Refuse).await.unwrap();
    let calls: JoinSet<bool> = (0..READS)
        .map(|_| {
            let call = client.get_records().shard_iterator("of no shard");
            async move { call.send().await.is_err_and(|error| error.as_service_error().is_none()) }
        })
        .collect();
    assert_eq!(calls.join_all().await, [true; READS]);
    service.proxy.set(ProxyMode::Pass).await.unwrap();
    let iterator = iterator(&client).await;
    ended(&mut reads(&client, &iterator, READS), READS).await;
    assert_eq!(service.arrived(), READS);
}
