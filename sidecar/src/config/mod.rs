//! The configuration file: YAML 1.2, so JSON too, under Lambda's own names.
//!
//! [`load`] turns a file into a [`Config`] or into every mistake in it, each with its line, its column and a remedy.
//! [`schema`] is the same table of keys for editors.

mod error;
mod function;
mod keys;
mod mapping;
mod pasted;
mod schema;
mod section;
mod shared;
mod tree;
mod types;
mod unnamed;
mod vars;
mod warnings;

use std::io::Read as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub use error::{ConfigError, ConfigErrors, Note};
pub use schema::schema;
use shardmill_engine::{FailureDestination, Wall};
pub(crate) use types::one_spelling;
pub use types::{Admin, Aws, Checkpoints, Config, Function, MappingConfig, Target, Worker};

use mapping::Shared;
use section::{Report, Section};
use tree::{Node, Value};

/// No configuration is longer: 1 MiB.
const LARGEST: usize = 1 << 20;

/// A valid file with its notes and warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its content.
    pub config: Config,
    /// Settings that are allowed but may surprise.
    pub warnings: Vec<Note>,
    /// Keys from AWS's own files that have no effect here.
    pub ignored: Vec<Note>,
}

/// Reads the file at `path`, or standard input if that is `-`; `environment` fills in its variables.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigErrors> {
    let bytes = if path == Path::new("-") { standard_input() } else { std::fs::read(path) };
    let bytes = bytes.map_err(|e| {
        ConfigErrors::whole_file(path, format!("cannot be read: {e}; name a file with -c FILE"))
    })?;
    if bytes.len() > LARGEST {
        let message =
            format!("has {} bytes; permitted: up to {LARGEST}; is this a configuration file?", bytes.len());
        return Err(ConfigErrors::whole_file(path, message));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        ConfigErrors::whole_file(path, format!("is not UTF-8 from byte {at} on; save it as UTF-8"))
    })?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Wall::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
    parse(path, &text, environment, now)
}

/// No more than what shows that it is too large: it may have no end.
fn standard_input() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What [`load`] does once the file is read. `path` is for messages; a start time after `now` is refused.
///
/// # Errors
/// Everything that is wrong with `text`.
pub fn parse(
    path: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    now: Wall,
) -> Result<Loaded, ConfigErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::default();
    let seen = unnamed::Seen::default();
    let environment = |name: &str| seen.look_up(environment, name);
    let root = match tree::parse(text, &environment, &mut report.errors) {
        Ok(Some(root)) if !root.is_empty() => root,
        Ok(_) => {
            return Err(ConfigErrors::whole_file(
                path,
                "holds no mapping; see `shardmill run --help` for one",
            ));
        }
        Err(error) => {
            report.errors.push(error);
            seen.hide(&mut report.errors);
            return Err(ConfigErrors::new(path, text, report.errors));
        }
    };
    report.note_known_mistakes();
    let config = pasted::taken_out(root, &mut report).and_then(|root| read(&root, now, &mut report));
    match config {
        Some(config) if report.errors.is_empty() => {
            report.warnings.sort_by_key(|note| note.line);
            Ok(Loaded { config, warnings: report.warnings, ignored: report.ignored })
        }
        _ => {
            seen.hide(&mut report.errors);
            Err(ConfigErrors::new(path, text, report.errors))
        }
    }
}

fn read(root: &Node, now: Wall, report: &mut Report) -> Option<Config> {
    let Value::Map(entries) = &root.value else {
        let remedy = match &root.value {
            Value::List(_) => "write it under the key Mappings, each item with its Function",
            _ => "write a map of keys",
        };
        report.error(root.at, "", format!("the file {}; {remedy}", root.describe()));
        return None;
    };
    let several = entries.iter().any(|(key, _)| key.name == "Mappings");
    let tables = if several { [keys::PROCESS, keys::SHARED] } else { [keys::PROCESS, keys::MAPPING] };
    let top = Section::read(root, &tables, "", report);
    let worker = shared::worker(&top, report);
    let admin = shared::admin(&top, report);
    let aws = shared::aws(&top, report);
    let sections = match several {
        true => top.sections("Mappings", report).unwrap_or_default(),
        false => Vec::new(),
    };
    let mappings: Vec<MappingConfig> = if several {
        if sections.is_empty() && !report.is_wrong("Mappings") && !report.is_wrong("Mappings[0]") {
            report.error(top.place("Mappings"), "Mappings", "is an empty list; write at least one mapping");
        }
        let shared = Shared {
            retry: top.section("Retry", report),
            polling: top.section("Polling", report),
            checkpoints: shared::checkpoints(&top, report),
        };
        sections.iter().filter_map(|s| mapping::mapping(s, &shared, now, report)).collect()
    } else {
        mapping::mapping(&top, &Shared::default(), now, report).into_iter().collect()
    };
    let all = if several { &sections[..] } else { std::slice::from_ref(&top) };
    if mappings.len() == all.len() {
        compiled_in(&mappings, all, report);
        distinct(&mappings, all, report);
        warnings::warn(&mappings, all, worker.as_ref(), report);
    }
    let create_table = create_table(&top, &mappings, report);
    Some(Config { mappings, worker: worker?, admin, aws, create_table })
}

