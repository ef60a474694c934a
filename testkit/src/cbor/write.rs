//! Writing CBOR.

use super::Item;

/// What may be written in more than one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// Maps and arrays: of indefinite length, or with their count.
    Container,
    /// Texts and bytes: with their length, or in chunks.
    Text,
    /// Numbers and lengths: as short as possible, or in 8 bytes.
    Number,
    /// Times: tagged milliseconds, milliseconds without a tag, or tagged seconds with a fraction.
    Time,
}

impl Form {
    /// How many forms there are to choose from.
    #[must_use]
    pub const fn count(self) -> u8 {
        match self {
            Self::Container | Self::Text | Self::Number => 2,
            Self::Time => 3,
        }
    }
}

type Choose<'a> = &'a mut dyn FnMut(Form) -> u8;

pub(super) fn push(item: &Item, out: &mut Vec<u8>, choose: Choose<'_>) {
    match item {
        Item::Null => out.push(0xf6),
        Item::Boolean(is) => out.push(0xf4 + u8::from(*is)),
        Item::Integer(number) => push_integer(out, *number, choose),
        Item::Float(number) => push_float(out, *number),
        Item::Text(text) => push_text(out, text, choose),
        Item::Data(data) => {
            let half = data.len() / 2;
            push_string(out, 2, [&data[..half], &data[half..]], choose);
        }
        Item::Time(millis) => match choose(Form::Time) {
            0 => {
                out.push(0xc1);
                push_integer(out, *millis, choose);
            }
            1 => push_integer(out, *millis, choose),
            _ => {
                out.push(0xc1);
                #[expect(clippy::cast_precision_loss, reason = "times are far below")]
                push_float(out, *millis as f64 / 1000.0);
            }
        },
        Item::Array(items) => {
            let is_counted = begin(out, 4, items.len(), choose);
            items.iter().for_each(|item| push(item, out, choose));
            end(out, is_counted);
        }
        Item::Map(members) => {
            let is_counted = begin(out, 5, members.len(), choose);
            for (name, item) in members {
                push_text(out, name, choose);
                push(item, out, choose);
            }
            end(out, is_counted);
        }
    }
}

/// Whether the count was written.
fn begin(out: &mut Vec<u8>, major: u8, count: usize, choose: Choose<'_>) -> bool {
    let is_counted = choose(Form::Container) != 0;
    if is_counted {
        push_head(out, major, count as u64, choose);
    } else {
        out.push(major << 5 | 31);
    }
    is_counted
}

fn end(out: &mut Vec<u8>, is_counted: bool) {
    if !is_counted {
        out.push(0xff);
    }
}

fn push_head(out: &mut Vec<u8>, major: u8, argument: u64, choose: Choose<'_>) {
    let bytes = argument.to_be_bytes();
    let (info, shown) = match argument {
        _ if choose(Form::Number) != 0 => (27, 8),
        0..=23 => return out.push(major << 5 | bytes[7]),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&bytes[8 - shown..]);
}

fn push_integer(out: &mut Vec<u8>, number: i64, choose: Choose<'_>) {
    // A negative number n is written as -1 - n, which is what its bits are but for the sign.
    let (major, number) = if number < 0 { (1, !number) } else { (0, number) };
    push_head(out, major, number.unsigned_abs(), choose);
}

fn push_float(out: &mut Vec<u8>, number: f64) {
    out.push(0xfb);
    out.extend_from_slice(&number.to_be_bytes());
}

fn push_text(out: &mut Vec<u8>, text: &str, choose: Choose<'_>) {
    let (first, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
    push_string(out, 3, [first.as_bytes(), rest.as_bytes()], choose);
}

fn push_string(out: &mut Vec<u8>, major: u8, halves: [&[u8]; 2], choose: Choose<'_>) {
    if choose(Form::Text) == 0 {
        push_head(out, major, (halves[0].len() + halves[1].len()) as u64, choose);
        return halves.into_iter().for_each(|half| out.extend_from_slice(half));
    }
    out.push(major << 5 | 31);
    for half in halves {
        push_head(out, major, half.len() as u64, choose);
        out.extend_from_slice(half);
    }
    out.push(0xff);
}
