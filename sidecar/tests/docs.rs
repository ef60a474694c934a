//! The documents say what the code does, as far as a test can tell.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shardmill_sidecar::admin::LOG_LINES_LOST;
use shardmill_sidecar::config;

const CRATES: [&str; 9] =
    ["engine", "checkpoint", "consumer", "sidecar", "testkit", "tests", "examples", "bench", "xtask"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file with this ending below `folder`.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<PathBuf> {
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| repository().join(name));
    top.into_iter().chain(files(&repository().join("docs"), "md")).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The keys of one table as rows: name, values, default, meaning. Keys without a meaning here follow as lists.
fn table(title: &str, properties: &Value) -> String {
    let mut text = format!("### {title}\n\n| key | values | default | meaning |\n|---|---|---|---|\n");
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    for (name, property) in properties.as_object().unwrap() {
        let name = format!("`{name}`");
        match property["description"].as_str().unwrap() {
            "Accepted and ignored." => ignored.push(name),
            "Refused unless empty." => refused.push(name),
            about => {
                let about = about.replace('<', "\\<");
                // Writing to a String cannot fail.
                writeln!(text, "| {name} | {} | {} | {about} |", values(property), default(property))
                    .unwrap();
            }
        }
    }
    for (what, names) in [("Accepted and ignored", ignored), ("Refused unless empty", refused)] {
        if !names.is_empty() {
            writeln!(text, "\n{what}: {}.", names.join(", ")).unwrap();
        }
    }
    text
}

/// A scalar may be given by a variable, too; what is said about it stands in the first alternative.
fn scalar(property: &Value) -> &Value {
    let alternative = &property["anyOf"][0];
    if alternative.is_object() && property["anyOf"][1]["pattern"].is_string() {
        alternative
    } else {
        property
    }
}

fn values(property: &Value) -> String {
    let value = scalar(property);
    let range =
        |value: &Value| Some(format!("{} to {}", value["minimum"].as_i64()?, value["maximum"].as_i64()?));
    if let Some(range) = range(value) {
        return range;
    }
    if let Some(range) = range(&value["anyOf"][1]) {
        return format!("{} or {range}", value["anyOf"][0]["const"]);
    }
    if let Some(choices) = value["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(|c| format!("`{}`", c.as_str().unwrap())).collect();
        return choices.join(", ");
    }
    let items = scalar(&property["items"]);
    match &property["type"] {
        _ if property["maxItems"] == 0 => "refused".to_owned(),
        // Also where one of its names may hold the map itself.
        _ if property["additionalProperties"].is_object() => "map of texts".to_owned(),
        _ if property["$ref"].is_string() || property["properties"].is_object() => "section".to_owned(),
        _ if property["anyOf"][1]["const"] == "off" => "section or `off`".to_owned(),
        _ if items["enum"].is_array() => format!("list of `{}`", items["enum"][0].as_str().unwrap()),
        _ if range(items).is_some() => format!("list of {}", range(items).unwrap()),
        Value::String(name) if name == "array" && items["type"] == "object" => "list of sections".to_owned(),
        Value::String(name) if name == "array" && property["items"]["$ref"].is_string() => {
            "list of mappings".to_owned()
        }
        Value::String(name) if name == "array" => "list of texts".to_owned(),
        Value::String(name) if name == "string" => "text".to_owned(),
        Value::Array(_) => "time".to_owned(),
        _ if value["type"] == "boolean" => "`true`, `false`".to_owned(),
        _ => "anything".to_owned(),
    }
}

fn default(property: &Value) -> String {
    let value = scalar(property);
    value.get("default").map(ToString::to_string).unwrap_or_default()
}

/// The tables of docs/configuration.md.
fn reference() -> String {
    let schema = config::schema();
    let (mapping, several) = (&schema["$defs"]["mapping"]["properties"], &schema["then"]["properties"]);
    let mut process = several.as_object().unwrap().clone();
    process.retain(|name, _| !matches!(name.as_str(), "Checkpoints" | "Retry" | "Polling"));
    let on_failure = &mapping["DestinationConfig"]["properties"]["OnFailure"];
    let filters = &mapping["FilterCriteria"];
    let tables = [
        ("A mapping", mapping),
        ("`Function`", &mapping["Function"]["properties"]),
        ("`DestinationConfig`", &mapping["DestinationConfig"]["properties"]),
        ("`DestinationConfig.OnFailure`", &on_failure["properties"]),
        ("`FilterCriteria`", &filters["properties"]),
        ("`FilterCriteria.Filters`, each", &filters["properties"]["Filters"]["items"]["properties"]),
        ("`Retry`", &mapping["Retry"]["properties"]),
        ("`Polling`", &mapping["Polling"]["properties"]),
        ("The process, at the top of the file", &Value::Object(process)),
        ("`Worker`", &several["Worker"]["properties"]),
        ("`Admin`", &several["Admin"]["anyOf"][0]["properties"]),
        ("`Aws`", &several["Aws"]["properties"]),
    ];
    tables.map(|(title, properties)| table(title, properties)).join("\n")
}

#[test]
fn the_configuration_reference_has_every_key_with_its_range_and_default() {
    const BEGIN: &str = "<!-- from the table of keys; written by sidecar/tests/docs.rs -->\n\n";
    const END: &str = "\n<!-- end of the tables -->";
    let document = read("docs/configuration.md");
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("SHARDMILL_WRITE_DOCS").is_some() {
        let path = repository().join("docs/configuration.md");
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", reference())).unwrap();
        return;
    }
    assert_eq!(
        written,
        reference(),
        "the table of keys has changed: run this test with SHARDMILL_WRITE_DOCS=1"
    );
}

/// The table of metrics in docs/operations.md.
fn metrics() -> String {
    let mut table = "| metric | unit | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in shardmill::METRICS.iter().chain([&LOG_LINES_LOST]) {
        let histogram = if metric.kind == shardmill::MetricKind::Histogram { "histogram " } else { "" };
        let (name, unit, labels, text) = (metric.name, metric.unit, metric.labels.join(", "), metric.text);
        writeln!(table, "| `{name}` | {unit} | {labels} | {histogram}{text} |").unwrap();
    }
    table
}