/// Whether a lease table that is missing is created: a key without effect is refused.
fn create_table(top: &Section<'_>, mappings: &[MappingConfig], report: &mut Report) -> bool {
    const KEY: &str = "CreateTable";
    let Some(create) = top.bool(KEY) else { return true };
    let has_table =
        |one: &MappingConfig| matches!(one.checkpoints, Checkpoints::DynamoDb(_) | Checkpoints::Kcl(_));
    if !mappings.is_empty() && !mappings.iter().any(has_table) {
        let message = format!(
            "{} has no effect: no mapping has its Checkpoints in a table; leave it out, or write Checkpoints: dynamodb:TABLE",
            top.plain(KEY)
        );
        report.error(top.place(KEY), KEY, message);
    }
    create
}

/// A destination that this binary was built without is refused before anything starts.
fn compiled_in(mappings: &[MappingConfig], sections: &[Section<'_>], report: &mut Report) {
    for (one, section) in mappings.iter().zip(sections) {
        let Some(destination) = one.mapping.failure_destination() else { continue };
        if let Some((service, feature)) = missing_feature(destination, FEATURES) {
            let key = section.path("DestinationConfig.OnFailure.Destination");
            let message = format!(
                "{service} destinations are the feature {feature}, which this binary was built without; build it with \
                 --features {feature}, or use a standard SQS queue or file:PATH"
            );
            report.error(report.place(&key, section.at), key, message);
        }
    }
}

/// Features of the binary that destinations need.
#[derive(Clone, Copy)]
struct Features {
    sns: bool,
    s3: bool,
}

const FEATURES: Features = Features { sns: cfg!(feature = "sns"), s3: cfg!(feature = "s3") };

/// The service of a destination and the feature that it lacks.
fn missing_feature(destination: &FailureDestination, has: Features) -> Option<(&'static str, &'static str)> {
    match destination {
        FailureDestination::Sns(_) if !has.sns => Some(("SNS", "sns")),
        FailureDestination::S3(_) if !has.s3 => Some(("S3", "s3")),
        _ => None,
    }
}

/// Two mappings never share checkpoints.
fn distinct(mappings: &[MappingConfig], sections: &[Section<'_>], report: &mut Report) {
    for (i, (one, section)) in mappings.iter().zip(sections).enumerate() {
        let (name, identity) = (one.mapping.application_name(), one.mapping.identity());
        let same = |m: &&MappingConfig| {
            // What both are called in logs and metrics must differ, too.
            (m.mapping.application_name() == name || m.mapping.identity() == identity)
                && m.checkpoints.same(&one.checkpoints)
        };
        let mut earlier = mappings.iter().take(i);
        if earlier.any(|m| same(&m) && m.mapping.application_name() != name) {
            let message = format!(
                "{identity} is the UUID of an earlier mapping, too: they would share checkpoints; write a UUID of its own, or none"
            );
            report.error(section.place("UUID"), section.path("UUID"), message);
        } else if mappings.iter().take(i).any(|m| same(&m)) {
            let message = format!(
                "{name} is the application of an earlier mapping, too: they would share checkpoints; permitted: a name \
                 of its own for each; write a Name"
            );
            report.error(section.place("Name"), section.path("Name"), message);
        } else if let Checkpoints::Kcl(table) = &one.checkpoints
            && mappings.iter().take(i).any(|m| m.checkpoints == one.checkpoints)
        {
            let message = format!(
                "kcl:{table} is an earlier mapping's, too: a table of KCL's is one application; permitted: one mapping for \
                 each table; name another table"
            );
            report.error(section.place("Checkpoints"), section.path("Checkpoints"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_lacks_no_feature_but_its_own() {
        let lacks = |arn: &str, sns, s3| {
            let destination = FailureDestination::parse(arn).unwrap().unwrap();
            missing_feature(&destination, Features { sns, s3 }).map(|(_, feature)| feature)
        };
        let (topic, bucket) = ("arn:aws:sns:eu-west-1:123456789012:dead", "arn:aws:s3:::dead");
        assert_eq!((lacks(topic, false, true), lacks(topic, true, false)), (Some("sns"), None));
        assert_eq!((lacks(bucket, true, false), lacks(bucket, false, true)), (Some("s3"), None));
        assert_eq!(lacks("arn:aws:sqs:eu-west-1:123456789012:dead", false, false), None);
        assert_eq!(lacks("file:dead.jsonl", false, false), None);
    }

    #[test]
    fn a_topic_is_accepted_exactly_where_the_feature_is_there() {
        let text = "{EventSourceArn: 'arn:aws:kinesis:eu-west-1:123456789012:stream/orders', FunctionName: f, \
                    StartingPosition: TRIM_HORIZON, Function: {Stdout: true}, DestinationConfig: {OnFailure: \
                    {Destination: 'arn:aws:sns:eu-west-1:123456789012:dead'}}}";
        let result = parse(Path::new("c.yaml"), text, &|_| None, Wall::from_millis(i64::MAX));
        match (result, cfg!(feature = "sns")) {
            (Ok(_), true) => {}
            (Err(errors), false) => {
                let text = errors.to_string();
                assert!(text.contains("the feature sns") && text.contains("--features sns"), "{text}");
            }
            (other, _) => panic!("{other:?}"),
        }
    }
}
