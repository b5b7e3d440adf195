//! Verdicts on genuine evidence and on damaged evidence, with no C and nothing of the operating system: what `wasm-check`
//! builds for WebAssembly and runs there. The exit status is the number of wrong verdicts.

#[path = "../tests/common/collateral.rs"]
mod collateral;

use std::process::ExitCode;

use blf_appraisal::rust_crypto::RustCrypto;
use blf_appraisal::{snp, tdx};
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::{Base64, UnixTime};

use collateral::collateral;

/// Reports, the certificates of their keys, and when all was valid.
const REPORTS: [(&[u8], &str, u64); 2] = [
    (
        include_bytes!("../tests/vectors/snp/turin-v5-azure/report.bin"),
        include_str!("../tests/vectors/snp/turin-v5-azure/vcek.pem"),
        1_793_491_200,
    ),
    (
        include_bytes!("../tests/vectors/snp/genoa-v3-azure/report.bin"),
        include_str!("../tests/vectors/snp/genoa-v3-azure/vcek.pem"),
        1_793_491_200,
    ),
];
const QUOTE: &[u8] = include_bytes!("../tests/vectors/tdx/v4-phala-uptodate/quote.bin");
const COLLATERAL: &[u8] = include_bytes!("../tests/vectors/tdx/v4-phala-uptodate/collateral.json");
const QUOTE_TIME: UnixTime = UnixTime(1_752_000_000);

fn main() -> ExitCode {
    let mut wrong = 0;
    let mut expect = |genuine: bool, accepted: bool| wrong += u8::from(genuine != accepted);
    let roots = snp::Root::pinned();
    for (report, vek, now) in REPORTS {
        let (_, vek) = x509_cert::der::pem::decode_vec(vek.as_bytes()).unwrap_or_default();
        let endorsements = SnpEndorsements { vek: Some(Base64(vek)), ..SnpEndorsements::default() };
        let verdict =
            |report: &[u8]| snp::authenticate(report, &endorsements, &roots, UnixTime(now), &RustCrypto).is_ok();
        expect(true, verdict(report));
        for byte in (0..report.len()).step_by(97) {
            expect(false, verdict(&flipped(report, byte)));
        }
    }
    let Some(collateral) = collateral(COLLATERAL) else { return ExitCode::FAILURE };
    let root = tdx::Root::pinned();
    let verdict = |quote: &[u8]| tdx::authenticate(quote, &collateral, &root, QUOTE_TIME, &RustCrypto).is_ok();
    expect(true, verdict(QUOTE));
    for byte in (0..QUOTE.len()).step_by(397) {
        expect(false, verdict(&flipped(QUOTE, byte)));
    }
    ExitCode::from(wrong)
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}
