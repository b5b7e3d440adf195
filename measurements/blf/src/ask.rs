//! `blf ask`: one prompt, one answer, and nobody in between who can read either.
//!
//! ```text
//! quorum → evidence of each node, to the user's own nonce → appraise → seal → submit → wait → open → check
//! ```

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blf_bridge::prompt::{open_answer, seal_prompt};
use blf_bridge::release::{open_output_key, seal_share};
use blf_bridge::{HpkeKey, Key, Secret, cid, commitment};
use blf_evidence::bundle::Evidence;
use blf_evidence::icl::{Candidate, Done, NodeVerdict, Phase, QuorumPreview, RequestStatus, Submit};
use blf_evidence::job::{Answer, JobContext, Verdict};
use blf_evidence::network::{ModelName, Network};
use blf_evidence::profile::NetworkProfile;
use blf_evidence::statement::Model;
use blf_evidence::{Address, Hex, UnixTime};
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use k256::ecdsa::SigningKey;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use crate::advice::with_hint;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::fresh;
use crate::icl::{POLL, User, now, poll, random};
use crate::nodes::{Node, Reference};
use crate::terminal::{Stage, Terminal, Timing, escaped, shell_word};
use crate::time::written;

/// What to ask, of whom.
pub struct Ask<'a> {
    /// How to reach the network.
    pub network: &'a Network,
    /// Whom to believe.
    pub profile: &'a NetworkProfile,
    /// What a node may run.
    pub reference: &'a Reference,
    /// The prompt.
    pub prompt: Secret,
    /// The model.
    pub model: ModelName,
    /// Verifiers beside the leader.
    pub verifiers: u8,
    /// Nodes that may replace a member before it claims.
    pub spares: u8,
    /// Most tokens to generate.
    pub max_new_tokens: u32,
    /// How long all of it may take, but for the wait for a quorum.
    pub deadline: Duration,
    /// Folder that gets each node's evidence, for `blf verify` and for the record.
    pub keep_evidence: Option<PathBuf>,
    /// Options by which network and policy were chosen, for whoever runs `blf verify` on that evidence.
    pub chosen: String,
    /// How long to wait until the network has nodes enough.
    pub quorum_within: Duration,
}

/// A checked answer and how it came about. The text is the user's own.
#[derive(Serialize)]
pub struct Report {
    /// `blf.ask/v1`.
    pub schema: &'static str,
    /// The job.
    pub job_id: Hex<32>,
    /// The model that every node of the quorum holds.
    pub model: Model,
    /// The answer.
    pub text: String,
    /// The lowest tier among all who hold the key, spares included.
    pub tier: u8,
    /// What that tier means.
    pub meaning: &'static str,
    /// The quorum, leader first.
    pub quorum: Vec<Member>,
    /// Who else holds the key.
    pub spares: Vec<Member>,
    /// How long each stage took.
    pub timings: Vec<Timing>,
}

