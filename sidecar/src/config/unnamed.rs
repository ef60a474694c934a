//! Messages without the values of variables: they may be secrets, and an error is copied into issues and logs.

use std::cell::RefCell;

use super::error::ConfigError;
use super::vars::Environment;

/// Shorter values are words and numbers that a message may have of its own.
const SHORTEST: usize = 4;

/// So much of a value is looked for: messages shorten what is long.
const BEGINNING: usize = 16;

/// The variables that a file uses.
#[derive(Default)]
pub(super) struct Seen(RefCell<Vec<(String, String)>>);

impl Seen {
    /// Looks a variable up, and keeps its value.
    pub(super) fn look_up(&self, environment: Environment<'_>, name: &str) -> Option<String> {
        let value = environment(name)?;
        if value.chars().count() >= SHORTEST {
            self.0.borrow_mut().push((name.to_owned(), value.clone()));
        }
        Some(value)
    }

    /// Writes the variables' names where the messages have their values.
    pub(super) fn hide(&self, errors: &mut [ConfigError]) {
        let mut seen = self.0.borrow().clone();
        // One may be part of another.
        seen.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        seen.dedup();
        for error in errors {
            for (name, value) in &seen {
                error.message = without(&error.message, name, value);
            }
        }
    }
}

fn without(message: &str, name: &str, value: &str) -> String {
    let end = value.char_indices().nth(BEGINNING).map_or(value.len(), |(end, _)| end);
    let beginning = value.get(..end).unwrap_or(value);
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(beginning) {
        out.push_str(before);
        out.push_str(&format!("${{{name}}}"));
        let more = value.get(end..).unwrap_or_default();
        let same = more.chars().zip(after.chars()).take_while(|(one, other)| one == other);
        let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
        rest = after.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_replaced_by_its_variables_name_also_where_it_is_shortened() {
        let long = "a secret that is long enough to be shortened";
        assert_eq!(without("x hunter2 hunter2y", "S", "hunter2"), "x ${S} ${S}y");
        assert_eq!(without(&format!("{long} is wrong"), "S", long), "${S} is wrong");
        assert_eq!(without("a secret that is long e… is wrong", "S", long), "${S}… is wrong");
        assert_eq!(without("nothing of it", "S", long), "nothing of it");
    }
}
