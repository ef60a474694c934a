//! What code and documents cite is in the repository: rules, parameters and invariants by number, incidents, decisions,
//! sections, files, and anchors of links.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

const SEMANTICS: &str = "docs/semantics.md";
const INVARIANTS: &str = "docs/invariants.md";
const INCIDENTS: &str = "docs/incidents.md";
const READ: [&str; 6] = ["rs", "md", "toml", "yml", "sh", "py"];
/// Endings by which a word with a slash is taken for a file of this repository.
const FILES: [&str; 9] = [".rs", ".md", ".toml", ".yml", ".yaml", ".sh", ".py", ".patch", ".snap"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Citation {
    /// R24, R3a, P5, I10.
    Number(String),
    Incident(String),
    Decision(String),
    /// A section's number and the document that is named before it, if one is.
    Section(Option<String>, String),
    File(String),
    Link(String),
}

impl fmt::Display for Citation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(text) | Self::File(text) | Self::Link(text) => f.write_str(text),
            Self::Incident(number) => write!(f, "incident {number}"),
            Self::Decision(number) => write!(f, "ADR {number}"),
            Self::Section(_, number) => write!(f, "section {number}"),
        }
    }
}

/// What is read as one: a paragraph, a row of a table, a run of comment lines. Its lines end with a line feed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Piece {
    line: usize,
    text: String,
}

/// The paragraphs and rows of a Markdown document, without its blocks of code.
fn paragraphs(text: &str) -> Vec<Piece> {
    let (mut pieces, mut code) = (vec![Piece::default()], false);
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        if fence || code || line.trim().is_empty() || line.starts_with(['|', '#']) {
            pieces.push(Piece::default());
        }
        if !fence && !code {
            append(&mut pieces, index + 1, line);
        }
    }
    pieces
}

/// The comments of a file whose comments begin with `mark`.
fn comments(text: &str, mark: &str) -> Vec<Piece> {
    let mut pieces = vec![Piece::default()];
    for (index, line) in text.lines().enumerate() {
        let trailing = || {
            let (code, comment) = line.split_once(&format!(" {mark} "))?;
            // An odd number of quotes: the mark is inside a string.
            code.matches('"').count().is_multiple_of(2).then_some(comment)
        };
        match line.trim_start().strip_prefix(mark) {
            Some(comment) => {
                let comment = comment.trim_start_matches(['/', '!', '#']);
                if comment.trim().is_empty() {
                    pieces.push(Piece::default());
                }
                append(&mut pieces, index + 1, comment);
            }
            None => {
                pieces.push(Piece::default());
                append(&mut pieces, index + 1, trailing().unwrap_or_default());
                pieces.push(Piece::default());
            }
        }
    }
    pieces
}

fn append(pieces: &mut [Piece], line: usize, text: &str) {
    let piece = pieces.last_mut().unwrap();
    if piece.text.is_empty() {
        piece.line = line;
    }
    piece.text.push_str(text.trim());
    piece.text.push('\n');
}

/// The number at the start of `text`, with `dots` also one such as 3.5.
fn number(text: &str, dots: bool) -> Option<&str> {
    let digits =
        text.split(|c: char| !(c.is_ascii_digit() || dots && c == '.')).next()?.trim_end_matches('.');
    (!digits.is_empty()).then_some(digits)
}

/// "15", "3.5, 3.7 and 3.9", "9 to 20".
fn numbers(mut text: &str, dots: bool) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(digits) = number(text, dots) {
        found.push(digits.to_owned());
        let rest = &text[digits.len()..];
        let mut separators = [", and ", ", ", " and ", " to "].iter();
        let Some(next) = separators.find_map(|s| rest.strip_prefix(s)) else { break };
        text = next;
    }
    found
}

/// Whether `word` is the number of a rule, a parameter or an invariant, of any size that one may have. P50 and more
/// are percentiles; i32, i64 and i128 in a name are types.
fn is_number(word: &str) -> bool {
    let Some(digits) = word.get(1..).map(|rest| rest.trim_end_matches(['a', 'b', 'c'])) else { return false };
    let Ok(value) = digits.parse::<u32>() else { return false };
    let suffix = word.len() - 1 - digits.len();
    digits.len() <= 3
        && match &word[..1] {
            "R" | "r" => suffix <= 1,
            "P" | "p" => suffix == 0 && value < 50,
            "I" => suffix == 0,
            "i" => suffix == 0 && ![32, 64, 128].contains(&value),
            _ => false,
        }
}

