//! Lost answers and throttles, between the store's client and the emulator.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;

/// What becomes of the next calls of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// So many answers are lost after the call was carried out.
    pub(crate) lose: Arc<AtomicUsize>,
    /// So many calls never reach the service.
    pub(crate) cut: Arc<AtomicUsize>,
    /// So many answers are a throttle's; the call must have been without effect.
    pub(crate) throttle: Arc<AtomicUsize>,
    /// How many calls there were.
    pub(crate) calls: Arc<AtomicUsize>,
}

fn take(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}

impl Intercept for Faults {
    fn name(&self) -> &'static str {
        "Faults"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if take(&self.cut) { Err("cut on demand".into()) } else { Ok(()) }
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if take(&self.lose) {
            return Err("lost on demand".into());
        }
        if take(&self.throttle) {
            let code = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
            let body = format!("{{\"__type\":\"{code}\",\"message\":\"slow down\"}}");
            *context.response_mut() = HttpResponse::new(400.try_into()?, SdkBody::from(body));
        }
        Ok(())
    }
}
