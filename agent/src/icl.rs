//! The typed client of the coordinator: every request signed by the vault, every reply strict and bounded.

use std::borrow::Cow;
use std::time::Duration;

use blf_evidence::icl::{
    Activate, ActivateReply, Assignments, Attest, AttestReply, BODY_CAP, Challenge, Claim, ClaimReply, Commit, Done,
    Enroll, EnrollReply, Fail, FreshEvidence, HEADER_ADDRESS, HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP,
    Heartbeat, JobStatus, LeaderResult, Refusal, Time, VerifierResult,
};
use blf_evidence::{Address, Hex, json};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::courier::https::{HttpError, Https, Outgoing, Reply};
use crate::courier::vault::{CallError, Vault};
use crate::frames::{FromVault, Method, ToVault};
use crate::tunnel::Tunnel;

/// The coordinator.
pub struct Icl<T> {
    https: Https<T>,
    vault: Vault,
    node: Address,
}

/// Why the ICL did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IclError {
    /// Another reply than asked for.
    #[error("icl: {0}")]
    Malformed(String),
    /// No reply.
    #[error("icl: {0}")]
    Http(#[from] HttpError),
    /// No random numbers.
    #[error("icl: no random nonce")]
    Randomness,
    /// It refused.
    #[error("icl: refused with {status} {code}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The ICL's code, or `HTTP_` and the status.
        code: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// The vault did not sign.
    #[error("icl: {0}")]
    Vault(#[from] CallError),
}

/// What a failure means for the next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The ICL has this already: as good as done.
    AlreadyDone,
    /// The ICL does not know this node, or no longer: seek admission again.
    Forgotten,
    /// The same request would be refused again.
    Final,
    /// Worth another attempt later.
    Later,
}

/// How long the vault may take to sign.
const SIGN: Duration = Duration::from_secs(10);

impl<T: Tunnel> Icl<T> {
    /// The coordinator behind `https`, spoken to in the name of `node`.
    pub fn new(https: Https<T>, vault: Vault, node: Address) -> Self {
        Self { https, vault, node }
    }

    /// Its DNS name: the audience of admission.
    pub fn name(&self) -> &str {
        self.https.name()
    }

    /// Uses no connection made before.
    pub fn renew(&self) {
        self.https.renew();
    }

    /// The ICL's time. Not signed: before it comes, the guest has no time to sign with.
    ///
    /// # Errors
    /// [`IclError`], here and below.
    pub async fn time(&self, nonce: &Hex<32>) -> Result<Time, IclError> {
        let path = format!("/internal/time?nonce={nonce}");
        let outgoing = Outgoing { method: hyper::Method::GET, path, headers: vec![], body: Bytes::new() };
        parse("time", self.https.send(outgoing, BODY_CAP).await?)
    }

