//! A node with a TPM of its own: a peer with its own keys behind the real formats, over what a real boot left in the
//! PCRs and the event log (`tests/vectors/boot`).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::release::{Pcrs, Source, Toolchain, measurement_id};
use blf_appraisal::{
    AttestationResult, Endorsers, Expectations, Policy, References, Rejected, Release, Root, RootKind, authenticate,
};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA, TpmEvidence};
use blf_evidence::statement::{Binding, Profile, Purpose, Statement};
use blf_evidence::tpm::{ClockInfo, HashAlg, PcrSelection, Public, PublicKey, Quote, Signature, ak_p256_template};
use blf_evidence::{Base64, Hex, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData,
    SignatureAlgorithm,
};
use sha2::{Digest as _, Sha256};

/// The verifier's clock in all tests: 2026-11-20T09:00:00Z.
pub(crate) const NOW: UnixTime = UnixTime(1_795_165_200);

pub(crate) fn sha(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// A TPM as far as quotes go.
pub(crate) struct Tpm {
    key: EcdsaKeyPair,
    pub(crate) ak: Public,
}

impl Tpm {
    pub(crate) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut ak = ak_p256_template();
        let point = key.public_key().as_ref().to_vec();
        let PublicKey::EccP256 { x, y, .. } = &mut ak.key else { unreachable!() };
        (*x, *y) = (point[1..33].to_vec(), point[33..].to_vec());
        Self { key, ak }
    }

    /// `TPMS_ATTEST` as a TPM in this state makes it.
    pub(crate) fn attest(&self, extra_data: &[u8], pcrs: &[Hex<32>]) -> Quote {
        Quote {
            qualified_signer: self.ak.name(),
            extra_data: extra_data.to_vec(),
            clock_info: ClockInfo { clock: 5000, reset_count: 1, restart_count: 0, safe: true },
            firmware_version: 1,
            pcr_select: PcrSelection::ALL_SHA256,
            pcr_digest: sha(&pcrs.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>()).to_vec(),
        }
    }

    pub(crate) fn sign(&self, quote: &Quote) -> Signature {
        let signature = self.key.sign(&SystemRandom::new(), &quote.to_bytes()).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        Signature::Ecdsa { hash: HashAlg::Sha256, r: r.to_vec(), s: s.to_vec() }
    }
}

/// rcgen wants to know the algorithm of a key that it only certifies.
struct Subject(Vec<u8>);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// An issuer of AK certificates.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))
    }

    pub(crate) fn with(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn root(&self, kind: RootKind) -> Root {
        Root::from_der("test root", kind, &self.der).unwrap()
    }

    pub(crate) fn certify(&self, ak: &Public) -> Base64 {
        self.certify_with(ak, |_| ())
    }

    pub(crate) fn certify_with(&self, ak: &Public, edit: impl FnOnce(&mut CertificateParams)) -> Base64 {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "AK");
        params.is_ca = IsCa::ExplicitNoCa;
        // tcg-kp-AIKCertificate
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 3])];
        edit(&mut params);
        let subject = Subject(ak.point_or_modulus().unwrap());
        Base64(params.signed_by(&subject, &self.issuer).unwrap().der().to_vec())
    }
}

/// A node, and a relying party that believes its issuer and runs the release it booted.
pub(crate) struct Setting {
    pub(crate) tpm: Tpm,
    pub(crate) ca: Ca,
    pub(crate) binding: Binding,
    pub(crate) config: String,
    pub(crate) pcrs: Vec<Hex<32>>,
    pub(crate) event_log: Option<Base64>,
    pub(crate) endorsers: Endorsers,
    pub(crate) release: Release,
    pub(crate) policy: Policy,
    pub(crate) expected: Expectations,
    pub(crate) now: UnixTime,
}

pub(crate) fn boot_vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/vectors/boot/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

