//! What DynamoDB bills: the sizes of items and the capacity units of calls.

use serde_json::Value;

use super::state::Item;

const READ_UNIT: usize = 4 << 10;
const WRITE_UNIT: usize = 1 << 10;

/// The size of an item by the rules of the service's documentation ("DynamoDB item sizes and formats").
pub(super) fn size_of(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of_value(value)).sum()
}

fn size_of_value(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    let text = value.as_str().unwrap_or_default();
    let all = |values: &Value, size: fn(&Value) -> usize| {
        values.as_array().into_iter().flatten().map(size).sum::<usize>()
    };
    match kind.as_str() {
        "S" => text.len(),
        "N" => size_of_number(text),
        "B" => text.len() / 4 * 3,
        "SS" => all(value, |text| text.as_str().unwrap_or_default().len()),
        "NS" => all(value, |text| size_of_number(text.as_str().unwrap_or_default())),
        "L" => 3 + all(value, |value| 1 + size_of_value(value)),
        "M" => 3 + value.as_object().map_or(0, |map| map.len() + size_of(map)),
        _ => 1,
    }
}

/// A byte for every two significant digits, and one more.
fn size_of_number(text: &str) -> usize {
    let digits = text.trim_start_matches(['-', '0']).trim_end_matches('0').len();
    digits.div_ceil(2) + 1
}

/// What a read costs that looked at so many bytes; one that may be old costs half.
pub(super) fn read_units(bytes: usize, consistent: bool) -> f64 {
    let units = bytes.div_ceil(READ_UNIT).max(1) as f64;
    if consistent { units } else { units / 2.0 }
}

/// What a write costs: by the larger of the item before and after it. One that is refused costs the same.
pub(super) fn write_units(before: usize, after: usize) -> f64 {
    before.max(after).div_ceil(WRITE_UNIT).max(1) as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_and_units_are_those_of_the_services_documentation() {
        let item = json!({
            "id": {"S": "four"}, "n": {"N": "12300"}, "flag": {"BOOL": true},
            "set": {"SS": ["a", "bc"]}, "list": {"L": [{"S": "x"}]}, "map": {"M": {"k": {"N": "0"}}},
        });
        let sizes = [2 + 4, 1 + 3, 4 + 1, 3 + 3, 4 + 3 + 2, 3 + 3 + 1 + 1 + 1];
        assert_eq!(size_of(item.as_object().unwrap()), sizes.iter().sum::<usize>());
        assert_eq!([0, 4096, 4097].map(|bytes| read_units(bytes, true)), [1.0, 1.0, 2.0]);
        assert_eq!(read_units(4097, false), 1.0);
        assert_eq!([(0, 10), (1024, 3), (10, 1025)].map(|(a, b)| write_units(a, b)), [1.0, 1.0, 2.0]);
    }
}
