//! deploy/prometheus-rules.yaml and deploy/grafana-dashboard.json.

use std::collections::BTreeSet;

use serde_json::Value;
use shardmill::{METRICS, MetricDescription, MetricKind};

use crate::read;
use crate::yaml::yaml;

/// Labels that Prometheus gives to every series, in addition to those of the metric.
const OF_THE_TARGET: [&str; 2] = ["instance", "job"];

fn rules() -> Vec<Value> {
    let file = yaml(&read("deploy/prometheus-rules.yaml"));
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana-dashboard.json")).unwrap()
}

/// The expressions of all panels, with their legends.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    targets.map(|target| (text(&target["expr"]), text(&target["legendFormat"]))).collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The metric of a series' name, with the labels that the series has.
fn metric(series: &str) -> (&'static MetricDescription, BTreeSet<&'static str>) {
    let of_a_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| series.strip_suffix(part));
    let found = METRICS.iter().find(|metric| match metric.kind {
        MetricKind::Histogram => Some(metric.name) == of_a_histogram,
        _ => metric.name == series,
    });
    let metric = found.unwrap_or_else(|| panic!("{series} is not in the table of metrics"));
    let mut labels: BTreeSet<&str> = metric.labels.iter().copied().chain(OF_THE_TARGET).collect();
    if series.ends_with("_bucket") {
        labels.insert("le");
    }
    (metric, labels)
}

/// The metrics that an expression names, each with the part of the expression behind its name.
fn series(expression: &str) -> Vec<(&str, &str)> {
    let starts = expression.match_indices("shardmill_").map(|(at, _)| &expression[at..]);
    starts.map(|rest| rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()))).collect()
}

/// Label, operator and values of each matcher behind a metric's name.
fn matchers(rest: &str) -> Vec<(String, Vec<String>)> {
    let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return Vec::new();
    };
    let matcher = |text: &str| {
        let (label, value) = text.split_once(['=', '!']).unwrap();
        let value = value.trim_matches(['=', '~', '"']);
        (label.trim().to_owned(), value.split('|').map(str::to_owned).collect())
    };
    inside.0.split(',').map(matcher).collect()
}

/// The labels of each `by (...)`.
fn grouped_by(expression: &str) -> impl Iterator<Item = &str> {
    let lists = expression.split(" by (").skip(1).map(|rest| rest.split(')').next().unwrap());
    lists.flat_map(|list| list.split(',').map(str::trim))
}

/// The label's values that the table of metrics or the documents name.
fn is_value(metric: &MetricDescription, value: &str) -> bool {
    let written = format!("`{value}`");
    value == "$mapping" || metric.text.contains(&written) || {
        metric.name == "shardmill_troubled_lanes" && read("docs/operations.md").contains(&written)
    }
}

fn assert_expression(expression: &str) {
    let named = series(expression);
    assert!(!named.is_empty(), "{expression}");
    let count = |bracket: char| expression.matches(bracket).count();
    assert_eq!((count('('), count('{'), count('[')), (count(')'), count('}'), count(']')), "{expression}");
    for (name, rest) in named {
        let (metric, labels) = metric(name);
        for (label, values) in matchers(rest) {
            assert!(labels.contains(label.as_str()), "{name} has no label {label}: {expression}");
            for value in values {
                assert!(is_value(metric, &value), "{name}: {label} is never {value}");
            }
        }
        for label in grouped_by(expression) {
            assert!(labels.contains(label), "{name} has no label {label}: {expression}");
        }
        let rises = rest.contains("[5m]") || rest.contains("[10m]") || rest.contains("[15m]");
        let is_counter = metric.kind != MetricKind::Gauge;
        assert_eq!(rises || rest.contains("[$__rate_interval]"), is_counter, "{name}: {expression}");
    }
}

/// The labels that a text shows between `before` and the end of the word.
fn shown<'t>(text: &'t str, before: &str) -> impl Iterator<Item = &'t str> {
    text.split(before).skip(1).map(|rest| rest.split(|c| !is_word(c)).next().unwrap())
}

#[test]
fn alerts_name_only_metrics_labels_and_values_that_exist() {
    let rules = rules();
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), rules.len(), "each name once");
    for rule in &rules {
        let expression = rule["expr"].as_str().unwrap();
        assert_expression(expression);
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("warning" | "critical")), "{rule}");
        for text in ["summary", "description"] {
            let text = rule["annotations"][text].as_str().unwrap();
            for label in shown(text, "$labels.") {
                assert!(grouped_by(expression).any(|kept| kept == label), "{label} of {expression}");
            }
        }
    }
}

#[test]
fn every_alert_says_why_its_threshold_is_what_it_is() {
    let file = read("deploy/prometheus-rules.yaml");
    let mut before = "";
    for line in file.lines().map(str::trim) {
        assert!(!line.starts_with("- alert:") || before.starts_with("# "), "{line}");
        before = line;
    }
    assert_eq!(file.matches("- alert:").count(), rules().len());
}

#[test]
fn what_the_table_of_metrics_says_to_alert_on_has_an_alert() {
    let rules = read("deploy/prometheus-rules.yaml");
    let asked = METRICS.iter().filter(|metric| metric.text.contains("Alert"));
    let missing: Vec<&str> = asked.map(|m| m.name).filter(|name| !rules.contains(name)).collect();
    assert_eq!(missing, [""; 0]);
    for name in ["shardmill_on_failure_destination_delivered_events_total", "shardmill_leases_lost_total"] {
        assert!(rules.contains(name), "{name}");
    }
}

#[test]
fn the_dashboard_names_only_metrics_and_labels_that_exist() {
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    for (expression, legend) in &queries {
        assert_expression(expression);
        for label in shown(legend, "{{") {
            assert!(grouped_by(expression).any(|kept| kept == label), "{label} of {expression}");
        }
    }
    let all: String = queries.into_iter().map(|(expression, _)| expression).collect();
    for name in [
        "polled_events_total",
        "invocations_total",
        "iterator_age_milliseconds",
        "troubled_lanes",
        "leases_held",
        "workers",
        "shards_unowned",
        "handoffs_total",
        "leases_taken_total",
    ] {
        assert!(all.contains(&format!("shardmill_{name}")), "{name}");
    }
}

#[test]
fn the_panels_of_the_dashboard_do_not_overlap_and_use_its_variables() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "mapping"]);
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24 && (0..place("h")).all(|y| cells.insert((x, place("y") + y))), "{panel}");
        }
    }
}
