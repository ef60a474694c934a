//! What bounds a process of the function: which processes may use its Runtime API, and what ends with it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

const REQUEST: &str =
    "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// The Runtime API of a process that is ready and waits.
async fn address(handler: &CommandHandler) -> String {
    let environment = ask(handler, &json!({"do": "environment"})).await;
    environment["AWS_LAMBDA_RUNTIME_API"].as_str().unwrap().to_owned()
}

async fn read_pids(file: &str) -> Vec<String> {
    until("the function runs", || Path::new(file).exists()).await;
    std::fs::read_to_string(file).unwrap().split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn incident_78_a_process_that_the_function_did_not_start_is_refused() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let address = address(&handler).await;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(REQUEST.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains(&std::process::id().to_string()), "it says who: {answer}");
    assert_eq!(invoke(&handler, &json!({"do": "pid"})).await.unwrap(), BatchResponse::success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn incident_78_another_user_cannot_take_an_invocation() {
    let Some(rig) = Rig::start() else { return };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root may run a process as another user");
        return;
    }
    let handler = rig.handler(|_| {});
    let address = address(&handler).await;
    let (host, port) = address.split_once(':').unwrap();
    // Bash alone, because Python may not be readable for the user nobody.
    let script = format!("exec 3<>/dev/tcp/{host}/{port}; printf '{REQUEST}' >&3; head -n 1 <&3");
    let mut stranger = std::process::Command::new("bash");
    stranger.args(["-c", &script]).uid(65534).gid(65534).current_dir("/");
    let output = tokio::task::spawn_blocking(move || stranger.output().unwrap()).await.unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(invoke(&handler, &json!({"do": "pid"})).await.unwrap(), BatchResponse::success());
}

#[tokio::test]
async fn incident_78_what_a_browser_sends_is_refused() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let answers = ask(&handler, &json!({"do": "browser"})).await;
    assert_eq!(answers, json!([403, 403, 404]), "an Origin, a foreign Host, a runtime");
}

#[tokio::test]
async fn incident_78_a_second_waiting_next_of_one_process_is_refused() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let file = rig.file("status");
    let answered = invoke(&handler, &json!({"do": "two-loops", "file": file})).await;
    assert_eq!(answered.unwrap(), BatchResponse::success());
    until("one of them has an answer", || Path::new(&file).exists()).await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), "403");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn incident_77_what_the_function_started_in_sessions_of_their_own_ends_with_its_timeout_and_its_exit() {
    let Some(rig) = Rig::start() else { return };
    for leave in [false, true] {
        let handler = rig.handler(|_| {});
        let file = rig.file(if leave { "left" } else { "overrun" });
        let event = json!({"do": "hang-apart", "file": file, "leave": leave});
        let timeout = if leave { PLENTY } else { Duration::from_secs(10) };
        ask(&handler, &json!({"do": "pid"})).await;
        let result = invoke_within(&handler, timeout, &event).await;
        assert_function_error(result, if leave { "Runtime.ExitError" } else { "Sandbox.Timedout" });
        let pids = read_pids(&file).await;
        assert_eq!(pids.len(), 3);
        for pid in pids {
            until("it is dead", || !is_running(&pid)).await;
        }
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn incident_77_a_stop_ends_what_the_function_started_in_sessions_of_their_own() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let file = rig.file("stopped");
    let event = json!({"do": "hang-apart", "file": file, "leave": false});
    let busy = handler.clone();
    let call = tokio::spawn(async move { invoke(&busy, &event).await });
    let pids = read_pids(&file).await;
    handler.shutdown(Instant::now()).await;
    assert_not_reached(call.await.unwrap(), "stopped before the function answered");
    for pid in pids {
        until("it is dead", || !is_running(&pid)).await;
    }
}

#[tokio::test]
async fn incident_93_a_leader_is_reaped_only_after_its_group_was_signalled() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let file = rig.file("group");
    let event = json!({"do": "hang", "file": file});
    let busy = handler.clone();
    let call = tokio::spawn(async move { invoke(&busy, &event).await });
    let pids = read_pids(&file).await;
    kill_process(Pid::from_raw(pids[0].parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert_function_error(call.await.unwrap(), "SIGKILL");
    // The exit is reported when the rest is gone, with the leader's number still its own.
    assert!(!is_running(&pids[1]), "the rest of the group");
}

#[tokio::test]
async fn incident_100_a_process_that_the_stop_kills_is_cut_also_if_it_dies_a_moment_before() {
    let Some(rig) = Rig::start() else { return };
    for stop_first in [true, false] {
        let handler = rig.handler(|_| {});
        let stop = CancellationToken::new();
        handler.stop_with(&stop);
        let file = rig.file(&format!("cut-{stop_first}"));
        let event = json!({"do": "hang", "file": file});
        let busy = handler.clone();
        let call = tokio::spawn(async move { invoke(&busy, &event).await });
        let leader = Pid::from_raw(read_pids(&file).await[0].parse().unwrap()).unwrap();
        if stop_first {
            stop.cancel();
        }
        kill_process(leader, Signal::TERM).unwrap();
        if !stop_first {
            until("it is gone", || !is_running(&leader.as_raw_nonzero().to_string())).await;
            stop.cancel();
        }
        let result = call.await.unwrap();
        assert!(matches!(&result, Err(HandlerError::Cut { .. })), "stop first: {stop_first}: {result:?}");
    }
}

#[tokio::test]
async fn a_process_that_is_killed_without_a_stop_is_a_function_error() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    handler.stop_with(&CancellationToken::new());
    let file = rig.file("killed");
    let event = json!({"do": "hang", "file": file});
    let busy = handler.clone();
    let call = tokio::spawn(async move { invoke(&busy, &event).await });
    let leader = Pid::from_raw(read_pids(&file).await[0].parse().unwrap()).unwrap();
    kill_process(leader, Signal::KILL).unwrap();
    assert_function_error(call.await.unwrap(), "Runtime.ExitError");
}

#[tokio::test]
async fn incident_105_a_process_holds_as_many_invocations_as_it_may_and_each_has_an_id_of_its_own() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|o| {
        o.maximum_concurrency = Some(1);
        o.concurrency_per_process = 2;
    });
    let environment = ask(&handler, &json!({"do": "environment"})).await;
    assert_eq!(environment["AWS_LAMBDA_MAX_CONCURRENCY"], "2");
    let first = ask(&handler, &json!({"do": "headers"})).await;
    let second = ask(&handler, &json!({"do": "headers"})).await;
    assert_eq!(first["lambda-runtime-aws-request-id"], second["lambda-runtime-aws-request-id"]);
    assert_ne!(first["lambda-runtime-invocation-id"], second["lambda-runtime-invocation-id"]);
    let files = [rig.file("one"), rig.file("two")];
    let calls = files.clone().map(|file| {
        let handler = handler.clone();
        tokio::spawn(async move { invoke(&handler, &json!({"do": "hang", "file": file})).await })
    });
    for file in &files {
        read_pids(file).await;
    }
    // A third one is not begun: a caller needs a place first.
    assert_eq!(handler.places().maximum(), Some(2));
    assert_eq!(handler.pool.free_processes(), 0);
    // Its process cannot continue without it, and the other invocation is innocent.
    let [innocent, given_up] = calls;
    given_up.abort();
    assert_not_reached(innocent.await.unwrap(), "with another invocation in it");
    for file in &files {
        for pid in read_pids(file).await {
            until("it is dead", || !is_running(&pid)).await;
        }
    }
    assert_eq!(invoke(&handler, &json!({"do": "pid"})).await.unwrap(), BatchResponse::success());
}

