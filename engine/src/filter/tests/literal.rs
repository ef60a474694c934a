//! What is ruled out before a record is looked at: everything that a search can tell, and nothing that may match.

use super::{filter, passes};

/// Whether a search alone rules out this data.
fn is_ruled_out(pattern: &str, json: &str) -> bool {
    let filter = filter(pattern);
    filter.combinations[0].body.as_ref().unwrap().literals.rule_out(json.as_bytes())
}

const WANTED: &str = r#"{"data": {
    "a": {"b": ["one", "two", "three"]}, "n": [{"numeric": [">", 5]}], "p": [{"prefix": "ab"}], "s": [{"suffix": "yz"}]
}}"#;

#[test]
fn what_may_match_is_never_ruled_out() {
    for json in [
        r#"{"a":{"b":"one"},"n":6,"p":"abc","s":"xyz"}"#,
        r#"{"a" : {"b" : "three"}, "n" : 6, "p" : "abc", "s" : "xyz"}"#,
        r#"{"n":5,"a":[{"b":["two"]},{}],"x":{"n":[1]},"p":"abc","s":"xyz"}"#,
        r#"{"n":1,"x":{"n":7},"a":{"b":"two"},"p":"abc","s":"xyz"}"#,
    ] {
        assert!(!is_ruled_out(WANTED, json), "{json}");
    }
}

#[test]
fn a_record_without_a_key_or_a_value_that_is_asked_for_is_ruled_out_by_a_search() {
    for json in [
        "{}",
        r#"{"a":{"b":"four"},"n":6,"p":"abc","s":"xyz"}"#,
        r#"{"a":{"c":"one"},"n":6,"p":"abc","s":"xyz"}"#,
        r#"{"a":{"b":"one"},"m":6,"p":"abc","s":"xyz"}"#,
        r#"{"a":{"b":"one"},"n":5,"p":"abc","s":"xyz"}"#,
        r#"{"a":{"b":"one"},"n":{"n":5},"p":"abc","s":"xyz"}"#,
        r#"{"a":{"b":"one"},"n":"n","p":"abc","s":"xyz"}"#,
        r#"{"a":{"b":"one"},"n":6,"p":"cab","s":"xyz"}"#,
        r#"{"a":{"b":"one"},"n":6,"p":"abc","s":"yzx"}"#,
    ] {
        assert!(is_ruled_out(WANTED, json), "{json}");
        assert!(!passes(WANTED, json), "{json}");
    }
    let key = r#"{"data": {"a": {"b": [{"exists": true}]}}}"#;
    assert!(is_ruled_out(key, r#"{"a":{"c":1}}"#) && is_ruled_out(key, r#"{"c":{"b":1}}"#));
    assert!(!is_ruled_out(key, r#"{"a":{"b":1}}"#));
    let number = r#"{"data": {"a": [1, "x"]}}"#;
    assert!(!is_ruled_out(number, r#"{"a":1.0}"#), "a number has many spellings");
    assert!(is_ruled_out(number, r#"{"a":2}"#) && is_ruled_out(number, r#"{"b":1}"#));
}

#[test]
fn what_need_not_stand_there_rules_nothing_out() {
    for rules in [
        r#"["x", {"exists": false}]"#,
        r#"["x", {"exists": true}]"#,
        r#"["x", {"equals-ignore-case": "y"}]"#,
        r#"[{"anything-but": "x"}]"#,
    ] {
        assert!(!is_ruled_out(&format!(r#"{{"data": {{"a": {rules}}}}}"#), r#"{"a":"Y"}"#), "{rules}");
    }
    let absent = r#"{"data": {"a": [{"exists": false}], "b": {"c": [{"exists": false}]}}}"#;
    assert!(!is_ruled_out(absent, "{}"));
    let quotes = r#"{"data": {"a": ["x\"y", "x\\y", "x\ny"]}}"#;
    assert!(!is_ruled_out(quotes, r#"{"a":"x\"y"}"#), "such texts are written with escapes");
}

#[test]
fn up_to_three_values_are_searched_for_and_more_are_judged_in_their_place() {
    // An element of an array is judged later only, so that here the text alone can tell.
    let three = r#"{"data": {"a": ["1", "2", "3"]}}"#;
    let four = r#"{"data": {"a": ["1", "2", "3", "4"]}}"#;
    assert!(is_ruled_out(three, r#"{"a":["5"]}"#) && !is_ruled_out(three, r#"{"a":["3"]}"#));
    assert!(!is_ruled_out(four, r#"{"a":["5"]}"#) && is_ruled_out(four, r#"{"a":"5"}"#));
}

#[test]
fn r58_characters_that_stand_there_as_escapes_hide_nothing() {
    let slash = r#"{"data": {"a": ["b/c"]}}"#;
    assert!(passes(slash, r#"{"a":"b\/c"}"#) && passes(slash, r#"{"a":"b\u002fc"}"#));
    assert!(!is_ruled_out(slash, r#"{"a":"b\/c"}"#) && !is_ruled_out(slash, r#"{"\u0061":"b/c"}"#));
    assert!(passes(slash, r#"{"x":"\n","a":"b\/c"}"#), "not the first backslash");
    // Other escapes stand for characters that no text contains that is searched for.
    assert!(is_ruled_out(slash, r#"{"a":"b\nc"}"#));
    assert!(is_ruled_out(slash, r#"{"a":"u/"}"#), "no backslash");
}

#[test]
fn r55_what_is_not_to_exist_in_an_array_must_not_exist_in_any_of_its_objects() {
    let absent = r#"{"data": {"a": {"b": [{"exists": false}]}}}"#;
    for json in [r#"{"a":[{"c":1},{"c":2}]}"#, r#"{"a":[]}"#, r#"{"a":5}"#, r#"{"a":{}}"#, "{}"] {
        assert!(passes(absent, json), "{json}");
    }
    for json in [
        r#"{"a":[{"c":1},{"b":2}]}"#,
        r#"{"a":[{"b":2},{"c":1}]}"#,
        r#"{"a":[{"b":2}]}"#,
        r#"{"a":[5,{"b":2}]}"#,
        r#"{"a":[{"c":1},{"b":2},{"c":1}]}"#,
    ] {
        assert!(!passes(absent, json), "{json}");
    }
    let beside = r#"{"data": {"a": {"b": [{"exists": false}], "c": [1]}}}"#;
    assert!(passes(beside, r#"{"a":[{"b":2},{"c":1},{"b":2}]}"#), "one object has all that is asked");
    assert!(!passes(beside, r#"{"a":[{"b":2,"c":1},{"c":2}]}"#), "none has");
}

#[test]
fn r55_a_member_may_be_asked_for_itself_and_for_what_is_in_it() {
    let both = r#"{"data": {"$or": [{"a": {"b": [1]}}, {"a": [2]}], "a": {"c": [3]}}}"#;
    assert!(passes(both, r#"{"a":{"b":1,"c":3}}"#));
    assert!(passes(both, r#"{"a":[2,{"c":3}]}"#) && passes(both, r#"{"a":[{"c":3},2]}"#));
    assert!(!passes(both, r#"{"a":[4,{"c":3}]}"#) && !passes(both, r#"{"a":[2,{"c":4}]}"#));
    assert!(!passes(both, r#"{"a":2}"#) && !passes(both, r#"{"a":{"c":3}}"#));
}
