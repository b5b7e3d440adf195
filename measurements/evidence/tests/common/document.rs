//! Documents against their schema and their parser.

use blf_evidence::json;
use jsonschema::Validator;
use serde_json::{Value, json};

/// A kind of document: its schema, its parser, and documents that both accept.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) schema: Validator,
    pub(crate) parses: fn(&[u8]) -> bool,
    pub(crate) documents: Vec<Value>,
}

impl Kind {
    pub(crate) fn new(name: &'static str, schema: &str, parses: fn(&[u8]) -> bool, documents: Vec<String>) -> Self {
        let schema: Value = serde_json::from_str(schema).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        let documents = documents.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        Self { name, schema: jsonschema::validator_for(&schema).unwrap(), parses, documents }
    }

    /// Whether the schema and the parser accept this.
    pub(crate) fn verdicts(&self, document: &Value) -> (bool, bool) {
        let text = json::canonical("document", document).unwrap();
        (self.schema.is_valid(document), (self.parses)(text.as_bytes()))
    }

    pub(crate) fn every_document_is_valid(&self) {
        for document in &self.documents {
            assert_eq!(self.verdicts(document), (true, true), "{}: {document}", self.name);
        }
    }

    /// At every place: a member more, each member less, and values of other types. Both refuse.
    pub(crate) fn closed_at_every_place(&self) {
        let mut tried = 0;
        for good in &self.documents {
            for at in places(good) {
                let here = good.pointer(&at).unwrap();
                let mut mutants = vec![with(good, &at, json!(1.5)), with(good, &at, json!([[true]]))];
                match here {
                    Value::Object(members) => {
                        let mut more = members.clone();
                        more.insert("unknown".into(), json!(1));
                        mutants.push(with(good, &at, more.into()));
                        for name in members.keys() {
                            let mut less = members.clone();
                            less.remove(name);
                            mutants.push(with(good, &at, less.into()));
                        }
                    }
                    Value::String(_) | Value::Number(_) => mutants.push(with(good, &at, json!({}))),
                    _ => (),
                }
                for bad in mutants {
                    assert_ne!(&bad, good, "{at}: no effect");
                    assert_eq!(self.verdicts(&bad), (false, false), "{} {at}: {bad}", self.name);
                    tried += 1;
                }
            }
        }
        assert!(tried > 50, "{}: {tried}", self.name);
    }
}

/// Every place in a document, as JSON Pointers (RFC 6901).
pub(crate) fn places(document: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut below = |name: &str, value| found.extend(places(value).iter().map(|place| format!("/{name}{place}")));
    match document {
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value));
        }
        _ => (),
    }
    found
}

/// The document with another value at a place.
pub(crate) fn with(document: &Value, at: &str, value: Value) -> Value {
    let mut other = document.clone();
    *other.pointer_mut(at).unwrap() = value;
    other
}
