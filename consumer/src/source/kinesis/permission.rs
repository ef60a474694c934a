//! Whether the stream may be read, asked without reading it.

use std::sync::Arc;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use shardmill_engine::{Position, ShardId};

use super::Inner;
use super::reader::KinesisReader;
use crate::source::{SourceError, SourceErrorKind};

/// What the service answers to a request with `DryRun` that it would have carried out.
const WOULD_SUCCEED: &str = "DryRunOperationException";

/// Asks for an iterator, which is cheap, and for the records behind it as a dry run. A service that knows no `DryRun`, as
/// emulators, answers with a record, which is dropped: nothing else is read by it.
pub(super) async fn prove(source: &Arc<Inner>, shard: &ShardId) -> Result<(), SourceError> {
    let iterator = KinesisReader::new(source, shard, &Position::TrimHorizon).iterator_at_start().await?;
    let request = source.client.get_records().shard_iterator(iterator).limit(1).dry_run(true);
    let Err(error) = request.stream_arn(source.stream.arn.as_str()).send().await else { return Ok(()) };
    if error.code() == Some(WOULD_SUCCEED) {
        return Ok(());
    }
    let call = source.call("GetRecords", Some(shard));
    match call.failed(error) {
        // A call that is throttled is permitted.
        error if error.kind == SourceErrorKind::Throttled => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fake::{Answer, Service, iterator, page};
    use crate::source::{SourceErrorKind, StreamSource};

    async fn asked(answers: Vec<Answer>) -> (Service, Result<Option<&'static str>, SourceErrorKind>) {
        let service = Service::new(answers);
        let answer = service.source().may_read(&"shardId-000000000007".into()).await;
        (service, answer.map_err(|error| error.kind))
    }

    #[tokio::test]
    async fn incident_104_permission_to_read_is_proved_by_a_dry_run_that_the_service_would_carry_out() {
        let (service, answer) =
            asked(vec![iterator("i"), Answer::Error(400, "DryRunOperationException")]).await;
        assert!(answer.unwrap().unwrap().contains("GetRecords"));
        let asked = service.bodies("GetRecords");
        assert_eq!((&asked[0]["DryRun"], &asked[0]["ShardIterator"]), (&json!(true), &json!("i")));
    }

    #[tokio::test]
    async fn incident_104_what_is_not_allowed_is_told_and_an_emulator_without_dry_runs_is_no_failure() {
        for answers in [
            vec![Answer::Error(400, "AccessDeniedException")],
            vec![iterator("i"), Answer::Error(400, "AccessDeniedException")],
        ] {
            assert_eq!(asked(answers).await.1, Err(SourceErrorKind::AccessDenied));
        }
        for last in [page(&["7"], Some("next")), Answer::Error(400, "ProvisionedThroughputExceededException")]
        {
            assert!(asked(vec![iterator("i"), last]).await.1.is_ok());
        }
    }
}
