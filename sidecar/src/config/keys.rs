//! The one table of keys: unknown keys, wrong types, suggestions and the JSON Schema all come from it.

use shardmill_engine::limits::{self, Limit};

/// A key and its permitted values.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// For the schema.
    pub(super) about: &'static str,
}

/// The permitted values of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    Bool,
    Integer(&'static Limit),
    /// ISO 8601 or epoch seconds.
    Time,
    /// A list of texts.
    Texts,
    /// A list of texts out of these.
    Choices(&'static [&'static str]),
    Integers(&'static Limit),
    /// Texts under names of the user's choice.
    TextMap,
    Section(&'static [Key]),
    /// A section with the keys of the table that contains it.
    Same,
    /// A section, or the text `off`.
    SectionOrOff(&'static [Key]),
    /// A list of sections.
    Sections(&'static [Key]),
    /// Of Lambda or CloudFormation, without a meaning here: one log line.
    Ignored,
    /// Of another kind of mapping, or not for streams: the reason, and whether Lambda's text is known.
    Refused(&'static str, Option<&'static str>),
}

const fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, about }
}

const fn ignored(name: &'static str) -> Key {
    key(name, Kind::Ignored, "Accepted and ignored.")
}

const fn refused(name: &'static str, reason: &'static str) -> Key {
    key(name, Kind::Refused(reason, None), "Refused unless empty.")
}

const KAFKA: &str = "is a key of Kafka mappings; this program reads streams: remove it";
const SQS: &str = "is a key of SQS mappings; this program reads streams: remove it";
const MQ: &str = "is a key of MQ mappings; this program reads streams: remove it";
const DOCUMENTDB: &str = "is a key of DocumentDB mappings; this program reads streams: remove it";

/// A mapping's keys: Lambda's, those of its CLI, CloudFormation and SAM forms, and Shardmill's own.
pub(super) static MAPPING: &[Key] = &[
    key("EventSourceArn", Kind::Text, "The stream's ARN."),
    key("Stream", Kind::Text, "SAM's name for EventSourceArn."),
    key(
        "FunctionName",
        Kind::Text,
        "The function's name or ARN: in messages and metrics and, without Name and UUID, the namespace of checkpoints.",
    ),
    key("FunctionArn", Kind::Text, "The function's ARN, as get-event-source-mapping shows it."),
    key(
        "UUID",
        Kind::Text,
        "The mapping's UUID: where it is set, the namespace of its checkpoints, regardless of the function's version. Without it, messages show one that is derived from the application's name.",
    ),
    key(
        "Name",
        Kind::Text,
        "The application's name in logs and metrics; without a UUID also the namespace of its checkpoints.",
    ),
    key("Enabled", Kind::Bool, "false: loaded but idle. Default true."),
    key("BatchSize", Kind::Integer(&limits::BATCH_SIZE), "Most records of an invocation."),
    key(
        "MaximumBatchingWindowInSeconds",
        Kind::Integer(&limits::BATCHING_WINDOW),
        "How long to gather records for a batch.",
    ),
    key(
        "ParallelizationFactor",
        Kind::Integer(&limits::PARALLELIZATION_FACTOR),
        "Lanes per shard: batches of different keys that are invoked at once.",
    ),
    key(
        "StartingPosition",
        Kind::Choice(&["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]),
        "Where a shard without a checkpoint starts.",
    ),
    key("StartingPositionTimestamp", Kind::Time, "With AT_TIMESTAMP: ISO 8601 or epoch seconds."),
    key("MaximumRecordAgeInSeconds", Kind::Integer(&limits::RECORD_AGE), "Older records are discarded."),
    key(
        "MaximumRetryAttempts",
        Kind::Integer(&limits::RETRY_ATTEMPTS),
        "Tries of a failing batch after the first.",
    ),
    key("BisectBatchOnFunctionError", Kind::Bool, "Whether a failing batch is cut in two. Default false."),
    key(
        "FunctionResponseTypes",
        Kind::Choices(&["ReportBatchItemFailures"]),
        "Whether the response names the records that failed.",
    ),
    key(
        "TumblingWindowInSeconds",
        Kind::Integer(&limits::TUMBLING_WINDOW),
        "The length of a tumbling window; 0 without windows.",
    ),
    key(
        "FilterCriteria",
        Kind::Section(FILTER_CRITERIA),
        "Which records to invoke with; see [Filters](#filters). Not together with a tumbling window.",
    ),
    key("DestinationConfig", Kind::Section(DESTINATION_CONFIG), "Where discarded batches go."),
    key("Function", Kind::Section(FUNCTION), "How the function is called."),
    key(
        "Checkpoints",
        Kind::Text,
        "Where positions and leases live: sqlite:PATH, dynamodb:TABLE, kcl:TABLE (the lease table of Amazon's KCL) or memory. Default sqlite:./shardmill.db.",
    ),
    key(
        "CheckpointIntervalMilliseconds",
        Kind::Integer(&limits::CHECKPOINT_INTERVAL),
        "The least time between two checkpoints of a shard; 0: as fast as the store commits. Default with dynamodb:TABLE and kcl:TABLE, where each one is paid for: 5000.",
    ),
    key("Retry", Kind::Section(RETRY), "The waits between retries."),
    key("Polling", Kind::Section(POLLING), "How shards are read."),
    key(
        "OnGap",
        Kind::Choice(&["continue", "stop"]),
        "When records were lost before they were read: log, count and resume at the oldest one (default), or stop the mapping.",
    ),
    key(
        "OnUndecodable",
        Kind::Choice(&["stop", "skip"]),
        "When a record cannot be decoded: wait at it and try again (default), or skip it as a counted gap.",
    ),
    key(
        "OnDestinationFailure",
        Kind::Choice(&["block", "drop"]),
        "When the destination does not accept a batch: hold the checkpoint (default), or drop it as Lambda does.",
    ),
    key("Type", Kind::Text, "The resource type of CloudFormation or the event type of SAM."),
    key("Properties", Kind::Same, "The properties of a CloudFormation resource or a SAM event."),
    ignored("State"),
    ignored("LastModified"),
    ignored("LastProcessingResult"),
    ignored("StateTransitionReason"),
    ignored("EventSourceMappingArn"),
    ignored("ResponseMetadata"),
    ignored("Tags"),
    ignored("MetricsConfig"),
    ignored("KMSKeyArn"),
    ignored("KmsKeyArn"),
    ignored("DependsOn"),
    ignored("Metadata"),
    ignored("DeletionPolicy"),
    ignored("UpdateReplacePolicy"),
    refused(
        "FilterCriteriaError",
        "means that Lambda could not decrypt FilterCriteria, which is then missing here: write FilterCriteria in full and remove this",
    ),
    refused("Condition", "is CloudFormation's condition, which cannot be judged here; use Enabled"),
    refused("Queues", MQ),
    refused("Topics", KAFKA),
    refused("SelfManagedEventSource", KAFKA),
    refused("SelfManagedKafkaEventSourceConfig", KAFKA),
    refused("AmazonManagedKafkaEventSourceConfig", KAFKA),
    refused("ProvisionedPollerConfig", KAFKA),
    refused("SourceAccessConfigurations", KAFKA),
    refused("LoggingConfig", KAFKA),
    refused("ConsumerGroupId", KAFKA),
    refused("KafkaBootstrapServers", KAFKA),
    refused("DocumentDBEventSourceConfig", DOCUMENTDB),
    refused("Queue", SQS),
    refused("QueueUrl", SQS),
    key(
        "ScalingConfig",
        Kind::Refused(SQS, Some("Unsupported ScalingConfig parameter for given event source mapping type.")),
        "Refused unless empty.",
    ),
];

static FILTER_CRITERIA: &[Key] = &[key("Filters", Kind::Sections(FILTER), "Up to 10 filters, joined by or.")];

static FILTER: &[Key] = &[key("Pattern", Kind::Text, "A JSON object as text, up to 4096 characters.")];

static DESTINATION_CONFIG: &[Key] = &[
    key("OnFailure", Kind::Section(ON_FAILURE), "Where discarded batches go."),
    key("OnSuccess", Kind::Section(ON_FAILURE), "Refused, as Lambda does for event source mappings."),
];

static ON_FAILURE: &[Key] = &[
    key(
        "Destination",
        Kind::Text,
        "The ARN of a standard SQS queue, a standard SNS topic or an S3 bucket, or file:PATH.",
    ),
    key("Type", Kind::Choice(&["SQS", "SNS", "S3", "Kafka"]), "SAM: the kind of destination."),
];

/// HTTP answers that may mean "not reached".
pub(super) static NOT_REACHED_STATUS: Limit = Limit::new("Function.NotReachedStatus", 400, 599, 0);
pub(super) static MAXIMUM_CONCURRENCY: Limit = Limit::new("Function.MaximumConcurrency", 1, 10_000, 0);

pub(super) static CONCURRENCY_PER_PROCESS: Limit = Limit::new("Function.ConcurrencyPerProcess", 1, 1_600, 1);

pub(super) static FUNCTION: &[Key] = &[
    key("Url", Kind::Text, "POST each event to this URL."),
    key("Command", Kind::Texts, "Start this program as a Lambda runtime."),
    key("Stdout", Kind::Bool, "Write each event as a line to standard output."),
    key(
        "LambdaArn",
        Kind::Refused("is not supported by this version; use Url, Command or Stdout", None),
        "Refused: not supported by this version.",
    ),
    key(
        "Timeout",
        Kind::Integer(&limits::MANAGED_INSTANCES_TIMEOUT),
        "Seconds that an invocation may take; more than 1800 with ManagedInstances only.",
    ),
    key(
        "ManagedInstances",
        Kind::Bool,
        "Whether the function's limits are those of Lambda Managed Instances. Default false.",
    ),
    refused(
        "MemorySize",
        "limits nothing here: limit the process, or tell the function by Environment: {AWS_LAMBDA_FUNCTION_MEMORY_SIZE: \"512\"}",
    ),
    refused(
        "Runtime",
        "is the program that Command starts: [python3, -m, awslambdaric, HANDLER] or [npx, aws-lambda-ric, HANDLER]",
    ),
    refused(
        "Handler",
        "is the last item of Command: [python3, -m, awslambdaric, HANDLER] or [npx, aws-lambda-ric, HANDLER]",
    ),
    refused("CodeUri", "is the folder in which Command is started: write it as WorkingDirectory"),
    key(
        "MaximumConcurrency",
        Kind::Integer(&MAXIMUM_CONCURRENCY),
        "Invocations at once; for Command the number of processes.",
    ),
    key(
        "ConcurrencyPerProcess",
        Kind::Integer(&CONCURRENCY_PER_PROCESS),
        "With Command: invocations that one process may hold at once, passed to it as AWS_LAMBDA_MAX_CONCURRENCY.",
    ),
    key("Environment", Kind::TextMap, "With Command: environment variables of the program."),
    key("WorkingDirectory", Kind::Text, "With Command: the program's working directory."),
    key(
        "NotReachedStatus",
        Kind::Integers(&NOT_REACHED_STATUS),
        "With Url: answers that spend no attempt. Default [408, 429, 503].",
    ),
    key(
        "RoleArn",
        Kind::Text,
        "invokeIdentityArn of the events. Default arn:aws:iam::<account>:role/shardmill.",
    ),
];

pub(super) static RETRY: &[Key] = &[
    key(
        "InitialBackoffMilliseconds",
        Kind::Integer(&limits::INITIAL_BACKOFF),
        "The wait before the first retry.",
    ),
    key("MaximumBackoffSeconds", Kind::Integer(&limits::MAXIMUM_BACKOFF), "What the wait doubles up to."),
];

pub(super) static POLLING: &[Key] = &[
    key(
        "IdleIntervalMilliseconds",
        Kind::Integer(&limits::IDLE_INTERVAL),
        "The wait after an empty page at the tip. DynamoDB streams: 250.",
    ),
    key(
        "MaximumIdleIntervalMilliseconds",
        Kind::Integer(&limits::MAXIMUM_IDLE_INTERVAL),
        "What the wait grows to on a shard that stays empty. Default: IdleIntervalMilliseconds; DynamoDB streams: 2000.",
    ),
    key(
        "MaximumRecords",
        Kind::Integer(&limits::MAXIMUM_RECORDS),
        "Records per read. DynamoDB streams: at most 1000, the default.",
    ),
    key("BufferBytes", Kind::Integer(&limits::BUFFER_BYTES), "Bytes that one shard may buffer."),
    key(
        "Encoding",
        Kind::Choice(&["auto", "json", "cbor"]),
        "In which encoding Kinesis answers: cbor, which costs less to read, or json. Default auto: cbor, and json where the service does not understand it, as some emulators. Not for DynamoDB streams.",
    ),
];

pub(super) static LEASE_SECONDS: Limit = Limit::new("Worker.LeaseSeconds", 2, 3_600, 10);
pub(super) static MAXIMUM_LEASES: Limit = Limit::new("Worker.MaximumLeases", 1, 1_000_000, 0);
pub(super) static STOP_SECONDS: Limit = Limit::new("Worker.StopSeconds", 1, 3_600, 25);
pub(super) static WORKER_BUFFER_BYTES: Limit = Limit::new("Worker.BufferBytes", 16 << 20, 1 << 40, 512 << 20);
pub(super) static MAXIMUM_CONCURRENT_READS: Limit =
    Limit::new("Worker.MaximumConcurrentReads", 1, 100_000, 256);

static WORKER: &[Key] = &[
    key(
        "Id",
        Kind::Text,
        "The worker's name, unique among the workers of one store. Default: host name and a random suffix.",
    ),
    key(
        "LeaseSeconds",
        Kind::Integer(&LEASE_SECONDS),
        "After this long without a renewal another worker takes a shard over.",
    ),
    key(
        "MaximumLeases",
        Kind::Integer(&MAXIMUM_LEASES),
        "Shards that this worker takes at most. Default: no limit.",
    ),
    key("StopSeconds", Kind::Integer(&STOP_SECONDS), "How long running invocations may take after SIGTERM."),
    key("BufferBytes", Kind::Integer(&WORKER_BUFFER_BYTES), "Bytes that all shards together may buffer."),
    key(
        "MaximumConcurrentReads",
        Kind::Integer(&MAXIMUM_CONCURRENT_READS),
        "Reads and openings of shards at once, over all shards and mappings; fewer if the process may open fewer files.",
    ),
];

static ADMIN: &[Key] = &[key(
    "Listen",
    Kind::Text,
    "Address and port of the admin endpoints, or off. Default 127.0.0.1:9464, or the next free port.",
)];

static AWS: &[Key] = &[
    key("Region", Kind::Text, "Default: the stream's."),
    key("EndpointUrl", Kind::Text, "One endpoint for all services: an emulator's."),
    key("Profile", Kind::Text, "A profile of the AWS configuration files."),
    key("AssumeRoleArn", Kind::Text, "A role to assume."),
];

/// Keys of the process, at the top of the file only.
pub(super) static PROCESS: &[Key] = &[
    key("Worker", Kind::Section(WORKER), "This process among its peers."),
    key("Admin", Kind::SectionOrOff(ADMIN), "The admin endpoints."),
    key("Aws", Kind::Section(AWS), "How AWS is reached."),
    key(
        "CreateTable",
        Kind::Bool,
        "Whether a lease table that is missing (dynamodb:TABLE, kcl:TABLE) is created. Default true; false: a wrong name is an error.",
    ),
];

/// In addition to [`PROCESS`], the top of a file with several mappings.
pub(super) static SHARED: &[Key] = &[
    key("Mappings", Kind::Sections(MAPPING), "Several mappings in one process."),
    key(
        "Checkpoints",
        Kind::Text,
        "For all mappings without their own: sqlite:PATH, dynamodb:TABLE, kcl:TABLE or memory.",
    ),
    key("Retry", Kind::Section(RETRY), "For all mappings, key by key."),
    key("Polling", Kind::Section(POLLING), "For all mappings, key by key."),
];

/// The names of the tables that a user meets, for "it belongs under …".
pub(super) static SECTIONS: &[(&str, &[Key])] = &[
    ("at the top of the file", PROCESS),
    ("in a mapping", MAPPING),
    ("in Function", FUNCTION),
    ("in DestinationConfig", DESTINATION_CONFIG),
    ("in DestinationConfig.OnFailure", ON_FAILURE),
    ("in FilterCriteria", FILTER_CRITERIA),
    ("in Retry", RETRY),
    ("in Polling", POLLING),
    ("in Worker", WORKER),
    ("in Admin", ADMIN),
    ("in Aws", AWS),
];

fn anywhere(name: &str) -> Option<&'static Key> {
    [PROCESS, MAPPING, SHARED].into_iter().flatten().find(|key| key.name == name)
}

/// Whether the name is a key at the top of a file.
pub(super) fn is_known(name: &str) -> bool {
    anywhere(name).is_some()
}

/// Whether the name is a key that means something there.
pub(super) fn is_used(name: &str) -> bool {
    anywhere(name).is_some_and(|key| !matches!(key.kind, Kind::Ignored | Kind::Refused(..)))
}

/// The message about `name`, which is not in `tables`.
pub(super) fn unknown(name: &str, tables: &[&'static [Key]]) -> String {
    let here = || tables.iter().flat_map(|table| table.iter());
    let usable = |key: &&Key| !matches!(key.kind, Kind::Ignored | Kind::Refused(..));
    if name == "<<" {
        return "merge keys are not part of YAML 1.2; write shared keys at the top of the file, next to Mappings"
            .to_owned();
    }
    let elsewhere = SECTIONS.iter().find(|(_, table)| table.iter().any(|k| k.name == name && usable(&k)));
    if let Some((section, _)) = elsewhere {
        return format!("is not a known key here; it belongs {section}");
    }
    let lower = name.to_lowercase();
    let nearest =
        here().filter(usable).map(|k| (strsim::damerau_levenshtein(&lower, &k.name.to_lowercase()), k.name));
    let nearest = nearest.min();
    let begins = |key: &&&Key| lower.len() >= 4 && key.name.to_lowercase().starts_with(&lower);
    if let Some(known) = here().filter(usable).find(|k| begins(&k)) {
        return format!("is not a known key; did you mean {}?", known.name);
    }
    if let Some((distance, known)) = nearest
        && distance * 3 <= lower.chars().count().max(known.len())
    {
        return format!("is not a known key; did you mean {known}?");
    }
    match nearest {
        Some((_, known)) => format!("is not a known key; the nearest is {known}"),
        None => "is not a known key".to_owned(),
    }
}
