//! Revocation lists, and what they say.

use super::*;

fn with(list: impl FnOnce(&mut RevocationList)) -> Case {
    let mut case = vcek();
    let mut crl = RevocationList::of(Family::Milan);
    list(&mut crl);
    case.endorsements.crl = Some(Base64(crl.sign(&ARK)));
    case
}

/// The list of a case that is genuine with the list as it comes.
#[track_caller]
fn refused_list(code: &str, reason: &str, list: impl FnOnce(&mut RevocationList)) {
    refused(with(|_| ()), code, reason, |case| case.endorsements.crl = with(list).endorsements.crl);
}

#[test]
fn list_is_dated() {
    let claims = with(|_| ()).authenticate().unwrap();
    // 2026-11-01T00:00:00Z
    assert_eq!(claims.crl_this_update, Some(UnixTime(1_793_491_200)));
    let mut empty = with(|list| list.revoked.clear());
    empty.authenticate().unwrap();
    empty.endorsements.crl = None;
    assert_eq!(empty.authenticate().unwrap().crl_this_update, None);
}

#[test]
fn of_the_ask() {
    refused_list("VEK_REVOKED", "serial number 02", |list| list.revoked.push(2));
}

/// Revoked, although another ASK of the same key is shown.
#[test]
fn of_the_ark() {
    refused_list("VEK_REVOKED", "serial number 01", |list| list.revoked.push(1));
}

/// The ASVK's end is nothing to a VCEK, and everything to a VLEK.
#[test]
fn of_the_asvk() {
    with(|list| list.revoked.push(3)).authenticate().unwrap();
    refused(vlek(), "VEK_REVOKED", "serial number 03", |case| {
        case.endorsements.crl = with(|list| list.revoked.push(3)).endorsements.crl;
    });
}

#[test]
fn list_that_expired() {
    refused_list("CRL_EXPIRED", "valid at", |list| list.next_update = Some(NOW_UTC));
}

#[test]
fn list_of_the_future() {
    refused_list("CRL_EXPIRED", "valid at", |list| list.this_update = "261120090001Z");
    with(|list| list.this_update = NOW_UTC).authenticate().unwrap();
}

#[test]
fn list_without_an_end() {
    refused_list("CRL_MALFORMED", "no nextUpdate", |list| list.next_update = None);
}

#[test]
fn list_by_another_key() {
    for stranger in [&*STRANGER, &*ASK] {
        refused(with(|_| ()), "CRL_MALFORMED", "a signature by another key than ", |case| {
            case.endorsements.crl = Some(Base64(RevocationList::of(Family::Milan).sign(stranger)));
        });
    }
}

#[test]
fn list_of_another_family() {
    refused_list("CRL_MALFORMED", "another issuer", |list| list.issuer = "ARK-Genoa".into());
}

/// E.g. an issuing distribution point: the list may not be about ASKs at all.
#[test]
fn list_with_a_critical_extension() {
    refused_list("CRL_MALFORMED", "critical extension 2.5.29.28", |list| {
        let oid = b"\x55\x1D\x1C".to_vec();
        list.extensions.push(Extension { oid, critical: Some(true), value: tlv(0x30, &[]) });
    });
}

#[test]
fn list_that_is_none() {
    refused(vcek(), "CRL_MALFORMED", "snp.crl", |case| case.endorsements.crl = Some(Base64(vec![0x30, 0])));
}

#[test]
fn list_by_an_ark_that_may_not_revoke() {
    let mut ark = crate::pki::Template::authority(1, "ARK-Milan", "ARK-Milan", &ARK);
    ark.extensions[1].value = tlv(0x03, &[2, 0x04]);
    let [ask, asvk] = [ask(Family::Milan), asvk(Family::Milan)].map(|template| template.sign(&ARK));
    let root = Root::new(Family::Milan, RootKind::Development, &ark.sign(&ARK), &ask, &asvk).unwrap();
    let mut without = vcek();
    without.roots = vec![root.clone()];
    without.authenticate().unwrap();
    refused(with(|_| ()), "CRL_MALFORMED", "may not revoke", |case| case.roots = vec![root]);
}

/// No bit of a list may change, signed or not.
#[test]
fn list_with_any_bit_flipped() {
    let case = with(|_| ());
    let endorsements = case.endorsements();
    let crl = endorsements.crl.clone().unwrap().0;
    Chain::verify(&endorsements, &case.roots, &AwsLc).unwrap();
    for bit in 0..crl.len() * 8 {
        let mut flipped = crl.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let endorsements = SnpEndorsements { crl: Some(Base64(flipped)), ..endorsements.clone() };
        let rejected = verdict(Chain::verify(&endorsements, &case.roots, &AwsLc)).unwrap_err();
        assert_eq!(rejected.code, "CRL_MALFORMED", "bit {bit}: {rejected}");
    }
}
