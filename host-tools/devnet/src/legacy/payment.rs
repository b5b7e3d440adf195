//! The payment service: a record for each job, and 1 BLIND for each accepted one, 0.6 to its leader and 0.2 to each of
//! two verifiers. It takes no money: every user has credits, and nothing moves on a chain.

use std::collections::BTreeMap;

use blf_evidence::UnixTime;
use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::blobs::iso_8601;
use crate::legacy::client::{self, FlatRequest, Submission};
use crate::legacy::http::{Object, Problem};
use crate::legacy::jobs::{Job, Permit, Status};
use crate::legacy::{LegacyOptions, dashed, nodes, uuid};
use crate::refusal::{Refused, Result};
use crate::state::Turn;

/// What a leader and what each of the first two verifiers gets, in BLIND.
const REWARDS: (f64, f64) = (0.6, 0.2);
/// Records that are kept; the oldest give way.
const KEPT: u32 = 1024;
/// The credits of everybody.
const CREDITS: &str = "1000000000";

/// `POST /v1/jobs/submit`. How the user pays is not looked at.
#[derive(Deserialize)]
pub(crate) struct Submit {
    user_address: String,
    prompt_cid: String,
    model_id: String,
    encrypted_prompt_key_high: String,
    encrypted_prompt_key_low: String,
    #[serde(default)]
    insurance_opt_in: bool,
    task_id: Option<String>,
    escrow_id: Option<String>,
    #[serde(default)]
    permits: Vec<Permit>,
    #[serde(default)]
    min_tier: u8,
    #[serde(default)]
    zdr_required: bool,
    #[serde(default = "client::two")]
    verifier_count: usize,
    #[serde(default)]
    metadata: Object,
}

/// `POST /v1/jobs/{id}/complete`, which anybody may send.
#[derive(Deserialize)]
pub(crate) struct Completion {
    status: Outcome,
    leader_address: String,
    verifier_addresses: Vec<String>,
    error_reason: Option<String>,
    result_hash: Option<String>,
    output_cid: Option<String>,
    encrypted_output_key_high: Option<String>,
    encrypted_output_key_low: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Rejected,
    Success,
    Timeout,
}

/// Where a record is. Payment is never pending here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Paid {
    Completed,
    Failed,
    Refunded,
    Running,
}

/// The record of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    job_id: String,
    task_id: Option<String>,
    user_address: String,
    model_id: String,
    amount_cusdc: String,
    amount_blind: String,
    insurance_opt_in: bool,
    insurance_premium_cusdc: String,
    escrow_id: Option<String>,
    coverage_id: Option<u64>,
    status: Paid,
    leader_address: Option<String>,
    verifier_addresses: Vec<String>,
    error_reason: Option<String>,
    result_hash: Option<String>,
    output_cid: Option<String>,
    encrypted_output_key_high: Option<String>,
    encrypted_output_key_low: Option<String>,
    rewards_distributed: bool,
    reward_tx_hashes: Vec<String>,
    /// By lower-case address.
    rewards: BTreeMap<String, f64>,
    created_at: String,
    updated_at: String,
}

impl Submit {
    /// The record of the job, and what the coordinator is asked.
    pub(crate) fn split(self, now: UnixTime) -> std::result::Result<(Record, Submission), Problem> {
        let user = self.user_address.to_lowercase();
        let record = Record {
            task_id: self.task_id.clone(),
            insurance_opt_in: self.insurance_opt_in,
            escrow_id: self.escrow_id,
            ..Record::new(user.clone(), self.model_id.clone(), now)?
        };
        let request = FlatRequest {
            job_id: record.job_id.clone(),
            developer_address: user,
            prompt_cid: self.prompt_cid,
            model_id: self.model_id,
            encrypted_prompt_key_high: self.encrypted_prompt_key_high,
            encrypted_prompt_key_low: self.encrypted_prompt_key_low,
            permits: self.permits,
            min_tier: self.min_tier,
            zdr_required: self.zdr_required,
            verifier_count: self.verifier_count,
            task_id: self.task_id,
            metadata: self.metadata,
        };
        Ok((record, request.submission()?))
    }
}

impl Record {
    fn new(user_address: String, model_id: String, now: UnixTime) -> Result<Self> {
        Ok(Self {
            job_id: dashed(uuid()?),
            task_id: None,
            user_address,
            model_id,
            amount_cusdc: "0".into(),
            amount_blind: "0".into(),
            insurance_opt_in: false,
            insurance_premium_cusdc: "0".into(),
            escrow_id: None,
            coverage_id: None,
            status: Paid::Running,
            leader_address: None,
            verifier_addresses: Vec::new(),
            error_reason: None,
            result_hash: None,
            output_cid: None,
            encrypted_output_key_high: None,
            encrypted_output_key_low: None,
            rewards_distributed: false,
            reward_tx_hashes: Vec::new(),
            rewards: BTreeMap::new(),
            created_at: iso_8601(now),
            updated_at: iso_8601(now),
        })
    }

