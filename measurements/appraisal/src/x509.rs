//! Certificates, and the path rule for those of AKs: a root that was handed to us signed this one, and it is for this key.
//!
//! Not a general X.509 validator: each platform has its own short path. Certificates of AKs live as long as an enrolment
//! and are refused by their date.

use std::ops::RangeInclusive;

use blf_evidence::UnixTime;
use x509_cert::der::asn1::{BitString, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode, Tag, Tagged as _};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::{Certificate as Inner, TbsCertificate, Version};

use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::{Algorithm, CryptoProvider};
use crate::tpm::AkEndorsement;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// `tcg-kp-EKCertificate` and `tcg-kp-AIKCertificate`.
const TPM_KEYS: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("2.23.133.8.1"), ObjectIdentifier::new_unwrap("2.23.133.8.3")];

/// `RSASSA-PSS-params` (RFC 4055, section 3.1): SHA-384, MGF1 with SHA-384, a salt of 48 bytes. The trailer field may stand
/// there although it has its default value: AMD writes it so in the certificates of ARKs, ASKs and older VCEKs.
const PSS_SHA384: [&[u8]; 2] = [
    b"\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\
    \x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30",
    b"\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\
    \x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01",
];

/// What believing a root means for the result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RootKind {
    /// Its private key is published, or of a test: tier 0 whatever it signs.
    Development,
    /// Of a TPM or chip maker, a cloud, or a coordinator that activates credentials against such.
    Production,
}

/// A trust anchor for AK certificates.
#[derive(Clone, Debug)]
pub struct Root {
    name: String,
    kind: RootKind,
    certificate: Certificate,
}

/// Why bytes are not a certificate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("certificate: wanted one X.509 v3 certificate in {form}, got {error}")]
pub struct CertificateError {
    form: &'static str,
    error: String,
}

impl Root {
    /// A root from its DER certificate; `name` appears in results.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no certificate.
    pub fn from_der(name: &str, kind: RootKind, der: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self { name: name.into(), kind, certificate: Certificate::parse(der)? })
    }

    /// A root from one PEM certificate.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no certificate, or more than one.
    pub fn from_pem(name: &str, kind: RootKind, pem: &str) -> Result<Self, CertificateError> {
        let (_, der) = x509_cert::der::pem::decode_vec(pem.as_bytes())
            .map_err(|error| CertificateError { form: "PEM", error: error.to_string() })?;
        Self::from_der(name, kind, &der)
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What believing it means.
    #[must_use]
    pub const fn kind(&self) -> RootKind {
        self.kind
    }
}

/// A certificate, and its bytes exactly as they came.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    inner: Inner,
    der: Vec<u8>,
}

