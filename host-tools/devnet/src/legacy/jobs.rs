//! Jobs at a legacy coordinator: one document each, moved by nodes' polls, claims, results and verdicts.
//!
//! Commitments are compared as texts; what a verdict says is written down and ignored. The largest group of equal ones
//! wins, even one without the leader, whose output is served all the same.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use blf_evidence::{Address, Hex, UnixTime};
use rusqlite::OptionalExtension as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::EventKind;
use crate::legacy::http::{Object, text};
use crate::legacy::{decimal, nodes, payment};
use crate::refusal::{Refused, Result};
use crate::state::Turn;

/// Seconds from every poll to the deadline it names, which nobody minds.
const DEADLINE: u64 = 600;
/// Jobs that are kept; the oldest give way.
const KEPT: u32 = 1024;

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Accepted,
    Failed,
    PendingStoreKey,
    Queued,
    Rejected,
}

/// Where a node is in a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seat {
    Claimed {
        at: UnixTime,
    },
    /// The leader only: today's coordinator forgets to say so of verifiers.
    Completed,
    Failed,
    Pending,
}

/// The two handles of a prompt key, as they came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeyHandles {
    pub(crate) high: String,
    pub(crate) low: String,
}

/// Lets a node open a handle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Permit {
    pub(crate) node: String,
    /// A text, or an object.
    pub(crate) permit: Value,
}

/// What the leader delivered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeaderResult {
    pub(crate) output_cid: String,
    pub(crate) commitment_hash: String,
    pub(crate) encrypted_output_key_high: Option<String>,
    pub(crate) encrypted_output_key_low: Option<String>,
    pub(crate) encrypted_output_key_inputs: Option<BTreeMap<String, Object>>,
    pub(crate) output_key_store_tx: Option<String>,
    pub(crate) output_key_store_job_id: Option<String>,
    pub(crate) verdict: Option<String>,
    pub(crate) confidence: Option<Confidence>,
    pub(crate) summary: Option<String>,
    #[serde(default)]
    pub(crate) at: UnixTime,
}

/// What a verifier says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) verifier_address: String,
    pub(crate) commitment_hash: String,
    pub(crate) verdict: String,
    pub(crate) confidence: Confidence,
    #[serde(default)]
    pub(crate) at: UnixTime,
}

/// 0 to 100.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Confidence(pub(crate) u32);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The client's id.
    pub(crate) request: String,
    /// The nodes' id.
    pub(crate) task: String,
    pub(crate) developer: Address,
    pub(crate) model: String,
    pub(crate) prompt_cid: String,
    pub(crate) key: KeyHandles,
    pub(crate) permits: Vec<Permit>,
    pub(crate) metadata: Object,
    pub(crate) leader: Address,
    pub(crate) verifiers: Vec<Address>,
    pub(crate) status: Status,
    pub(crate) created_at: UnixTime,
    pub(crate) seats: BTreeMap<Address, Seat>,
    pub(crate) result: Option<LeaderResult>,
    pub(crate) verdicts: Vec<Verdict>,
    /// What counts, in the end not always the leader's.
    pub(crate) commitment_hash: Option<String>,
    pub(crate) confirmations: u32,
    pub(crate) confidence: u32,
    pub(crate) reject_reason: Option<String>,
}

impl TryFrom<i64> for Confidence {
    type Error = String;

    fn try_from(value: i64) -> std::result::Result<Self, String> {
        u32::try_from(value)
            .ok()
            .filter(|value| *value <= 100)
            .map(Self)
            .ok_or_else(|| format!("confidence: wanted 0 to 100, got {value}"))
    }
}

/// Equal commitments that a job of `nodes` nodes needs: floor((2n + 2) / 3), which is ceil(2n / 3).
pub(crate) fn needed(nodes: usize) -> usize {
    (2 * nodes).div_ceil(3)
}

impl Job {
    /// Takes a permit for a node of the quorum, in place of an earlier one for it in any spelling: there are no more permits
    /// than seats. False for another node, which is never shown one.
    pub(crate) fn attach(&mut self, permit: Permit) -> bool {
        let Some(node) = nodes::address(&permit.node).ok().filter(|node| self.seats.contains_key(node)) else {
            return false;
        };
        self.permits.retain(|held| nodes::address(&held.node).ok() != Some(node));
        self.permits.push(permit);
        true
    }

    fn nodes(&self) -> impl Iterator<Item = Address> {
        std::iter::once(self.leader).chain(self.verifiers.clone())
    }