    fn role(&self, node: &str) -> Option<&'static str> {
        let is = |address: &String| address.to_lowercase() == node;
        if self.leader_address.as_ref().is_some_and(is) {
            return Some("leader");
        }
        self.verifier_addresses.iter().any(is).then_some("verifier")
    }

    /// The outcome is written down; success pays whomever it names.
    fn complete(&mut self, completion: Completion, now: UnixTime) {
        let Completion { status, leader_address, verifier_addresses, .. } = completion;
        match status {
            Outcome::Success => {
                let (leader, verifier) = REWARDS;
                let verifiers = verifier_addresses.iter().take(2).map(|v| (v.to_lowercase(), verifier));
                self.rewards = verifiers.chain([(leader_address.to_lowercase(), leader)]).collect();
                self.rewards_distributed = true;
                self.status = Paid::Completed;
                self.result_hash = completion.result_hash;
                self.output_cid = completion.output_cid;
                self.encrypted_output_key_high = completion.encrypted_output_key_high;
                self.encrypted_output_key_low = completion.encrypted_output_key_low;
            }
            Outcome::Rejected => self.status = Paid::Refunded,
            Outcome::Timeout => self.status = Paid::Failed,
        }
        self.error_reason = completion.error_reason;
        self.leader_address = Some(leader_address);
        self.verifier_addresses = verifier_addresses;
        self.updated_at = iso_8601(now);
    }
}

/// A job by way of the payment service.
pub(crate) fn submit(
    turn: &mut Turn<'_>,
    record: &Record,
    submission: Submission,
    options: &LegacyOptions,
) -> Result<Value> {
    client::submit(turn, submission, options)?;
    store(turn, record)?;
    Ok(json!({
        "job_id": record.job_id,
        "status": record.status,
        "escrow_id": record.escrow_id,
        "coverage_id": record.coverage_id,
    }))
}

/// The record of a job.
pub(crate) fn job(turn: &Turn<'_>, id: &str) -> Result<Value> {
    let unknown = || Refused::not_found("UNKNOWN_JOB", format!("Job {id} not found"));
    let record = row(turn, "SELECT document FROM payments WHERE job = ?1", id)?.ok_or_else(unknown)?;
    Ok(serde_json::to_value(record)?)
}

/// A job is over, says whoever asks. Only the first word counts.
pub(crate) fn complete(turn: &Turn<'_>, id: &str, completion: Completion) -> Result<Value> {
    let unknown = || Refused::not_found("UNKNOWN_JOB", format!("Job {id} not found"));
    let record = match row(turn, "SELECT document FROM payments WHERE job = ?1", id)? {
        Some(record) => Some(record),
        None => of_task(turn, id)?,
    };
    let mut record = record.ok_or_else(unknown)?;
    if record.status != Paid::Running {
        return Ok(json!({ "job_id": record.job_id, "status": record.status, "note": "already_finalized" }));
    }
    record.complete(completion, turn.now);
    store(turn, &record)?;
    Ok(match record.status {
        Paid::Completed => json!({
            "job_id": record.job_id,
            "status": record.status,
            "rewards": { "status": "distributed", "job_id": record.job_id, "distributions": [] },
            "claim_result": null,
        }),
        _ => json!({ "job_id": record.job_id, "status": record.status, "refunded_cusdc": 0, "refunded_blind": 0 }),
    })
}

/// The coordinator's own word that a job is over. One that was not submitted here gets its record now, so that nodes
/// see what they did.
pub(crate) fn ended(turn: &Turn<'_>, job: &Job) -> Result<()> {
    let record = match of_task(turn, &job.task)? {
        // Without a task of the user's the record's own id is the task.
        None => row(turn, "SELECT document FROM payments WHERE job = ?1", &job.task)?,
        found => found,
    };
    let mut record = match record {
        Some(record) => record,
        None => Record {
            task_id: Some(job.task.clone()),
            ..Record::new(job.developer.to_string().to_lowercase(), job.model.clone(), turn.now)?
        },
    };
    if record.status != Paid::Running {
        return Ok(());
    }
    let result = job.result.as_ref();
    let completion = Completion {
        status: match job.status {
            Status::Accepted => Outcome::Success,
            Status::Rejected => Outcome::Rejected,
            Status::Failed => Outcome::Timeout,
            Status::PendingStoreKey | Status::Queued => return Ok(()),
        },
        leader_address: job.leader.to_string(),
        verifier_addresses: job.verifiers.iter().map(ToString::to_string).collect(),
        error_reason: job.reject_reason.clone(),
        result_hash: job.commitment_hash.clone(),
        output_cid: result.map(|r| r.output_cid.clone()),
        encrypted_output_key_high: result.and_then(|r| r.encrypted_output_key_high.clone()),
        encrypted_output_key_low: result.and_then(|r| r.encrypted_output_key_low.clone()),
    };
    record.complete(completion, turn.now);
    store(turn, &record)
}

