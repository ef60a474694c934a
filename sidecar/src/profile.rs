//! Whether the AWS configuration files have the profile that `Aws.Profile` names.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is wrong with the profile; `None`: it is there, or the files cannot be read.
///
/// The SDK only lists where it looked for credentials, without the profile's name.
#[must_use]
pub fn missing(profile: &str) -> Option<String> {
    let home = std::env::home_dir();
    let file = |variable: &str, name: &str| {
        let named = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        named.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
    };
    let files = [file("AWS_CONFIG_FILE", "config"), file("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
    let mut known = BTreeSet::new();
    let mut looked = Vec::new();
    for path in files.into_iter().flatten() {
        known.extend(profiles(&std::fs::read_to_string(&path).unwrap_or_default()));
        looked.push(path.display().to_string());
    }
    judge(profile, &known, &looked.join(" and "))
}

fn judge(profile: &str, known: &BTreeSet<String>, looked: &str) -> Option<String> {
    if known.contains(profile) {
        return None;
    }
    let nearest = known.iter().min_by_key(|name| strsim::damerau_levenshtein(profile, name));
    let there = match nearest {
        None => "there is none at all".to_owned(),
        Some(nearest) if strsim::damerau_levenshtein(profile, nearest) <= 2 => {
            format!("did you mean {nearest:?}?")
        }
        Some(_) => format!("there are {}", known.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("there is no profile {profile:?} in {looked}; {there}"))
}

/// The names in the file's headings: `[name]` or `[profile name]`.
fn profiles(text: &str) -> impl Iterator<Item = String> {
    let heading = |line: &str| {
        let inside = line.trim().strip_prefix('[')?.split(']').next()?.trim();
        let name =
            inside.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(inside);
        Some(name.trim().trim_matches(['"', '\'']).to_owned())
    };
    text.lines()
        .filter_map(heading)
        .filter(|name| !name.starts_with("sso-session "))
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_106_a_mistyped_profile_is_named_with_the_nearest_one() {
        let text =
            "[default]\nregion = x\n[ profile staging ]\n# [profile no]\n[sso-session one]\n[prod] ; here\n";
        let known: BTreeSet<String> = profiles(text).collect();
        assert_eq!(known.iter().collect::<Vec<_>>(), ["default", "prod", "staging"]);
        assert_eq!(judge("staging", &known, "~/.aws/config"), None);
        let mistyped = judge("stagnig", &known, "~/.aws/config").unwrap();
        assert_eq!(mistyped, "there is no profile \"stagnig\" in ~/.aws/config; did you mean \"staging\"?");
        assert!(judge("elsewhere", &known, "f").unwrap().ends_with("there are default, prod, staging"));
        assert!(judge("a", &BTreeSet::new(), "f").unwrap().ends_with("there is none at all"));
    }
}