    /// A node polls. True if the job waits for it; a node that claimed and did not deliver in time fails now.
    fn poll(&mut self, node: Address, now: UnixTime, timeout: u64) -> bool {
        let Some(seat) = self.seats.get_mut(&node).filter(|_| self.status == Status::Queued) else { return false };
        if let Seat::Claimed { at } = *seat
            && now > at.plus(timeout)
        {
            *seat = Seat::Failed;
            if self.seats.values().all(|seat| *seat == Seat::Failed) {
                self.status = Status::Failed;
            }
        }
        self.seats.get(&node) == Some(&Seat::Pending)
    }

    /// Counts equal commitments. Nothing ends before the leader has delivered.
    fn finalise(&mut self) {
        let Some(result) = self.result.as_ref().filter(|_| self.status == Status::Queued) else { return };
        let leaders = (result.commitment_hash.as_str(), result.confidence);
        let given = self.verdicts.iter().map(|v| (v.commitment_hash.as_str(), Some(v.confidence)));
        let mut groups: Vec<(&str, Vec<Option<Confidence>>)> = Vec::new();
        for (hash, confidence) in std::iter::once(leaders).chain(given).filter(|(hash, _)| !hash.is_empty()) {
            match groups.iter_mut().find(|(of, _)| *of == hash) {
                Some((_, group)) => group.push(confidence),
                None => groups.push((hash, vec![confidence])),
            }
        }
        // The first of the largest: between equals the leader's.
        let largest = groups.iter().rev().max_by_key(|(_, group)| group.len());
        let Some((hash, group)) = largest.map(|(hash, group)| ((*hash).to_owned(), group)) else { return };
        let total = 1 + self.verifiers.len();
        let confirmations = u32::try_from(group.len()).unwrap_or(u32::MAX);
        if group.len() >= needed(total) {
            let confidences: Vec<u32> = group.iter().flatten().map(|c| c.0).collect();
            let count = u32::try_from(confidences.len()).unwrap_or(u32::MAX);
            self.confidence = confidences.iter().sum::<u32>().checked_div(count).unwrap_or(0);
            self.commitment_hash = Some(hash);
            self.confirmations = confirmations;
            self.status = Status::Accepted;
        } else if self.verdicts.len() >= self.verifiers.len() {
            self.reject_reason =
                Some(format!("Quorum rejected: {confirmations} confirms vs {} required", needed(total)));
            self.confirmations = confirmations;
            self.status = Status::Rejected;
        }
    }
}