#[test]
fn every_metric_is_explained_and_no_other() {
    let operations = read("docs/operations.md");
    let (before, rest) = operations.split_once("\n| metric |").unwrap();
    let (written, after) = rest.split_once("\n\n").unwrap();
    let (written, expected) = (format!("| metric |{written}\n"), metrics());
    if std::env::var_os("SHARDMILL_WRITE_DOCS").is_some() {
        let path = repository().join("docs/operations.md");
        std::fs::write(path, format!("{before}\n{expected}\n{after}")).unwrap();
        return;
    }
    assert_eq!(
        written, expected,
        "the table of metrics has changed: run this test with SHARDMILL_WRITE_DOCS=1"
    );
}

#[test]
fn every_test_that_a_document_names_exists() {
    let sources: Vec<String> = CRATES
        .iter()
        .flat_map(|name| files(&repository().join(name), "rs"))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let mut named = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let tests = quoted(&text)
            .filter(|word| word.matches('_').count() >= 3 && word.chars().all(is_name))
            .filter(|word| !word.starts_with("shardmill_") && *word != "owner_switches_since_checkpoint");
        for test in tests {
            let function = format!("fn {test}(");
            assert!(sources.iter().any(|s| s.contains(&function)), "{}: {test}", document.display());
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

/// A table's rows by their first cell, which must be `prefix` and a number; each has a test's name in its last cell, or a
/// sentence.
fn numbered(path: &str, prefix: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for row in read(path).lines().filter(|line| line.starts_with(&format!("| {prefix}"))) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, what, tests] = cells[..] else { continue };
        let Ok(number) = number.trim_start_matches(prefix).trim().parse() else { continue };
        assert!(what.len() > 10, "{path}: {row}");
        let names = quoted(tests).filter(|word| word.matches('_').count() >= 2).count();
        assert!(
            names > 0 || (tests.contains(' ') && tests.ends_with('.')),
            "{path}: neither test nor reason: {row}"
        );
        numbers.push(number);
    }
    numbers
}

