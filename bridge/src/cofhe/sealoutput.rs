//! `/v2/sealoutput`: how the threshold network is asked to seal a ciphertext's value to a permit's key.
//!
//! ```text
//! POST /v2/sealoutput       204, or CT_NOT_READY: not computed yet     → again, each second
//!                           404: not indexed yet                      → again, each second, for 10 seconds
//!                           200 with the sealed value                 → done
//!                           200 with a request id                     → poll
//! GET  /v2/sealoutput/{id}  PROCESSING                                → again, each second and one more per minute, at most 10
//!                           COMPLETED with the sealed value           → done
//!                           404: gone                                 → error
//! ```
//!
//! Five minutes for all of it. Everything else is an error, with what the network says of it.

use std::time::Duration;

use blf_evidence::json::{self, JsonError, excerpt};
use serde::{Deserialize, Serialize};

use super::{Handle, Permission, Sealed};

/// Longest answer that is read, in bytes; a sealed value takes about 700.
pub const SEALOUTPUT_CAP: usize = 16 * 1024;

const PATH: &str = "/v2/sealoutput";
const BUDGET: Duration = Duration::from_secs(5 * 60);
const STEP: Duration = Duration::from_secs(1);
const LONGEST_STEP: Duration = Duration::from_secs(10);
/// How long a submitted handle may be unknown: the network indexes the chain with a delay.
const UNKNOWN: Duration = Duration::from_secs(10);

/// One value on its way: what to send next, and what an answer means.
///
/// Two of them, for the two halves of a key, run side by side.
pub struct Inquiry {
    body: String,
    request: Option<String>,
}

/// A request to the threshold network: `GET` without body, else `POST` of JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call<'a> {
    /// Path of the request.
    pub path: String,
    /// Body, `application/json`.
    pub body: Option<&'a str>,
}

/// What to do after an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Wait so long and make [`Inquiry::call`] again.
    Wait(Duration),
    /// The value came.
    Done(Sealed),
}

/// Why no value came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealOutputError {
    /// The network forgot the request.
    #[error("threshold network: request expired (404)")]
    Expired,
    /// An answer of another form.
    #[error("threshold network: {0}")]
    Json(#[from] JsonError),
    /// The network refused: no access, an expired permit, a fault of its own.
    #[error("threshold network: status {status}: {message}")]
    Refused {
        /// HTTP status; 200 for a request that was computed and failed.
        status: u16,
        /// An excerpt of its reason.
        message: String,
    },
    /// Nothing came in time.
    #[error("threshold network: no value within {} s", BUDGET.as_secs())]
    Timeout,
    /// The network does not know the handle.
    #[error("threshold network: ciphertext unknown for {} s (404)", UNKNOWN.as_secs())]
    Unknown,
}

impl Inquiry {
    /// An inquiry for the value of `handle`.
    ///
    /// # Errors
    /// [`SealOutputError::Json`], for no permit of these types.
    pub fn new(handle: &Handle, chain_id: u64, permit: Permission) -> Result<Self, SealOutputError> {
        let submit = Submit { ct_tempkey: handle.wire(), host_chain_id: chain_id, permit };
        let body = serde_json::to_string(&submit).map_err(|e| malformed(e.to_string()))?;
        Ok(Self { body, request: None })
    }

