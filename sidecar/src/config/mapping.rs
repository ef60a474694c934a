//! One mapping of the file. Lambda's rules are the engine's; here its findings get their place in the file.

use shardmill_engine::{
    AnswerEncoding, MappingError, OnDestinationFailure, OnGap, OnUndecodable, RawMapping, Wall, parse_time,
};

use super::error::ConfigError;
use super::function;
use super::section::{Report, Section};
use super::shared;
use super::types::{Checkpoints, MappingConfig, Target};

/// The default where each checkpoint is paid for, in milliseconds.
const CHECKPOINT_INTERVAL_OF_A_TABLE: i64 = 5_000;

/// The settings for all mappings at the top of the file.
#[derive(Default)]
pub(super) struct Shared<'n> {
    pub(super) retry: Option<Section<'n>>,
    pub(super) polling: Option<Section<'n>>,
    pub(super) checkpoints: Option<Checkpoints>,
}

/// The sections of one mapping.
struct Parts<'s, 'n> {
    mapping: &'s Section<'n>,
    function: Option<Section<'n>>,
    on_failure: Option<Section<'n>>,
    retry: [Option<&'s Section<'n>>; 2],
    polling: [Option<&'s Section<'n>>; 2],
}

/// `None`: wrong and reported.
pub(super) fn mapping(
    section: &Section<'_>,
    shared: &Shared<'_>,
    now: Wall,
    report: &mut Report,
) -> Option<MappingConfig> {
    if !is_mapping(section, report) {
        return None;
    }
    let destinations = section.section("DestinationConfig", report);
    let on_failure = destinations.as_ref().and_then(|d| d.section("OnFailure", report));
    let on_success = destinations.as_ref().and_then(|d| d.section("OnSuccess", report));
    let own_retry = section.section("Retry", report);
    let own_polling = section.section("Polling", report);
    let parts = Parts {
        mapping: section,
        function: section.section("Function", report),
        on_failure,
        retry: [own_retry.as_ref(), shared.retry.as_ref()],
        polling: [own_polling.as_ref(), shared.polling.as_ref()],
    };
    if let Some(on_failure) = &parts.on_failure {
        destination_type(on_failure, report);
    }
    let mut builder = lambdas_part(&parts, now, report);
    if let Some(text) = on_success.as_ref().and_then(|s| s.text("Destination")) {
        builder = builder.on_success_destination(text);
    }
    builder = own_part(&parts, builder, report);
    let checkpoints = match section.has("Checkpoints") {
        true => shared::checkpoints(section, report),
        false => {
            Some(shared.checkpoints.clone().unwrap_or_else(|| Checkpoints::Sqlite("./shardmill.db".into())))
        }
    };
    let is_table = matches!(checkpoints, Some(Checkpoints::DynamoDb(_) | Checkpoints::Kcl(_)));
    if is_table && !section.has("CheckpointIntervalMilliseconds") {
        builder = builder.checkpoint_interval_milliseconds(CHECKPOINT_INTERVAL_OF_A_TABLE);
    }
    let function = function::function(section, parts.function.as_ref(), report);
    if let Some(limit) = function.as_ref().and_then(|function| function.target.payload_limit()) {
        builder = builder.payload_limit(limit);
    }
    let mapping = builder.build();
    for error in mapping.as_ref().err().into_iter().flatten() {
        translate(error, &parts, report);
    }
    let windows = mapping.as_ref().is_ok_and(|mapping| mapping.tumbling_window().is_some());
    if windows && function.as_ref().is_some_and(|function| matches!(function.target, Target::Stdout)) {
        let text = "needs a function that answers with the window's state, which Function.Stdout cannot; \
                    use Url or Command, or remove it";
        let key = "TumblingWindowInSeconds";
        report.error(section.place(key), section.path(key), text);
        return None;
    }
    Some(MappingConfig { mapping: mapping.ok()?, function: function?, checkpoints: checkpoints? })
}