/// One node to which the key was sealed.
#[derive(Serialize)]
pub struct Member {
    /// The node.
    pub node: Address,
    /// Its tier.
    pub tier: u8,
    /// Its measurement id.
    pub measurement: String,
    /// Null for the leader and for spares.
    pub verdict: Option<Verdict>,
    /// The nonce that its evidence answers.
    pub nonce: Hex<32>,
    /// The audience that its evidence names: the user.
    pub audience: Address,
    /// When its evidence was appraised.
    pub at: UnixTime,
    /// File with its evidence; null if it was not to be kept.
    pub evidence: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Pinned {
    #[serde(rename = "IpfsHash")]
    cid: String,
}

/// A sealed and submitted job: what only the user holds.
struct Sealed {
    job: Hex<32>,
    prompt_key: Key,
    reply: HpkeKey,
}

/// Asks, waits, opens and checks.
///
/// # Errors
/// [`Exit::Rejected`] for a node or an answer that is not what it should be, [`Exit::NoVerdict`] for evidence that
/// did not come, [`Exit::Failed`] for a job that did not end well, [`Exit::Environment`] for an unreachable network.
pub async fn run(ask: Ask<'_>, key: SigningKey, terminal: &Terminal) -> Result<Report, Failure> {
    if ask.reference.limits_anchors() {
        let policy = ask.reference.policy_name();
        let message = format!("the policy {policy} limits how old a block is, and blf ask knows none to count from");
        return Err(Failure::new(Exit::Usage, "HEAD", message)
            .hint("--policy with anchor_age_blocks \"any\"; blf verify --head judges a node by such a policy"));
    }
    let client = Client::new(&ask.profile.tls_roots, ask.network.resolve.clone())?;
    let user = User::new(&client, ask.profile.icl.clone(), key);
    let (job, within, reached) = (Hex(random()?), ask.quorum_within + ask.deadline, Cell::new("quorum"));
    let until = Instant::now() + within;
    match timeout_at(until, answered(&ask, &user, job, until, terminal, &reached)).await {
        Ok(ended) => ended.map_err(with_hint),
        Err(_) => {
            let (within, reached) = (within.as_secs(), reached.get());
            let message = format!("job {job}: wanted an answer within {within} s, got no further than: {reached}");
            Err(Failure::new(Exit::Failed, "TIMEOUT", message)
                .hint("ask again, with a longer --timeout where the model is slow"))
        }
    }
}

/// From quorum to answer; `reached` is told how far it is.
async fn answered(
    ask: &Ask<'_>,
    user: &User<'_>,
    job: Hex<32>,
    until: Instant,
    terminal: &Terminal,
    reached: &Cell<&'static str>,
) -> Result<Report, Failure> {
    let mut timings = Vec::new();
    let begin = |name| {
        reached.set(name);
        terminal.stage(name)
    };

    let stage = begin("quorum");
    let preview = preview(ask, user, &stage).await?;
    let candidates: Vec<&Candidate> =
        std::iter::once(&preview.leader).chain(&preview.verifiers).chain(&preview.spares).collect();
    let size = 1 + preview.verifiers.len();
    timings.push(stage.done(match size {
        1 => "a devnet quorum of one: a leader nobody checks".into(),
        _ => format!("one leader, {} verifiers, {} spares", size - 1, preview.spares.len()),
    }));

    let stage = begin("evidence");
    let nodes = appraise(ask, user, &candidates, terminal).await?;
    let model = common_model(&ask.model, &nodes)?;
    let whose = match ask.model.manifest_sha256 {
        Some(_) => "the weights that were wanted",
        None => "weights that nobody vouches for: pin them with --model ID@MANIFEST_SHA256",
    };
    terminal.line(format!("       model {} {}: {whose}", model.id, model.manifest_sha256));
    timings.push(stage.done(format!("{} nodes answered our own nonces; every check passed", nodes.len())));

    let stage = begin("seal");
    let (sealed, submit) = seal(ask, user, job, &preview, &nodes, &model).await?;
    timings.push(stage.done(format!("the key is sealed to {} nodes; prompt {}", nodes.len(), submit.prompt_cid)));

    let of_job = |failure: Failure| Failure { message: format!("job {job}: {}", failure.message), ..failure };
    let stage = begin("submit");
    self::submit(user, &submit, until).await.map_err(of_job)?;
    timings.push(stage.done(format!("job {job}")));

    let stage = begin("wait");
    let say = |phase| {
        reached.set(phase);
        stage.say(phase);
    };
    let status = wait(user, &job, until, say).await.map_err(of_job)?;
    timings.push(stage.done("the quorum accepted"));

    let stage = begin("open");
    let text = open(ask, user, &sealed, &status, &nodes, until).await.map_err(of_job)?;
    timings.push(stage.done("commitment and signature are the attested leader's"));

    let member = |node| member(ask, user, node, &status);
    let quorum = status.quorum.iter().filter_map(|address| nodes.get(address)).map(member).collect();
    let spares = nodes.values().filter(|node| !status.quorum.contains(&node.address)).map(member).collect();
    // Of all to whom the key was sealed, spares that never ran too.
    let weakest = nodes.values().min_by_key(|n| n.tier);
    let (tier, meaning) = weakest.map_or((0, ""), |n| (n.tier, n.meaning));
    Ok(Report { schema: "blf.ask/v1", job_id: job, model, text, tier, meaning, quorum, spares, timings })
}

async fn preview(ask: &Ask<'_>, user: &User<'_>, stage: &Stage) -> Result<QuorumPreview, Failure> {
    let path = format!(
        "/v1/inference/quorum-preview?model_id={}&verifier_count={}&spares={}",
        ask.model.id, ask.verifiers, ask.spares
    );
    let until = Instant::now() + ask.quorum_within;
    let preview: QuorumPreview = loop {
        match user.get(&path).await {
            Err(failure) if failure.code == "TOO_FEW_NODES" && Instant::now() < until => {
                stage.say(&failure.message);
                sleep(POLL).await;
            }
            Err(failure) if failure.code == "TOO_FEW_NODES" => {
                return Err(
                    failure.hint("wait for more nodes with --wait-for-quorum SECONDS, or ask for fewer verifiers")
                );
            }
            other => break other?,
        }
    };
    if preview.verifiers.len() != usize::from(ask.verifiers) || preview.spares.len() > usize::from(ask.spares) {
        return Err(Failure::new(
            Exit::Failed,
            "QUORUM_SIZE",
            format!(
                "quorum: wanted {} verifiers and at most {} spares, got {} and {}",
                ask.verifiers,
                ask.spares,
                preview.verifiers.len(),
                preview.spares.len()
            ),
        ));
    }
    Ok(preview)
}

/// Has every candidate answer a nonce of its own and appraises what comes.
async fn appraise(
    ask: &Ask<'_>,
    user: &User<'_>,
    candidates: &[&Candidate],
    terminal: &Terminal,
) -> Result<BTreeMap<Address, Node>, Failure> {
    let mut asked = Vec::new();
    for candidate in candidates {
        asked.push(fresh::ask(user, candidate.address, Hex(random()?)).await?);
    }
    let mut nodes = BTreeMap::new();
    fresh::collect(user, asked, |asked, evidence| {
        let (address, nonce) = (asked.node, asked.nonce);
        let node = ask.reference.appraise_preview(&evidence, address, user.address(), nonce, now())?;
        let passed = format!("node {address}: {} checks, tier {} ({})", node.checks, node.tier, node.measurement);
        terminal.check(true, passed);
        if let Some(dir) = &ask.keep_evidence {
            let file = shell_word(&keep(dir, address, &evidence)?);
            let (audience, at) = (user.address(), written(node.at));
            let asked = format!("--nonce {nonce} --audience {audience} --at {at}{}", ask.chosen);
            terminal.line(format!("       blf verify {file} {asked}"));
        }
        nodes.insert(address, node);
        Ok(())
    })
    .await?;
    check_distinct(&nodes, candidates.len())?;
    Ok(nodes)
}

/// As many nodes as were proposed, each with keys of its own: an account is only a name, but keys are born in a guest, so
/// two names with one key are one guest.
fn check_distinct(nodes: &BTreeMap<Address, Node>, wanted: usize) -> Result<(), Failure> {
    let hpke: BTreeSet<_> = nodes.values().map(|node| node.keys.hpke).collect();
    let response: BTreeSet<_> = nodes.values().map(|node| node.keys.response).collect();
    let got = nodes.len().min(hpke.len()).min(response.len());
    if got != wanted {
        let message = format!("quorum: wanted {wanted} nodes with keys of their own, got {got}");
        return Err(Failure::new(Exit::Rejected, "QUORUM_DUPLICATE", message));
    }
    Ok(())
}

/// Where a node's evidence is kept.
fn kept(dir: &Path, node: Address) -> PathBuf {
    dir.join(format!("{node}.json"))
}

/// Writes a node's evidence to a file of its own.
fn keep(dir: &Path, node: Address, evidence: &Evidence) -> Result<PathBuf, Failure> {
    let file = kept(dir, node);
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, "WRITE", format!("{}: {e}", file.display()));
    let text = evidence.to_json().map_err(|e| failed(&e))?;
    std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file, text)).map_err(|e| failed(&e))?;
    Ok(file)
}

