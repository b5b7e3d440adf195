//! Checks the ICL's certificate: by the measured account, for exactly these keys, in answer to this guest's evidence.

use blf_evidence::eip191::{Signature, SignatureError};
use blf_evidence::icl::Certificate;
use blf_evidence::json::{self, JsonError};
use blf_evidence::statement::Keys;
use blf_evidence::{Address, Hex, UnixTime};

/// Longest certificate document, in bytes.
pub const CERTIFICATE_CAP: usize = 4 * 1024;
/// Longest time a certificate may last, in seconds (architecture decision 5).
pub const LIFETIME_CAP: u64 = 24 * 60 * 60;

/// The ICL vouches for these keys. Comes only from [`verify`].
pub struct Certified(Certificate);

/// What a certificate must say.
pub struct Expected<'a> {
    /// The account that must have signed.
    pub icl: Address,
    /// The generation that waits to be certified.
    pub keys: &'a Keys,
    /// SHA-256 of the admission bindings that named it.
    pub bindings: &'a [Hex<32>],
    /// What this guest is.
    pub measurement: &'a str,
    /// Now, at the earliest.
    pub now: UnixTime,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It answers evidence that this guest did not give for these keys.
    #[error("certificate: binding_sha256 {got} is none of ours")]
    Binding {
        /// What it says.
        got: Hex<32>,
    },
    /// Not the document it must be.
    #[error(transparent)]
    Document(#[from] JsonError),
    /// It has ended.
    #[error("certificate: ended at {not_after:?}, now {now:?}")]
    Expired {
        /// Its end.
        not_after: UnixTime,
        /// Now, its own issue taken into account.
        now: UnixTime,
    },
    /// It vouches for other keys.
    #[error("certificate: keys differ from those that wait to be certified")]
    Keys,
    /// It lasts too long, or ends before it begins.
    #[error("certificate: wanted 1 to {LIFETIME_CAP} seconds, got {issued_at:?} to {not_after:?}")]
    Lifetime {
        /// Its begin.
        issued_at: UnixTime,
        /// Its end.
        not_after: UnixTime,
    },
    /// It is about another guest.
    #[error("certificate: measurement: wanted {wanted}")]
    Measurement {
        /// What this guest is.
        wanted: String,
    },
    /// Somebody else signed it.
    #[error("certificate: {0}")]
    Signature(#[from] SignatureError),
    /// Tiers are 0, 1 and 2.
    #[error("certificate: tier: wanted 0 to 2, got {got}")]
    Tier {
        /// What it says.
        got: u8,
    },
    /// Another version.
    #[error("certificate: v: wanted 1, got {got}")]
    Version {
        /// What it says.
        got: u8,
    },
}

/// Checks the verbatim `certificate`; the signature first, so that nobody else's bytes are parsed.
///
/// # Errors
/// [`CertificateError`].
pub fn verify(
    certificate: &str,
    signature: &Signature,
    expected: &Expected<'_>,
) -> Result<Certified, CertificateError> {
    if certificate.len() > CERTIFICATE_CAP {
        let (what, cap, got) = ("certificate", CERTIFICATE_CAP, certificate.len());
        return Err(JsonError::TooLong { what, cap, got }.into());
    }
    signature.verify(Certificate::signed_text(certificate).as_bytes(), expected.icl)?;
    let parsed: Certificate = json::parse_canonical("certificate", certificate.as_bytes(), CERTIFICATE_CAP)?;
    let Certificate { binding_sha256, issued_at, ref keys, ref measurement, not_after, tier, v } = parsed;
    if v != 1 {
        return Err(CertificateError::Version { got: v });
    }
    if *keys != *expected.keys {
        return Err(CertificateError::Keys);
    }
    if !expected.bindings.contains(&binding_sha256) {
        return Err(CertificateError::Binding { got: binding_sha256 });
    }
    if measurement != expected.measurement {
        return Err(CertificateError::Measurement { wanted: expected.measurement.into() });
    }
    if tier > 2 {
        return Err(CertificateError::Tier { got: tier });
    }
    if not_after <= issued_at || not_after.0 - issued_at.0 > LIFETIME_CAP {
        return Err(CertificateError::Lifetime { issued_at, not_after });
    }
    let now = expected.now.max(issued_at);
    if now >= not_after {
        return Err(CertificateError::Expired { not_after, now });
    }
    Ok(Certified(parsed))
}

impl Certified {
    /// The keys it vouches for.
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Tier 0, 1 or 2.
    pub fn tier(&self) -> u8 {
        self.0.tier
    }

    /// Its begin, an authenticated time.
    pub fn issued_at(&self) -> UnixTime {
        self.0.issued_at
    }

    /// Its end.
    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }
}

