//! An event's size without its text.

use super::{CLOSE, END, EventContext, OPEN, SOURCE_ARN, kinesis, push_window};
use crate::json::escaped_len;
use crate::record::{Payload, Record};
use crate::window::WindowCall;

/// The sizes of an event's parts that do not depend on its records, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EventSize {
    kinesis_record: usize,
    dynamodb_tail: usize,
    /// The end of a tumbling window's event with an empty state.
    window_tail: usize,
}

impl EventSize {
    pub(crate) fn new(cx: &EventContext) -> Self {
        let mut tail = Vec::new();
        // All windows have the same length but for the flags' values: `false` is the longer one.
        push_window(&mut tail, cx, &WindowCall::default());
        Self {
            kinesis_record: kinesis::Fixed::new(cx).len(),
            dynamodb_tail: SOURCE_ARN.len() + escaped_len(&cx.event_source_arn) + END.len(),
            window_tail: tail.len(),
        }
    }

    /// What a record adds, without a comma.
    #[inline]
    pub(crate) fn record(&self, record: &Record) -> usize {
        match &record.payload {
            Payload::Kinesis { partition_key, data } => {
                self.kinesis_record + kinesis::variable_len(record, partition_key.as_deref(), data)
            }
            Payload::DynamoDb(change) => change.json.len() + self.dynamodb_tail,
        }
    }

    /// What an event without records takes.
    pub(crate) fn frame(&self, window: Option<&WindowCall>) -> usize {
        OPEN.len()
            + window.map_or(CLOSE.len(), |window| {
                let trues = usize::from(window.is_final) + usize::from(window.is_terminated_early);
                self.window_tail + window.state.len() - trues
            })
    }
}
