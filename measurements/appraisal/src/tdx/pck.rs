//! The Provisioning Certification Key: certified by Intel for one platform at one TCB (Intel SGX PCK Certificate and
//! Certificate Revocation List Profile Specification).

use std::fmt::Display;

use blf_evidence::Hex;
use blf_evidence::tdx::pem;
use x509_cert::attr::AttributeTypeAndValue as Entry;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString};
use x509_cert::ext::pkix::BasicConstraints;

use super::Root;
use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::{Algorithm, CryptoProvider};
use crate::x509::Certificate;

/// Common names of the CAs that certify PCKs: of platforms with several packages, and of others.
const CA_NAMES: [&str; 2] = ["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"];
/// Common name of PCK certificates.
const PCK_NAME: &str = "Intel SGX PCK Certificate";

/// `SGX Extensions`.
const SGX_EXTENSIONS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
const PPID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.1");
const TCB: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2");
const PCE_SVN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2.17");
const CPU_SVN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2.18");
const PCE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.3");
const FMSPC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.4");
/// Only of platforms with several packages.
const CONFIGURATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7");
const DYNAMIC_PLATFORM: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7.1");
const CACHED_KEYS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7.2");
const SMT_ENABLED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7.3");

/// A PCK certificate and its CA, of whom the root believes.
pub(super) struct PckChain {
    pub(super) pck: Certificate,
    pub(super) ca: Certificate,
    pub(super) platform: Platform,
}

/// What a PCK certificate says of its platform.
pub(super) struct Platform {
    pub(super) ppid: Hex<16>,
    pub(super) fmspc: Hex<6>,
    pub(super) pce_id: Hex<2>,
    /// The 16 `SGX TCB Comp SVN`, which are compared with Intel's levels.
    pub(super) cpu_svn: Hex<16>,
    pub(super) pce_svn: u16,
    pub(super) configuration: Option<Configuration>,
}

/// `Configuration` of a platform: what its owner or its maker made of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Configuration {
    /// `Dynamic Platform`: packages can be added.
    pub dynamic_platform: bool,
    /// `Cached Keys`: Intel keeps the platform's root keys.
    pub cached_keys: bool,
    /// `SMT Enabled`.
    pub smt_enabled: bool,
}

