//! The same evidence before this crate and before `sev`. Where the two disagree, `tests/vectors/snp/README.md` says so and
//! why; its table is compared with what they say here.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{Root, authenticate};
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::Family;
use blf_evidence::{Base64, UnixTime};
use sev::certs::snp::{Chain, Verifiable as _};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

use crate::mutants::edits;
use crate::pki::{ARK, Case, Extension, STRANGER, amd as extension, asvk, integer, p256_key, tlv, verdict};
use crate::vectors::{self, Vector, amd, certificate, file, genuine, named};

/// Evidence as both take it.
struct Exhibit {
    name: String,
    report: Vec<u8>,
    /// ARK, ASK or ASVK, VEK.
    chain: [Vec<u8>; 3],
    roots: Vec<Root>,
    now: UnixTime,
}

impl Exhibit {
    /// A real report with the certificates of AMD.
    fn real(name: &str, vector: &Vector) -> Self {
        let [ark, ask, asvk] = amd(vector.family);
        let issuer = if vector.name == "milan-v3-vlek" { asvk } else { ask };
        let chain = [ark, issuer, vector.vek.clone()];
        Self { name: name.into(), report: vector.report.clone(), chain, roots: Root::pinned(), now: vector.now }
    }

    /// A report of our own making.
    fn own(name: &str, mut case: Case, edit: impl FnOnce(&mut Case)) -> Self {
        edit(&mut case);
        let ark = crate::pki::Template::authority(1, "ARK-Milan", "ARK-Milan", &ARK).sign(&ARK);
        let endorsements = case.endorsements();
        let ask = endorsements.ask.map_or_else(|| crate::pki::ask(Family::Milan).sign(&ARK), |ask| ask.0);
        let root = Root::new(Family::Milan, blf_appraisal::RootKind::Development, &ark, &ask, &ask).unwrap();
        let chain = [ark, ask, endorsements.vek.unwrap().0];
        Self { name: name.into(), report: case.signed_report().to_vec(), chain, roots: vec![root], now: case.now }
    }

    fn here(&self) -> Result<(), &'static str> {
        let [ark, ask, vek] = self.chain.clone().map(|der| Some(Base64(der)));
        let endorsements = SnpEndorsements { vek, ask, ark, crl: None };
        let result = authenticate(&self.report, &endorsements, &self.roots, self.now, &AwsLc);
        verdict(result).map(|_| ()).map_err(|rejected| rejected.code)
    }

    /// The report (0), or a certificate of the chain.
    fn part(&mut self, index: usize) -> &mut Vec<u8> {
        if index == 0 { &mut self.report } else { &mut self.chain[index - 1] }
    }

    fn sev(&self) -> bool {
        let [ark, ask, vek] = &self.chain;
        let Ok(chain) = Chain::from_der(ark, ask, vek) else { return false };
        let Ok(report) = AttestationReport::from_bytes(&self.report) else { return false };
        (&chain, &report).verify().is_ok()
    }
}

