//! Tests that most records which do not match fail at once, by searching their text.

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

use super::operator::{Rule, Rules, TextRule};
use super::scan::{self, Scalar};
use super::tree::{Node, Object};

/// Texts that are in every record which fulfils the conditions, unless the record writes them with escapes.
#[derive(Clone, Debug, Default)]
pub(super) struct Literals(Vec<Literal>);

#[derive(Clone, Debug)]
enum Literal {
    /// One of these texts is there: a member's key, or a value that its rules ask for.
    Text(Vec<Finder<'static>>),
    /// Behind one of the places of this key is a value for which the rules hold. Of the value at such a
    /// place, as much is judged as can be judged in passing.
    Member(Box<(Finder<'static>, Rules)>),
}

/// Searching for more texts costs more than looking at the record.
const MOST_VALUES: usize = 3;
const MOST: usize = 6;

impl Literals {
    pub(super) fn of(wanted: &Node) -> Self {
        let mut found = Vec::new();
        collect_below(wanted, &mut found);
        // Values first: keys are what most records have in common.
        found.sort_by_key(|(rank, _)| *rank);
        found.truncate(MOST);
        Self(found.into_iter().map(|(_, literal)| literal).collect())
    }

    /// Whether this JSON text cannot fulfil the conditions; `false` proves nothing.
    pub(super) fn rule_out(&self, json: &[u8]) -> bool {
        let missing = |literal: &Literal| match literal {
            Literal::Text(texts) => texts.iter().all(|text| text.find(json).is_none()),
            Literal::Member(member) => {
                let (key, rules) = &**member;
                !key.find_iter(json).any(|at| {
                    let value = scan::member_value(json, at + key.needle().len());
                    value.is_some_and(|value| may_hold(rules, json, value))
                })
            }
        };
        self.0.iter().any(missing) && !may_hide_characters(json)
    }
}

/// Judges scalars only: to go through an array at each of many places could take long.
fn may_hold(rules: &Rules, json: &[u8], value: usize) -> bool {
    match json.get(value) {
        Some(b'{') => false,
        Some(b'[') => true,
        _ => scan::scalar_at(json, value).is_some_and(|value: Scalar<'_>| rules.hold_for(value)),
    }
}

/// Whether ordinary characters may be written as `\u` escapes or as `\/`. The other escapes stand for characters that
/// no literal contains.
fn may_hide_characters(json: &[u8]) -> bool {
    let Some(first) = memchr(b'\\', json) else { return false };
    let rest = &json[first..];
    memchr_iter(b'\\', rest).any(|at| matches!(rest.get(at + 1), Some(b'u' | b'/')))
}

/// A literal, and which come first.
type Ranked = (u8, Literal);

fn collect(object: &Object, found: &mut Vec<Ranked>) {
    for (name, node) in &object.members {
        // What need not exist requires nothing.
        if node.without_value().is_fulfilled() {
            continue;
        }
        if let Some(key) = quoted(name) {
            let key = Finder::new(&key).into_owned();
            match node.rules.as_ref().filter(|rules| !rules.absent) {
                Some(rules) => found.push((1, Literal::Member(Box::new((key, rules.clone()))))),
                None => found.push((2, Literal::Text(vec![key]))),
            }
        }
        collect_below(node, found);
    }
}

fn collect_below(node: &Node, found: &mut Vec<Ranked>) {
    if let Some(texts) = node.rules.as_ref().and_then(texts) {
        let finders = texts.iter().map(|text| Finder::new(text).into_owned()).collect();
        found.push((0, Literal::Text(finders)));
    }
    if let Some(object) = &node.object {
        collect(object, found);
    }
}

/// A text that one of the rules needs there; `None` if one of them may need nothing of the sort.
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