impl Certificate {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let error = |error: String| CertificateError { form: "DER", error };
        let inner = Inner::from_der(der).map_err(|e| error(e.to_string()))?;
        if inner.tbs_certificate().version() != Version::V3 {
            return Err(error("another version".into()));
        }
        Ok(Self { inner, der: der.to_vec() })
    }

    /// [`Self::parse`] for certificates of which there is only one encoding: writing it gives the same bytes.
    pub(crate) fn parse_canonical(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Self::parse(der)?;
        match certificate.inner.to_der() {
            Ok(written) if written == der => Ok(certificate),
            _ => Err(CertificateError { form: "DER", error: "another encoding of it".into() }),
        }
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn tbs(&self) -> &TbsCertificate {
        self.inner.tbs_certificate()
    }

    /// The subject's common name, or nothing.
    pub(crate) fn common_name(&self) -> String {
        self.tbs().subject().common_name().ok().flatten().map(String::from).unwrap_or_default()
    }

    /// First and last second of its validity.
    pub(crate) fn validity(&self) -> RangeInclusive<u64> {
        let validity = self.tbs().validity();
        validity.not_before.to_unix_duration().as_secs()..=validity.not_after.to_unix_duration().as_secs()
    }

    /// The key's SEC 1 point, if it is one on P-256.
    pub(crate) fn p256_point(&self) -> Option<&[u8]> {
        self.point(PRIME256V1, 65)
    }

    /// The key's SEC 1 point, if it is one on P-384.
    pub(crate) fn p384_point(&self) -> Option<&[u8]> {
        self.point(SECP384R1, 97)
    }

    fn point(&self, curve: ObjectIdentifier, length: usize) -> Option<&[u8]> {
        let spki = self.tbs().subject_public_key_info();
        let on_curve = spki.algorithm.oid == EC_PUBLIC_KEY && self.curve() == Some(curve);
        spki.subject_public_key.as_bytes().filter(|point| on_curve && point.len() == length && point[0] == 4)
    }

    pub(crate) fn signed(&self, other: &Self, crypto: &dyn CryptoProvider) -> bool {
        let (inner, outer) = (other.tbs().signature(), other.inner.signature_algorithm());
        inner == outer && self.signed_bytes(&other.der, outer, other.inner.signature(), crypto)
    }

    /// Whether this certificate's key signed the first member of `der`, of a certificate or revocation list that parsed.
    pub(crate) fn signed_bytes(
        &self,
        der: &[u8],
        claimed: &AlgorithmIdentifierOwned,
        signature: &BitString,
        crypto: &dyn CryptoProvider,
    ) -> bool {
        let key = self.tbs().subject_public_key_info().subject_public_key.as_bytes();
        let (Some(algorithm), Some(key), Some(message), Some(signature)) =
            (self.algorithm(claimed), key, first_member(der), signature.as_bytes())
        else {
            return false;
        };
        crypto.verify(algorithm, key, message, signature)
    }

    /// The algorithm that a signature claims to be of, if a key like ours can have made it.
    fn algorithm(&self, claimed: &AlgorithmIdentifierOwned) -> Option<Algorithm> {
        match (claimed.oid, self.tbs().subject_public_key_info().algorithm.oid, self.curve()) {
            (ECDSA_WITH_SHA256, EC_PUBLIC_KEY, Some(PRIME256V1)) => Some(Algorithm::EcdsaP256Sha256Asn1),
            (ECDSA_WITH_SHA384, EC_PUBLIC_KEY, Some(SECP384R1)) => Some(Algorithm::EcdsaP384Sha384Asn1),
            (SHA256_WITH_RSA, RSA_ENCRYPTION, _) => Some(Algorithm::RsaPkcs1Sha256),
            (RSASSA_PSS, RSA_ENCRYPTION, _) => {
                let parameters = claimed.parameters.as_ref()?;
                let known = parameters.tag() == Tag::Sequence && PSS_SHA384.contains(&parameters.value());
                known.then_some(Algorithm::RsaPssSha384)
            }
            _ => None,
        }
    }

    fn curve(&self) -> Option<ObjectIdentifier> {
        let parameters = self.tbs().subject_public_key_info().algorithm.parameters.as_ref();
        parameters.and_then(|any| any.decode_as().ok())
    }

    /// `Some(true)` for a certificate that may issue others, `None` when it demands what we do not know.
    pub(crate) fn may_issue(&self) -> Option<bool> {
        let tbs = self.tbs();
        for extension in tbs.extensions().into_iter().flatten().filter(|extension| extension.critical) {
            let known = [BasicConstraints::OID, ExtendedKeyUsage::OID, KeyUsage::OID, SubjectAltName::OID];
            if !known.contains(&extension.extn_id) {
                return None;
            }
        }
        let constraints = tbs.get_extension::<BasicConstraints>().ok()?;
        let usage = tbs.get_extension::<KeyUsage>().ok()?;
        let authority = constraints.is_some_and(|(_, constraints)| constraints.ca);
        Some(authority && usage.is_none_or(|(_, usage)| usage.key_cert_sign()))
    }

    /// Whether it says that its key is one of a TPM's: `tcg-kp-AIKCertificate`, or `tcg-kp-EKCertificate`, which a cloud
    /// writes into both kinds (TCG EK Credential Profile, section 3).
    fn is_of_a_tpm(&self) -> bool {
        let usage = self.tbs().get_extension::<ExtendedKeyUsage>();
        usage.is_ok_and(|usage| usage.is_some_and(|(_, usage)| TPM_KEYS.iter().any(|key| usage.0.contains(key))))
    }

    /// Whether it says that its key may sign revocation lists.
    pub(crate) fn may_revoke(&self) -> bool {
        let usage = self.tbs().get_extension::<KeyUsage>();
        usage.is_ok_and(|usage| usage.is_some_and(|(_, usage)| usage.crl_sign()))
    }
}

