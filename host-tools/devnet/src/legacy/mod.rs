//! The coordinator as the network has it today, and its payment service: endpoints, shapes and slips, so that the
//! published node runs here unchanged. Left out, since neither that node nor a text job needs them: `/internal/operators`
//! and all below it, `GET /v1/inference`, below `/v1/inference/{id}` the `leader-result`, `verdicts`, `commit`, `dispute`
//! and `feedback`, the payment service's `/v1/credits` and `/v1/developers`, and CORS. What it does is what
//! `protocol: legacy` of a profile promises, no more:
//!
//! ```text
//! node: challenge → attestation (not looked at) → certificate → poll → claim: handles → result or verdict
//! user: preview → upload prompt → submit → status;   equal commitments → accepted → rewards
//! ```

mod auth;
mod client;
mod faults;
mod http;
mod jobs;
mod nodes;
mod payment;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::U256;
use blf_evidence::{Address, Hex, UnixTime};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

pub use faults::{Fault, Faults};

use crate::legacy::auth::Signer;
use crate::legacy::http::Problem;
use crate::peer::Peer;
use crate::refusal::{Refused, Result};
use crate::routes::{Call, Reply};
use crate::state::{Schema, State, Turn};
use crate::{Settings, random};

/// Where prompts are uploaded: the one request to the coordinator that carries a blob.
pub(crate) const UPLOAD: &str = "/v1/inference/upload-prompt";
/// Longest body of any other request, in bytes.
pub(crate) const BODY_CAP: usize = 64 * 1024;

pub(crate) const SCHEMA: Schema = Schema {
    version: 1001,
    tables: "
    CREATE TABLE nodes (address TEXT PRIMARY KEY, document TEXT) STRICT;
    CREATE TABLE jobs (id TEXT PRIMARY KEY, task TEXT UNIQUE, document TEXT) STRICT;
    CREATE TABLE seats (job TEXT, node TEXT, PRIMARY KEY (node, job)) WITHOUT ROWID, STRICT;
    CREATE TABLE payments (job TEXT PRIMARY KEY, task TEXT, document TEXT) STRICT;
    CREATE INDEX payments_of_task ON payments (task);
",
};

/// How a legacy coordinator is to be.
#[derive(Clone, Debug)]
pub struct LegacyOptions {
    /// Where to listen for plain HTTP, on loopback; port 0 takes a free one.
    pub plain: SocketAddr,
    /// Whose requests it takes.
    pub accept: Accept,
    /// True to choose only nodes that offer the model, which today's does not.
    pub match_models: bool,
    /// True to act as if the coordinator could store prompt keys itself: jobs are queued at once, and handles are the
    /// submission's where the chain has none. False as on a real chain: a job waits until its user has stored them.
    pub mock_chain: bool,
    /// Seconds for which a node is given the same assignments again.
    pub assignment_cache: u64,
    /// Seconds from claim to result.
    pub claim_timeout: u64,
    /// What is to go wrong.
    pub faults: Faults,
}

/// Whose requests a legacy coordinator takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// Anybody's, as today: signatures are not looked at.
    Anything,
    /// Nodes must sign what they send; whatever else carries a signature must carry a good one.
    Signatures,
}

/// The coordinator and the payment service.
pub(crate) struct Legacy {
    state: State,
    settings: Arc<Settings>,
    options: LegacyOptions,
    /// What nodes were last told, and when.
    told: Mutex<HashMap<Address, (UnixTime, Vec<Value>)>>,
}

/// Parts of a request's path.
type Path<'a> = [&'a str];

impl Default for LegacyOptions {
    fn default() -> Self {
        Self {
            plain: SocketAddr::from(([127, 0, 0, 1], 0)),
            accept: Accept::Signatures,
            match_models: false,
            mock_chain: true,
            assignment_cache: 15,
            claim_timeout: 300,
            faults: Faults::default(),
        }
    }
}

impl Legacy {
    pub(crate) fn new(state: State, settings: Arc<Settings>, options: LegacyOptions) -> Self {
        Self { state, settings, options, told: Mutex::default() }
    }

    /// Answers one request, whatever comes of it, in today's shapes.
    pub(crate) async fn answer(&self, call: &Call, peer: Peer, limited: Result<()>) -> Reply {
        let path: Vec<&str> = call.head.uri.path().split('/').skip(1).collect();
        let answered = match (limited, peer) {
            (Err(refused), _) => Err(refused.into()),
            (Ok(()), Peer::Payment) => self.payment(call, &path).await,
            (Ok(()), _) => self.icl(call, &path).await,
        };
        answered.unwrap_or_else(|problem| {
            if let Problem::Refused(refused) = &problem {
                self.state.tell_fault(refused);
            }
            problem.reply()
        })
    }

    /// Nodes that attested.
    pub(crate) async fn nodes(&self) -> Result<usize> {
        self.turn(|turn| nodes::count(turn)).await
    }

