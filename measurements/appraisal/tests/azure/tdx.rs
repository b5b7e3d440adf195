//! Azure on TDX: a TDREPORT proves nothing by itself, the TD quote that was made of it does.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::azure::{Claims, Hardware, authenticate};
use blf_appraisal::{Endorsers, Rejected};
use blf_evidence::azure::{HardwareReport, HclReport, TdReport};
use blf_evidence::bundle::AzureEvidence;
use blf_evidence::endorsements::{Endorsements, SCHEMA, TdxEndorsements};
use blf_evidence::tdx::Quote;
use blf_evidence::{Base64, Hex};
use sha2::{Digest as _, Sha256};

use crate::azure::{CHALLENGE, Guest, genuine};
use crate::intel::{self, Intel};
use crate::refusal;

/// Evidence of a guest on TDX, and who vouches for its platform.
struct Tdx {
    evidence: AzureEvidence,
    endorsements: Endorsements,
    endorsers: Endorsers,
}

impl Tdx {
    /// On a platform of an Intel of our own; `edit` changes what the quote says before it is signed.
    fn new(platform: Intel, edit: impl FnOnce(&mut Quote)) -> Self {
        Self::of(&Guest::new(), platform, edit)
    }

    fn of(guest: &Guest, mut platform: Intel, edit: impl FnOnce(&mut Quote)) -> Self {
        let mut report_data = Hex([0; 64]);
        report_data.0[..32].copy_from_slice(&Sha256::digest(&guest.runtime_data));
        platform.quote.report_data = report_data;
        let report = td_report(&platform.quote);
        edit(&mut platform.quote);
        let made = platform.make();
        let hcl = HclReport { hardware: HardwareReport::Tdx(Box::new(report)), ..guest.hcl() };
        Self {
            evidence: AzureEvidence {
                hcl_report: Base64(hcl.to_bytes()),
                td_quote: Some(Base64(made.quote.clone())),
                ..guest.evidence(CHALLENGE)
            },
            endorsements: with_collateral(made.collateral.clone()),
            endorsers: Endorsers { intel: made.root(), ..Endorsers::default() },
        }
    }

    fn good() -> Self {
        let tdx = Self::new(Intel::new(), |_| ());
        tdx.verdict(&tdx.evidence).unwrap();
        tdx
    }

    fn verdict(&self, evidence: &AzureEvidence) -> Result<Claims, Box<Rejected>> {
        authenticate(evidence, CHALLENGE, &self.endorsements, &self.endorsers, intel::NOW, &AwsLc)
            .map(|it| (*it).clone())
    }

    /// The code with which it is refused after this damage.
    #[track_caller]
    fn code(&self, damage: impl FnOnce(&mut AzureEvidence)) -> &'static str {
        let mut evidence = self.evidence.clone();
        damage(&mut evidence);
        assert_ne!(evidence, self.evidence, "no effect");
        refusal(self.verdict(&evidence)).code
    }
}

fn with_collateral(tdx: TdxEndorsements) -> Endorsements {
    Endorsements { schema: SCHEMA.into(), snp: None, tdx: Some(tdx) }
}

/// The TDREPORT of which a quoting enclave would make this quote.
fn td_report(quote: &Quote) -> TdReport {
    TdReport {
        version: 0,
        cpu_svn: Hex([6; 16]),
        report_data: quote.report_data,
        mac: Hex([0xAC; 32]),
        valid: 0x1FF,
        tee_tcb_svn: quote.tee_tcb_svn,
        mr_seam: quote.mr_seam,
        mrsigner_seam: quote.mrsigner_seam,
        seam_attributes: quote.seam_attributes,
        tee_tcb_svn_2: quote.tee_tcb_svn_2.unwrap_or(quote.tee_tcb_svn),
        td_attributes: quote.td_attributes,
        xfam: quote.xfam,
        mr_td: quote.mr_td,
        mr_config_id: quote.mr_config_id,
        mr_owner: quote.mr_owner,
        mr_owner_config: quote.mr_owner_config,
        rtmrs: quote.rtmrs,
        service_td_hash: quote.mr_service_td.unwrap_or(Hex([0; 48])),
    }
}

fn edit_report(evidence: &mut AzureEvidence, edit: impl FnOnce(&mut TdReport)) {
    let mut hcl = HclReport::parse(&evidence.hcl_report.0).unwrap();
    let HardwareReport::Tdx(report) = &mut hcl.hardware else { panic!("not TDX") };
    edit(report);
    evidence.hcl_report = Base64(hcl.to_bytes());
}

#[test]
fn both_bodies() {
    for platform in [Intel::new(), Intel::td15([5, 1, 3])] {
        let version = platform.quote.version;
        let tdx = Tdx::new(platform, |_| ());
        let claims = tdx.verdict(&tdx.evidence).unwrap();
        let Hardware::Tdx(hardware) = &claims.hardware else { panic!("not TDX") };
        assert_eq!((hardware.quote.version, hardware.event_log), (version, false));
    }
}