/// Jobs that wait for a node, as it is told of them. `named` is the node's spelling of its address.
pub(crate) fn waiting(turn: &mut Turn<'_>, node: Address, named: &str, timeout: u64, mock: bool) -> Result<Vec<Value>> {
    nodes::find(turn, node)?.ok_or_else(|| unknown_node(named))?;
    let mut query = turn.tx.prepare_cached("SELECT job FROM seats WHERE node = ?1")?;
    let ids: Vec<String> = query.query_map([node.to_string()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    drop(query);
    let now = turn.now;
    let mut waiting = Vec::new();
    for id in ids {
        let Some(mut job) = find(turn, &id)? else { continue };
        let (seat, status) = (job.seats.get(&node).copied(), job.status);
        let waits = job.poll(node, now, timeout);
        if job.seats.get(&node).copied() != seat {
            nodes::failed(turn, node)?;
            turn.tell(EventKind::LegacyNodeFailed { job: job.task.clone(), node });
            store(turn, &job, status)?;
        }
        if waits {
            waiting.push(assignment(&job, named, mock, now));
        }
    }
    Ok(waiting)
}

/// Role and permit go by the exact spelling: a leader that asks with a lower-case address is told it is a verifier.
///
/// Handles are the user's word for them, which a claim overrules.
fn assignment(job: &Job, named: &str, mock: bool, now: UnixTime) -> Value {
    let handle = |half: &str, submitted: &str| {
        let stored = &job.metadata.get("prompt_key_store_handles").unwrap_or(&Value::Null)[half];
        let input = &job.metadata.get("cofhe_prompt_key_inputs").unwrap_or(&Value::Null)[half]["ctHash"];
        let given = stored.as_str().or_else(|| input.as_str());
        given.or_else(|| mock.then_some(submitted)).map(str::to_owned)
    };
    let role = if job.leader.to_string() == named { "leader" } else { "verifier" };
    let permit = job.permits.iter().find(|permit| permit.node == named).map(|permit| match &permit.permit {
        Value::String(text) => text.clone(),
        object => object.to_string(),
    });
    json!({
        "jobId": job.task,
        "role": role,
        "modelId": job.model,
        "promptCid": job.prompt_cid,
        "deadline": now.plus(DEADLINE),
        "insuranceOptIn": false,
        "userAddress": job.developer,
        "kpHighHandle": handle("high", &job.key.high),
        "kpLowHandle": handle("low", &job.key.low),
        "permit": permit,
    })
}

/// A node claims: both handles that the chain has, as decimal digits, or zeros. Nobody is refused.
pub(crate) fn claim(turn: &mut Turn<'_>, task: &str, named: &str, mock: bool) -> Result<(String, String)> {
    let Some(mut job) = find_task(turn, task)? else { return Ok(("0".into(), "0".into())) };
    if let Ok(node) = nodes::address(named)
        && let Some(seat) = job.seats.get_mut(&node).filter(|seat| **seat == Seat::Pending)
    {
        *seat = Seat::Claimed { at: turn.now };
        let status = job.status;
        store(turn, &job, status)?;
        turn.tell(EventKind::LegacyClaimed { job: task.to_owned(), node });
    }
    let stored = match (&turn.settings.chain, bytes32(task)) {
        (Some(chain), Some(task)) => chain.encrypted_key(task).map_err(Refused::internal)?,
        _ => None,
    };
    Ok(match stored {
        Some(handles) => handles.map(|handle| U256::from_be_bytes(handle).to_string()).into(),
        None if mock => (decimal(&job.key.high), decimal(&job.key.low)),
        None => ("0".into(), "0".into()),
    })
}

/// A task id as the chain has it; one that is no 32 bytes has no key there.
fn bytes32(task: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(task.strip_prefix("0x").unwrap_or(task), &mut bytes).ok()?;
    Some(bytes)
}

/// The leader's result, from whoever sends it. A later one replaces an earlier one, even after the end.
pub(crate) fn result(turn: &mut Turn<'_>, id: &str, body: Object) -> Result<Value> {
    let mut job = by_any_id(turn, id)?;
    let result: LeaderResult = model("LeaderTextResultSubmission", body)?;
    let verdict = result.verdict.as_ref().map(|verdict| verdict.to_uppercase());
    if !matches!(verdict.as_deref(), None | Some("CONFIRM" | "REJECT")) {
        return Err(Refused::malformed("leader verdict must be CONFIRM or REJECT"));
    }
    let commitment_hash = result.commitment_hash.clone();
    let stored = result.encrypted_output_key_inputs.is_some().then(|| output_key_job(&job.task));
    let store_job = result.output_key_store_job_id.clone().or(stored);
    let store_tx = result.output_key_store_tx.clone();
    job.commitment_hash = Some(commitment_hash.clone());
    job.result = Some(LeaderResult { verdict, at: turn.now, ..result });
    job.seats.insert(job.leader, Seat::Completed);
    let finalized = end(turn, &mut job)?;
    Ok(json!({
        "status": if finalized { "committed" } else { "leader_result_recorded" },
        "job_id": id,
        "task_id": job.task,
        "commitment_hash": commitment_hash,
        "output_key_store_tx": store_tx,
        "output_key_store_job_id": store_job,
        "finalized": finalized,
    }))
}

/// A verifier's verdict.
pub(crate) fn verify(turn: &mut Turn<'_>, id: &str, body: Object) -> Result<Value> {
    let mut job = by_any_id(turn, id)?;
    let mut verdict: Verdict = model("VerifierTextVerdict", body)?;
    let verifier = nodes::address(&verdict.verifier_address)?;
    if !job.verifiers.contains(&verifier) {
        return Err(Refused::malformed("verifier verdict submitted by non-quorum verifier"));
    }
    verdict.verdict = verdict.verdict.to_uppercase();
    if !matches!(verdict.verdict.as_str(), "CONFIRM" | "REJECT") {
        return Err(Refused::malformed("verifier verdict must be CONFIRM or REJECT"));
    }
    verdict.verifier_address = verifier.to_string();
    verdict.at = turn.now;
    match job.verdicts.iter_mut().find(|v| v.verifier_address == verdict.verifier_address) {
        Some(earlier) => *earlier = verdict,
        None => job.verdicts.push(verdict),
    }
    let finalized = end(turn, &mut job)?;
    Ok(json!({
        "status": if finalized { "committed" } else { "verifier_verdict_recorded" },
        "job_id": id,
        "task_id": job.task,
        "verifier_address": verifier,
        "finalized": finalized,
    }))
}

/// Stores what came and ends the job if that is enough. True if it is over, now or long since.
fn end(turn: &mut Turn<'_>, job: &mut Job) -> Result<bool> {
    let status = job.status;
    job.finalise();
    store(turn, job, status)?;
    Ok(job.result.is_some() && job.status != Status::Queued)
}

/// The job under which the output key of `task` is stored: keccak256 of a text, not of bytes.
pub(crate) fn output_key_job(task: &str) -> String {
    format!("0x{}", Hex(alloy_primitives::keccak256(format!("{task}:output-key")).0))
}

/// A new job. Those that are older than the newest thousand are forgotten.
pub(crate) fn insert(turn: &mut Turn<'_>, job: &Job) -> Result<()> {
    let document = serde_json::to_string(job)?;
    let written =
        turn.tx.execute("INSERT OR IGNORE INTO jobs VALUES (?1, ?2, ?3)", (&job.request, &job.task, document))?;
    if written == 0 {
        return Err(Refused::conflict("ALREADY_SUBMITTED", format!("task {} already exists", job.task)));
    }
    for node in job.nodes() {
        turn.tx.execute("INSERT OR IGNORE INTO seats VALUES (?1, ?2)", (&job.request, node.to_string()))?;
    }
    turn.tx.execute("DELETE FROM jobs WHERE id NOT IN (SELECT id FROM jobs ORDER BY rowid DESC LIMIT ?1)", [KEPT])?;
    turn.tx.execute("DELETE FROM seats WHERE job NOT IN (SELECT id FROM jobs)", [])?;
    tell(turn, job);
    Ok(())
}

/// Stores a job. A change of status is told, and to be accepted pays its nodes.
pub(crate) fn store(turn: &mut Turn<'_>, job: &Job, before: Status) -> Result<()> {
    turn.tx.execute("UPDATE jobs SET document = ?2 WHERE id = ?1", (&job.request, serde_json::to_string(job)?))?;
    if job.status != before {
        tell(turn, job);
        payment::ended(turn, job)?;
    }
    if job.status == Status::Accepted && job.status != before {
        for node in job.nodes() {
            nodes::succeeded(turn, node)?;
        }
    }
    Ok(())
}

fn tell(turn: &mut Turn<'_>, job: &Job) {
    let status = serde_json::to_value(job.status).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    turn.tell(EventKind::LegacyJob { job: job.task.clone(), status, reason: job.reject_reason.clone() });
}

/// The job with this request id.
pub(crate) fn find(turn: &Turn<'_>, request: &str) -> Result<Option<Job>> {
    row(turn, "SELECT document FROM jobs WHERE id = ?1", request)
}

/// The job with this task id.
pub(crate) fn find_task(turn: &Turn<'_>, task: &str) -> Result<Option<Job>> {
    row(turn, "SELECT document FROM jobs WHERE task = ?1", task)
}

fn by_any_id(turn: &Turn<'_>, id: &str) -> Result<Job> {
    let job = match find(turn, id)? {
        Some(job) => Some(job),
        None => find_task(turn, id)?,
    };
    job.ok_or_else(|| not_found(id))
}

/// 404, to which a node attests again. Today's coordinator has nothing waiting for it instead.
pub(crate) fn unknown_node(named: &str) -> Refused {
    Refused::not_found("UNKNOWN_NODE", format!("node {named} is unknown: attest again"))
}

/// 404. The quotes are today's: the text of a `KeyError`.
pub(crate) fn not_found(id: &str) -> Refused {
    Refused::not_found("UNKNOWN_JOB", format!("'inference request {id} not found'"))
}

fn row(turn: &Turn<'_>, sql: &str, id: &str) -> Result<Option<Job>> {
    let document = turn.tx.query_row(sql, [id], |row| row.get::<_, String>(0)).optional()?;
    Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
}

/// A body that has a model. Today a wrong one is 400 here, not 422.
fn model<T: DeserializeOwned>(name: &str, body: Object) -> Result<T> {
    let job = text(&body, "jobId").to_owned();
    serde_json::from_value(Value::Object(body))
        .map_err(|e| Refused::malformed(format!("1 validation error for {name} of job {job}: {e}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn needed() {
        assert_eq!([1, 2, 3, 4, 5, 6].map(super::needed), [1, 2, 2, 3, 4, 4]);
    }

    #[test]
    fn output_key_job() {
        let wanted = "0x2f2696379b61d1bd2b4da412c36501a34d1281d0e182821ca02d5140728cc9b0";
        assert_eq!(super::output_key_job(&format!("0x{}", "ab".repeat(32))), wanted);
    }
}
