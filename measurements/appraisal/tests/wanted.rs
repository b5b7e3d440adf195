//! Genuine evidence that is not what was asked for, and what an Attestation Result says about evidence that is.

#[path = "common/node.rs"]
mod node;

use blf_appraisal::policy::Accept;
use blf_appraisal::result::{Memory, Party, Roots};
use blf_appraisal::{Demand, RootKind, Stage};
use blf_evidence::statement::{Anchor, Model, Purpose};
use blf_evidence::{Hex, UnixTime};
use node::{NOW, Setting, tpm_of};

/// The code with which the setting's evidence is refused once the setting is changed.
#[track_caller]
fn code(change: impl FnOnce(&mut Setting)) -> &'static str {
    let mut setting = Setting::new();
    setting.verdict(&setting.evidence()).unwrap();
    change(&mut setting);
    let refusal = setting.refusal(&setting.evidence());
    assert_eq!(refusal.stage, Stage::Wanted, "{refusal}");
    refusal.code
}

#[test]
fn accepted() {
    let setting = Setting::new();
    let result = setting.verdict(&setting.evidence()).unwrap();
    assert_eq!((result.tier, result.trust.roots), (0, Roots::Development));
    assert_eq!(result.trust.memory, Memory::ReadableByOperator);
    assert_eq!(result.measurement_id, format!("tpm-pcr11:{}", setting.pcrs[11]));
    assert_eq!(result.binding, setting.binding);
    assert_eq!(result.expires_at, setting.binding.not_after);
    assert!(result.meaning().starts_with("tier 0"));
    assert!(result.checks.iter().all(|check| check.ok));
    let ids: Vec<_> = result.checks.iter().map(|check| check.id.to_string()).collect();
    for wanted in [
        "binding",
        "quote.statement",
        "quote.signature",
        "event_log.replay",
        "ak.certificate.key",
        "nonce",
        "measurement",
    ] {
        assert_eq!(ids.iter().filter(|id| *id == wanted).count(), 1, "{wanted} in {ids:?}");
    }
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!(json["checks"][0]["id"], "binding");
    assert_eq!(json["trust"]["memory"], "readable_by_operator");
}

#[test]
fn both_ways_to_start_the_image() {
    let mut setting = Setting::new();
    setting.event_log = None;
    setting.policy.event_log = Demand::Any;
    for pcr4 in setting.release.pcrs.pcr4 {
        setting.pcrs[4] = pcr4;
        setting.verdict(&setting.evidence()).unwrap();
    }
}

#[test]
fn other_nonce() {
    assert_eq!(code(|s| s.expected.nonce = Hex([8; 32])), "NONCE_MISMATCH");
    assert_eq!(code(|s| s.expected.nonce.0[31] ^= 1), "NONCE_MISMATCH", "the whole nonce counts");
}

#[test]
fn nonce_that_nobody_chose() {
    let mut setting = Setting::new();
    setting.binding.nonce = Hex([0; 32]);
    setting.expected.nonce = Hex([0; 32]);
    assert_eq!(setting.refusal(&setting.evidence()).code, "NONCE_MISMATCH");
}

#[test]
fn other_audience() {
    assert_eq!(code(|s| s.expected.audience = "icl.example".into()), "AUDIENCE_MISMATCH");
    assert_eq!(code(|s| s.expected.audience.clear()), "AUDIENCE_MISMATCH");
}

#[test]
fn other_purpose() {
    assert_eq!(code(|s| s.expected.purpose = Purpose::Preview), "PURPOSE_MISMATCH");
}

#[test]
fn expired() {
    assert_eq!(code(|s| s.now = UnixTime(NOW.0 + 3600)), "EXPIRED");
    assert_eq!(code(|s| s.binding.not_after = UnixTime(0)), "EXPIRED");
}

#[test]
fn validity_longer_than_allowed() {
    assert_eq!(code(|s| s.binding.not_after = UnixTime(NOW.0 + 90_001)), "VALIDITY_TOO_LONG");
    assert_eq!(code(|s| s.policy.max_validity_s = 3599), "VALIDITY_TOO_LONG");
}

#[test]
fn undated() {
    assert_eq!(code(|s| s.policy.anchor = Demand::Required), "ANCHOR_MISSING");
    let mut setting = Setting::new();
    setting.policy.anchor = Demand::Required;
    setting.binding.anchor = Some(Anchor { block_hash: Hex([1; 32]), block_number: 7, chain_id: 421_614 });
    setting.verdict(&setting.evidence()).unwrap();
}

#[test]
fn image_that_is_no_release() {
    let unlocked = |s: &mut Setting| {
        s.release.locked = false;
        s.policy.locked_release = Demand::Required;
    };
    assert_eq!(code(unlocked), "RELEASE_NOT_LOCKED");
}

#[test]
fn profile_that_is_not_accepted() {
    assert_eq!(code(|s| s.policy.profiles = Accept::Only(vec!["production".into()])), "PROFILE_REFUSED");
}

