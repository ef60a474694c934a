//! From a pattern's text to its combinations of conditions.
//!
//! The grammar is that of EventBridge's content patterns, within what Lambda documents for event source mappings (AWS
//! pages "Control which events Lambda sends to your function" and "Content filtering in Amazon EventBridge event
//! patterns"). `$or` is multiplied out, so that what is evaluated knows only "and".

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::FilterSource;
use super::cidr::Block;
use super::error::FilterErrorKind;
use super::number::Number;
use super::operator::{Excluded, Range, Rule, Rules, TextRule};

/// A field's keys, from the outside in.
pub(super) type Path = Vec<String>;

/// Conditions that must all hold.
pub(super) type Combination = BTreeMap<Path, Rules>;

/// Deeper patterns are refused. 4,096 characters would allow about 800.
const MAXIMUM_DEPTH: usize = 100;

/// Operators, which Lambda does not take for field names inside `$or`.
const RESERVED: [&str; 14] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "=",
    "<",
    "<=",
    ">",
    ">=",
];

const RULE_FORM: &str =
    "write a string, a number, true, false, null or an object such as {\"prefix\": \"a\"}";
const OPERATORS: &str = "permitted: prefix, suffix, equals-ignore-case, anything-but, numeric, cidr, exists";
const NUMERIC_FORM: &str = "write [\"=\", 5], one limit as in [\">\", 0] or [\"<=\", 9], or the lower and then the upper as in [\">\", 0, \"<=\", 9]";

/// A mistake, without the pattern's place in the list.
pub(super) struct Mistake {
    pub(super) kind: FilterErrorKind,
    pub(super) path: Path,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

type Result<T> = std::result::Result<T, Mistake>;

/// The combinations of which one must hold for the pattern to match.
pub(super) fn combinations(text: &str, source: &FilterSource, most: usize) -> Result<Vec<Combination>> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| Mistake {
        kind: FilterErrorKind::NotJson,
        path: Path::new(),
        problem: format!("the pattern is not JSON: {error}"),
        remedy: "write one JSON object, such as {\"data\": {\"kind\": [\"order\"]}}",
    })?;
    let mut parser = Parser { path: Path::new(), kinesis: source.is_kinesis(), most };
    if !raw.get().starts_with('{') {
        return Err(parser.form("the pattern is not a JSON object", "write {\"field\": [\"value\"]}"));
    }
    parser.object(raw, vec![Combination::new()], false)
}

struct Parser {
    /// Where the parser is.
    path: Path,
    kinesis: bool,
    most: usize,
}

impl Parser {
    fn mistake(&self, kind: FilterErrorKind, problem: impl Into<String>, remedy: &'static str) -> Mistake {
        Mistake { kind, path: self.path.clone(), problem: problem.into(), remedy }
    }

    fn form(&self, problem: impl Into<String>, remedy: &'static str) -> Mistake {
        self.mistake(FilterErrorKind::InvalidForm, problem, remedy)
    }

    /// Reads one level; what is below stays text. Of two equal keys the last one counts (R58).
    fn read<'a, T: serde::Deserialize<'a>>(&self, raw: &'a RawValue) -> Result<T> {
        serde_json::from_str(raw.get()).map_err(|error| {
            self.mistake(FilterErrorKind::NotJson, format!("is not JSON: {error}"), "correct the text")
        })
    }

