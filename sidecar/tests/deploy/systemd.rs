//! deploy/shardmill.service.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use shardmill_engine::Wall;
use shardmill_sidecar::config;

use crate::{STOP_GRACE, read};

/// The unit's directives under their section, `Section.Name`.
fn unit() -> BTreeMap<String, String> {
    let (mut directives, mut section) = (BTreeMap::new(), String::new());
    for line in read("deploy/shardmill.service").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if !line.is_empty() && !line.starts_with('#') {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let name = format!("{section}.{name}");
            assert!(directives.insert(name.clone(), value.to_owned()).is_none(), "{name} twice");
        }
    }
    directives
}

#[test]
fn the_unit_stops_the_sidecar_alone_and_waits_for_it() {
    let unit = unit();
    let service = |name: &str| unit[&format!("Service.{name}")].as_str();
    assert_eq!(service("KillMode"), "mixed");
    assert_eq!(service("Restart"), "on-failure", "an orderly stop ends with 0");
    assert_eq!(service("RestartPreventExitStatus"), "2", "a configuration that is wrong");
    assert_eq!(service("OOMPolicy"), "continue");
    assert!(!unit.contains_key("Service.ExecReload"), "SIGHUP stops the sidecar");
    assert!(!unit.contains_key("Service.KillSignal"), "SIGTERM");
    let text = "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
                StartingPosition: LATEST\nFunction: {Url: 'http://127.0.0.1:8080/'}\n";
    let loaded = config::parse(Path::new("c"), text, &|_| None, Wall::from_millis(0)).unwrap();
    let timeout = Duration::from_secs(service("TimeoutStopSec").parse().unwrap());
    assert!(timeout >= loaded.config.worker.stop + STOP_GRACE);
}

#[test]
fn the_unit_checks_what_it_runs_and_keeps_the_default_store_in_its_state() {
    let unit = unit();
    let service = |name: &str| unit[&format!("Service.{name}")].as_str();
    let (check, run) = (service("ExecStartPre"), service("ExecStart"));
    let file = |command: &str| command.split(" -c ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(check.starts_with("/usr/local/bin/shardmill check -c "), "{check}");
    assert!(run.starts_with("/usr/local/bin/shardmill run -c "), "{run}");
    assert_eq!(file(check), file(run));
    assert_eq!(service("WorkingDirectory"), format!("/var/lib/{}", service("StateDirectory")));
    assert_eq!(service("StateDirectoryMode"), "0700");
    assert_eq!(unit["Install.WantedBy"], "multi-user.target");
}

#[test]
fn the_unit_is_hardened_as_far_as_functions_and_takeovers_permit() {
    let unit = unit();
    let on = [
        "LockPersonality",
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
    ];
    for name in on {
        assert_eq!(unit[&format!("Service.{name}")], "yes", "{name}");
    }
    assert_eq!(unit["Service.ProtectSystem"], "strict");
    assert_eq!(unit["Service.CapabilityBoundingSet"], "");
    assert_ne!(unit["Service.User"], "root");
    for name in ["MemoryDenyWriteExecute", "ProtectProc", "PrivateUsers"] {
        assert!(!unit.contains_key(&format!("Service.{name}")), "{name}");
    }
}
