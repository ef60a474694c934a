//! The example in docker-compose.yml, as far as it can be checked without a container engine.

use std::path::Path;

use serde_json::{Map, Value};
use shardmill_engine::Wall;
use shardmill_sidecar::config;

use crate::yaml::yaml;
use crate::{is_pinned, read, repository, texts};

fn services() -> Map<String, Value> {
    yaml(&read("docker-compose.yml"))["services"].as_object().unwrap().clone()
}

#[test]
fn the_example_has_an_emulator_a_producer_a_function_and_the_sidecar() {
    let services = services();
    let mut names: Vec<&String> = services.keys().collect();
    names.sort();
    assert_eq!(names, ["function", "localstack", "producer", "sidecar"]);
    for (name, service) in &services {
        for other in texts(service, "depends_on") {
            assert!(services.contains_key(other), "{name} depends on {other}");
        }
    }
}

#[test]
fn every_path_that_the_example_mounts_or_builds_exists() {
    let compose = yaml(&read("docker-compose.yml"));
    let mut mounted = 0;
    for (name, service) in services() {
        for volume in texts(&service, "volumes") {
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(repository().join(source).is_file(), "{name} mounts {source}");
                mounted += 1;
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name} uses the volume {source}");
            }
        }
        let built = service["build"].as_str();
        assert_ne!(built.is_some(), service["image"].is_string(), "{name} is either built or pulled");
        if let Some(context) = built {
            assert!(repository().join(context).join("Dockerfile").is_file(), "{name} builds {context}");
        }
    }
    assert_eq!(mounted, 3, "producer, function and configuration");
}

#[test]
fn every_image_is_pinned_to_a_full_version() {
    let images = services().into_iter().filter_map(|(_, s)| s["image"].as_str().map(str::to_owned));
    let dockerfile = read("Dockerfile");
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    let bases = bases.map(|base| base.split(' ').next().unwrap().to_owned());
    let all: Vec<String> = images.chain(bases).collect();
    assert_eq!(all.len(), 5, "{all:?}");
    for image in all {
        assert!(is_pinned(&image), "{image}");
    }
    assert!(
        !is_pinned("python:3") && !is_pinned("localstack/localstack") && !is_pinned("debian:bookworm-slim")
    );
}

#[test]
fn the_images_rust_is_no_older_than_the_workspace_asks_for() {
    let version = |text: &str| -> Vec<u32> { text.split('.').map(|n| n.parse().unwrap()).collect() };
    let (cargo, dockerfile) = (read("Cargo.toml"), read("Dockerfile"));
    let asked = cargo.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    let given = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).unwrap();
    assert!(version(given.split('-').next().unwrap()) >= version(asked.trim_end_matches('"')), "{given}");
}

#[test]
fn the_image_holds_the_binary_of_the_profile_without_symbols() {
    let (cargo, dockerfile) = (read("Cargo.toml"), read("Dockerfile"));
    let profile = cargo.split("[profile.dist]\n").nth(1).expect("the workspace has the profile");
    assert!(profile.contains("strip = \"symbols\""), "{profile}");
    assert!(dockerfile.contains("cargo build --profile dist "), "{dockerfile}");
    assert!(dockerfile.contains("/src/target/dist/shardmill "), "{dockerfile}");
}

#[test]
fn the_sidecars_configuration_in_the_example_is_valid_and_fits_the_other_services() {
    let services = services();
    let environment = |name: &str| services["sidecar"]["environment"][name].as_str().map(str::to_owned);
    let now = Wall::from_millis(1_800_000_000_000);
    let loaded =
        config::parse(Path::new("docker/shardmill.yaml"), &read("docker/shardmill.yaml"), &environment, now)
            .unwrap_or_else(|errors| panic!("{errors}"));
    let keys: Vec<&str> = loaded.warnings.iter().map(|note| note.key.as_str()).collect();
    assert_eq!(keys, ["Admin.Listen"], "the port is published on loopback only");
    let config::Admin::Listen(address) = loaded.config.admin else { panic!("no address") };
    assert_eq!(texts(&services["sidecar"], "ports"), [format!("127.0.0.1:{0}:{0}", address.port())]);

    let host = |url: &str| url.parse::<http::Uri>().unwrap().host().unwrap().to_owned();
    assert!(services.contains_key(&host(loaded.config.aws.endpoint_url.as_deref().unwrap())));
    let [mapping] = &loaded.config.mappings[..] else { panic!("one mapping") };
    let config::Target::Url { url, .. } = &mapping.function.target else { panic!("no Url") };
    assert!(services.contains_key(&host(url)));
    let config::Checkpoints::Sqlite(file) = &mapping.checkpoints else { panic!("no file") };
    let kept = texts(&services["sidecar"], "volumes").into_iter().filter_map(|v| v.split(':').nth(1));
    assert!(kept.into_iter().any(|folder| file.starts_with(folder)), "checkpoints outlive the container");
    assert!(read("docker/producer.py").contains(&format!("\"{}\"", mapping.mapping.event_source().stream)));

    let grace = services["sidecar"]["stop_grace_period"].as_str().unwrap().trim_end_matches('s');
    assert!(grace.parse::<u64>().unwrap() >= loaded.config.worker.stop.as_secs() + 5);
}
