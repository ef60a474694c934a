//! A DynamoDB item, copied from an answer into the event.
//!
//! What is written is what `DynamoDbEncoder` writes of the same item: without white space, attributes in the order of
//! their names, and only the escapes that JSON demands.

use super::scan::{Scan, Text};
use crate::json::{is_written_so, push_escaped};

/// Items that nest deeper are left to the SDK. DynamoDB permits 32 levels.
const DEEPEST: usize = 32;

/// Copies items; keeps the places of the members that it is about to sort.
#[derive(Debug, Default)]
pub(super) struct Items<'a> {
    members: Vec<Member<'a>>,
    sorted: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    name: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Items<'a> {
    /// Copies the attributes of an item: `{"name":{"S":"text"},…}`.
    pub(super) fn copy(&mut self, scan: &mut Scan<'a>, out: &mut Vec<u8>) -> Option<()> {
        self.map(scan, out, DEEPEST)
    }

    fn map(&mut self, scan: &mut Scan<'a>, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let first = self.members.len();
        out.push(b'{');
        let start = out.len();
        let mut is_sorted = true;
        scan.object(|scan, name| {
            if !is_written_so(name.as_bytes()) {
                return None;
            }
            if let Some(before) = self.members.get(first..)?.last() {
                is_sorted &= before.name < name;
                out.push(b',');
            }
            let start = out.len();
            push_quoted(out, name.as_bytes());
            out.push(b':');
            self.value(scan, out, depth)?;
            self.members.push(Member { name, start, end: out.len() });
            Some(())
        })?;
        if !is_sorted {
            self.sort(first, start, out)?;
        }
        self.members.truncate(first);
        out.push(b'}');
        Some(())
    }

    /// Sorts the members from `first` on, whose text begins at `start`. What is there twice does not occur.
    fn sort(&mut self, first: usize, start: usize, out: &mut Vec<u8>) -> Option<()> {
        let members = self.members.get_mut(first..)?;
        members.sort_unstable_by_key(|member| member.name);
        if members.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return None;
        }
        self.sorted.clear();
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.sorted.push(b',');
            }
            self.sorted.extend_from_slice(out.get(member.start..member.end)?);
        }
        out.truncate(start);
        out.extend_from_slice(&self.sorted);
        Some(())
    }

    /// Copies `{"S":"text"}`.
    fn value(&mut self, scan: &mut Scan<'a>, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let mut is_first = true;
        scan.object(|scan, kind| {
            if !std::mem::take(&mut is_first) {
                return None;
            }
            out.push(b'{');
            push_quoted(out, kind.as_bytes());
            out.push(b':');
            match kind {
                "S" | "N" => copy_text(scan, out),
                "B" => copy_binary(scan, out),
                "BOOL" | "NULL" => {
                    out.extend_from_slice(if scan.boolean()? { b"true" } else { b"false" });
                    Some(())
                }
                "SS" | "NS" => copy_array(scan, out, copy_text),
                "BS" => copy_array(scan, out, copy_binary),
                "M" => self.map(scan, out, depth),
                "L" => {
                    let depth = depth.checked_sub(1)?;
                    copy_array(scan, out, |scan, out| self.value(scan, out, depth))
                }
                _ => None,
            }?;
            out.push(b'}');
            Some(())
        })?;
        // An empty object has no type.
        (!is_first).then_some(())
    }
}

fn copy_array<'a>(
    scan: &mut Scan<'a>,
    out: &mut Vec<u8>,
    mut copy: impl FnMut(&mut Scan<'a>, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    out.push(b'[');
    let mut is_first = true;
    scan.array(|scan| {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        copy(scan, out)
    })?;
    out.push(b']');
    Some(())
}

fn copy_text(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Option<()> {
    let text = scan.string()?;
    push_text(scan, &text, out)
}

/// A string, written as the event has it.
pub(super) fn push_text<'a>(scan: &Scan<'a>, text: &Text<'a>, out: &mut Vec<u8>) -> Option<()> {
    if is_written_so(text.raw) {
        std::str::from_utf8(text.raw).ok()?;
        push_quoted(out, text.raw);
    } else {
        out.push(b'"');
        push_escaped(out, &text.unescaped(scan)?);
        out.push(b'"');
    }
    Some(())
}

fn copy_binary(scan: &mut Scan<'_>, out: &mut Vec<u8>) -> Option<()> {
    push_quoted(out, scan.base64()?.raw);
    Some(())
}

fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}
