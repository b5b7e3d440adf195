//! The one path rule we need: a root that was handed to us signed this certificate, and it is for this key.
//!
//! Not a general X.509 validator: no intermediates, no names to match, no revocation. Certificates of AKs live as long
//! as an enrolment and are refused by their date.

use blf_evidence::UnixTime;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::{Certificate as Inner, Version};

use crate::check::{AppraisalError, CheckId, Checks};
use crate::crypto::{Algorithm, CryptoProvider};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

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

/// A certificate, and the bytes that its signature covers exactly as they came.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    inner: Inner,
    tbs: Vec<u8>,
}

impl Certificate {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let error = |error: String| CertificateError { form: "DER", error };
        let inner = Inner::from_der(der).map_err(|e| error(e.to_string()))?;
        if inner.tbs_certificate().version() != Version::V3 {
            return Err(error("another version".into()));
        }
        let tbs = element(der).and_then(|(start, _)| der.get(start..)).and_then(|content| {
            let (start, len) = element(content)?;
            content.get(..start + len)
        });
        Ok(Self { tbs: tbs.ok_or_else(|| error("no tbsCertificate".into()))?.to_vec(), inner })
    }

    fn is_valid(&self, now: UnixTime) -> bool {
        let validity = self.inner.tbs_certificate().validity();
        let from = validity.not_before.to_unix_duration().as_secs();
        (from..=validity.not_after.to_unix_duration().as_secs()).contains(&now.0)
    }

    fn validity(&self) -> String {
        let validity = self.inner.tbs_certificate().validity();
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        format!("{} to {}", seconds(validity.not_before), seconds(validity.not_after))
    }

    /// The algorithm by which `signed` claims to be signed, if a key like ours can have done it.
    fn algorithm_for(&self, signed: &Self) -> Option<Algorithm> {
        let claimed = signed.inner.signature_algorithm();
        if claimed != signed.inner.tbs_certificate().signature() {
            return None;
        }
        let key = &self.inner.tbs_certificate().subject_public_key_info().algorithm;
        let curve = key.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        match (claimed.oid, key.oid, curve) {
            (ECDSA_WITH_SHA256, EC_PUBLIC_KEY, Some(PRIME256V1)) => Some(Algorithm::EcdsaP256Sha256Asn1),
            (ECDSA_WITH_SHA384, EC_PUBLIC_KEY, Some(SECP384R1)) => Some(Algorithm::EcdsaP384Sha384Asn1),
            (SHA256_WITH_RSA, RSA_ENCRYPTION, _) => Some(Algorithm::RsaPkcs1Sha256),
            _ => None,
        }
    }

    fn signed(&self, other: &Self, crypto: &dyn CryptoProvider) -> bool {
        let key = self.inner.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes();
        let (Some(algorithm), Some(key), Some(signature)) =
            (self.algorithm_for(other), key, other.inner.signature().as_bytes())
        else {
            return false;
        };
        crypto.verify(algorithm, key, &other.tbs, signature)
    }

    /// `Some(true)` for a certificate that may issue others, `None` when it demands what we do not know.
    fn may_issue(&self) -> Option<bool> {
        let tbs = self.inner.tbs_certificate();
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
}

/// Checks that one of `roots` certified the key `spki` (DER), and says which.
pub(crate) fn check_ak_certificate<'a>(
    der: &[u8],
    spki: &[u8],
    roots: &'a [Root],
    now: UnixTime,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<&'a Root, AppraisalError> {
    let leaf = checks.parsed(CheckId::AkCertificate, "an X.509 v3 certificate", Certificate::parse(der))?;
    let tbs = leaf.inner.tbs_certificate();
    let issuers: Vec<_> =
        roots.iter().filter(|root| root.certificate.inner.tbs_certificate().subject() == tbs.issuer()).collect();
    let names = roots.iter().map(|root| root.certificate.inner.tbs_certificate().subject().to_string());
    let names = names.collect::<Vec<_>>().join(" or ");
    let wanted = if names.is_empty() { "no root was given" } else { &names };
    checks.require(CheckId::AkCertificateIssuer, wanted, tbs.issuer(), !issuers.is_empty())?;
    // Two roots may bear one name, e.g. while a root is being replaced.
    let Some(root) = issuers.into_iter().find(|root| root.certificate.signed(&leaf, crypto)) else {
        return Err(checks.reject(CheckId::AkCertificateSignature, "by that root", "by another key"));
    };
    checks.require(CheckId::AkCertificateSignature, "by that root", "by that root", true)?;
    let valid = leaf.is_valid(now) && root.certificate.is_valid(now);
    let got = format!("{} under a root of {}", leaf.validity(), root.certificate.validity());
    checks.require(CheckId::AkCertificateValidity, format!("valid at {}", now.0), got, valid)?;
    let usage = (root.certificate.may_issue(), leaf.may_issue());
    let got = format!("root may issue: {:?}, certificate may issue: {:?}", usage.0, usage.1);
    let wanted = "root may issue: Some(true), certificate may issue: Some(false)";
    checks.require(CheckId::AkCertificateUsage, wanted, got, usage == (Some(true), Some(false)))?;
    let certified = tbs.subject_public_key_info().to_der().unwrap_or_default();
    checks.equal(CheckId::AkCertificateKey, hex::encode(spki), hex::encode(certified))?;
    Ok(root)
}

/// Where the content of the first DER element starts, and its length. Only called on bytes that parsed as DER.
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
