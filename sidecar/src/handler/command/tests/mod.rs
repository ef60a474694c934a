//! The Runtime API with a small Python runtime (`client.py`), and with programs that are none.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

mod bounds;

struct Rig {
    folder: tempfile::TempDir,
    options: CommandOptions,
}

impl Rig {
    /// `None` if there is no Python here; with `CI=true` that is a failure.
    fn start() -> Option<Self> {
        let found = std::process::Command::new("python3").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python3 is needed");
            println!("skipped: python3 is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("client.py");
        std::fs::write(&script, include_str!("../client.py")).unwrap();
        let mut options = CommandOptions::new(["python3", script.to_str().unwrap(), "app.handler"]);
        options.reads_response = true;
        Some(Self { folder, options })
    }

    fn handler(&self, change: impl FnOnce(&mut CommandOptions)) -> CommandHandler {
        let mut options = self.options.clone();
        change(&mut options);
        CommandHandler::new(options).unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

/// As much time as a loaded machine may need; nothing waits for it to pass.
const PLENTY: Duration = Duration::from_secs(600);

async fn invoke_within(
    handler: &CommandHandler,
    timeout: Duration,
    event: &Value,
) -> Result<BatchResponse, HandlerError> {
    let mut cx = InvokeContext::for_test("shardId-000000000000");
    cx.deadline = Instant::now() + timeout;
    handler.invoke(event.to_string().into(), &cx).await
}

async fn invoke(handler: &CommandHandler, event: &Value) -> Result<BatchResponse, HandlerError> {
    invoke_within(handler, PLENTY, event).await
}

/// The function's answer itself.
async fn ask(handler: &CommandHandler, event: &Value) -> Value {
    let cx = InvokeContext::for_test("shardId-000000000000");
    let schedule = Schedule::new(Instant::now() + PLENTY);
    let process = handler.pool.acquire().await.unwrap();
    let mut running = Running { pool: &handler.pool, process, busy: false };
    running.started(schedule).await.unwrap();
    match running.invoke(event.to_string().into(), &cx, schedule).await {
        Ok(body) => serde_json::from_slice(&body).unwrap(),
        Err(Lost::Judged(error)) => panic!("{error}"),
        Err(Lost::NotTaken(how)) => panic!("{how}"),
    }
}

#[track_caller]
fn assert_function_error(result: Result<BatchResponse, HandlerError>, contains: &str) {
    match result {
        Err(error @ HandlerError::Function(_)) => {
            let text = format!("{error}; {}", error.details().unwrap_or_default());
            assert!(text.contains(contains), "{text}");
        }
        other => panic!("no function error: {other:?}"),
    }
}

#[track_caller]
fn assert_not_reached(result: Result<BatchResponse, HandlerError>, contains: &str) -> Option<Duration> {
    match result {
        Err(HandlerError::NotReached { reason, retry_after }) => {
            assert!(reason.contains(contains), "{reason}");
            retry_after
        }
        other => panic!("not unreached: {other:?}"),
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within a minute: {what}");
}

/// Whether the process runs: a zombie does not.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn an_answer_is_success_and_partial_failures_pass() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let partial = json!({"do": "answer", "answer": {"batchItemFailures": [{"itemIdentifier": "7"}]}});
    assert_eq!(invoke(&handler, &partial).await.unwrap(), BatchResponse::failed(["7"]));
    let success = json!({"do": "answer", "answer": null});
    assert_eq!(invoke(&handler, &success).await.unwrap(), BatchResponse::success());
    let unread = rig.handler(|o| o.reads_response = false);
    assert_eq!(invoke(&unread, &partial).await.unwrap(), BatchResponse::success());
}

#[tokio::test]
async fn a_process_is_reused_and_an_exception_is_a_function_error_that_leaves_it_alive() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let first = ask(&handler, &json!({"do": "pid"})).await;
    let error = invoke(&handler, &json!({"do": "raise", "text": "bad record"})).await;
    let text = error.as_ref().unwrap_err().to_string();
    assert!(!text.contains("bad record"), "incident 86: the function's own words are details: {text}");
    assert_function_error(error, "it reported an error (ValueError, ");
    assert_eq!(ask(&handler, &json!({"do": "pid"})).await, first);
}

#[tokio::test]
async fn the_process_sees_lambdas_environment_and_headers() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|o| {
        o.function_name = "orders".into();
        o.region = Some("eu-west-1".into());
        o.environment = [("TABLE".to_owned(), "t".to_owned()), ("TZ".to_owned(), "UTC".to_owned())].into();
        o.working_directory = Some(rig.folder.path().into());
    });
    let environment = ask(&handler, &json!({"do": "environment"})).await;
    let folder = rig.folder.path().to_str().unwrap();
    for (name, value) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "orders"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_REGION", "eu-west-1"),
        ("LAMBDA_TASK_ROOT", folder),
        ("_HANDLER", "app.handler"),
        ("TABLE", "t"),
        ("TZ", "UTC"),
    ] {
        assert_eq!(environment[name], value, "{name}");
    }
    let headers = ask(&handler, &json!({"do": "headers"})).await;
    let cx = InvokeContext::for_test("s");
    assert_eq!(headers["lambda-runtime-aws-request-id"], cx.request_id.to_string());
    assert_eq!(headers["lambda-runtime-invoked-function-arn"], *cx.function_arn);
    let deadline: u128 = headers["lambda-runtime-deadline-ms"].as_str().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(deadline > now.as_millis());
}

