//! A software TPM with its own EK and AK, and a machine that booted something: what the real appraiser is shown.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{cipher, digest, hmac, iv};
use blf_appraisal::Release;
use blf_evidence::bundle::{Evidence, PCRS, Platform, TpmEvidence};
use blf_evidence::eventlog::{EV_EFI_ACTION, EV_SEPARATOR};
use blf_evidence::icl::EnrollReply;
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::tpm::{
    ClockInfo, EncryptedSecret, HashAlg, IdObject, PcrSelection, Public, PublicKey, Quote, Signature, ak_p256_template,
    ek_p256_template,
};
use blf_evidence::{Base64, Hex};
use sha2::{Digest as _, Sha256};

use crate::release::{profile, release};

/// A TPM as far as enrolment and quotes go.
pub(crate) struct Tpm {
    ek_key: PrivateKey,
    pub(crate) ek: Public,
    ak_key: EcdsaKeyPair,
    pub(crate) ak: Public,
}

impl Tpm {
    pub(crate) fn new() -> Self {
        let ek_key = PrivateKey::generate(&ECDH_P256).unwrap();
        let ak_key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let ek = with_point(ek_p256_template(), ek_key.compute_public_key().unwrap().as_ref());
        let ak = with_point(ak_p256_template(), ak_key.public_key().as_ref());
        Self { ek_key, ek, ak_key, ak }
    }

    /// `TPM2_ActivateCredential` (TPM 2.0 Part 3, 12.5); `None` when the integrity check fails.
    pub(crate) fn activate(&self, reply: &EnrollReply) -> Option<Hex<32>> {
        let id = IdObject::parse(&reply.credential_blob.0).unwrap();
        let secret = EncryptedSecret::parse(&reply.encrypted_secret.0).unwrap();
        let EncryptedSecret::EccP256 { x, y } = secret else { panic!("not for P-256") };
        let own_x = &self.ek.point_or_modulus().unwrap()[1..33];
        let theirs = UnparsedPublicKey::new(&ECDH_P256, [&[4][..], &x, &y].concat());
        let seed = agree(&self.ek_key, theirs, (), |z| {
            let input = [&[0, 0, 0, 1], z, b"IDENTITY\0", &x, own_x].concat();
            Ok(digest::digest(&digest::SHA256, &input).as_ref().to_vec())
        });
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &seed.unwrap());
        let integrity = hmac::sign(&seed, &[&[0, 0, 0, 1][..], b"INTEGRITY\0", &256_u32.to_be_bytes()].concat());
        let integrity = hmac::Key::new(hmac::HMAC_SHA256, integrity.as_ref());
        let name = self.ak.name();
        hmac::verify(&integrity, &[&id.enc_identity[..], &name].concat(), &id.integrity_hmac).ok()?;
        let storage = hmac::sign(&seed, &[&[0, 0, 0, 1][..], b"STORAGE\0", &name, &128_u32.to_be_bytes()].concat());
        let key = cipher::UnboundCipherKey::new(&cipher::AES_128, &storage.as_ref()[..16]).unwrap();
        let mut identity = id.enc_identity;
        let context = cipher::DecryptionContext::Iv128(iv::FixedLength::from([0; 16]));
        cipher::DecryptingKey::cfb128(key).unwrap().decrypt(&mut identity, context).unwrap();
        assert_eq!(identity[..2], [0, 32]);
        Some(Hex(identity[2..].try_into().unwrap()))
    }

    /// Evidence with this TPM's quote in it, of what `machine` booted, for the devnet's profile.
    pub(crate) fn vouch(&self, evidence: Evidence, machine: &Machine, ak_certificate: Option<Base64>) -> Evidence {
        let binding = Binding::parse(evidence.binding.as_bytes()).unwrap();
        let node = binding.keys.node;
        let binding = Binding { profile: profile(), ..binding }.to_canonical().unwrap();
        let quote = Quote {
            qualified_signer: self.ak.name(),
            extra_data: Statement::new(node, binding.as_bytes()).qualifying_data().to_vec(),
            clock_info: ClockInfo { clock: 5000, reset_count: 1, restart_count: 0, safe: true },
            firmware_version: 1,
            pcr_select: PcrSelection::ALL_SHA256,
            pcr_digest: Sha256::digest(machine.pcrs.concat()).to_vec(),
        };
        let signature = self.ak_key.sign(&SystemRandom::new(), &quote.to_bytes()).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        let signature = Signature::Ecdsa { hash: HashAlg::Sha256, r: r.to_vec(), s: s.to_vec() };
        let platform = Platform::Tpm(TpmEvidence {
            quote: Base64(quote.to_bytes()),
            signature: Base64(signature.to_bytes()),
            ak_public: Base64(self.ak.to_bytes()),
            ak_certificate,
            pcrs: machine.pcrs.iter().map(|pcr| Hex(*pcr)).collect(),
            event_log: Some(Base64(machine.log())),
        });
        Evidence { binding, platform, ..evidence }
    }
}

/// PCRs of the SHA-256 bank and the crypto-agile log that explains them (PC Client Platform Firmware Profile, 10.2).
pub(crate) struct Machine {
    pcrs: Vec<[u8; 32]>,
    events: Vec<u8>,
}

impl Machine {
    pub(crate) fn boot() -> Self {
        let mut machine = Self { pcrs: vec![[0; 32]; PCRS], events: Vec::new() };
        machine.pcrs[17..=22].fill([0xff; 32]);
        for pcr in 0..8 {
            machine.extend(pcr, EV_SEPARATOR, &[0; 4]);
        }
        for pcr in [4, 9, 11] {
            machine.extend(pcr, 0xd, b"a part of the image");
        }
        machine.extend(5, EV_EFI_ACTION, b"Exit Boot Services Returned with Success");
        machine
    }

    pub(crate) fn extend(&mut self, pcr: usize, kind: u32, data: &[u8]) {
        let digest = Sha256::digest(data);
        self.pcrs[pcr] = Sha256::new().chain_update(self.pcrs[pcr]).chain_update(digest).finalize().into();
        let (pcr, length) = (u32::try_from(pcr).unwrap(), u32::try_from(data.len()).unwrap());
        for field in [pcr, kind, 1] {
            self.events.extend(field.to_le_bytes());
        }
        self.events.extend(0xb_u16.to_le_bytes());
        self.events.extend(digest);
        self.events.extend(length.to_le_bytes());
        self.events.extend(data);
    }

    pub(crate) fn log(&self) -> Vec<u8> {
        let mut spec_id = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0".to_vec();
        spec_id.extend([0xb, 0, 32, 0, 0]); // SHA-256, no vendor information
        let mut log = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
        log.extend([0; 20]);
        log.extend(u32::try_from(spec_id.len()).unwrap().to_le_bytes());
        log.extend(spec_id);
        log.extend(&self.events);
        log
    }

    /// Reference Values of what this machine booted.
    pub(crate) fn release(&self) -> Release {
        release([4, 9, 11].map(|pcr| Hex(self.pcrs[pcr])))
    }
}

fn with_point(mut public: Public, point: &[u8]) -> Public {
    let PublicKey::EccP256 { x, y, .. } = &mut public.key else { panic!("not P-256") };
    (*x, *y) = (point[1..33].to_vec(), point[33..].to_vec());
    public
}
