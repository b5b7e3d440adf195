//! Intel's collateral: TCB info and identities of quoting enclaves, as the Provisioning Certification Service gives them.

use serde_json::{Map, Value};

use super::fields::{Fields, Shown};

/// `{"tcbInfo": …, "signature": …}`, or what stands in it alone.
pub(super) fn tcb_info(bytes: &[u8]) -> Result<Fields, String> {
    signed(bytes, "tcbInfo", &["fmspc", "tcbEvaluationDataNumber", "tcbLevels"])
}

/// `{"enclaveIdentity": …, "signature": …}`, or what stands in it alone.
pub(super) fn qe_identity(bytes: &[u8]) -> Result<Fields, String> {
    signed(bytes, "enclaveIdentity", &["mrsigner", "isvprodid", "tcbLevels"])
}

/// The body of a reply of Intel's, by its members; `members` must be there.
fn signed(bytes: &[u8], name: &str, members: &[&str]) -> Result<Fields, String> {
    let reply: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| format!("{name}: {e}"))?;
    let (body, signature) = match reply.get(name) {
        Some(Value::Object(body)) => (body.clone(), reply.get("signature").cloned()),
        Some(other) => return Err(format!("{name}: wanted an object, got {other}")),
        None => (reply, None),
    };
    if let Some(missing) = members.iter().find(|member| !body.contains_key(**member)) {
        return Err(format!("{name}: wanted a member {missing}, got none"));
    }
    let fields = body.into_iter().fold(Fields::default(), |fields, (member, value)| fields.with(member, shown(value)));
    Ok(fields.with_some("signature", signature))
}

/// A value, levels of the TCB as a table.
fn shown(value: Value) -> Shown {
    match value {
        Value::Array(items) if items.iter().all(|item| item.get("tcbStatus").is_some()) && !items.is_empty() => {
            Shown::Table(items.iter().map(level).collect())
        }
        Value::Array(items) => Shown::List(items.into_iter().map(shown).collect()),
        Value::Object(members) => {
            let fields =
                members.into_iter().fold(Fields::default(), |fields, (name, value)| fields.with(name, shown(value)));
            fields.into()
        }
        other => other.into(),
    }
}

/// One of `tcbLevels`; the SVNs of components in their order.
fn level(level: &Value) -> Fields {
    let tcb = &level["tcb"];
    let components = |name: &str| {
        let components = tcb.get(name)?.as_array()?;
        Some(components.iter().map(|component| component["svn"].to_string()).collect::<Vec<_>>().join(" "))
    };
    let text = |name: &str| level.get(name).and_then(Value::as_str).map(str::to_owned);
    let advisories = level.get("advisoryIDs").and_then(Value::as_array);
    let advisories = advisories.map(|ids| ids.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    Fields::default()
        .with("tcbStatus", text("tcbStatus"))
        .with("tcbDate", text("tcbDate"))
        .with_some("isvsvn", tcb.get("isvsvn").cloned())
        .with_some("sgxtcbcomponents", components("sgxtcbcomponents"))
        .with_some("pcesvn", tcb.get("pcesvn").cloned())
        .with_some("tdxtcbcomponents", components("tdxtcbcomponents"))
        .with("advisoryIDs", advisories)
}
