//! What is allowed but may surprise, or lose records.

use super::section::{Report, Section};
use super::types::{MappingConfig, Worker};

pub(super) fn warn(
    mappings: &[MappingConfig],
    sections: &[Section<'_>],
    worker: Option<&Worker>,
    report: &mut Report,
) {
    for (one, section) in mappings.iter().zip(sections) {
        giving_up(one, section, report);
        filters(one, section, report);
        let timeout = one.mapping.timeout();
        if let Some(worker) = worker.filter(|w| timeout > w.stop) {
            let key = section.path("Function.Timeout");
            let message = format!(
                "{} s is longer than Worker.StopSeconds, {} s: a stop may cut an invocation, whose batch is then redelivered",
                timeout.as_secs(),
                worker.stop.as_secs()
            );
            report.warn(report.place(&key, section.at), key, message);
        }
    }
}

/// What happens to records that the function never takes.
fn giving_up(one: &MappingConfig, section: &Section<'_>, report: &mut Report) {
    let mapping = &one.mapping;
    let (attempts, age) = (mapping.maximum_retry_attempts(), mapping.maximum_record_age());
    let has_destination = mapping.failure_destination().is_some();
    let mut warn = |key: &str, message: String| report.warn(section.place(key), section.path(key), message);
    if let Some(attempts) = attempts.filter(|_| !has_destination) {
        let message = format!(
            "{attempts} without DestinationConfig.OnFailure: a discarded batch is logged, counted and lost"
        );
        warn("MaximumRetryAttempts", message);
    }
    if let Some(age) = age.filter(|_| !has_destination) {
        let message = format!(
            "{} without DestinationConfig.OnFailure: a record that grows older is logged, counted and lost",
            age.as_secs()
        );
        warn("MaximumRecordAgeInSeconds", message);
    }
    if attempts.is_none() && age.is_none() && mapping.report_batch_item_failures() {
        let message = "-1 with ReportBatchItemFailures and no MaximumRecordAgeInSeconds: a record that the function always \
                       reports blocks its shard forever; set a number and DestinationConfig.OnFailure";
        warn("MaximumRetryAttempts", message.to_owned());
    }
}

/// Patterns that throw every record away.
fn filters(one: &MappingConfig, section: &Section<'_>, report: &mut Report) {
    let never = one.mapping.filter().map(shardmill_engine::Filter::never_matching).unwrap_or_default();
    for found in never {
        let key = section.path(&format!("FilterCriteria.Filters[{}].Pattern", found.pattern));
        let loss = if found.alternative {
            ""
        } else {
            "; what only this pattern would let pass is filtered out and lost"
        };
        report.warn(report.place(&key, section.at), key, format!("{found}{loss}"));
    }
}