/// The genuine vectors as they are and a little broken, and reports of our own with each defect that `refused.rs` knows.
fn exhibits() -> Vec<Exhibit> {
    let vcek = || Case::vcek(Family::Milan);
    let mut all: Vec<_> = genuine().iter().map(|vector| Exhibit::real(vector.name, vector)).collect();
    let turin = named("turin-v5-azure");
    for name in
        ["extra-byte-1185", "flip-measurement", "flip-reserved", "sig-r-pad-nonzero", "sig-zero", "truncated-1183"]
    {
        let report = file(&format!("derived-bad/turin-{name}.bin"));
        all.push(Exhibit::real(&format!("derived-bad/turin-{name}"), &Vector { report, ..turin.clone() }));
    }
    let coco = named("milan-v2-coco");
    for name in ["bad-vcek-legacy", "bad-vcek-new"] {
        let vek = certificate(&format!("milan-v2-coco/{name}.der"));
        all.push(Exhibit::real(&format!("milan-v2-coco/{name}"), &Vector { vek, ..coco.clone() }));
    }
    let vlek = named("milan-v3-vlek");
    all.push(Exhibit::real("an expired VLEK", &Vector { now: vectors::NOW, ..vlek.clone() }));
    let [_, ask, _] = amd(Family::Milan);
    let mut through_ask = Exhibit::real("a VLEK through the ASK", &vlek);
    through_ask.chain[1] = ask;
    all.push(through_ask);
    let mut other = Exhibit::real("an ASK of a sibling", &coco);
    other.chain[1] = amd(Family::Genoa)[1].clone();
    all.push(other);
    let salt = |name: &str| file(&format!("pss-salt-32/{name}.der"));
    for name in ["vcek-declares-32", "vcek-declares-48"] {
        let (ark, ask) = (salt("ark"), salt("ask"));
        let roots = vec![Root::new(Family::Milan, blf_appraisal::RootKind::Development, &ark, &ask, &ask).unwrap()];
        let chain = [ark, ask, salt(name)];
        // Whoever made them kept no key: no report is theirs, and both must refuse.
        all.push(Exhibit {
            name: format!("pss-salt-32/{name}"),
            report: coco.report.clone(),
            chain,
            roots,
            now: vectors::NOW,
        });
    }

    all.push(Exhibit::own("genuine", vcek(), |_| ()));
    all.push(Exhibit::own("an expired VCEK", vcek(), |case| case.vek.not_after = "260101000000Z"));
    all.push(Exhibit::own("a VCEK by a stranger", vcek(), |case| case.issuer = &STRANGER));
    all.push(Exhibit::own("a VCEK through the ASVK", vcek(), |case| {
        case.issuer = &crate::pki::ASVK;
        case.vek.issuer = "SEV-VLEK-Milan".into();
        case.endorsements.ask = Some(Base64(asvk(Family::Milan).sign(&ARK)));
    }));
    all.push(Exhibit::own("an expired ASK", vcek(), |case| {
        let ask = crate::pki::Template { not_after: "260101000000Z", ..crate::pki::ask(Family::Milan) };
        case.endorsements.ask = Some(Base64(ask.sign(&ARK)));
    }));
    all.push(Exhibit::own("another TCB in the VCEK", vcek(), |case| case.vek.extension(&[3, 8]).value = integer(&[1])));
    all.push(Exhibit::own("another chip's VCEK", vcek(), |case| case.vek.extension(&[4]).value[0] ^= 1));
    all.push(Exhibit::own("another product in the VCEK", vcek(), |case| {
        case.vek.extension(&[2]).value = tlv(0x16, b"Genoa-B0");
    }));
    all.push(Exhibit::own("an extension twice", vcek(), |case| {
        case.vek.extensions.push(extension(&[3, 8], integer(&[0xFF])));
    }));
    all.push(Exhibit::own("an unknown critical extension", vcek(), |case| {
        let oid = b"\x55\x1D\x20".to_vec();
        case.vek.extensions.push(Extension { oid, critical: Some(true), value: tlv(0x30, &[]) });
    }));
    all.push(Exhibit::own("another encoding of the VCEK", vcek(), |case| {
        case.vek.extension(&[3, 1]).critical = Some(false);
    }));
    all.push(Exhibit::own("a VCEK for a key on P-256", vcek(), |case| case.vek.key = p256_key()));
    all.push(Exhibit::own("a report that says VLEK", vcek(), |case| case.report.signing_key = 1));
    all.push(Exhibit::own("a report that says that nobody signed it", vcek(), |case| case.report.signing_key = 7));
    all.push(Exhibit::own("a masked chip key", vcek(), |case| case.report.mask_chip_key = true));
    all.push(Exhibit::own("a hidden chip", vcek(), |case| case.report.chip_id.0 = [0; 64]));
    all.push(Exhibit::own("another chip", vcek(), |case| case.report.chip_id.0[63] = 1));
    all.push(Exhibit::own("another reported TCB", vcek(), |case| case.report.reported_tcb.0[7] -= 1));
    all.push(Exhibit::own("a family without ARK", vcek(), |case| case.report.cpuid = Some([0x1A, 0x50, 0])));
    all.push(Exhibit::own("a sibling family", vcek(), |case| case.report.cpuid = Some([0x19, 0x11, 1])));
    all.push(Exhibit::own("version 2 of a hidden chip", vcek(), |case| {
        (case.report.version, case.report.cpuid, case.report.chip_id.0) = (2, None, [0; 64]);
    }));
    all.push(Exhibit::own("version 4", vcek(), |case| case.report.version = 4));
    all.push(Exhibit::own("a reserved bit of POLICY", vcek(), |case| case.report.policy |= 1 << 26));
    all.push(Exhibit::own("POLICY without its bit 17", vcek(), |case| case.report.policy &= !(1 << 17)));
    all.push(Exhibit::own("a reserved bit of PLATFORM_INFO", vcek(), |case| case.report.platform_info |= 1 << 8));
    all.push(Exhibit::own("a reserved byte of a TCB", vcek(), |case| case.report.current_tcb.0[3] = 1));
    all.push(Exhibit::own("a reserved value of SIGNING_KEY", vcek(), |case| case.report.signing_key = 2));
    all
}

