//! The demo's output. Every line about an invocation comes from what the function saw.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::function::{Answer, Invocation};
use super::verdict::{Accepted, Checkpoints, Difference};

/// What differs between the two services.
pub(super) struct Words {
    /// The mapping of the demo.
    pub(super) mapping: &'static str,
    /// A mapping to begin with.
    pub(super) next: &'static str,
    /// Shards of the stream.
    pub(super) shards: usize,
    batches: &'static str,
    mended: &'static str,
    running: &'static str,
    checkpoints: &'static str,
    resumed: &'static str,
    put: &'static str,
    well: &'static str,
}

pub(super) const KINESIS: Words = Words {
    mapping: include_str!("mapping.yaml"),
    next: include_str!("next.yaml"),
    shards: 2,
    batches: "The shards run side by side; within a shard batches come one at a time and in order.\n",
    mended: "can be mended and put again.\n   The checkpoint of shard 0 passed",
    running: "while each shard had an invocation running. Both could finish, nothing was begun:",
    checkpoints: "Checkpoints",
    resumed: "A new worker begins with the very next record of each shard, those put meanwhile included:",
    put: "PutRecords",
    well: "Nothing lost, nothing twice, every shard in order, both checkpoints at the last record.",
};

pub(super) const DYNAMODB: Words = Words {
    mapping: include_str!("mapping-dynamodb.yaml"),
    next: include_str!("next-dynamodb.yaml"),
    shards: 1,
    batches: "Batches come one at a time, in the order in which the items were written.\n\n",
    mended: "can be mended and put again.\n   The checkpoint passed",
    running: "while an invocation was running. It could finish, nothing was begun:",
    checkpoints: "Checkpoint",
    resumed: "A new worker begins with the very next change, those made meanwhile included:",
    put: "PutItem",
    well: "Nothing lost, nothing twice, all in order, the checkpoint at the last change.",
};

/// So much of the payload is shown.
const SHOWN_PAYLOAD: usize = 60;

/// Where the demo takes place.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    pub(super) endpoint: &'a str,
    pub(super) arn: &'a str,
}

pub(super) fn opening(words: &Words, place: &Place<'_>, accepted: &[Accepted], poison: u32) -> String {
    let on = |shard: &str| accepted.iter().filter(|a| short(&a.shard) == shard).count();
    let data = accepted.iter().find(|a| a.order == poison).map_or("", |a| a.data.as_str());
    let address = place.endpoint.trim_start_matches("http://");
    let stream = if words.shards == 1 {
        let table = place.arn.split('/').nth(1).unwrap_or_default();
        format!(
            "\
1. A table and its stream
   DynamoDB Local listens on {address}. Its table {table} has a stream of one shard.
   A producer has put {} orders: each is the new state of its customer's item.
   Order {poison} is poison, its total is no number:
   {data}
",
            accepted.len(),
        )
    } else {
        format!(
            "\
1. A stream
   An emulator of Kinesis listens on {address}. Its stream `orders` has two shards.
   A producer has put {} orders: the odd ones went to shard 0 ({}), the even ones to shard 1 ({}).
   Order {poison} is poison, its data was cut off: {data}
",
            accepted.len(),
            on("0"),
            on("1"),
        )
    };
    format!(
        "\
shardmill demo: AWS Lambda's stream event source mapping, without AWS

Nothing leaves this machine and your AWS settings are not read. Files go to one new folder:
   {}

{stream}",
        place.folder.display(),
    )
}

pub(super) fn mapping(words: &Words) -> String {
    format!(
        "
2. A mapping in Lambda's own words: shardmill.yaml
{}
   The function is an HTTP server on this machine. It gets the JSON event that Lambda would send,
   answers 500 if it cannot read one of the records, and else writes them to handled.jsonl.
",
        indented(words.mapping)
    )
}

pub(super) fn first_batches(words: &Words, invocations: &[Invocation], accepted: &[Accepted]) -> String {
    format!(
        "
3. Batches, a bisection, retries
   {}{}
   A batch that fails is cut in two until the bad record is alone. Only a batch of one spends its
   retries. An answer of 503 means `not reached`: the same batch waits and no attempt is spent.
",
        words.batches,
        invocation_lines(invocations, accepted)
    )
}