async fn seal(
    ask: &Ask<'_>,
    user: &User<'_>,
    job: Hex<32>,
    preview: &QuorumPreview,
    nodes: &BTreeMap<Address, Node>,
    model: &Model,
) -> Result<(Sealed, Submit), Failure> {
    let closed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, "SEAL", e);
    let sealed = Sealed {
        job,
        prompt_key: Key::random().map_err(|e| closed(&e))?,
        reply: HpkeKey::generate().map_err(|e| closed(&e))?,
    };
    let context = JobContext {
        cofhe: None,
        job_id: sealed.job,
        measurements: ask.reference.measurements(),
        max_new_tokens: ask.max_new_tokens,
        model_manifest_sha256: model.manifest_sha256,
        not_after: now().plus(ask.deadline.as_secs()),
        reply_hpke: sealed.reply.public(),
        user: user.address(),
        v: 1,
    };
    let blob = seal_prompt(&sealed.prompt_key, &context, &ask.prompt).map_err(|e| closed(&e))?;
    let prompt_cid = upload(ask, user.client(), &blob).await?;
    let context = context.to_canonical().map_err(|e| closed(&e))?;
    let mut shares = Vec::new();
    for node in nodes.values() {
        shares.push(seal_share(&sealed.prompt_key, node.address, node.keys.hpke, &context).map_err(|e| closed(&e))?);
    }
    let submit = Submit {
        context,
        leader: preview.leader.address,
        model_id: model.id.clone(),
        prompt_cid,
        shares,
        spares: preview.spares.iter().map(|c| c.address).collect(),
        verifiers: preview.verifiers.iter().map(|c| c.address).collect(),
    };
    Ok((sealed, submit))
}

