//! dcap-qvl called plainly, with our root, our clock and AWS-LC below it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use blf_appraisal::tdx::{Claims, TcbStatus};
use blf_evidence::Hex;
use blf_evidence::endorsements::TdxEndorsements;
use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest as _, Sha256, Sha384};

/// What both must agree on when both accept.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    status: String,
    advisory_ids: Vec<String>,
    fmspc: [u8; 6],
    ppid: Vec<u8>,
    tcb_evaluation_data_number: u32,
    mr_td: Hex<48>,
    rtmrs: [Hex<48>; 4],
    report_data: Hex<64>,
}

/// Debug and service TDs pass, as with us.
pub(crate) fn verify(quote: &[u8], collateral: &TdxEndorsements, root: &[u8], now: u64) -> Result<Verdict, String> {
    let verifier = QuoteVerifier::<Backend>::new_with_config(root.to_vec()).allow_debug(true).allow_service_td(true);
    let claims = verifier
        .verify_with_policy(quote, theirs(collateral), now, &QuotePolicy::claims_only(now))
        .map_err(|error| format!("{error:#}"))?;
    let report = *claims.report.as_td10().unwrap();
    Ok(Verdict {
        status: claims.tcb.status.to_string(),
        advisory_ids: sorted(claims.tcb.advisory_ids),
        fmspc: claims.platform.pck.fmspc,
        ppid: claims.platform.pck.ppid,
        tcb_evaluation_data_number: claims.tcb.eval_data_number,
        mr_td: Hex(report.mr_td),
        rtmrs: [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3].map(Hex),
        report_data: Hex(report.report_data),
    })
}

impl From<&Claims> for Verdict {
    fn from(claims: &Claims) -> Self {
        Self {
            status: format!("{:?}", claims.tcb_status),
            advisory_ids: sorted(claims.advisory_ids.clone()),
            fmspc: claims.fmspc.0,
            ppid: claims.ppid.0.to_vec(),
            tcb_evaluation_data_number: claims.tcb_evaluation_data_number,
            mr_td: claims.quote.mr_td,
            rtmrs: claims.quote.rtmrs,
            report_data: claims.quote.report_data,
        }
    }
}

/// Their collateral has the same parts.
fn theirs(collateral: &TdxEndorsements) -> QuoteCollateralV3 {
    let of = collateral.clone();
    QuoteCollateralV3 {
        pck_crl_issuer_chain: of.pck_crl_issuer_chain,
        root_ca_crl: of.root_ca_crl.0,
        pck_crl: of.pck_crl.0,
        tcb_info_issuer_chain: of.tcb_info_issuer_chain,
        tcb_info: of.tcb_info,
        tcb_info_signature: of.tcb_info_signature.0.to_vec(),
        qe_identity_issuer_chain: of.qe_identity_issuer_chain,
        qe_identity: of.qe_identity,
        qe_identity_signature: of.qe_identity_signature.0.to_vec(),
        pck_certificate_chain: None,
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

/// Statuses have the same names.
#[test]
fn statuses_are_spelled_alike() {
    for status in [TcbStatus::UpToDate, TcbStatus::TDRelaunchAdvisedConfigurationNeeded] {
        let theirs: dcap_qvl::TcbStatus = serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap();
        assert_eq!(theirs.to_string(), format!("{status:?}"));
    }
}

struct Backend;

impl Config for Backend {
    type X509 = dcap_qvl::x509::X509CertBackend;
    type SigEncoder = dcap_qvl::signature::DerSigEncoder;
    type Crypto = AwsLc;
}

struct AwsLc;

impl CryptoProvider for AwsLc {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &P256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        Sha384::digest(data).into()
    }
}

#[derive(Debug)]
struct P256;

impl SignatureVerificationAlgorithm for P256 {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }

    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(message, signature)
            .map_err(|_| InvalidSignature)
    }
}
