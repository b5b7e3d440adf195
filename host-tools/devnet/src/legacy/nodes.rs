//! Nodes at a legacy coordinator: a challenge that nobody keeps, an attestation that nobody reads, a heartbeat.

use blf_evidence::{Address, UnixTime};
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::EventKind;
use crate::legacy::http::{Object, text};
use crate::legacy::{dashed, uuid};
use crate::refusal::{Refused, Result, one_line};
use crate::state::Turn;

/// Seconds that a challenge claims to live.
const CHALLENGE_LIFE: u64 = 300;
/// Seconds after its last heartbeat that a node counts as there.
const GRACE: u64 = 300;
/// Failures in a row after which a node is chosen no more.
pub(crate) const FAILURES: u32 = 3;
/// Most nodes, models of one, and characters of a model's id.
const CAPS: (usize, usize, usize) = (1024, 64, 128);

/// A node that attested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) address: Address,
    pub(crate) tier: u8,
    pub(crate) models: Vec<String>,
    pub(crate) expires_at: UnixTime,
    pub(crate) heartbeat_at: UnixTime,
    /// In a row.
    pub(crate) failures: u32,
}

impl Node {
    /// As today: only a node that neither beats nor is attested is gone.
    pub(crate) fn is_active(&self, now: UnixTime) -> bool {
        (now <= self.heartbeat_at.plus(GRACE) || now <= self.expires_at) && self.failures < FAILURES
    }
}

/// A fresh challenge, which is forgotten at once.
pub(crate) fn challenge(now: UnixTime) -> Result<Value> {
    let nonce = format!("0x{}{}", uuid()?, uuid()?);
    Ok(json!({ "challengeId": dashed(uuid()?), "nonce": nonce, "expiresAt": now.plus(CHALLENGE_LIFE) }))
}

/// Believes what it is told and gives a certificate, whose hash is no hash.
pub(crate) fn attest(turn: &mut Turn<'_>, body: &Object, life: u64) -> Result<Value> {
    let named = text(body, "nodeAddress");
    if named.is_empty() {
        return Err(Refused::malformed("nodeAddress is required"));
    }
    let address = address(named)?;
    let backend = body.get("backendType").map_or("mock", |value| value.as_str().unwrap_or_default());
    // A caller that declares a tier has it.
    let declared = body.get("tier").and_then(Value::as_u64).and_then(|tier| u8::try_from(tier).ok());
    let tier = declared.unwrap_or_else(|| u8::from(backend == "tpm"));
    let models = body.get("supportedModelIds").or_else(|| body.get("supported_model_ids")).and_then(Value::as_array);
    let models: Vec<String> = models.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let (nodes, per_node, length) = CAPS;
    if models.len() > per_node || models.iter().any(|model| model.len() > length) {
        let detail = format!("supportedModelIds: wanted at most {per_node} of at most {length} bytes");
        return Err(Refused::malformed(detail));
    }
    let failures = match find(turn, address)? {
        Some(node) => node.failures,
        None if count(turn)? >= nodes => {
            let detail = format!("nodes: wanted at most {nodes}");
            return Err(Refused::new(hyper::StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_NODES", detail));
        }
        None => 0,
    };
    let expires_at = turn.now.plus(life);
    let node = Node { address, tier, models, expires_at, heartbeat_at: turn.now, failures };
    store(turn, &node)?;
    let backend = one_line(backend).chars().take(32).collect();
    turn.tell(EventKind::LegacyAttested { node: address, backend, tier, not_after: expires_at });
    Ok(json!({ "certHash": format!("0x{}", uuid()?), "expiry": expires_at, "tier": tier }))
}

/// A node lives. One that is unknown is answered the same.
pub(crate) fn heartbeat(turn: &mut Turn<'_>, named: &str) -> Result<Value> {
    if let Ok(address) = address(named)
        && let Some(node) = find(turn, address)?
    {
        store(turn, &Node { heartbeat_at: turn.now, ..node })?;
        turn.tell(EventKind::Heartbeat { node: address, stopping: false });
    }
    Ok(json!({ "status": "ok" }))
}

/// An address in any spelling. Today's coordinator fails at anything else with 500.
pub(crate) fn address(text: &str) -> Result<Address> {
    let parsed: std::result::Result<alloy_primitives::Address, _> = text.parse();
    let parsed = parsed.map_err(|e| Refused::malformed(format!("address: {e}")))?;
    Ok(Address(parsed.into_array()))
}

pub(crate) fn find(turn: &Turn<'_>, address: Address) -> Result<Option<Node>> {
    let document = turn
        .tx
        .query_row("SELECT document FROM nodes WHERE address = ?1", [address.to_string()], |row| {
            row.get::<_, String>(0)
        })
        .optional()?;
    Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
}

pub(crate) fn store(turn: &Turn<'_>, node: &Node) -> Result<()> {
    let document = serde_json::to_string(node)?;
    turn.tx.execute("INSERT OR REPLACE INTO nodes VALUES (?1, ?2)", (node.address.to_string(), document))?;
    Ok(())
}

/// Every node, by address.
pub(crate) fn all(turn: &Turn<'_>) -> Result<Vec<Node>> {
    let mut query = turn.tx.prepare_cached("SELECT document FROM nodes ORDER BY address")?;
    let documents = query.query_map([], |row| row.get::<_, String>(0))?;
    documents.map(|document| Ok(serde_json::from_str(&document?)?)).collect()
}

/// One failure more in a row.
pub(crate) fn failed(turn: &Turn<'_>, address: Address) -> Result<()> {
    match find(turn, address)? {
        Some(node) => store(turn, &Node { failures: node.failures.saturating_add(1), ..node }),
        None => Ok(()),
    }
}

/// The row of failures ends.
pub(crate) fn succeeded(turn: &Turn<'_>, address: Address) -> Result<()> {
    match find(turn, address)? {
        Some(node) => store(turn, &Node { failures: 0, ..node }),
        None => Ok(()),
    }
}

pub(crate) fn count(turn: &Turn<'_>) -> Result<usize> {
    let count: u32 = turn.tx.query_row("SELECT COUNT(*) FROM nodes", [], |row| row.get(0))?;
    usize::try_from(count).map_err(Refused::internal)
}

/// State is lost.
pub(crate) fn forget(turn: &Turn<'_>) -> Result<()> {
    turn.tx.execute("DELETE FROM nodes", [])?;
    Ok(())
}
