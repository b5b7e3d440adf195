//! Every vector of SEV-SNP, TDX, Azure and TPM through both providers of signature primitives: the same claims or the same
//! refusal, with the same checks before it.

#[path = "common/azure.rs"]
mod azure;
#[path = "common/collateral.rs"]
mod collateral;
#[path = "common/snp.rs"]
mod snp;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::crypto::CryptoProvider;
use blf_appraisal::rust_crypto::RustCrypto;
use blf_appraisal::{Endorsers, Rejected, azure as azure_platform, snp as snp_platform, tdx, tpm};
use blf_evidence::azure::{HardwareReport, HclReport};
use blf_evidence::endorsements::{Endorsements, SnpEndorsements, TdxEndorsements};
use blf_evidence::snp::Report;
use blf_evidence::tdx::Quote;
use blf_evidence::{Base64, UnixTime};
use serde_json::Value;

use collateral::collateral;

/// When some of the vectors were genuine: collateral of TDX v4 and v5, the VLEK, and now.
const TIMES: [UnixTime; 4] = [UnixTime(1_752_000_000), UnixTime(1_774_000_000), UnixTime(1_748_736_000), snp::NOW];

/// Whether both providers accept; panics where they differ.
#[track_caller]
fn accepted<T: Debug>(name: &str, verify: impl Fn(&dyn CryptoProvider) -> Result<T, Box<Rejected>>) -> bool {
    let [aws_lc, rust_crypto] = [&AwsLc as &dyn CryptoProvider, &RustCrypto].map(verify);
    assert_eq!(format!("{aws_lc:?}"), format!("{rust_crypto:?}"), "{name}");
    aws_lc.is_ok()
}

/// Every vector file of evidence and appraisal, with its path.
fn files() -> Vec<(String, Vec<u8>)> {
    fn walk(folder: &Path, all: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else {
                all.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    let mut all = Vec::new();
    for folder in ["tests/vectors", "../evidence/tests/vectors"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    all
}

/// The bytes of every certificate, whatever the form of its file.
fn certificates(files: &[(String, Vec<u8>)]) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    for (name, bytes) in files {
        if name.ends_with(".der") {
            all.insert(bytes.clone());
        } else if let Ok(text) = std::str::from_utf8(bytes).map(|text| text.replace("\\n", "\n")) {
            for block in text.split_inclusive("-----END CERTIFICATE-----") {
                let Some(start) = block.find("-----BEGIN CERTIFICATE-----") else { continue };
                if let Ok((_, der)) = x509_cert::der::pem::decode_vec(&block.as_bytes()[start..]) {
                    all.insert(der);
                }
            }
        }
    }
    all
}

/// What a file may hold: itself, what its hex text spells, dstack's envelope without its head, the hardware's report in an
/// HCL report.
fn contents(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![bytes.to_vec()];
    all.extend(hex::decode(bytes.trim_ascii()));
    all.extend(bytes.get(4..4 + Report::SIZE).map(<[u8]>::to_vec));
    if let Ok(HclReport { hardware: HardwareReport::Snp(report), .. }) = HclReport::parse(bytes) {
        all.push(report.to_vec());
    }
    all
}

#[test]
fn snp_reports_with_every_certificate() {
    let files = files();
    let certificates = certificates(&files);
    let roots = snp_platform::Root::pinned();
    let mut genuine = 0;
    for (name, bytes) in &files {
        for report in contents(bytes).iter().filter(|content| content.len().abs_diff(Report::SIZE) <= 1) {
            for vek in &certificates {
                for now in [snp::NOW, TIMES[2]] {
                    let endorsements = SnpEndorsements { vek: Some(Base64(vek.clone())), ..SnpEndorsements::default() };
                    genuine += usize::from(accepted(name, |crypto| {
                        snp_platform::authenticate(report, &endorsements, &roots, now, crypto)
                    }));
                }
            }
        }
    }
    assert!(genuine >= 8, "{genuine}");
}

#[test]
fn td_quotes_with_every_collateral() {
    let files = files();
    let collaterals: Vec<TdxEndorsements> = files.iter().filter_map(|(_, bytes)| collateral(bytes)).collect();
    assert!(collaterals.len() >= 3, "{}", collaterals.len());
    let root = tdx::Root::pinned();
    let (mut quotes, mut genuine) = (0, 0);
    for (name, bytes) in &files {
        let json = serde_json::from_slice::<Value>(bytes).ok();
        let quoted = json.and_then(|json| hex::decode(json["quote"].as_str()?).ok());
        for quote in quoted.into_iter().chain([bytes.clone()]) {
            for collateral in &collaterals {
                for now in TIMES {
                    genuine +=
                        usize::from(accepted(name, |crypto| tdx::authenticate(&quote, collateral, &root, now, crypto)));
                }
            }
            quotes += usize::from(Quote::parse(&quote).is_ok());
        }
    }
    assert!(quotes >= 8 && genuine >= 2, "{quotes} quotes, {genuine} times accepted");
}

/// Azure's evidence, with its own certificate and with any other, and the quotes of its vTPMs alone.
#[test]
fn azure_and_tpm() {
    let certificates = certificates(&files());
    let endorsers = Endorsers::default();
    let mut genuine = [0; 2];
    for name in ["evidence-snp-v1.json", "evidence-tdx-v1.json"] {
        let (evidence, vcek) = azure::genuine(name);
        let mut damaged = evidence.clone();
        damaged.tpm.signature.0[20] ^= 1;
        for evidence in [&evidence, &damaged] {
            for vek in certificates.iter().map(|der| Some(Base64(der.clone()))).chain([vcek.clone(), None]) {
                let endorsements: Endorsements = azure::with_vcek(vek);
                genuine[0] += usize::from(accepted(name, |crypto| {
                    azure_platform::authenticate(
                        evidence,
                        azure::CHALLENGE,
                        &endorsements,
                        &endorsers,
                        snp::NOW,
                        crypto,
                    )
                }));
            }
            genuine[1] += usize::from(accepted(name, |crypto| {
                tpm::authenticate(&evidence.tpm, azure::CHALLENGE, &endorsers, snp::NOW, crypto)
            }));
        }
    }
    assert_eq!(genuine, [1, 2]);
}
