//! Is it wanted? From [`Authentic`] to [`AttestationResult`].

use blf_evidence::json::{self, JsonError};
use blf_evidence::statement::{Model, Purpose};
use blf_evidence::{Hex, UnixTime};
use serde::{Deserialize, Serialize};

use crate::authenticate::{Authentic, Claims, Node};
use crate::check::{AppraisalError, CheckId};
use crate::release::{Release, measurement_id};
use crate::result::{AttestationResult, TrustVector};
use crate::tpm::{self, AkEndorsement};

/// Longest policy, in bytes.
pub const POLICY_CAP: usize = 64 * 1024;
/// The `schema` member of every policy.
pub const SCHEMA: &str = "blf.policy/v1";

/// Appraisal Policy: what a relying party accepts. Every member is written down; "any" is a value one has to type.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Must somebody believed vouch for the AK?
    pub ak_endorsement: Demand,
    /// Must the binding name a block that dates it?
    pub anchor: Demand,
    /// Must there be an event log?
    pub event_log: Demand,
    /// Must the image be built from locked inputs?
    pub locked_release: Demand,
    /// Longest time from now to the binding's `not_after`, in seconds.
    pub max_validity_s: u64,
    /// Lowest tier accepted, 0 to 2.
    pub minimum_tier: u8,
    /// Which models may be held. A node that holds another is refused.
    pub models: Accept<Model>,
    /// Which numeric profiles may be used.
    pub numeric_profiles: Accept<String>,
    /// Which network profiles, by name.
    pub profiles: Accept<String>,
}

/// Whether something optional must be there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// With or without.
    Any,
    /// Only with.
    Required,
}

/// Which values are accepted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept<T> {
    /// Every value.
    Any,
    /// These.
    Only(Vec<T>),
}

impl<T: PartialEq> Accept<T> {
    fn accepts(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(values) => values.contains(value),
        }
    }
}

/// What this relying party asked for, this time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expectations {
    /// The name by which the relying party calls itself.
    pub audience: String,
    /// The nonce it chose. Zero is refused: nobody chooses it.
    pub nonce: Hex<32>,
    /// What the evidence is to be used for.
    pub purpose: Purpose,
}

impl Policy {
    /// The policy of a development network: one's own machine, development roots, images as they are being built.
    pub const DEVNET: &str = include_str!("../policies/devnet.json");
    /// A policy for released images on TPMs that a production root certified.
    pub const RELEASED: &str = include_str!("../policies/released.json");