/// Checks that the quote's chain is a PCK certificate, its CA, and the root that is believed.
pub(super) fn check(
    pem: &[u8],
    root: &Root,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<PckChain, Box<Rejected>> {
    let wanted = "a PCK certificate below a PCK CA below the root";
    checks.parsed(CheckId::PckChain, wanted, parse(pem, root, crypto))
}

fn parse(pem: &[u8], root: &Root, crypto: &dyn CryptoProvider) -> Result<PckChain, String> {
    let [pck, ca, top] = pem::chain(pem).map_err(|error| error.to_string())?;
    is_root(&top, root)?;
    let ca = issued(&root.certificate, &ca, &CA_NAMES, true, crypto)?;
    let pck = issued(&ca, &pck, &[PCK_NAME], false, crypto)?;
    Ok(PckChain { platform: Platform::parse(&pck)?, pck, ca })
}

/// `Err` unless it is, byte for byte, the root that is believed.
pub(super) fn is_root(der: &[u8], root: &Root) -> Result<(), String> {
    if der == root.certificate.der() { Ok(()) } else { Err("another root".into()) }
}

/// The certificate, if `issuer` issued it under one of these names, for that kind of use.
pub(super) fn issued(
    issuer: &Certificate,
    der: &[u8],
    names: &[&str],
    authority: bool,
    crypto: &dyn CryptoProvider,
) -> Result<Certificate, String> {
    let certificate = Certificate::parse_canonical(der).map_err(|error| error.to_string())?;
    let name = certificate.common_name();
    if !names.contains(&&*name) {
        return Err(format!("a certificate of {name:?}, not of {}", names.join(" or ")));
    }
    if certificate.tbs().issuer() != issuer.tbs().subject() || !issuer.signed(&certificate, crypto) {
        return Err(format!("{name}: not issued by {}", issuer.common_name()));
    }
    let constraints = certificate.tbs().get_extension::<BasicConstraints>();
    let is_ca = constraints.is_ok_and(|found| found.is_some_and(|(_, constraints)| constraints.ca));
    if is_ca != authority || certificate.may_issue() != Some(authority) {
        return Err(format!("{name}: {}a CA, or demanding what is not known", if authority { "not " } else { "" }));
    }
    Ok(certificate)
}

/// Whether the certificate's key signed this, on P-256; the signature is r ‖ s.
pub(super) fn has_signed(
    signer: &Certificate,
    message: &[u8],
    signature: &Hex<64>,
    crypto: &dyn CryptoProvider,
) -> bool {
    let verify = |key| crypto.verify(Algorithm::EcdsaP256Sha256Fixed, key, message, &signature.0);
    signer.p256_point().is_some_and(verify)
}

impl Platform {
    fn parse(pck: &Certificate) -> Result<Self, String> {
        let mut found = pck.tbs().extensions().into_iter().flatten().filter(|e| e.extn_id == SGX_EXTENSIONS);
        let (Some(extension), None) = (found.next(), found.next()) else {
            return Err(format!("{PCK_NAME}: without SGX Extensions, or with two"));
        };
        let entries = Vec::<Entry>::from_der(extension.extn_value.as_bytes()).map_err(malformed)?;
        let tcb: Vec<Entry> = only(&entries, TCB)?.decode_as().map_err(malformed)?;
        let mut cpu_svn = [0; 16];
        for (arc, svn) in (1..).zip(&mut cpu_svn) {
            let component = TCB.push_arc(arc).map_err(malformed)?;
            *svn = only(&tcb, component)?.decode_as().map_err(malformed)?;
        }
        let configured = entries.iter().any(|entry| entry.oid == CONFIGURATION);
        // The same 16 numbers once more. A certificate where they differ is read differently by different verifiers.
        let listed: Hex<16> = octets(only(&tcb, CPU_SVN)?)?;
        if listed != Hex(cpu_svn) {
            return Err(format!("{PCK_NAME}: CPUSVN {listed}, but components {}", Hex(cpu_svn)));
        }
        Ok(Self {
            ppid: octets(only(&entries, PPID)?)?,
            fmspc: octets(only(&entries, FMSPC)?)?,
            pce_id: octets(only(&entries, PCE_ID)?)?,
            cpu_svn: Hex(cpu_svn),
            pce_svn: only(&tcb, PCE_SVN)?.decode_as().map_err(malformed)?,
            configuration: configured
                .then(|| only(&entries, CONFIGURATION).and_then(Configuration::parse))
                .transpose()?,
        })
    }
}

impl Configuration {
    fn parse(value: &Any) -> Result<Self, String> {
        let entries: Vec<Entry> = value.decode_as().map_err(malformed)?;
        let says = |name| only(&entries, name)?.decode_as().map_err(malformed);
        Ok(Self {
            dynamic_platform: says(DYNAMIC_PLATFORM)?,
            cached_keys: says(CACHED_KEYS)?,
            smt_enabled: says(SMT_ENABLED)?,
        })
    }
}

/// The one entry of this name.
fn only(entries: &[Entry], name: ObjectIdentifier) -> Result<&Any, String> {
    let mut found = entries.iter().filter(|entry| entry.oid == name);
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(&entry.value),
        _ => Err(format!("{PCK_NAME}: without {name}, or with two")),
    }
}

fn octets<const N: usize>(value: &Any) -> Result<Hex<N>, String> {
    let octets: OctetString = value.decode_as().map_err(malformed)?;
    let bytes = octets.as_bytes();
    bytes.try_into().map(Hex).map_err(|_| format!("{PCK_NAME}: wanted {N} bytes, got {}", bytes.len()))
}

fn malformed(error: impl Display) -> String {
    format!("{PCK_NAME}, SGX Extensions: {error}")
}
