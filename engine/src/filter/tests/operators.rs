//! One table for each operator: what it takes, what it matches, what not.

use super::passes;

/// Each JSON value must match the rules, or not.
fn table(rules: &str, matching: &[&str], others: &[&str]) {
    let pattern = format!(r#"{{"data": {{"k": {rules}}}}}"#);
    for value in matching {
        assert!(passes(&pattern, &format!(r#"{{"k": {value}}}"#)), "{rules} must match {value}");
    }
    for value in others {
        assert!(!passes(&pattern, &format!(r#"{{"k": {value}}}"#)), "{rules} must not match {value}");
    }
}

#[test]
fn r55_equality_is_of_value_and_type() {
    table(
        r#"["on"]"#,
        &[r#""on""#, r#"["off", "on"]"#, r#""\u006fn""#],
        &[r#""On""#, r#""on ""#, "null", "1", "{}"],
    );
    table("[1]", &["1", "1.0", "10e-1", "[0, [1]]"], &[r#""1""#, "1.01", "true"]);
    table("[true]", &["true", "[false, true]"], &["false", r#""true""#, "1", "null"]);
    table("[false]", &["false"], &["true", "null", "0"]);
    table("[null]", &["null", "[1, null]"], &["false", r#""null""#, r#""""#, "0", "[]", "{}"]);
    table(r#"[""]"#, &[r#""""#, r#"["a", ""]"#], &["null", r#"" ""#, "[]"]);
    table(r#"["a", 1, null]"#, &[r#""a""#, "1", "null"], &["2", "true"]);
}

#[test]
fn r55_letters_are_not_normalised() {
    // One "é" is a character, the other an "e" and an accent.
    table("[\"caf\u{e9}\"]", &["\"caf\u{e9}\"", r#""caf\u00e9""#], &["\"cafe\u{301}\"", "\"CAF\u{c9}\""]);
}

#[test]
fn r62_prefix_and_suffix_are_of_strings_only() {
    table(
        r#"[{"prefix": "ab"}]"#,
        &[r#""ab""#, r#""abc""#, r#""\u0061bc""#],
        &[r#""Abc""#, r#""a""#, "12", "null"],
    );
    table(r#"[{"suffix": ".png"}]"#, &[r#""a.png""#, r#"".png""#], &[r#""a.PNG""#, r#""png""#, "1"]);
    table(r#"[{"prefix": ""}]"#, &[r#""""#, r#""a""#], &["1", "null", "{}"]);
    table(r#"[{"prefix": "1"}]"#, &[r#""12""#], &["12"]);
}

#[test]
fn r55_case_is_ignored_where_asked() {
    table(
        r#"[{"equals-ignore-case": "AbÉ"}]"#,
        &[r#""abé""#, r#""ABÉ""#, r#""AB\u00e9""#],
        &[r#""ab""#, r#""abéx""#, "null"],
    );
    table(
        r#"[{"prefix": {"equals-ignore-case": "EventB"}}]"#,
        &[r#""EVENTBridge""#, r#""eventb""#],
        &[r#""event""#],
    );
    table(r#"[{"suffix": {"equals-ignore-case": ".png"}}]"#, &[r#""a.PnG""#], &[r#""a.pngx""#, r#""png""#]);
}

#[test]
fn r55_anything_but_needs_a_value_that_is_not_excluded() {
    table(
        r#"[{"anything-but": "a"}]"#,
        &[r#""b""#, "1", "null", "true", r#"["a", "b"]"#],
        &[r#""a""#, "[]", "{}"],
    );
    table(r#"[{"anything-but": ["a", "b"]}]"#, &[r#""c""#, r#""""#], &[r#""a""#, r#""b""#, r#"["b", "a"]"#]);
    table(r#"[{"anything-but": 123}]"#, &["124", r#""123""#], &["123", "1.23e2"]);
    table(r#"[{"anything-but": [1, 2]}]"#, &["3", "null"], &["1.0", "2"]);
    table(r#"[{"anything-but": {"prefix": "us-"}}]"#, &[r#""eu-1""#, "7"], &[r#""us-1""#]);
    table(r#"[{"anything-but": {"prefix": ["us-", "eu-"]}}]"#, &[r#""ap-1""#], &[r#""us-1""#, r#""eu-1""#]);
    table(r#"[{"anything-but": {"suffix": ".png"}}]"#, &[r#""a.jpg""#], &[r#""a.png""#]);
    table(r#"[{"anything-but": {"equals-ignore-case": ["a", "B"]}}]"#, &[r#""c""#], &[r#""A""#, r#""b""#]);
}

#[test]
fn r61_numeric_compares_numbers_and_never_strings() {
    table(r#"[{"numeric": ["=", 3.018e2]}]"#, &["301.8", "3018e-1"], &["301.81", r#""301.8""#]);
    table(
        r#"[{"numeric": [">", 0, "<=", 5]}]"#,
        &["0.0001", "5", "5.0", "[-1, 3]"],
        &["0", "5.0001", "-3", "null"],
    );
    table(r#"[{"numeric": ["<", 10]}]"#, &["-5e9", "9.999999"], &["10", "1e1", r#""9""#]);
    table(r#"[{"numeric": [">=", -1.5]}]"#, &["-1.5", "0"], &["-1.6"]);
    // Beyond AWS's 5e9 and six decimals.
    table(r#"[{"numeric": [">", 9007199254740992]}]"#, &["9007199254740993"], &["9007199254740992"]);
    table(r#"[{"numeric": ["<", 0.0000001]}]"#, &["0.00000009"], &["0.0000001"]);
}

#[test]
fn r60_exists_is_about_leaves() {
    table(
        r#"[{"exists": true}]"#,
        &["1", "null", r#""""#, "[0]", "[{}, false]"],
        &["{}", r#"{"a": 1}"#, "[]", "[{}]"],
    );
    table(r#"[{"exists": false}]"#, &["{}", r#"{"a": 1}"#, "[]", r#"[{"a": 1}]"#], &["1", "null", "[0]"]);
    assert!(passes(r#"{"data": {"k": [{"exists": false}]}}"#, "{}"));
    assert!(!passes(r#"{"data": {"k": [{"exists": true}]}}"#, "{}"));
}

#[test]
fn r55_rules_in_a_list_are_alternatives() {
    table(
        r#"["a", {"prefix": "b"}, {"numeric": [">", 5]}, null]"#,
        &[r#""a""#, r#""bx""#, "6", "null"],
        &[r#""c""#, "5", "true"],
    );
    let absent_or_small = r#"{"data": {"k": [{"exists": false}, {"numeric": ["<", 3]}]}}"#;
    assert!(passes(absent_or_small, r#"{"other": 9}"#) && passes(absent_or_small, r#"{"k": 2}"#));
    assert!(!passes(absent_or_small, r#"{"k": 3}"#));
}

#[test]
fn r55_nested_arrays_are_flat() {
    table("[4]", &["[1, [2, [3, [4]]]]", "[[], [[4]]]"], &["[[1], [2, 3]]", r#"[{"x": 4}]"#]);
}

#[test]
fn r55_fields_inside_an_array_match_in_one_element() {
    let anna = r#"{"data": {"people": {"first": ["Anna"], "last": ["Jones"]}}}"#;
    let two = r#"{"people": [{"first": "Anna", "last": "Smith"}, {"first": "Peter", "last": "Jones"}]}"#;
    assert!(!passes(anna, two));
    assert!(passes(anna, &two.replace("Smith", "Jones")));
    assert!(passes(anna, r#"{"people": [[{"last": "X"}], [1, [{"last": "Jones", "first": "Anna"}]]]}"#));
    // What must not exist, must not in the element that matches, or else in none.
    let single = r#"{"data": {"people": {"first": ["Anna"], "partner": [{"exists": false}]}}}"#;
    assert!(passes(single, r#"{"people": [{"first": "Anna"}, {"first": "Peter", "partner": "Eve"}]}"#));
    assert!(!passes(single, r#"{"people": [{"first": "Anna", "partner": "Tom"}, {"first": "Peter"}]}"#));
    let nobody = r#"{"data": {"people": {"partner": [{"exists": false}]}}}"#;
    assert!(!passes(nobody, r#"{"people": [{"first": "Anna"}, {"partner": "Eve"}]}"#));
    assert!(!passes(nobody, r#"{"people": [{"partner": "Eve"}, {"first": "Anna"}]}"#));
    assert!(passes(nobody, r#"{"people": [{"first": "Anna"}, {"first": "Tom"}]}"#) && passes(nobody, "{}"));
}

#[test]
fn r55_keys_are_joined_by_and_and_or_is_what_or_says() {
    let both = r#"{"data": {"a": [1], "b": {"c": [2]}}}"#;
    assert!(passes(both, r#"{"b": {"c": 2}, "a": 1}"#));
    assert!(!passes(both, r#"{"b": {"c": 3}, "a": 1}"#) && !passes(both, r#"{"a": 1}"#));
    let or =
        r#"{"data": {"s": ["x"], "$or": [{"a": [1]}, {"b": {"c": [2], "$or": [{"d": [3]}, {"e": [4]}]}}]}}"#;
    assert!(passes(or, r#"{"s": "x", "a": 1}"#));
    assert!(passes(or, r#"{"s": "x", "a": 0, "b": {"c": 2, "e": 4}}"#));
    assert!(!passes(or, r#"{"s": "x", "a": 0, "b": {"c": 2}}"#));
    assert!(!passes(or, r#"{"s": "y", "a": 1}"#));
}

#[test]
fn cidr_is_a_block_of_addresses_of_one_family() {
    table(
        r#"[{"cidr": "10.1.2.99/24"}]"#,
        &[r#""10.1.2.0""#, r#""10.1.2.255""#, r#"["x", "10.1.2.7"]"#, r#""10\u002e1.2.7""#],
        &[r#""10.1.3.0""#, r#""10.1.1.255""#, r#""10.1.2""#, r#""::ffff:10.1.2.7""#, "10", "null", r#""""#],
    );
    table(r#"[{"cidr": "0.0.0.0/0"}]"#, &[r#""255.255.255.255""#], &[r#""::""#, r#""a""#]);
    table(r#"[{"cidr": "10.0.0.1/32"}]"#, &[r#""10.0.0.1""#], &[r#""10.0.0.2""#, r#""10.0.0.0""#]);
    table(
        r#"[{"cidr": "2001:db8::/33"}]"#,
        &[r#""2001:db8:7fff::1""#, r#""2001:DB8:0:0:0:0:0:1""#],
        &[r#""2001:db8:8000::""#, r#""10.0.0.1""#],
    );
    table(r#"[{"cidr": "::/0"}, "-"]"#, &[r#""::1""#, r#""-""#], &[r#""0.0.0.0""#]);
    table(r#"[{"cidr": "::1/128"}]"#, &[r#""::1""#], &[r#""::2""#, r#""::""#]);
}
