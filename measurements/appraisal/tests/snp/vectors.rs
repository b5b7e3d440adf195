//! The files of `tests/vectors/snp`, with the verdict that its README states.

use blf_appraisal::snp::Root;
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{Family, Report};
use blf_evidence::{Base64, UnixTime};

/// 2026-11-01T00:00:00Z: all but the VLEK are valid.
pub(crate) const NOW: UnixTime = UnixTime(1_793_491_200);
/// 2025-06-01T00:00:00Z: the VLEK is valid.
pub(crate) const THEN: UnixTime = UnixTime(1_748_736_000);

/// A report and the certificate of its key.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    pub(crate) report: Vec<u8>,
    pub(crate) vek: Vec<u8>,
    pub(crate) now: UnixTime,
}

impl Vector {
    pub(crate) fn endorsements(&self) -> SnpEndorsements {
        SnpEndorsements { vek: Some(Base64(self.vek.clone())), ask: None, ark: None, crl: None }
    }
}

/// Those that are genuine.
pub(crate) fn genuine() -> Vec<Vector> {
    let vector = |name, family, report, vek, now| Vector { name, family, report, vek, now };
    let same = |name: &'static str, family, vek: &str| {
        vector(name, family, file(&format!("{name}/report.bin")), certificate(&format!("{name}/{vek}")), NOW)
    };
    let hex = hex::decode(file("milan-v2-virtee/report.hex").trim_ascii()).unwrap();
    vec![
        same("genoa-v3-azure", Family::Genoa, "vcek.pem"),
        vector("milan-dstack", Family::Milan, dstack().0, certificate("milan-dstack/vcek.pem"), NOW),
        same("milan-v2-coco", Family::Milan, "vcek.der"),
        same("milan-v2-google", Family::Milan, "vcek.der"),
        vector("milan-v2-virtee", Family::Milan, hex, certificate("milan-v2-virtee/vcek.der"), NOW),
        same("milan-v3-azure", Family::Milan, "vcek.pem"),
        Vector { now: THEN, ..same("milan-v3-vlek", Family::Milan, "vlek.der") },
        same("turin-v5-azure", Family::Turin, "vcek.pem"),
    ]
}

pub(crate) fn named(name: &str) -> Vector {
    genuine().into_iter().find(|vector| vector.name == name).unwrap()
}

/// The report in dstack's envelope, and the rest of it. The report stands behind a SCALE header of four bytes.
pub(crate) fn dstack() -> (Vec<u8>, Vec<u8>) {
    let envelope = file("milan-dstack/attestation.scale.bin");
    let (report, rest) = envelope[4..].split_at(Report::SIZE);
    (report.to_vec(), rest.to_vec())
}

/// AMD's roots, as this crate carries them: ARK, ASK, ASVK in DER.
pub(crate) fn amd(family: Family) -> [Vec<u8>; 3] {
    let family = family.to_string().to_lowercase();
    ["ark", "ask", "asvk"].map(|name| std::fs::read(root_path(&format!("roots/amd/{family}-{name}.der"))).unwrap())
}

pub(crate) fn roots() -> Vec<Root> {
    Root::pinned()
}

pub(crate) fn file(name: &str) -> Vec<u8> {
    std::fs::read(root_path(&format!("tests/vectors/snp/{name}"))).unwrap()
}

/// A certificate in DER, from a file of either form.
pub(crate) fn certificate(name: &str) -> Vec<u8> {
    let bytes = file(name);
    if name.ends_with(".pem") { x509_cert::der::pem::decode_vec(&bytes).unwrap().1 } else { bytes }
}

fn root_path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}