    /// The request to make now.
    pub fn call(&self) -> Call<'_> {
        match &self.request {
            None => Call { path: PATH.into(), body: Some(&self.body) },
            Some(id) => Call { path: format!("{PATH}/{id}"), body: None },
        }
    }

    /// Judges the answer to [`Self::call`]; `elapsed` counts from the first.
    ///
    /// # Errors
    /// [`SealOutputError`]: the inquiry is over.
    pub fn answer(&mut self, elapsed: Duration, status: u16, body: &[u8]) -> Result<Next, SealOutputError> {
        let step = match (&self.request, status) {
            (_, 200) => match self.judge(json::parse(WHAT, body, SEALOUTPUT_CAP)?)? {
                Progress::Done(sealed) => return Ok(Next::Done(sealed)),
                Progress::NotReady => STEP,
                Progress::Accepted => Duration::ZERO,
                Progress::Processing => {
                    let minutes = u32::try_from(elapsed.as_secs() / 60).unwrap_or(u32::MAX);
                    STEP.saturating_mul(minutes.saturating_add(1)).min(LONGEST_STEP)
                }
            },
            (None, 204) => STEP,
            (None, 404) if elapsed < UNKNOWN => STEP,
            (None, 404) => return Err(SealOutputError::Unknown),
            (Some(_), 404) => return Err(SealOutputError::Expired),
            (_, status) => {
                let answer = json::parse::<Answer>(WHAT, body, SEALOUTPUT_CAP).ok();
                return Err(SealOutputError::Refused { status, message: reason(answer) });
            }
        };
        match BUDGET.checked_sub(elapsed) {
            None | Some(Duration::ZERO) => Err(SealOutputError::Timeout),
            Some(left) => Ok(Next::Wait(step.min(left))),
        }
    }

    fn judge(&mut self, answer: Answer) -> Result<Progress, SealOutputError> {
        if answer.is_succeed == Some(false) {
            return Err(SealOutputError::Refused { status: 200, message: reason(Some(answer)) });
        }
        let flat = match (answer.sealed_data, answer.ephemeral_public_key, answer.nonce) {
            (Some(data), Some(public_key), Some(nonce)) => Some(Sealed { data, public_key, nonce }),
            _ => None,
        };
        let sealed = answer.sealed.or(flat);
        if self.request.is_some() {
            return match (answer.status.as_deref(), sealed) {
                (Some("COMPLETED"), Some(sealed)) => Ok(Progress::Done(sealed)),
                (Some("COMPLETED"), None) => Err(malformed("completed: wanted a sealed value".into())),
                (Some("PROCESSING"), _) => Ok(Progress::Processing),
                (status, _) => {
                    let got = excerpt(status.unwrap_or("none"));
                    Err(malformed(format!("status: wanted PROCESSING or COMPLETED, got {got}")))
                }
            };
        }
        match (sealed, answer.request_id, answer.status.as_deref()) {
            (Some(sealed), ..) => Ok(Progress::Done(sealed)),
            (None, Some(id), _) => {
                self.request = Some(plain(id)?);
                Ok(Progress::Accepted)
            }
            (None, None, Some("CT_NOT_READY")) => Ok(Progress::NotReady),
            (None, None, _) => Err(malformed("wanted request_id or a sealed value".into())),
        }
    }
}

const WHAT: &str = "answer to sealoutput";
/// Longest request id: it becomes part of a path.
const ID_CAP: usize = 128;

#[derive(Serialize)]
struct Submit {
    ct_tempkey: String,
    host_chain_id: u64,
    permit: Permission,
}

/// Every form of answer; members that are not named here are ignored.
#[derive(Deserialize)]
struct Answer {
    request_id: Option<String>,
    status: Option<String>,
    is_succeed: Option<bool>,
    sealed: Option<Sealed>,
    sealed_data: Option<Vec<u8>>,
    ephemeral_public_key: Option<[u8; 32]>,
    nonce: Option<[u8; 24]>,
    error_message: Option<String>,
    message: Option<String>,
}

/// How far an inquiry has come.
enum Progress {
    NotReady,
    Accepted,
    Processing,
    Done(Sealed),
}

/// What the network gives as its reason, if it gives one.
fn reason(answer: Option<Answer>) -> String {
    let given = answer.and_then(|answer| answer.error_message.or(answer.message)).filter(|text| !text.is_empty());
    given.map_or_else(|| "no reason given".into(), |text| excerpt(&text))
}

/// A request id that can be part of a path.
fn plain(id: String) -> Result<String, SealOutputError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=ID_CAP).contains(&id.len()) && id.bytes().all(plain) {
        return Ok(id);
    }
    let got = excerpt(&id);
    Err(malformed(format!("request_id: wanted 1 to {ID_CAP} of A-Z a-z 0-9 - _, got {got}")))
}

fn malformed(error: String) -> SealOutputError {
    SealOutputError::Json(JsonError::Malformed { what: WHAT, error })
}
