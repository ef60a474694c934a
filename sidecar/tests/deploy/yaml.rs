//! YAML as JSON values.

use granit_parser::{Event, Options, Parser, Span, StrInput};
use serde_json::{Map, Value};

/// The only document of `text`, every scalar a text.
pub(crate) fn yaml(text: &str) -> Value {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "one document");
    documents.remove(0)
}

/// All documents of `text`, every scalar a text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    loop {
        match next(&mut parser) {
            (Event::StreamEnd, _) => return documents,
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (event, _) => documents.push(node(&mut parser, event)),
        }
    }
}

fn next<'t>(parser: &mut Parser<'t, StrInput<'t>>) -> (Event<'t>, Span) {
    parser.next_event().unwrap().unwrap()
}

fn node<'t>(parser: &mut Parser<'t, StrInput<'t>>, event: Event<'t>) -> Value {
    match event {
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next(parser) {
                    (Event::SequenceEnd, _) => return Value::Array(items),
                    (event, _) => items.push(node(parser, event)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Map::new();
            loop {
                let (Event::Scalar(key, ..), _) = next(parser) else { return Value::Object(entries) };
                let (event, _) = next(parser);
                let value = node(parser, event);
                assert!(entries.insert(key.clone().into_owned(), value).is_none(), "{key} twice");
            }
        }
        other => panic!("the examples use no {other:?}"),
    }
}