#[tokio::test]
async fn an_exit_in_the_middle_is_one_function_error_however_it_ended() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    for status in [0, 1] {
        let error = invoke(&handler, &json!({"do": "exit", "status": status})).await;
        assert_function_error(error, "Runtime.ExitError");
    }
    assert_function_error(invoke(&handler, &json!({"do": "segfault"})).await, "SIGSEGV");
    assert_eq!(invoke(&handler, &json!({"do": "pid"})).await.unwrap(), BatchResponse::success());
    assert_eq!(*handler.readiness().borrow(), Readiness::Ready);
}

#[tokio::test]
async fn an_overrun_kills_the_whole_process_group_and_the_next_invocation_gets_a_fresh_process() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let first = ask(&handler, &json!({"do": "pid"})).await;
    let file = rig.file("pids");
    let hang = json!({"do": "hang", "file": file});
    let overrun = invoke_within(&handler, Duration::from_secs(3), &hang).await;
    assert_function_error(overrun, "Sandbox.Timedout");
    let pids = std::fs::read_to_string(file).unwrap();
    for pid in pids.split(' ') {
        until("the group is dead", || !is_running(pid)).await;
    }
    assert_ne!(ask(&handler, &json!({"do": "pid"})).await, first);
}

#[tokio::test]
async fn a_call_that_is_dropped_or_called_off_kills_its_process() {
    let Some(rig) = Rig::start() else { return };
    for call_off in [false, true] {
        let handler = rig.handler(|_| {});
        let file = rig.file(if call_off { "called-off" } else { "dropped" });
        let hang = json!({"do": "hang", "file": file}).to_string();
        let mut cx = InvokeContext::for_test("s");
        cx.deadline = Instant::now() + PLENTY;
        let cancelled = cx.cancelled.clone();
        let call = tokio::spawn(async move { handler.invoke(hang.into(), &cx).await });
        until("the function runs", || Path::new(&file).exists()).await;
        if call_off {
            cancelled.cancel();
            assert_not_reached(call.await.unwrap(), "called off");
        } else {
            call.abort();
        }
        let pids = std::fs::read_to_string(&file).unwrap();
        for pid in pids.split(' ') {
            until("the group is dead", || !is_running(pid)).await;
        }
    }
}

#[tokio::test]
async fn an_answer_over_6_mib_is_refused_with_413_and_is_a_function_error() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let event = |bytes: usize, file: &str| json!({"do": "large", "bytes": bytes, "file": rig.file(file)});
    let fits = invoke(&handler, &event(MAXIMUM - 2, "fits")).await;
    assert_eq!(fits.unwrap(), BatchResponse::success());
    let error = invoke(&handler, &event(MAXIMUM - 1, "large")).await;
    assert_function_error(error, "Function.ResponseSizeTooLarge");
    let read = || std::fs::read_to_string(rig.file("large")).ok().and_then(|t| serde_json::from_str(&t).ok());
    until("the client has its reply", || read().is_some()).await;
    let message = "Exceeded maximum allowed payload size (6291456 bytes).";
    let expected = json!([413, {"errorMessage": message, "errorType": "RequestEntityTooLarge"}]);
    assert_eq!(read(), Some(expected));
}

