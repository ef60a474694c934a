//! What the hosts speak.

use std::collections::HashMap;
use std::sync::Arc;

use aws_smithy_http_client::pool::{ConnectionEvent, ConnectionProtocol, OriginKey};
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, watch};

use super::lanes::Unopened;

/// The hosts that were called over TLS, by the authority in their URL.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<String, Arc<Origin>>>);

#[derive(Debug)]
pub(super) struct Origin {
    key: OriginKey,
    speaks: watch::Sender<Option<ConnectionProtocol>>,
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
            origin.speaks.send_replace(Some(connection.protocol()));
        }
    }
}

impl Origin {
    pub(super) fn speaks(&self) -> Option<ConnectionProtocol> {
        *self.speaks.borrow()
    }

    /// While it is not known what the host speaks, one call goes ahead, and those that come meanwhile wait until it is
    /// known or that call has ended. Otherwise a host of HTTP/1.1 would get all of them on the few connections meant for HTTP/2.
    pub(super) async fn first_call(&self) -> Option<MutexGuard<'_, ()>> {
        if self.speaks().is_some() {
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