impl Setting {
    pub(crate) fn new() -> Self {
        let boot: serde_json::Value = serde_json::from_slice(&boot_vector("pcrs.json")).unwrap();
        let hex = |value: &serde_json::Value| value.as_str().unwrap().parse::<Hex<32>>().unwrap();
        let predicted = &boot["predicted"];
        let zero = Hex([0; 32]);
        let (pcr4, pcr9, pcr11) = (&predicted["4"], hex(&predicted["9"]), hex(&predicted["11"]));
        let profile = Profile { name: "devnet".into(), id: Hex([10; 32]) };
        let config = "{}".to_string();
        let (tpm, ca) = (Tpm::new(), Ca::new("blf test AK issuer"));
        let nonce = Hex([9; 32]);
        Self {
            endorsers: Endorsers { roots: vec![ca.root(RootKind::Development)], ..Endorsers::default() },
            binding: Binding {
                config_sha256: Hex(sha(config.as_bytes())),
                nonce,
                not_after: UnixTime(NOW.0 + 3600),
                profile: profile.clone(),
                ..Binding::parse(include_bytes!("../../../evidence/tests/vectors/binding.json")).unwrap()
            },
            config,
            pcrs: boot["kernel"].as_array().unwrap().iter().map(hex).collect(),
            event_log: Some(Base64(boot_vector("kernel.log"))),
            release: Release {
                schema: blf_appraisal::release::SCHEMA.into(),
                measurement_id: measurement_id(pcr11),
                pcrs: Pcrs { pcr4: [hex(&pcr4[0]), hex(&pcr4[1])], pcr9, pcr11, pcr12: zero, pcr13: zero },
                profile,
                image_id: "blf".into(),
                version: "0.1.0".into(),
                kernel: "6.12.117+deb13-cloud-amd64".into(),
                locked: true,
                date: "2026-11-20".into(),
                source: Source { commit: "0".repeat(40), agent_sha256: zero, cargo_lock_sha256: zero },
                rust: Toolchain { version: "1.95.0".into(), commit: "0".repeat(40), sha256: zero },
                inputs: Vec::new(),
                outputs: Vec::new(),
            },
            policy: Policy::parse(Policy::DEVNET.as_bytes()).unwrap(),
            expected: Expectations {
                audience: "icl.devnet.blf.internal".into(),
                head: None,
                nonce,
                purpose: Purpose::Admission,
            },
            now: NOW,
            tpm,
            ca,
        }
    }

    /// Evidence as this node makes it now.
    pub(crate) fn evidence(&self) -> Evidence {
        let binding = self.binding.to_canonical().unwrap();
        let statement = Statement::new(self.binding.keys.node, binding.as_bytes());
        let quote = self.tpm.attest(&statement.qualifying_data(), &self.pcrs);
        let tpm = TpmEvidence {
            signature: Base64(self.tpm.sign(&quote).to_bytes()),
            quote: Base64(quote.to_bytes()),
            ak_public: Base64(self.tpm.ak.to_bytes()),
            ak_certificate: Some(self.ca.certify(&self.tpm.ak)),
            pcrs: self.pcrs.clone(),
            event_log: self.event_log.clone(),
        };
        Evidence {
            schema: SCHEMA.into(),
            binding,
            config: self.config.clone(),
            platform: Platform::Tpm(tpm),
            endorsements: None,
        }
    }

    pub(crate) fn verdict(&self, evidence: &Evidence) -> Result<AttestationResult, Box<Rejected>> {
        let authentic = authenticate(evidence, &self.endorsers, self.now, &AwsLc)?;
        self.policy.appraise(authentic, &References::from(&self.release), &self.expected)
    }

    /// The refusal of evidence that must be refused.
    pub(crate) fn refusal(&self, evidence: &Evidence) -> Rejected {
        match self.verdict(evidence) {
            Err(rejected) => *rejected,
            other => panic!("wanted a refusal, got {other:?}"),
        }
    }
}

/// The TPM part of evidence, to be damaged.
pub(crate) fn tpm_of(evidence: &mut Evidence) -> &mut TpmEvidence {
    let Platform::Tpm(tpm) = &mut evidence.platform else { panic!("not TPM evidence") };
    tpm
}
