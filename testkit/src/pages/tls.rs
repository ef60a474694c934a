//! Prepared pages over TLS.

use super::{CBOR, Page, Request, Service};
use crate::service::Tls;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Response;
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

/// Serves until the process ends.
pub(super) fn run(listener: TcpListener, service: &Arc<Service>, tls: &Tls) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (service, tls) = (Arc::clone(service), tls.clone());
            tokio::spawn(async move {
                let page = Arc::new(Mutex::new(None));
                let respond = |request| respond(Arc::clone(&service), Arc::clone(&page), request);
                tls.serve(socket, respond).await;
            });
        }
    })
}

async fn respond(
    service: Arc<Service>,
    page: Arc<Mutex<Option<Page>>>,
    request: hyper::Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (target, is_cbor) = (header("x-amz-target").to_owned(), header("content-type") == CBOR);
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request::new(target, is_cbor, body.into());
    carried_over(&service.answer(&request, &mut page.lock()))
}

/// The answer as hyper takes it, which dates it and counts its bytes itself.
fn carried_over(answer: &[u8]) -> io::Result<Response<Full<Bytes>>> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(io::Error::other)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or(io::ErrorKind::InvalidData)?;
    let mut response = Response::builder().status(status);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if !matches!(name, "date" | "content-length") {
            response = response.header(name, value);
        }
    }
    let body = Bytes::copy_from_slice(&answer[end + 4..]);
    response.body(Full::new(body)).map_err(io::Error::other)
}
