//! The typed client of today's coordinator: the vault writes and signs, every reply is bounded.

use std::time::Duration;

use blf_bridge::cofhe::Handle;
use blf_evidence::Address;
use blf_evidence::icl::{BODY_CAP, HEADER_ADDRESS, HEADER_SIGNATURE, HEADER_TIMESTAMP};
use blf_evidence::json::JsonError;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use crate::courier::https::{HttpError, Https, Outgoing, Reply};
use crate::courier::vault::{CallError, Vault};
use crate::frames::{FromVault, ToVault};
use crate::icl::{IclError, refused};
use crate::legacy::frames::{Ask, Request, Signed, Told};
use crate::legacy::wire::{self, Assignments, Attested, Challenge, JobId, LeaderOutput};
use crate::tunnel::Tunnel;

/// The coordinator.
pub(crate) struct Icl<T> {
    https: Https<T>,
    vault: Vault,
    node: Address,
}

/// How long the vault may take to write and sign.
const SIGN: Duration = Duration::from_secs(10);

impl<T: Tunnel> Icl<T> {
    /// The coordinator behind `https`, spoken to in the name of `node`.
    pub(crate) fn new(https: Https<T>, vault: Vault, node: Address) -> Self {
        Self { https, vault, node }
    }

    /// Uses no connection made before.
    pub(crate) fn renew(&self) {
        self.https.renew();
    }

    /// A challenge; the first thing that this coordinator says about the time.
    pub(crate) async fn challenge(&self) -> Result<Challenge, IclError> {
        self.get(format!("/internal/challenge/{}", self.node), Challenge::parse).await
    }

    /// Attests, in answer to a challenge.
    pub(crate) async fn attest(&self, challenge: Challenge) -> Result<Attested, IclError> {
        let request = Request::Attest { challenge: challenge.id, nonce: challenge.nonce };
        self.post("/internal/attestation/verify", request, Attested::parse).await
    }

    /// What waits for this node.
    pub(crate) async fn assignments(&self) -> Result<Assignments, IclError> {
        self.get(format!("/internal/assignments/{}", self.node), Assignments::parse).await
    }

    /// Takes a job; gives the handles of its key, if there are any.
    pub(crate) async fn claim(&self, job: JobId) -> Result<Option<[Handle; 2]>, IclError> {
        self.post("/internal/task/claim", Request::Claim(job), wire::claimed).await
    }

    /// What the leader has published, if anything.
    pub(crate) async fn leader_output(&self, job: &JobId) -> Result<Option<LeaderOutput>, IclError> {
        self.get(format!("/internal/jobs/{job}/status"), LeaderOutput::parse).await
    }

    /// The leader's result.
    pub(crate) async fn result(&self, signed: &Signed) -> Result<(), IclError> {
        self.send("/internal/task/result".into(), signed, wire::done).await
    }

    /// A verifier's verdict.
    pub(crate) async fn verdict(&self, signed: &Signed) -> Result<(), IclError> {
        self.send("/internal/task/verify".into(), signed, wire::done).await
    }

    /// The node lives.
    pub(crate) async fn heartbeat(&self) -> Result<(), IclError> {
        self.post("/internal/heartbeat", Request::Heartbeat, wire::done).await
    }

    async fn get<R>(&self, path: String, read: impl FnOnce(&[u8]) -> Result<R, JsonError>) -> Result<R, IclError> {
        let signed = self.sign(Request::Get).await?;
        self.send(path, &signed, read).await
    }

    async fn post<R>(
        &self,
        path: &str,
        request: Request,
        read: impl FnOnce(&[u8]) -> Result<R, JsonError>,
    ) -> Result<R, IclError> {
        let signed = self.sign(request).await?;
        self.send(path.into(), &signed, read).await
    }

    async fn sign(&self, request: Request) -> Result<Signed, IclError> {
        match self.vault.call(ToVault::Legacy(Ask::Sign(request)), SIGN).await? {
            FromVault::Legacy(Told::Signed(signed)) => Ok(signed),
            _ => Err(CallError::Unexpected.into()),
        }
    }

    async fn send<R>(
        &self,
        path: String,
        signed: &Signed,
        read: impl FnOnce(&[u8]) -> Result<R, JsonError>,
    ) -> Result<R, IclError> {
        let Signed { body, time, signature } = signed;
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        for (name, value) in [
            (HEADER_ADDRESS, self.node.to_string()),
            (HEADER_TIMESTAMP, time.to_string()),
            (HEADER_SIGNATURE, signature.to_string()),
        ] {
            headers
                .push((HeaderName::from_static(name), HeaderValue::try_from(value).map_err(|_| HttpError::Request)?));
        }
        let method = if body.is_empty() { Method::GET } else { Method::POST };
        let outgoing = Outgoing { method, path, headers, body: body.clone().into() };
        let reply = self.https.send(outgoing, BODY_CAP).await?;
        match reply {
            Reply { status: StatusCode::OK, body, .. } => {
                read(&body).map_err(|error| IclError::Malformed(error.to_string()))
            }
            reply => Err(refused(reply)),
        }
    }
}
