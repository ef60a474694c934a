//! A test that most records which do not match fail at once: texts that every matching record contains.

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

use super::operator::{Rule, Rules, TextRule};
use super::tree::{Node, Object};

/// For each of these, one of its texts stands in every record that fulfils the conditions, unless the record writes it
/// with escapes.
#[derive(Clone, Debug, Default)]
pub(super) struct Literals(Vec<Vec<Finder<'static>>>);

/// Searching for many texts costs more than looking at the record.
const MOST_VALUES: usize = 3;
const MOST: usize = 4;

impl Literals {
    pub(super) fn of(wanted: &Node) -> Self {
        let mut found = Vec::new();
        collect_below(wanted, &mut found);
        // Longer texts are rarer, and values are rarer than keys, which most records have in common.
        found.sort_by_key(|(is_key, texts)| {
            (*is_key, std::cmp::Reverse(texts.iter().map(Vec::len).min().unwrap_or(0)))
        });
        found.truncate(MOST);
        let finders = |texts: Vec<Vec<u8>>| texts.iter().map(|text| Finder::new(text).into_owned()).collect();
        Self(found.into_iter().map(|(_, texts)| finders(texts)).collect())
    }

    /// Whether this JSON text cannot fulfil the conditions; `false` says nothing.
    pub(super) fn rule_out(&self, json: &[u8]) -> bool {
        let missing = |texts: &Vec<Finder<'_>>| texts.iter().all(|text| text.find(json).is_none());
        self.0.iter().any(missing) && !may_hide_characters(json)
    }
}

/// Whether ordinary characters may stand there as `\u` escapes or as `\/`. The other escapes stand for characters that
/// no literal contains.
fn may_hide_characters(json: &[u8]) -> bool {
    let Some(first) = memchr(b'\\', json) else { return false };
    let rest = &json[first..];
    memchr_iter(b'\\', rest).any(|at| matches!(rest.get(at + 1), Some(b'u' | b'/')))
}

/// Whether texts are of keys, and the texts of which one must be there.
type Required = (bool, Vec<Vec<u8>>);

fn collect(object: &Object, found: &mut Vec<Required>) {
    for (name, node) in &object.members {
        // What need not exist requires nothing.
        if node.without_value().is_fulfilled() {
            continue;
        }
        if let Some(key) = quoted(name) {
            found.push((true, vec![key]));
        }
        collect_below(node, found);
    }
}

fn collect_below(node: &Node, found: &mut Vec<Required>) {
    if let Some(texts) = node.rules.as_ref().and_then(texts) {
        found.push((false, texts));
    }
    if let Some(object) = &node.object {
        collect(object, found);
    }
}

/// What one of the rules needs to stand there; `None` if one of them may need nothing of the sort.
fn texts(rules: &Rules) -> Option<Vec<Vec<u8>>> {
    if rules.exists || rules.absent || rules.values.len() > MOST_VALUES {
        return None;
    }
    let text = |rule: &Rule| match rule {
        Rule::Text(TextRule::Equals(text)) => quoted(text),
        Rule::Text(TextRule::Prefix(text)) => plain(text).map(|text| [b"\"", text].concat()),
        Rule::Text(TextRule::Suffix(text)) => plain(text).map(|text| [text, b"\""].concat()),
        _ => None,
    };
    rules.values.iter().map(text).collect()
}

fn quoted(text: &str) -> Option<Vec<u8>> {
    plain(text).map(|text| [b"\"", text, b"\""].concat())
}

/// The text's bytes, unless JSON writes some of them only as escapes.
fn plain(text: &str) -> Option<&[u8]> {
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| *byte >= 0x20 && !matches!(byte, b'"' | b'\\')).then_some(bytes)
}
