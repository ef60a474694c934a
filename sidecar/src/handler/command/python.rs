//! An unmodified function under AWS's own Python runtime client, `awslambdaric`.
//!
//! Needs a Python that has it: `SHARDMILL_TEST_PYTHON=/path/to/python`, which `cargo xtask test` sets.

use serde_json::{Value, json};

use super::*;

const FUNCTION: &str = r#"
import os, sys, time

def handler(event, context):
    do = event["do"]
    print("doing", do, context.aws_request_id)
    if do == "fail":
        return {"batchItemFailures": [{"itemIdentifier": event["id"]}]}
    if do == "raise":
        raise RuntimeError("bad record")
    if do == "exit":
        os._exit(1)
    if do == "sleep":
        time.sleep(1000)
    if do == "large":
        return "x" * (6 * 1024 * 1024)
    assert 0 < context.get_remaining_time_in_millis() <= 600_000
    assert context.invoked_function_arn.startswith("arn:aws:lambda:")
    assert context.function_name == "orders"
"#;

fn handler(folder: &tempfile::TempDir, module: &str) -> CommandHandler {
    let python = std::env::var("SHARDMILL_TEST_PYTHON").expect("a Python that has awslambdaric");
    std::fs::write(folder.path().join("app.py"), FUNCTION).unwrap();
    let mut options = CommandOptions::new([&*python, "-m", "awslambdaric", module]);
    options.reads_response = true;
    options.function_name = "orders".into();
    options.working_directory = Some(folder.path().into());
    CommandHandler::new(options).unwrap()
}

async fn invoke(handler: &CommandHandler, event: Value, timeout: u64) -> Result<BatchResponse, HandlerError> {
    let mut cx = InvokeContext::for_test("shardId-000000000000");
    cx.deadline = Instant::now() + Duration::from_secs(timeout);
    handler.invoke(event.to_string().into(), &cx).await
}

#[tokio::test]
#[ignore = "needs Python with awslambdaric: cargo xtask test"]
async fn awslambdaric_runs_an_unmodified_function() {
    let folder = tempfile::tempdir().unwrap();
    let handler = handler(&folder, "app.handler");
    let succeed = || invoke(&handler, json!({"do": "nothing"}), 600);
    assert_eq!(succeed().await.unwrap(), BatchResponse::success());
    let partial = invoke(&handler, json!({"do": "fail", "id": "7"}), 600).await;
    assert_eq!(partial.unwrap(), BatchResponse::failed(["7"]));
    for (event, timeout, says) in [
        (json!({"do": "raise"}), 600, "bad record"),
        (json!({"do": "exit"}), 600, "Runtime.ExitError"),
        (json!({"do": "large"}), 600, "Function.ResponseSizeTooLarge"),
    ] {
        let error = invoke(&handler, event, timeout).await.unwrap_err();
        // The function's own words are details (incident 86), shardmill's own are the message.
        let text = format!("{error}; {}", error.details().unwrap_or_default());
        assert!(matches!(error, HandlerError::Function(_)) && text.contains(says), "{text}");
        assert_eq!(succeed().await.unwrap(), BatchResponse::success(), "the next invocation after {says}");
    }
    let error = invoke(&handler, json!({"do": "sleep"}), 2).await.unwrap_err();
    assert!(error.to_string().contains("Sandbox.Timedout"), "{error}");
    assert_eq!(succeed().await.unwrap(), BatchResponse::success());
}

#[tokio::test]
#[ignore = "needs Python with awslambdaric: cargo xtask test"]
async fn r23_a_module_that_awslambdaric_cannot_import_is_not_reached() {
    let folder = tempfile::tempdir().unwrap();
    let handler = handler(&folder, "missing.handler");
    let error = invoke(&handler, json!({"do": "nothing"}), 600).await.unwrap_err();
    assert!(matches!(error, HandlerError::NotReached { .. }), "{error}");
    assert!(error.to_string().contains("Runtime.ImportModuleError"), "{error}");
    assert_ne!(*handler.readiness().borrow(), Readiness::Ready);
}
