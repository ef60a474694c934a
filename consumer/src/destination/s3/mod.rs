//! Discarded batches, with their records, to an S3 bucket.

use std::future::Future;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use bytes::Bytes;
use parking_lot::Mutex;
use shardmill_engine::{Arn, FailureDestination};

use super::service::{self, Failed, Limits, Operation, Service};
use super::{Destination, DestinationError, Discarded, Probe};

const PUT: Operation = Operation { name: "PutObject", action: "s3:PutObject" };
const ASK: Operation = Operation { name: "HeadBucket", action: "s3:ListBucket" };

const CONTENT_TYPE: &str = "application/octet-stream";
/// Where the service answers that a bucket is in another region than the request was made for.
const REGION: &str = "x-amz-bucket-region";

/// An upload is answered when it has ended: it may take all the time that there is.
const LIMITS: Limits = Limits { read: Limits::DEFAULT.total, ..Limits::DEFAULT };

/// Puts an object with the positions and the whole event of every discarded batch into a bucket, under Lambda's key and
/// in its layout (R72, R73; docs/semantics.md, section 3.9). Needs `s3:PutObject`; a probe needs `s3:ListBucket`.
///
/// A delivery takes at most 10 seconds in the bucket's region, including the SDK's retries. One that fails by its
/// timeout may have arrived; its retry writes the same object again.
#[derive(Debug)]
pub struct S3Destination {
    /// Replaced by one for the bucket's region where the first one is not.
    client: Mutex<Client>,
    bucket: String,
    service: Service,
}

impl S3Destination {
    /// A destination with a client of its own, with connect and read timeouts and the SDK's standard retries, for the
    /// configuration's region: a bucket's ARN names none. A bucket elsewhere is found through the region that the service
    /// names in its refusal.
    ///
    /// Requests go to the endpoint in `config`, `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL` in the SDK's own order, else
    /// to the service. With an endpoint the bucket is in the path, not in the host's name.
    ///
    /// # Errors
    /// `bucket_arn` is not the ARN of a bucket.
    pub fn new(config: &SdkConfig, bucket_arn: &str) -> Result<Self, DestinationError> {
        Ok(Self::of(config, &bucket_named(bucket_arn)?))
    }

    /// A destination that puts objects through `client` as it is.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_client(client: Client, bucket_arn: &str) -> Result<Self, DestinationError> {
        Ok(Self::assembled(client, &bucket_named(bucket_arn)?, None, LIMITS))
    }

    /// As [`new`](Self::new), of a mapping's destination.
    pub(super) fn of(config: &SdkConfig, bucket: &Arn) -> Self {
        Self::with_limits(config, bucket, None, LIMITS)
    }

    fn with_limits(config: &SdkConfig, bucket: &Arn, endpoint_url: Option<&str>, limits: Limits) -> Self {
        let endpoint = service::endpoint(config, "S3", endpoint_url);
        let mut builder = Builder::from(config)
            .force_path_style(endpoint.is_some())
            .timeout_config(limits.timeouts())
            .retry_config(service::retries());
        builder.set_endpoint_url(endpoint.clone());
        Self::assembled(Client::from_conf(builder.build()), bucket, endpoint, limits)
    }

    fn assembled(client: Client, bucket: &Arn, endpoint: Option<String>, limits: Limits) -> Self {
        let service = Service {
            what: format!("S3 bucket {bucket}"),
            noun: "bucket",
            at: endpoint.unwrap_or_else(|| "S3".to_owned()),
            missing: format!("create bucket {}, or correct the destination's ARN", bucket.resource()),
            limits,
        };
        Self { client: Mutex::new(client), bucket: bucket.resource().to_owned(), service }
    }

    fn client(&self) -> Client {
        self.client.lock().clone()
    }

    /// Makes a call, and retries it once if the bucket turns out to be in another region.
    async fn in_its_region<T, E, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failed<E>>
    where
        F: Future<Output = Result<T, aws_sdk_s3::error::SdkError<E>>>,
    {
        let client = self.client();
        let config = client.config().clone();
        let result = self.service.within(Box::pin(call(client))).await;
        let Err(failed) = &result else { return result };
        let here = config.region().map(AsRef::<str>::as_ref);
        let Some(there) = failed.header(REGION).filter(|there| Some(*there) != here) else { return result };
        let moved = Client::from_conf(config.to_builder().region(Region::new(there.to_owned())).build());
        *self.client.lock() = moved.clone();
        self.service.within(Box::pin(call(moved))).await
    }
}

#[async_trait]
impl Destination for S3Destination {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        let discarded = discarded.clone();
        // Encoding several megabytes takes milliseconds: not on an async thread.
        let encoding =
            tokio::task::spawn_blocking(move || (discarded.object_key(), Bytes::from(discarded.object())));
        let (key, object) = encoding.await.map_err(|error| {
            DestinationError::new(format!("{}: the delivery was cut short: {error}", self.service.what))
        })?;
        let put = |client: Client| {
            let put = client.put_object().bucket(&self.bucket).key(&key).content_type(CONTENT_TYPE);
            put.body(ByteStream::from(object.clone())).send()
        };
        match self.in_its_region(put).await {
            Ok(answer) if answer.e_tag().is_none() => Err(self.service.no_receipt("ETag")),
            Ok(_) => Ok(()),
            Err(failed) => Err(self.service.explain(PUT, failed)),
        }
    }

    /// By `HeadBucket`, which Lambda's own role needs, too (`s3:ListBucket`).
    async fn probe(&self) -> Result<Probe, DestinationError> {
        let asking = self.in_its_region(|client| client.head_bucket().bucket(&self.bucket).send()).await;
        self.service.probed(ASK, asking)
    }

    fn describe(&self) -> String {
        self.service.what.clone()
    }
}

fn bucket_named(arn: &str) -> Result<Arn, DestinationError> {
    match service::parse(arn, "bucket")? {
        FailureDestination::S3(arn) => Ok(arn),
        _ => Err(service::not_a("S3 bucket", arn)),
    }
}

#[cfg(test)]
mod tests;
