//! `${VAR}` and `${VAR:-default}` in values; `$${` is a literal `${`.
//!
//! The values are filled in after the file is parsed, so that a variable can never add a key.

/// Looks a variable up.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `text` with its variables filled in, or `None` if there is none.
pub(super) fn expand(text: &str, environment: Environment<'_>) -> Result<Option<String>, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut replaced = false;
    while let Some(at) = rest.find("${") {
        let (before, tail) = rest.split_at(at);
        let inner = tail.get(2..).unwrap_or_default();
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = inner;
            continue;
        }
        out.push_str(before);
        let Some((reference, after)) = inner.split_once('}') else {
            return Err("has ${ without }; write $${ for a literal ${".to_owned());
        };
        out.push_str(&lookup(reference, environment)?);
        replaced = true;
        rest = after;
    }
    out.push_str(rest);
    // A rewritten $${ alone changes the text, too.
    Ok((replaced || out != text).then_some(out))
}

fn lookup(reference: &str, environment: Environment<'_>) -> Result<String, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts_well || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("${{{reference}}} names no variable; write ${{NAME}} or ${{NAME:-default}}"));
    }
    match (environment(name), default) {
        // As in a shell, :- also replaces an empty value.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment variable {name} is not set; set it or write ${{{name}:-default}}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_environment(text: &str) -> Result<Option<String>, String> {
        expand(text, &|name| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_defaults_and_literals_are_told_apart() {
        let text = |t: &str| in_environment(t).unwrap();
        assert_eq!(text("plain $ text $A {A}"), None);
        assert_eq!(text("${A}").as_deref(), Some("1"));
        assert_eq!(text("x${A}y${A}").as_deref(), Some("x1y1"));
        assert_eq!(text("${B:-2}").as_deref(), Some("2"));
        assert_eq!(text("${B:-}").as_deref(), Some(""));
        assert_eq!(text("${EMPTY:-2}").as_deref(), Some("2"));
        assert_eq!(text("${EMPTY}").as_deref(), Some(""));
        assert_eq!(text("$${A} ${A}").as_deref(), Some("${A} 1"));
        assert_eq!(text("é${A}é").as_deref(), Some("é1é"));
    }

    #[test]
    fn an_unset_or_malformed_variable_is_an_error() {
        for bad in ["${B}", "${A", "${}", "${1A}", "${A B}", "${:-x}"] {
            assert!(in_environment(bad).is_err(), "{bad}");
        }
    }
}
