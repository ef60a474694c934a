//! Trouble with the function.

use super::*;

fn reporting() -> shardmill::engine::MappingBuilder {
    mapping().report_batch_item_failures(true)
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_function_that_fails_everywhere_is_told_once_and_each_other_blocked_shard_after_a_minute()
 {
    let function = Function::new(Mood::Fails);
    let mut watched = watch_function(4, &function, mapping());
    watched.put_everywhere();
    pass(MINUTE).await;
    let begins = "WARN the function fails; its batch is retried";
    let fields =
        ["kind=\"function_error\"", "shard=shardId-", "request_id=", "from=", "to=", "records=1", "boom"];
    let begins = [&[begins][..], &fields].concat();
    assert_told(&[&begins]);
    assert_eq!(watched.troubles(), [(TroubleKind::FunctionError, 4)]);
    assert_eq!(watched.last_error().message, "the function failed: boom");
    assert_eq!(watched.result(), "PROBLEM: Function call failed");
    assert!(watched.metric("invocations_total function_error") > 8);
    // Taken with the last snapshot.
    assert_eq!(watched.metrics.get("troubled_lanes function_error"), 4);
    let lane = watched.shard().snapshot.unwrap().lanes.remove(0);
    assert!(lane.first.is_some() && lane.first == lane.last && lane.request_id.is_some(), "{lane:?}");
    let trouble = watched.shard().troubles.remove(0);
    assert_eq!((trouble.kind, trouble.failures), (TroubleKind::FunctionError, lane.attempts));
    pass(MINUTE).await;
    let blocked: &[&str] = &["WARN the shard is blocked", "kind=\"blocked\"", "from=", "boom"];
    assert_told(&[&begins, blocked, blocked, blocked]);
    let line = last_minute();
    assert!(line.contains(" retrying=4 ") && line.contains("function_error=4"), "{line}");
    function.set(Mood::Succeeds);
    watched.calm().await;
    let goes_on: &[&str] = &["INFO the shard makes progress again", "lasted_seconds=", "shard=shardId-"];
    let lines = told();
    let ends = lines.iter().filter(|line| line.starts_with(goes_on[0])).count();
    assert_eq!((lines.len(), ends), (8, 3), "{lines:#?}");
    let over = lines.iter().find(|line| line.starts_with("INFO the function no longer fails")).unwrap();
    assert!(
        over.contains("lasted_seconds=") && over.contains("failures=") && over.contains("lanes=4"),
        "{over}"
    );
    assert_eq!(watched.metric("troubled_lanes function_error"), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_failure_that_succeeds_with_its_retry_is_told_with_its_end_and_never_a_line_a_batch() {
    let function = Function::new(Mood::FailsFirst);
    let watched = watch_function(1, &function, mapping());
    watched.put_everywhere();
    pass(Duration::from_secs(5)).await;
    let (begins, ends): (&[&str], &[&str]) =
        (&["WARN the function fails", "once"], &["INFO the function no longer fails", "failures=1"]);
    assert_told(&[begins, ends]);
    for _ in 0..30 {
        watched.put_everywhere();
        pass(Duration::from_secs(2)).await;
    }
    assert_told(&[begins, ends, &["WARN the function fails", "this comes and goes"]]);
    pass(Duration::from_secs(310)).await;
    let calm: &[&str] = &["INFO the function no longer fails", "failures=30"];
    assert_told(&[begins, ends, &["WARN the function fails", "this comes and goes"], calm]);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_record_that_is_reported_again_and_again_is_told_and_shown() {
    let function = Function::new(Mood::ReportsFirst);
    let mut watched = watch_function(1, &function, reporting());
    watched.put_everywhere();
    pass(MINUTE).await;
    let record = accepted(&watched.fake)[0].1.clone();
    let begins = ["WARN the function reports the same record as failed again and again", &record, "from="];
    assert_told(&[&begins]);
    assert_eq!(watched.troubles(), [(TroubleKind::PartialFailure, 1)]);
    assert!(watched.last_error().message.contains(&record), "{:?}", watched.last_error());
    assert_eq!(watched.result(), "OK", "R18: a valid partial response");
    assert!(watched.metric("invocations_total success") > 2, "R18");
    function.set(Mood::Succeeds);
    watched.calm().await;
    assert_told(&[&begins, &["INFO what the function reported as failed has succeeded"]]);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_record_that_is_reported_once_and_then_succeeds_is_no_trouble() {
    let function = Function::new(Mood::ReportsFirstOnce);
    let watched = watch_function(1, &function, reporting());
    for _ in 0..30 {
        watched.put_everywhere();
        pass(Duration::from_secs(2)).await;
    }
    assert_told(&[]);
    assert!(watched.troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn incident_102_an_answer_that_names_no_record_says_which_identifier_and_what_to_write() {
    for (body, told) in [
        (r#"{"batchItemFailures":[{"itemIdentifier":"shardId-0:1"}]}"#, "shardId-0:1"),
        (r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, "missing, null or empty"),
        (r#"{"batchItemFailures":"x"}"#, "missing, null or empty"),
    ] {
        let function = Function::new(Mood::Answers(body));
        let mut watched = watch_function(1, &function, reporting());
        watched.put_everywhere();
        pass(MINUTE).await;
        assert_told(&[&[
            "WARN the function's answer cannot be used",
            told,
            "write the record's sequence number",
            "from=",
        ]]);
        assert!(watched.last_error().message.contains(told), "{:?}", watched.last_error());
        assert_eq!(watched.result(), "PROBLEM: Function call failed");
        assert!(watched.metric("invocations_total unusable_answer") > 2);
        assert_eq!(watched.metric("invocations_total success"), 0);
        watched.run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_window_without_state_is_told() {
    let function = Function::new(Mood::Answers("{}"));
    let mut watched = watch_function(1, &function, mapping().tumbling_window(Duration::from_secs(10)));
    watched.put_everywhere();
    pass(MINUTE).await;
    assert_told(&[&["WARN the function's answer has no window state", "kind=\"no_state\"", "state"]]);
    assert!(watched.last_error().message.contains("no state"), "{:?}", watched.last_error());
    assert_eq!(watched.result(), "PROBLEM: Function call failed");
    assert!(watched.metric("invocations_total unusable_answer") > 2);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_timeout_and_a_crash_are_told_as_what_they_are() {
    for (mood, line, kind) in [
        (Mood::Hangs, "WARN the function does not answer within its timeout", TroubleKind::Timeout),
        (Mood::Panics, "WARN the function crashed", TroubleKind::Crash),
    ] {
        let function = Function::new(mood);
        let watched = watch_function(1, &function, mapping().timeout(Duration::from_secs(2)));
        watched.put_everywhere();
        pass(MINUTE).await;
        assert_told(&[&[line, "from=", "request_id="]]);
        assert_eq!(watched.troubles(), [(kind, 1)]);
        assert_eq!(watched.result(), "PROBLEM: Function call failed");
        function.set(Mood::Succeeds);
        watched.calm().await;
        assert_eq!(told().len(), 2, "{:#?}", told());
        watched.run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_function_that_goes_away_is_told_once_for_the_mapping_and_when_it_is_back() {
    let function = Function::new(Mood::Succeeds);
    let mut watched = watch_function(4, &function, mapping());
    watched.put_everywhere();
    pass(Duration::from_secs(5)).await;
    assert_told(&[]);
    function.set(Mood::NotReached);
    watched.put_everywhere();
    pass(Duration::from_secs(70)).await;
    let begins: &[&str] = &["WARN the function is not reached", "cannot connect", "from="];
    assert_told(&[begins]);
    assert_eq!(watched.troubles(), [(TroubleKind::NotReached, 4)]);
    assert_eq!(watched.run.report().troubles[0].message, "the function was not reached: cannot connect");
    assert_eq!(watched.result(), "OK", "R18: nothing was invoked");
    assert!(watched.metric("invocations_total not_reached") > 8);
    let line = last_minute();
    assert!(!line.contains(" not_reached=0 ") && line.contains(" retrying=4 "), "{line}");
    assert!(!line.contains("oldest_waiting_millis=0"), "{line}");
    function.set(Mood::Succeeds);
    watched.calm().await;
    assert_told(&[begins, &["INFO the function is reached again", "lasted_seconds=", "lanes=4"]]);
    assert_eq!(watched.metric("troubled_lanes not_reached"), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_function_that_is_away_from_the_start_is_told_once_by_probe_and_invocation_together() {
    let function = Function::new(Mood::NotReached);
    let watched = watch_function(1, &function, mapping());
    for _ in 0..10 {
        watched.run.status.function_probed(Some("cannot connect to http://127.0.0.1:1/"));
        pass(Duration::from_secs(1)).await;
    }
    watched.put_everywhere();
    pass(Duration::from_secs(40)).await;
    assert_told(&[&["WARN the function is not reached", "http://127.0.0.1:1/"]]);
    assert_eq!(watched.troubles(), [(TroubleKind::NotReached, 2)]);
    watched.run.status.function_probed(None);
    assert_eq!(watched.troubles(), [(TroubleKind::NotReached, 1)], "the record still waits");
    function.set(Mood::Succeeds);
    watched.calm().await;
    assert_told(&[&["WARN the function is not reached"], &["INFO the function is reached again"]]);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_record_that_is_too_large_is_told_once_with_its_number() {
    let function = Function::new(Mood::Succeeds);
    let watched = watch_function(1, &function, mapping().payload_limit(100_000));
    watched.fake.put("orders", Some("k"), vec![b'x'; 200_000]).unwrap();
    pass(MINUTE).await;
    let record = accepted(&watched.fake)[0].1.clone();
    assert_told(&[&["WARN the event of a record is larger", &record, "100000"]]);
    assert!(watched.last_error().message.contains(&record));
    assert_eq!(watched.troubles(), [(TroubleKind::TooLarge, 1)]);
    let function = Function::new(Mood::TooLarge);
    let watched = watch_function(1, &function, mapping());
    watched.put_everywhere();
    pass(MINUTE).await;
    assert_told(&[&["WARN the event of a record is larger", "413"]]);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_asks_to_be_left_alone_is_told_as_that_and_blocks_nothing() {
    let function = Function::new(Mood::Throttles);
    let mut watched = watch_function(2, &function, mapping());
    watched.put_everywhere();
    pass(Duration::from_secs(130)).await;
    let begins: &[&str] = &["WARN the function takes no invocation now", "kind=\"throttled\"", "429"];
    assert_told(&[begins]);
    assert_eq!(watched.troubles(), [(TroubleKind::Throttled, 2)]);
    assert!(!last_minute().contains(" not_reached=0 "), "{}", last_minute());
    assert_eq!(watched.metric("troubled_lanes throttled"), 2);
    function.set(Mood::Succeeds);
    watched.calm().await;
    assert_told(&[begins, &["INFO the function takes invocations again", "lanes=2"]]);
}

#[tokio::test(start_paused = true)]
async fn an_invocation_that_was_called_off_before_it_began_is_no_trouble() {
    let watched = watch_function(1, &Function::new(Mood::NotStarted), mapping());
    watched.put_everywhere();
    pass(MINUTE).await;
    assert_told(&[]);
    assert!(watched.troubles().is_empty() && watched.shard().last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn trouble_that_ends_with_the_run_of_its_last_shard_has_its_end_in_the_log() {
    let watched = watch_function(2, &Function::new(Mood::Fails), mapping());
    watched.put_everywhere();
    pass(Duration::from_secs(10)).await;
    watched.run.stop().await;
    assert_told(&[
        &["WARN the function fails"],
        &["INFO the shards that were in this trouble are no longer read here", "function_error", "lanes=2"],
        &["INFO released leases"],
    ]);
}
