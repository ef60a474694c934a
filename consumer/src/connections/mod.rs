//! Connections to AWS: reads are spread over several connections of HTTP/2.

mod lanes;
mod origins;
mod silence;

use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::pool::{
    self, ConnectionEvent, ConnectionPool, ConnectionReuseScope, DriverSpawner, Partition, PartitionId,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::lanes::{Place, Shared};
use self::origins::{Origin, Origins};
use self::silence::{Rest, Silence};

/// Half of the 100 calls that a server should permit on a connection (RFC 9113, 6.5.2): where another connection does
/// not move, the others take its share.
const READS_PER_CONNECTION: usize = 50;

/// An HTTP client for the SDK that has as many reads under way as are permitted.
///
/// The SDK's own client opens one connection of HTTP/2 to a host, and all calls share it: no more of them are under way
/// than the server permits on a connection, usually 100 to 128, and one that stalls stalls all. This client opens one for every 50
/// reads, at least two, and has each call made on the connection with the fewest calls under way. Hosts that speak HTTP/1.1
/// alone, and `http` endpoints, get a connection for each call, of which up to the number of reads are kept. Certificates,
/// proxies and timeouts are as with the SDK's own client.
///
/// ```
/// # async fn example() {
/// use shardmill::Connections;
///
/// let config = aws_config::load_from_env().await;
/// let config = config.into_builder().http_client(Connections::for_reads(256).http_client()).build();
/// // KinesisSource::new(&config, ..); a DynamoDbStore gets a configuration without it, and so connections of its own.
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connections {
    reads: usize,
    tls: TlsContext,
}

impl Connections {
    /// Connections for so many reads under way: [`WorkerOptions::maximum_concurrent_reads`](crate::WorkerOptions::maximum_concurrent_reads),
    /// which is 256 by default.
    #[must_use]
    pub fn for_reads(maximum_concurrent_reads: usize) -> Self {
        Self { reads: maximum_concurrent_reads.max(1), tls: TlsContext::default() }
    }

    /// Which certificates are trusted; by default, as with the SDK's own client, the host's, or those of the file that
    /// the environment variable `SSL_CERT_FILE` names.
    #[must_use]
    pub fn tls_context(mut self, tls: TlsContext) -> Self {
        self.tls = tls;
        self
    }

    /// The client. Its connections live on the runtime of its first call.
    #[must_use]
    pub fn http_client(self) -> SharedHttpClient {
        let (runtime, origins) = (Arc::<OnceLock<Handle>>::default(), Arc::<Origins>::default());
        let lanes = self.lanes(&runtime, &origins);
        let shared = Shared { in_flight: Mutex::new(vec![0; lanes.len()]), origins, runtime };
        SharedHttpClient::new(Client {
            plain: self.plain(),
            lanes,
            shared: Arc::new(shared),
            made: Mutex::default(),
        })
    }

    /// How many connections of HTTP/2 a host gets.
    fn count(&self) -> usize {
        self.reads.div_ceil(READS_PER_CONNECTION).max(2).min(self.reads)
    }

    fn lanes(&self, runtime: &Arc<OnceLock<Handle>>, origins: &Arc<Origins>) -> Vec<pool::Client> {
        let ids = (0..self.count()).map(PartitionId::from_index);
        let partition = |id| {
            let runtime = Arc::clone(runtime);
            let spawner = DriverSpawner::from_fn(move |task| {
                if let Some(runtime) = runtime.get() {
                    runtime.spawn(task);
                }
            });
            Partition::new(id, spawner)
        };
        let origins = Arc::clone(origins);
        let pool = ConnectionPool::builder()
            .partitions(ids.clone().map(partition))
            .connection_reuse_scope(ConnectionReuseScope::Partition)
            // Calls that begin together would each open one: the protocol is known only after the handshake.
            .max_connections_per_host(self.count())
            .proxy_config(ProxyConfig::from_env())
            .event_listener(move |event: &ConnectionEvent<'_>| origins.note(event))
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(self.tls.clone())
            .build_https()
            .expect("the bound is above zero, and the SDK's timer is compiled in");
        let client = |id| pool::Client::from_partition(&pool, id).expect("the pool has this partition");
        ids.map(client).collect()
    }

    /// The SDK's own HTTP client, with fewer idle connections: without a bound it would keep as many as it ever had at once.
    fn plain(&self) -> SharedHttpClient {
        let Self { reads, tls } = self.clone();
        Builder::new().build_with_connector_fn(move |settings, components| {
            let provider = Provider::Rustls(CryptoMode::AwsLc);
            let connector = ConnectorBuilder::default().tls_provider(provider).tls_context(tls.clone());
            let mut connector = connector.pool_max_idle_per_host(reads);
            connector.set_connector_settings(settings.cloned());
            connector.set_proxy_config(Some(ProxyConfig::from_env()));
            if let Some(components) = components {
                connector.set_sleep_impl(components.sleep_impl());
            }
            connector.build()
        })
    }
}

type Timeouts = (Option<Duration>, Option<Duration>);

#[derive(Debug)]
struct Client {
    plain: SharedHttpClient,
    lanes: Vec<pool::Client>,
    shared: Arc<Shared>,
    /// Those that were made before: their timeouts are all that distinguishes them.
    made: Mutex<Vec<(Timeouts, SharedHttpConnector)>>,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let mut made = self.made.lock();
        if let Some((_, connector)) = made.iter().find(|(before, _)| *before == timeouts) {
            return connector.clone();
        }
        let lanes = self.lanes.iter().map(|lane| lane.http_connector(settings, components)).collect();
        let plain = self.plain.http_connector(settings, components);
        let spread = Spread { plain, lanes, shared: Arc::clone(&self.shared) };
        let connector = SharedHttpConnector::new(Shareable(Arc::new(spread)));
        made.push((timeouts, connector.clone()));
        connector
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.plain.validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.plain.connector_metadata()
    }
}

#[derive(Debug)]
struct Shareable(Arc<Spread>);

#[derive(Debug)]
struct Spread {
    /// One call on a connection.
    plain: SharedHttpConnector,
    /// Each has one connection of HTTP/2 to a host.
    lanes: Vec<SharedHttpConnector>,
    shared: Arc<Shared>,
}

impl HttpConnector for Shareable {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Some(origin) = self.0.shared.origins.of(request.uri()) else {
            return self.0.plain.call(request);
        };
        let spread = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move { spread.send(&origin, request).await })
    }
}

