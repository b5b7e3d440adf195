//! Who asks: the signature over method, host, path, body, time and a nonce that every request to the ICL carries.

use blf_evidence::eip191::{Signature, request_text};
use blf_evidence::icl::{CLOCK_SKEW, HEADER_ADDRESS, HEADER_NONCE, HEADER_SIGNATURE, HEADER_TIMESTAMP};
use blf_evidence::{Address, Hex, UnixTime};
use hyper::header::HeaderMap;
use sha2::{Digest as _, Sha256};

use crate::refusal::{Refused, Result};
use crate::state::{Turn, sql};

/// Nonces are kept this long, so that a clock set back by as much still finds them.
const NONCE_LIFE: u64 = 4 * CLOCK_SKEW;

/// A request whose signature holds; its nonce is still to be spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed {
    pub(crate) address: Address,
    time: UnixTime,
    nonce: Hex<16>,
}

impl Signed {
    /// Checks headers, time and signature of a request as it came; `host` is this ICL's name.
    pub(crate) fn check(
        headers: &HeaderMap,
        (method, host, path): (&str, &str, &str),
        body: &[u8],
        now: UnixTime,
    ) -> Result<Self> {
        let address: Address = header(headers, HEADER_ADDRESS)?;
        let time: u64 = header(headers, HEADER_TIMESTAMP)?;
        let nonce: Hex<16> = header(headers, HEADER_NONCE)?;
        let signature: Signature = header(headers, HEADER_SIGNATURE)?;
        if now.0.abs_diff(time) > CLOCK_SKEW {
            let detail = format!("{HEADER_TIMESTAMP}: wanted {now} within {CLOCK_SKEW} seconds, got {time}");
            return Err(Refused::unauthorized("TIME_SKEW", detail));
        }
        let text = request_text(method, host, path, &Hex(Sha256::digest(body).into()), time, &nonce);
        signature.verify(text.as_bytes(), address).map_err(|e| {
            Refused::unauthorized("BAD_SIGNATURE", format!("{HEADER_SIGNATURE} over {method} {host} {path}: {e}"))
        })?;
        Ok(Self { address, time: UnixTime(time), nonce })
    }

    /// Spends the nonce. Done in a transaction of its own, so that a refused request spends it too.
    pub(crate) fn spend(self, turn: &Turn<'_>) -> Result<()> {
        let spent = turn.tx.execute(
            "INSERT OR IGNORE INTO nonces VALUES (?1, ?2, ?3)",
            (self.address.to_string(), self.nonce.to_string(), sql(self.time)),
        )?;
        if spent == 0 {
            let detail = format!("{HEADER_NONCE}: wanted an unused one, got {}", self.nonce);
            return Err(Refused::unauthorized("NONCE_REUSED", detail));
        }
        Ok(())
    }
}

/// Forgets nonces that no request in time can carry any more.
pub(crate) fn sweep(turn: &Turn<'_>) -> Result<()> {
    let before = UnixTime(turn.now.0.saturating_sub(NONCE_LIFE));
    turn.tx.execute("DELETE FROM nonces WHERE time < ?1", [sql(before)])?;
    Ok(())
}

/// The address in a path or body must be the one that signed.
pub(crate) fn same(signer: Address, named: Address) -> Result<()> {
    if signer != named {
        let detail = format!("address: wanted the signer {signer}, got {named}");
        return Err(Refused::forbidden("OTHER_ADDRESS", detail));
    }
    Ok(())
}

/// The one value of a header, in its one spelling.
fn header<T: std::str::FromStr + ToString>(headers: &HeaderMap, name: &'static str) -> Result<T> {
    let mut values = headers.get_all(name).iter();
    let missing = || Refused::unauthorized("NOT_SIGNED", format!("{name}: wanted exactly one"));
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let text = value.to_str().map_err(|_| missing())?;
    text.parse::<T>()
        .ok()
        .filter(|parsed| parsed.to_string() == text)
        .ok_or_else(|| Refused::unauthorized("NOT_SIGNED", format!("{name}: wanted another spelling")))
}
