//! Documents of ours, in the words of their schemas, with everything that they carry decoded.

use blf_appraisal::policy::Policy;
use blf_appraisal::references::References;
use blf_appraisal::release::Release;
use blf_evidence::Base64;
use blf_evidence::bundle::{Evidence, Platform};
use blf_evidence::endorsements::{Endorsements, SnpEndorsements, TdxEndorsements};
use blf_evidence::network::Network;
use blf_evidence::profile::NetworkProfile;
use blf_evidence::statement::{Binding, Statement};
use serde_json::Value;

use super::fields::{Fields, document, part};
use super::{azure, collateral, snp, tdx, tpm, x509};

/// `blf.evidence/v1`, every part decoded.
pub(super) fn evidence(bytes: &[u8]) -> Result<Fields, String> {
    let evidence = Evidence::parse(bytes).map_err(|e| e.to_string())?;
    let binding = Binding::parse(evidence.binding.as_bytes()).map_err(|e| e.to_string())?;
    let statement = Statement::new(binding.keys.node, evidence.binding.as_bytes());
    let config = serde_json::from_str(&evidence.config).unwrap_or_else(|_| Value::String(evidence.config.clone()));
    let (platform, fields) = match &evidence.platform {
        Platform::Azure(azure) => ("azure", azure::evidence(azure)),
        Platform::Snp(snp) => ("snp", snp::evidence(snp)),
        Platform::Tdx(tdx) => ("tdx", tdx::evidence(tdx)),
        Platform::Tpm(tpm) => ("tpm", tpm::evidence(tpm)),
    };
    let stapled = evidence.endorsements.as_ref().map(|stapled| part(endorsements(&stapled.0)));
    Ok(Fields::default()
        .with("schema", evidence.schema)
        .with("statement", statement.0)
        .with("SHA-256(statement)", hex::encode(statement.qualifying_data()))
        .with("binding", document(&binding)?)
        .with("config", config)
        .with(format!("platform {platform}"), fields)
        .with("endorsements", stapled))
}

/// `blf.endorsements/v1`, every part decoded.
pub(super) fn endorsements(bytes: &[u8]) -> Result<Fields, String> {
    let endorsements = Endorsements::parse(bytes).map_err(|e| e.to_string())?;
    Ok(Fields::default()
        .with("schema", endorsements.schema)
        .with("snp", endorsements.snp.as_ref().map(of_amd))
        .with("tdx", endorsements.tdx.as_ref().map(of_intel)))
}

fn of_amd(snp: &SnpEndorsements) -> Fields {
    let certificate = |der: &Option<Base64>| der.as_ref().map(|der| part(x509::certificate(&der.0)));
    Fields::default()
        .with("vek", certificate(&snp.vek))
        .with("ask", certificate(&snp.ask))
        .with("ark", certificate(&snp.ark))
        .with("crl", snp.crl.as_ref().map(|der| part(x509::crl(&der.0))))
}

fn of_intel(tdx: &TdxEndorsements) -> Fields {
    let chain = |pem: &str| part(x509::chain(pem.as_bytes()));
    Fields::default()
        .with("pck_crl_issuer_chain", chain(&tdx.pck_crl_issuer_chain))
        .with("root_ca_crl", part(x509::crl(&tdx.root_ca_crl.0)))
        .with("pck_crl", part(x509::crl(&tdx.pck_crl.0)))
        .with("tcb_info_issuer_chain", chain(&tdx.tcb_info_issuer_chain))
        .with("tcb_info", part(collateral::tcb_info(tdx.tcb_info.as_bytes())))
        .with("tcb_info_signature", tdx.tcb_info_signature)
        .with("qe_identity_issuer_chain", chain(&tdx.qe_identity_issuer_chain))
        .with("qe_identity", part(collateral::qe_identity(tdx.qe_identity.as_bytes())))
        .with("qe_identity_signature", tdx.qe_identity_signature)
}

/// `blf.policy/v1`.
pub(super) fn policy(bytes: &[u8]) -> Result<Fields, String> {
    document(&Policy::parse(bytes).map_err(|e| e.to_string())?)
}

/// `blf.references/v1`.
pub(super) fn references(bytes: &[u8]) -> Result<Fields, String> {
    document(&References::parse(bytes).map_err(|e| e.to_string())?)
}

/// `blf.release/v1`.
pub(super) fn release(bytes: &[u8]) -> Result<Fields, String> {
    document(&Release::parse(bytes).map_err(|e| e.to_string())?)
}

/// A network document. Its token is a secret between the user and the pinning service.
pub(super) fn network(bytes: &[u8]) -> Result<Fields, String> {
    let mut network = Network::parse(bytes).map_err(|e| e.to_string())?;
    network.pinning_token = format!("{} bytes, not shown", network.pinning_token.len());
    document(&network)
}

/// A network profile, and the id by which it is measured.
pub(super) fn profile(bytes: &[u8]) -> Result<Fields, String> {
    let profile = NetworkProfile::parse(bytes).map_err(|e| e.to_string())?;
    let id = profile.id().map_err(|e| e.to_string())?;
    Ok(document(&profile)?.with("id", id))
}
