//! What users ask a legacy coordinator: a quorum to prepare for, which need not be the one that is chosen, then to
//! upload, submit and follow.

use std::collections::BTreeSet;

use blf_evidence::{Address, UnixTime};
use bytes::Bytes;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::legacy::http::{self, Object, Problem, query, required};
use crate::legacy::jobs::{self, Job, KeyHandles, Permit, Seat, Status};
use crate::legacy::{LegacyOptions, nodes, uuid};
use crate::refusal::{Refused, Result};
use crate::state::Turn;
use crate::{blobs, random};

/// Seconds in which a job can be disputed.
const DISPUTE_WINDOW: u64 = 72 * 3600;
/// Fewest and most verifiers of a job.
const VERIFIERS: (usize, usize) = (1, 5);
/// Longest CID, model id, task id and handle, in bytes.
const NAME_CAP: usize = 256;

/// Which nodes a quorum is to have.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    model: String,
    min_tier: u8,
    verifiers: usize,
    zdr: bool,
}

/// `POST /v1/inference/requests`.
#[derive(Deserialize)]
pub(crate) struct Request {
    developer_address: String,
    task_id: Option<String>,
    model_id: Option<String>,
    #[serde(default = "risk")]
    mode: String,
    text_request: Option<TextRequest>,
    #[serde(default)]
    permits: Vec<Permit>,
    leader_address: Option<String>,
    #[serde(default)]
    verifier_addresses: Vec<String>,
    #[serde(default)]
    min_tier: u8,
    #[serde(default)]
    zdr_required: bool,
    #[serde(default = "two")]
    verifier_count: usize,
    #[serde(default)]
    metadata: Object,
}

#[derive(Deserialize)]
struct TextRequest {
    prompt_cid: String,
    encrypted_prompt_key: KeyHandles,
    model_id: Option<String>,
}

/// `POST /v1/inference/request`, which the payment service sends.
#[derive(Deserialize)]
pub(crate) struct FlatRequest {
    pub(crate) job_id: String,
    pub(crate) developer_address: String,
    pub(crate) prompt_cid: String,
    pub(crate) model_id: String,
    pub(crate) encrypted_prompt_key_high: String,
    pub(crate) encrypted_prompt_key_low: String,
    #[serde(default)]
    pub(crate) permits: Vec<Permit>,
    #[serde(default)]
    pub(crate) min_tier: u8,
    #[serde(default)]
    pub(crate) zdr_required: bool,
    #[serde(default = "two")]
    pub(crate) verifier_count: usize,
    pub(crate) task_id: Option<String>,
    #[serde(default)]
    pub(crate) metadata: Object,
}

/// `PATCH /v1/inference/{task}/permit`.
#[derive(Deserialize)]
pub(crate) struct PermitAttachment {
    node: Option<String>,
    permit: Value,
}

/// A job that was asked for, checked as far as it can be without nodes.
pub(crate) struct Submission {
    developer: Address,
    task: Option<String>,
    wanted: Wanted,
    prompt_cid: String,
    key: KeyHandles,
    permits: Vec<Permit>,
    /// A quorum of the user's choice.
    named: Option<(Address, Vec<Address>)>,
    metadata: Object,
}

/// What a user sees of a job.
#[derive(Serialize)]
struct TextResult<'a> {
    job_id: &'a str,
    status: &'static str,
    output_cid: Option<&'a str>,
    commitment_hash: Option<&'a str>,
    encrypted_output_key_high: Option<&'a str>,
    encrypted_output_key_low: Option<&'a str>,
    quorum: Value,
    dispute_deadline: UnixTime,
    leader_submission: Option<Value>,
    verifier_verdicts: Vec<Value>,
    reject_reason: Option<&'a str>,
}

impl Wanted {
    pub(crate) fn from_query(text: &str) -> std::result::Result<Self, Problem> {
        let wanted = Self {
            model: required(text, "model_id")?,
            min_tier: query(text, "min_tier", 0)?,
            verifiers: query(text, "verifier_count", 2)?,
            zdr: query(text, "zdr_required", false)?,
        };
        if wanted.verifiers > VERIFIERS.1 {
            return Err(Refused::malformed(too_few()).into());
        }
        Ok(wanted)
    }
}

