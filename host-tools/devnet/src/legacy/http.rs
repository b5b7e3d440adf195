//! Requests and refusals in the shapes of FastAPI, with which today's coordinator is made: `{"detail": text}`, and for
//! 422 a list. Members that nobody knows are ignored, the last of two equal ones counts.

use std::fmt::Display;
use std::str::FromStr;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::refusal::Refused;
use crate::routes::Reply;

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// How a request ends badly.
#[derive(Debug)]
pub(crate) enum Problem {
    /// With a text.
    Refused(Refused),
    /// 422: what is wrong with which member of body or query.
    Unprocessable { kind: &'static str, at: Vec<String>, message: String },
}

impl Problem {
    pub(crate) fn no_such_endpoint() -> Self {
        Refused::not_found("NO_SUCH_ENDPOINT", "Not Found").into()
    }

    pub(crate) fn reply(self) -> Reply {
        let (status, detail, retry_after) = match self {
            Self::Refused(refused) => {
                let detail = refused.document().detail;
                let detail = if refused.is_fault() { format!("Internal error: {detail}") } else { detail };
                (refused.status, Value::from(detail), refused.retry_after)
            }
            Self::Unprocessable { kind, at, message } => {
                let detail = json!([{ "type": kind, "loc": at, "msg": message }]);
                (StatusCode::UNPROCESSABLE_ENTITY, detail, None)
            }
        };
        Reply { retry_after, ..Reply::new(status, json!({ "detail": detail }).to_string().into_bytes()) }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// A body that has a model.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_value(json(body)?).map_err(|e| invalid(&e))
}

/// A body that must be an object of some kind.
pub(crate) fn object(body: &[u8]) -> Result<Object, Refused> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Refused::malformed("Invalid JSON body")),
    }
}

/// The body of a result or a verdict, and its `jobId`.
pub(crate) fn task(body: &[u8]) -> Result<(String, Object), Problem> {
    let object: Object = serde_json::from_value(json(body)?).map_err(|e| invalid(&e))?;
    match text(&object, "jobId") {
        "" => Err(Refused::malformed("jobId is required").into()),
        job => Ok((job.to_owned(), object)),
    }
}

/// A member that should be a text; empty if it is none.
pub(crate) fn text<'a>(object: &'a Object, member: &str) -> &'a str {
    object.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// One value of a query string, or `default`.
pub(crate) fn query<T: FromStr<Err: Display>>(query: &str, name: &str, default: T) -> Result<T, Problem> {
    let Some(value) = find(query, name) else { return Ok(default) };
    value.parse().map_err(|e: T::Err| Problem::Unprocessable {
        kind: "value_error",
        at: vec!["query".into(), name.into()],
        message: e.to_string(),
    })
}

/// One value of a query string.
pub(crate) fn required(query: &str, name: &str) -> Result<String, Problem> {
    find(query, name).ok_or_else(|| Problem::Unprocessable {
        kind: "missing",
        at: vec!["query".into(), name.into()],
        message: "Field required".into(),
    })
}

fn find(query: &str, name: &str) -> Option<String> {
    let (_, value) = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| *n == name)?;
    Some(decoded(value))
}

/// A value of a query string (WHATWG URL, section 5.1). A percent sign without two digits stands for itself.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let mut byte = [0];
        rest = match first {
            b'%' if after.len() >= 2 && hex::decode_to_slice(&after[..2], &mut byte).is_ok() => &after[2..],
            b'+' => {
                byte = [b' '];
                after
            }
            other => {
                byte = [*other];
                after
            }
        };
        bytes.extend(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|_| Problem::Unprocessable {
        kind: "json_invalid",
        at: vec!["body".into()],
        message: "JSON decode error".into(),
    })
}

/// What serde says, as pydantic would.
fn invalid(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let mut at = vec!["body".to_owned()];
    at.extend(missing.map(str::to_owned));
    match missing {
        Some(_) => Problem::Unprocessable { kind: "missing", at, message: "Field required".into() },
        None => Problem::Unprocessable { kind: "value_error", at, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let text = "model_id=facebook%2Fopt-125m&min_tier=1&odd=%zz+%4";
        assert_eq!(required(text, "model_id").unwrap(), "facebook/opt-125m");
        assert_eq!(query(text, "min_tier", 0).unwrap(), 1);
        assert_eq!(query(text, "limit", 20).unwrap(), 20);
        assert_eq!(required(text, "odd").unwrap(), "%zz %4");
        let Err(Problem::Unprocessable { at, .. }) = query(text, "model_id", 0) else { panic!("a number") };
        assert_eq!(at, ["query", "model_id"]);
    }
}
