//! X.509 certificates and revocation lists (RFC 5280), with the extensions of AMD and Intel.

use std::fmt::Display;

use blf_evidence::Hex;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{AnyRef, Ia5StringRef, ObjectIdentifier, OctetStringRef, UintRef};
use x509_cert::der::{Decode, Encode as _, Reader as _, pem};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, CrlDistributionPoints, ExtendedKeyUsage, KeyUsage};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::fields::{Fields, Shown, blob, part};

const BEGIN: &str = "-----BEGIN ";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const KEY_USAGE: &str = "2.5.29.15";
const CRL_DISTRIBUTION_POINTS: &str = "2.5.29.31";
const EXT_KEY_USAGE: &str = "2.5.29.37";
const SGX: &str = "1.2.840.113741.1.13.1";

/// Object identifiers by the names of their standards: RFC 5280, RFC 4055, RFC 5480; AMD's VCEK Certificate and KDS
/// Interface Specification (57230), table "X.509 Extensions"; Intel's SGX PCK Certificate and CRL Profile Specification.
const NAMES: [(&str, &str); 49] = [
    ("1.2.840.10045.2.1", "id-ecPublicKey"),
    ("1.2.840.10045.3.1.7", "secp256r1"),
    ("1.3.132.0.34", "secp384r1"),
    ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256"),
    ("1.2.840.10045.4.3.3", "ecdsa-with-SHA384"),
    ("1.2.840.113549.1.1.1", "rsaEncryption"),
    ("1.2.840.113549.1.1.10", "id-RSASSA-PSS"),
    ("1.2.840.113549.1.1.11", "sha256WithRSAEncryption"),
    ("1.2.840.113549.1.1.12", "sha384WithRSAEncryption"),
    ("2.5.29.14", "subjectKeyIdentifier"),
    (KEY_USAGE, "keyUsage"),
    ("2.5.29.17", "subjectAltName"),
    (BASIC_CONSTRAINTS, "basicConstraints"),
    ("2.5.29.20", "cRLNumber"),
    ("2.5.29.21", "reasonCode"),
    ("2.5.29.28", "issuingDistributionPoint"),
    (CRL_DISTRIBUTION_POINTS, "cRLDistributionPoints"),
    ("2.5.29.32", "certificatePolicies"),
    ("2.5.29.35", "authorityKeyIdentifier"),
    (EXT_KEY_USAGE, "extKeyUsage"),
    ("1.3.6.1.5.5.7.1.1", "authorityInfoAccess"),
    ("2.23.133.8.1", "tcg-kp-EKCertificate"),
    ("2.23.133.8.3", "tcg-kp-AIKCertificate"),
    ("1.3.6.1.4.1.3704.1.1", "structVersion"),
    ("1.3.6.1.4.1.3704.1.2", "productName"),
    ("1.3.6.1.4.1.3704.1.3.1", "blSPL"),
    ("1.3.6.1.4.1.3704.1.3.2", "teeSPL"),
    ("1.3.6.1.4.1.3704.1.3.3", "snpSPL"),
    ("1.3.6.1.4.1.3704.1.3.4", "spl_4"),
    ("1.3.6.1.4.1.3704.1.3.5", "spl_5"),
    ("1.3.6.1.4.1.3704.1.3.6", "spl_6"),
    ("1.3.6.1.4.1.3704.1.3.7", "spl_7"),
    ("1.3.6.1.4.1.3704.1.3.8", "ucodeSPL"),
    ("1.3.6.1.4.1.3704.1.3.9", "fmcSPL"),
    ("1.3.6.1.4.1.3704.1.4", "hwID"),
    ("1.3.6.1.4.1.3704.1.5", "cspID"),
    (SGX, "SGX Extensions"),
    ("1.2.840.113741.1.13.1.1", "PPID"),
    ("1.2.840.113741.1.13.1.2", "TCB"),
    ("1.2.840.113741.1.13.1.2.17", "PCESVN"),
    ("1.2.840.113741.1.13.1.2.18", "CPUSVN"),
    ("1.2.840.113741.1.13.1.3", "PCE-ID"),
    ("1.2.840.113741.1.13.1.4", "FMSPC"),
    ("1.2.840.113741.1.13.1.5", "SGX Type"),
    ("1.2.840.113741.1.13.1.6", "Platform Instance ID"),
    ("1.2.840.113741.1.13.1.7", "Configuration"),
    ("1.2.840.113741.1.13.1.7.1", "Dynamic Platform"),
    ("1.2.840.113741.1.13.1.7.2", "Cached Keys"),
    ("1.2.840.113741.1.13.1.7.3", "SMT Enabled"),
];

/// One certificate in DER, or a chain in PEM.
pub(super) fn chain(bytes: &[u8]) -> Result<Fields, String> {
    all(bytes, "certificates", "CERTIFICATE", certificate)
}

/// One revocation list, in DER or PEM.
pub(super) fn crls(bytes: &[u8]) -> Result<Fields, String> {
    all(bytes, "CRLs", "X509 CRL", crl)
}

