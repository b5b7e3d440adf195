//! What each [peer](crate::peer) behind the listeners answers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blf_evidence::icl::{self, Done};
use blf_evidence::{Address, json};
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::appraiser::Appraiser;
use crate::auth::{self, Signed};
use crate::cofhe::{self, Answer, Cofhe};
use crate::legacy::{self, Legacy};
use crate::limit::Limiter;
use crate::peer::{Door, Peer};
use crate::refusal::{Refused, Result};
use crate::state::{State, Turn};
use crate::{Mode, Settings, admission, blobs, jobs, relay};

/// Verifiers and spares of a preview that does not say.
const SPARES: usize = 1;

/// A request that has come in whole.
pub(crate) struct Call {
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) peer: IpAddr,
    pub(crate) at: Instant,
}

/// What goes out.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    /// Seconds, for 429 and 503.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// 200 with a JSON document.
    pub(crate) fn json(document: &impl Serialize) -> Result<Self> {
        Ok(Self::new(StatusCode::OK, serde_json::to_vec(document)?))
    }

    /// A status with a JSON document.
    pub(crate) fn new(status: StatusCode, json: Vec<u8>) -> Self {
        Self { status, content_type: "application/json", retry_after: None, body: json }
    }

    fn blob(blob: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, content_type: "application/octet-stream", retry_after: None, body: blob }
    }
}

/// All peers.
pub(crate) struct Routes {
    cofhe: Option<Cofhe>,
    icl: Icl,
    state: State,
    settings: Arc<Settings>,
    /// Requests that are signed, by who signed.
    signers: Mutex<Limiter<Address>>,
    /// All requests, by where they come from: nodes behind one host share it.
    peers: Mutex<Limiter<IpAddr>>,
}

/// The coordinator, by its mode.
enum Icl {
    Legacy(Box<Legacy>),
    Strict(Arc<dyn Appraiser>),
}

impl Routes {
    pub(crate) fn new(state: State, settings: Arc<Settings>, cofhe: Option<Cofhe>) -> Self {
        let signers = Mutex::new(Limiter::new(settings.rate));
        let peers = Mutex::new(Limiter::new(settings.peer_rate));
        let icl = match &settings.mode {
            Mode::Legacy(options) => {
                Icl::Legacy(Box::new(Legacy::new(state.clone(), Arc::clone(&settings), options.clone())))
            }
            Mode::Strict(appraiser) => Icl::Strict(Arc::clone(appraiser)),
        };
        Self { cofhe, icl, state, settings, signers, peers }
    }

    /// For a TLS handshake, and for the head of a request.
    pub(crate) fn patience(&self) -> Duration {
        self.settings.patience
    }

    /// Longest body of a request for this path.
    pub(crate) fn body_cap(&self, door: &Door, path: &str) -> usize {
        match Peer::of(door, path, &self.settings.profile) {
            Peer::Blobs => blobs::BODY_CAP,
            Peer::Chain | Peer::Coordinator | Peer::Python | Peer::Threshold | Peer::Verifier => cofhe::BODY_CAP,
            Peer::Icl | Peer::Payment => match &self.icl {
                Icl::Legacy(_) if path == legacy::UPLOAD => blobs::BODY_CAP,
                Icl::Legacy(_) => legacy::BODY_CAP,
                Icl::Strict(_) => icl::BODY_CAP,
            },
        }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, call: Call, door: &Door) -> Result<Reply> {
        let peer = Peer::of(door, call.head.uri.path(), &self.settings.profile);
        let limited = take(&self.peers, call.peer, call.at);
        if let (Peer::Icl | Peer::Payment, Icl::Legacy(legacy)) = (peer, &self.icl) {
            return Ok(legacy.answer(&call, peer, limited).await);
        }
        limited?;
        let reply = match (peer, &self.icl) {
            (Peer::Icl, Icl::Strict(appraiser)) => self.icl(call, &**appraiser).await,
            (Peer::Blobs, _) => self.blobs(call).await,
            (Peer::Chain, _) => {
                self.may_ask_chain(&call, door)?;
                self.cofhe(call, |cofhe, method, path, body| cofhe.chain().rpc(method, path, body)).await
            }
            (Peer::Coordinator, _) => self.cofhe(call, Cofhe::coordinator).await,
            (Peer::Python, _) => self.cofhe(call, Cofhe::python).await,
            (Peer::Threshold, _) => self.cofhe(call, Cofhe::threshold).await,
            (Peer::Verifier, _) => self.cofhe(call, Cofhe::verifier).await,
            (Peer::Icl | Peer::Payment, _) => Err(no_such(&call.head.method, call.head.uri.path())),
        };
        reply.inspect_err(|refused| self.state.tell_fault(refused))
    }