/// Every field that both have, changed in the TDREPORT (whose digests are then right again), and in the quote (whose
/// signature is then right again).
#[test]
fn td_quote_of_another_td_report() {
    let fields: [fn(&mut TdReport); 14] = [
        |report| report.tee_tcb_svn.0[3] ^= 1,
        |report| report.mr_seam.0[0] ^= 1,
        |report| report.mrsigner_seam.0[0] ^= 1,
        |report| report.seam_attributes ^= 1,
        |report| report.td_attributes ^= 1,
        |report| report.xfam ^= 1,
        |report| report.mr_td.0[47] ^= 1,
        |report| report.mr_config_id.0[0] ^= 1,
        |report| report.mr_owner.0[0] ^= 1,
        |report| report.mr_owner_config.0[0] ^= 1,
        |report| report.rtmrs[0].0[0] ^= 1,
        |report| report.rtmrs[1].0[0] ^= 1,
        |report| report.rtmrs[2].0[0] ^= 1,
        |report| report.rtmrs[3].0[0] ^= 1,
    ];
    let tdx = Tdx::good();
    for (index, field) in fields.into_iter().enumerate() {
        assert_eq!(tdx.code(|evidence| edit_report(evidence, field)), "TD_REPORT_MISMATCH", "field {index}");
    }
    let other = Tdx::new(Intel::new(), |quote| quote.report_data.0[32] = 1);
    assert_eq!(refusal(other.verdict(&other.evidence)).code, "TD_REPORT_MISMATCH", "REPORTDATA of the quote");
    let stale = Tdx::new(Intel::new(), |quote| quote.mr_td = Hex([0xEE; 48]));
    assert_eq!(refusal(stale.verdict(&stale.evidence)).code, "TD_REPORT_MISMATCH", "MRTD of the quote");
    let neighbour = Tdx::of(&Guest::new().neighbour(), Intel::new(), |_| ());
    neighbour.verdict(&neighbour.evidence).unwrap();
    let damage = |evidence: &mut AzureEvidence| evidence.td_quote = neighbour.evidence.td_quote.clone();
    assert_eq!(tdx.code(damage), "TD_REPORT_MISMATCH", "another guest's quote");
    let (public, _) = genuine("evidence-tdx-v1.json");
    assert_eq!(tdx.code(|evidence| evidence.td_quote = public.td_quote), "TD_REPORT_MISMATCH", "a genuine quote");
}

/// What only a TD 1.5 body says: a service TD, and the second TCB.
#[test]
fn service_td_that_the_quote_does_not_name() {
    let tdx = Tdx::good();
    let bound = |evidence: &mut AzureEvidence| edit_report(evidence, |report| report.service_td_hash.0[0] = 1);
    assert_eq!(tdx.code(bound), "TD_REPORT_MISMATCH", "a TD 1.0 body cannot say it");
    let tdx = Tdx::new(Intel::td15([5, 1, 3]), |_| ());
    tdx.verdict(&tdx.evidence).unwrap();
    assert_eq!(tdx.code(bound), "TD_REPORT_MISMATCH");
    let second = |evidence: &mut AzureEvidence| edit_report(evidence, |report| report.tee_tcb_svn_2.0[0] ^= 1);
    assert_eq!(tdx.code(second), "TD_REPORT_MISMATCH");
}

#[test]
fn report_data_that_is_not_of_the_runtime_data() {
    let tdx = Tdx::good();
    let digest = |evidence: &mut AzureEvidence| edit_report(evidence, |report| report.report_data.0[0] ^= 1);
    assert_eq!(tdx.code(digest), "HCL_MISMATCH");
    let tail = |evidence: &mut AzureEvidence| edit_report(evidence, |report| report.report_data.0[63] = 1);
    assert_eq!(tdx.code(tail), "HCL_MISMATCH");
}

#[test]
fn td_quote_left_out_or_damaged() {
    let tdx = Tdx::good();
    assert_eq!(tdx.code(|evidence| evidence.td_quote = None), "TD_REPORT_MISMATCH");
    let cut = |evidence: &mut AzureEvidence| evidence.td_quote.as_mut().unwrap().0.truncate(900);
    assert_eq!(tdx.code(cut), "TDX_QUOTE_MALFORMED");
    let signature = |evidence: &mut AzureEvidence| evidence.td_quote.as_mut().unwrap().0[48 + 584 + 4] ^= 1;
    assert_eq!(tdx.code(signature), "TDX_SIGNATURE");
}

/// The genuine guest, before somebody who believes another root than Intel's.
#[test]
fn another_root() {
    let (evidence, _) = genuine("evidence-tdx-v1.json");
    let made = Intel::new().make();
    let endorsers = Endorsers { intel: made.root(), ..Endorsers::default() };
    let endorsements = with_collateral(made.collateral);
    let verdict = authenticate(&evidence, CHALLENGE, &endorsements, &endorsers, intel::NOW, &AwsLc);
    assert_eq!(refusal(verdict).code, "PCK_CHAIN");
}

/// Every bit of the HCL report on TDX, flipped alone: what is accepted is what `blf_appraisal::azure` lists.
#[test]
fn every_bit() {
    let tdx = Tdx::good();
    let mut evidence = tdx.evidence.clone();
    let mut free = Vec::new();
    for bit in 0..evidence.hcl_report.0.len() * 8 {
        evidence.hcl_report.0[bit / 8] ^= 1 << (bit % 8);
        match tdx.verdict(&evidence) {
            Ok(_) => free.push(bit),
            Err(rejected) => {
                let codes = ["HCL_MALFORMED", "HCL_MISMATCH", "TD_REPORT_MISMATCH"];
                assert!(codes.contains(&rejected.code), "bit {bit}: {rejected}");
            }
        }
        evidence.hcl_report.0[bit / 8] ^= 1 << (bit % 8);
    }
    // The TDREPORT starts at byte 32: one bit of REPORTTYPE.VERSION, then CPUSVN and MAC.
    let listed = [34 * 8].into_iter().chain(48 * 8..64 * 8).chain(256 * 8..288 * 8);
    assert!(listed.eq(free.iter().copied()), "{free:?}");
}
