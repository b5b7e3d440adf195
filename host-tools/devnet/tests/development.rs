//! The committed development PKI: keys, certificates and the profile belong together.

use blf_devnet::development::{self, AK_CA, AK_CA_KEY, Authority, TLS_CA};
use blf_evidence::UnixTime;
use blf_evidence::tpm::{Public, PublicKey, Scheme, Symmetric, ak_p256_template};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, DecodePem as _, Encode as _};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, NameConstraints, SubjectKeyIdentifier};

const NOW: UnixTime = UnixTime(1_795_165_688);

#[test]
fn the_profile_names_these_keys() {
    let profile = development::profile().unwrap();
    assert_eq!(profile.name, "devnet");
    assert_eq!(profile.tls_roots, TLS_CA);
    assert_eq!(profile.icl_account, development::address(&development::icl_key().unwrap()));
    let names = ["blobs", "coordinator", "icl", "rpc", "threshold", "verifier"];
    assert_eq!(profile.egress(), names.map(|name| format!("{name}.devnet.blf.internal:8443")));
}

#[test]
fn the_authorities_are_what_the_readme_says() {
    for (pem, name) in [(TLS_CA, "CN=blf development TLS CA"), (AK_CA, "CN=blf development AK CA")] {
        let certificate = Certificate::from_pem(pem).unwrap();
        let tbs = certificate.tbs_certificate();
        assert_eq!(tbs.subject().to_string(), name);
        assert_eq!(tbs.issuer().to_string(), name);
        assert_eq!(tbs.validity().not_before.to_unix_duration().as_secs(), 1_767_225_600); // 2026-01-01
        assert_eq!(tbs.validity().not_after.to_unix_duration().as_secs(), 2_398_377_600); // 2046-01-01
        let (critical, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
        assert!(critical && constraints.ca && constraints.path_len_constraint == Some(0));
    }
    // The published TLS key can speak for nothing but the devnet.
    let certificate = Certificate::from_pem(TLS_CA).unwrap();
    let (critical, names) = certificate.tbs_certificate().get_extension::<NameConstraints>().unwrap().unwrap();
    assert!(critical && names.permitted_subtrees.unwrap().len() == 1);
}

/// The AK's certificate: by the AK CA, for the TPM's key, naming its use, for 30 days.
#[test]
fn attestation_key_certificate() {
    let generator = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    let point = hex::decode(generator).unwrap();
    let key = PublicKey::EccP256 {
        symmetric: Symmetric::Null,
        scheme: Scheme::Signing(blf_evidence::tpm::HashAlg::Sha256),
        x: point[..32].to_vec(),
        y: point[32..].to_vec(),
    };
    let ak = Public { key, ..ak_p256_template() };
    let authority = Authority::from_pem(AK_CA, AK_CA_KEY).unwrap();
    let der = authority.attestation_key(&ak, NOW).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    let tbs = certificate.tbs_certificate();
    assert_eq!(tbs.subject_public_key_info().to_der().unwrap(), ak.subject_public_key_info().unwrap());
    assert_eq!(tbs.issuer().to_string(), "CN=blf development AK CA");
    let root = Certificate::from_pem(AK_CA).unwrap();
    let (_, wanted) = root.tbs_certificate().get_extension::<SubjectKeyIdentifier>().unwrap().unwrap();
    let (_, got) = tbs.get_extension::<AuthorityKeyIdentifier>().unwrap().unwrap();
    assert_eq!(got.key_identifier.unwrap(), wanted.0);
    let (_, usages) = tbs.get_extension::<x509_cert::ext::pkix::ExtendedKeyUsage>().unwrap().unwrap();
    assert_eq!(usages.0, [ObjectIdentifier::new_unwrap("2.23.133.8.3")]);
    let (_, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
    assert!(!constraints.ca);
    let (start, end) = (tbs.validity().not_before, tbs.validity().not_after);
    assert_eq!(start.to_unix_duration().as_secs(), NOW.0 - 86_400);
    assert_eq!(end.to_unix_duration().as_secs(), NOW.0 + 30 * 86_400);
    assert!(authority.attestation_key(&Public { key: ak_p256_template().key, ..ak }, NOW).is_err());
}
