//! What the hosts speak.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_http_client::pool::{ConnectionEvent, ConnectionProtocol, OriginKey};
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, watch};
use tokio::time::Instant;

use super::lanes::Unopened;

/// A host that spoke HTTP/1.1 is tried for HTTP/2 by one call after so long: a single machine behind a load balancer may have been
/// set up differently.
const LEARN_ANEW: Duration = Duration::from_secs(5 * 60);

/// The hosts that were called over TLS, by the authority in their URL.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<String, Arc<Origin>>>);

#[derive(Debug)]
pub(super) struct Origin {
    key: OriginKey,
    speaks: watch::Sender<Option<(ConnectionProtocol, Instant)>>,
    /// Held by a call while it is not known what the host speaks.
    first: tokio::sync::Mutex<()>,
    pub(super) unopened: Unopened,
}

impl Origins {
    /// `None` if the URL is not one of TLS, or cannot be read, which the plain client says better.
    pub(super) fn of(&self, url: &str) -> Option<Arc<Origin>> {
        let rest = url.strip_prefix("https://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let mut origins = self.0.lock();
        if let Some(origin) = origins.get(authority) {
            return Some(Arc::clone(origin));
        }
        let key = OriginKey::from_uri(&url.parse().ok()?).ok()?;
        let origin = Arc::new(Origin {
            key,
            speaks: watch::Sender::new(None),
            first: tokio::sync::Mutex::default(),
            unopened: Unopened::default(),
        });
        origins.insert(authority.to_owned(), Arc::clone(&origin));
        Some(origin)
    }

    /// What the handshake of a new connection has shown.
    pub(super) fn note(&self, event: &ConnectionEvent<'_>) {
        let ConnectionEvent::Opened(opened) = event else { return };
        let connection = opened.connection();
        for origin in self.0.lock().values().filter(|origin| origin.key == *connection.origin()) {
            origin.learned(connection.protocol());
        }
    }
}

impl Origin {
    fn learned(&self, protocol: ConnectionProtocol) {
        self.speaks.send_replace(Some((protocol, Instant::now())));
    }

    /// Whether a call needs a connection of its own.
    pub(super) fn takes_one_call_a_connection(&self) -> bool {
        let is_tried = self.speaks.send_if_modified(|speaks| match speaks {
            Some((ConnectionProtocol::Http1, since)) if since.elapsed() >= LEARN_ANEW => {
                // The others go on as before meanwhile.
                *since = Instant::now();
                true
            }
            _ => false,
        });
        !is_tried && self.speaks_http1()
    }

    pub(super) fn speaks_http1(&self) -> bool {
        matches!(*self.speaks.borrow(), Some((ConnectionProtocol::Http1, _)))
    }

    /// While it is not known what the host speaks, one call goes ahead, and those that come meanwhile wait until it is
    /// known or that call has ended. Otherwise a host of HTTP/1.1 would get all of them on the few connections meant for HTTP/2.
    pub(super) async fn first_call(&self) -> Option<MutexGuard<'_, ()>> {
        if self.speaks.borrow().is_some() {
            return None;
        }
        if let Ok(turn) = self.first.try_lock() {
            return Some(turn);
        }
        let mut speaks = self.speaks.subscribe();
        tokio::select! {
            _ = async { speaks.wait_for(Option::is_some).await.is_ok() } => {}
            _ = self.first.lock() => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_of_http1_is_tried_for_http2_by_one_call_every_five_minutes() {
        let origin = Origins::default().of("https://host.example/").unwrap();
        assert!(!origin.takes_one_call_a_connection(), "nothing is known yet");
        origin.learned(ConnectionProtocol::Http1);
        let three_calls = || [(); 3].map(|()| origin.takes_one_call_a_connection());
        assert_eq!(three_calls(), [true; 3]);
        for _ in 0..2 {
            tokio::time::advance(LEARN_ANEW).await;
            assert_eq!(three_calls(), [false, true, true]);
        }
        origin.learned(ConnectionProtocol::Http2);
        tokio::time::advance(LEARN_ANEW).await;
        assert_eq!(three_calls(), [false; 3]);
    }

    #[test]
    fn an_authority_is_one_origin_and_what_is_not_tls_is_none() {
        let origins = Origins::default();
        let first = origins.of("https://kinesis.us-east-1.amazonaws.com/").unwrap();
        let second = origins.of("https://kinesis.us-east-1.amazonaws.com?Action=x").unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(origins.of("http://127.0.0.1:4566/").is_none());
        assert!(origins.of("https://").is_none());
    }
}
