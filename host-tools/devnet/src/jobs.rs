//! Jobs at the ICL: who may be in a quorum, submission, and the requests that move a job.

use std::collections::{BTreeMap, BTreeSet};

use blf_evidence::icl::{
    Assignment, Assignments, Candidate, Claim, ClaimReply, Commit, Fail, LeaderResult, QuorumPreview, RequestStatus,
    Submit, VerifierResult,
};
use blf_evidence::json::JsonError;
use blf_evidence::{Address, Hex};
use rusqlite::OptionalExtension as _;

use crate::admission::{Admitted, certificates, live};
use crate::event::EventKind;
use crate::job::{Job, Reassigned};
use crate::refusal::{Refused, Result};
use crate::relay;
use crate::state::{Turn, parse, sql};

/// Most verifiers of a quorum.
pub(crate) const VERIFIERS_CAP: usize = 5;
/// Most spares of a job.
pub(crate) const SPARES_CAP: usize = 8;
/// Live jobs of one user, and of everybody.
const LIVE_CAPS: (u32, u32) = (16, 1024);
/// Seconds after its last poll or heartbeat that a node counts as there.
const THERE: u64 = 300;
/// Seconds that an ended job can still be asked for, and how many of them are kept: the oldest give way.
const ENDED_LIFE: u64 = 86_400;
const ENDED_KEPT: u32 = 1024;
/// Longest CID and model id, in bytes.
const NAME_CAP: usize = 128;

/// Nodes for a quorum: those with the fewest live jobs first. All hold the same manifest of the model.
pub(crate) fn preview(turn: &Turn<'_>, model: &str, verifiers: usize, spares: usize) -> Result<QuorumPreview> {
    if verifiers > VERIFIERS_CAP || spares > SPARES_CAP {
        let detail = format!(
            "wanted verifier_count up to {VERIFIERS_CAP} and spares up to {SPARES_CAP}, got {verifiers} and {spares}"
        );
        return Err(Refused::malformed(detail));
    }
    let mut by_manifest = BTreeMap::<Hex<32>, Vec<(u32, Candidate)>>::new();
    for (jobs, candidate) in there(turn)? {
        if let Some(held) = candidate.models.iter().find(|m| m.id == model) {
            by_manifest.entry(held.manifest_sha256).or_default().push((jobs, candidate));
        }
    }
    let mut candidates = by_manifest.into_values().max_by_key(Vec::len).unwrap_or_default();
    candidates.sort_by_key(|(jobs, candidate)| (*jobs, candidate.address));
    let (wanted, got) = (1 + verifiers, candidates.len());
    let mut candidates = candidates.into_iter().map(|(_, candidate)| candidate);
    match candidates.next() {
        Some(leader) if got >= wanted => Ok(QuorumPreview {
            leader,
            verifiers: candidates.by_ref().take(verifiers).collect(),
            spares: candidates.take(spares).collect(),
        }),
        _ => {
            let model: String = model.chars().take(NAME_CAP).collect();
            let detail = format!("quorum: wanted {wanted} admitted nodes with model {model}, got {got}");
            Err(Refused::new(hyper::StatusCode::BAD_REQUEST, "TOO_FEW_NODES", detail))
        }
    }
}