/// What the text of a piece cites, with the place of each in it.
fn in_text(text: &str) -> Vec<(usize, Citation)> {
    let text = &text.replace('\n', " ");
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || "_-./$".contains(c);
    for (at, keyword) in ["incident", "Incident", "ADR", "section", "Section"]
        .into_iter()
        .flat_map(|keyword| text.match_indices(keyword))
        .filter(|(at, _)| !text[..*at].ends_with(is_word))
    {
        let rest = &text[at + keyword.len()..];
        let Some(rest) = rest.strip_prefix("s ").or_else(|| rest.strip_prefix(' ')) else { continue };
        let dots = keyword.ends_with("ection");
        found.extend(numbers(rest, dots).into_iter().map(|number| {
            let citation = match keyword {
                "ADR" => Citation::Decision(number),
                _ if dots => Citation::Section(document_before(&text[..at]), number),
                _ => Citation::Incident(number),
            };
            (at, citation)
        }));
    }
    let mut start = 0;
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c))) {
        let around = [text[..start].chars().next_back(), text[start + word.len()..].chars().next()];
        let is_name = !around.into_iter().flatten().any(|c| "$~{}<>*:@%#".contains(c));
        // What begins with a slash is an absolute path, or a URL behind its scheme.
        if !word.starts_with('/') {
            let parts = word.split(['.', '/', '-']).filter(|part| part.starts_with(['R', 'P', 'I']));
            let ids = parts.filter(|part| is_number(part)).map(|part| Citation::Number(part.to_owned()));
            found.extend(ids.map(|citation| (start, citation)));
            let path = word.trim_end_matches('.');
            let nested = path.contains('/') && FILES.iter().any(|end| path.ends_with(end));
            let bare = path.ends_with(".md") && path.len() > 3;
            // The path of a link is looked at as a link.
            if (nested || bare) && is_name && !text[..start].ends_with("](") {
                found.push((start, Citation::File(path.to_owned())));
            }
        }
        start += word.len() + text[start + word.len()..].chars().next().map_or(0, char::len_utf8);
    }
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split(')').next().unwrap();
        if text[..at].matches('`').count().is_multiple_of(2) && !target.contains(':') {
            found.push((at, Citation::Link(target.to_owned())));
        }
    }
    found
}

/// The document that was named last, or "RFC".
fn document_before(text: &str) -> Option<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let mut words = text.rsplit(|c: char| !is_path(c)).map(|word| word.trim_end_matches('.'));
    words.find(|word| word.ends_with(".md") || *word == "RFC").map(str::to_owned)
}

/// What the name of a function cites: the numbers that it begins with, incidents and sections.
fn in_name(name: &str) -> Vec<Citation> {
    let words: Vec<&str> = name.split('_').collect();
    let joins = |word: &&&str| matches!(**word, "and" | "to");
    let leading = words.iter().filter(|word| !joins(word)).take_while(|word| is_number(word));
    let mut found: Vec<_> =
        leading.map(|word| Citation::Number(word[..1].to_uppercase() + &word[1..])).collect();
    for (index, word) in words.iter().enumerate() {
        let rest = &words[index + 1..];
        if matches!(*word, "incident" | "incidents") {
            let numbers = rest.iter().filter(|word| !joins(word)).map_while(|word| word.parse::<u32>().ok());
            found.extend(numbers.map(|number| Citation::Incident(number.to_string())));
        }
        if let ("section" | "SECTION", [chapter, part, ..]) = (*word, rest)
            && let (Some(chapter), Some(part)) = (number(chapter, false), number(part, false))
        {
            found.push(Citation::Section(Some(SEMANTICS.to_owned()), format!("{chapter}.{part}")));
        }
    }
    found
}