/// The model that every node must hold: the manifest that was asked for, or else the same on all.
fn common_model(model: &ModelName, nodes: &BTreeMap<Address, Node>) -> Result<Model, Failure> {
    let (id, mut common) = (&model.id, model.manifest_sha256);
    for node in nodes.values() {
        let Some(held) = node.models.iter().find(|m| m.id == *id) else {
            return Err(Failure::new(
                Exit::Rejected,
                "MODEL_UNKNOWN",
                format!("node {}: wanted model {id}, its evidence names none such", node.address),
            ));
        };
        let wanted = *common.get_or_insert(held.manifest_sha256);
        if held.manifest_sha256 != wanted {
            return Err(Failure::new(
                Exit::Rejected,
                "MODEL_DIFFERS",
                format!("node {}: wanted manifest {wanted} of {id}, got {}", node.address, held.manifest_sha256),
            ));
        }
    }
    let manifest_sha256 = common
        .ok_or_else(|| Failure::new(Exit::Failed, "QUORUM_SIZE", "quorum: wanted at least one node, got none"))?;
    Ok(Model { id: id.clone(), manifest_sha256 })
}

/// Pins the sealed prompt and checks that the store named the bytes it got.
async fn upload(ask: &Ask<'_>, client: &Client, blob: &[u8]) -> Result<String, Failure> {
    let boundary = format!("blf-{}", cid::of(blob));
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"blf-prompt.bin\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(blob);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|_| Failure::new(Exit::Config, "PINNING_TOKEN", "pinning token: wanted ASCII"))
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, value(&format!("multipart/form-data; boundary={boundary}"))?);
    let mut token = value(&format!("Bearer {}", ask.network.pinning_token))?;
    token.set_sensitive(true);
    headers.insert(AUTHORIZATION, token);
    let path = "/pinning/pinFileToIPFS";
    let reply = client.request(&ask.profile.blob_pinning, Method::POST, path, headers, Bytes::from(body), 4096).await?;
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, "UPLOAD", format!("{path}: {e}"));
    if reply.status != StatusCode::OK {
        return Err(failed(&format!("HTTP {}", reply.status)));
    }
    // A pinning service answers with more members than the one that matters.
    let pinned: Pinned = serde_json::from_slice(&reply.body).map_err(|e| failed(&e))?;
    cid::check(&pinned.cid, blob).map_err(|e| failed(&e))?;
    Ok(pinned.cid)
}

/// Submits until the ICL says that it has the job: what a reply that got lost was about, nobody knows.
async fn submit(user: &User<'_>, submit: &Submit, until: Instant) -> Result<(), Failure> {
    match poll(until, async || user.post::<Done>("/v1/inference/requests", submit).await).await {
        // The one before arrived. A job's id is drawn at random: nobody else has submitted it.
        Err(failure) if failure.code == "ALREADY_SUBMITTED" => Ok(()),
        other => other.map(drop),
    }
}

