//! Where the region comes from.

use std::process::Command;

#[test]
fn without_a_region_anywhere_the_streams_own_is_used_and_no_metadata_service_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shardmill.yaml");
    let text = "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
                StartingPosition: TRIM_HORIZON\nFunction: {Stdout: true}\nCheckpoints: \"memory:\"\n\
                Aws: {EndpointUrl: \"http://127.0.0.1:1\"}\n";
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_shardmill"))
        .args(["check", "--online", "-c"])
        .arg(&file)
        .env_clear()
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let (shown, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{shown}{log}");
    assert!(shown.contains("FAILED   Kinesis stream orders in eu-west-1"), "{shown}");
    assert!(!log.contains("IMDS"), "{log}");
}