/// Everything that a file cites, by line.
fn citations(path: &str, text: &str) -> Vec<(usize, Citation)> {
    let is_document = path.ends_with(".md");
    let pieces = match path.rsplit('.').next() {
        Some("md") => paragraphs(text),
        Some("rs") => comments(text, "//"),
        _ => comments(text, "#"),
    };
    let mut found = Vec::new();
    for piece in pieces {
        for (at, citation) in in_text(&piece.text) {
            // Links of Rust's documentation lead to items, too.
            if !matches!(&citation, Citation::Link(to) if !is_document && !to.contains(".md")) {
                found.push((piece.line + piece.text[..at].matches('\n').count(), citation));
            }
        }
    }
    for (index, line) in text.lines().enumerate().filter(|_| path.ends_with(".rs")) {
        let name =
            ["fn ", "const "].iter().find_map(|keyword| line.split_once(keyword)).map(|(_, rest)| rest);
        let name = name.and_then(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next());
        found.extend(in_name(name.unwrap_or_default()).into_iter().map(|citation| (index + 1, citation)));
        // A message that begins with what is broken: "I9: ...".
        let heads = line.split('"').skip(1).filter_map(|text| Some(text.split_once(": ")?.0));
        let heads = heads.filter(|head| is_number(head) || head.starts_with("incident "));
        found.extend(heads.flat_map(in_text).map(|(_, citation)| (index + 1, citation)));
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// The anchors of a document on GitHub: those of its headings, and those that it sets.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |title: &str| -> String {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
    };
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let set = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    headings.map(slug).chain(set).collect()
}

/// The repository's files: the paths of all, the texts of those that are read.
#[derive(Default)]
struct Repository {
    paths: BTreeSet<String>,
    texts: BTreeMap<String, String>,
}

impl Repository {
    fn new(texts: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<_, _> =
            texts.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        Self { paths: texts.keys().cloned().collect(), texts }
    }

    fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut repository = Self::default();
        for path in files(root) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|ending| READ.iter().any(|read| ending == *read)) {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
                repository.texts.insert(name.clone(), text);
            }
            repository.paths.insert(name);
        }
        repository
    }

    fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }

    /// What to do about a citation in `file`; nothing if it has a target.
    fn remedy(&self, file: &str, citation: &Citation) -> Option<String> {
        let remedy = |found: bool, text: &str| (!found).then(|| text.to_owned());
        match citation {
            Citation::Number(id) if id.starts_with('I') => {
                let found = anchors(self.text(INVARIANTS)).contains(&id.to_lowercase());
                remedy(
                    found,
                    "no such heading in docs/invariants.md; correct the number or add the invariant",
                )
            }
            Citation::Number(id) => {
                let (rule, part) = id.split_at(id.trim_end_matches(['a', 'b', 'c']).len());
                let anchor = format!("<a id=\"{}\"></a>", rule.to_lowercase());
                let mut rows = self.text(SEMANTICS).lines().filter(|line| line.contains(&anchor));
                let found = rows.any(|row| part.is_empty() || row.contains(&format!("({part})")));
                remedy(found, "no such row in docs/semantics.md; correct the number or add the rule")
            }
            Citation::Incident(number) => {
                let row = format!("| {number} |");
                let found = self.text(INCIDENTS).lines().any(|line| line.starts_with(&row));
                remedy(found, "no such row in docs/incidents.md; correct the number or add the incident")
            }
            Citation::Decision(number) => {
                let start = format!("docs/adr/{number}-");
                let found = self.paths.iter().any(|path| path.starts_with(&start));
                remedy(found, "no such file in docs/adr; correct the number or write the decision")
            }
            Citation::Section(document, number) => {
                let document = document.as_deref().or_else(|| file.ends_with(".md").then_some(file));
                let is_it = |line: &str| {
                    let title = line.trim_start_matches('#').trim_start();
                    line.starts_with('#') && title.split(' ').next() == Some(number.as_str())
                };
                let sections = |document: &str| document == "RFC" || self.text(document).lines().any(is_it);
                let text =
                    "no document that is named before it has this section; write docs/NAME.md, section N";
                remedy(document.is_some_and(sections), text)
            }
            Citation::File(path) => {
                let nested = format!("/{}", path.trim_start_matches("../").trim_start_matches("./"));
                let found = self.paths.iter().any(|known| *known == nested[1..] || known.ends_with(&nested));
                remedy(found, "no such file in the repository; name one that is")
            }
            Citation::Link(link) => self.broken_link(file, link),
        }
    }

    fn broken_link(&self, file: &str, link: &str) -> Option<String> {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let from =
            if path.is_empty() { file } else { file.rsplit_once('/').map_or("", |(folder, _)| folder) };
        let mut target: Vec<&str> = Vec::new();
        for part in from.split('/').chain(path.split('/')).filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                target.pop();
            } else {
                target.push(part);
            }
        }
        let target = target.join("/");
        let folder = format!("{target}/");
        if !self.paths.iter().any(|known| *known == target || known.starts_with(&folder)) {
            return Some(format!("there is no {target}; link what is there"));
        }
        let found = anchor.is_empty() || anchors(self.text(&target)).contains(anchor);
        (!found).then(|| format!("{target} has no anchor #{anchor}; use a heading of it"))
    }

    /// Every citation without a target, as `file:line: citation: remedy`.
    fn problems(&self) -> Vec<String> {
        let cited = self.texts.iter().flat_map(|(file, text)| {
            citations(file, text).into_iter().map(move |(line, citation)| (file, line, citation))
        });
        cited
            .filter_map(|(file, line, citation)| {
                self.remedy(file, &citation).map(|remedy| format!("{file}:{line}: {citation}: {remedy}"))
            })
            .collect()
    }
}