impl Spread {
    async fn send(&self, origin: &Origin, mut request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let turn = origin.first_call().await;
        if origin.takes_one_call_a_connection() {
            return self.plain.call(request).await;
        }
        self.shared.runtime.get_or_init(Handle::current);
        let place = Place::take(&self.shared, origin);
        let mut silence = Silence::watch(&mut request);
        let answer = self.lanes[place.lane].call(request).await;
        match &answer {
            Ok(_) => origin.unopened.remove(place.lane),
            Err(_) if !silence.is_on_a_connection() => origin.unopened.add(place.lane),
            Err(_) => {}
        }
        drop(turn);
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => {
                // A timeout that nothing came before is silence, too; one that nothing was sent before has no connection.
                if !error.is_timeout() {
                    silence.is_over();
                }
                return Err(error);
            }
        };
        if origin.speaks_http1() {
            // The next call that tries the host has to make a handshake.
            silence.end_connection();
        }
        let body = mem::replace(response.body_mut(), SdkBody::taken());
        *response.body_mut() = SdkBody::from_body_1_x(Rest::new(body, silence, place));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_connection_for_every_fifty_reads_and_never_one_alone() {
        let count = |reads| Connections::for_reads(reads).count();
        assert_eq!([1, 2, 3, 100, 101, 256, 10_000].map(count), [1, 2, 2, 2, 3, 6, 200]);
    }
}