async fn wait(
    user: &User<'_>,
    job: &Hex<32>,
    until: Instant,
    say: impl Fn(&'static str),
) -> Result<RequestStatus, Failure> {
    let path = format!("/v1/inference/{job}");
    loop {
        let status: RequestStatus = poll(until, async || user.get(&path).await).await?;
        let reason = match &status.reason {
            Some(reason) => format!("the ICL says: {}", escaped(reason)),
            None => "the ICL gives no reason".into(),
        };
        match status.phase {
            Phase::Accepted => return Ok(status),
            Phase::Rejected => return Err(Failure::new(Exit::Rejected, "QUORUM_REJECTED", reason)),
            Phase::Failed => return Err(Failure::new(Exit::Failed, "JOB_FAILED", reason)),
            Phase::Queued => say("waiting for the nodes to claim"),
            Phase::Committing => say("the model runs"),
            Phase::Revealing => say("all committed; the leader reveals"),
            Phase::Verifying => say("the verifiers reveal"),
        }
        sleep(POLL).await;
    }
}

async fn open(
    ask: &Ask<'_>,
    user: &User<'_>,
    sealed: &Sealed,
    status: &RequestStatus,
    nodes: &BTreeMap<Address, Node>,
    until: Instant,
) -> Result<String, Failure> {
    let rejected = |code: &str, e: &dyn std::fmt::Display| Failure::new(Exit::Rejected, code, e);
    let (Some(answer), Some(signature)) = (&status.answer, &status.signature) else {
        return Err(rejected("ANSWER_MISSING", &"accepted job: wanted an answer and a signature, got none"));
    };
    check_answer(answer, sealed, status, nodes)?;
    let signed = answer.signed_text().map_err(|e| rejected("ANSWER", &e))?;
    signature.verify(signed.as_bytes(), answer.response).map_err(|e| rejected("ANSWER_SIGNATURE", &e))?;
    check_quorum(answer, status, nodes, 1 + usize::from(ask.verifiers))?;

    let path = format!("/ipfs/{}", answer.output_cid);
    let blob = poll(until, async || fetch(ask, user.client(), &path).await).await?;
    cid::check(&answer.output_cid, &blob).map_err(|e| rejected("ANSWER_CID", &e))?;
    let key = open_output_key(&sealed.reply, &answer.output_key, &sealed.job, &answer.output_cid)
        .map_err(|e| rejected("ANSWER_KEY", &e))?;
    let text = open_answer(&key, &blob).map_err(|e| rejected("ANSWER_TAG", &e))?;
    let got = commitment::commitment(&sealed.prompt_key, &sealed.job, &text);
    if got != answer.commitment {
        let message = format!("commitment: wanted {}, the opened text gives {got}", answer.commitment);
        return Err(rejected("ANSWER_COMMITMENT", &message));
    }
    String::from_utf8(text.expose().to_vec()).map_err(|_| rejected("ANSWER_TEXT", &"answer: wanted UTF-8"))
}

/// What the gateway has at `path`; a failure that passes where it may have it yet.
async fn fetch(ask: &Ask<'_>, client: &Client, path: &str) -> Result<Bytes, Failure> {
    let (gateway, cap) = (&ask.profile.blob_gateway, blf_bridge::blob::BLOB_CAP);
    let reply = client.request(gateway, Method::GET, path, HeaderMap::new(), Bytes::new(), cap).await?;
    let code = match reply.status.as_u16() {
        200 => return Ok(reply.body),
        404 | 408 | 429 | 500.. => "ANSWER_BLOB",
        _ => "BAD_REPLY",
    };
    Err(Failure::new(Exit::Failed, code, format!("{}{path}: HTTP {}", gateway.name, reply.status)))
}

/// The quorum is as large as asked for, of distinct nodes whose evidence was appraised, and enough of its verifiers confirm.
/// A verdict counts by the signature of the response key that its node's evidence named, over the commitment of `answer`.
fn check_quorum(
    answer: &Answer,
    status: &RequestStatus,
    nodes: &BTreeMap<Address, Node>,
    size: usize,
) -> Result<(), Failure> {
    let rejected = |code: &str, message: String| Err(Failure::new(Exit::Rejected, code, message));
    let distinct: BTreeSet<&Address> = status.quorum.iter().collect();
    if distinct.len() != size || status.quorum.len() != size {
        let got = status.quorum.len();
        return rejected("QUORUM_SIZE", format!("quorum: wanted {size} distinct nodes, got {got}"));
    }
    if let Some(stranger) = status.quorum.iter().find(|node| !nodes.contains_key(node)) {
        let message = format!("quorum: wanted nodes whose evidence was appraised, got {stranger}");
        return rejected("QUORUM_STRANGER", message);
    }
    let invented = status.verdicts.iter().find(|v| {
        let text = v.verdict.signed_text(&answer.job_id, &answer.commitment);
        nodes.get(&v.node).is_none_or(|n| v.signature.verify(text.as_bytes(), n.keys.response).is_err())
    });
    if let Some(NodeVerdict { node, verdict, .. }) = invented {
        let message = format!("verdict: wanted {verdict:?} signed by the response key in the evidence of {node}");
        return rejected("VERDICT_SIGNATURE", message);
    }
    let confirms = |node: &&Address| status.verdicts.iter().any(|v| v.node == **node && v.verdict == Verdict::Confirm);
    // The leader stands behind its own answer; two thirds in all, rounded up, as the network has it.
    let (wanted, got) = ((2 * size).div_ceil(3), 1 + status.quorum.iter().skip(1).filter(confirms).count());
    if got < wanted {
        return rejected("QUORUM_VERDICTS", format!("quorum: wanted {wanted} of {size} behind the answer, got {got}"));
    }
    Ok(())
}

/// The answer is for this job, by the response key that the leader's evidence named.
fn check_answer(
    answer: &Answer,
    sealed: &Sealed,
    status: &RequestStatus,
    nodes: &BTreeMap<Address, Node>,
) -> Result<(), Failure> {
    let rejected = |code: &str, message: String| Failure::new(Exit::Rejected, code, message);
    if answer.job_id != sealed.job {
        let message = format!("answer: wanted job {}, got {}", sealed.job, answer.job_id);
        return Err(rejected("ANSWER_JOB", message));
    }
    let Some(leader) = status.quorum.first().and_then(|a| nodes.get(a)) else {
        return Err(rejected("ANSWER_LEADER", "answer: wanted a leader whose evidence was appraised".into()));
    };
    if leader.keys.response != answer.response {
        let message = format!("answer: wanted response key {}, got {}", leader.keys.response, answer.response);
        return Err(rejected("ANSWER_KEY_UNKNOWN", message));
    }
    Ok(())
}

fn member(ask: &Ask<'_>, user: &User<'_>, node: &Node, status: &RequestStatus) -> Member {
    Member {
        node: node.address,
        tier: node.tier,
        measurement: node.measurement.clone(),
        verdict: status.verdicts.iter().find(|v| v.node == node.address).map(|v| v.verdict),
        nonce: node.nonce,
        audience: user.address(),
        at: node.at,
        evidence: ask.keep_evidence.as_ref().map(|dir| kept(dir, node.address)),
    }
}

#[cfg(test)]
mod tests {
    use blf_evidence::eip191::{self, Signature};
    use blf_evidence::job::SealedKey;
    use blf_evidence::statement::Keys;

    use super::*;

    /// The response key of node `byte`.
    fn response(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    fn nodes() -> BTreeMap<Address, Node> {
        let node = |byte| {
            let address = Address([byte; 20]);
            let keys = Keys {
                cofhe_sealing: Hex([3; 32]),
                hpke: Hex([byte; 32]),
                node: address,
                response: eip191::address(response(byte).verifying_key()),
                tls_spki_sha256: Hex([7; 32]),
            };
            let models = vec![Model { id: "blf-tiny-1".into(), manifest_sha256: Hex([0x11; 32]) }];
            let (nonce, at, measurement) = (Hex([5; 32]), UnixTime(0), String::new());
            (address, Node { address, nonce, at, keys, models, measurement, tier: 0, meaning: "", checks: 0 })
        };
        (1..=4).map(node).collect()
    }

    fn answer() -> Answer {
        Answer {
            job_id: Hex([0; 32]),
            commitment: Hex([8; 32]),
            output_cid: "bafkreia".into(),
            output_key: SealedKey { enc: Hex([1; 32]), ct: Hex([2; 48]) },
            response: eip191::address(response(1).verifying_key()),
            v: 1,
        }
    }

    /// What node `byte` says of `answer`, signed by `signer`.
    fn verdict(byte: u8, verdict: Verdict, answer: &Answer, signer: u8) -> NodeVerdict {
        let text = verdict.signed_text(&answer.job_id, &answer.commitment);
        let signature = Signature::sign(&response(signer), text.as_bytes());
        NodeVerdict { node: Address([byte; 20]), verdict, signature }
    }

    fn check_signed(quorum: &[u8], verdicts: Vec<NodeVerdict>, size: usize) -> Option<String> {
        let status = RequestStatus {
            job_id: Hex([0; 32]),
            phase: Phase::Accepted,
            answer: None,
            signature: None,
            verdicts,
            quorum: quorum.iter().map(|n| Address([*n; 20])).collect(),
            reason: None,
        };
        check_quorum(&answer(), &status, &nodes(), size).err().map(|failure| failure.code)
    }

    fn check(quorum: &[u8], verdicts: &[(u8, Verdict)], size: usize) -> Option<String> {
        let signed = verdicts.iter().map(|(n, v)| verdict(*n, *v, &answer(), *n));
        check_signed(quorum, signed.collect(), size)
    }

    #[test]
    fn one_guest_is_no_quorum() {
        let code = |nodes: &BTreeMap<Address, Node>, wanted| check_distinct(nodes, wanted).err().map(|f| f.code);
        let duplicate = Some("QUORUM_DUPLICATE".to_owned());
        assert_eq!(code(&nodes(), 4), None);
        assert_eq!(code(&nodes(), 5), duplicate, "one name twice");
        type Change = fn(&mut Keys, &Keys);
        let changes: [Change; 2] =
            [|keys, others| keys.hpke = others.hpke, |keys, others| keys.response = others.response];
        for change in changes {
            let (mut nodes, other) = (nodes(), nodes()[&Address([1; 20])].keys.clone());
            change(&mut nodes.get_mut(&Address([2; 20])).unwrap().keys, &other);
            assert_eq!(code(&nodes, 4), duplicate, "two names, one key");
        }
    }

    #[test]
    fn the_model_is_the_one_that_was_asked_for() {
        let common = |name: &str| common_model(&name.parse().unwrap(), &nodes()).map(|model| model.manifest_sha256);
        let (held, other) = (Hex([0x11; 32]), Hex([0x12; 32]));
        assert_eq!(common("blf-tiny-1"), Ok(held), "whatever all hold");
        assert_eq!(common(&format!("blf-tiny-1@{held}")), Ok(held));
        // All agree, and still it is another model under the same name.
        let refused = common(&format!("blf-tiny-1@{other}")).unwrap_err();
        assert_eq!((refused.exit, refused.code.as_str()), (Exit::Rejected, "MODEL_DIFFERS"));
        assert!(refused.message.contains(&format!("wanted manifest {other} of blf-tiny-1, got {held}")), "{refused}");
        assert_eq!(common("blf-huge-9").unwrap_err().code, "MODEL_UNKNOWN");
    }

    #[test]
    fn the_quorum_is_what_was_asked_for() {
        use Verdict::{Confirm, Reject};
        assert_eq!(check(&[1], &[], 1), None);
        assert_eq!(check(&[1, 2, 4], &[(2, Confirm)], 3), None, "two of three");
        let code = |code: &str| Some(code.to_owned());
        assert_eq!(check(&[1], &[], 3), code("QUORUM_SIZE"), "the leader alone");
        assert_eq!(check(&[1, 2, 2], &[(2, Confirm)], 3), code("QUORUM_SIZE"), "one node twice");
        assert_eq!(check(&[1, 2, 9], &[(2, Confirm)], 3), code("QUORUM_STRANGER"));
        assert_eq!(check(&[1, 2, 3], &[(2, Reject)], 3), code("QUORUM_VERDICTS"));
        assert_eq!(check(&[1, 2, 3], &[(1, Confirm), (4, Confirm)], 3), code("QUORUM_VERDICTS"), "nobody's verdict");
    }

    #[test]
    fn an_invented_verdict_is_refused() {
        use Verdict::{Confirm, Reject};
        let (answer, refused) = (answer(), Some("VERDICT_SIGNATURE".to_owned()));
        let check = |said: NodeVerdict| check_signed(&[1, 2, 3], vec![said], 3);
        assert_eq!(check(verdict(2, Confirm, &answer, 2)), None);
        assert_eq!(check(verdict(2, Confirm, &answer, 1)), refused, "signed by the leader");
        assert_eq!(check(verdict(9, Confirm, &answer, 9)), refused, "of a node that nobody appraised");
        let turned = NodeVerdict { verdict: Confirm, ..verdict(2, Reject, &answer, 2) };
        assert_eq!(check(turned), refused, "a rejection turned round");
        for other in
            [Answer { commitment: Hex([9; 32]), ..answer.clone() }, Answer { job_id: Hex([9; 32]), ..answer.clone() }]
        {
            assert_eq!(check(verdict(2, Confirm, &other, 2)), refused, "said of another answer");
        }
    }
}
