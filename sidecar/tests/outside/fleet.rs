//! Several sidecars on one lease table: what each of them shows, and the table that they are not to create.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use shardmill_testkit::Fakes;
use tempfile::TempDir;

use crate::rig::{Running, free_address, get, shardmill, until};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// A configuration whose leases are in a table.
fn config(fakes: &str, id: &str, admin: SocketAddr) -> Value {
    json!({
        "EventSourceArn": ARN,
        "FunctionName": "orders-worker",
        "StartingPosition": "TRIM_HORIZON",
        "Function": {"Stdout": true},
        "Checkpoints": "dynamodb:shardmill-leases",
        "Worker": {"Id": id, "LeaseSeconds": 2},
        "Admin": {"Listen": admin.to_string()},
        "Aws": {"EndpointUrl": fakes, "Region": "eu-north-1"},
    })
}

fn start(folder: &TempDir, file: &Value) -> Running {
    let mut command = shardmill(folder, &["run", "-c", "c.json"], file);
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// The only mapping in the status, once there is one.
fn mapping(admin: SocketAddr) -> Option<Value> {
    let answer = get(admin, "/v1/status", "host: 127.0.0.1\r\n")?;
    let status: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1)?).ok()?;
    Some(status["mappings"][0].clone())
}

/// The fields of each item of a list.
fn each<const N: usize>(list: &Value, fields: [&str; N]) -> Vec<[Value; N]> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| fields.map(|field| item[field].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_worker_shows_every_shard_and_every_worker_of_the_fleet() {
    let fakes = Fakes::new();
    fakes.kinesis().create_stream("orders", 3).unwrap();
    let server = fakes.serve(0).await.unwrap();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (a, b) = (free_address(), free_address());
    let mut small = config(&server.url(), "a", a);
    small["Worker"]["MaximumLeases"] = json!(1);
    let _first = start(&folders[0], &small);
    // The others have no place.
    let shown = until("a lease", || {
        mapping(a).filter(|shown| shown["unplacedShards"] == 2 && shown["workers"][0]["leases"] == 1)
    })
    .await;
    assert_eq!(each(&shown["workers"], ["workerId", "self", "alive"]), [json_row("a", true, true)]);
    assert_eq!(shown["workers"][0]["maximumLeases"], 1);
    let owners = each(&shown["shards"], ["owner", "ownerAlive", "movingTo"]);
    assert_eq!(owners.iter().filter(|owner| **owner == [json!("a"), json!(true), json!(null)]).count(), 1);
    assert_eq!(owners.iter().filter(|owner| **owner == [json!(null), json!(false), json!(null)]).count(), 2);

    let mut second = start(&folders[1], &config(&server.url(), "b", b));
    for (admin, own) in [(a, "a"), (b, "b")] {
        let shown = until("the whole fleet", || {
            let shown = mapping(admin)?;
            let owned = |id: &str| {
                let owners = each(&shown["shards"], ["owner", "ownerAlive"]);
                owners.iter().filter(|owner| **owner == [json!(id), json!(true)]).count()
            };
            // By the last listing, before which a lease may have been taken.
            let listed = shown["unplacedShards"] == 0 && shown["workers"].as_array()?.len() == 2;
            (owned("a") == 1 && owned("b") == 2 && listed).then_some(shown)
        })
        .await;
        let workers = each(&shown["workers"], ["workerId", "self", "alive"]);
        let other = if own == "a" { "b" } else { "a" };
        assert_eq!(workers, [json_row(own, true, true), json_row(other, false, true)]);
        assert!(each(&shown["workers"], ["heartbeatMillisecondsAgo"]).iter().all(|ago| ago[0].is_u64()));
    }
    // What it had, worker a has no place for.
    second.0.kill().unwrap();
    let shown = until("its death is seen", || {
        mapping(a).filter(|shown| shown["workers"][1]["alive"] == false && shown["unplacedShards"] == 2)
    })
    .await;
    let owners = each(&shown["shards"], ["owner", "ownerAlive"]);
    assert_eq!(owners.iter().filter(|owner| **owner == [json!("b"), json!(false)]).count(), 2, "{shown}");
}

/// What a worker shows of a worker.
fn json_row(id: &str, is_self: bool, alive: bool) -> [Value; 3] {
    [json!(id), json!(is_self), json!(alive)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_and_not_to_be_created_ends_run_and_check() {
    let fakes = Fakes::new();
    fakes.kinesis().create_stream("orders", 1).unwrap();
    let server = fakes.serve(0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for layout in ["dynamodb", "kcl"] {
        let mut file = config(&server.url(), "a", free_address());
        file["Checkpoints"] = json!(format!("{layout}:shardmill-leases"));
        file["CreateTable"] = json!(false);
        for arguments in [&["run", "-c", "c.json"][..], &["check", "-c", "c.json", "--online"]] {
            let mut command = shardmill(&folder, arguments, &file);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            for part in
                ["no table shardmill-leases", "eu-north-1", "create it with partition key", "CreateTable"]
            {
                assert!(said.contains(part), "{arguments:?} does not say {part:?}: {said}");
            }
        }
    }
    assert_eq!(fakes.tables().bill().calls.get("CreateTable"), None);
}
