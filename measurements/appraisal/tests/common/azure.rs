//! Azure's chain with keys of our own, from the chip through the paravisor to its vTPM; and genuine evidence in our form.
#![allow(dead_code)] // each test uses some of it

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::azure::{self, Claims};
use blf_appraisal::{Endorsers, Rejected};
use blf_evidence::azure::{HardwareReport, HclReport};
use blf_evidence::bundle::{AzureEvidence, TpmEvidence};
use blf_evidence::endorsements::{Endorsements, SCHEMA, SnpEndorsements};
use blf_evidence::snp::Family;
use blf_evidence::tpm::{
    ClockInfo, HashAlg, ObjectAttributes, PcrSelection, Public, PublicKey, Quote, Scheme, Signature, Symmetric,
};
use blf_evidence::{Base64, Hex, UnixTime};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::snp::{self, Case};

/// What the genuine quotes answer.
pub(crate) const CHALLENGE: &[u8] = b"challenge";
/// TPM_RH_ENDORSEMENT.
pub(crate) const RH_ENDORSEMENT: [u8; 4] = 0x4000_000B_u32.to_be_bytes();

/// The AKs of two vTPMs.
pub(crate) static AK: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);
pub(crate) static OTHER_AK: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);

/// A guest of Azure on SEV-SNP.
pub(crate) struct Guest {
    pub(crate) chip: Case,
    /// Signs quotes.
    pub(crate) tpm: &'static RsaKeyPair,
    /// What the guest sends as its AK.
    pub(crate) ak: Public,
    /// What the paravisor has the chip sign.
    pub(crate) runtime_data: String,
    pub(crate) pcrs: Vec<Hex<32>>,
    pub(crate) event_log: Option<Base64>,
    pub(crate) now: UnixTime,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::with(&AK)
    }

    fn with(tpm: &'static RsaKeyPair) -> Self {
        let boot: Value = serde_json::from_slice(&vector("boot/pcrs.json")).unwrap();
        Self {
            chip: Case::vcek(Family::Milan),
            ak: ak_public(&modulus(tpm)),
            runtime_data: runtime_data(&modulus(tpm)),
            tpm,
            pcrs: boot["kernel"].as_array().unwrap().iter().map(|pcr| pcr.as_str().unwrap().parse().unwrap()).collect(),
            event_log: Some(Base64(vector("boot/kernel.log"))),
            now: snp::NOW,
        }
    }

    /// Another guest on the same machine.
    pub(crate) fn neighbour(&self) -> Self {
        let mut other = Self::with(&OTHER_AK);
        other.chip.key = snp_key(&self.chip);
        other.chip.vek = self.chip.vek.clone();
        other
    }

    pub(crate) fn hcl(&self) -> HclReport {
        let mut chip_report = self.chip.report.clone();
        chip_report.report_data.0 = [0; 64];
        chip_report.report_data.0[..32].copy_from_slice(&Sha256::digest(&self.runtime_data));
        let report = snp::sign_report(&chip_report, &self.chip.key);
        HclReport {
            version: 2,
            hardware: HardwareReport::Snp(Box::new(report)),
            runtime_data: self.runtime_data.clone().into_bytes(),
            padding: 99,
        }
    }

    /// `TPMS_ATTEST` as the vTPM makes it.
    pub(crate) fn attest(&self, extra_data: &[u8]) -> Quote {
        Quote {
            qualified_signer: self.ak.qualified_name(&RH_ENDORSEMENT),
            extra_data: extra_data.to_vec(),
            clock_info: ClockInfo { clock: 5000, reset_count: 1, restart_count: 0, safe: true },
            firmware_version: 0x2020_0312_0012_0003,
            pcr_select: PcrSelection::ALL_SHA256,
            pcr_digest: Sha256::digest(self.pcrs.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>()).to_vec(),
        }
    }

    pub(crate) fn evidence(&self, extra_data: &[u8]) -> AzureEvidence {
        self.evidence_of(&self.attest(extra_data))
    }

    pub(crate) fn evidence_of(&self, quote: &Quote) -> AzureEvidence {
        let mut signature = vec![0; 256];
        self.tpm.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &quote.to_bytes(), &mut signature).unwrap();
        AzureEvidence {
            hcl_report: Base64(self.hcl().to_bytes()),
            td_quote: None,
            tpm: TpmEvidence {
                quote: Base64(quote.to_bytes()),
                signature: Base64(Signature::Rsassa { hash: HashAlg::Sha256, signature }.to_bytes()),
                ak_public: Base64(self.ak.to_bytes()),
                ak_certificate: None,
                pcrs: self.pcrs.clone(),
                event_log: self.event_log.clone(),
            },
        }
    }

    pub(crate) fn endorsements(&self) -> Endorsements {
        Endorsements { schema: SCHEMA.into(), snp: Some(self.chip.endorsements()), tdx: None }
    }

    pub(crate) fn endorsers(&self) -> Endorsers {
        Endorsers { amd: self.chip.roots.clone(), ..Endorsers::default() }
    }

    pub(crate) fn verdict(&self, evidence: &AzureEvidence, extra_data: &[u8]) -> Result<Claims, Box<Rejected>> {
        let (endorsements, endorsers) = (self.endorsements(), self.endorsers());
        let authentic = azure::authenticate(evidence, extra_data, &endorsements, &endorsers, self.now, &AwsLc)?;
        Ok((*authentic).clone())
    }
}