#[test]
fn profile_of_another_release() {
    assert_eq!(code(|s| s.release.profile.id = Hex([11; 32])), "PROFILE_MISMATCH");
    assert_eq!(code(|s| s.binding.profile.name = "production".into()), "PROFILE_MISMATCH");
}

#[test]
fn wrong_pcr() {
    for (index, wanted) in [
        (4, "PCR4_MISMATCH"),
        (9, "PCR9_MISMATCH"),
        (11, "MEASUREMENT_UNKNOWN"),
        (12, "PCR12_MISMATCH"),
        (13, "PCR13_MISMATCH"),
    ] {
        let change = |s: &mut Setting| {
            s.pcrs[index].0[0] ^= 1;
            s.event_log = None;
            s.policy.event_log = Demand::Any;
        };
        assert_eq!(code(change), wanted);
        // With the log of the boot it already fails there.
        let mut setting = Setting::new();
        setting.pcrs[index].0[0] ^= 1;
        assert_eq!(setting.refusal(&setting.evidence()).code, "EVENT_LOG_MISMATCH");
    }
}

#[test]
fn other_release() {
    assert_eq!(code(|s| s.release.pcrs.pcr11 = Hex([1; 32])), "MEASUREMENT_UNKNOWN");
}

#[test]
fn model_that_is_not_accepted() {
    let other = Model { id: "blf-tiny-1".into(), manifest_sha256: Hex([9; 32]) };
    assert_eq!(
        code(|s| s.policy.models = Accept::Only(vec![other.clone()])),
        "MODEL_REFUSED",
        "another model's weights"
    );
    assert_eq!(code(|s| s.policy.models = Accept::Only(Vec::new())), "MODEL_REFUSED");
    let more = |s: &mut Setting| {
        s.policy.models = Accept::Only(s.binding.models.clone());
        s.binding.models.push(other.clone());
    };
    assert_eq!(code(more), "MODEL_REFUSED", "one model too many");
}

#[test]
fn numeric_profile_that_is_not_accepted() {
    let change = |s: &mut Setting| s.policy.numeric_profiles = Accept::Only(vec!["candle-f32-v2".into()]);
    assert_eq!(code(change), "NUMERIC_PROFILE_REFUSED");
}

#[test]
fn gpu_that_nobody_can_check() {
    assert_eq!(code(|s| s.binding.gpu_sha256 = Some(Hex([1; 32]))), "GPU_UNSUPPORTED");
}

#[test]
fn ak_that_nobody_endorses() {
    let mut setting = Setting::new();
    let mut evidence = setting.evidence();
    tpm_of(&mut evidence).ak_certificate = None;
    let result = setting.verdict(&evidence).unwrap();
    assert_eq!((result.tier, result.trust.roots), (0, Roots::None));
    setting.policy.ak_endorsement = Demand::Required;
    assert_eq!(setting.refusal(&evidence).code, "AK_NOT_ENDORSED");
    setting.endorsers.activated = vec![setting.tpm.ak.name()];
    let result = setting.verdict(&evidence).unwrap();
    assert_eq!((result.tier, result.trust.roots), (0, Roots::Activated));
}

#[test]
fn event_log_left_out() {
    assert_eq!(code(|s| s.event_log = None), "EVENT_LOG_MISSING");
}

/// Development roots are tier 0 whatever they sign; production roots give a TPM tier 1 and never 2.
#[test]
fn tiers() {
    for (kind, profile, tier) in [
        (RootKind::Development, "devnet", 0),
        (RootKind::Development, "insecure", 0),
        (RootKind::Development, "production", 0),
        (RootKind::Production, "devnet", 0),
        (RootKind::Production, "insecure", 1),
        (RootKind::Production, "production", 1),
        (RootKind::Production, "anything", 0),
    ] {
        let mut setting = Setting::new();
        setting.endorsers.roots = vec![setting.ca.root(kind)];
        setting.policy.profiles = Accept::Any;
        setting.release.profile.name = profile.into();
        setting.binding.profile.name = profile.into();
        let result = setting.verdict(&setting.evidence()).unwrap();
        assert_eq!(result.tier, tier, "{kind:?} {profile}");
        assert_eq!(result.trust.tcb.contains(&Party::TpmMaker), kind == RootKind::Production);
        assert!(result.trust.tcb.contains(&Party::Operator));
        assert!(result.meaning().starts_with(&format!("tier {tier}")));
        setting.policy.minimum_tier = tier + 1;
        assert_eq!(setting.refusal(&setting.evidence()).code, "TIER_TOO_LOW");
    }
}

#[test]
fn a_refusal_shows_the_difference() {
    let mut setting = Setting::new();
    setting.expected.audience = "icl.example".into();
    let refusal = setting.refusal(&setting.evidence());
    assert_eq!(refusal.to_string(), "AUDIENCE_MISMATCH: audience: wanted icl.example, got icl.devnet.blf.internal");
    assert_eq!(refusal.passed.last().unwrap().id.to_string(), "nonce");
    let json = serde_json::to_value(&refusal).unwrap();
    assert_eq!((&json["stage"], &json["failed"]["id"]), (&"wanted".into(), &"audience".into()));
}