/// Whether the bytes are PEM with such a label first.
pub(super) fn is_pem(bytes: &[u8], label: &str) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
    head.find(BEGIN).is_some_and(|at| head[at + BEGIN.len()..].starts_with(label))
}

fn all(bytes: &[u8], name: &str, label: &str, read: fn(&[u8]) -> Result<Fields, String>) -> Result<Fields, String> {
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.contains(BEGIN)) else {
        return Ok(Fields::default().with(name, vec![Shown::from(read(bytes)?)]));
    };
    let mut shown = Vec::new();
    for (index, (start, _)) in text.match_indices(BEGIN).enumerate() {
        let error = |e: &dyn Display| format!("{name}, {index}: {e}");
        let block = &text[start..];
        let end = block[1..].find(BEGIN).map_or(block.len(), |next| next + 1);
        let ended = block[..end].rfind("-----").map_or(end, |last| last + 5);
        let (got, der) = pem::decode_vec(&block.as_bytes()[..ended]).map_err(|e| error(&e))?;
        if got != label {
            return Err(error(&format!("wanted {label}, got {got}")));
        }
        shown.push(Shown::from(read(&der).map_err(|e| error(&e))?));
        let behind = block[ended..].trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if end == block.len() && !behind.is_empty() {
            return Err(error(&format!("wanted nothing behind it, got {} characters", behind.chars().count())));
        }
    }
    Ok(Fields::default().with(name, shown))
}

/// `Certificate`.
pub(super) fn certificate(der: &[u8]) -> Result<Fields, String> {
    let certificate = Certificate::from_der(der).map_err(|e| format!("Certificate: {e}"))?;
    let tbs = certificate.tbs_certificate();
    let key = tbs.subject_public_key_info();
    let validity = Fields::default()
        .with("notBefore", tbs.validity().not_before.to_string())
        .with("notAfter", tbs.validity().not_after.to_string());
    let public = Fields::default()
        .with("algorithm", algorithm(&key.algorithm))
        .with("subjectPublicKey", blob(key.subject_public_key.raw_bytes()))
        .with("SHA-256", key.to_der().map_or(Shown::Nothing, |der| digest(&der).into()));
    Ok(Fields::default()
        .with("version", format!("{:?}", tbs.version()).to_lowercase())
        .with("serialNumber", hex::encode(tbs.serial_number().as_bytes()))
        .with("signature", algorithm(tbs.signature()))
        .with("issuer", tbs.issuer().to_string())
        .with("validity", validity)
        .with("subject", tbs.subject().to_string())
        .with("subjectPublicKeyInfo", public)
        .with("extensions", tbs.extensions().map(extensions))
        .with("SHA-256", digest(der)))
}

/// `CertificateList`.
pub(super) fn crl(der: &[u8]) -> Result<Fields, String> {
    let list: CertificateList = CertificateList::from_der(der).map_err(|e| format!("CertificateList: {e}"))?;
    let tbs = list.tbs_cert_list;
    let revoked = tbs.revoked_certificates.unwrap_or_default();
    let revoked = revoked.iter().map(|entry| {
        Fields::default()
            .with("userCertificate", hex::encode(entry.serial_number.as_bytes()))
            .with("revocationDate", entry.revocation_date.to_string())
    });
    Ok(Fields::default()
        .with("version", format!("{:?}", tbs.version).to_lowercase())
        .with("signature", algorithm(&tbs.signature))
        .with("issuer", tbs.issuer.to_string())
        .with("thisUpdate", tbs.this_update.to_string())
        .with("nextUpdate", tbs.next_update.map(|time| time.to_string()))
        .with("revokedCertificates", revoked.collect::<Vec<_>>())
        .with("crlExtensions", tbs.crl_extensions.as_ref().map(extensions))
        .with("SHA-256", digest(der)))
}

fn digest(bytes: &[u8]) -> Hex<32> {
    Hex(Sha256::digest(bytes).into())
}

/// An algorithm and, for a key, its curve.
fn algorithm(algorithm: &AlgorithmIdentifierOwned) -> String {
    let curve = algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let name = named(algorithm.oid);
    curve.map_or_else(|| name.clone(), |curve| format!("{name} {}", named(curve)))
}

/// The name of an object identifier, or its numbers.
fn named(oid: ObjectIdentifier) -> String {
    let numbers = oid.to_string();
    let known = NAMES.iter().find(|(known, _)| *known == numbers).map(|(_, name)| (*name).to_owned());
    known.or_else(|| component(&numbers)).unwrap_or(numbers)
}

/// `SGX TCB Comp01 SVN` to `SGX TCB Comp16 SVN`.
fn component(numbers: &str) -> Option<String> {
    let number: u8 = numbers.strip_prefix("1.2.840.113741.1.13.1.2.")?.parse().ok()?;
    Some(format!("SGX TCB Comp{number:02} SVN"))
}