    /// Adds an object's conditions to each of the combinations so far.
    fn object(
        &mut self,
        raw: &RawValue,
        so_far: Vec<Combination>,
        within_or: bool,
    ) -> Result<Vec<Combination>> {
        if self.path.len() >= MAXIMUM_DEPTH {
            return Err(self.form("nests more than 100 deep", "name fields of less depth"));
        }
        let members: BTreeMap<String, &RawValue> = self.read(raw)?;
        if members.is_empty() {
            return Err(
                self.form("an object without fields is not permitted", "name a field or leave it out")
            );
        }
        let mut combinations = so_far;
        for (key, value) in members {
            if key == "$or" {
                combinations = self.or(value, &combinations)?;
                continue;
            }
            if within_or && RESERVED.contains(&key.as_str()) {
                let problem = format!("{key:?} is an operator, not the name of a field, inside $or");
                return Err(self.form(problem, "write {\"field\": [{\"operator\": ...}]}"));
            }
            self.path.push(key);
            combinations = self.field(value, combinations, within_or)?;
            self.path.pop();
        }
        Ok(combinations)
    }

    fn field(
        &mut self,
        value: &RawValue,
        mut so_far: Vec<Combination>,
        within_or: bool,
    ) -> Result<Vec<Combination>> {
        let is_object = value.get().starts_with('{');
        if self.kinesis && self.path.len() == 1 {
            self.kinesis_field(is_object)?;
        }
        if is_object {
            return self.object(value, so_far, within_or);
        }
        if !value.get().starts_with('[') {
            let remedy = "write its values as a list, such as [\"value\"]";
            return Err(self.form("a field has an object or a list of rules, nothing else", remedy));
        }
        let rules = self.rules(value)?;
        for combination in &mut so_far {
            if combination.insert(self.path.clone(), rules.clone()).is_some() {
                let problem = "has two conditions that would both have to hold";
                let remedy = "write one list, or the field only inside $or";
                return Err(self.mistake(FilterErrorKind::Twice, problem, remedy));
            }
        }
        Ok(so_far)
    }

    /// R57, R58.
    fn kinesis_field(&self, is_object: bool) -> Result<()> {
        match self.path.first().map(String::as_str) {
            Some("data") if !is_object => {
                let problem = "the data of Kinesis records is filtered as JSON, by an object of its fields";
                Err(self.form(problem, "write {\"data\": {\"field\": [\"value\"]}}"))
            }
            Some("kinesis") => {
                let problem = "is no field: partitionKey, sequenceNumber and the others are next to data";
                let remedy = "take them out of the kinesis object";
                Err(self.mistake(FilterErrorKind::UnknownField, problem, remedy))
            }
            _ => Ok(()),
        }
    }

    fn or(&mut self, value: &RawValue, so_far: &[Combination]) -> Result<Vec<Combination>> {
        let remedy = "write {\"$or\": [{\"a\": [1]}, {\"b\": [2]}]}";
        if !value.get().starts_with('[') {
            return Err(self.form("$or has a list of objects, nothing else", remedy));
        }
        let branches: Vec<&RawValue> = self.read(value)?;
        if branches.len() < 2 {
            return Err(self.form("$or needs at least two objects", remedy));
        }
        let mut all = Vec::new();
        for branch in branches {
            if !branch.get().starts_with('{') {
                return Err(self.form("$or has a list of objects, nothing else", remedy));
            }
            all.extend(self.object(branch, so_far.to_vec(), true)?);
            if all.len() > self.most {
                let problem = format!("$or makes more than {} combinations of fields", self.most);
                let remedy = "use fewer alternatives, or several values in one list";
                return Err(self.mistake(FilterErrorKind::TooManyCombinations, problem, remedy));
            }
        }
        Ok(all)
    }

    fn rules(&mut self, value: &RawValue) -> Result<Rules> {
        let items: Vec<&RawValue> = self.read(value)?;
        if items.is_empty() {
            return Err(self.form("an empty list holds for nothing", "name a value; null is [null]"));
        }
        let mut rules = Rules::default();
        for item in items {
            match item.get().as_bytes().first() {
                Some(b'{') => self.operator(item, &mut rules)?,
                Some(b'[') => return Err(self.form("a list inside a list is not a rule", RULE_FORM)),
                Some(b'"') => {
                    let text: Box<str> = self.read(item)?;
                    rules.values.push(Rule::Text(TextRule::Equals(text)));
                }
                Some(b'n') => rules.values.push(Rule::Null),
                Some(b't' | b'f') => rules.values.push(Rule::Bool(item.get() == "true")),
                _ => rules.values.push(Rule::Number(Number::new(item.get()))),
            }
        }
        Ok(rules)
    }

