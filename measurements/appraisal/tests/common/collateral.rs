//! Intel's collateral as dcap-qvl keeps it.

use blf_evidence::Base64;
use blf_evidence::endorsements::TdxEndorsements;
use serde_json::Value;

/// The collateral in a file, if that is what it holds.
pub(crate) fn collateral(file: &[u8]) -> Option<TdxEndorsements> {
    let json: Value = serde_json::from_slice(file).ok()?;
    let text = |member: &str| json[member].as_str().map(str::to_owned);
    let bytes = |member: &str| hex::decode(text(member)?).ok().map(Base64);
    Some(TdxEndorsements {
        pck_crl_issuer_chain: text("pck_crl_issuer_chain")?,
        root_ca_crl: bytes("root_ca_crl")?,
        pck_crl: bytes("pck_crl")?,
        tcb_info_issuer_chain: text("tcb_info_issuer_chain")?,
        tcb_info: text("tcb_info")?,
        tcb_info_signature: text("tcb_info_signature")?.parse().ok()?,
        qe_identity_issuer_chain: text("qe_identity_issuer_chain")?,
        qe_identity: text("qe_identity")?,
        qe_identity_signature: text("qe_identity_signature")?.parse().ok()?,
    })
}
