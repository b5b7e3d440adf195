//! Azure's chain below a node's own words: the statement is what the vTPM's quote answers.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::{Authentic, Claims, Node, Rejected, authenticate};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA};
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::tpm::Quote;
use blf_evidence::{Base64, Hex};
use sha2::{Digest as _, Sha256};

use crate::azure::Guest;
use crate::refusal;

fn binding() -> Binding {
    let some = Binding::parse(include_bytes!("../../../evidence/tests/vectors/binding.json")).unwrap();
    Binding { config_sha256: Hex(Sha256::digest("{}").into()), ..some }
}

fn evidence(guest: &Guest) -> Evidence {
    let (node, text) = (binding().keys.node, binding().to_canonical().unwrap());
    let statement = Statement::new(node, text.as_bytes());
    Evidence {
        schema: SCHEMA.into(),
        platform: Platform::Azure(guest.evidence(&statement.qualifying_data())),
        binding: text,
        config: "{}".into(),
        endorsements: Some(Base64(guest.endorsements().to_json().unwrap().into_bytes())),
    }
}

fn verdict(guest: &Guest, evidence: &Evidence) -> Result<Authentic<Node>, Box<Rejected>> {
    let written = Evidence::parse(evidence.to_json().unwrap().as_bytes()).unwrap();
    authenticate(&written, &guest.endorsers(), guest.now, &AwsLc)
}

#[test]
fn the_quote_answers_the_statement() {
    let guest = Guest::new();
    let authentic = verdict(&guest, &evidence(&guest)).unwrap();
    assert_eq!(authentic.binding, binding());
    assert!(matches!(&authentic.platform, Claims::Azure(claims) if claims.tpm.event_log));
}

#[test]
fn another_statement() {
    let guest = Guest::new();
    let mut other = evidence(&guest);
    other.binding = Binding { nonce: Hex([8; 32]), ..binding() }.to_canonical().unwrap();
    assert_eq!(refusal(verdict(&guest, &other)).code, "STATEMENT_MISMATCH");
    // On this platform the statement itself, its prefix or a bare nonce is no answer.
    let statement = Statement::new(binding().keys.node, binding().to_canonical().unwrap().as_bytes());
    for extra_data in [&statement.0.0[..], &statement.qualifying_data()[..31], &binding().nonce.0, &[]] {
        let mut other = evidence(&guest);
        other.platform = Platform::Azure(guest.evidence(extra_data));
        let Platform::Azure(azure) = &other.platform else { unreachable!() };
        assert_eq!(Quote::parse(&azure.tpm.quote.0).unwrap().extra_data, extra_data);
        assert_eq!(refusal(verdict(&guest, &other)).code, "STATEMENT_MISMATCH");
    }
}

#[test]
fn endorsements_are_part_of_it() {
    let guest = Guest::new();
    let mut without = evidence(&guest);
    without.endorsements = None;
    assert_eq!(refusal(verdict(&guest, &without)).code, "VEK_MISSING");
    let mut damaged = evidence(&guest);
    damaged.endorsements.as_mut().unwrap().0.pop();
    assert_eq!(refusal(verdict(&guest, &damaged)).code, "ENDORSEMENTS_MALFORMED");
}

#[test]
fn configuration_of_another_operator() {
    let guest = Guest::new();
    let mut other = evidence(&guest);
    other.config = "{\"a\":1}".into();
    assert_eq!(refusal(verdict(&guest, &other)).code, "CONFIG_MISMATCH");
}
