//! A second evaluator for filter patterns, as slow and plain as can be: it lists every field of the event with the array
//! elements that it stands in, and tries every way to fulfil the conditions. It shares nothing with the one it judges.

use std::collections::BTreeMap;

use serde_json::Value;

/// Which element of which array, by the numbers that the arrays have in this event.
type Elements = BTreeMap<usize, usize>;

struct Field {
    path: Vec<String>,
    value: Value,
    elements: Elements,
}

type Condition = (Vec<String>, Vec<Value>);

/// Whether `event` matches `pattern`, which is valid.
#[must_use]
pub(crate) fn matches(pattern: &Value, event: &Value) -> bool {
    let mut fields = Vec::new();
    list(event, &mut Vec::new(), &Elements::new(), &mut 0, &mut fields);
    multiply(pattern, &[])
        .iter()
        .any(|conditions| search(conditions, &fields, &Elements::new(), &mut Vec::new()))
}

fn list(
    value: &Value,
    path: &mut Vec<String>,
    elements: &Elements,
    arrays: &mut usize,
    out: &mut Vec<Field>,
) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                path.push(key.clone());
                list(value, path, elements, arrays, out);
                path.pop();
            }
        }
        Value::Array(_) => {
            let id = *arrays;
            *arrays += 1;
            let mut flat = Vec::new();
            flatten(value, &mut flat);
            for (index, item) in flat.into_iter().enumerate() {
                let mut inside = elements.clone();
                if item.is_object() {
                    inside.insert(id, index);
                }
                list(item, path, &inside, arrays, out);
            }
        }
        leaf => {
            out.push(Field { path: path.clone(), value: leaf.clone(), elements: elements.clone() });
        }
    }
}

fn flatten<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, out)),
        other => out.push(other),
    }
}

fn multiply(pattern: &Value, path: &[String]) -> Vec<Vec<Condition>> {
    let mut all: Vec<Vec<Condition>> = vec![Vec::new()];
    for (key, value) in pattern.as_object().expect("patterns are objects") {
        let parts: Vec<Vec<Condition>> = if key == "$or" {
            let branches = value.as_array().expect("$or has a list");
            branches.iter().flat_map(|branch| multiply(branch, path)).collect()
        } else {
            let path: Vec<String> = path.iter().chain([key]).cloned().collect();
            match value {
                Value::Array(rules) => vec![vec![(path, rules.clone())]],
                object => multiply(object, &path),
            }
        };
        all = all.iter().flat_map(|a| parts.iter().map(move |b| [a.clone(), b.clone()].concat())).collect();
    }
    all
}

fn consistent(a: &Elements, b: &Elements) -> bool {
    a.iter().all(|(array, index)| b.get(array).is_none_or(|other| other == index))
}

fn search(rest: &[Condition], fields: &[Field], chosen: &Elements, absent: &mut Vec<Vec<String>>) -> bool {
    let Some(((path, rules), rest)) = rest.split_first() else {
        let exists = |path: &Vec<String>| {
            fields.iter().any(|field| field.path == *path && consistent(&field.elements, chosen))
        };
        return !absent.iter().any(exists);
    };
    let at_path = fields.iter().filter(|f| f.path == *path && consistent(&f.elements, chosen));
    for field in at_path {
        if rules.iter().any(|rule| holds(rule, &field.value)) {
            let mut both = chosen.clone();
            both.extend(field.elements.clone());
            if search(rest, fields, &both, absent) {
                return true;
            }
        }
    }
    if rules.iter().any(|rule| rule["exists"] == Value::Bool(false)) {
        absent.push(path.clone());
        let found = search(rest, fields, chosen, absent);
        absent.pop();
        return found;
    }
    false
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

fn text_rule(operator: &str, operand: &Value, text: &str) -> bool {
    if let Some(inner) = operand.get("equals-ignore-case") {
        return text_rule(operator, &Value::String(lower(inner.as_str().expect("text"))), &lower(text));
    }
    let operand = operand.as_str().expect("text");
    match operator {
        "prefix" => text.starts_with(operand),
        "suffix" => text.ends_with(operand),
        "equals-ignore-case" => lower(text) == lower(operand),
        other => panic!("no such operator in patterns: {other}"),
    }
}

fn holds(rule: &Value, value: &Value) -> bool {
    let Some(rule) = rule.as_object() else { return equal(rule, value) };
    let (operator, operand) = rule.iter().next().expect("one operator");
    match operator.as_str() {
        "exists" => *operand == Value::Bool(true),
        "numeric" => value.as_f64().is_some_and(|value| {
            let terms = operand.as_array().expect("a list");
            terms.chunks(2).all(|pair| {
                let limit = pair[1].as_f64().expect("a number");
                match pair[0].as_str().expect("a comparison") {
                    "=" => value == limit,
                    "<" => value < limit,
                    "<=" => value <= limit,
                    ">" => value > limit,
                    _ => value >= limit,
                }
            })
        }),
        "anything-but" => !excluded(operand, value),
        _ => value.as_str().is_some_and(|text| text_rule(operator, operand, text)),
    }
}

fn excluded(operand: &Value, value: &Value) -> bool {
    let any = |operand: &Value, test: &dyn Fn(&Value) -> bool| match operand {
        Value::Array(items) => items.iter().any(test),
        one => test(one),
    };
    match operand.as_object().and_then(|inner| inner.iter().next()) {
        Some((operator, inner)) => {
            value.as_str().is_some_and(|text| any(inner, &|one| text_rule(operator, one, text)))
        }
        None => any(operand, &|one| equal(one, value)),
    }
}