#[tokio::test]
async fn incident_105_an_answer_to_another_attempt_is_refused() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let file = rig.file("answers");
    let answered = invoke(&handler, &json!({"do": "late-answer", "file": file})).await;
    assert_eq!(answered.unwrap(), BatchResponse::success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "400");
}

#[tokio::test]
async fn incident_105_an_invocation_in_a_process_that_another_one_ended_is_innocent_also_during_a_stop() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|o| o.concurrency_per_process = 2);
    let stop = CancellationToken::new();
    handler.stop_with(&stop);
    let files = [rig.file("one"), rig.file("two")];
    let calls = files.clone().map(|file| {
        let handler = handler.clone();
        tokio::spawn(async move { invoke(&handler, &json!({"do": "hang", "file": file})).await })
    });
    for file in &files {
        read_pids(file).await;
    }
    stop.cancel();
    let [innocent, given_up] = calls;
    given_up.abort();
    assert_not_reached(innocent.await.unwrap(), "with another invocation in it");
}

#[tokio::test]
async fn incident_105_an_invocation_that_was_not_taken_when_its_process_was_ended_is_no_failed_start() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|o| {
        o.concurrency_per_process = 2;
        // It takes one at a time, regardless of how many it may hold.
        o.environment.insert("AWS_LAMBDA_MAX_CONCURRENCY".into(), "1".into());
    });
    let file = rig.file("one");
    let event = json!({"do": "hang", "file": file});
    let busy = handler.clone();
    let given_up = tokio::spawn(async move { invoke(&busy, &event).await });
    read_pids(&file).await;
    let waiting = handler.clone();
    let innocent = tokio::spawn(async move { invoke(&waiting, &json!({"do": "pid"})).await });
    until("it waits in the same process", || handler.pool.free_processes() == 0).await;
    given_up.abort();
    let retry_after = assert_not_reached(innocent.await.unwrap(), "with another invocation in it");
    assert_eq!(retry_after, Some(Duration::ZERO), "the function is there");
    assert_eq!(*handler.readiness().borrow(), Readiness::Ready);
}

#[tokio::test]
async fn r23_what_an_invocation_waits_for_before_it_begins_is_bounded_and_spends_none_of_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = CommandOptions::new(["sleep", "1000"]);
    options.records = Some(folder.path().join("records"));
    let handler = CommandHandler::new(options).unwrap();
    let brief = Duration::from_secs(2);
    {
        let _look = handler.pool.succession.lock().await;
        let late = invoke_within(&handler, brief, &json!({})).await;
        assert_eq!(assert_not_reached(late, "still being looked for"), Some(Duration::ZERO));
    }
    let _start = handler.pool.starting.lock().await;
    let late = invoke_within(&handler, brief, &json!({})).await;
    assert_eq!(assert_not_reached(late, "no process could be had in time"), Some(Duration::ZERO));
    assert_eq!(*handler.readiness().borrow(), Readiness::Ready);
}
