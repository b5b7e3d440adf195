//! CoFHE as the courier sees it: sealed halves come from the threshold network, an output key goes by the verifier to the
//! chain. Nothing here can open either.

use std::time::Duration;

use blf_bridge::cofhe::{
    EncryptedInput, Handle, Inquiry, Next, Permission, PublishError, SEALOUTPUT_CAP, SealOutputError, Sealed,
    VERIFY_CAP, VERIFY_PATH, verify_answer,
};
use blf_evidence::Hex;
use blf_evidence::profile::NetworkProfile;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, sleep, timeout_at};

use super::https::{HttpError, Https, Outgoing, Reply};
use super::vault::{CallError, Vault};
use crate::frames::{Boxes, FromVault, ToVault};
use crate::tunnel::Tunnel;

/// The services of CoFHE that every node uses.
pub struct Cofhe<T> {
    chain_id: u64,
    threshold: Https<T>,
    verifier: Https<T>,
}

/// Why a key did not come or go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CofheError {
    /// No reply.
    #[error("cofhe: {0}")]
    Http(#[from] HttpError),
    /// The verifier.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The threshold network.
    #[error(transparent)]
    Seal(#[from] SealOutputError),
    /// The vault gave no permit.
    #[error(transparent)]
    Vault(#[from] CallError),
}

/// How long the vault may take to sign.
const SIGN: Duration = Duration::from_secs(10);
/// Between two attempts while the network cannot be reached; its SDK polls as often.
const UNREACHED: Duration = Duration::from_secs(1);

impl<T: Tunnel> Cofhe<T> {
    /// The services that `profile` names, each reached by what `server` makes.
    pub fn new(profile: &NetworkProfile, server: impl Fn(blf_evidence::profile::Host) -> Https<T>) -> Option<Self> {
        let cofhe = profile.cofhe.as_ref()?;
        let (threshold, verifier) = (server(cofhe.threshold.clone()), server(cofhe.verifier.clone()));
        Some(Self { chain_id: profile.chain_id, threshold, verifier })
    }

    /// Uses no connection made before.
    pub fn renew(&self) {
        self.threshold.renew();
        self.verifier.renew();
    }

    /// Both halves behind `handles`, high first, at once; sealed to the generation of keys with this HPKE key, or to the
    /// certified one.
    ///
    /// # Errors
    /// [`CofheError`]; at `end` what was last in the way.
    pub async fn boxes(
        &self,
        vault: &Vault,
        hpke: Option<Hex<32>>,
        handles: [Handle; 2],
        end: Instant,
    ) -> Result<Boxes, CofheError> {
        let FromVault::Permit(permit) = vault.call(ToVault::Permit { hpke }, SIGN).await? else {
            return Err(CallError::Unexpected.into());
        };
        let sealing = Hex(permit.sealing_key);
        let [high, low] = handles;
        let (high, low) = tokio::try_join!(self.half(high, permit.clone(), end), self.half(low, permit, end))?;
        Ok(Boxes { sealing, high, low })
    }

    /// The verifier's signatures over the inputs in `body`.
    ///
    /// # Errors
    /// [`CofheError::Http`], [`CofheError::Publish`].
    pub async fn verify(&self, body: Bytes) -> Result<[EncryptedInput; 2], CofheError> {
        let Reply { status, body, .. } = self.verifier.send(post(VERIFY_PATH.into(), body), VERIFY_CAP).await?;
        Ok(verify_answer(status.as_u16(), &body)?)
    }

    async fn half(&self, handle: Handle, permit: Permission, end: Instant) -> Result<Sealed, CofheError> {
        let mut inquiry = Inquiry::new(&handle, self.chain_id, permit)?;
        let start = Instant::now();
        let mut last = CofheError::Seal(SealOutputError::Timeout);
        let asking = async {
            loop {
                let call = inquiry.call();
                let outgoing = match call.body {
                    Some(body) => post(call.path, Bytes::copy_from_slice(body.as_bytes())),
                    None => Outgoing { method: Method::GET, path: call.path, headers: vec![], body: Bytes::new() },
                };
                let wait = match self.threshold.send(outgoing, SEALOUTPUT_CAP).await {
                    Ok(Reply { status, body, .. }) => match inquiry.answer(start.elapsed(), status.as_u16(), &body)? {
                        Next::Done(sealed) => return Ok(sealed),
                        Next::Wait(wait) => {
                            last = inquiry.late().into();
                            wait
                        }
                    },
                    Err(error @ HttpError::BodyTooLong { .. }) => return Err(error.into()),
                    Err(error) => {
                        last = error.into();
                        UNREACHED
                    }
                };
                sleep(wait).await;
            }
        };
        let asked = timeout_at(end, asking).await;
        asked.unwrap_or(Err(last))
    }
}

impl CofheError {
    /// Stable, in capitals.
    pub fn code(&self) -> String {
        match self {
            Self::Http(error) => error.code().into(),
            Self::Publish(PublishError::Refused { status, .. }) => format!("VERIFIER_HTTP_{status}"),
            Self::Publish(_) => "VERIFIER_REPLY".into(),
            Self::Seal(error) => match error {
                SealOutputError::Expired => "SEALOUTPUT_EXPIRED".into(),
                SealOutputError::Json(_) => "SEALOUTPUT_REPLY".into(),
                SealOutputError::Refused { status, .. } => format!("SEALOUTPUT_HTTP_{status}"),
                SealOutputError::Timeout => "SEALOUTPUT_LATE".into(),
                SealOutputError::Unknown => "SEALOUTPUT_UNKNOWN".into(),
            },
            Self::Vault(error) => error.code().into(),
        }
    }

    /// Worth another attempt: nobody judged anything yet.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(HttpError::BodyTooLong { .. }) => false,
            Self::Http(_) | Self::Vault(CallError::Silent(_)) => true,
            Self::Publish(PublishError::Refused { status, .. }) => matches!(status, 408 | 429 | 500..=599),
            Self::Publish(_) | Self::Seal(_) | Self::Vault(_) => false,
        }
    }
}

/// A POST of JSON.
pub(crate) fn post(path: String, body: Bytes) -> Outgoing {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Outgoing { method: Method::POST, path, headers, body }
}
