//! deploy/kubernetes.yaml.

use std::time::Duration;

use serde_json::Value;
use shardmill_sidecar::config::Admin;

use crate::yaml::documents;
use crate::{STOP_GRACE, is_pinned, read, texts, worker_of_a_fleet};

const FILE: &str = "deploy/kubernetes.yaml";

fn object(kind: &str) -> Value {
    let mut found = documents(&read(FILE)).into_iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "two of {kind}");
    object
}

fn pod() -> Value {
    object("Deployment")["spec"]["template"]["spec"].clone()
}

fn sidecar(pod: &Value) -> &Value {
    let [sidecar] = &pod["containers"].as_array().unwrap()[..] else { panic!("one container") };
    sidecar
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn mebibytes(quantity: &Value) -> usize {
    quantity.as_str().unwrap().strip_suffix("Mi").unwrap().parse::<usize>().unwrap() << 20
}

#[test]
fn the_objects_of_the_manifest_name_each_other() {
    let deployment = object("Deployment");
    let (spec, pod) = (&deployment["spec"], pod());
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    assert_eq!(&object("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"], labels);
    let account = object("ServiceAccount");
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    let role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].as_str().unwrap();
    assert!(role.starts_with("arn:aws:iam::"), "{role}");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], object("ConfigMap")["metadata"]["name"]);
    assert_eq!(documents(&read(FILE)).len(), 4);
}

#[test]
fn the_manifests_configuration_is_valid_and_fits_its_container() {
    let (map, pod) = (object("ConfigMap"), pod());
    let container = sidecar(&pod);
    let [(name, text)] = &map["data"].as_object().unwrap().iter().collect::<Vec<_>>()[..] else {
        panic!("one file")
    };
    let memory = mebibytes(&container["resources"]["limits"]["memory"]);
    let loaded = worker_of_a_fleet(FILE, text.as_str().unwrap(), memory);
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["name"], pod["volumes"][0]["name"]);
    let path = format!("{}/{name}", mount["mountPath"].as_str().unwrap());
    assert_eq!(texts(container, "args"), ["run", "-c", &path]);

    let Admin::Listen(address) = loaded.config.admin else { panic!("no address") };
    assert!(address.ip().is_unspecified(), "the kubelet asks from outside of the pod");
    assert_eq!(number(&container["ports"][0]["containerPort"]), u64::from(address.port()));
    let annotations = &object("Deployment")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(number(&annotations["prometheus.io/port"]), u64::from(address.port()));

    let grace = Duration::from_secs(number(&pod["terminationGracePeriodSeconds"]));
    assert!(grace > loaded.config.worker.stop + STOP_GRACE, "the function is ended within it, too");
}

#[test]
fn the_probes_ask_what_the_admin_server_serves() {
    let (source, pod) = (read("sidecar/src/admin/mod.rs"), pod());
    let container = sidecar(&pod);
    let annotations = &object("Deployment")["spec"]["template"]["metadata"]["annotations"];
    let probed = |probe: &str| container[probe]["httpGet"]["path"].as_str().unwrap().to_owned();
    assert_eq!([probed("livenessProbe"), probed("readinessProbe")], ["/healthz", "/readyz"]);
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert!(source.contains(&format!(".route(\"{path}\", get(")), "{path} is not served");
    }
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], container["ports"][0]["name"], "{probe}");
    }
}

#[test]
fn a_rolling_update_replaces_one_worker_at_a_time_and_the_function_ends_last() {
    let (deployment, pod) = (object("Deployment"), pod());
    let spec = &deployment["spec"];
    assert_eq!(spec["strategy"]["type"], "RollingUpdate");
    let update = &spec["strategy"]["rollingUpdate"];
    assert_eq!((number(&update["maxSurge"]), number(&update["maxUnavailable"])), (1, 0));
    assert!(number(&spec["minReadySeconds"]) >= 15, "three planning intervals");
    assert!(number(&spec["replicas"]) > 1);
    assert_eq!(number(&object("PodDisruptionBudget")["spec"]["maxUnavailable"]), 1);
    let [function] = &pod["initContainers"].as_array().unwrap()[..] else { panic!("one function") };
    assert_eq!(function["restartPolicy"], "Always", "it runs next to the sidecar, and outlives it");
}

#[test]
fn no_container_of_the_manifest_may_do_more_than_it_needs() {
    let pod = pod();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], "true");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let user = format!("--uid {} ", number(&pod["securityContext"]["runAsUser"]));
    assert!(read("Dockerfile").contains(&user), "the image's user");
    let containers = ["containers", "initContainers"].map(|list| pod[list].as_array().unwrap());
    for container in containers.into_iter().flatten() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], "false");
        assert_eq!(context["readOnlyRootFilesystem"], "true");
        assert_eq!(texts(&context["capabilities"], "drop"), ["ALL"]);
        assert!(is_pinned(container["image"].as_str().unwrap()));
        let resources = &container["resources"];
        assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"]);
        assert!(resources["requests"]["cpu"].is_string());
    }
}