/// A user submits a job. First writer wins.
pub(crate) fn submit(turn: &mut Turn<'_>, user: Address, submit: Submit) -> Result<()> {
    let context = submit.context().map_err(|e: JsonError| Refused::malformed(e.to_string()))?;
    let wrong = Refused::unprocessable;
    if context.user != user {
        let detail = format!("context user: wanted the signer {user}, got {}", context.user);
        return Err(Refused::forbidden("OTHER_ADDRESS", detail));
    }
    if turn.now > context.not_after {
        return Err(wrong("JOB_EXPIRED", format!("not_after: wanted after {}, got {}", turn.now, context.not_after)));
    }
    for (member, got) in [("prompt_cid", submit.prompt_cid.len()), ("model_id", submit.model_id.len())] {
        if !(1..=NAME_CAP).contains(&got) {
            return Err(Refused::malformed(format!("{member}: wanted 1 to {NAME_CAP} bytes, got {got}")));
        }
    }
    if !submit.prompt_cid.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Refused::malformed("prompt_cid: wanted letters and digits"));
    }
    if submit.verifiers.len() > VERIFIERS_CAP || submit.spares.len() > SPARES_CAP {
        let (verifiers, spares) = (submit.verifiers.len(), submit.spares.len());
        let detail =
            format!("wanted at most {VERIFIERS_CAP} verifiers and {SPARES_CAP} spares, got {verifiers} and {spares}");
        return Err(Refused::malformed(detail));
    }
    let named: Vec<Address> =
        std::iter::once(submit.leader).chain(submit.verifiers.clone()).chain(submit.spares.clone()).collect();
    let distinct: BTreeSet<Address> = named.iter().copied().collect();
    if distinct.len() != named.len() {
        return Err(wrong("NOT_DISTINCT", "quorum: wanted every node named once".to_owned()));
    }
    let shared: BTreeSet<Address> = submit.shares.iter().map(|share| share.node).collect();
    if shared != distinct || submit.shares.len() != named.len() {
        let detail = format!("shares: wanted one for each of {} nodes, got {}", named.len(), submit.shares.len());
        return Err(wrong("WRONG_SHARES", detail));
    }
    for share in &submit.shares {
        let node = share.node;
        let admitted = live(turn, node).map_err(|e| match e.is_fault() {
            true => e,
            false => wrong("NODE_NOT_ADMITTED", format!("quorum: wanted an admitted node, got {node}: {}", e.detail)),
        })?;
        let holds = |m: &blf_evidence::statement::Model| {
            m.id == submit.model_id && m.manifest_sha256 == context.model_manifest_sha256
        };
        if !admitted.models.iter().any(holds) {
            let (id, digest) = (&submit.model_id, context.model_manifest_sha256);
            return Err(wrong(
                "MODEL_NOT_HELD",
                format!("quorum: wanted nodes with {id} ({digest}), {node} has it not"),
            ));
        }
        if !vouched(turn, node)?.iter().any(|c| c.keys.hpke == share.hpke) {
            let detail = format!("shares: wanted a key that a certificate of {node} vouches for, got {}", share.hpke);
            return Err(wrong("WRONG_SHARE_KEY", detail));
        }
    }
    let count = |sql: &str, user: Option<String>| -> Result<u32> {
        Ok(turn.tx.query_row(sql, rusqlite::params_from_iter(user), |row| row.get(0))?)
    };
    let mine = count("SELECT COUNT(*) FROM jobs WHERE live AND user = ?1", Some(user.to_string()))?;
    let all = count("SELECT COUNT(*) FROM jobs WHERE live", None)?;
    if mine >= LIVE_CAPS.0 || all >= LIVE_CAPS.1 {
        let detail = format!(
            "jobs: wanted at most {} live ones of a user, {} in all, got {mine}, {all}",
            LIVE_CAPS.0, LIVE_CAPS.1
        );
        return Err(Refused::too_many("TOO_MANY_JOBS", detail, 10));
    }
    let job = Job::new(submit, &context, turn.now, turn.settings.deadlines);
    let document = serde_json::to_string(&job)?;
    let written = turn.tx.execute(
        "INSERT OR IGNORE INTO jobs VALUES (?1, ?2, TRUE, NULL, ?3)",
        (job.id.to_string(), user.to_string(), document),
    )?;
    if written == 0 {
        return Err(Refused::conflict("ALREADY_SUBMITTED", format!("job: {} exists", job.id)));
    }
    for node in named {
        turn.tx.execute("INSERT INTO seats VALUES (?1, ?2)", (job.id.to_string(), node.to_string()))?;
    }
    tell(turn, &job);
    Ok(())
}

/// What waits for a node. A poll is a sign of life.
pub(crate) fn assignments(turn: &Turn<'_>, node: Address) -> Result<Assignments> {
    live(turn, node)?;
    turn.tx.execute("UPDATE nodes SET seen_at = ?2 WHERE address = ?1", (node.to_string(), sql(turn.now)))?;
    let mut query = turn.tx.prepare_cached(
        "SELECT document FROM jobs JOIN seats ON seats.job = jobs.id WHERE jobs.live AND seats.node = ?1",
    )?;
    let documents = query.query_map([node.to_string()], |row| row.get::<_, String>(0))?;
    let mut assignments = Vec::new();
    for document in documents {
        let job: Job = serde_json::from_str(&document?)?;
        let Some(seat) = job.waits_for(node, turn.now) else { continue };
        assignments.push(Assignment {
            job_id: job.id,
            role: seat.role,
            claim_by: seat.claim_by,
            model_id: job.submit.model_id,
            context: job.submit.context,
            prompt_cid: job.submit.prompt_cid,
        });
    }
    Ok(Assignments { assignments, evidence_requests: relay::waiting(turn, node)? })
}

/// A node takes its seat and gets its share.
pub(crate) fn claim(turn: &mut Turn<'_>, request: &Claim) -> Result<ClaimReply> {
    let node = request.node_address;
    live(turn, node)?;
    let (now, deadlines) = (turn.now, turn.settings.deadlines);
    let (share, claim_deadline) = change(turn, request.job_id, |_, job| job.claim(node, now, deadlines))?;
    turn.tell(EventKind::JobClaimed { job: request.job_id, node });
    Ok(ClaimReply { share, claim_deadline })
}