    async fn icl(&self, call: &Call, path: &Path<'_>) -> std::result::Result<Reply, Problem> {
        if self.options.faults.forgotten() {
            self.told().clear();
            self.turn(|turn| nodes::forget(turn)).await?;
        }
        if let Some(reply) = self.options.faults.next(call.head.uri.path()) {
            return Ok(reply);
        }
        match (&call.head.method, path) {
            (&Method::GET, [""]) => return ok(&json!({ "message": "Blindference ICL is running" })),
            (&Method::GET, ["health"]) => {
                return ok(&json!({ "status": "ok", "chain_connected": true, "mongo_connected": true }));
            }
            _ => {}
        }
        let now = (self.settings.clock)();
        let signer = Signer::check(call, self.options.accept, now)?;
        match path {
            ["internal", rest @ ..] => self.internal(call, rest, &signer).await,
            ["v1", "inference", rest @ ..] => self.inference(call, rest).await,
            _ => Err(Problem::no_such_endpoint()),
        }
    }

    /// What nodes ask.
    async fn internal(&self, call: &Call, path: &Path<'_>, signer: &Signer) -> std::result::Result<Reply, Problem> {
        let now = (self.settings.clock)();
        match (&call.head.method, path) {
            (&Method::GET, ["challenge", node]) => {
                signer.same(node)?;
                ok(&nodes::challenge(now)?)
            }
            (&Method::POST, ["attestation", "verify"]) => {
                let body = http::object(&call.body)?;
                signer.same(http::text(&body, "nodeAddress"))?;
                let life = self.settings.certificate_life;
                self.done(move |turn| nodes::attest(turn, &body, life)).await
            }
            (&Method::GET, ["assignments", node]) => {
                signer.same(node)?;
                let waiting = match self.assignments(node, now).await {
                    Err(refused) if refused.code == "UNKNOWN_NODE" && self.options.faults.hides_unknown() => Vec::new(),
                    waiting => waiting?,
                };
                ok(&json!({ "assignments": waiting }))
            }
            (&Method::POST, ["task", "claim"]) => {
                let body = http::object(&call.body)?;
                let [job, node] = ["jobId", "nodeAddress"].map(|member| http::text(&body, member).to_owned());
                if job.is_empty() || node.is_empty() {
                    return Err(Refused::malformed("jobId and nodeAddress are required").into());
                }
                signer.same(&node)?;
                let (mock, life) = (self.options.mock_chain, self.options.claim_timeout);
                let (high, low) = self.turn(move |turn| jobs::claim(turn, &job, &node, mock)).await?;
                // Numbers of up to 78 digits, which JSON allows and no number type of ours holds.
                let deadline = now.plus(life);
                let reply = format!(
                    r#"{{"kpHighHandle":{high},"kpLowHandle":{low},"outputKeyGranted":true,"claimDeadline":{deadline}}}"#
                );
                Ok(Reply::new(StatusCode::OK, reply.into_bytes()))
            }
            (&Method::POST, ["task", "result"]) => {
                let (job, body) = http::task(&call.body)?;
                self.done(move |turn| jobs::result(turn, &job, body)).await
            }
            (&Method::POST, ["task", "verify"]) => {
                let (job, body) = http::task(&call.body)?;
                signer.same(http::text(&body, "verifier_address"))?;
                self.done(move |turn| jobs::verify(turn, &job, body)).await
            }
            (&Method::GET, ["jobs", job, "status"]) => {
                let job = (*job).to_owned();
                self.done(move |turn| client::task_status(turn, &job)).await
            }
            (&Method::GET, ["jobs", job, "escrow"]) => {
                let job = (*job).to_owned();
                self.done(move |turn| client::escrow(turn, &job)).await
            }
            (&Method::POST, ["heartbeat"]) => {
                let body = http::object(&call.body)?;
                let node = http::text(&body, "nodeAddress").to_owned();
                if node.is_empty() {
                    return Err(Refused::malformed("nodeAddress is required").into());
                }
                signer.same(&node)?;
                self.done(move |turn| nodes::heartbeat(turn, &node)).await
            }
            _ => Err(Problem::no_such_endpoint()),
        }
    }