/// Rows of the README below "Where sev disagrees": case, here, sev.
fn table() -> Vec<[String; 3]> {
    let readme = String::from_utf8(file("README.md")).unwrap();
    let (_, section) = readme.split_once("## Where sev disagrees\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
    rows.map(|row| {
        let mut cells = row.split(" | ").map(|cell| cell.trim_matches('`').to_string());
        [(); 3].map(|()| cells.next().unwrap())
    })
    .collect()
}

fn word(accepted: bool) -> &'static str {
    if accepted { "accepts" } else { "refuses" }
}

#[test]
fn disagreements_are_the_table() {
    let mut found = Vec::new();
    for exhibit in exhibits() {
        let (here, sev) = (exhibit.here(), exhibit.sev());
        if here.is_ok() != sev {
            found.push([exhibit.name, here.err().unwrap_or("accepted").into(), word(sev).into()]);
        }
    }
    found.extend(mutants_that_sev_accepts());
    assert_eq!(found, table(), "found, and in the README");
}

/// What of a genuine report and its certificates may be changed for `sev`: bytes, as runs, tried with one bit each, and
/// bytes left out, doubled, cut off or added. Here nothing may: see `mutants.rs`.
fn mutants_that_sev_accepts() -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    for (name, part) in [("report", 0), ("ARK", 1), ("ASK", 2), ("VCEK", 3)] {
        let mut exhibit = Exhibit::real(name, &named("turin-v5-azure"));
        assert!(exhibit.here().is_ok() && exhibit.sev());
        let genuine = exhibit.part(part).clone();
        let mut refused_here = |mutant: Vec<u8>| {
            *exhibit.part(part) = mutant;
            exhibit.sev().then(|| exhibit.here().unwrap_err())
        };
        let mut runs: Vec<(usize, usize, &str)> = Vec::new();
        for index in 0..genuine.len() {
            let mut mutant = genuine.clone();
            mutant[index] ^= 1 << (index % 8);
            match (refused_here(mutant), runs.last_mut()) {
                (None, _) => {}
                (Some(code), Some((_, end, last))) if *end == index && *last == code => *end += 1,
                (Some(code), _) => runs.push((index, index + 1, code)),
            }
        }
        let row = |(start, end, code): (usize, usize, &str)| {
            [format!("bytes 0x{start:x} to 0x{:x} of the {name}", end - 1), code.into(), "accepts".into()]
        };
        rows.extend(runs.into_iter().map(row));
        // Swapping two bytes that may be anything is no news.
        let edits = edits(&genuine).filter(|(what, _)| !what.ends_with("swapped"));
        rows.extend(edits.filter_map(|(what, mutant)| {
            let code = refused_here(mutant)?;
            Some([format!("the {name} {what}"), code.into(), "accepts".into()])
        }));
    }
    rows
}