#[test]
fn every_rule_has_a_test_or_a_reason() {
    assert_eq!(numbered("docs/rules.md", "R"), (1..=80).collect::<Vec<_>>());
}

#[test]
fn every_incident_that_concerns_this_version_has_a_test_or_a_reason() {
    let listed = numbered("docs/incidents.md", "");
    let expected: Vec<u32> = (1..=44).chain([47, 48, 49, 50, 51, 52, 57]).chain(59..=108).collect();
    assert!(listed.is_sorted(), "{listed:?}");
    for number in expected {
        assert!(listed.contains(&number), "{number}");
    }
}

/// What security.md claims is shown by a test (that it exists is checked above), or explained in a sentence.
#[test]
fn every_claim_of_the_security_document_has_a_test_or_a_reason() {
    let document = read("docs/security.md");
    let mut claims = 0;
    for part in document.split("| shown by |\n").skip(1) {
        for row in part.lines().take_while(|line| line.starts_with('|')).skip(1) {
            let shown = row.trim_matches('|').rsplit(" | ").next().unwrap().trim();
            let tests = quoted(shown).filter(|word| word.starts_with("incident_")).count();
            assert!(
                tests > 0 || (shown.len() > 20 && shown.ends_with('.')),
                "neither test nor reason: {row}"
            );
            claims += 1;
        }
    }
    assert!(claims >= 10, "{claims}");
}

/// An example is a file, so that it can be run as it is, and its document shows all of it.
#[test]
fn every_example_function_is_shown_in_the_document_as_it_is() {
    let document = read("docs/handlers.md");
    let mut shown = BTreeSet::new();
    for part in document.split("<!-- file: ").skip(1) {
        let (path, rest) = part.split_once(" -->\n```").unwrap();
        let (_, text) = rest.split_once('\n').unwrap();
        let text = text.split("```").next().unwrap();
        assert_eq!(text, read(path), "docs/handlers.md does not show {path} as it is");
        shown.insert(repository().join(path));
    }
    let folder = std::fs::read_dir(repository().join("examples/functions")).unwrap();
    let files: BTreeSet<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(shown, files);
}

/// A demo's snapshot is its real output.
#[test]
fn the_demos_in_the_readme_are_what_the_demo_prints() {
    let readme = read("README.md");
    for (command, snapshot) in [("cargo run -- demo", "demo"), ("cargo xtask demo", "demo-dynamodb")] {
        let shown = readme.split(&format!("```console\n$ {command}\nshardmill demo")).nth(1).unwrap();
        let shown = shown.split("```").next().unwrap();
        let snapshot = read(&format!("sidecar/tests/snapshots/{snapshot}.snap"));
        let parts: Vec<&str> = shown.split("\n...\n").skip(1).map(str::trim_end).collect();
        assert_eq!(parts.len(), 2);
        for part in parts {
            assert!(snapshot.contains(part), "the demo does not print:\n{part}");
        }
    }
}

#[test]
fn the_file_in_the_help_of_run_is_valid() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_shardmill")).args(["run", "--help"]).output();
    let help = String::from_utf8(output.unwrap().stdout).unwrap();
    let file = help.split("A whole file:\n").nth(1).unwrap();
    let file: String =
        file.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
    let now = shardmill_engine::Wall::from_millis(1_800_000_000_000);
    let loaded = config::parse(Path::new("help"), &file, &|_| None, now).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.warnings.is_empty() && loaded.ignored.is_empty());
}