const MAXIMUM: usize = crate::handler::MAXIMUM_RESPONSE_BYTES;

#[tokio::test]
async fn requests_that_do_not_fit_get_lambdas_error_answers() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let file = rig.file("answers");
    let error = invoke(&handler, &json!({"do": "raw-api", "file": file})).await;
    assert_function_error(error, "Runtime.InvalidResponseModeHeader");
    let read = || std::fs::read_to_string(&file).ok().and_then(|t| serde_json::from_str::<Value>(&t).ok());
    until("the client has its replies", || read().is_some()).await;
    let answers = read().unwrap();
    assert_eq!(
        answers[0],
        json!([400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}])
    );
    let kinds: Vec<(u64, &str)> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| (answer[0].as_u64().unwrap(), answer[1]["errorType"].as_str().unwrap()))
        .collect();
    let expected = [
        (400, "InvalidRequestID"),
        (403, "InvalidStateTransition"),
        (403, "InvalidStateTransition"),
        (404, "NotFound"),
        (400, "InvalidFunctionResponseMode"),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_streamed_answer_is_buffered_and_an_error_in_its_trailers_counts() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let good = invoke(&handler, &json!({"do": "stream", "trailer": ""})).await;
    assert_eq!(good.unwrap(), BatchResponse::success());
    let trailer = "Lambda-Runtime-Function-Error-Type: Late.Error\r\n";
    let bad = invoke(&handler, &json!({"do": "stream", "trailer": trailer})).await;
    assert_function_error(bad, "Late.Error");
}

#[tokio::test]
async fn r23_a_failed_initialization_is_not_reached_turns_readiness_red_and_does_not_spin() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|o| o.command.push("init-error".into()));
    let event = json!({"do": "pid"});
    assert_not_reached(invoke(&handler, &event).await, "(Runtime.ImportModuleError, ");
    assert!(
        matches!(&*handler.readiness().borrow(), Readiness::NotReady { reason } if reason.contains("ImportModule"))
    );
    // The wait holds for every shard.
    let wait = handler.pool.start_failed("again".into());
    assert!(
        matches!(wait, HandlerError::NotReached { retry_after: None, .. }),
        "incident 101: it may be away"
    );
    for _ in 0..100 {
        assert_not_reached(invoke(&handler, &event).await, "again");
    }
}

#[tokio::test]
async fn r23_programs_that_never_become_a_runtime_are_not_reached() {
    let exits = CommandHandler::new(CommandOptions::new(["true"])).unwrap();
    assert_not_reached(invoke(&exits, &json!({})).await, "before its first /next");
    let mut options = CommandOptions::new(["sleep", "1000"]);
    options.start_timeout = Duration::from_millis(100);
    let waits = CommandHandler::new(options).unwrap();
    assert_not_reached(invoke(&waits, &json!({})).await, "is it a Lambda runtime?");
    let starting = CommandHandler::new(CommandOptions::new(["sleep", "1000"])).unwrap();
    let early = invoke_within(&starting, Duration::from_secs(3), &json!({})).await;
    assert_not_reached(early, "still starting");
    assert_eq!(*starting.readiness().borrow(), Readiness::Ready, "a slow start is no failure yet");
}

#[tokio::test]
async fn r23_a_command_that_is_not_found_is_not_reached_and_its_probe_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plain.txt"), "").unwrap();
    for (program, says) in [
        ("no-such-program-here", "is not on the PATH"),
        ("./missing", "No such file"),
        ("./plain.txt", "not executable"),
        ("/", "is not a file"),
    ] {
        let mut options = CommandOptions::new([program]);
        options.working_directory = Some(folder.path().into());
        let handler = CommandHandler::new(options).unwrap();
        assert!(handler.probe().await.unwrap_err().to_string().contains(says), "{program}");
        assert_not_reached(invoke(&handler, &json!({})).await, says);
        assert_ne!(*handler.readiness().borrow(), Readiness::Ready);
    }
    let mut options = CommandOptions::new(["true"]);
    options.working_directory = Some("/no/such/folder".into());
    let handler = CommandHandler::new(options).unwrap();
    assert!(handler.probe().await.unwrap_err().to_string().contains("WorkingDirectory"));
    CommandHandler::new(CommandOptions::new(["sh"])).unwrap().probe().await.unwrap();
}