pub(super) fn dead_letter(words: &Words, letters: &[DeadLetter], poison: u32) -> String {
    let mut text =
        String::from("\n4. The dead letter: dead-letters.jsonl, in the layout that Lambda writes to S3\n");
    for letter in letters {
        let mut shown = letter.clone();
        if let Some((at, _)) = shown.payload.char_indices().nth(SHOWN_PAYLOAD) {
            shown.payload.truncate(at);
            shown.payload.push('…');
        }
        // Strings and numbers under names that are known: this cannot fail.
        text += &indented(&serde_json::to_string_pretty(&shown).unwrap_or_default());
    }
    let _ = writeln!(
        text,
        "   The payload, cut short here, is the whole event: order {poison} {} order {poison} only after this \
         line was safe on the disk.",
        words.mended
    );
    text
}

pub(super) fn stopped(
    words: &Words,
    invocations: &[Invocation],
    checkpoints: &Checkpoints,
    accepted: &[Accepted],
    waiting: usize,
) -> String {
    let mut text = format!(
        "
5. Stopped in the middle
   As by SIGTERM, {}

{}
   {} in shardmill.db:
",
        words.running,
        invocation_lines(invocations, accepted),
        words.checkpoints,
    );
    for (shard, at) in checkpoints {
        let at = at
            .as_ref()
            .and_then(|at| accepted.iter().find(|a| a.shard == *shard && a.sequence_number == *at));
        let at = at.map_or("at its start".to_owned(), |a| format!("after order {}", a.order));
        let _ = writeln!(text, "     shard {}  {at}", short(shard));
    }
    let _ = writeln!(
        text,
        "   {waiting} orders wait in the stream. While nothing runs, the producer puts more of them."
    );
    text
}

pub(super) fn resumed(words: &Words, invocations: &[Invocation], accepted: &[Accepted]) -> String {
    format!(
        "
6. Started again from the checkpoints
   {}

{}",
        words.resumed,
        invocation_lines(invocations, accepted)
    )
}

pub(super) fn verdict(
    words: &Words,
    differences: &[Difference],
    accepted: usize,
    handled: usize,
    dead: usize,
) -> String {
    let mut text = format!(
        "
7. Checked: what {} accepted against what the function wrote down and the dead letters
",
        words.put
    );
    let _ = writeln!(text, "   accepted {accepted}   handled {handled}   dead letters {dead}");
    if differences.is_empty() {
        let _ = writeln!(text, "   {}", words.well);
        return text;
    }
    let _ = writeln!(text, "   FAILED: this is not as it must be:");
    for difference in differences {
        let _ = writeln!(text, "   - {difference}");
    }
    text
}

pub(super) fn ending(words: &Words, folder: &Path) -> String {
    format!(
        "
What to try next
   1. Run your function as an HTTP server: POST / gets the event, 200 means done, 500 means failed.
   2. Save this as shardmill.yaml, with the ARN of your stream:

{}
   3. shardmill check -c shardmill.yaml --online
      shardmill run -c shardmill.yaml

   A Lambda function written for Python, Node, Go or Rust runs as it is with
   `Function: {{Command: [...]}}` in place of the Url. `shardmill --help` shows the rest.

Look around, then delete it:
   {}
",
        indented(&indented(words.next)),
        folder.display()
    )
}

pub(super) fn trouble(folder: &Path) -> String {
    format!(
        "
The demo did not end as it must. This is a defect of shardmill: please report the lines above.
The files are kept in {}
",
        folder.display()
    )
}