impl Request {
    pub(crate) fn submission(self) -> std::result::Result<Submission, Problem> {
        let missing = |member: &str| Problem::Unprocessable {
            kind: "missing",
            at: vec!["body".into(), member.into()],
            message: "Field required".into(),
        };
        if self.mode != "text" {
            return Err(Refused::malformed("mode: wanted text, the only one this devnet has").into());
        }
        let text = self.text_request.ok_or_else(|| missing("text_request"))?;
        let named = match self.leader_address {
            None if self.verifier_addresses.is_empty() => None,
            None => return Err(Refused::malformed("leader_address: wanted with verifier_addresses").into()),
            Some(leader) => {
                let verifiers = self.verifier_addresses.iter().map(|text| nodes::address(text));
                Some((nodes::address(&leader)?, verifiers.collect::<Result<_>>()?))
            }
        };
        Submission {
            developer: nodes::address(&self.developer_address)?,
            task: self.task_id,
            wanted: Wanted {
                model: text.model_id.or(self.model_id).unwrap_or_else(|| "qwen2.5-7b".into()),
                min_tier: self.min_tier,
                verifiers: self.verifier_count,
                zdr: self.zdr_required,
            },
            prompt_cid: text.prompt_cid,
            key: text.encrypted_prompt_key,
            permits: self.permits,
            named,
            metadata: self.metadata,
        }
        .checked()
    }
}

impl FlatRequest {
    pub(crate) fn submission(self) -> std::result::Result<Submission, Problem> {
        Submission {
            developer: nodes::address(&self.developer_address)?,
            task: Some(self.task_id.unwrap_or(self.job_id)),
            wanted: Wanted {
                model: self.model_id,
                min_tier: self.min_tier,
                verifiers: self.verifier_count,
                zdr: self.zdr_required,
            },
            prompt_cid: self.prompt_cid,
            key: KeyHandles { high: self.encrypted_prompt_key_high, low: self.encrypted_prompt_key_low },
            permits: self.permits,
            named: None,
            metadata: self.metadata,
        }
        .checked()
    }
}

impl Submission {
    fn checked(self) -> std::result::Result<Self, Problem> {
        let wrong = |member: &str, message: String| Problem::Unprocessable {
            kind: "value_error",
            at: vec!["body".into(), member.into()],
            message,
        };
        let (least, most) = VERIFIERS;
        if !(least..=most).contains(&self.wanted.verifiers) {
            let message = format!("wanted {least} to {most}, got {}", self.wanted.verifiers);
            return Err(wrong("verifier_count", message));
        }
        if self.wanted.min_tier > 2 {
            return Err(wrong("min_tier", format!("wanted 0 to 2, got {}", self.wanted.min_tier)));
        }
        for (member, text) in [
            ("prompt_cid", &self.prompt_cid),
            ("model_id", &self.wanted.model),
            ("task_id", self.task.as_ref().unwrap_or(&String::new())),
            ("encrypted_prompt_key.high", &self.key.high),
            ("encrypted_prompt_key.low", &self.key.low),
        ] {
            if text.len() > NAME_CAP {
                return Err(wrong(member, format!("wanted at most {NAME_CAP} bytes, got {}", text.len())));
            }
        }
        Ok(self)
    }
}

/// A quorum, drawn by chance. The one that a submission gets is drawn anew.
pub(crate) fn preview(turn: &Turn<'_>, wanted: &Wanted, match_models: bool) -> Result<Value> {
    let candidates = candidates(turn, wanted, match_models)?;
    let (leader, verifiers) = draw(&candidates, wanted.verifiers)?;
    Ok(json!({ "leader": leader, "verifiers": verifiers, "candidates": candidates }))
}

/// Pins a prompt, as whoever runs the coordinator.
pub(crate) fn upload(turn: &mut Turn<'_>, content_type: Option<&[u8]>, body: &Bytes) -> Result<Value> {
    let file = blobs::file(content_type, body)?;
    if file.is_empty() {
        return Err(Refused::malformed("Uploaded prompt payload is empty"));
    }
    let cid = blobs::store(turn, file).map_err(|refused| {
        Refused::new(StatusCode::BAD_GATEWAY, "PIN_FAILED", format!("Prompt upload failed: {}", refused.detail))
    })?;
    Ok(json!({ "cid": cid }))
}