/// P1 to P16 but for the integers.
fn lambdas_part(parts: &Parts<'_, '_>, now: Wall, report: &mut Report) -> RawMapping {
    let section = parts.mapping;
    if section.has("Stream") && section.has("EventSourceArn") {
        let text = "is SAM's name for EventSourceArn, which is set as well; remove one";
        report.error(section.place("Stream"), section.path("Stream"), text);
    }
    let source = section.text("EventSourceArn").or_else(|| section.text("Stream")).unwrap_or_default();
    let (name, arn) = (section.text("FunctionName"), section.text("FunctionArn"));
    let mut builder = RawMapping::new(source, name.unwrap_or_default())
        .as_of(now)
        .starting_position(section.text("StartingPosition"))
        .on_failure_destination(
            parts.on_failure.as_ref().and_then(|s| s.text("Destination")).unwrap_or_default(),
        );
    if let Some(arn) = arn {
        builder = builder.function_arn(arn);
    }
    if let Some(at) = section.text("StartingPositionTimestamp").and_then(parse_time) {
        builder = builder.starting_position_timestamp(at);
    }
    if let Some(types) = section.items("FunctionResponseTypes") {
        builder = builder.function_response_types(types.into_iter().map(|(_, text)| text));
    }
    if let Some(criteria) = section.section("FilterCriteria", report) {
        let filters = criteria.sections("Filters", report).unwrap_or_default();
        let pattern = |filter: &Section<'_>| filter.text("Pattern").unwrap_or_default().to_owned();
        builder = builder.filter_patterns(filters.iter().map(pattern));
    }
    if let Some(value) = section.bool("BisectBatchOnFunctionError") {
        builder = builder.bisect_batch_on_function_error(value);
    }
    match section.bool("Enabled") {
        Some(value) => builder.enabled(value),
        None => builder,
    }
}

/// The integers, and what Lambda does not have.
fn own_part(parts: &Parts<'_, '_>, mut builder: RawMapping, report: &mut Report) -> RawMapping {
    let section = parts.mapping;
    if let Some(name) = section.text("Name") {
        builder = builder.name(name);
    }
    if let Some(uuid) = section.text("UUID") {
        builder = builder.uuid(uuid);
    }
    if let Some(function) = &parts.function {
        if let Some(role) = function.text("RoleArn") {
            builder = builder.role_arn(role);
        }
        if let Some(managed) = function.bool("ManagedInstances") {
            builder = builder.managed_instances(managed);
        }
    }
    for (name, set) in RawMapping::INTEGERS {
        let value = match name.split_once('.') {
            None => section.integer(name),
            Some(("Retry", key)) => parts.retry.iter().flatten().find_map(|s| s.integer(key)),
            Some(("Polling", key)) => parts.polling.iter().flatten().find_map(|s| s.integer(key)),
            Some((_, key)) => parts.function.as_ref().and_then(|s| s.integer(key)),
        };
        if let Some(value) = value {
            builder = set(builder, value);
        }
    }
    if let Some(polling) = parts.polling.iter().flatten().find(|section| section.has("Encoding")) {
        builder = match choice(polling, "Encoding", &["auto", "json", "cbor"], report) {
            Some("json") => builder.answer_encoding(AnswerEncoding::Json),
            Some("cbor") => builder.answer_encoding(AnswerEncoding::Cbor),
            _ => builder.answer_encoding(AnswerEncoding::Auto),
        };
    }
    if choice(section, "OnGap", &["continue", "stop"], report) == Some("stop") {
        builder = builder.on_gap(OnGap::Stop);
    }
    if choice(section, "OnUndecodable", &["stop", "skip"], report) == Some("skip") {
        builder = builder.on_undecodable(OnUndecodable::Skip);
    }
    match choice(section, "OnDestinationFailure", &["block", "drop"], report) {
        Some("drop") => builder.on_destination_failure(OnDestinationFailure::Drop),
        _ => builder,
    }
}

