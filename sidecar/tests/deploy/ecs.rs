//! deploy/ecs-task-definition.json.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::{STOP_GRACE, is_pinned, read, texts, worker_of_a_fleet};

const FILE: &str = "deploy/ecs-task-definition.json";

fn task() -> Value {
    serde_json::from_str(&read(FILE)).unwrap()
}

fn container(task: &Value, name: &str) -> Value {
    let all = task["containerDefinitions"].as_array().unwrap();
    all.iter().find(|container| container["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

fn configuration(sidecar: &Value) -> String {
    let [variable] = &sidecar["environment"].as_array().unwrap()[..] else { panic!("one variable") };
    assert_eq!(variable["name"], "CONFIGURATION");
    variable["value"].as_str().unwrap().to_owned()
}

#[test]
fn the_tasks_configuration_is_valid_and_fits_its_container() {
    let task = task();
    let sidecar = container(&task, "shardmill");
    let memory = usize::try_from(sidecar["memory"].as_u64().unwrap()).unwrap() << 20;
    let loaded = worker_of_a_fleet(FILE, &configuration(&sidecar), memory);
    let stop = Duration::from_secs(sidecar["stopTimeout"].as_u64().unwrap());
    assert!(stop >= loaded.config.worker.stop + STOP_GRACE && stop <= Duration::from_secs(120));
    let shardmill_sidecar::config::Admin::Listen(address) = loaded.config.admin else { panic!("no address") };
    assert_eq!(sidecar["portMappings"][0]["containerPort"], address.port());
    let memory = |name: &str| container(&task, name)["memory"].as_u64().unwrap();
    let total: u64 = task["memory"].as_str().unwrap().parse().unwrap();
    assert_eq!(memory("function") + memory("shardmill"), total);
}

#[test]
fn the_tasks_command_reads_the_configuration_from_its_environment() {
    let sidecar = container(&task(), "shardmill");
    let [shell, option] = texts(&sidecar, "entryPoint")[..] else { panic!("a shell") };
    let [command] = texts(&sidecar, "command")[..] else { panic!("one command") };
    assert!(command.starts_with("exec shardmill run "), "signals reach the sidecar: {command}");
    let folder = Path::new(env!("CARGO_BIN_EXE_shardmill")).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let check = |configuration: &str| -> Output {
        let mut shell = Command::new(shell);
        shell.arg(option).arg(command.replace("shardmill run", "shardmill check"));
        shell.env("PATH", &path).env("CONFIGURATION", configuration).output().unwrap()
    };
    let configuration = configuration(&sidecar);
    let output = check(&configuration);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(check(&configuration.replace("FunctionName", "FunctionNam")).status.code(), Some(2));
}

/// What the health check's command says of a server that gives this answer; without one nothing listens.
fn is_healthy(answer: Option<&'static str>) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = answer.map(|answer| {
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        })
    });
    let sidecar = container(&task(), "shardmill");
    let ["CMD", program, arguments @ ..] = &texts(&sidecar["healthCheck"], "command")[..] else {
        panic!("a program without a shell of its own")
    };
    let arguments = arguments.iter().map(|argument| argument.replace("9464", &port));
    let status = Command::new(program).args(arguments).output().unwrap().status;
    if let Some(server) = server {
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: localhost\r\n"), "{request}");
    }
    status.success()
}

#[test]
fn the_tasks_health_check_passes_only_if_healthz_answers_200() {
    assert!(is_healthy(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")));
    assert!(!is_healthy(Some("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")));
    assert!(!is_healthy(None));
}

#[test]
fn the_function_of_the_task_starts_first_and_ends_last() {
    let task = task();
    assert_eq!(texts(&task, "requiresCompatibilities"), ["FARGATE"]);
    assert_eq!(task["networkMode"], "awsvpc", "containers share their loopback address");
    let sidecar = container(&task, "shardmill");
    assert_eq!(sidecar["dependsOn"][0]["containerName"], container(&task, "function")["name"]);
    assert_eq!(sidecar["readonlyRootFilesystem"], true);
    let user = format!("--uid {} ", sidecar["user"].as_str().unwrap());
    assert!(read("Dockerfile").contains(&user), "the image's user");
    for container in task["containerDefinitions"].as_array().unwrap() {
        assert_eq!(container["essential"], true);
        assert_eq!(container["logConfiguration"]["logDriver"], "awslogs");
        assert!(is_pinned(container["image"].as_str().unwrap()));
    }
}
