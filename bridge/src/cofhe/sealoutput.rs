//! `/v2/sealoutput`: how the threshold network is asked to seal a ciphertext's value to a permit's key.
//!
//! ```text
//! POST /v2/sealoutput       204, or CT_NOT_READY: not computed yet  → again, each second
//!                           404: not indexed yet                    → again, each second, for 10 seconds
//!                           200 with the sealed value               → done
//!                           200 with a request id                   → poll
//! GET  /v2/sealoutput/{id}  COMPLETED with the sealed value         → done
//!                           COMPLETED without                       → error
//!                           any other status                        → again after 1 s + 1 s per minute, at most 10 s
//!                           404: gone                               → error
//! either                    408, 429, 5xx: nobody judged it         → again, each second
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
    late: SealOutputError,
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
        Ok(Self { body, request: None, late: SealOutputError::Timeout })
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
        self.late = SealOutputError::Timeout;
        let step = match (&self.request, status) {
            (None, 204) => STEP,
            (_, 200..=299) => match self.judge(json::parse(WHAT, body, SEALOUTPUT_CAP)?)? {
                Progress::Done(sealed) => return Ok(Next::Done(sealed)),
                Progress::NotReady => STEP,
                Progress::Accepted => Duration::ZERO,
                Progress::Processing => {
                    let minutes = u32::try_from(elapsed.as_secs() / 60).unwrap_or(u32::MAX);
                    STEP.saturating_mul(minutes.saturating_add(1)).min(LONGEST_STEP)
                }
            },
            (None, 404) if elapsed < UNKNOWN => STEP,
            (None, 404) => return Err(SealOutputError::Unknown),
            (Some(_), 404) => return Err(SealOutputError::Expired),
            (_, status) => {
                let answer = json::parse::<Answer>(WHAT, body, SEALOUTPUT_CAP).ok();
                let refused = SealOutputError::Refused { status, message: reason(answer) };
                if !matches!(status, 408 | 429 | 500..=599) {
                    return Err(refused);
                }
                self.late = refused;
                STEP
            }
        };
        match BUDGET.checked_sub(elapsed) {
            None | Some(Duration::ZERO) => Err(self.late()),
            Some(left) => Ok(Next::Wait(step.min(left))),
        }
    }

    /// Why no value came, if there is no time for another answer.
    pub fn late(&self) -> SealOutputError {
        self.late.clone()
    }

    fn judge(&mut self, mut answer: Answer) -> Result<Progress, SealOutputError> {
        let id = answer.request_id.take().filter(|id| !id.is_empty());
        let (submitted, status) = (self.request.is_none(), answer.status.as_deref());
        // Of what is under way `is_succeed: false` says nothing: the network's own client reads it at the end only.
        let is_over = status == Some("COMPLETED") || submitted && id.is_none() && status != Some("CT_NOT_READY");
        if is_over && answer.is_succeed == Some(false) {
            return Err(SealOutputError::Refused { status: 200, message: reason(Some(answer)) });
        }
        let flat = match (answer.sealed_data, answer.ephemeral_public_key, answer.nonce) {
            (Some(data), Some(public_key), Some(nonce)) => Some(Sealed { data, public_key, nonce }),
            _ => None,
        };
        let sealed = answer.sealed.or(flat);
        if !submitted {
            return match sealed {
                _ if !is_over => Ok(Progress::Processing),
                Some(sealed) => Ok(Progress::Done(sealed)),
                None => Err(malformed("completed: wanted a sealed value".into())),
            };
        }
        match (sealed, id) {
            (Some(sealed), _) => Ok(Progress::Done(sealed)),
            (None, Some(id)) => {
                self.request = Some(plain(id)?);
                Ok(Progress::Accepted)
            }
            (None, None) if is_over => Err(malformed("wanted request_id or a sealed value".into())),
            (None, None) => Ok(Progress::NotReady),
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

#[cfg(test)]
mod tests {
    use blf_evidence::eip191::Signature;
    use blf_evidence::{Address, Hex, UnixTime};

    use super::super::Domain;
    use super::*;

    const SEALED: &str = r#""data":[1,2],"public_key":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,3],"nonce":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,4]"#;

    fn sealed() -> Sealed {
        let (mut public_key, mut nonce) = ([0; 32], [0; 24]);
        (public_key[31], nonce[23]) = (3, 4);
        Sealed { data: vec![1, 2], public_key, nonce }
    }

    fn inquiry() -> Inquiry {
        let acl = "0xa6Ea4b5291d044D93b73b3CFf3109A1128663E8B".parse().unwrap();
        let domain = Domain { chain_id: 421_614, name: "ACL".into(), verifying_contract: acl, version: "1".into() };
        let sign = |_: &[u8; 32]| Signature([5; 65]);
        let permit = Permission::issue_self(&domain, Address([1; 20]), UnixTime(1_800_000_000), Hex([2; 32]), sign);
        Inquiry::new(&Handle([0x0a; 32]), 421_614, permit).unwrap()
    }

    /// An inquiry that was accepted.
    fn accepted() -> Inquiry {
        let mut inquiry = inquiry();
        let next = inquiry.answer(Duration::ZERO, 200, br#"{"request_id":"a-1_B"}"#);
        assert_eq!(next, Ok(Next::Wait(Duration::ZERO)), "the first poll is at once");
        inquiry
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn what_is_sent() {
        let submit = inquiry();
        let wanted = format!(
            r#"{{"ct_tempkey":"{}","host_chain_id":421614,"permit":{{"issuer":"0x0101010101010101010101010101010101010101","expiration":1800000000,"recipient":"0x0000000000000000000000000000000000000000","validatorId":0,"validatorContract":"0x0000000000000000000000000000000000000000","sealingKey":"0x{}","issuerSignature":"0x{}","recipientSignature":"0x"}}}}"#,
            "0a".repeat(32),
            "02".repeat(32),
            "05".repeat(65),
        );
        assert_eq!(submit.call(), Call { path: "/v2/sealoutput".into(), body: Some(&wanted) });
        assert_eq!(accepted().call(), Call { path: "/v2/sealoutput/a-1_B".into(), body: None });
    }

    #[test]
    fn a_value_may_come_at_once() {
        for body in [
            format!(r#"{{"sealed":{{{SEALED}}}}}"#),
            format!(r#"{{"request_id":"x","status":"COMPLETED","is_succeed":true,"sealed":{{{SEALED}}},"other":[]}}"#),
            format!(
                "{{{}}}",
                SEALED.replace("\"data\"", "\"sealed_data\"").replace("public_key", "ephemeral_public_key")
            ),
        ] {
            let mut inquiry = inquiry();
            assert_eq!(inquiry.answer(seconds(299), 200, body.as_bytes()), Ok(Next::Done(sealed())), "{body}");
        }
    }

    #[test]
    fn not_computed_is_asked_again_each_second() {
        let mut inquiry = inquiry();
        for at in [0, 9, 10, 60, 200, 299] {
            assert_eq!(inquiry.answer(seconds(at), 204, b""), Ok(Next::Wait(seconds(1))), "{at}");
            for body in [
                r#"{"request_id":null,"status":"CT_NOT_READY"}"#,
                r#"{"request_id":"","status":"CT_NOT_READY","is_succeed":false}"#,
            ] {
                assert_eq!(inquiry.answer(seconds(at), 200, body.as_bytes()), Ok(Next::Wait(seconds(1))), "{at}");
            }
        }
        assert!(inquiry.call().body.is_some(), "it is submitted again");
        assert_eq!(inquiry.answer(seconds(300), 204, b""), Err(SealOutputError::Timeout));
    }

    #[test]
    fn not_indexed_is_asked_again_for_ten_seconds() {
        let mut inquiry = inquiry();
        assert_eq!(inquiry.answer(seconds(9), 404, b"{}"), Ok(Next::Wait(seconds(1))));
        assert_eq!(inquiry.answer(seconds(10), 404, b"{}"), Err(SealOutputError::Unknown));
    }

    #[test]
    fn polls_slow_down_by_the_minute_and_end_after_five() {
        let mut inquiry = accepted();
        let body = br#"{"request_id":"a-1_B","status":"PROCESSING","submitted_at":"now"}"#;
        for (at, wait) in [(0, 1), (59, 1), (60, 2), (179, 3), (240, 5), (298, 2), (299, 1)] {
            assert_eq!(inquiry.answer(seconds(at), 200, body), Ok(Next::Wait(seconds(wait))), "{at}");
        }
        for at in [300, 301, u64::MAX] {
            assert_eq!(inquiry.answer(seconds(at), 200, body), Err(SealOutputError::Timeout), "{at}");
        }
        let body = format!(r#"{{"status":"COMPLETED","sealed":{{{SEALED}}}}}"#);
        assert_eq!(inquiry.answer(seconds(300), 200, body.as_bytes()), Ok(Next::Done(sealed())));
    }

    /// As the network's own client (`tnSealOutputV2`) reads it.
    #[test]
    fn what_is_under_way_has_not_failed() {
        let mut inquiry = inquiry();
        let body = br#"{"request_id":"a-1_B","status":"PROCESSING","is_succeed":false}"#;
        assert_eq!(inquiry.answer(seconds(0), 200, body), Ok(Next::Wait(Duration::ZERO)), "accepted");
        assert_eq!(inquiry.call().path, "/v2/sealoutput/a-1_B");
        for body in [
            &body[..],
            br#"{"status":"PROCESSING","is_succeed":false,"sealed":null}"#,
            br#"{"status":"QUEUED","is_succeed":false,"error_message":"wait"}"#,
            br#"{"status":null}"#,
            b"{}",
        ] {
            assert_eq!(inquiry.answer(seconds(1), 200, body), Ok(Next::Wait(seconds(1))));
            assert_eq!(inquiry.late(), SealOutputError::Timeout);
        }
        let body = format!(r#"{{"status":"QUEUED","sealed":{{{SEALED}}}}}"#);
        assert_eq!(inquiry.answer(seconds(1), 200, body.as_bytes()), Ok(Next::Wait(seconds(1))), "not its end");
    }

    #[test]
    fn what_nobody_judged_is_asked_again() {
        let body = br#"{"message":"later"}"#;
        for mut inquiry in [inquiry(), accepted()] {
            let path = inquiry.call().path;
            for status in [408, 429, 500, 502, 503, 504, 599] {
                let refused = SealOutputError::Refused { status, message: "later".into() };
                for at in [0, 60, 299] {
                    assert_eq!(inquiry.answer(seconds(at), status, body), Ok(Next::Wait(seconds(1))), "{status}");
                }
                assert_eq!((inquiry.late(), inquiry.call().path), (refused.clone(), path.clone()));
                assert_eq!(inquiry.answer(seconds(300), status, body), Err(refused));
            }
            let not_yet = br#"{"status":"CT_NOT_READY"}"#;
            inquiry.answer(seconds(1), 200, not_yet).unwrap();
            assert_eq!(inquiry.late(), SealOutputError::Timeout, "the refusal is over");
        }
    }

    #[test]
    fn a_forgotten_request_is_over() {
        assert_eq!(accepted().answer(seconds(1), 404, b"{}"), Err(SealOutputError::Expired));
    }

    #[test]
    fn refusals_carry_the_reason() {
        let refused = |status, message: &str| Err(SealOutputError::Refused { status, message: message.into() });
        for status in [301, 400, 401, 403, 407, 409, 428, 430, 499, 600] {
            let body = br#"{"error_message":"no access"}"#;
            assert_eq!(inquiry().answer(Duration::ZERO, status, body), refused(status, "no access"));
            assert_eq!(accepted().answer(Duration::ZERO, status, body), refused(status, "no access"));
        }
        for (body, message) in [
            (r#"{"message":"expired\u001b[2J"}"#, r"expired\u{1b}[2J"),
            (r#"{"error_message":""}"#, "no reason given"),
            (r#"{"error_message":5}"#, "no reason given"),
            ("<html>", "no reason given"),
            ("", "no reason given"),
        ] {
            assert_eq!(inquiry().answer(Duration::ZERO, 403, body.as_bytes()), refused(403, message), "{body}");
        }
        let failed = br#"{"status":"COMPLETED","is_succeed":false,"error_message":"not allowed"}"#;
        assert_eq!(accepted().answer(Duration::ZERO, 200, failed), refused(200, "not allowed"));
        assert_eq!(inquiry().answer(Duration::ZERO, 200, failed), refused(200, "not allowed"));
        let failed = br#"{"request_id":null,"is_succeed":false,"message":"not allowed"}"#;
        assert_eq!(inquiry().answer(Duration::ZERO, 200, failed), refused(200, "not allowed"));
    }

    #[test]
    fn answers_of_another_form_are_refused() {
        let short = SEALED.replacen("0,", "", 1);
        let wide = SEALED.replacen("[1,2]", "[1,256]", 1);
        let path = r#"{"request_id":"../decrypt"}"#.to_owned();
        let long = format!(r#"{{"request_id":"{}"}}"#, "a".repeat(129));
        for (member, body) in [
            ("wanted a JSON object", String::new()),
            ("wanted a JSON object", "[]".into()),
            ("wanted at most 16384 bytes", " ".repeat(SEALOUTPUT_CAP + 1)),
            ("EOF while parsing a list", format!(r#"{{"a":{}"#, "[".repeat(10_000))),
            ("wanted request_id or a sealed value", "{}".into()),
            ("wanted request_id or a sealed value", r#"{"sealed_data":[1],"nonce":null}"#.into()),
            ("request_id: wanted", path),
            ("request_id: wanted", long),
            ("invalid length 31", format!(r#"{{"sealed":{{{short}}}}}"#)),
            ("invalid value", format!(r#"{{"sealed":{{{wide}}}}}"#)),
        ] {
            let error = inquiry().answer(Duration::ZERO, 200, body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(member), "{error}");
        }
        let completed = br#"{"status":"COMPLETED","is_succeed":true}"#;
        let error = accepted().answer(Duration::ZERO, 200, completed).unwrap_err().to_string();
        assert!(error.contains("completed: wanted a sealed value"), "{error}");
        assert!(accepted().answer(Duration::ZERO, 204, b"").is_err(), "only a submission may be too early");
    }
}
