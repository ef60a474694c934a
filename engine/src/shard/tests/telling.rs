//! What a machine shows of an answer that cannot be used, and of records that wait.

use super::rig::{Reply, Rig, mapping, ms};
use crate::outcome::BatchResponse;
use crate::position::Seq;
use crate::shard::{AnswerProblem, LaneId, Verdict};

#[test]
fn an_answer_that_cannot_be_used_says_why_and_where_while_it_is_taken_in() {
    let body = |text: &str| BatchResponse::from_json(text.as_bytes()).unwrap();
    let unknown = |id: &str| Verdict::Unusable(AnswerProblem::UnknownIdentifier(id.to_owned()));
    let no_identifier = Verdict::Unusable(AnswerProblem::NoIdentifier);
    let no_state = Verdict::Unusable(AnswerProblem::NoState);
    for (answer, has_windows, expected) in [
        (
            r#"{"batchItemFailures":[{"itemIdentifier":"key-7"},{"itemIdentifier":"1"}]}"#,
            false,
            unknown("key-7"),
        ),
        (r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, false, no_identifier.clone()),
        (r#"{"batchItemFailures":"x"}"#, false, no_identifier),
        (r#"{"batchItemFailures":[{"itemIdentifier":"2"}]}"#, true, no_state),
        (r#"{"batchItemFailures":[{"itemIdentifier":"2"}]}"#, false, Verdict::FailedFrom(1)),
        ("{}", false, Verdict::Succeeded),
    ] {
        let mut rig = Rig::new(mapping(|m| {
            m.report_batch_item_failures = true;
            m.tumbling_window = has_windows.then_some(ms(10_000));
        }));
        rig.function = Box::new(|_| Reply::Never);
        rig.put([1, 2]);
        rig.run(1000);
        assert_eq!(rig.machine.judge(LaneId(0), &body(answer)), Some(expected), "{answer}");
        let (batch, id) = rig.machine.current(LaneId(0)).unwrap();
        let lane = &rig.machine.snapshot(rig.now()).lanes[0];
        assert_eq!(batch.first().map(|record| &record.seq), lane.first.as_ref());
        assert_eq!(batch.last().map(|record| &record.seq), lane.last.as_ref());
        assert_eq!((lane.last.as_ref(), lane.request_id), (Some(&Seq::plain("2")), Some(id)));
    }
    let rig = Rig::new(mapping(|_| {}));
    assert_eq!(rig.machine.judge(LaneId(0), &body("{}")), None, "nothing runs");
}

#[test]
fn the_oldest_waiting_record_has_an_age_until_it_is_resolved() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    let age = |rig: &Rig| rig.machine.snapshot(rig.now()).oldest_waiting_millis;
    assert_eq!(age(&rig), None);
    rig.function = Box::new(|_| Reply::Never);
    rig.put_keyed(1, None, -9000);
    rig.put_keyed(2, None, -7000);
    rig.run(1000);
    assert_eq!(age(&rig), Some(10_000), "it is at work, and a second has gone by");
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.put_keyed(1, None, -9000);
    rig.run(1000);
    assert_eq!(age(&rig), None, "it is done, unlike the age at the last invocation");
}