/// Every file below a folder but what is built and what is hidden.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir()
            && name != "target"
            && name != "node_modules"
            && !name.to_string_lossy().starts_with('.')
        {
            found.extend(files(&path));
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            // A link's target is read at its own place.
            found.push(path);
        }
    }
    found
}

#[test]
fn every_citation_leads_somewhere() {
    let repository = Repository::open();
    let cited: usize = repository.texts.iter().map(|(path, text)| citations(path, text).len()).sum();
    assert!(cited > 1_500, "only {cited} citations were found: does the scanner still read everything?");
    let problems = repository.problems();
    assert!(problems.is_empty(), "{} citations lead nowhere:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn rules_parameters_and_invariants_are_all_there_in_order() {
    let repository = Repository::open();
    let numbers = |path: &str, before: &str| -> Vec<u32> {
        let found =
            repository.text(path).lines().filter_map(|line| number(line.strip_prefix(before)?, false));
        found.map(|digits| digits.parse().unwrap()).collect()
    };
    assert_eq!(numbers(SEMANTICS, "| <a id=\"r"), (1..=80).collect::<Vec<_>>());
    assert_eq!(numbers(SEMANTICS, "| <a id=\"p"), (1..=19).collect::<Vec<_>>());
    assert_eq!(numbers(INVARIANTS, "### I"), (1..=17).collect::<Vec<_>>());
}

/// Line breaks between the parts of a shape are for reading only, in the document as in `concat!`.
#[test]
fn the_json_of_the_semantics_is_what_the_engine_is_tested_against() {
    let repository = Repository::open();
    let sources = repository.texts.iter().filter(|(path, _)| path.starts_with("engine/src/"));
    let tested: BTreeSet<String> = sources
        .flat_map(|(_, text)| text.split("concat!(").skip(1))
        .map(|text| text.split("\n);").next().unwrap().split("\n    );").next().unwrap())
        .map(|text| text.split("r#\"").skip(1).filter_map(|part| part.split("\"#").next()).collect())
        .collect();
    let shapes =
        repository.text(SEMANTICS).split("```json\n").skip(1).map(|text| text.split("```").next().unwrap());
    let shapes: Vec<String> = shapes.map(|text| text.lines().collect()).collect();
    assert_eq!(shapes.len(), 7);
    for shape in shapes {
        let shape = shape.trim_start_matches("{\"Records\":[…");
        assert!(tested.contains(shape), "no test of the engine has this text:\n{shape}");
    }
}

/// A repository in which everything that is cited exists.
fn small(path: &str, text: &str) -> Repository {
    Repository::new(&[
        (
            SEMANTICS,
            "## 3 JSON\n### 3.5 A message\n| <a id=\"r3\"></a>R3 | (a) full |\n| <a id=\"p5\"></a>P5 |\n",
        ),
        (INVARIANTS, "### I10\n**Fencing.** See [R3](semantics.md#r3), [3.5](semantics.md#35-a-message).\n"),
        (INCIDENTS, "| 9 | lost | x |\n| 10 | lost | x |\n"),
        ("docs/adr/0004-one.md", "# 0004: One\n"),
        (path, text),
    ])
}

fn problems_of(path: &str, text: &str) -> Vec<String> {
    small(path, text).problems().iter().map(|p| p.rsplit_once(": ").unwrap().0.to_owned()).collect()
}

#[test]
fn what_has_a_target_is_no_problem() {
    let source = "//! R3, R3a/P5 and I10 (ADR 0004; incidents 9 and 10): docs/semantics.md,\n//! sections 3\n//! and 3.5.\n\
                  fn r3_and_i10_incident_9_has_section_3_5s_form() {} /\u{2f} see lib/a.rs\n";
    assert_eq!(problems_of("engine/lib/a.rs", source), [""; 0]);
    assert_eq!(citations("engine/lib/a.rs", source).len(), 15);
}

#[test]
fn a_number_without_a_target_is_shown_with_file_line_and_remedy() {
    let text = "A line.\nR81 is no rule.\n\n| P20 | I18 |\n";
    let problems = small("docs/a.md", text).problems();
    let rule = "docs/a.md:2: R81: no such row in docs/semantics.md; correct the number or add the rule";
    assert_eq!(problems[0], rule);
    assert_eq!(problems_of("docs/a.md", text)[1..], ["docs/a.md:4: P20", "docs/a.md:4: I18"]);
    assert_eq!(problems_of("a.rs", "// R3b\n"), ["a.rs:1: R3b"], "R3 has no (b)");
    assert_eq!(problems_of("a.rs", "panic!(\"I9: lost\");\n"), ["a.rs:1: I9"]);
    assert_eq!(problems_of("a.rs", "async fn r3_r4_holds() {}\n"), ["a.rs:1: R4"]);
    assert_eq!(problems_of("a.toml", "# I9\nkey = 1 # R4\n"), ["a.toml:1: I9", "a.toml:2: R4"]);
}

#[test]
fn incidents_decisions_and_sections_need_targets_too() {
    let source = "// Incidents 9 to 11 and ADR 0005.\n\n// Section 3.5 of nothing.\n// docs/semantics.md, section 3.6\n";
    let found = ["a.rs:1: incident 11", "a.rs:1: ADR 0005", "a.rs:3: section 3.5", "a.rs:4: section 3.6"];
    assert_eq!(problems_of("a.rs", source), found);
    let source = "fn incidents_9_and_12_are_over() {}\nfn it_has_section_4_1s_form() {}\n";
    assert_eq!(problems_of("a.rs", source), ["a.rs:1: incident 12", "a.rs:2: section 4.1"]);
    assert_eq!(problems_of("a.rs", "// RFC 8259, section 7\n"), [""; 0]);
}

#[test]
fn files_and_links_need_targets_too() {
    let text = "See DESIGN.md and `engine/none.rs`.\n[a](semantics.md#r4) [b](none.md)\n[c](semantics.md#3-json) [d](adr)\n";
    let found = [
        "docs/a.md:1: DESIGN.md",
        "docs/a.md:1: engine/none.rs",
        "docs/a.md:2: semantics.md#r4",
        "docs/a.md:2: none.md",
    ];
    assert_eq!(problems_of("docs/a.md", text), found);
}

#[test]
fn what_only_looks_like_a_citation_is_none() {
    let text = "P99 and P50, I/O, S3, r5.large, x86, `R2D2`, I64, sections of it, https://aws.amazon.com/a/b.md,\n\
                /etc/a.md, `<name>/a.md`, `](none.md)`, [R](https://r.org/R99)\n```\nR99 and incident 99\n```\n";
    assert_eq!(problems_of("docs/a.md", &text.replace("I64, ", "")), [""; 0]);
    let source = "fn p99_is_low() { let r99 = \"R99 /\u{2f} R99\"; }\nfn i64_is_read() {}\nstruct R99;\nconst P100: u8 = 0;\n";
    assert_eq!(problems_of("a.rs", source), [""; 0]);
}
