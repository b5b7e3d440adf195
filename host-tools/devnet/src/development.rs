//! The development PKI, published on purpose: what the devnet issues from it.
//!
//! `development/README.md` says what each file is. Server certificates are ECDSA P-256, made at every start; AK
//! certificates are for keys whose TPM opened a credential (TPM 2.0 Part 1, section 24).

use std::sync::Arc;
use std::time::Duration;

use blf_evidence::profile::NetworkProfile;
use blf_evidence::tpm::{Public, PublicKey};
use blf_evidence::{Address, UnixTime, eip191};
use k256::ecdsa::SigningKey;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use x509_cert::der::DecodePem as _;
use x509_cert::ext::pkix::SubjectKeyIdentifier;

use crate::Error;

/// Certificate of the development TLS CA, PEM.
pub const TLS_CA: &str = include_str!("../development/tls-ca.pem");
/// Key of the development TLS CA, PKCS #8 PEM.
pub const TLS_CA_KEY: &str = include_str!("../development/tls-ca.key.pem");
/// Certificate of the development AK CA, PEM: the root that appraisal of a devnet's TPM evidence is given.
pub const AK_CA: &str = include_str!("../development/ak-ca.pem");
/// Key of the development AK CA, PKCS #8 PEM.
pub const AK_CA_KEY: &str = include_str!("../development/ak-ca.key.pem");
/// The measured profile of devnet images.
pub const PROFILE: &str = include_str!("../../../agent/profiles/devnet.json");

/// Life of a server certificate, in days.
const SERVER_DAYS: u64 = 90;
/// Life of an AK certificate, in days.
const AK_DAYS: u64 = 30;
/// Seconds of a day.
const DAY: u64 = 86_400;
/// 9000-01-01: later dates do not fit a certificate.
const LATEST: u64 = 221_845_392_000;
/// tcg-kp-AIKCertificate (TCG EK Credential Profile, section 3.2.16).
const AIK_CERTIFICATE: [u64; 5] = [2, 23, 133, 8, 3];

/// The profile of devnet images, parsed.
///
/// # Errors
/// [`Error::Profile`] never for the committed file; a test reads it.
pub fn profile() -> Result<NetworkProfile, Error> {
    NetworkProfile::parse(PROFILE.as_bytes()).map_err(|e| Error::Profile(e.to_string()))
}

/// The key of the devnet ICL's account.
///
/// # Errors
/// [`Error::Key`] never for the committed file; a test reads it.
pub fn icl_key() -> Result<SigningKey, Error> {
    account("icl.key", include_str!("../development/icl.key"))
}

/// The key of the devnet's CoFHE verifier, which signs encrypted inputs.
///
/// # Errors
/// [`Error::Key`] never for the committed file; a test reads it.
pub fn verifier_key() -> Result<SigningKey, Error> {
    account("verifier.key", include_str!("../development/verifier.key"))
}

/// The address of an account.
pub fn address(key: &SigningKey) -> Address {
    eip191::address(key.verifying_key())
}

/// A certificate authority: a certificate and the key that signs for it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The authority with this certificate and this PKCS #8 key, both PEM.
    ///
    /// # Errors
    /// [`Error::Key`] naming what cannot be read. That both belong together is not checked.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let certificate =
            x509_cert::Certificate::from_pem(certificate).map_err(|_| Error::Key("certificate of the authority"))?;
        let tbs = certificate.tbs_certificate();
        let id = match tbs.get_extension::<SubjectKeyIdentifier>() {
            Ok(Some((_, id))) => id.0.as_bytes().to_vec(),
            _ => return Err(Error::Key("subject key identifier of the authority")),
        };
        let name = tbs.subject().to_string();
        let name = name.strip_prefix("CN=").ok_or(Error::Key("name of the authority"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::from_pem(key).map_err(|_| Error::Key("key of the authority"))?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// A server certificate and its fresh key for one DNS name, valid from a day before `now` for 90 days.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn server(&self, name: &str, now: UnixTime) -> Result<CertifiedKey, Error> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(Error::Issue)?;
        params.distinguished_name = common_name(name);
        validity(&mut params, now, SERVER_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(Error::Issue)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::Issue)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(Error::Tls)?;
        Ok(CertifiedKey::new(vec![certificate.into()], key))
    }

    /// A certificate (DER) for an attestation key, valid from a day before `now` for 30 days.
    ///
    /// # Errors
    /// [`Error::Issue`]; [`Error::Key`] for a template without a public key.
    pub fn attestation_key(&self, ak: &Public, now: UnixTime) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("blf development AK");
        validity(&mut params, now, AK_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(AIK_CERTIFICATE.to_vec())];
        let certificate = params.signed_by(&SubjectKey::new(ak)?, &self.issuer).map_err(Error::Issue)?;
        Ok(certificate.into())
    }
}

/// TLS 1.3 for `names`, each with a certificate of its own chosen by SNI; any other name fails the handshake.
///
/// # Errors
/// [`Error::Issue`], [`Error::Tls`].
pub fn server_config(authority: &Authority, names: &[&str], now: UnixTime) -> Result<rustls::ServerConfig, Error> {
    let mut resolver = ResolvesServerCertUsingSni::new();
    for name in names {
        resolver.add(name, authority.server(name, now)?).map_err(Error::Tls)?;
    }
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn account(name: &'static str, file: &str) -> Result<SigningKey, Error> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(file.trim(), &mut bytes).map_err(|_| Error::Key(name))?;
    SigningKey::from_slice(&bytes).map_err(|_| Error::Key(name))
}

/// A public key that rcgen certifies without holding its private half.
struct SubjectKey {
    bytes: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl SubjectKey {
    fn new(key: &Public) -> Result<Self, Error> {
        let (header, algorithm) = match &key.key {
            PublicKey::EccP256 { .. } => (26, &rcgen::PKCS_ECDSA_P256_SHA256),
            PublicKey::Rsa2048 { .. } => (24, &rcgen::PKCS_RSA_SHA256),
        };
        // SEQUENCE { AlgorithmIdentifier, BIT STRING }: rcgen writes the same frame around the bits again.
        let info = key.subject_public_key_info().ok_or(Error::Key("public part of the AK"))?;
        let bytes = info.get(header..).ok_or(Error::Key("public part of the AK"))?.to_vec();
        Ok(Self { bytes, algorithm })
    }
}

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn validity(params: &mut CertificateParams, now: UnixTime, days: u64) -> Result<(), Error> {
    if now.0 > LATEST {
        return Err(Error::Key("date of the certificate"));
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.0.saturating_sub(DAY));
    params.not_after = epoch + Duration::from_secs(now.0 + days * DAY);
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(())
}

/// 16 random bytes, positive (RFC 5280, section 4.1.2.2).
fn serial() -> Result<[u8; 16], Error> {
    let mut serial = crate::random::<16>()?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}