/// First half of commit-then-reveal.
pub(crate) fn commit(turn: &mut Turn<'_>, request: &Commit) -> Result<()> {
    let node = request.node_address;
    live(turn, node)?;
    let (now, deadlines) = (turn.now, turn.settings.deadlines);
    change(turn, request.job_id, |_, job| job.commit(node, request.commit, now, deadlines))
}

/// The leader reveals. Its answer must be signed by a response key that its certificate vouches for.
pub(crate) fn result(turn: &mut Turn<'_>, request: &LeaderResult) -> Result<()> {
    let node = request.node_address;
    live(turn, node)?;
    let answer = &request.answer;
    let wrong = Refused::unprocessable;
    if answer.v != 1 || answer.job_id != request.job_id {
        let detail = format!("answer: wanted v 1 of job {}, got v {} of {}", request.job_id, answer.v, answer.job_id);
        return Err(wrong("WRONG_ANSWER", detail));
    }
    if !(1..=NAME_CAP).contains(&answer.output_cid.len())
        || !answer.output_cid.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return Err(wrong("WRONG_ANSWER", format!("output_cid: wanted 1 to {NAME_CAP} letters and digits")));
    }
    if !vouched(turn, node)?.iter().any(|c| c.keys.response == answer.response) {
        let detail =
            format!("answer: wanted a response key that a certificate of {node} vouches for, got {}", answer.response);
        return Err(wrong("WRONG_RESPONSE_KEY", detail));
    }
    let text = answer.signed_text().map_err(|e| Refused::malformed(e.to_string()))?;
    request
        .signature
        .verify(text.as_bytes(), answer.response)
        .map_err(|e| wrong("WRONG_ANSWER_SIGNATURE", format!("answer: {e}")))?;
    let (now, deadlines) = (turn.now, turn.settings.deadlines);
    change(turn, request.job_id, |_, job| job.lead(request, now, deadlines))
}

/// A verifier reveals and judges. Its verdict must be signed by a response key that its certificate vouches for.
pub(crate) fn verify(turn: &mut Turn<'_>, request: &VerifierResult) -> Result<()> {
    let node = request.node_address;
    live(turn, node)?;
    let (now, deadlines) = (turn.now, turn.settings.deadlines);
    change(turn, request.job_id, |turn, job| {
        job.verify(request, now, deadlines)?;
        let judged = job.judged().ok_or_else(|| Refused::internal("state: a verdict on no answer"))?;
        let text = request.verdict.signed_text(&request.job_id, &judged);
        let signed = |c: &Admitted| request.signature.verify(text.as_bytes(), c.keys.response).is_ok();
        if vouched(turn, node)?.iter().any(signed) {
            return Ok(());
        }
        let detail = format!("verdict: wanted a signature by a response key that a certificate of {node} vouches for");
        Err(Refused::unprocessable("WRONG_VERDICT_SIGNATURE", detail))
    })
}

/// A node hands its job back.
pub(crate) fn fail(turn: &mut Turn<'_>, request: &Fail) -> Result<()> {
    let (node, reason) = (request.node_address, &request.reason);
    let code = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    if !(1..=64).contains(&reason.len()) || !reason.bytes().all(code) {
        return Err(Refused::malformed("reason: wanted a code of 1 to 64 letters, digits, _ - . :"));
    }
    live(turn, node)?;
    let (now, deadlines) = (turn.now, turn.settings.deadlines);
    let reassigned = change(turn, request.job_id, |turn, job| {
        let spares = able(turn, job)?;
        job.hand_back(node, reason, now, deadlines, |spare| spares.contains(&spare))
    })?;
    tell_reassigned(turn, request.job_id, reassigned);
    Ok(())
}

/// What a node of the quorum may know.
pub(crate) fn status(turn: &Turn<'_>, node: Address, id: Hex<32>) -> Result<blf_evidence::icl::JobStatus> {
    load(turn, id)?.status(node)
}

/// What the user may know.
pub(crate) fn request_status(turn: &Turn<'_>, user: Address, id: Hex<32>) -> Result<RequestStatus> {
    let job = load(turn, id)?;
    if job.user != user {
        return Err(Refused::forbidden("NOT_YOUR_JOB", "job: wanted the user who submitted it"));
    }
    Ok(job.request_status())
}