fn choice<'n>(section: &Section<'n>, key: &str, permitted: &[&str], report: &mut Report) -> Option<&'n str> {
    let text = section.text(key)?;
    if permitted.contains(&text) {
        return Some(text);
    }
    let message = format!(
        "{} is not one of the choices; permitted: {}; write one of them",
        section.shown(key),
        permitted.join(", ")
    );
    report.error(section.place(key), section.path(key), message);
    None
}

/// CloudFormation's or SAM's `Type`, against the ARN; false if this is something else altogether.
fn is_mapping(section: &Section<'_>, report: &mut Report) -> bool {
    let Some(text) = section.text("Type") else { return true };
    let source = section.text("EventSourceArn").or_else(|| section.text("Stream")).unwrap_or_default();
    let service = source.split(':').nth(2).unwrap_or_default();
    let problem = match text {
        "AWS::Lambda::EventSourceMapping" => return true,
        "Kinesis" | "DynamoDB" if service.is_empty() || text.eq_ignore_ascii_case(service) => return true,
        "Kinesis" | "DynamoDB" => {
            format!("{text} does not fit the stream's ARN, {source}; correct one of them")
        }
        "SQS" | "MSK" | "MQ" | "SelfManagedKafka" | "DocumentDB" => {
            format!(
                "{text} events do not come from a stream; permitted: Kinesis, DynamoDB; this program reads streams"
            )
        }
        _ => format!(
            "{text:?} is no event source mapping; permitted: AWS::Lambda::EventSourceMapping, Kinesis, DynamoDB; \
             write one mapping, not the whole template"
        ),
    };
    report.error(section.place("Type"), section.path("Type"), problem);
    matches!(text, "Kinesis" | "DynamoDB")
}

/// SAM's `OnFailure.Type`, against the ARN.
fn destination_type(on_failure: &Section<'_>, report: &mut Report) {
    let Some(text) = choice(on_failure, "Type", &["SQS", "SNS", "S3", "Kafka"], report) else { return };
    let destination = on_failure.text("Destination").unwrap_or_default();
    let service = match destination.split_once(':') {
        Some(("arn", rest)) => rest.split(':').nth(1).unwrap_or_default(),
        Some((scheme, _)) => scheme,
        None => return,
    };
    if !service.eq_ignore_ascii_case(text) {
        let message = format!("{text} does not fit the Destination, {destination}; correct one of them");
        report.error(on_failure.place("Type"), on_failure.path("Type"), message);
    }
}

/// A finding of the engine under the key that the file uses, at its place.
fn translate(error: &MappingError, parts: &Parts<'_, '_>, report: &mut Report) {
    let section = parts.mapping;
    let field = match error.field() {
        "EventSourceArn" if !section.has("EventSourceArn") && section.has("Stream") => "Stream",
        field => field,
    };
    let shared = |sections: &[Option<&Section<'_>>; 2], key: &str| {
        sections.iter().flatten().find(|s| s.has(key)).map(|s| s.path(key))
    };
    let path = match field.split_once('.') {
        Some(("Retry", key)) => shared(&parts.retry, key),
        Some(("Polling", key)) => shared(&parts.polling, key),
        _ => None,
    }
    .unwrap_or_else(|| match error.index() {
        Some(index) => section.path(&format!("{field}[{index}].Pattern")),
        None => section.path(field),
    });
    // "Not set" follows from a key or its other name that is there but wrong.
    let other = match field {
        "EventSourceArn" => "Stream",
        "FunctionName" => "FunctionArn",
        _ => field,
    };
    if report.is_wrong(&path) || report.is_wrong(&section.path(other)) {
        return;
    }
    let at = report.place(&path, section.at);
    report.finding(ConfigError { aws: error.aws_message(), ..ConfigError::at(at, path, error.message()) });
}