#[tokio::test]
async fn two_concurrent_invocations_use_two_processes() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|o| o.maximum_concurrency = Some(2));
    let (one, two) = (rig.file("one"), rig.file("two"));
    let events = [json!({"do": "hang", "file": one}), json!({"do": "hang", "file": two})];
    let mut calls = tokio::task::JoinSet::new();
    for event in events {
        let handler = handler.clone();
        calls.spawn(async move { invoke(&handler, &event).await });
    }
    until("both run", || Path::new(&one).exists() && Path::new(&two).exists()).await;
    assert_eq!(handler.places().maximum(), Some(2));
    let pids = [one, two].map(|file| std::fs::read_to_string(file).unwrap());
    assert_ne!(pids[0], pids[1]);
}

#[tokio::test]
async fn an_idle_process_that_ended_is_replaced_without_spending_an_attempt() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    ask(&handler, &json!({"do": "pid"})).await;
    let idle = handler.pool.acquire().await.unwrap();
    handler.pool.release(&idle);
    idle.kill();
    idle.exited().await;
    assert_eq!(invoke(&handler, &json!({"do": "pid"})).await.unwrap(), BatchResponse::success());
}

#[tokio::test]
async fn incident_90_a_process_gets_no_invocation_whose_lease_has_run_out() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let pid = ask(&handler, &json!({"do": "pid"})).await;
    let file = rig.file("late");
    let cx = InvokeContext::for_test_while("shardId-000000000000", || false);
    let late = handler.invoke(json!({"do": "hang", "file": file}).to_string().into(), &cx).await;
    assert!(assert_not_reached(late, "lease ran out").is_some());
    assert_eq!(ask(&handler, &json!({"do": "pid"})).await, pid, "the process waits for the next one");
    assert!(!Path::new(&file).exists());
}

#[tokio::test]
async fn a_stop_lets_the_running_invocation_finish_and_ends_idle_processes() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let pid = ask(&handler, &json!({"do": "pid"})).await.to_string();
    let busy = handler.clone();
    let call = tokio::spawn(async move { invoke(&busy, &json!({"do": "sleep", "seconds": 0.5})).await });
    until("it runs", || handler.pool.is_busy()).await;
    handler.shutdown(Instant::now() + PLENTY).await;
    assert_eq!(call.await.unwrap().unwrap(), BatchResponse::success());
    assert!(!is_running(&pid));
    assert_not_reached(invoke(&handler, &json!({"do": "pid"})).await, "stops");
}

#[tokio::test]
async fn i16_a_stop_kills_at_its_deadline_and_the_cut_invocation_spends_no_attempt() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let file = rig.file("cut");
    let hang = json!({"do": "hang", "file": file});
    let busy = handler.clone();
    let call = tokio::spawn(async move { invoke(&busy, &hang).await });
    until("it runs", || Path::new(&file).exists()).await;
    handler.shutdown(Instant::now() + Duration::from_millis(50)).await;
    assert_not_reached(call.await.unwrap(), "stopped before the function answered");
    for pid in std::fs::read_to_string(file).unwrap().split(' ') {
        until("the group is dead", || !is_running(pid)).await;
    }
}

#[tokio::test]
async fn dropping_the_handler_leaves_no_process_behind() {
    let Some(rig) = Rig::start() else { return };
    let handler = rig.handler(|_| {});
    let pid = ask(&handler, &json!({"do": "pid"})).await.to_string();
    assert!(is_running(&pid));
    drop(handler);
    until("it is dead", || !is_running(&pid)).await;
}

#[test]
fn settings_that_no_program_can_be_given_are_refused() {
    let refuse = |options: CommandOptions| CommandHandler::new(options).unwrap_err().to_string();
    assert!(refuse(CommandOptions::new(Vec::<String>::new())).contains("names no program"));
    assert!(refuse(CommandOptions::new([""])).contains("names no program"));
    assert!(refuse(CommandOptions::new(["a", "b\0"])).contains("zero byte"));
    let mut options = CommandOptions::new(["a"]);
    options.environment.insert("A=B".into(), String::new());
    assert!(refuse(options).contains("Function.Environment"));
}