fn extensions(extensions: &Extensions) -> Fields {
    let critical = |extension: &Extension| if extension.critical { ", critical" } else { "" };
    extensions.iter().fold(Fields::default(), |fields, extension| {
        fields.with(format!("{}{}", named(extension.extn_id), critical(extension)), value(extension))
    })
}

/// The value of an extension; in hex where its form is not known or not kept.
fn value(extension: &Extension) -> Shown {
    let bytes = extension.extn_value.as_bytes();
    let read = match extension.extn_id.to_string().as_str() {
        BASIC_CONSTRAINTS => BasicConstraints::from_der(bytes).ok().map(|constraints| {
            let fields = Fields::default().with("cA", constraints.ca);
            fields.with_some("pathLenConstraint", constraints.path_len_constraint).into()
        }),
        KEY_USAGE => KeyUsage::from_der(bytes).ok().map(|usage| usages(&usage).into()),
        EXT_KEY_USAGE => ExtendedKeyUsage::from_der(bytes)
            .ok()
            .map(|usage| usage.0.into_iter().map(named).collect::<Vec<_>>().join(", ").into()),
        CRL_DISTRIBUTION_POINTS => CrlDistributionPoints::from_der(bytes).ok().map(|points| addresses(points).into()),
        SGX => Some(part(sgx(bytes, true)).into()),
        // A raw CHIP_ID, which may look like DER by chance.
        "1.3.6.1.4.1.3704.1.4" => None,
        _ => AnyRef::from_der(bytes).ok().and_then(simple),
    };
    read.unwrap_or_else(|| blob(bytes))
}

/// Where lists are had.
fn addresses(points: CrlDistributionPoints) -> String {
    let names = points.0.into_iter().filter_map(|point| match point.distribution_point {
        Some(DistributionPointName::FullName(names)) => Some(names),
        _ => None,
    });
    let addresses = names.flatten().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(address) => Some(address.to_string()),
        _ => None,
    });
    addresses.collect::<Vec<_>>().join(", ")
}

fn usages(usage: &KeyUsage) -> String {
    let names = [
        (usage.digital_signature(), "digitalSignature"),
        (usage.non_repudiation(), "nonRepudiation"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
        (usage.encipher_only(), "encipherOnly"),
        (usage.decipher_only(), "decipherOnly"),
    ];
    names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// A number, a text or bytes.
fn simple(any: AnyRef<'_>) -> Option<Shown> {
    if let Ok(number) = any.decode_as::<UintRef<'_>>() {
        let bytes = number.as_bytes();
        let small = (bytes.len() <= 8).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        return Some(small.map_or_else(|| blob(bytes), Shown::Number));
    }
    if let Ok(text) = any.decode_as::<Ia5StringRef<'_>>() {
        return Some(text.as_str().into());
    }
    if let Ok(flag) = any.decode_as::<bool>() {
        return Some(flag.into());
    }
    any.decode_as::<&OctetStringRef>().ok().map(|bytes| blob(bytes.as_bytes()))
}

/// `SEQUENCE OF SEQUENCE { sGXExtensionId OBJECT IDENTIFIER, sGXExtensionValue ANY }`, whose values are the same once more
/// if `deeper`: Intel's go two deep, and a stranger's as deep as the file is long.
fn sgx(bytes: &[u8], deeper: bool) -> x509_cert::der::Result<Fields> {
    AnyRef::from_der(bytes)?.sequence(|list| {
        let mut fields = Fields::default();
        while !list.is_finished() {
            fields = list.sequence(|entry| {
                let (id, any) = (named(entry.decode()?), entry.decode::<AnyRef<'_>>()?);
                let nested = || any.to_der().and_then(|der| sgx(&der, false)).ok().map(Shown::from);
                let value = simple(any).or_else(|| if deeper { nested() } else { None });
                x509_cert::der::Result::Ok(fields.with(id, value.unwrap_or_else(|| blob(any.value()))))
            })?;
        }
        Ok(fields)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SEQUENCE` with its length in the fewest bytes, as DER wants it.
    fn sequence(value: &[u8]) -> Vec<u8> {
        let bytes = value.len().to_be_bytes();
        let length = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
        let long = (value.len() >= 128).then(|| 0x80 | u8::try_from(length.len()).unwrap());
        [&[0x30][..], long.as_slice(), length, value].concat()
    }

    /// It recursed as deep as the file is, and the stack ended first.
    #[test]
    fn extensions_within_extensions_have_an_end() {
        let oid = hex::decode("060a2a864886f84d010d0102").unwrap();
        let mut der = sequence(&sequence(&[&oid[..], &[2, 1, 7]].concat()));
        for _ in 0..3000 {
            der = sequence(&sequence(&[&oid[..], &der].concat()));
        }
        let text = sgx(&der, true).unwrap().to_text();
        assert!(text.starts_with("  TCB\n    TCB  ") && text.contains(" bytes, SHA-256 "), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
