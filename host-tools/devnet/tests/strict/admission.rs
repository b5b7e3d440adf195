//! Challenges, enrolment, evidence, certificates, and what follows when they end.

use blf_evidence::bundle::Platform;
use blf_evidence::icl::*;
use blf_evidence::statement::{Binding, Purpose};
use blf_evidence::tpm::{ObjectAttributes, Public};
use blf_evidence::{Base64, Hex, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::client::{ICL, Reply, random};
use crate::nodes::{Net, Node, START};
use crate::tpm::{Machine, Tpm};

#[tokio::test]
async fn the_certificate_is_bound_to_the_appraised_keys() {
    let net = Net::start().await;
    let node = net.stranger();
    let challenge = node.challenge().await;
    assert_eq!((challenge.audience.as_str(), challenge.expires_at), (ICL, UnixTime(START + 300)));
    let evidence = node.evidence(Purpose::Admission, ICL, challenge.nonce);
    let reply: AttestReply = node.attest(&challenge, evidence.clone()).await.ok();
    let certificate: Certificate = serde_json::from_str(&reply.certificate).unwrap();
    let binding = Binding::parse(evidence.binding.as_bytes()).unwrap();
    let wanted = Certificate {
        binding_sha256: Hex(Sha256::digest(&evidence.binding).into()),
        issued_at: UnixTime(START),
        keys: binding.keys,
        measurement: format!("tpm-pcr11:{}", Hex([11; 32])),
        not_after: UnixTime(START + 86_400),
        tier: 0,
        v: 1,
    };
    assert_eq!(certificate, wanted);
    assert_eq!(blf_evidence::json::canonical("certificate", &certificate).unwrap(), reply.certificate);
    net.stop().await;
}

#[tokio::test]
async fn a_challenge_is_for_one_node_once_and_in_time() {
    let net = Net::start().await;
    let (node, other) = (net.stranger(), net.stranger());
    let attest = async |node: &Node, challenge: &Challenge| {
        node.attest(challenge, node.evidence(Purpose::Admission, ICL, challenge.nonce)).await
    };
    let challenge = node.challenge().await;
    assert_eq!(attest(&other, &challenge).await.refused(), (403, "CHALLENGE_UNKNOWN".into()), "another node's");
    attest(&node, &challenge).await.ok::<AttestReply>();
    assert_eq!(attest(&node, &challenge).await.refused(), (403, "CHALLENGE_UNKNOWN".into()), "used");

    let challenge = node.challenge().await;
    let bad = node.evidence(Purpose::Admission, ICL, Hex(random()));
    assert_eq!(node.attest(&challenge, bad).await.refused(), (403, "NOT_WANTED".into()), "another nonce");
    assert_eq!(attest(&node, &challenge).await.refused(), (403, "CHALLENGE_UNKNOWN".into()), "spent by the refusal");

    let challenge = node.challenge().await;
    net.forward(300);
    attest(&node, &challenge).await.ok::<AttestReply>();
    let challenge = node.challenge().await;
    net.forward(301);
    let (status, code) = attest(&node, &challenge).await.refused();
    // The ticker may have swept it already.
    assert!(status == 403 && ["CHALLENGE_EXPIRED", "CHALLENGE_UNKNOWN"].contains(&&*code), "{code}");
    net.stop().await;
}

#[tokio::test]
async fn evidence_is_appraised() {
    let net = Net::start().await;
    let (node, other) = (net.stranger(), net.stranger());
    let challenge = node.challenge().await;
    let refused = async |evidence| node.attest(&node.challenge().await, evidence).await.refused();
    let nonce = challenge.nonce;
    let good = || node.evidence(Purpose::Admission, ICL, nonce);

    let mut forged = good();
    let Platform::Tpm(tpm) = &mut forged.platform else { unreachable!() };
    tpm.signature.0[5] ^= 1;
    let (status, code) = refused(forged).await;
    assert_eq!((status, code.as_str()), (403, "NOT_GENUINE"));
    assert_eq!(refused(good()).await, (403, "NOT_WANTED".into()), "the nonce of another challenge");
    assert_eq!(refused(node.evidence(Purpose::Preview, ICL, nonce)).await.1, "NOT_WANTED");
    let evidence = other.evidence(Purpose::Admission, ICL, nonce);
    assert_eq!(refused(evidence).await, (403, "OTHER_NODE".into()));
    let mut malformed = good();
    malformed.binding.push(' ');
    assert_eq!(refused(malformed).await, (403, "EVIDENCE_MALFORMED".into()));
    let mut oversized = good();
    oversized.endorsements = Some(Base64(vec![0; 200 * 1024]));
    assert_eq!(refused(oversized).await, (403, "EVIDENCE_MALFORMED".into()));

    let attest = Attest {
        node_address: node.address,
        backend_type: "sev".into(),
        challenge_id: challenge.challenge_id.clone(),
        evidence: good(),
    };
    let reply = node.post("/internal/attestation/verify", &attest).await;
    assert_eq!(reply.refused(), (403, "EVIDENCE_MALFORMED".into()), "another backend");
    net.stop().await;
}

#[tokio::test]
async fn a_node_works_while_its_certificate_lives() {
    let net = Net::with(|options| options.certificate_life = 1000).await;
    let node = net.stranger();
    let path = format!("/internal/assignments/{}", node.address);
    let beat = Heartbeat { node_address: node.address, stopping: false, timestamp: UnixTime(START) };
    assert_eq!(node.get(&path).await.refused(), (404, "UNKNOWN_NODE".into()));
    assert_eq!(node.post("/internal/heartbeat", &beat).await.refused(), (404, "UNKNOWN_NODE".into()));
    assert_eq!(node.claim(Hex([1; 32])).await.refused(), (404, "UNKNOWN_NODE".into()));

    assert_eq!(node.admit().await.not_after, UnixTime(START + 1000));
    node.post("/internal/heartbeat", &beat).await.ok::<Done>();
    net.forward(999);
    node.poll().await;
    net.forward(1);
    assert_eq!(node.get(&path).await.refused(), (401, "CERTIFICATE_EXPIRED".into()));
    assert_eq!(node.post("/internal/heartbeat", &beat).await.refused(), (401, "CERTIFICATE_EXPIRED".into()));
    assert_eq!(node.claim(Hex([1; 32])).await.refused(), (401, "CERTIFICATE_EXPIRED".into()));
    node.admit().await;
    node.poll().await;
    net.stop().await;
}

#[tokio::test]
async fn a_certificate_never_outlives_a_day_or_the_binding() {
    let net = Net::with(|options| options.certificate_life = 1_000_000).await;
    let mut node = net.stranger();
    for (binding_life, wanted) in [(100, 100), (86_399, 86_399), (90_000, 86_400)] {
        node.binding_life = binding_life;
        assert_eq!(node.admit().await.not_after, UnixTime(START + wanted));
    }
    net.stop().await;
}

async fn enroll(node: &Node, ek: &Public, ak: &Public) -> Reply {
    let (ek_public, ak_public) = (Base64(ek.to_bytes()), Base64(ak.to_bytes()));
    let request = Enroll { node_address: node.address, ek_public, ek_certificate: None, ak_public };
    node.post("/internal/enroll", &request).await
}

async fn activate(node: &Node, id: &str, secret: Hex<32>) -> Reply {
    let request = Activate { node_address: node.address, enrolment_id: id.into(), secret };
    node.post("/internal/enroll/activate", &request).await
}

#[tokio::test]
async fn an_ak_is_certified_once_its_tpm_opened_the_credential() {
    let net = Net::start().await;
    let (node, other, tpm) = (net.stranger(), net.stranger(), Tpm::new());
    let reply: EnrollReply = enroll(&node, &tpm.ek, &tpm.ak).await.ok();
    let (id, secret) = (&reply.enrolment_id, tpm.activate(&reply).unwrap());
    assert_eq!(Tpm::new().activate(&reply), None, "another TPM");
    assert_eq!(activate(&other, id, secret).await.refused(), (404, "UNKNOWN_ENROLMENT".into()));
    let certificate: ActivateReply = activate(&node, id, secret).await.ok();
    assert_eq!(certificate.ak_certificate.0[0], 0x30); // what is in it: tests/development.rs
    assert_eq!(activate(&node, id, secret).await.refused(), (404, "UNKNOWN_ENROLMENT".into()), "used");

    let reply: EnrollReply = enroll(&node, &tpm.ek, &tpm.ak).await.ok();
    assert_eq!(activate(&node, &reply.enrolment_id, Hex(random())).await.refused(), (403, "WRONG_SECRET".into()));
    let second = activate(&node, &reply.enrolment_id, tpm.activate(&reply).unwrap()).await;
    assert_eq!(second.refused(), (404, "UNKNOWN_ENROLMENT".into()), "one attempt");

    let reply: EnrollReply = enroll(&node, &tpm.ek, &tpm.ak).await.ok();
    net.forward(301);
    let (status, code) = activate(&node, &reply.enrolment_id, tpm.activate(&reply).unwrap()).await.refused();
    assert!([(403, "ENROLMENT_EXPIRED"), (404, "UNKNOWN_ENROLMENT")].contains(&(status, &*code)), "{code}");
    net.stop().await;
}

#[tokio::test]
async fn keys_that_are_no_ek_or_no_ak_are_refused() {
    let net = Net::start().await;
    let (node, tpm) = (net.stranger(), Tpm::new());
    for toggled in [ObjectAttributes::RESTRICTED, ObjectAttributes::FIXED_TPM, ObjectAttributes::DECRYPT] {
        let attributes = ObjectAttributes::from_bits(tpm.ak.attributes.bits() ^ toggled.bits()).unwrap();
        let reply = enroll(&node, &tpm.ek, &Public { attributes, ..tpm.ak.clone() }).await;
        assert_eq!(reply.refused(), (403, "AK_REFUSED".into()), "{toggled}");
    }
    assert_eq!(enroll(&node, &tpm.ak, &tpm.ak).await.refused(), (403, "EK_REFUSED".into()));
    for (ek, ak, code) in [(vec![1], tpm.ak.to_bytes(), "EK_REFUSED"), (tpm.ek.to_bytes(), vec![1], "AK_REFUSED")] {
        let (ek_public, ak_public) = (Base64(ek), Base64(ak));
        let request = Enroll { node_address: node.address, ek_public, ek_certificate: None, ak_public };
        assert_eq!(node.post("/internal/enroll", &request).await.refused(), (403, code.into()));
    }
    let ek_certificate = Some(Base64(vec![0; 8 * 1024 + 1]));
    let (ek_public, ak_public) = (Base64(tpm.ek.to_bytes()), Base64(tpm.ak.to_bytes()));
    let request = Enroll { node_address: node.address, ek_public, ek_certificate, ak_public };
    assert_eq!(node.post("/internal/enroll", &request).await.refused(), (400, "MALFORMED".into()));
    net.stop().await;
}

/// The whole way in with the real appraiser: a TPM is enrolled, its AK certified by the development root, its quote
/// appraised against the release, and its certificate says tier 0.
#[tokio::test]
async fn a_tpm_is_admitted_by_the_real_appraiser() {
    let machine = Machine::boot();
    let release = machine.release();
    let appraisal = blf_devnet::Appraisal::development(release.clone()).unwrap();
    let net = Net::with(|options| options.mode = blf_devnet::Mode::Strict(std::sync::Arc::new(appraisal))).await;
    let (node, tpm) = (net.stranger(), Tpm::new());
    let reply: EnrollReply = enroll(&node, &tpm.ek, &tpm.ak).await.ok();
    let reply: ActivateReply = activate(&node, &reply.enrolment_id, tpm.activate(&reply).unwrap()).await.ok();

    let evidence = async |change: &dyn Fn(&mut Machine)| {
        let mut machine = Machine::boot();
        change(&mut machine);
        let challenge = node.challenge().await;
        let evidence = node.evidence(Purpose::Admission, ICL, challenge.nonce);
        (challenge, tpm.vouch(evidence, &machine, Some(reply.ak_certificate.clone())))
    };
    let (challenge, good) = evidence(&|_| ()).await;
    let admitted: AttestReply = node.attest(&challenge, good).await.ok();
    let certificate: Certificate = serde_json::from_str(&admitted.certificate).unwrap();
    assert_eq!((certificate.tier, certificate.measurement), (0, release.measurement_id));
    node.poll().await;

    let (challenge, other_image) = evidence(&|machine| machine.extend(11, 0xd, b"another section")).await;
    assert_eq!(node.attest(&challenge, other_image).await.refused(), (403, "MEASUREMENT_UNKNOWN".into()));
    let (challenge, mut other_log) = evidence(&|_| ()).await;
    let mut other = Machine::boot();
    other.extend(1, 0xd, b"another boot");
    let Platform::Tpm(part) = &mut other_log.platform else { unreachable!() };
    part.event_log = Some(Base64(other.log()));
    let (status, code) = node.attest(&challenge, other_log).await.refused();
    assert_eq!((status, code.as_str()), (403, "EVENT_LOG_MISMATCH"));
    // The certificate of one TPM's AK does not make another's quote good.
    let challenge = node.challenge().await;
    let evidence = node.evidence(Purpose::Admission, ICL, challenge.nonce);
    let stolen = Tpm::new().vouch(evidence, &machine, Some(reply.ak_certificate.clone()));
    let (status, code) = node.attest(&challenge, stolen).await.refused();
    assert_eq!((status, code.as_str()), (403, "AK_CERTIFICATE_KEY"));
    net.stop().await;
}