    fn operator(&mut self, item: &RawValue, rules: &mut Rules) -> Result<()> {
        let (name, operand) = self.single(item)?;
        let rule = match name.as_str() {
            "exists" => {
                match operand.get() {
                    "true" => rules.exists = true,
                    "false" => rules.absent = true,
                    _ => return Err(self.form("exists is true or false", "write {\"exists\": true}")),
                }
                return Ok(());
            }
            "prefix" | "suffix" => Rule::Text(self.end_of_text(&name, operand)?),
            "equals-ignore-case" => {
                Rule::Text(TextRule::EqualsIgnoreCase(self.text("equals-ignore-case", operand)?))
            }
            "numeric" => self.numeric(operand)?,
            "cidr" => self.cidr(operand)?,
            "anything-but" => Rule::AnythingBut(self.anything_but(operand)?),
            _ => return Err(self.unknown(&name)),
        };
        rules.values.push(rule);
        Ok(())
    }

    fn unknown(&self, name: &str) -> Mistake {
        let problem = match name {
            "wildcard" => {
                format!("{name} is EventBridge's; Lambda's filters of event source mappings do not have it")
            }
            _ => format!("there is no operator {name:?}"),
        };
        self.mistake(FilterErrorKind::UnknownOperator, problem, OPERATORS)
    }

