//! A combination of conditions in the shape of the records, and whether a record's JSON fulfils it.

use super::operator::Rules;
use super::pattern::Combination;
use super::scan::{Element, Elements, Members, RawText, Scalar};

/// What is asked of an object: something of each of these members.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    pub(super) members: Vec<(Box<str>, Node)>,
}

/// What is asked of a member.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) rules: Option<Rules>,
    pub(super) object: Option<Object>,
}

/// Whether a condition is fulfilled, and whether by something that is there.
///
/// Conditions below one array must be fulfilled by the same element, as in AWS's engine. What is there ties them to its
/// element; what is asked not to exist, alone, must not exist in any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    No,
    /// By what is not there, only.
    ByAbsence,
    Yes,
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            _ => Self::ByAbsence,
        }
    }

    pub(super) fn is_fulfilled(self) -> bool {
        self != Self::No
    }
}

/// Objects with up to this many members are looked up without an allocation.
const FEW: usize = 8;
const NOT_FOUND: usize = usize::MAX;

impl Object {
    pub(super) fn new(combination: &Combination) -> Self {
        let mut root = Node::default();
        for (path, rules) in combination {
            let node = path.iter().fold(&mut root, |node, key| {
                let members = &mut node.object.get_or_insert_default().members;
                let at = members.iter().position(|(name, _)| **name == **key).unwrap_or_else(|| {
                    members.push((key.as_str().into(), Node::default()));
                    members.len() - 1
                });
                &mut members[at].1
            });
            node.rules = Some(rules.clone());
        }
        root.object.unwrap_or_default()
    }

    /// What is asked of the member `name`, which is then asked no more.
    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        let at = self.members.iter().position(|(key, _)| **key == *name)?;
        Some(self.members.remove(at).1)
    }

    fn without_value(&self) -> Outcome {
        self.members.iter().fold(Outcome::ByAbsence, |all, (_, node)| all.and(node.without_value()))
    }

    /// Of the object whose opening brace is at `at`.
    pub(super) fn fulfilled_by(&self, bytes: &[u8], at: usize) -> Outcome {
        let mut few = [NOT_FOUND; FEW];
        let mut many;
        let found = match few.get_mut(..self.members.len()) {
            Some(few) => few,
            None => {
                many = vec![NOT_FOUND; self.members.len()];
                many.as_mut_slice()
            }
        };
        for (key, value) in Members::new(bytes, at) {
            for ((name, _), place) in self.members.iter().zip(found.iter_mut()) {
                if key.is(name.as_bytes()) {
                    // Of two equal keys the last one counts (R58).
                    *place = value;
                }
            }
        }
        let mut outcome = Outcome::ByAbsence;
        for ((_, node), place) in self.members.iter().zip(found.iter()) {
            let one = match *place {
                NOT_FOUND => node.without_value(),
                at => node.fulfilled_by(bytes, at),
            };
            outcome = outcome.and(one);
            if outcome == Outcome::No {
                break;
            }
        }
        outcome
    }
}

impl Node {
    /// Where the member does not exist.
    pub(super) fn without_value(&self) -> Outcome {
        let rules = self.rules.as_ref().map_or(Outcome::ByAbsence, |rules| match rules.absent {
            true => Outcome::ByAbsence,
            false => Outcome::No,
        });
        self.object.as_ref().map_or(rules, |object| rules.and(object.without_value()))
    }

    /// Where the member is this one value.
    pub(super) fn fulfilled_by_scalar(&self, value: Scalar<'_>) -> Outcome {
        let rules = self.rules.as_ref().map_or(Outcome::ByAbsence, |rules| match rules.hold_for(value) {
            true => Outcome::Yes,
            false => Outcome::No,
        });
        self.object.as_ref().map_or(rules, |object| rules.and(object.without_value()))
    }

    pub(super) fn fulfilled_by_text(&self, text: &str) -> Outcome {
        self.fulfilled_by_scalar(Scalar::Text(RawText::plain(text)))
    }

    /// Where the member is the value at `at`: itself, or what its arrays contain.
    pub(super) fn fulfilled_by(&self, bytes: &[u8], at: usize) -> Outcome {
        let (mut scalars, mut objects) = (false, false);
        let mut rules_hold = false;
        // The best of the objects, and whether the others differ from it.
        let mut best = Outcome::No;
        let mut all_by_absence = true;
        for element in Elements::new(bytes, at) {
            match element {
                Element::Scalar(value) => {
                    scalars = true;
                    rules_hold = rules_hold || self.rules.as_ref().is_some_and(|rules| rules.hold_for(value));
                }
                Element::Object(at) => {
                    objects = true;
                    if let Some(object) = &self.object
                        && best != Outcome::Yes
                    {
                        best = object.fulfilled_by(bytes, at);
                        all_by_absence &= best == Outcome::ByAbsence;
                    }
                }
            }
            let enough = |met: bool, asked: bool| met || !asked;
            if enough(rules_hold, self.rules.is_some()) && enough(best == Outcome::Yes, self.object.is_some())
            {
                return Outcome::Yes;
            }
        }
        let of_rules = self.rules.as_ref().map_or(Outcome::ByAbsence, |rules| match (rules_hold, scalars) {
            (true, _) => Outcome::Yes,
            // Only leaves exist: an object there does not (R60).
            (false, false) if rules.absent => Outcome::ByAbsence,
            _ => Outcome::No,
        });
        let of_objects = self.object.as_ref().map_or(Outcome::ByAbsence, |object| match (best, objects) {
            (Outcome::Yes, _) => Outcome::Yes,
            (_, false) => object.without_value(),
            (_, true) if all_by_absence => Outcome::ByAbsence,
            _ => Outcome::No,
        });
        of_rules.and(of_objects)
    }
}