/// What the service knows of a node, by its lower-case address: `jobs`, `earnings`, `exists` or `stats`.
pub(crate) fn node(turn: &Turn<'_>, node: &str, what: &str, limit: i64) -> Result<Option<Value>> {
    let records: Vec<(Record, &str)> =
        all(turn)?.into_iter().filter_map(|record| record.role(node).map(|role| (record, role))).collect();
    let earned = |record: &Record| record.rewards.get(node).copied();
    let completed = || records.iter().filter(|(record, _)| record.status == Paid::Completed);
    let total: f64 = completed().filter_map(|(record, _)| earned(record)).sum();
    Ok(match what {
        "jobs" => {
            let limit = usize::try_from(limit.clamp(1, 100)).map_err(Refused::internal)?;
            let jobs: Vec<Value> = records
                .iter()
                .take(limit)
                .map(|(record, role)| {
                    let over = record.status != Paid::Running;
                    json!({
                        "job_id": record.job_id,
                        "role": role,
                        "status": record.status,
                        "amount_blind_earned": over.then(|| earned(record).unwrap_or(0.0)),
                        "model_id": record.model_id,
                        "completed_at": record.updated_at,
                    })
                })
                .collect();
            Some(json!({ "node_address": node, "count": jobs.len(), "jobs": jobs }))
        }
        "earnings" => {
            let count = completed().filter(|(record, _)| earned(record).is_some()).count();
            Some(json!({ "total_blind_earned": total, "jobs_count": count }))
        }
        "exists" => {
            let known = match nodes::address(node) {
                Ok(address) => nodes::find(turn, address)?.is_some(),
                Err(_) => false,
            };
            Some(json!({ "is_operator": known }))
        }
        "stats" => {
            let failures = match nodes::address(node) {
                Ok(address) => nodes::find(turn, address)?.map_or(0, |node| node.failures),
                Err(_) => 0,
            };
            let failed =
                records.iter().filter(|(record, _)| matches!(record.status, Paid::Failed | Paid::Refunded)).count();
            Some(json!({
                "total_jobs": records.len(),
                "success": completed().count(),
                "failed": failed,
                "slashed": failures >= nodes::FAILURES,
                "slash_count": failures,
                "current_stake_blind": "0.0000",
                "total_earned_blind": format!("{total:.4}"),
            }))
        }
        _ => None,
    })
}

/// Everybody has the same credits, and they do not shrink.
pub(crate) fn balance(user: &str) -> Value {
    json!({ "user_address": user.to_lowercase(), "credits_cusdc": CREDITS, "credits_blind": CREDITS })
}

/// Every record, the newest first.
fn all(turn: &Turn<'_>) -> Result<Vec<Record>> {
    let mut query = turn.tx.prepare_cached("SELECT document FROM payments ORDER BY rowid DESC")?;
    let documents = query.query_map([], |row| row.get::<_, String>(0))?;
    documents.map(|document| Ok(serde_json::from_str(&document?)?)).collect()
}

fn of_task(turn: &Turn<'_>, task: &str) -> Result<Option<Record>> {
    row(turn, "SELECT document FROM payments WHERE task = ?1", task)
}

fn row(turn: &Turn<'_>, sql: &str, id: &str) -> Result<Option<Record>> {
    let document = turn.tx.query_row(sql, [id], |row| row.get::<_, String>(0)).optional()?;
    Ok(document.map(|document| serde_json::from_str(&document)).transpose()?)
}

/// Writes a record, as the newest.
fn store(turn: &Turn<'_>, record: &Record) -> Result<()> {
    let document = serde_json::to_string(record)?;
    turn.tx
        .execute("INSERT OR REPLACE INTO payments VALUES (?1, ?2, ?3)", (&record.job_id, &record.task_id, document))?;
    turn.tx.execute(
        "DELETE FROM payments WHERE job NOT IN (SELECT job FROM payments ORDER BY rowid DESC LIMIT ?1)",
        [KEPT],
    )?;
    Ok(())
}