    async fn icl(&self, call: Call, appraiser: &dyn Appraiser) -> Result<Reply> {
        let method = call.head.method.clone();
        let uri = call.head.uri.clone();
        let path: Vec<&str> = uri.path().split('/').skip(1).collect();
        let query = Query(uri.query().unwrap_or_default());
        // The two requests that nobody signs: the guest has no time to sign with, and the operator's probe no key.
        match (&method, path.as_slice()) {
            (&Method::GET, ["internal", "time"]) => {
                return Reply::json(&admission::signed_time(&self.settings, query.get("nonce")?));
            }
            (&Method::GET, ["health"]) => return self.health().await,
            _ => {}
        }
        let who = self.authenticate(&call).await?;
        let (body, state, settings) = (&call.body, &self.state, &self.settings);
        match (&method, path.as_slice()) {
            (&Method::GET, ["internal", "challenge", node]) => {
                let node = own(who, node)?;
                self.turn(move |turn| admission::challenge(turn, node)).await
            }
            (&Method::POST, ["internal", "enroll"]) => {
                let request: icl::Enroll = parse(body)?;
                auth::same(who, request.node_address)?;
                Reply::json(&admission::enroll(state, request).await?)
            }
            (&Method::POST, ["internal", "enroll", "activate"]) => {
                let request: icl::Activate = parse(body)?;
                auth::same(who, request.node_address)?;
                Reply::json(&admission::activate(state, request).await?)
            }
            (&Method::POST, ["internal", "attestation", "verify"]) => {
                let request: icl::Attest = parse(body)?;
                auth::same(who, request.node_address)?;
                Reply::json(&admission::attest(state, settings, appraiser, request).await?)
            }
            (&Method::GET, ["internal", "assignments", node]) => {
                let node = own(who, node)?;
                self.turn(move |turn| jobs::assignments(turn, node)).await
            }
            (&Method::POST, ["internal", "evidence"]) => {
                let request: icl::FreshEvidence = parse(body)?;
                auth::same(who, request.node_address)?;
                self.done(move |turn| relay::answer(turn, &request)).await
            }
            (&Method::POST, ["internal", "task", "claim"]) => {
                let request: icl::Claim = parse(body)?;
                auth::same(who, request.node_address)?;
                self.turn(move |turn| jobs::claim(turn, &request)).await
            }
            (&Method::POST, ["internal", "task", "commit"]) => {
                let request: icl::Commit = parse(body)?;
                auth::same(who, request.node_address)?;
                self.done(move |turn| jobs::commit(turn, &request)).await
            }
            (&Method::POST, ["internal", "task", "result"]) => {
                let request: icl::LeaderResult = parse(body)?;
                auth::same(who, request.node_address)?;
                self.done(move |turn| jobs::result(turn, &request)).await
            }
            (&Method::POST, ["internal", "task", "verify"]) => {
                let request: icl::VerifierResult = parse(body)?;
                auth::same(who, request.node_address)?;
                self.done(move |turn| jobs::verify(turn, &request)).await
            }
            (&Method::POST, ["internal", "task", "fail"]) => {
                let request: icl::Fail = parse(body)?;
                auth::same(who, request.node_address)?;
                self.done(move |turn| jobs::fail(turn, &request)).await
            }
            (&Method::GET, ["internal", "jobs", job, "status"]) => {
                let job = named(job)?;
                self.turn(move |turn| jobs::status(turn, who, job)).await
            }
            (&Method::POST, ["internal", "heartbeat"]) => {
                let request: icl::Heartbeat = parse(body)?;
                auth::same(who, request.node_address)?;
                self.done(move |turn| admission::heartbeat(turn, &request)).await
            }
            (&Method::GET, ["v1", "inference", "quorum-preview"]) => {
                let model: String = query.get("model_id")?;
                let verifiers = query.get_or("verifier_count", settings.verifier_count)?;
                let spares = query.get_or("spares", SPARES)?;
                self.turn(move |turn| jobs::preview(turn, &model, verifiers, spares)).await
            }
            (&Method::POST, ["v1", "nodes", node, "evidence"]) => {
                let (node, ask): (_, icl::AskEvidence) = (named(node)?, parse(body)?);
                self.turn(move |turn| relay::ask(turn, who, node, &ask)).await
            }
            (&Method::GET, ["v1", "evidence", request]) => {
                let request = (*request).to_owned();
                self.turn(move |turn| relay::reply(turn, who, &request)).await
            }
            (&Method::POST, ["v1", "inference", "requests"]) => {
                let submit: icl::Submit = parse(body)?;
                self.done(move |turn| jobs::submit(turn, who, submit)).await
            }
            (&Method::GET, ["v1", "inference", job]) => {
                let job = named(job)?;
                self.turn(move |turn| jobs::request_status(turn, who, job)).await
            }
            _ => Err(no_such(&method, uri.path())),
        }
    }

    async fn blobs(&self, call: Call) -> Result<Reply> {
        let (method, path) = (&call.head.method, call.head.uri.path());
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (method, segments.as_slice()) {
            (&Method::GET, ["health"]) => self.health().await,
            (&Method::GET, ["ipfs", cid]) => {
                let cid = (*cid).to_owned();
                Ok(Reply::blob(self.state.turn(move |turn| blobs::get(turn, &cid)).await?))
            }
            (&Method::POST, ["pinning", "pinFileToIPFS"]) => {
                let header = |name| call.head.headers.get(name).map(|v| v.as_bytes());
                blobs::authorize(&self.settings.pinning_token, header(AUTHORIZATION))?;
                let content_type = header(CONTENT_TYPE).map(<[u8]>::to_vec);
                self.turn(move |turn| blobs::pin(turn, content_type.as_deref(), &call.body)).await
            }
            _ => Err(no_such(method, path)),
        }
    }

