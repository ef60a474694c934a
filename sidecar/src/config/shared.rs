//! The parts of a file that are not one mapping's: worker, admin, AWS, checkpoints.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shardmill_engine::Arn;

use super::keys;
use super::section::{Report, Section};
use super::types::{Admin, Aws, Checkpoints, Worker};

pub(super) fn worker(top: &Section<'_>, report: &mut Report) -> Option<Worker> {
    let section = top.section("Worker", report);
    let mut number = |name, limit: &shardmill_engine::limits::Limit| {
        let value = section.as_ref().and_then(|s| s.checked(name, limit, report));
        value.unwrap_or(limit.default)
    };
    let lease = number("LeaseSeconds", &keys::LEASE_SECONDS);
    let stop = number("StopSeconds", &keys::STOP_SECONDS);
    let leases = number("MaximumLeases", &keys::MAXIMUM_LEASES);
    let buffer = number("BufferBytes", &keys::WORKER_BUFFER_BYTES);
    let reads = number("MaximumConcurrentReads", &keys::MAXIMUM_CONCURRENT_READS);
    let id = section.as_ref().and_then(|s| name(s, "Id", report));
    Some(Worker {
        id,
        lease: Duration::from_secs(u64::try_from(lease).ok()?),
        // 0 means "not set" and is below the limit.
        maximum_leases: usize::try_from(leases).ok().filter(|n| *n > 0),
        stop: Duration::from_secs(u64::try_from(stop).ok()?),
        buffer_bytes: usize::try_from(buffer).unwrap_or(usize::MAX),
        maximum_concurrent_reads: usize::try_from(reads).ok()?,
    })
}

/// A name of 1 to 255 printable characters.
fn name(section: &Section<'_>, key: &str, report: &mut Report) -> Option<String> {
    let text = section.text(key)?;
    if (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Some(text.to_owned());
    }
    let message = format!(
        "{} is not a name; permitted: 1 to 255 characters, none a control character",
        section.shown(key)
    );
    report.error(
        section.place(key),
        section.path(key),
        format!("{message}; leave it out to use the default"),
    );
    None
}

pub(super) fn admin(top: &Section<'_>, report: &mut Report) -> Admin {
    if top.text("Admin").is_some() {
        return Admin::Off;
    }
    let Some(section) = top.section("Admin", report) else { return Admin::Default };
    let Some(text) = section.text("Listen") else { return Admin::Default };
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    match address.parse::<SocketAddr>() {
        _ if text == "off" => Admin::Off,
        Ok(address) => {
            if !address.ip().is_loopback() {
                let message = format!(
                    "{text} is reachable from other hosts; what is served there is not protected by a password"
                );
                report.warn(section.place("Listen"), section.path("Listen"), message);
            }
            Admin::Listen(address)
        }
        Err(_) => {
            let message = format!(
                "{} is not an address; permitted: IP:PORT, localhost:PORT or off; for example 127.0.0.1:9464",
                section.shown("Listen")
            );
            report.error(section.place("Listen"), section.path("Listen"), message);
            Admin::Default
        }
    }
}

pub(super) fn aws(top: &Section<'_>, report: &mut Report) -> Aws {
    let Some(section) = top.section("Aws", report) else { return Aws::default() };
    if let Some(region) = section.text("Region") {
        let ok = !region.is_empty()
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !ok {
            let message =
                format!("{} is not a region; write its code, for example eu-west-1", section.shown("Region"));
            report.error(section.place("Region"), section.path("Region"), message);
        }
    }
    check_url(&section, "EndpointUrl", report);
    if let Some(role) = section.text("AssumeRoleArn")
        && !Arn::parse(role).is_some_and(|arn| arn.is_role())
    {
        let message = format!(
            "{} is not a role's ARN; permitted: arn:aws:iam::<account>:role/<name>; copy it from IAM",
            section.shown("AssumeRoleArn")
        );
        report.error(section.place("AssumeRoleArn"), section.path("AssumeRoleArn"), message);
    }
    let profile = name(&section, "Profile", report);
    let text = |key| section.text(key).map(str::to_owned);
    Aws {
        region: text("Region"),
        endpoint_url: text("EndpointUrl"),
        profile,
        assume_role_arn: text("AssumeRoleArn"),
    }
}

/// Whether the key's value is an http or https URL with a host.
pub(super) fn check_url(section: &Section<'_>, key: &str, report: &mut Report) {
    let Some(text) = section.text(key) else { return };
    let ok = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    if text.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@')) {
        // The password is not printed.
        let message =
            "has a user name or a password in it, which is not supported; remove what is before the @";
        report.error(section.place(key), section.path(key), message);
    } else if !ok {
        let message = format!(
            "\"{}\" is not a URL; permitted: http:// or https:// with a host; for example http://127.0.0.1:8080/",
            shardmill_engine::ShownUrl(text)
        );
        report.error(section.place(key), section.path(key), message);
    }
}

/// `None`: not set, or wrong and reported.
pub(super) fn checkpoints(section: &Section<'_>, report: &mut Report) -> Option<Checkpoints> {
    const KEY: &str = "Checkpoints";
    let text = section.text(KEY)?;
    let problem = match text.split_once(':').unwrap_or((text, "")) {
        ("sqlite", path) if !matches!(path, "" | ":memory:") => {
            return Some(Checkpoints::Sqlite(PathBuf::from(path)));
        }
        ("sqlite", _) => "names no file; write sqlite:PATH, or memory to keep nothing",
        ("dynamodb", table) if is_table(table) => return Some(Checkpoints::DynamoDb(table.to_owned())),
        ("dynamodb", _) => {
            "names no table; write dynamodb:TABLE with the table's name of 3 to 255 of a-z, A-Z, 0-9, _, - and ."
        }
        ("kcl", table) if is_table(table) => return Some(Checkpoints::Kcl(table.to_owned())),
        ("kcl", _) => {
            "names no table; write kcl:TABLE with the name of KCL's application, which is its lease table's: 3 to 255 of \
             a-z, A-Z, 0-9, _, - and ."
        }
        ("memory", "") => {
            report.warn(
                section.place(KEY),
                section.path(KEY),
                "keeps nothing: after a restart every shard starts at StartingPosition again",
            );
            return Some(Checkpoints::Memory);
        }
        _ => {
            "is not a checkpoint store; permitted: sqlite:PATH, dynamodb:TABLE, kcl:TABLE, memory; for example \
             sqlite:./shardmill.db"
        }
    };
    let shown = section.plain(KEY);
    report.error(section.place(KEY), section.path(KEY), format!("{shown} {problem}"));
    None
}

/// What DynamoDB permits as a table's name.
fn is_table(name: &str) -> bool {
    let permitted = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (3..=255).contains(&name.len()) && name.bytes().all(permitted)
}