/// A new job, and what its user sees of it.
pub(crate) fn submit(turn: &mut Turn<'_>, submission: Submission, options: &LegacyOptions) -> Result<Value> {
    let Submission { developer, task, wanted, prompt_cid, key, permits, named, metadata } = submission;
    let candidates = candidates(turn, &wanted, options.match_models)?;
    let (leader, verifiers) = match named {
        None => draw(&candidates, wanted.verifiers)?,
        Some((leader, verifiers)) => {
            let distinct: BTreeSet<Address> = std::iter::once(leader).chain(verifiers.clone()).collect();
            if verifiers.len() != wanted.verifiers || distinct.len() != 1 + verifiers.len() {
                let detail = format!("verifier_addresses: wanted {} others", wanted.verifiers);
                return Err(Refused::malformed(detail));
            }
            if let Some(stranger) = distinct.iter().find(|node| !candidates.contains(node)) {
                return Err(Refused::malformed(format!("node {stranger} is not an active candidate")));
            }
            (leader, verifiers)
        }
    };
    let stored = options.mock_chain || !http::text(&metadata, "prompt_key_store_tx").is_empty();
    let mut job = Job {
        request: uuid()?.to_string(),
        // As the digits of bytes: without 0x.
        task: match task {
            Some(task) => task,
            None => hex::encode(random::<32>().map_err(Refused::internal)?),
        },
        developer,
        model: wanted.model,
        prompt_cid,
        key,
        permits: Vec::new(),
        metadata,
        leader,
        seats: std::iter::once(leader).chain(verifiers.clone()).map(|node| (node, Seat::Pending)).collect(),
        verifiers,
        status: if stored { Status::Queued } else { Status::PendingStoreKey },
        created_at: turn.now,
        result: None,
        verdicts: Vec::new(),
        commitment_hash: None,
        confirmations: 0,
        confidence: 0,
        reject_reason: None,
    };
    for permit in permits {
        job.attach(permit);
    }
    jobs::insert(turn, &job)?;
    shown(&job)
}

/// The user has stored the prompt key on the chain.
pub(crate) fn confirm_store_key(turn: &mut Turn<'_>, request: &str, transaction: &str) -> Result<Value> {
    let mut job = jobs::find(turn, request)?.ok_or_else(|| jobs::not_found(request))?;
    if transaction.is_empty() {
        return Err(Refused::malformed("prompt_key_store_tx is required"));
    }
    let status = job.status;
    if status == Status::PendingStoreKey {
        job.metadata.insert("prompt_key_store_tx".into(), transaction.into());
        job.status = Status::Queued;
        jobs::store(turn, &job, status)?;
    }
    shown(&job)
}

/// A permit for one node, the leader if it is not named.
pub(crate) fn attach_permit(turn: &mut Turn<'_>, task: &str, attachment: PermitAttachment) -> Result<Value> {
    let mut job = jobs::find_task(turn, task)?.ok_or_else(|| jobs::not_found(task))?;
    let node = attachment.node.unwrap_or_else(|| job.leader.to_string());
    if !job.attach(Permit { node: node.clone(), permit: attachment.permit }) {
        return Err(Refused::malformed("permit for a node outside of the quorum"));
    }
    jobs::store(turn, &job, job.status)?;
    Ok(json!({ "status": "permit_attached", "task_id": task, "leader_address": node }))
}

pub(crate) fn status_of_request(turn: &Turn<'_>, request: &str) -> Result<Value> {
    shown(&jobs::find(turn, request)?.ok_or_else(|| jobs::not_found(request))?)
}

pub(crate) fn status_of_task(turn: &Turn<'_>, task: &str) -> Result<Value> {
    shown(&jobs::find_task(turn, task)?.ok_or_else(|| jobs::not_found(task))?)
}

/// What nodes see of a job. For text jobs the last two members are always empty.
pub(crate) fn task_status(turn: &Turn<'_>, task: &str) -> Result<Value> {
    let shown = shown(&find_task(turn, task)?)?;
    Ok(json!({
        "jobId": task,
        "status": shown["status"],
        "outputCid": shown["output_cid"],
        "leaderCommitment": shown["commitment_hash"],
        "failureReason": null,
        "nodeAssignments": {},
    }))
}

