//! URLs without what must stay secret.

use std::fmt;

/// Shows scheme, host, port and path of a URL, and nothing of the rest: keys live in the query, passwords before the @.
/// The text need not be a URL.
#[derive(Clone, Copy, Debug)]
pub struct ShownUrl<'a>(pub &'a str);

impl fmt::Display for ShownUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = authority.rsplit('@').next().unwrap_or_default();
        if !scheme.is_empty() {
            write!(f, "{scheme}://")?;
        }
        write!(f, "{host}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_86_a_url_is_shown_without_what_is_secret_in_it() {
        for (url, shown) in [
            ("https://me:s@cret@host:8443/a/b?code=secret#x", "https://host:8443/a/b"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://host?key=secret", "http://host"),
            ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
            ("me:secret@host/path", "host/path"),
            ("", ""),
        ] {
            assert_eq!(ShownUrl(url).to_string(), shown, "{url}");
        }
    }
}