    /// Parses a policy.
    ///
    /// # Errors
    /// [`JsonError`] for anything but strict JSON with every member.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let policy: Self = json::parse_whole("policy", bytes, POLICY_CAP)?;
        let malformed = |error: String| Err(JsonError::Malformed { what: "policy", error });
        if policy.schema != SCHEMA {
            return malformed(format!("schema: wanted {SCHEMA}, got {}", json::excerpt(&policy.schema)));
        }
        if policy.minimum_tier > 2 {
            return malformed(format!("minimum_tier: wanted 0 to 2, got {}", policy.minimum_tier));
        }
        Ok(policy)
    }

    /// Compares genuine evidence with what is wanted: this relying party's question, the release's Reference Values,
    /// and this policy, at the time by which it was authenticated.
    ///
    /// # Errors
    /// [`AppraisalError::Rejected`] with the first check that fails.
    pub fn appraise(
        &self,
        authentic: Authentic<Node>,
        release: &Release,
        expected: &Expectations,
    ) -> Result<AttestationResult, AppraisalError> {
        let Authentic { claims: Node { binding, platform }, now, mut checks } = authentic;
        let Claims::Tpm(tpm) = platform else { return Err(AppraisalError::Unsupported("snp, tdx or azure")) };
        let tpm::Claims { pcrs, ak, ak_name, event_log } = *tpm;
        let chosen = expected.nonce != Hex([0; 32]);
        let wanted = if chosen { expected.nonce.to_string() } else { "a nonce that was chosen".into() };
        checks.require(CheckId::Nonce, wanted, binding.nonce, chosen && binding.nonce == expected.nonce)?;
        checks.equal(CheckId::Audience, &expected.audience, &binding.audience)?;
        checks.equal(CheckId::Purpose, name(expected.purpose), name(binding.purpose))?;
        let UnixTime(not_after) = binding.not_after;
        checks.require(CheckId::NotAfter, format!("after {}", now.0), not_after, now.0 < not_after)?;
        let latest = now.0.saturating_add(self.max_validity_s);
        checks.require(CheckId::Validity, format!("at most {latest}"), not_after, not_after <= latest)?;
        let anchor = binding.anchor.as_ref().map_or_else(|| "none".into(), |a| format!("block {}", a.block_number));
        let ok = self.anchor == Demand::Any || binding.anchor.is_some();
        checks.require(CheckId::Anchor, wording(self.anchor, "a block"), anchor, ok)?;

        let ok = self.locked_release == Demand::Any || release.locked;
        let got = if release.locked { "from locked inputs" } else { "not a released measurement" };
        checks.require(CheckId::ReleaseLocked, wording(self.locked_release, "from locked inputs"), got, ok)?;
        let ok = self.profiles.accepts(&release.profile.name);
        checks.require(CheckId::ReleaseProfile, listing(&self.profiles, Clone::clone), &release.profile.name, ok)?;
        let profile = |profile: &blf_evidence::statement::Profile| format!("{} {}", profile.name, profile.id);
        checks.equal(CheckId::Profile, profile(&release.profile), profile(&binding.profile))?;
        let wanted = release.pcrs.pcr4.map(|pcr| pcr.to_string()).join(" or ");
        checks.require(CheckId::Pcr4, wanted, pcrs[4], release.pcrs.pcr4.contains(&pcrs[4]))?;
        checks.equal(CheckId::Pcr9, release.pcrs.pcr9, pcrs[9])?;
        checks.equal(CheckId::Pcr11, release.pcrs.pcr11, pcrs[11])?;
        checks.equal(CheckId::Pcr12, Hex([0; 32]), pcrs[12])?;
        checks.equal(CheckId::Pcr13, Hex([0; 32]), pcrs[13])?;

        let ids = |models: &[Model]| models.iter().map(spelled).collect::<Vec<_>>().join(", ");
        let ok = binding.models.iter().all(|model| self.models.accepts(model));
        checks.require(CheckId::Models, listing(&self.models, spelled), ids(&binding.models), ok)?;
        let ok = self.numeric_profiles.accepts(&binding.numeric_profile);
        let wanted = listing(&self.numeric_profiles, Clone::clone);
        checks.require(CheckId::NumericProfile, wanted, &binding.numeric_profile, ok)?;
        let gpu = binding.gpu_sha256.map_or_else(|| "none".into(), |digest| format!("evidence {digest}"));
        checks.require(CheckId::Gpu, "none", gpu, binding.gpu_sha256.is_none())?;

        let ok = self.ak_endorsement == Demand::Any || ak != AkEndorsement::Nobody;
        let got = match &ak {
            AkEndorsement::Certified { root, .. } => format!("certified by {root}"),
            AkEndorsement::Activated => "activated by ourselves".into(),
            AkEndorsement::Paravisor => "vouched for by the paravisor".into(),
            AkEndorsement::Nobody => "endorsed by nobody".into(),
        };
        checks.require(CheckId::Ak, wording(self.ak_endorsement, "certified or activated"), got, ok)?;
        let ok = self.event_log == Demand::Any || event_log;
        let got = if event_log { "a log" } else { "none" };
        checks.require(CheckId::EventLogPresent, wording(self.event_log, "a log"), got, ok)?;
        let trust = TrustVector::of_tpm(&ak);
        let tier = trust.tier(&binding.profile.name);
        let wanted = format!("at least {}", self.minimum_tier);
        checks.require(CheckId::Tier, wanted, tier, tier >= self.minimum_tier)?;

        Ok(AttestationResult {
            tier,
            trust,
            measurement_id: measurement_id(pcrs[11]),
            image_id: release.image_id.clone(),
            version: release.version.clone(),
            locked_release: release.locked,
            ak_name: hex::encode(ak_name),
            expires_at: binding.not_after,
            binding,
            checks: checks.into_inner(),
        })
    }
}

fn name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Admission => "admission",
        Purpose::Ionet => "ionet",
        Purpose::Preview => "preview",
        Purpose::Session => "session",
    }
}

fn spelled(model: &Model) -> String {
    format!("{} {}", model.id, model.manifest_sha256)
}

fn wording(demand: Demand, required: &str) -> String {
    match demand {
        Demand::Any => "any".into(),
        Demand::Required => required.into(),
    }
}

fn listing<T>(accept: &Accept<T>, spelled: impl Fn(&T) -> String) -> String {
    match accept {
        Accept::Any => "any".into(),
        Accept::Only(values) if values.is_empty() => "none".into(),
        Accept::Only(values) => values.iter().map(spelled).collect::<Vec<_>>().join(", "),
    }
}