    /// The one member of an operator's object.
    fn single<'a>(&self, item: &'a RawValue) -> Result<(String, &'a RawValue)> {
        let mut members: BTreeMap<String, &'a RawValue> = self.read(item)?;
        match (members.pop_first(), members.is_empty()) {
            (Some(member), true) => Ok(member),
            _ => Err(self.form("a rule's object has exactly one operator", "write one object for each")),
        }
    }

    fn text(&self, operator: &str, operand: &RawValue) -> Result<Box<str>> {
        if operand.get().starts_with('"') {
            return self.read(operand);
        }
        Err(self.form(format!("{operator} takes a string"), "put the text in quotes"))
    }

    fn cidr(&self, operand: &RawValue) -> Result<Rule> {
        let text = self.text("cidr", operand)?;
        let block = Block::parse(&text).ok_or_else(|| {
            self.form(format!("{text:?} is no block of addresses"), "write {\"cidr\": \"10.0.0.0/8\"}")
        })?;
        Ok(Rule::Text(TextRule::AddressIn(block)))
    }

    /// `prefix` and `suffix`, each also with `equals-ignore-case` inside.
    fn end_of_text(&self, name: &str, operand: &RawValue) -> Result<TextRule> {
        if !operand.get().starts_with('{') {
            let text = self.text(name, operand)?;
            return Ok(if name == "prefix" { TextRule::Prefix(text) } else { TextRule::Suffix(text) });
        }
        let (inner, operand) = self.single(operand)?;
        if inner != "equals-ignore-case" {
            let remedy = "only equals-ignore-case is permitted there";
            return Err(self.mistake(
                FilterErrorKind::UnknownOperator,
                format!("{name} does not take {inner:?}"),
                remedy,
            ));
        }
        let text = self.text("equals-ignore-case", operand)?;
        Ok(if name == "prefix" { TextRule::PrefixIgnoreCase(text) } else { TextRule::SuffixIgnoreCase(text) })
    }

    fn anything_but(&self, operand: &RawValue) -> Result<Excluded> {
        let remedy = "write a string or a number, or a list of only strings or only numbers";
        match operand.get().as_bytes().first() {
            Some(b'{') => self.anything_but_operator(operand),
            Some(b'"') => Ok(Excluded::Texts(vec![TextRule::Equals(self.read(operand)?)])),
            Some(b'-' | b'0'..=b'9') => Ok(Excluded::Numbers(vec![Number::new(operand.get())])),
            Some(b'[') => {
                let items: Vec<&RawValue> = self.read(operand)?;
                let all = |first: &[u8]| {
                    let fits =
                        |item: &&RawValue| item.get().bytes().next().is_some_and(|b| first.contains(&b));
                    !items.is_empty() && items.iter().all(fits)
                };
                if all(b"\"") {
                    let texts = items.iter().map(|item| self.read(item).map(TextRule::Equals));
                    return Ok(Excluded::Texts(texts.collect::<Result<_>>()?));
                }
                if all(b"-0123456789") {
                    return Ok(Excluded::Numbers(items.iter().map(|item| Number::new(item.get())).collect()));
                }
                Err(self.form("this list cannot be excluded by anything-but", remedy))
            }
            _ => Err(self.form("this cannot be excluded by anything-but", remedy)),
        }
    }

    fn anything_but_operator(&self, operand: &RawValue) -> Result<Excluded> {
        let (name, operand) = self.single(operand)?;
        let rule = match name.as_str() {
            "prefix" => TextRule::Prefix,
            "suffix" => TextRule::Suffix,
            "equals-ignore-case" => TextRule::EqualsIgnoreCase,
            _ => {
                let remedy = "permitted: prefix, suffix, equals-ignore-case";
                let problem = format!("anything-but does not take {name:?}");
                return Err(self.mistake(FilterErrorKind::UnknownOperator, problem, remedy));
            }
        };
        let items: Vec<&RawValue> = match operand.get().starts_with('[') {
            true => self.read(operand)?,
            false => vec![operand],
        };
        if items.is_empty() {
            return Err(self.form("an empty list excludes nothing", "name what is excluded"));
        }
        let text = |item: &RawValue| {
            let text = self.text(&name, item)?;
            if text.is_empty() && name != "equals-ignore-case" {
                let problem = format!("an empty {name} would exclude every text");
                return Err(self.form(problem, "write at least one character"));
            }
            Ok(rule(text))
        };
        Ok(Excluded::Texts(items.into_iter().map(text).collect::<Result<_>>()?))
    }

    fn numeric(&self, operand: &RawValue) -> Result<Rule> {
        let wrong = |problem: &str| self.form(problem, NUMERIC_FORM);
        if !operand.get().starts_with('[') {
            return Err(wrong("numeric takes a list"));
        }
        let terms: Vec<&RawValue> = self.read(operand)?;
        let (pairs, rest) = terms.as_chunks::<2>();
        if pairs.is_empty() || !rest.is_empty() || pairs.len() > 2 {
            return Err(wrong("numeric takes one or two pairs of a comparison and a number"));
        }
        let mut range = Range::default();
        for (index, [sign, limit]) in pairs.iter().enumerate() {
            if !matches!(limit.get().as_bytes().first(), Some(b'-' | b'0'..=b'9')) {
                return Err(wrong("numeric compares with numbers only"));
            }
            let number = Number::new(limit.get());
            match (sign.get(), index) {
                ("\"=\"", 0) if pairs.len() == 1 => return Ok(Rule::Number(number)),
                ("\">\"", 0) => range.from = Some((number, false)),
                ("\">=\"", 0) => range.from = Some((number, true)),
                ("\"<\"", _) if index + 1 == pairs.len() => range.to = Some((number, false)),
                ("\"<=\"", _) if index + 1 == pairs.len() => range.to = Some((number, true)),
                _ => return Err(wrong("these comparisons make no range")),
            }
        }
        if let (Some((from, _)), Some((to, _))) = (&range.from, &range.to)
            && from >= to
        {
            return Err(wrong("the lower limit is not below the upper one"));
        }
        Ok(Rule::Range(range))
    }
}