    /// Without its key the chain's RPC answers nobody. The refusal does not repeat the path: it may be nearly the key.
    fn may_ask_chain(&self, call: &Call, door: &Door) -> Result<()> {
        let target = call.head.uri.path_and_query().map_or("/", |target| target.as_str());
        match door {
            Door::Tls(_) if target != self.settings.rpc_path => {
                Err(Refused::new(StatusCode::UNAUTHORIZED, "RPC_PATH", "path: wanted that of an account"))
            }
            _ => Ok(()),
        }
    }

    /// The chain or one of CoFHE's services, which work off the async threads and may take their time.
    async fn cofhe(&self, call: Call, service: fn(&Cofhe, &str, &str, &[u8]) -> Answer) -> Result<Reply> {
        let (method, path) = (call.head.method.to_string(), call.head.uri.path().to_owned());
        let Some(cofhe) = self.cofhe.clone() else { return Err(no_such(&call.head.method, &path)) };
        let answered = tokio::task::spawn_blocking(move || service(&cofhe, &method, &path, &call.body)).await;
        let Answer { status, body, after } =
            answered.map_err(|_| Refused::internal("cofhe: the request was abandoned"))?;
        tokio::time::sleep(after).await;
        Ok(Reply::new(StatusCode::from_u16(status).map_err(Refused::internal)?, body))
    }

    /// Who signed the request. Spends its nonce whatever comes of it.
    async fn authenticate(&self, call: &Call) -> Result<Address> {
        let target = call.head.uri.path_and_query().map_or("/", |target| target.as_str());
        let what = (call.head.method.as_str(), self.settings.audience(), target);
        let signed = Signed::check(&call.head.headers, what, &call.body, (self.settings.clock)())?;
        take(&self.signers, signed.address, call.at)?;
        self.state.turn(move |turn| signed.spend(turn)).await?;
        Ok(signed.address)
    }

    async fn health(&self) -> Result<Reply> {
        let nodes = match &self.icl {
            Icl::Legacy(legacy) => legacy.nodes().await?,
            Icl::Strict(_) => self.state.turn(|turn| Ok(jobs::there(turn)?.len())).await?,
        };
        let name = &self.settings.profile.name;
        Reply::json(&serde_json::json!({ "status": "ok", "network": name, "roots": "development", "nodes": nodes }))
    }

    async fn turn<T: Serialize + Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Reply> {
        Reply::json(&self.state.turn(work).await?)
    }

    async fn done(&self, work: impl FnOnce(&mut Turn<'_>) -> Result<()> + Send + 'static) -> Result<Reply> {
        self.state.turn(work).await?;
        Reply::json(&Done { status: "ok".into() })
    }
}

/// A query string. Values are what our messages carry in it: ids, numbers, hex, so nothing is percent-decoded.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn find(&self, name: &str) -> Result<Option<&str>> {
        let mut found = self.0.split('&').filter_map(|pair| pair.split_once('=')).filter(|(n, _)| *n == name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Refused::malformed(format!("{name}: wanted once, got twice"))),
            (first, _) => Ok(first.map(|(_, value)| value)),
        }
    }

    fn get<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T> {
        let value = self.find(name)?.ok_or_else(|| Refused::malformed(format!("{name}: wanted in the query")))?;
        value.parse().map_err(|e| Refused::malformed(format!("{name}: {e}")))
    }

    fn get_or<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str, default: T) -> Result<T> {
        if self.find(name)?.is_some() { self.get(name) } else { Ok(default) }
    }
}

fn take<K: Eq + std::hash::Hash>(limiter: &Mutex<Limiter<K>>, caller: K, at: Instant) -> Result<()> {
    let taken = limiter.lock().unwrap_or_else(PoisonError::into_inner).take(caller, at);
    taken.map_err(|seconds| Refused::too_many("RATE_LIMITED", "requests: too many", seconds))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    json::parse("body", body, icl::BODY_CAP).map_err(|e| Refused::malformed(e.to_string()))
}

/// The address in a path, which must be the signer's.
fn own(who: Address, segment: &str) -> Result<Address> {
    let node = named(segment)?;
    auth::same(who, node)?;
    Ok(node)
}

/// An address or a job id in a path.
fn named<T: std::str::FromStr<Err: std::fmt::Display>>(segment: &str) -> Result<T> {
    segment.parse().map_err(|e| Refused::malformed(format!("path: {e}")))
}

fn no_such(method: &Method, path: &str) -> Refused {
    let path: String = path.chars().take(128).collect();
    Refused::not_found("NO_SUCH_ENDPOINT", format!("{method} {path} is not one of ours"))
}
