//! Whole evidence documents of a node on SEV-SNP: what vouches for the statement, and where the certificate comes from.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::{Authentic, Claims, Endorsers, Node, Rejected, authenticate};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA, SnpEvidence};
use blf_evidence::endorsements::{Endorsements, SnpEndorsements};
use blf_evidence::snp::Family;
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::{Base64, Hex};
use sha2::{Digest as _, Sha256};

use crate::pki::{Case, NOW, verdict};

/// A node's document, and whom to believe.
struct Document {
    case: Case,
    binding: Binding,
    /// Bytes of the certificate table.
    table: Option<Vec<u8>>,
    stapled: Option<SnpEndorsements>,
}

impl Document {
    fn new(mut case: Case) -> Self {
        let binding = Binding {
            config_sha256: Hex(Sha256::digest(b"{}").into()),
            ..Binding::parse(include_bytes!("../../../evidence/tests/vectors/binding.json")).unwrap()
        };
        let raw = binding.to_canonical().unwrap();
        case.report.report_data = Statement::new(binding.keys.node, raw.as_bytes()).0;
        let stapled = Some(case.endorsements());
        Self { case, binding, table: None, stapled }
    }

    fn evidence(&self) -> Evidence {
        let endorsements = self.stapled.clone().map(|snp| {
            let document = Endorsements { snp: Some(snp), ..Endorsements::default() };
            Base64(document.to_json().unwrap().into_bytes())
        });
        Evidence {
            schema: SCHEMA.into(),
            binding: self.binding.to_canonical().unwrap(),
            config: "{}".into(),
            platform: Platform::Snp(SnpEvidence {
                report: Base64(self.case.signed_report().to_vec()),
                certificates: self.table.clone().map(Base64),
            }),
            endorsements,
        }
    }

    fn authenticate(&self) -> Result<Authentic<Node>, Box<Rejected>> {
        let endorsers = Endorsers { amd: self.case.roots.clone(), ..Endorsers::default() };
        authenticate(&self.evidence(), &endorsers, NOW, &AwsLc)
    }

    /// The code and what was found instead.
    fn refusal(&self) -> (&'static str, String) {
        let rejected = verdict(self.authenticate()).unwrap_err();
        (rejected.code, rejected.failed.got)
    }
}

/// A certificate table with these certificates: VCEK, VLEK.
fn table(vcek: &[u8], vlek: &[u8]) -> Vec<u8> {
    let guids = ["8d75da6364e66445adc5f4b93be8accd", "c24b07a85aa23e48aae639c045a0b8a1"];
    let mut out = Vec::new();
    let mut offset = 3 * 24;
    for (guid, der) in guids.iter().zip([vcek, vlek]) {
        let [offset_bytes, length] = [offset, der.len()].map(|n| u32::try_from(n).unwrap().to_le_bytes());
        out.extend([hex::decode(guid).unwrap(), offset_bytes.to_vec(), length.to_vec()].concat());
        offset += der.len();
    }
    [out, vec![0; 24], vcek.to_vec(), vlek.to_vec(), vec![0; 100]].concat()
}

#[test]
fn a_chip_vouches_for_the_statement() {
    for family in Family::ALL {
        let document = Document::new(Case::vcek(family));
        let authentic = document.authenticate().unwrap();
        assert_eq!(authentic.binding, document.binding);
        let Claims::Snp(claims) = &authentic.platform else { panic!("another platform") };
        assert_eq!((claims.family, claims.report.report_data), (family, document.case.report.report_data));
    }
}

#[test]
fn for_another_statement() {
    let mut document = Document::new(Case::vcek(Family::Genoa));
    let wanted = document.case.report.report_data;
    document.case.report.report_data.0[63] ^= 1;
    assert_ne!(wanted, document.case.report.report_data);
    assert_eq!(document.refusal().0, "STATEMENT_MISMATCH");
    let mut document = Document::new(Case::vcek(Family::Genoa));
    document.binding.nonce.0[0] ^= 1;
    assert_eq!(document.refusal().0, "STATEMENT_MISMATCH");
}

/// The host's table has what the report needs, under the GUID of the kind that the report names.
#[test]
fn with_the_host_s_certificate_table() {
    let mut chip = Document::new(Case::vcek(Family::Milan));
    let mut cloud = Document::new(Case::vlek(Family::Milan));
    let veks = [&chip, &cloud].map(|document| document.stapled.clone().unwrap().vek.unwrap().0);
    for document in [&mut chip, &mut cloud] {
        document.table = Some(table(&veks[0], &veks[1]));
        document.stapled = None;
        document.authenticate().unwrap();
        document.table = Some(table(&veks[1], &veks[0]));
        assert_eq!(document.refusal().0, "VEK_MISMATCH");
    }
    // What is stapled counts; the table is not even looked at.
    let mut both = Document::new(Case::vcek(Family::Milan));
    both.table = Some(vec![0xFF; 50]);
    both.authenticate().unwrap();
}

#[test]
fn with_a_table_that_is_none() {
    let mut document = Document::new(Case::vcek(Family::Turin));
    (document.stapled, document.table) = (None, Some(vec![0xFF; 50]));
    let (code, got) = document.refusal();
    assert_eq!((code, got.split(':').next()), ("VEK_MALFORMED", Some("certificate table")), "{got}");
}

#[test]
fn without_any_certificate() {
    let mut document = Document::new(Case::vcek(Family::Turin));
    document.stapled = None;
    assert_eq!(document.refusal(), ("VEK_MISSING", "none".into()));
    document.table = Some(Vec::new());
    assert_eq!(document.refusal(), ("VEK_MISSING", "none".into()));
}