    /// A challenge for admission.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn challenge(&self) -> Result<Challenge, IclError> {
        self.get("challenge", format!("/internal/challenge/{}", self.node)).await
    }

    /// First half of enrolling an AK.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn enroll(&self, enroll: &Enroll) -> Result<EnrollReply, IclError> {
        self.post("enrolment", "/internal/enroll", enroll).await
    }

    /// Second half of enrolling an AK.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn activate(&self, activate: &Activate) -> Result<ActivateReply, IclError> {
        self.post("activation", "/internal/enroll/activate", activate).await
    }

    /// Evidence for a certificate.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn attest(&self, attest: &Attest) -> Result<AttestReply, IclError> {
        self.post("certificate", "/internal/attestation/verify", attest).await
    }

    /// What waits for this node.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn assignments(&self) -> Result<Assignments, IclError> {
        self.get("assignments", format!("/internal/assignments/{}", self.node)).await
    }

    /// Fresh evidence for a user.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn evidence(&self, evidence: &FreshEvidence) -> Result<Done, IclError> {
        self.post("evidence", "/internal/evidence", evidence).await
    }

    /// Takes a job.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn claim(&self, job: Hex<32>) -> Result<ClaimReply, IclError> {
        self.post("claim", "/internal/task/claim", &Claim { job_id: job, node_address: self.node }).await
    }

    /// First half of commit-then-reveal.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn commit(&self, job: Hex<32>, commit: Hex<32>) -> Result<Done, IclError> {
        self.post("commit", "/internal/task/commit", &Commit { job_id: job, node_address: self.node, commit }).await
    }

    /// The leader's reveal.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn result(&self, result: &LeaderResult) -> Result<Done, IclError> {
        self.post("result", "/internal/task/result", result).await
    }

    /// A verifier's reveal.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn verify(&self, result: &VerifierResult) -> Result<Done, IclError> {
        self.post("verdict", "/internal/task/verify", result).await
    }

    /// Hands a job back.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn fail(&self, job: Hex<32>, reason: String) -> Result<Done, IclError> {
        self.post("hand back", "/internal/task/fail", &Fail { job_id: job, node_address: self.node, reason }).await
    }

    /// How far a job is.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn status(&self, job: Hex<32>) -> Result<JobStatus, IclError> {
        self.get("job status", format!("/internal/jobs/{job}/status")).await
    }

    /// The node lives.
    ///
    /// # Errors
    /// [`IclError`].
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<Done, IclError> {
        self.post("heartbeat", "/internal/heartbeat", heartbeat).await
    }

    async fn get<R: DeserializeOwned>(&self, what: &'static str, path: String) -> Result<R, IclError> {
        self.send(what, Method::Get, path, Bytes::new()).await
    }

    async fn post<R: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<R, IclError> {
        let body = json::canonical(what, body).map_err(|e| IclError::Malformed(e.to_string()))?;
        self.send(what, Method::Post, path.into(), body.into()).await
    }

    async fn send<R: DeserializeOwned>(
        &self,
        what: &'static str,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<R, IclError> {
        // Once for each idle connection that turns out to be closed, and once for a new one.
        loop {
            let connection = self.https.connect().await?;
            let reused = connection.is_reused();
            // Signed anew each time: a nonce is never used twice.
            let outgoing = self.sign(method, path.clone(), body.clone()).await?;
            match self.https.exchange(connection, outgoing, BODY_CAP).await {
                Err(HttpError::Closed) if reused => {}
                reply => return parse(what, reply?),
            }
        }
    }

    async fn sign(&self, method: Method, path: String, body: Bytes) -> Result<Outgoing, IclError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| IclError::Randomness)?;
        let nonce = Hex(nonce);
        let body_sha256 = Hex(Sha256::digest(&body).into());
        let call = ToVault::SignRequest { method, path: path.clone(), body_sha256, nonce };
        let FromVault::Signed { time, signature } = self.vault.call(call, SIGN).await? else {
            return Err(CallError::Unexpected.into());
        };
        let mut headers = Vec::with_capacity(5);
        for (name, value) in [
            (HEADER_ADDRESS, self.node.to_string()),
            (HEADER_TIMESTAMP, time.to_string()),
            (HEADER_NONCE, nonce.to_string()),
            (HEADER_SIGNATURE, signature.to_string()),
        ] {
            headers
                .push((HeaderName::from_static(name), HeaderValue::try_from(value).map_err(|_| HttpError::Request)?));
        }
        let method = match method {
            Method::Get => hyper::Method::GET,
            Method::Post => {
                headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
                hyper::Method::POST
            }
        };
        Ok(Outgoing { method, path, headers, body })
    }
}

impl IclError {
    /// Stable, in capitals.
    pub fn code(&self) -> Cow<'_, str> {
        match self {
            Self::Malformed(_) => "REPLY_MALFORMED".into(),
            Self::Http(error) => error.code().into(),
            Self::Randomness => "NO_RANDOMNESS".into(),
            Self::Refused { code, .. } => code.into(),
            Self::Vault(error) => error.code().into(),
        }
    }

    /// When the ICL wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What it means for the next attempt.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Malformed(_) | Self::Http(_) | Self::Randomness => Outcome::Later,
            Self::Refused { status, code, .. } => match status.as_u16() {
                401 => Outcome::Forgotten,
                404 if code == "UNKNOWN_NODE" => Outcome::Forgotten,
                409 if code.starts_with("ALREADY_") => Outcome::AlreadyDone,
                408 | 429 | 500..=599 => Outcome::Later,
                _ => Outcome::Final,
            },
            Self::Vault(CallError::Silent(_)) => Outcome::Later,
            Self::Vault(_) => Outcome::Final,
        }
    }

    /// Of a request about the node itself: the ICL does not know it. There 404 can mean nothing else.
    pub fn node_is_unknown(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 404))
    }
}

fn parse<R: DeserializeOwned>(what: &'static str, reply: Reply) -> Result<R, IclError> {
    if reply.status == StatusCode::OK {
        return json::parse(what, &reply.body, BODY_CAP).map_err(|e| IclError::Malformed(e.to_string()));
    }
    Err(refused(reply))
}

/// Reads a refusal.
pub(crate) fn refused(reply: Reply) -> IclError {
    let Reply { status, retry_after, body } = reply;
    // A refusal without our code is one all the same: from a proxy, or from another ICL.
    let code = json::parse::<Refusal>("refusal", &body, BODY_CAP)
        .map_or_else(|_| format!("HTTP_{}", status.as_u16()), |refusal| refusal.code);
    IclError::Refused { status, code, retry_after }
}