/// The escrow of a text job, which has none.
pub(crate) fn escrow(turn: &Turn<'_>, task: &str) -> Result<Value> {
    find_task(turn, task)?;
    Ok(json!({ "jobId": task, "escrowId": 0 }))
}

fn find_task(turn: &Turn<'_>, task: &str) -> Result<Job> {
    let unknown = || Refused::not_found("UNKNOWN_JOB", format!("Job {task} not found"));
    jobs::find_task(turn, task)?.ok_or_else(unknown)
}

/// What a user sees. Statuses for which there is no word are `QUEUED`.
fn shown(job: &Job) -> Result<Value> {
    let result = job.result.as_ref();
    let shown = TextResult {
        job_id: &job.request,
        status: match job.status {
            Status::Accepted => "ACCEPTED",
            Status::Rejected => "REJECTED",
            Status::Failed | Status::PendingStoreKey | Status::Queued => "QUEUED",
        },
        output_cid: result.map(|r| r.output_cid.as_str()),
        commitment_hash: job.commitment_hash.as_deref(),
        encrypted_output_key_high: result.and_then(|r| r.encrypted_output_key_high.as_deref()),
        encrypted_output_key_low: result.and_then(|r| r.encrypted_output_key_low.as_deref()),
        quorum: json!({
            "verifier_addresses": job.verifiers,
            "confirmations": job.confirmations,
            "confidence": job.confidence,
        }),
        dispute_deadline: job.created_at.plus(DISPUTE_WINDOW),
        leader_submission: result.map(|r| {
            json!({
                "leader_address": job.leader,
                "risk_score": null,
                "confidence": r.confidence,
                "summary": r.summary,
                "provider": null,
                "model": null,
                "result_hash": r.commitment_hash,
                "submitted_at": blobs::iso_8601(r.at),
            })
        }),
        verifier_verdicts: job.verifiers.iter().map(|verifier| verdict(job, *verifier)).collect(),
        reject_reason: job.reject_reason.as_deref(),
    };
    Ok(serde_json::to_value(shown)?)
}

fn verdict(job: &Job, verifier: Address) -> Value {
    let given = job.verdicts.iter().find(|v| v.verifier_address == verifier.to_string());
    let accepted = given.map(|v| v.verdict == "CONFIRM");
    json!({
        "verifier_address": verifier,
        "submitted": given.is_some(),
        "accepted": accepted,
        "confidence": given.map(|v| v.confidence),
        "reason": accepted.filter(|accepted| !accepted).map(|_| "verifier rejected text commitment"),
        "risk_score": null,
        "result_hash": given.map(|v| v.commitment_hash.as_str()),
        "provider": null,
        "model": null,
        "summary": null,
        "updated_at": given.map(|v| blobs::iso_8601(v.at)),
    })
}

/// Nodes to draw from: text jobs move no reputation, so the order is that of addresses.
fn candidates(turn: &Turn<'_>, wanted: &Wanted, match_models: bool) -> Result<Vec<Address>> {
    let active = nodes::all(turn)?.into_iter().filter(|node| {
        // No node can say that it keeps nothing.
        !wanted.zdr
            && node.is_active(turn.now)
            && node.tier >= wanted.min_tier
            && (!match_models || node.models.contains(&wanted.model))
    });
    Ok(active.map(|node| node.address).take(2 * (wanted.verifiers + 1)).collect())
}

/// A leader and verifiers by chance.
fn draw(candidates: &[Address], verifiers: usize) -> Result<(Address, Vec<Address>)> {
    let mut left = candidates.to_vec();
    let mut drawn = Vec::new();
    while drawn.len() < 1 + verifiers && !left.is_empty() {
        let chance = u64::from_be_bytes(random().map_err(Refused::internal)?) % left.len() as u64;
        drawn.push(left.swap_remove(usize::try_from(chance).map_err(Refused::internal)?));
    }
    match drawn.split_first() {
        Some((leader, others)) if others.len() == verifiers => Ok((*leader, others.to_vec())),
        _ => Err(Refused::malformed(too_few())),
    }
}

fn too_few() -> &'static str {
    "not enough active nodes available for the requested quorum"
}

fn risk() -> String {
    "risk".into()
}

pub(crate) fn two() -> usize {
    2
}
