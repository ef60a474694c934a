//! A call in CBOR, which the fakes answer in JSON.

use super::transport::Service;
use super::{Asked, Reply, Response};
use crate::cbor::Item;

/// The content type of requests and answers in CBOR.
pub(crate) const CBOR: &str = "application/x-amz-cbor-1.1";

/// Has a fake answer a call in the encoding in which it came.
pub(super) async fn answer(fake: &impl Service, content_type: &str, asked: Asked<'_>) -> Option<Reply> {
    if content_type != CBOR {
        return fake.answer(&asked).await;
    }
    let Some(request) = Item::from_cbor(asked.body).filter(|_| fake.speaks_cbor()) else {
        return Some(Reply::whole(unknown()));
    };
    let request = request.to_json();
    let mut reply = fake.answer(&Asked { body: request.as_bytes(), ..asked }).await?;
    to_cbor(&mut reply.response);
    // It is cut all the same, although it is shorter.
    reply.cut = reply.cut.map(|cut| cut.min(reply.response.body.len().saturating_sub(1)));
    Some(reply)
}

/// What Kinesis answers to a content type that it does not know.
fn unknown() -> Response {
    let code = "UnknownOperationException";
    let mut response = Response::error(404, code, "", 0, 0);
    response.body = format!("<{code}/>\n").into();
    response.headers.retain(|(name, _)| *name != "content-type");
    response
}

/// An answer that a fault replaced by something else than JSON stays as it is.
pub(crate) fn to_cbor(response: &mut Response) {
    let Ok(json) = serde_json::from_slice(&response.body) else { return };
    response.body = Item::from_json(&json).to_cbor().into();
    for (name, value) in &mut response.headers {
        if *name == "content-type" {
            CBOR.clone_into(value);
        }
    }
}