/// Applies deadlines to every live job and forgets those that ended long or many jobs ago.
pub(crate) fn tick(turn: &mut Turn<'_>) -> Result<()> {
    let mut query = turn.tx.prepare_cached("SELECT id FROM jobs WHERE live")?;
    let ids: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    drop(query);
    let (now, deadlines) = (turn.now, turn.settings.deadlines);
    for id in ids {
        let id = parse(&id)?;
        let reassigned = change(turn, id, |turn, job| {
            let spares = able(turn, job)?;
            Ok(job.tick(now, deadlines, |spare| spares.contains(&spare)))
        })?;
        tell_reassigned(turn, id, reassigned);
    }
    let before = sql(blf_evidence::UnixTime(now.0.saturating_sub(ENDED_LIFE)));
    turn.tx.execute(
        "DELETE FROM jobs WHERE NOT live AND (ended_at < ?1 OR id NOT IN
         (SELECT id FROM jobs WHERE NOT live ORDER BY ended_at DESC, rowid DESC LIMIT ?2))",
        (before, ENDED_KEPT),
    )?;
    turn.tx.execute("DELETE FROM seats WHERE job NOT IN (SELECT id FROM jobs)", [])?;
    Ok(())
}

/// Loads a job, lets `work` change it, and stores it if it changed.
fn change<T>(turn: &mut Turn<'_>, id: Hex<32>, work: impl FnOnce(&Turn<'_>, &mut Job) -> Result<T>) -> Result<T> {
    let mut job = load(turn, id)?;
    let before = (serde_json::to_string(&job)?, job.phase);
    let value = work(turn, &mut job)?;
    let document = serde_json::to_string(&job)?;
    if document != before.0 {
        let ended_at = (!job.is_live()).then(|| sql(turn.now));
        turn.tx.execute(
            "UPDATE jobs SET document = ?2, live = ?3, ended_at = COALESCE(ended_at, ?4) WHERE id = ?1",
            (id.to_string(), document, job.is_live(), ended_at),
        )?;
    }
    if job.phase != before.1 {
        tell(turn, &job);
    }
    Ok(value)
}

fn load(turn: &Turn<'_>, id: Hex<32>) -> Result<Job> {
    let document = turn
        .tx
        .query_row("SELECT document FROM jobs WHERE id = ?1", [id.to_string()], |row| row.get::<_, String>(0))
        .optional()?
        .ok_or_else(|| Refused::not_found("UNKNOWN_JOB", format!("job: {id} is not here")))?;
    Ok(serde_json::from_str(&document)?)
}

/// Nodes with a live certificate that were there lately and do not stop, with the number of their live jobs.
pub(crate) fn there(turn: &Turn<'_>) -> Result<Vec<(u32, Candidate)>> {
    let since = sql(blf_evidence::UnixTime(turn.now.0.saturating_sub(THERE)));
    let mut query = turn.tx.prepare_cached(
        "SELECT address, (SELECT COUNT(*) FROM seats JOIN jobs ON jobs.id = seats.job
                          WHERE seats.node = nodes.address AND jobs.live)
         FROM nodes WHERE NOT stopping AND seen_at >= ?1",
    )?;
    let rows = query.query_map([since], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (address, jobs) = row?;
        let address = parse(&address)?;
        match live(turn, address) {
            Ok(Admitted { tier, models, .. }) => found.push((jobs, Candidate { address, tier, models })),
            Err(fault) if fault.is_fault() => return Err(fault),
            Err(_) => {} // Its certificate ended: it is known, but cannot work.
        }
    }
    Ok(found)
}

/// The spares of a job that could take a seat now.
fn able(turn: &Turn<'_>, job: &Job) -> Result<BTreeSet<Address>> {
    let mut able = BTreeSet::new();
    for spare in &job.submit.spares {
        let stays =
            turn.tx.query_row("SELECT NOT stopping FROM nodes WHERE address = ?1", [spare.to_string()], |row| {
                row.get::<_, bool>(0)
            });
        if stays.optional()? == Some(true) && live(turn, *spare).is_ok() {
            able.insert(*spare);
        }
    }
    Ok(able)
}

/// Certificates of a node that are still good: its keys now, and those from before the last rotation.
fn vouched(turn: &Turn<'_>, node: Address) -> Result<Vec<Admitted>> {
    let mut found = certificates(turn, node)?;
    found.retain(|c| turn.now < c.not_after);
    Ok(found)
}

fn tell(turn: &mut Turn<'_>, job: &Job) {
    let (quorum, reason) = (job.members.len(), job.reason.clone());
    turn.tell(EventKind::Job { job: job.id, phase: job.phase, quorum, reason });
}

fn tell_reassigned(turn: &mut Turn<'_>, job: Hex<32>, reassigned: impl IntoIterator<Item = Reassigned>) {
    for Reassigned { from, to, reason } in reassigned {
        turn.tell(EventKind::JobReassigned { job, from, to, reason });
    }
}