impl CertificateError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Binding { .. } => "CERTIFICATE_BINDING",
            Self::Document(_) => "CERTIFICATE_DOCUMENT",
            Self::Expired { .. } => "CERTIFICATE_EXPIRED",
            Self::Keys => "CERTIFICATE_KEYS",
            Self::Lifetime { .. } => "CERTIFICATE_LIFETIME",
            Self::Measurement { .. } => "CERTIFICATE_MEASUREMENT",
            Self::Signature(_) => "CERTIFICATE_SIGNATURE",
            Self::Tier { .. } => "CERTIFICATE_TIER",
            Self::Version { .. } => "CERTIFICATE_VERSION",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use blf_evidence::eip191::address;
    use blf_evidence::statement::Binding;
    use k256::ecdsa::SigningKey;

    use super::*;

    pub(crate) fn icl() -> SigningKey {
        SigningKey::from_slice(&[77; 32]).unwrap()
    }

    fn certificate(keys: &Keys, not_after: u64) -> Certificate {
        Certificate {
            binding_sha256: Hex([1; 32]),
            issued_at: UnixTime(not_after.saturating_sub(3600)),
            keys: keys.clone(),
            measurement: "tpm-pcr11:00".into(),
            not_after: UnixTime(not_after),
            tier: 0,
            v: 1,
        }
    }

    /// What an ICL sends.
    pub(crate) fn issue(certificate: &Certificate, by: &SigningKey) -> (String, Signature) {
        let text = json::canonical("certificate", certificate).unwrap();
        let signature = Signature::sign(by, Certificate::signed_text(&text).as_bytes());
        (text, signature)
    }

    fn check(keys: &Keys, issued: &(String, Signature), now: u64) -> Result<Certified, CertificateError> {
        let expected = Expected {
            icl: address(icl().verifying_key()),
            keys,
            bindings: &[Hex([9; 32]), Hex([1; 32])],
            measurement: "tpm-pcr11:00",
            now: UnixTime(now),
        };
        verify(&issued.0, &issued.1, &expected)
    }

    /// A good certificate for `keys`.
    pub(crate) fn certified(keys: &Keys, not_after: u64) -> Certified {
        check(keys, &issue(&certificate(keys, not_after), &icl()), 0).unwrap()
    }

    fn keys() -> Keys {
        let sample = include_bytes!("../../measurements/evidence/tests/vectors/binding.json");
        Binding::parse(sample).unwrap().keys
    }

    #[test]
    fn good_until_its_end() {
        let (keys, now) = (keys(), 1_000_000);
        let issued = issue(&certificate(&keys, now), &icl());
        let certified = check(&keys, &issued, now - 1).unwrap();
        assert_eq!((certified.not_after(), certified.tier()), (UnixTime(now), 0));
        assert!(matches!(check(&keys, &issued, now), Err(CertificateError::Expired { .. })));
    }

    #[test]
    fn every_member_is_checked() {
        let keys = keys();
        type Change = fn(&mut Certificate);
        let cases: [(&str, Change); 14] = [
            ("CERTIFICATE_BINDING", |c| c.binding_sha256 = Hex([2; 32])),
            ("CERTIFICATE_KEYS", |c| c.keys.cofhe_sealing = Hex([0; 32])),
            ("CERTIFICATE_KEYS", |c| c.keys.hpke = Hex([0; 32])),
            ("CERTIFICATE_KEYS", |c| c.keys.node = Address([0; 20])),
            ("CERTIFICATE_KEYS", |c| c.keys.response = Address([0; 20])),
            ("CERTIFICATE_KEYS", |c| c.keys.tls_spki_sha256 = Hex([0; 32])),
            ("CERTIFICATE_MEASUREMENT", |c| c.measurement = "tpm-pcr11:01".into()),
            ("CERTIFICATE_TIER", |c| c.tier = 3),
            ("CERTIFICATE_VERSION", |c| c.v = 2),
            ("CERTIFICATE_LIFETIME", |c| c.issued_at = c.not_after),
            ("CERTIFICATE_LIFETIME", |c| c.issued_at = UnixTime(c.not_after.0 + 1)),
            ("CERTIFICATE_LIFETIME", |c| c.issued_at = UnixTime(c.not_after.0 - LIFETIME_CAP - 1)),
            ("CERTIFICATE_EXPIRED", |c| (c.issued_at, c.not_after) = (UnixTime(1), UnixTime(10))),
            ("CERTIFICATE_DOCUMENT", |c| c.measurement = "x".repeat(CERTIFICATE_CAP)),
        ];
        for (code, change) in cases {
            let mut bad = certificate(&keys, 1_000_000);
            change(&mut bad);
            let error = check(&keys, &issue(&bad, &icl()), 999_999).err().unwrap();
            assert_eq!(error.code(), code, "{error}");
        }
    }

    #[test]
    fn by_the_measured_account_over_these_bytes() {
        let keys = keys();
        let stranger = SigningKey::from_slice(&[78; 32]).unwrap();
        let good = certificate(&keys, 1_000_000);
        let refused = check(&keys, &issue(&good, &stranger), 1).err().unwrap();
        assert_eq!(refused.code(), "CERTIFICATE_SIGNATURE");
        let (text, signature) = issue(&good, &icl());
        let spaced = text.replacen(':', ": ", 1);
        assert_eq!(check(&keys, &(spaced.clone(), signature), 1).err().unwrap().code(), "CERTIFICATE_SIGNATURE");
        let signature = Signature::sign(&icl(), Certificate::signed_text(&spaced).as_bytes());
        assert_eq!(check(&keys, &(spaced, signature), 1).err().unwrap().code(), "CERTIFICATE_DOCUMENT");
    }
}
