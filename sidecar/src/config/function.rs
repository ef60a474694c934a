//! `Function`: how the function is called.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::keys;
use super::section::{Report, Section};
use super::shared;
use super::types::{Function, Target};

const PERMITTED: &str = "exactly one of Url, Command, Stdout";

/// `None`: wrong and reported. `mapping` is the mapping's section, `section` its `Function`.
pub(super) fn function(
    mapping: &Section<'_>,
    section: Option<&Section<'_>>,
    report: &mut Report,
) -> Option<Function> {
    let path = mapping.path("Function");
    let Some(section) = section else {
        if !report.is_wrong(&path) {
            let text = format!(
                "is not set; permitted: {PERMITTED}; for example Function: {{Url: \"http://127.0.0.1:8080/\"}}"
            );
            report.error(mapping.at, path, text);
        }
        return None;
    };
    let set: Vec<&str> = ["Url", "Command", "Stdout"].into_iter().filter(|key| section.has(key)).collect();
    let Some((&first, others)) = set.split_first() else {
        let already =
            ["Url", "Command", "Stdout", "LambdaArn"].iter().any(|k| report.is_wrong(&section.path(k)));
        if !already {
            let text = format!("does not say how to call the function; permitted: {PERMITTED}; add one");
            report.error(section.at, path, text);
        }
        return None;
    };
    for other in others {
        let text = format!("stands next to {first}; permitted: {PERMITTED}; remove one");
        report.error(section.place(other), section.path(other), text);
    }
    for (key, goes_with) in [
        ("ConcurrencyPerProcess", &["Command"][..]),
        ("Environment", &["Command"]),
        ("WorkingDirectory", &["Command"]),
        ("NotReachedStatus", &["Url"]),
        ("MaximumConcurrency", &["Url", "Command"]),
    ] {
        if section.has(key) && !goes_with.iter().any(|with| set.contains(with)) {
            let text = format!("goes with {} only, not with {first}; remove it", goes_with.join(" and "));
            report.error(section.place(key), section.path(key), text);
        }
    }
    let maximum_concurrency = section
        .checked("MaximumConcurrency", &keys::MAXIMUM_CONCURRENCY, report)
        .and_then(|n| usize::try_from(n).ok());
    let target = match first {
        "Url" => url(section, report),
        "Command" => command(section, report)?,
        _ => {
            if section.bool("Stdout") == Some(false) {
                let text = format!(
                    "false has no meaning; permitted: {PERMITTED}; write true, or remove it and add another"
                );
                report.error(section.place("Stdout"), section.path("Stdout"), text);
            }
            Target::Stdout
        }
    };
    Some(Function { target, maximum_concurrency })
}

fn url(section: &Section<'_>, report: &mut Report) -> Target {
    shared::check_url(section, "Url", report);
    let not_reached_status = match section.items("NotReachedStatus") {
        None => vec![408, 429, 503],
        Some(items) => items
            .into_iter()
            .filter_map(|(at, text)| {
                let checked = keys::NOT_REACHED_STATUS.check(super::tree::integer(text)?);
                match checked {
                    Ok(status) => u16::try_from(status).ok(),
                    Err(error) => {
                        report.error(at, section.path("NotReachedStatus"), error.message());
                        None
                    }
                }
            })
            .collect(),
    };
    Target::Url { url: section.text("Url").unwrap_or_default().to_owned(), not_reached_status }
}

fn command(section: &Section<'_>, report: &mut Report) -> Option<Target> {
    let command: Vec<String> =
        section.items("Command")?.into_iter().map(|(_, text)| text.to_owned()).collect();
    if command.first().is_none_or(String::is_empty) {
        let text =
            "names no program; write a list of texts, for example [python3, -m, awslambdaric, app.handler]";
        report.error(section.place("Command"), section.path("Command"), text);
    }
    let mut environment = BTreeMap::new();
    for (at, name, value) in section.texts("Environment").unwrap_or_default() {
        let path = format!("{}.{name}", section.path("Environment"));
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            report.error(
                at,
                path,
                "cannot be an environment variable; permitted: a name without = and NUL; rename it",
            );
        } else if matches!(
            name,
            "AWS_LAMBDA_RUNTIME_API" | "AWS_LAMBDA_MAX_CONCURRENCY" | "_LAMBDA_TELEMETRY_LOG_FD"
        ) {
            report.error(at, path, "is set by shardmill for each process; remove it");
        } else {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    let working_directory = section.text("WorkingDirectory").map(PathBuf::from);
    if working_directory.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        let text = "names no folder; write a path or remove the key";
        report.error(section.place("WorkingDirectory"), section.path("WorkingDirectory"), text);
    }
    let concurrency_per_process = section
        .checked("ConcurrencyPerProcess", &keys::CONCURRENCY_PER_PROCESS, report)
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(1);
    Some(Target::Command { command, environment, working_directory, concurrency_per_process })
}
