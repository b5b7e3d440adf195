//! A node with a TPM of its own, and what a relying party knows of it: files, as the command reads them.

use std::path::PathBuf;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use blf_appraisal::references::{Reference, References, TpmReference};
use blf_evidence::bundle::{Evidence, Platform, TdxEvidence, TpmEvidence};
use blf_evidence::statement::{Binding, Profile, Statement};
use blf_evidence::tpm::{ClockInfo, HashAlg, PcrSelection, PublicKey, Quote, Signature, ak_p256_template};
use blf_evidence::{Base64, Hex, UnixTime};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// When the evidence is relied on: 2026-11-20T09:00:00Z.
pub(crate) const AT: &str = "2026-11-20T09:00:00Z";

/// A node's evidence, and the Reference Values of its image.
pub(crate) struct Node {
    pub(crate) evidence: Evidence,
    pub(crate) references: References,
    pub(crate) nonce: String,
    pub(crate) audience: String,
    dir: TempDir,
}

impl Node {
    /// What a boot left in the PCRs and the event log (`boot`), quoted by a key that nobody vouches for.
    pub(crate) fn new() -> Self {
        let boot: serde_json::Value = serde_json::from_slice(&super::vector("appraisal", "boot/pcrs.json")).unwrap();
        let hex = |value: &serde_json::Value| value.as_str().unwrap().parse::<Hex<32>>().unwrap();
        let pcrs: Vec<Hex<32>> = boot["kernel"].as_array().unwrap().iter().map(hex).collect();
        let predicted = &boot["predicted"];
        let profile = Profile { name: "devnet".into(), id: Hex([10; 32]) };
        let config = "{}".to_string();
        let binding = Binding {
            config_sha256: Hex(Sha256::digest(&config).into()),
            not_after: UnixTime(1_795_165_200 + 3600),
            profile: profile.clone(),
            ..Binding::parse(&super::vector("evidence", "binding.json")).unwrap()
        };
        let reference = Reference {
            locked: true,
            name: "blf".into(),
            profile,
            retired: None,
            snp: Vec::new(),
            tdx: None,
            tpm: Some(TpmReference {
                pcr11: hex(&predicted["11"]),
                pcr4: predicted["4"].as_array().unwrap().iter().map(hex).collect(),
                pcr9: hex(&predicted["9"]),
            }),
            valid_from: UnixTime(0),
            valid_until: None,
            version: "0.1.0".into(),
        };
        let (nonce, audience) = (binding.nonce.to_string(), binding.audience.clone());
        let event_log = Some(Base64(super::vector("appraisal", "boot/kernel.log")));
        let evidence = Evidence {
            schema: blf_evidence::bundle::SCHEMA.into(),
            platform: Platform::Tpm(quote(&binding, pcrs, event_log)),
            binding: binding.to_canonical().unwrap(),
            config,
            endorsements: None,
        };
        let references = References { references: vec![reference], schema: blf_appraisal::references::SCHEMA.into() };
        Self { evidence, references, nonce, audience, dir: tempfile::tempdir().unwrap() }
    }

    /// The same statement, said by a TD that nobody endorses.
    pub(crate) fn td(self, quote: Vec<u8>) -> Self {
        let platform = Platform::Tdx(TdxEvidence { quote: Base64(quote), event_log: None });
        Self { evidence: Evidence { platform, ..self.evidence }, ..self }
    }

    /// A file beside the others.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// What verifies it offline.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let evidence = self.write("evidence.json", self.evidence.to_json().unwrap());
        let references = self.write("references.json", self.references.to_json().unwrap());
        let words = ["verify", &evidence, "--references", &references, "--policy", "devnet", "--at", AT];
        let asked = ["--nonce", &self.nonce, "--audience", &self.audience, "--purpose", "admission"];
        words.iter().chain(&asked).map(|word| (*word).to_owned()).collect()
    }
}

fn quote(binding: &Binding, pcrs: Vec<Hex<32>>, event_log: Option<Base64>) -> TpmEvidence {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let mut ak = ak_p256_template();
    let point = key.public_key().as_ref().to_vec();
    let PublicKey::EccP256 { x, y, .. } = &mut ak.key else { unreachable!() };
    (*x, *y) = (point[1..33].to_vec(), point[33..].to_vec());
    let statement = Statement::new(binding.keys.node, binding.to_canonical().unwrap().as_bytes());
    let quoted = pcrs.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>();
    let quote = Quote {
        qualified_signer: ak.name(),
        extra_data: statement.qualifying_data().to_vec(),
        clock_info: ClockInfo { clock: 5000, reset_count: 1, restart_count: 0, safe: true },
        firmware_version: 1,
        pcr_select: PcrSelection::ALL_SHA256,
        pcr_digest: Sha256::digest(quoted).to_vec(),
    };
    let signature = key.sign(&SystemRandom::new(), &quote.to_bytes()).unwrap();
    let (r, s) = signature.as_ref().split_at(32);
    TpmEvidence {
        signature: Base64(Signature::Ecdsa { hash: HashAlg::Sha256, r: r.to_vec(), s: s.to_vec() }.to_bytes()),
        quote: Base64(quote.to_bytes()),
        ak_public: Base64(ak.to_bytes()),
        ak_certificate: None,
        pcrs,
        event_log,
    }
}
