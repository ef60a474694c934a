//! Answers of `GetRecords` without the SDK's structs (docs/adr/0030).
//!
//! The SDK builds, signs and sends the request, and reads the answer's body. Then a deserializer of ours looks at it: an
//! answer of the usual form is put into the slot of the call that waits for it, and the SDK gets an empty output; all
//! others, errors among them, are left to the SDK's own deserializer, those in CBOR as the JSON that they stand for
//! (docs/adr/0034).

use std::cell::RefCell;
use std::fmt;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef, Error, Output,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer, Layer};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use shardmill_engine::cbor_to_json;
use tokio::task::LocalKey;

use super::repeat::Repeat;

/// Where an answer is put that was read in place. Only a call that waits for one has such a slot.
pub(in crate::source) type Slot<A> = RefCell<Option<A>>;

/// How an operation's answers are read in place.
pub(in crate::source) struct InPlace<A: 'static> {
    pub(in crate::source) slot: &'static LocalKey<Slot<A>>,
    pub(in crate::source) read: fn(&Bytes) -> Option<A>,
    /// An output for the SDK, which nothing looks at.
    pub(in crate::source) output: fn() -> Output,
    /// Learns from the calls that wait for an answer.
    pub(in crate::source) repeat: Repeat,
}

impl<A: Send + 'static> InPlace<A> {
    /// Reads the answers of `GetRecords`, which is `operation`, in place.
    pub(in crate::source) fn instead_of(self, operation: &dyn RuntimePlugin) -> impl Intercept + use<A> {
        let mut layer = Layer::new("in place");
        let sdk = operation.config().unwrap_or_else(|| Layer::new("none").freeze());
        let (slot, repeat, operation) = (self.slot, self.repeat.clone(), sdk.clone());
        layer.store_put(SharedResponseDeserializer::new(Deserializer { in_place: self, sdk }));
        UseInPlace { layer: layer.freeze(), slot, repeat, operation }
    }
}

/// The result of a call, and its answer, if that was read in place.
///
/// The call is some 10 kB. It is made here, in memory of its own, so that a shard that waits for its turn has none of it.
pub(in crate::source) fn answered<'a, A: Send, T>(
    slot: &'static LocalKey<Slot<A>>,
    call: impl Future<Output = T> + Send + 'a,
) -> BoxFuture<'a, (T, Option<A>)> {
    let call = async {
        let result = call.await;
        (result, slot.with(RefCell::take))
    };
    slot.scope(RefCell::default(), call).boxed()
}

/// Puts our deserializer before the SDK's.
struct UseInPlace<A: 'static> {
    layer: FrozenLayer,
    slot: &'static LocalKey<Slot<A>>,
    repeat: Repeat,
    /// The SDK's settings of the operation.
    operation: FrozenLayer,
}

impl<A> fmt::Debug for UseInPlace<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UseInPlace")
    }
}

fn is_get_records(bag: &ConfigBag) -> bool {
    bag.load::<Metadata>().is_some_and(|operation| operation.name() == "GetRecords")
}

impl<A: Send + 'static> Intercept for UseInPlace<A> {
    fn name(&self) -> &'static str {
        "InPlace"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // An answer that is replayed has no slot.
        if is_get_records(bag) && self.slot.try_with(|_| ()).is_ok() {
            self.repeat.watch(context.request(), components, bag, &self.operation);
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if is_get_records(bag) {
            if context.response().status().as_u16() == 200 {
                self.repeat.learn(bag);
            }
            bag.push_shared_layer(self.layer.clone());
        }
        Ok(())
    }
}

struct Deserializer<A: 'static> {
    in_place: InPlace<A>,
    /// Has the SDK's deserializer.
    sdk: FrozenLayer,
}

impl<A> Deserializer<A> {
    /// Puts an answer into its call's slot; `None` if there is no slot or it is not for us.
    fn read(&self, response: &HttpResponse) -> Option<()> {
        if response.status().as_u16() != 200 {
            return None;
        }
        let InPlace { slot, read, .. } = &self.in_place;
        let put = |slot: &Slot<A>| {
            let answer = read(&whole(response.body())?)?;
            slot.replace(Some(answer));
            Some(())
        };
        slot.try_with(put).ok().flatten()
    }
}

impl<A: Send + 'static> DeserializeResponse for Deserializer<A> {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        bag: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        if self.read(response).is_some() {
            return Ok((self.in_place.output)());
        }
        let Some(sdk) = self.sdk.load::<SharedResponseDeserializer>() else {
            return Err(OrchestratorError::other("the SDK's operation has no deserializer"));
        };
        let json = in_json(response);
        sdk.deserialize_nonstreaming_with_config(json.as_ref().unwrap_or(response), bag)
    }
}

impl<A> fmt::Debug for Deserializer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InPlace")
    }
}

/// An answer in CBOR as it would be in JSON.
fn in_json(response: &HttpResponse) -> Option<HttpResponse> {
    let json = cbor_to_json(response.body().bytes()?)?;
    let mut other = HttpResponse::new(response.status(), SdkBody::from(json));
    for (name, value) in response.headers() {
        other.headers_mut().append(name.to_owned(), value.to_owned());
    }
    Some(other)
}

/// A body that was read, shared with the response.
fn whole(body: &SdkBody) -> Option<Bytes> {
    let body = ByteStream::new(body.try_clone()?);
    Some(body.collect().now_or_never()?.ok()?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_was_read_is_not_copied() {
        let bytes = Bytes::from(vec![b'x'; 1 << 20]);
        let body = SdkBody::from(bytes.clone());
        assert_eq!(whole(&body).unwrap().as_ptr(), bytes.as_ptr());
    }
}
