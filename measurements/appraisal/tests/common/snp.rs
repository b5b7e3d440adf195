//! Chips, clouds and a maker of both with keys of our own: a peer of AMD's that signs by the same rules, and certificates
//! and revocation lists written byte by byte, so that a test can break any of them.
#![allow(dead_code)] // each test uses some of it

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PSS_SHA384,
    RsaKeyPair,
};
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::snp::{self, Claims, Root};
use blf_appraisal::{Rejected, RootKind};
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{Family, Report, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK, Tcb, policy};
use blf_evidence::{Base64, Hex, UnixTime};

/// The verifier's clock: 2026-11-20T09:00:00Z.
pub(crate) const NOW: UnixTime = UnixTime(1_795_165_200);
/// `NOW` as certificates write it.
pub(crate) const NOW_UTC: &str = "261120090000Z";
pub(crate) const LONG_AGO: &str = "220101000000Z";
pub(crate) const FAR_AWAY: &str = "450101000000Z";

/// RSA keys of one maker, whatever the family.
pub(crate) static ARK: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);
pub(crate) static ASK: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);
pub(crate) static ASVK: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);
/// A key of somebody else.
pub(crate) static STRANGER: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);

fn rsa_key() -> RsaKeyPair {
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
}

/// `RSASSA-PSS-params` with SHA-384 and a salt of 48 bytes.
pub(crate) fn pss() -> Vec<u8> {
    let sha384 = sequence(&[&oid(b"\x60\x86\x48\x01\x65\x03\x04\x02\x02"), &tlv(0x05, &[])]);
    let mgf1 = sequence(&[&oid(b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x08"), &sha384]);
    let parameters = sequence(&[&tlv(0xA0, &sha384), &tlv(0xA1, &mgf1), &tlv(0xA2, &integer(&[48]))]);
    sequence(&[&oid(b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0A"), &parameters])
}

/// A certificate before it is signed.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) serial: u8,
    /// `AlgorithmIdentifier` of the signature.
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: String,
    pub(crate) not_before: &'static str,
    pub(crate) not_after: &'static str,
    pub(crate) subject: String,
    /// `SubjectPublicKeyInfo`.
    pub(crate) key: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
}

#[derive(Clone, Debug)]
pub(crate) struct Extension {
    /// As it is encoded, without its header.
    pub(crate) oid: Vec<u8>,
    /// `DEFAULT FALSE`: `Some(false)` is not how DER writes it.
    pub(crate) critical: Option<bool>,
    pub(crate) value: Vec<u8>,
}

impl Template {
    /// An ARK's, ASK's or ASVK's: the subject says which.
    pub(crate) fn authority(serial: u8, subject: &str, issuer: &str, key: &RsaKeyPair) -> Self {
        let rsa = sequence(&[&oid(b"\x2A\x86\x48\x86\xF7\x0D\x01\x01\x01"), &tlv(0x05, &[])]);
        let extensions = vec![
            Extension { oid: b"\x55\x1D\x13".to_vec(), critical: Some(true), value: sequence(&[&tlv(0x01, &[0xFF])]) },
            // keyCertSign, cRLSign
            Extension { oid: b"\x55\x1D\x0F".to_vec(), critical: Some(true), value: tlv(0x03, &[1, 0x06]) },
        ];
        Self {
            serial,
            algorithm: pss(),
            issuer: issuer.into(),
            not_before: LONG_AGO,
            not_after: FAR_AWAY,
            subject: subject.into(),
            key: sequence(&[&rsa, &bit_string(key.public_key().as_ref())]),
            extensions,
        }
    }

    /// That of the key that signs `report`, as the report says.
    pub(crate) fn vek(report: &Report, family: Family, key: &EcdsaKeyPair) -> Self {
        let by_cloud = report.signing_key == SIGNING_KEY_VLEK;
        let (subject, issuer) =
            if by_cloud { ("SEV-VLEK", format!("SEV-VLEK-{family}")) } else { ("SEV-VCEK", format!("SEV-{family}")) };
        let product = if by_cloud { family.to_string() } else { format!("{family}-B0") };
        let (version, spls): (u8, [u8; 8]) = match family {
            Family::Milan | Family::Genoa => (0, [1, 2, 4, 5, 6, 7, 3, 8]),
            Family::Turin => (1, [9, 1, 2, 3, 5, 6, 7, 8]),
        };
        let mut extensions = vec![amd(&[1], integer(&[version])), amd(&[2], tlv(0x16, product.as_bytes()))];
        extensions
            .extend(spls.iter().zip(report.reported_tcb.0).map(|(spl, level)| amd(&[3, *spl], integer(&[level]))));
        extensions.push(match (by_cloud, family) {
            (true, _) => amd(&[5], tlv(0x16, b"CN=cloud.example")),
            (false, Family::Turin) => amd(&[4], report.chip_id.0[..8].to_vec()),
            (false, _) => amd(&[4], report.chip_id.0.to_vec()),
        });
        Self {
            serial: 0,
            algorithm: pss(),
            issuer,
            not_before: LONG_AGO,
            not_after: FAR_AWAY,
            subject: subject.into(),
            key: sequence(&[
                &sequence(&[&oid(b"\x2A\x86\x48\xCE\x3D\x02\x01"), &oid(b"\x2B\x81\x04\x00\x22")]),
                &bit_string(key.public_key().as_ref()),
            ]),
            extensions,
        }
    }

    /// The AMD extension 1.3.6.1.4.1.3704.1 followed by these arcs.
    pub(crate) fn extension(&mut self, arcs: &[u8]) -> &mut Extension {
        let oid = amd(arcs, Vec::new()).oid;
        self.extensions.iter_mut().find(|extension| extension.oid == oid).unwrap()
    }

    pub(crate) fn sign(&self, key: &RsaKeyPair) -> Vec<u8> {
        let extensions: Vec<_> = self.extensions.iter().map(Extension::to_der).collect();
        let extensions = tlv(0xA3, &tlv(0x30, &extensions.concat()));
        let tbs = sequence(&[
            &tlv(0xA0, &integer(&[2])),
            &integer(&[self.serial]),
            &self.algorithm,
            &name(&self.issuer),
            &sequence(&[&tlv(0x17, self.not_before.as_bytes()), &tlv(0x17, self.not_after.as_bytes())]),
            &name(&self.subject),
            &self.key,
            &extensions,
        ]);
        signed(&tbs, &self.algorithm, key)
    }
}

impl Extension {
    fn to_der(&self) -> Vec<u8> {
        let critical = self.critical.map(|critical| tlv(0x01, &[if critical { 0xFF } else { 0 }])).unwrap_or_default();
        sequence(&[&oid(&self.oid), &critical, &tlv(0x04, &self.value)])
    }
}

/// A non-critical extension 1.3.6.1.4.1.3704.1 followed by `arcs`.
pub(crate) fn amd(arcs: &[u8], value: Vec<u8>) -> Extension {
    Extension { oid: [b"\x2B\x06\x01\x04\x01\x9C\x78\x01", arcs].concat(), critical: None, value }
}

/// A revocation list before it is signed.
pub(crate) struct RevocationList {
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: String,
    pub(crate) this_update: &'static str,
    pub(crate) next_update: Option<&'static str>,
    pub(crate) revoked: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
}

impl RevocationList {
    pub(crate) fn of(family: Family) -> Self {
        Self {
            algorithm: pss(),
            issuer: format!("ARK-{family}"),
            this_update: "261101000000Z",
            next_update: Some("261201000000Z"),
            revoked: vec![0x7F],
            extensions: vec![Extension { oid: b"\x55\x1D\x14".to_vec(), critical: None, value: integer(&[1]) }],
        }
    }

    pub(crate) fn sign(&self, key: &RsaKeyPair) -> Vec<u8> {
        let entry = |serial: &u8| sequence(&[&integer(&[*serial]), &tlv(0x17, LONG_AGO.as_bytes())]);
        let entries: Vec<_> = self.revoked.iter().map(entry).collect();
        let extensions: Vec<_> = self.extensions.iter().map(Extension::to_der).collect();
        let tbs = sequence(&[
            &integer(&[1]),
            &self.algorithm,
            &name(&self.issuer),
            &tlv(0x17, self.this_update.as_bytes()),
            &self.next_update.map(|time| tlv(0x17, time.as_bytes())).unwrap_or_default(),
            &tlv(0x30, &entries.concat()),
            &tlv(0xA0, &tlv(0x30, &extensions.concat())),
        ]);
        signed(&tbs, &self.algorithm, key)
    }
}

/// A report, the certificate for its key, and everything that decides whether they are believed. As it comes it is genuine.
pub(crate) struct Case {
    pub(crate) family: Family,
    pub(crate) report: Report,
    /// Signs the report.
    pub(crate) key: EcdsaKeyPair,
    pub(crate) vek: Template,
    /// Signs the VEK's certificate.
    pub(crate) issuer: &'static RsaKeyPair,
    pub(crate) endorsements: SnpEndorsements,
    pub(crate) roots: Vec<Root>,
    pub(crate) now: UnixTime,
}

impl Case {
    /// A report of version 3, or 5 on Turin, that a VCEK signs.
    pub(crate) fn vcek(family: Family) -> Self {
        Self::new(family, report(family), &ASK)
    }

    /// A report of the same version that a VLEK signs; its chip is hidden.
    pub(crate) fn vlek(family: Family) -> Self {
        let report = Report { signing_key: SIGNING_KEY_VLEK, chip_id: Hex([0; 64]), ..report(family) };
        Self::new(family, report, &ASVK)
    }

    fn new(family: Family, report: Report, issuer: &'static RsaKeyPair) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let vek = Template::vek(&report, family, &key);
        let endorsements = SnpEndorsements { vek: None, ask: None, ark: None, crl: None };
        Self { family, report, key, vek, issuer, endorsements, roots: vec![root(family)], now: NOW }
    }

    /// Everything that the verdict depends on but the random part of signatures.
    pub(crate) fn shown(&self) -> String {
        let keys = (self.key.public_key(), self.issuer.public_key());
        format!("{:?}", (&self.report, keys, &self.vek, &self.endorsements, &self.roots, self.now))
    }

    pub(crate) fn signed_report(&self) -> [u8; Report::SIZE] {
        sign_report(&self.report, &self.key)
    }

    pub(crate) fn endorsements(&self) -> SnpEndorsements {
        let vek = self.endorsements.vek.clone().unwrap_or_else(|| Base64(self.vek.sign(self.issuer)));
        SnpEndorsements { vek: Some(vek), ..self.endorsements.clone() }
    }

    pub(crate) fn authenticate(&self) -> Result<Claims, Rejected> {
        let (report, endorsements) = (self.signed_report(), self.endorsements());
        verdict(
            snp::authenticate(&report, &endorsements, &self.roots, self.now, &AwsLc)
                .map(|authentic| (*authentic).clone()),
        )
    }
}

pub(crate) fn verdict<T>(result: Result<T, Box<Rejected>>) -> Result<T, Rejected> {
    result.map_err(|rejected| *rejected)
}

/// The ARK, ASK and ASVK of a family.
pub(crate) fn root(family: Family) -> Root {
    let ark = Template::authority(1, &format!("ARK-{family}"), &format!("ARK-{family}"), &ARK).sign(&ARK);
    Root::new(family, RootKind::Development, &ark, &ask(family).sign(&ARK), &asvk(family).sign(&ARK)).unwrap()
}

pub(crate) fn ask(family: Family) -> Template {
    Template::authority(2, &format!("SEV-{family}"), &format!("ARK-{family}"), &ASK)
}

pub(crate) fn asvk(family: Family) -> Template {
    Template::authority(3, &format!("SEV-VLEK-{family}"), &format!("ARK-{family}"), &ASVK)
}

/// An unsigned report as a chip of this family makes it.
pub(crate) fn report(family: Family) -> Report {
    let (version, cpuid, tcb) = match family {
        Family::Milan => (3, [0x19, 0x01, 1], Tcb([4, 0, 0, 0, 0, 0, 0x18, 0xDB])),
        Family::Genoa => (3, [0x19, 0x11, 1], Tcb([10, 0, 0, 0, 0, 0, 0x17, 0x54])),
        Family::Turin => (5, [0x1A, 0x02, 1], Tcb([1, 1, 1, 4, 0, 0, 0, 0x51])),
    };
    let mut chip_id = Hex([0; 64]);
    chip_id.0[..8].copy_from_slice(b"one chip");
    Report {
        version,
        guest_svn: 0,
        policy: policy::SMT | policy::RESERVED_ONE,
        family_id: Hex([0; 16]),
        image_id: Hex([0; 16]),
        vmpl: 0,
        current_tcb: tcb,
        platform_info: 0x25,
        author_key_enabled: false,
        mask_chip_key: false,
        signing_key: SIGNING_KEY_VCEK,
        report_data: Hex([0xDA; 64]),
        measurement: Hex([0x3E; 48]),
        host_data: Hex([0; 32]),
        id_key_digest: Hex([0; 48]),
        author_key_digest: Hex([0; 48]),
        report_id: Hex([0x1D; 32]),
        report_id_ma: Hex([0xFF; 32]),
        reported_tcb: tcb,
        cpuid: Some(cpuid),
        chip_id,
        committed_tcb: tcb,
        current_firmware: [1, 55, 41],
        committed_firmware: [1, 55, 41],
        launch_tcb: tcb,
        launch_mitigations: (version >= 5).then_some(0x3F),
        current_mitigations: (version >= 5).then_some(0x3F),
        signature: Hex([0; 96]),
    }
}

pub(crate) fn sign_report(report: &Report, key: &EcdsaKeyPair) -> [u8; Report::SIZE] {
    let bytes = report.to_bytes();
    let signature = key.sign(&SystemRandom::new(), Report::signed_part(&bytes).unwrap()).unwrap();
    Report { signature: Hex(signature.as_ref().try_into().unwrap()), ..report.clone() }.to_bytes()
}

/// `SubjectPublicKeyInfo` of a new key on P-256.
pub(crate) fn p256_key() -> Vec<u8> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let algorithm = sequence(&[&oid(b"\x2A\x86\x48\xCE\x3D\x02\x01"), &oid(b"\x2A\x86\x48\xCE\x3D\x03\x01\x07")]);
    sequence(&[&algorithm, &bit_string(key.public_key().as_ref())])
}

fn signed(tbs: &[u8], algorithm: &[u8], key: &RsaKeyPair) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), tbs, &mut signature).unwrap();
    sequence(&[tbs, algorithm, &bit_string(&signature)])
}

fn name(common_name: &str) -> Vec<u8> {
    let attribute = sequence(&[&oid(b"\x55\x04\x03"), &tlv(0x0C, common_name.as_bytes())]);
    tlv(0x30, &tlv(0x31, &attribute))
}

/// An INTEGER that is not negative.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let positive = if bytes[0] < 0x80 { bytes.to_vec() } else { [&[0], bytes].concat() };
    tlv(0x02, &positive)
}

fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(0x06, encoded)
}

fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

pub(crate) fn sequence(members: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &members.concat())
}

/// One DER element.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).unwrap());
            out.extend(significant);
        }
    }
    out.extend(content);
    out
}
