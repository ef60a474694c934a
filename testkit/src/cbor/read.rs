//! Reading CBOR. Plain and not fast: a second opinion to the readers under test.

use super::{Item, TIMES};

/// A value of indefinite length ends with this.
const BREAK: u8 = 0xff;

pub(super) fn whole(cbor: &[u8]) -> Option<Item> {
    let mut rest = cbor;
    let item = item(&mut rest, 64)?;
    rest.is_empty().then_some(item)
}

fn item(rest: &mut &[u8], depth: u8) -> Option<Item> {
    let depth = depth.checked_sub(1)?;
    let (major, info, argument) = head(rest)?;
    let count = argument.filter(|_| info != 31);
    Some(match major {
        0 => Item::Integer(i64::try_from(argument?).ok()?),
        1 => Item::Integer(!i64::try_from(argument?).ok()?),
        2 => Item::Data(string(rest, major, count)?),
        3 => Item::Text(String::from_utf8(string(rest, major, count)?).ok()?),
        4 => Item::Array(sequence(rest, count, |rest| item(rest, depth))?),
        5 => Item::Map(sequence(rest, count, |rest| member(rest, depth))?),
        6 => match (argument?, item(rest, depth)?) {
            (1, Item::Integer(millis)) => Item::Time(millis),
            (1, Item::Float(seconds)) => Item::time(seconds),
            (_, item) => item,
        },
        _ => match info {
            20 | 21 => Item::Boolean(info == 21),
            22 | 23 => Item::Null,
            27 => Item::Float(f64::from_bits(argument?)),
            _ => return None,
        },
    })
}

fn member(rest: &mut &[u8], depth: u8) -> Option<(String, Item)> {
    let Item::Text(name) = item(rest, depth)? else { return None };
    let value = match item(rest, depth)? {
        Item::Integer(millis) if TIMES.contains(&name.as_str()) => Item::Time(millis),
        value => value,
    };
    Some((name, value))
}

/// Major type, the low bits of the first byte, and the argument, which an indefinite length does not have.
fn head(rest: &mut &[u8]) -> Option<(u8, u8, Option<u64>)> {
    let first = *take(rest, 1)?.first()?;
    let info = first & 31;
    let argument = match info {
        0..=23 => Some(info.into()),
        24..=27 => {
            let bytes = take(rest, 1 << (info - 24))?;
            Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        31 => None,
        _ => return None,
    };
    Some((first >> 5, info, argument))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn string(rest: &mut &[u8], major: u8, count: Option<u64>) -> Option<Vec<u8>> {
    if let Some(count) = count {
        return take(rest, usize::try_from(count).ok()?).map(<[u8]>::to_vec);
    }
    let chunks = sequence(rest, None, |rest| match head(rest)? {
        (of, _, Some(count)) if of == major => take(rest, usize::try_from(count).ok()?).map(<[u8]>::to_vec),
        _ => None,
    })?;
    Some(chunks.concat())
}

fn sequence<T>(
    rest: &mut &[u8],
    count: Option<u64>,
    mut each: impl FnMut(&mut &[u8]) -> Option<T>,
) -> Option<Vec<T>> {
    if let Some(count) = count {
        return (0..count).map(|_| each(rest)).collect();
    }
    let mut all = Vec::new();
    while *rest.first()? != BREAK {
        all.push(each(rest)?);
    }
    take(rest, 1)?;
    Some(all)
}
