//! Who asks: EIP-191 over the body as it came and the time, which is all that today's nodes sign. Method, path and host
//! are not signed, and nothing is spent: a request can be replayed for five minutes, at any endpoint.

use blf_evidence::eip191::Signature;
use blf_evidence::icl::{CLOCK_SKEW, HEADER_ADDRESS, HEADER_SIGNATURE, HEADER_TIMESTAMP};
use blf_evidence::{Address, UnixTime};

use crate::legacy::Accept;
use crate::refusal::{Refused, Result};
use crate::routes::Call;

/// Who signed, if that was looked at.
pub(crate) struct Signer(Option<Address>);

impl Signer {
    /// Checks the signature of a node's request; of any other one only if it has one.
    pub(crate) fn check(call: &Call, accept: Accept, now: UnixTime) -> Result<Self> {
        let header = |name| call.head.headers.get(name).and_then(|value| value.to_str().ok());
        let is_nodes = call.head.uri.path().starts_with("/internal/");
        match accept {
            Accept::Anything => return Ok(Self(None)),
            Accept::Signatures if !is_nodes && header(HEADER_ADDRESS).is_none() => return Ok(Self(None)),
            Accept::Signatures => {}
        }
        let refused = |detail: String| Refused::unauthorized("NOT_SIGNED", detail);
        let wanted = |name| header(name).ok_or_else(|| refused(format!("{name}: wanted once")));
        let address: Address = wanted(HEADER_ADDRESS)?.parse().map_err(|e| refused(format!("{e}")))?;
        let timestamp = wanted(HEADER_TIMESTAMP)?;
        let time: u64 = timestamp.parse().map_err(|e| refused(format!("{HEADER_TIMESTAMP}: {e}")))?;
        let signature: Signature = wanted(HEADER_SIGNATURE)?.parse().map_err(|e| refused(format!("{e}")))?;
        // A guest believes no clock of its host: the end of its first challenge is how it learns what time it is.
        let asks_the_time = call.head.uri.path().starts_with("/internal/challenge/");
        if now.0.abs_diff(time) > CLOCK_SKEW && !asks_the_time {
            let detail = format!("{HEADER_TIMESTAMP}: wanted {now} within {CLOCK_SKEW} seconds, got {time}");
            return Err(refused(detail));
        }
        let text = [&call.body[..], timestamp.as_bytes()].concat();
        signature.verify(&text, address).map_err(|e| refused(e.to_string()))?;
        Ok(Self(Some(address)))
    }

    /// The address in a path or body must be the signer's, in the same spelling.
    pub(crate) fn same(&self, named: &str) -> Result<()> {
        match self.0 {
            Some(signer) if signer.to_string() != named => {
                let detail = format!("address: wanted the signer {signer}, got {named}");
                Err(Refused::unauthorized("OTHER_ADDRESS", detail))
            }
            _ => Ok(()),
        }
    }
}