    /// What users ask, below `/v1/inference`.
    async fn inference(&self, call: &Call, path: &Path<'_>) -> std::result::Result<Reply, Problem> {
        let options = self.options.clone();
        match (&call.head.method, path) {
            (&Method::GET, ["quorum-preview"]) => {
                let wanted = client::Wanted::from_query(call.head.uri.query().unwrap_or_default())?;
                self.done(move |turn| client::preview(turn, &wanted, options.match_models)).await
            }
            (&Method::POST, ["upload-prompt"]) => {
                let content_type = call.head.headers.get(CONTENT_TYPE).map(|v| v.as_bytes().to_vec());
                let body = call.body.clone();
                self.done(move |turn| client::upload(turn, content_type.as_deref(), &body)).await
            }
            (&Method::POST, ["requests"]) => {
                let request: client::Request = http::parse(&call.body)?;
                let submission = request.submission()?;
                self.done(move |turn| client::submit(turn, submission, &options)).await
            }
            (&Method::POST, ["request"]) => {
                let request: client::FlatRequest = http::parse(&call.body)?;
                let submission = request.submission()?;
                self.done(move |turn| client::submit(turn, submission, &options)).await
            }
            (&Method::GET, ["task", task]) => {
                let task = (*task).to_owned();
                self.done(move |turn| client::status_of_task(turn, &task)).await
            }
            (&Method::GET, [request]) => {
                let request = (*request).to_owned();
                self.done(move |turn| client::status_of_request(turn, &request)).await
            }
            (&Method::POST, [request, "confirm-store-key"]) => {
                let (request, body) = ((*request).to_owned(), http::object(&call.body)?);
                let transaction = http::text(&body, "prompt_key_store_tx").to_owned();
                self.done(move |turn| client::confirm_store_key(turn, &request, &transaction)).await
            }
            (&Method::PATCH, [task, "permit"]) => {
                let (task, permit) = ((*task).to_owned(), http::parse(&call.body)?);
                self.done(move |turn| client::attach_permit(turn, &task, permit)).await
            }
            _ => Err(Problem::no_such_endpoint()),
        }
    }

    /// What the payment service is asked, below `/v1`.
    async fn payment(&self, call: &Call, path: &Path<'_>) -> std::result::Result<Reply, Problem> {
        let options = self.options.clone();
        match (&call.head.method, path) {
            (&Method::GET, ["health"]) => ok(&json!({ "status": "ok" })),
            (&Method::POST, ["v1", "jobs", "submit"]) => {
                let submit: payment::Submit = http::parse(&call.body)?;
                let (record, submission) = submit.split((self.settings.clock)())?;
                self.done(move |turn| payment::submit(turn, &record, submission, &options)).await
            }
            (&Method::GET, ["v1", "jobs", job]) => {
                let job = (*job).to_owned();
                self.done(move |turn| payment::job(turn, &job)).await
            }
            (&Method::POST, ["v1", "jobs", job, "complete"]) => {
                let (job, completion) = ((*job).to_owned(), http::parse(&call.body)?);
                self.done(move |turn| payment::complete(turn, &job, completion)).await
            }
            (&Method::GET, ["v1", "nodes", node, what]) => {
                let (node, what) = (node.to_lowercase(), (*what).to_owned());
                let limit = http::query(call.head.uri.query().unwrap_or_default(), "limit", 20)?;
                let answer = self.turn(move |turn| payment::node(turn, &node, &what, limit)).await?;
                answer.map_or_else(|| Err(Problem::no_such_endpoint()), |answer| ok(&answer))
            }
            (&Method::GET, ["v1", "balance", user]) => ok(&payment::balance(user)),
            _ => Err(Problem::no_such_endpoint()),
        }
    }

    /// What waits for a node: the same answer again for a while, as today, however it spells its address. A node must know
    /// a job it has seen.
    async fn assignments(&self, named: &str, now: UnixTime) -> Result<Vec<Value>> {
        let node = nodes::address(named).map_err(|_| jobs::unknown_node(named))?;
        let cache = self.options.assignment_cache;
        if let Some((_, told)) = self.told().get(&node).filter(|(at, _)| now < at.plus(cache)) {
            return Ok(told.clone());
        }
        let (name, timeout, mock) = (named.to_owned(), self.options.claim_timeout, self.options.mock_chain);
        let waiting = self.turn(move |turn| jobs::waiting(turn, node, &name, timeout, mock)).await?;
        let mut told = self.told();
        told.retain(|_, (at, _)| now < at.plus(cache));
        told.insert(node, (now, waiting.clone()));
        Ok(waiting)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<Address, (UnixTime, Vec<Value>)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.state.turn(work).await
    }

    async fn done(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<Value> + Send + 'static,
    ) -> std::result::Result<Reply, Problem> {
        ok(&self.turn(work).await?)
    }
}

fn ok(document: &Value) -> std::result::Result<Reply, Problem> {
    Ok(Reply::json(document)?)
}

/// A handle as the decimal digits of a JSON number. What is no 256-bit number is no key: zero.
fn decimal(handle: &str) -> String {
    handle.parse::<U256>().unwrap_or_default().to_string()
}

/// A version 4 UUID (RFC 9562).
fn uuid() -> Result<Hex<16>> {
    let mut bytes = random::<16>().map_err(Refused::internal)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Hex(bytes))
}

/// With its dashes.
fn dashed(uuid: Hex<16>) -> String {
    let digits = uuid.to_string();
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
