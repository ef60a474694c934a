//! Which requests are answered: not those that a web page makes a browser send.
//!
//! There is no password, so every client that reaches the address may read. A browser reaches addresses that its web
//! pages cannot, and a page of `evil.example` may read what it fetches from `evil.example`, also when that name
//! suddenly resolves to 127.0.0.1 (DNS rebinding). Such a request names the foreign host.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const FOREIGN_HOST: Refusal = Refusal {
    status: StatusCode::MISDIRECTED_REQUEST,
    why: "refused: the request's Host is a public name. Ask by an IP address, as probes of Kubernetes do, by localhost, \
          or by a name without a dot, as in Compose\n",
};
const FOREIGN_ORIGIN: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    why: "refused: the request's Origin is another site's page; nothing is served to pages\n",
};

/// Why this request must not be answered, if so.
pub(super) fn refusal(uri: &Uri, headers: &HeaderMap) -> Option<Refusal> {
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    let named = uri.authority().map(Authority::as_str).into_iter().chain(host);
    if !named.clone().all(is_ours) {
        return Some(FOREIGN_HOST);
    }
    let origin = headers.get(header::ORIGIN)?.to_str().unwrap_or("?");
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    (site.is_none() || site != host).then_some(FOREIGN_ORIGIN)
}

/// Whether only this machine and its own network decide what the host resolves to: it is an IP address,
/// `localhost`, or a name without a dot, which no registry of names gives away.
fn is_ours(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<std::net::IpAddr>().is_ok() || !host.trim_end_matches('.').contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(host: Option<&str>, origin: Option<&str>) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        headers.extend(host.map(|host| (header::HOST, host.parse().unwrap())));
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        refusal(&"/v1/status".parse().unwrap(), &headers).map(|refusal| refusal.status)
    }

    #[test]
    fn incident_83_a_host_is_an_address_or_a_local_name() {
        for host in [
            "127.0.0.1:9464",
            "10.1.2.3",
            "[::1]:9464",
            "localhost",
            "LOCALHOST:9464",
            "sidecar:9464",
            "localhost.",
        ] {
            assert_eq!(judged(Some(host), None), None, "{host}");
        }
        assert_eq!(judged(None, None), None, "HTTP/1.0 names none");
        for host in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a b",
            "",
        ] {
            assert_eq!(judged(Some(host), None), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
    }

    #[test]
    fn incident_83_the_host_in_the_request_line_counts_too() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1".parse().unwrap());
        let uri: Uri = "http://evil.example/v1/status".parse().unwrap();
        assert_eq!(refusal(&uri, &headers), Some(FOREIGN_HOST));
    }

    #[test]
    fn incident_83_a_page_of_another_site_is_refused() {
        let host = Some("127.0.0.1:9464");
        assert_eq!(judged(host, Some("http://127.0.0.1:9464")), None);
        for origin in ["https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:9464"] {
            assert_eq!(judged(host, Some(origin)), Some(StatusCode::FORBIDDEN), "{origin}");
        }
        assert_eq!(judged(None, Some("http://127.0.0.1")), Some(StatusCode::FORBIDDEN));
    }
}
