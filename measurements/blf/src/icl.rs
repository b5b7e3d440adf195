//! The user's side of a strict ICL: typed calls, each signed by the user's account.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blf_evidence::eip191::{self, Signature, request_text};
use blf_evidence::icl::{BODY_CAP, HEADER_ADDRESS, HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP, Refusal};
use blf_evidence::profile::Host;
use blf_evidence::{Address, Hex, UnixTime, json};
use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use k256::ecdsa::SigningKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::terminal::escaped;

/// How often a wait looks again.
pub(crate) const POLL: Duration = Duration::from_millis(500);

/// A user before an ICL.
pub struct User<'a> {
    client: &'a Client,
    icl: Host,
    key: SigningKey,
}

impl<'a> User<'a> {
    /// The user whose account is `key`.
    pub fn new(client: &'a Client, icl: Host, key: SigningKey) -> Self {
        Self { client, icl, key }
    }

    /// What reaches the network.
    pub(crate) fn client(&self) -> &'a Client {
        self.client
    }

    /// The user's account.
    pub fn address(&self) -> Address {
        eip191::address(self.key.verifying_key())
    }

    /// GET, reply parsed strictly.
    ///
    /// # Errors
    /// [`Failure`], with the ICL's own code where it refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// POST, reply parsed strictly.
    ///
    /// # Errors
    /// [`Failure`], with the ICL's own code where it refuses.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = json::canonical("request", body).map_err(|e| Failure::new(Exit::Failed, "REQUEST", e))?;
        self.call(Method::POST, path, body.into_bytes()).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        let headers = self.headers(&method, path, &body)?;
        let reply = self.client.request(&self.icl, method, path, headers, Bytes::from(body), BODY_CAP).await?;
        if reply.status.is_success() {
            return json::parse("reply", &reply.body, BODY_CAP)
                .map_err(|e| Failure::new(Exit::Failed, "BAD_REPLY", format!("{path}: {e}")));
        }
        Err(match json::parse::<Refusal>("refusal", &reply.body, BODY_CAP) {
            Ok(refusal) => {
                let said = format!("the ICL refused: {}", escaped(&refusal.detail));
                Failure::new(Exit::Failed, &refusal.code, said)
            }
            Err(_) => {
                // What stands before an ICL says so in its own words.
                let code = match reply.status.as_u16() {
                    429 => "RATE_LIMITED",
                    500.. => "INTERNAL",
                    _ => "BAD_REPLY",
                };
                Failure::new(Exit::Failed, code, format!("{path}: HTTP {}", reply.status))
            }
        })
    }

    fn headers(&self, method: &Method, path: &str, body: &[u8]) -> Result<HeaderMap, Failure> {
        let (nonce, time) = (Hex(random::<16>()?), now().0);
        let body = Hex(Sha256::digest(body).into());
        let text = request_text(method.as_str(), &self.icl.name, path, &body, time, &nonce);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (HEADER_ADDRESS, self.address().to_string()),
            (HEADER_TIMESTAMP, time.to_string()),
            (HEADER_NONCE, nonce.to_string()),
            (HEADER_SIGNATURE, Signature::sign(&self.key, text.as_bytes()).to_string()),
            ("content-type", "application/json".into()),
        ] {
            let value = HeaderValue::from_str(&value).map_err(|e| Failure::new(Exit::Failed, "REQUEST", e))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }
}

/// The relying party's own clock.
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Bytes that nobody can guess: nonces, the ids of jobs.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Failure::new(Exit::Environment, "RANDOMNESS", e))?;
    Ok(bytes)
}

/// Asks again while a host cannot be reached, is busy or has no answer yet, for as long as there is time for one try more:
/// the job goes on without us.
pub(crate) async fn poll<T>(deadline: Instant, get: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    const PASSING: [&str; 6] = ["ANSWER_BLOB", "INTERNAL", "NO_REPLY", "RATE_LIMITED", "TIMEOUT", "UNREACHABLE"];
    loop {
        match get().await {
            Err(failure) if PASSING.contains(&failure.code.as_str()) && Instant::now() + POLL < deadline => {
                sleep(POLL).await;
            }
            last => return last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_poll_is_not_a_failed_job() {
        let asked = std::cell::Cell::new(0);
        let get = async |codes: &[&str]| {
            asked.set(asked.get() + 1);
            match codes.get(asked.get() - 1) {
                Some(code) => Err(Failure::new(Exit::Failed, code, "as asked")),
                None => Ok(asked.get()),
            }
        };
        let soon = Instant::now() + Duration::from_secs(60);
        assert_eq!(poll(soon, async || get(&["UNREACHABLE", "RATE_LIMITED"]).await).await, Ok(3));
        asked.set(0);
        assert_eq!(poll(soon, async || get(&["NOT_YOUR_JOB"]).await).await.unwrap_err().code, "NOT_YOUR_JOB");
        asked.set(0);
        let over = poll(Instant::now(), async || get(&["INTERNAL"; 9]).await).await;
        assert_eq!((over.unwrap_err().code.as_str(), asked.get()), ("INTERNAL", 1), "until the deadline");
    }
}