/// One line for each invocation, shard by shard.
fn invocation_lines(invocations: &[Invocation], accepted: &[Accepted]) -> String {
    let mut shards: BTreeMap<&str, Vec<&Invocation>> = BTreeMap::new();
    for invocation in invocations {
        shards.entry(&invocation.shard).or_default().push(invocation);
    }
    let orders: BTreeMap<_, _> = accepted.iter().map(|a| ((&a.shard, &a.sequence_number), a.order)).collect();
    let several = shards.len() > 1 && shards.values().any(|invocations| invocations.len() > 1);
    let mut text = String::new();
    for (shard, invocations) in shards {
        if several {
            text.push('\n');
        }
        for (i, invocation) in invocations.iter().enumerate() {
            let head = if i == 0 { format!("shard {}", short(shard)) } else { String::new() };
            let numbers = invocation.sequence_numbers.iter().map(|number| {
                let order = orders.get(&(&invocation.shard, number));
                order.map_or_else(|| "?".to_owned(), u32::to_string)
            });
            let numbers = numbers.collect::<Vec<_>>().join(" ");
            let what = happened(
                invocation,
                i.checked_sub(1).and_then(|i| invocations.get(i)),
                invocations.get(i + 1),
            );
            let _ = writeln!(text, "   {head:<9}{numbers:<25}{what}");
        }
    }
    text
}

/// What became of an invocation, derived from those before and after it.
fn happened(this: &Invocation, before: Option<&&Invocation>, after: Option<&&Invocation>) -> String {
    let numbers = &this.sequence_numbers;
    let again = |other: Option<&&Invocation>| {
        other.is_some_and(|o| o.sequence_numbers == *numbers && o.request_id == this.request_id)
    };
    let is_cut = |next: &&Invocation| {
        next.sequence_numbers.len() < numbers.len() && numbers.starts_with(&next.sequence_numbers)
    };
    let text = match this.answer {
        Answer::Handled => "handled",
        Answer::Busy => "busy: answered 503",
        Answer::Failed if again(after) => "failed, alone: tried again",
        Answer::Failed if after.is_some_and(is_cut) => "failed: cut in two",
        Answer::Failed => "failed, discarded: to the dead letters",
    };
    let same = if again(before) { " (same request id)" } else { "" };
    format!("{text}{same}")
}

/// `0` for `shardId-000000000000`.
fn short(shard: &str) -> &str {
    let number = shard.rsplit_once('-').map_or(shard, |(_, number)| number).trim_start_matches('0');
    if number.is_empty() { "0" } else { number }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |text, line| text + "   " + line + "\n")
}

/// A line of dead-letters.jsonl.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetter {
    request_context: RequestContext,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext>,
    version: String,
    /// The event.
    pub(super) payload: String,
    timestamp: String,
    #[serde(rename = "KinesisBatchInfo", skip_serializing_if = "Option::is_none")]
    kinesis_batch_info: Option<BatchInfo>,
    #[serde(rename = "DDBStreamBatchInfo", skip_serializing_if = "Option::is_none")]
    dynamodb_batch_info: Option<BatchInfo>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext {
    request_id: String,
    function_arn: String,
    condition: String,
    approximate_invoke_count: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext {
    status_code: u16,
    executed_version: String,
    function_error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo {
    shard_id: String,
    start_sequence_number: String,
    end_sequence_number: String,
    approximate_arrival_of_first_record: String,
    approximate_arrival_of_last_record: String,
    batch_size: u32,
    stream_arn: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_with_the_record_that_it_is_about() {
        let record = Accepted {
            order: 7,
            shard: "shardId-000000000001".to_owned(),
            sequence_number: "4711".to_owned(),
            data: String::new(),
        };
        let differences = [
            Difference::Lost(record.clone()),
            Difference::Twice(record.clone(), 2),
            Difference::OutOfOrder(record),
            Difference::Overdue("the dead letter"),
        ];
        let text = verdict(&KINESIS, &differences, 48, 46, 1);
        let expected = "
   accepted 48   handled 46   dead letters 1
   FAILED: this is not as it must be:
   - LOST          neither handled nor a dead letter: order 7
     shardId-000000000001 4711
   - TWICE         came to its end 2 times: order 7
     shardId-000000000001 4711
   - OUT OF ORDER  handled after a later one of its shard: order 7
     shardId-000000000001 4711
   - OVERDUE       the dead letter
";
        assert!(text.ends_with(expected), "{text}");
    }
}