/// Checks that one of `roots` certified the key `spki` (DER), and says which.
pub(crate) fn check_ak_certificate(
    der: &[u8],
    spki: &[u8],
    roots: &[Root],
    now: UnixTime,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<AkEndorsement, Box<Rejected>> {
    let leaf = checks.parsed(CheckId::AkCertificate, "an X.509 v3 certificate", Certificate::parse(der))?;
    let tbs = leaf.tbs();
    let issuers: Vec<_> = roots.iter().filter(|root| root.certificate.tbs().subject() == tbs.issuer()).collect();
    let names = roots.iter().map(|root| root.certificate.tbs().subject().to_string());
    let names = names.collect::<Vec<_>>().join(" or ");
    let wanted = if names.is_empty() { "no root was given" } else { &names };
    checks.require(CheckId::AkCertificateIssuer, wanted, tbs.issuer(), !issuers.is_empty())?;
    // Two roots may bear one name, e.g. while a root is being replaced.
    let Some(root) = issuers.into_iter().find(|root| root.certificate.signed(&leaf, crypto)) else {
        return Err(checks.reject(CheckId::AkCertificateSignature, "by that root", "by another key"));
    };
    checks.require(CheckId::AkCertificateSignature, "by that root", "by that root", true)?;
    let validity = [leaf.validity(), root.certificate.validity()];
    let valid = validity.iter().all(|validity| validity.contains(&now.0));
    let got = format!("{:?} under a root of {:?}", validity[0], validity[1]);
    checks.require(CheckId::AkCertificateValidity, format!("valid at {}", now.0), got, valid)?;
    let usage = (root.certificate.may_issue(), leaf.may_issue(), leaf.is_of_a_tpm());
    let got = format!("root may issue: {:?}, certificate may issue: {:?}, of a TPM: {}", usage.0, usage.1, usage.2);
    let wanted = "root may issue: Some(true), certificate may issue: Some(false), of a TPM: true";
    checks.require(CheckId::AkCertificateUsage, wanted, got, usage == (Some(true), Some(false), true))?;
    let certified = tbs.subject_public_key_info().to_der().unwrap_or_default();
    checks.equal(CheckId::AkCertificateKey, hex::encode(spki), hex::encode(certified))?;
    let last = validity.map(|validity| *validity.end()).into_iter().fold(u64::MAX, u64::min);
    Ok(AkEndorsement::Certified { root: root.name.clone(), kind: root.kind, valid_until: after(last) })
}

/// The first moment after a last second.
pub(crate) fn after(last: u64) -> UnixTime {
    UnixTime(last.saturating_add(1))
}

/// The first member, with its header, of the SEQUENCE that `der` is: what a signature in the last one covers.
fn first_member(der: &[u8]) -> Option<&[u8]> {
    let (start, len) = element(der)?;
    let content = der.get(start..start.checked_add(len)?)?;
    let (start, len) = element(content)?;
    content.get(..start.checked_add(len)?)
}

/// Where the content of the first DER element starts, and its length.
fn element(der: &[u8]) -> Option<(usize, usize)> {
    let (first, rest) = der.get(1..)?.split_first()?;
    let extra = usize::from(first & 0x7F);
    if first & 0x80 == 0 {
        return Some((2, extra));
    }
    let bytes = rest.get(..extra).filter(|bytes| bytes.len() <= 4)?;
    Some((2 + extra, bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_lc::AwsLc;

    const ROOT: &[u8] = include_bytes!("../tests/vectors/gcp-ca/root.der");
    const INTERMEDIATE: &[u8] = include_bytes!("../tests/vectors/gcp-ca/intermediate.der");

    /// RSA 4096 with SHA-256, signed over exactly the bytes that came.
    #[test]
    fn certificates_of_a_cloud() {
        let (root, intermediate) = (Certificate::parse(ROOT).unwrap(), Certificate::parse(INTERMEDIATE).unwrap());
        assert!(root.signed(&root, &AwsLc) && root.signed(&intermediate, &AwsLc));
        assert!(!intermediate.signed(&root, &AwsLc));
        assert_eq!((root.may_issue(), intermediate.may_issue()), (Some(true), Some(true)));
        let mut flipped = 0;
        for index in 0..INTERMEDIATE.len() {
            let mut bad = INTERMEDIATE.to_vec();
            bad[index] ^= 1;
            if let Ok(bad) = Certificate::parse(&bad) {
                assert!(!root.signed(&bad, &AwsLc), "byte {index}");
                flipped += 1;
            }
        }
        assert!(flipped > INTERMEDIATE.len() / 2, "{flipped} of the damaged certificates still parse");
    }

    #[test]
    fn p384_root() {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let root = Certificate::parse(&der).unwrap();
        assert!(root.signed(&root, &AwsLc));
        assert!(!root.signed(&Certificate::parse(ROOT).unwrap(), &AwsLc));
        let pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(Root::from_pem("p384", RootKind::Production, &pem).unwrap().name(), "p384");
    }
}
