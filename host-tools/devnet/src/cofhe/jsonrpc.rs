//! JSON-RPC 2.0 over HTTP POST, one request at a time.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, BODY_CAP};
use crate::refusal::one_line;

/// An error of JSON-RPC, on its way out.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: i64,
    pub(crate) message: String,
    /// What a contract said when it reverted.
    pub(crate) data: Option<String>,
    /// Of HTTP; 200 for all that the protocol itself answers.
    pub(crate) status: u16,
}

#[derive(Deserialize)]
struct Request {
    jsonrpc: String,
    id: Value,
    method: String,
    #[serde(default)]
    params: Vec<Value>,
}

impl Fault {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: one_line(&message.into()), data: None, status: 200 }
    }

    /// The parameters are not what the method takes.
    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(-32_602, message)
    }

    /// There is no such method; says which there are.
    pub(crate) fn method(name: &str, methods: &[&str]) -> Self {
        Self::new(-32_601, format!("method {name}: this devnet has {}", methods.join(", ")))
    }

    /// Our own fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(-32_603, message)
    }
}

/// Reads a request, has `work` do it, and writes the answer.
pub(crate) fn answer(method: &str, body: &[u8], work: impl FnOnce(&str, &[Value]) -> Result<Value, Fault>) -> Answer {
    if method != "POST" {
        return Answer::json(405, &json!({ "message": "JSON-RPC: wanted POST" }));
    }
    let (id, result) = match request(body) {
        Ok(request) => (request.id, work(&request.method, &request.params)),
        Err(fault) => (Value::Null, Err(fault)),
    };
    match result {
        Ok(result) => Answer::json(200, &json!({ "jsonrpc": "2.0", "id": id, "result": result })),
        Err(fault) => {
            let mut error = json!({ "code": fault.code, "message": fault.message });
            if let Some(data) = fault.data {
                error["data"] = data.into();
            }
            Answer::json(fault.status, &json!({ "jsonrpc": "2.0", "id": id, "error": error }))
        }
    }
}

fn request(body: &[u8]) -> Result<Request, Fault> {
    if body.len() > BODY_CAP {
        return Err(Fault::new(-32_600, format!("body: wanted at most {BODY_CAP} bytes, got {}", body.len())));
    }
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Fault::new(-32_600, "body: wanted one request, which is an object"));
    }
    let unread = |e: serde_json::Error| Fault::new(if e.is_data() { -32_600 } else { -32_700 }, format!("body: {e}"));
    let request: Request = serde_json::from_slice(body).map_err(unread)?;
    if request.jsonrpc != "2.0" {
        return Err(Fault::new(-32_600, "jsonrpc: wanted \"2.0\""));
    }
    if !matches!(request.id, Value::Null | Value::Number(_) | Value::String(_)) {
        return Err(Fault::new(-32_600, "id: wanted a number or text"));
    }
    Ok(request)
}