/// The chip's key once more.
fn snp_key(chip: &Case) -> aws_lc_rs::signature::EcdsaKeyPair {
    let algorithm = &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    let pkcs8 = chip.key.to_pkcs8v1().unwrap();
    aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap()
}

/// The AK as the paravisor makes it, with this modulus: a primary key of the endorsement hierarchy with exactly these
/// attributes, which the quotes of three machines name as their signer.
pub(crate) fn ak_public(modulus: &[u8]) -> Public {
    Public {
        name_alg: HashAlg::Sha256,
        attributes: ObjectAttributes::from_bits(0x5_0472).unwrap(),
        auth_policy: Vec::new(),
        key: PublicKey::Rsa2048 {
            symmetric: Symmetric::Null,
            scheme: Scheme::Signing(HashAlg::Sha256),
            exponent: 0,
            modulus: modulus.to_vec(),
        },
    }
}

fn rsa_key() -> RsaKeyPair {
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
}

/// The modulus out of a DER `RSAPublicKey` of 2048 bits.
pub(crate) fn modulus(key: &RsaKeyPair) -> Vec<u8> {
    key.public_key().as_ref()[9..265].to_vec()
}

/// The runtime data that a paravisor writes for this AK.
pub(crate) fn runtime_data(modulus: &[u8]) -> String {
    let jwk = |kid: &str, operation: &str, n: String| {
        format!(r#"{{"kid":"{kid}","key_ops":["{operation}"],"kty":"RSA","e":"AQAB","n":"{n}"}}"#)
    };
    let ak = jwk("HCLAkPub", "sign", URL_SAFE_NO_PAD.encode(modulus));
    let ek = jwk("HCLEkPub", "encrypt", URL_SAFE_NO_PAD.encode([0xEE; 256]));
    let rest = r#""vm-configuration":{"console-enabled":true,"secure-boot":true,"vmUniqueId":"VM"},"user-data":"00""#;
    format!(r#"{{"keys":[{ak},{ek}],{rest}}}"#)
}

pub(crate) fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Genuine evidence as it was published: the HCL report, the quote, its parts in our form, and a VCEK.
pub(crate) fn genuine(file: &str) -> (AzureEvidence, Option<Base64>) {
    let published: Value = serde_json::from_slice(&vector(&format!("azure/{file}"))).unwrap();
    let base64url = |member: &str| published[member].as_str().map(|text| Base64(URL_SAFE.decode(text).unwrap()));
    let bytes = |member: &Value| hex::decode(member.as_str().unwrap()).unwrap();
    let quote = &published["tpm_quote"];
    let hcl_report = base64url("hcl_report").unwrap();
    let hcl = HclReport::parse(&hcl_report.0).unwrap();
    let modulus = blf_evidence::azure::RuntimeData::parse(&hcl.runtime_data).unwrap().ak_modulus;
    let tpm = TpmEvidence {
        quote: Base64(bytes(&quote["message"])),
        signature: Base64(rsassa(bytes(&quote["signature"]))),
        ak_public: Base64(ak_public(&modulus[..]).to_bytes()),
        ak_certificate: None,
        pcrs: quote["pcrs"].as_array().unwrap().iter().map(|pcr| pcr.as_str().unwrap().parse().unwrap()).collect(),
        event_log: None,
    };
    (AzureEvidence { hcl_report, td_quote: base64url("td_quote"), tpm }, base64url("vcek"))
}

pub(crate) fn rsassa(signature: Vec<u8>) -> Vec<u8> {
    Signature::Rsassa { hash: HashAlg::Sha256, signature }.to_bytes()
}

/// Endorsements with this VCEK and nothing else.
pub(crate) fn with_vcek(vek: Option<Base64>) -> Endorsements {
    let snp = SnpEndorsements { vek, ..SnpEndorsements::default() };
    Endorsements { schema: SCHEMA.into(), snp: Some(snp), tdx: None }
}
