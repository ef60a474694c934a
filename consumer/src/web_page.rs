//! A web page in place of a service's answer: a proxy, a portal or another server is at the endpoint.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// What to do about it.
pub(crate) const REMEDY: &str =
    "something else than the service answers there: check the endpoint's URL and proxies";

/// What was found, if the answer is a web page. One with status 429 asks to slow down all the same.
pub(crate) fn found(answer: &HttpResponse) -> Option<String> {
    let status = answer.status().as_u16();
    let content_type = answer.headers().get("content-type").unwrap_or_default();
    let is_page = content_type.contains("html") || answer.body().bytes().is_some_and(begins_a_page);
    (is_page && status != 429).then(|| format!("HTTP status {status} with a web page instead of an answer"))
}

fn begins_a_page(body: &[u8]) -> bool {
    let begins = |with: &str| {
        let body = body.trim_ascii_start();
        body.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    begins("<html") || begins("<!doctype html")
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    #[test]
    fn a_web_page_is_told_from_an_answer_by_its_type_or_its_beginning() {
        let answer = |status: u16, content_type: Option<&'static str>, body: &'static str| {
            let mut answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
            if let Some(content_type) = content_type {
                answer.headers_mut().insert("content-type", content_type);
            }
            found(&answer)
        };
        let page = Some("HTTP status 502 with a web page instead of an answer".to_owned());
        assert_eq!(answer(502, Some("text/html; charset=utf-8"), ""), page);
        assert_eq!(answer(502, None, "\n<!DOCTYPE HTML><title>Bad Gateway"), page);
        assert!(answer(200, None, "<html>").is_some());
        assert_eq!(answer(429, Some("text/html"), "<html>"), None);
        assert_eq!(answer(404, Some("application/xml"), "<Error><Code>NoSuchBucket</Code></Error>"), None);
        assert_eq!(answer(400, Some("application/x-amz-json-1.1"), "{}"), None);
    }
}
