//! Is it wanted? From [`Authentic`] to [`AttestationResult`].
//!
//! A policy is a file ([`Policy`], `schema/policy.v1.json`) in which every member is written; what to do about each code
//! stands in the crate's README. Making a member stricter never turns a refusal into an acceptance.

mod registers;
mod snp;
mod tdx;
mod words;

use blf_evidence::json::{self, JsonError};
use blf_evidence::statement::{Binding, Model, Purpose};
use blf_evidence::{Hex, UnixTime};
use serde::{Deserialize, Serialize};

pub use self::snp::{Advisory, Component, Families, GuestPolicy, PlatformInfo, SnpPolicy, TcbFloor};
pub use self::tdx::{Mask, PlatformConfiguration, TdAttributes, TdxPolicy};
pub use self::words::{Accept, Bit, Demand, Limit};
use crate::authenticate::{Authentic, Claims, Node};
use crate::azure::Hardware;
use crate::check::{CheckId, Checks, Rejected};
use crate::references::{Image, Reference, References};
use crate::result::{AttestationResult, PlatformClaims, TrustVector};

/// Longest policy, in bytes.
pub const POLICY_CAP: usize = 64 * 1024;
/// The `schema` member of every policy.
pub const SCHEMA: &str = "blf.policy/v1";

/// Appraisal Policy: what a relying party accepts. Every member is written down; "any" is a value one has to type.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Must somebody believed vouch for the AK?
    pub ak_endorsement: Demand,
    /// Must the binding name a block that dates it?
    pub anchor: Demand,
    /// Age of that block, in blocks before the [`Expectations::head`].
    pub anchor_age_blocks: Limit,
    /// What is wanted of Azure's paravisor.
    pub azure: AzurePolicy,
    /// Must there be an event log of a TPM?
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
    /// Which platforms.
    pub platforms: Accept<PlatformName>,
    /// Which network profiles, by name.
    pub profiles: Accept<String>,
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What is wanted of SEV-SNP, also below Azure's paravisor.
    pub snp: SnpPolicy,
    /// What is wanted of TDX, also below Azure's paravisor.
    pub tdx: TdxPolicy,
}

/// What is wanted of Azure's paravisor.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AzurePolicy {
    /// Launch digests (SEV-SNP) or MRTDs (TDX): what the hardware measured is the paravisor.
    pub paravisors: Accept<Hex<48>>,
}

/// A platform, as evidence names it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformName {
    /// SEV-SNP or TDX below a paravisor.
    Azure,
    /// SEV-SNP.
    Snp,
    /// TDX.
    Tdx,
    /// TPM 2.0.
    Tpm,
}

/// What this relying party asked for, this time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expectations {
    /// The name by which the relying party calls itself.
    pub audience: String,
    /// The newest block that it knows, by which anchors are dated; `None` if it looks at no chain.
    pub head: Option<Head>,
    /// The nonce it chose. Zero is refused: nobody chooses it.
    pub nonce: Hex<32>,
    /// What the evidence is to be used for.
    pub purpose: Purpose,
}

/// The newest block of a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Block number.
    pub block_number: u64,
    /// EIP-155 chain id.
    pub chain_id: u64,
}

impl Policy {
    /// A policy for prompts that must stay secret: tier 2 on SEV-SNP or TDX with current firmware.
    pub const CONFIDENTIAL: &str = include_str!("../policies/confidential.json");
    /// The policy of a development network: one's own machine, development roots, images as they are being built.
    pub const DEVNET: &str = include_str!("../policies/devnet.json");
    /// A policy for released images on machines that a production root certified: tier 1 or 2.
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
        match policy.snp.check_form() {
            Ok(()) => Ok(policy),
            Err(error) => malformed(error),
        }
    }

    /// Compares genuine evidence with what is wanted: this relying party's question, its Reference Values, and this
    /// policy, at the time by which it was authenticated.
    ///
    /// # Errors
    /// [`Rejected`] with the first check that fails.
    pub fn appraise(
        &self,
        authentic: Authentic<Node>,
        references: &References,
        expected: &Expectations,
    ) -> Result<AttestationResult, Box<Rejected>> {
        let Authentic { claims: Node { binding, platform }, now, mut checks } = authentic;
        self.check_answer(&binding, expected, now, &mut checks)?;
        let name = PlatformName::of(&platform);
        let ok = self.platforms.accepts(&name);
        checks.require(CheckId::Platform, self.platforms.listing(PlatformName::spelled), name.spelled(), ok)?;
        let image = Image::of(&platform);
        let reference = self.check_reference(&binding, image, references, now, &mut checks)?;
        let highest_tier = self.check_platform(&platform, reference, now, &mut checks)?;
        self.check_work(&binding, &mut checks)?;
        let trust = TrustVector::of(&platform);
        let tier = trust.tier(&binding.profile.name).min(highest_tier);
        let wanted = format!("at least {}", self.minimum_tier);
        checks.require(CheckId::Tier, wanted, tier, tier >= self.minimum_tier)?;

        Ok(AttestationResult {
            tier,
            trust,
            measurement_id: image.to_string(),
            image_id: reference.name.clone(),
            version: reference.version.clone(),
            locked_release: reference.locked,
            expires_at: self.expiry(&binding, reference, &platform),
            claims: PlatformClaims::of(&platform),
            binding,
            checks: checks.into_inner(),
        })
    }

    /// Does the binding answer this question, now?
    fn check_answer(
        &self,
        binding: &Binding,
        expected: &Expectations,
        now: UnixTime,
        checks: &mut Checks,
    ) -> Result<(), Box<Rejected>> {
        let chosen = expected.nonce != Hex([0; 32]);
        let wanted = if chosen { expected.nonce.to_string() } else { "a nonce that was chosen".into() };
        checks.require(CheckId::Nonce, wanted, binding.nonce, chosen && binding.nonce == expected.nonce)?;
        checks.equal(CheckId::Audience, &expected.audience, &binding.audience)?;
        checks.equal(CheckId::Purpose, purpose(expected.purpose), purpose(binding.purpose))?;
        let UnixTime(not_after) = binding.not_after;
        checks.require(CheckId::NotAfter, format!("after {}", now.0), not_after, now.0 < not_after)?;
        let latest = now.0.saturating_add(self.max_validity_s);
        checks.require(CheckId::Validity, format!("at most {latest}"), not_after, not_after <= latest)?;

        let anchor = binding.anchor.as_ref();
        let block = |chain_id: u64, number: u64| format!("block {number} of chain {chain_id}");
        let got = anchor.map_or_else(|| "none".into(), |anchor| block(anchor.chain_id, anchor.block_number));
        checks.require(CheckId::Anchor, self.anchor.wording("a block"), &got, self.anchor.admits(anchor.is_some()))?;
        // Of another chain, or of a block that is yet to come, no age is known.
        let dated = anchor
            .zip(expected.head)
            .filter(|(anchor, head)| anchor.chain_id == head.chain_id && anchor.block_number <= head.block_number);
        let since = dated.map(|(anchor, _)| anchor.block_number);
        let head =
            expected.head.map_or_else(|| "no block known".into(), |head| block(head.chain_id, head.block_number));
        let wanted = format!("{}, at {head}", self.anchor_age_blocks.wording("blocks"));
        let now = expected.head.map_or(0, |head| head.block_number);
        checks.require(CheckId::AnchorAge, wanted, got, self.anchor_age_blocks.admits(since, now))
    }

    /// Is the image one that is known, and does it count now?
    fn check_reference<'a>(
        &self,
        binding: &Binding,
        image: Image,
        references: &'a References,
        now: UnixTime,
        checks: &mut Checks,
    ) -> Result<&'a Reference, Box<Rejected>> {
        let Some(reference) = references.find(image) else {
            let wanted = format!("one of: {}", references.measurement_ids().join(", "));
            return Err(checks.reject(CheckId::Measurement, wanted, image.measured()));
        };
        let wanted = format!("{} {}", reference.name, reference.version);
        checks.require(CheckId::Measurement, wanted, image.measured(), true)?;
        let retired = reference.retired.as_ref();
        let got = retired.map_or_else(|| "not retired".into(), |reason| format!("retired: {reason}"));
        checks.require(CheckId::ReferenceRetired, "not retired", got, retired.is_none())?;
        let UnixTime(from) = reference.valid_from;
        let until = reference.valid_until.map(|UnixTime(until)| until);
        let wanted = until.map_or_else(|| format!("from {from}"), |until| format!("from {from}, before {until}"));
        let ok = from <= now.0 && until.is_none_or(|until| now.0 < until);
        checks.require(CheckId::ReferenceValidity, wanted, now.0, ok)?;

        let got = if reference.locked { "from locked inputs" } else { "not a released measurement" };
        let wanted = self.locked_release.wording("from locked inputs");
        checks.require(CheckId::ReleaseLocked, wanted, got, self.locked_release.admits(reference.locked))?;
        let name = &reference.profile.name;
        checks.require(CheckId::ReleaseProfile, self.profiles.list(), name, self.profiles.accepts(name))?;
        let profile = |profile: &blf_evidence::statement::Profile| format!("{} {}", profile.name, profile.id);
        checks.equal(CheckId::Profile, profile(&reference.profile), profile(&binding.profile))?;
        Ok(reference)
    }

    /// Is the platform one that will do? Returns the highest tier for which it will.
    fn check_platform(
        &self,
        platform: &Claims,
        reference: &Reference,
        now: UnixTime,
        checks: &mut Checks,
    ) -> Result<u8, Box<Rejected>> {
        const HIGHEST: u8 = 2;
        match platform {
            Claims::Azure(azure) => {
                let paravisor = match &azure.hardware {
                    Hardware::Snp(snp) => snp.report.measurement,
                    Hardware::Tdx(tdx) => tdx.quote.mr_td,
                };
                let ok = self.azure.paravisors.accepts(&paravisor);
                checks.require(CheckId::Paravisor, self.azure.paravisors.list(), paravisor, ok)?;
                let tier = match &azure.hardware {
                    Hardware::Snp(snp) => self.snp.check(snp, self.minimum_tier, now, checks)?,
                    Hardware::Tdx(tdx) => {
                        self.tdx.check(tdx, now, checks)?;
                        HIGHEST
                    }
                };
                self.check_tpm(&azure.tpm, reference, checks)?;
                Ok(tier)
            }
            Claims::Snp(snp) => self.snp.check(snp, self.minimum_tier, now, checks),
            Claims::Tdx(tdx) => {
                self.tdx.check(tdx, now, checks)?;
                self.check_rtmrs(tdx, reference, checks)?;
                Ok(HIGHEST)
            }
            Claims::Tpm(tpm) => {
                self.check_tpm(tpm, reference, checks)?;
                Ok(HIGHEST)
            }
        }
    }

    /// Does the node do the work that is wanted?
    fn check_work(&self, binding: &Binding, checks: &mut Checks) -> Result<(), Box<Rejected>> {
        let spelled = |model: &Model| format!("{} {}", model.id, model.manifest_sha256);
        let held = binding.models.iter().map(spelled).collect::<Vec<_>>().join(", ");
        let ok = binding.models.iter().all(|model| self.models.accepts(model));
        checks.require(CheckId::Models, self.models.listing(spelled), held, ok)?;
        let ok = self.numeric_profiles.accepts(&binding.numeric_profile);
        checks.require(CheckId::NumericProfile, self.numeric_profiles.list(), &binding.numeric_profile, ok)?;
        let gpu = binding.gpu_sha256.map_or_else(|| "none".into(), |digest| format!("evidence {digest}"));
        checks.require(CheckId::Gpu, "none", gpu, binding.gpu_sha256.is_none())
    }

    /// The first moment at which the same evidence would no longer do.
    fn expiry(&self, binding: &Binding, reference: &Reference, platform: &Claims) -> UnixTime {
        let (too_old, invalid) = match platform {
            Claims::Azure(azure) => match &azure.hardware {
                Hardware::Snp(snp) => (self.snp.expiry(snp), Some(snp.valid_until)),
                Hardware::Tdx(tdx) => (self.tdx.expiry(tdx), Some(tdx.valid_until)),
            },
            Claims::Snp(snp) => (self.snp.expiry(snp), Some(snp.valid_until)),
            Claims::Tdx(tdx) => (self.tdx.expiry(tdx), Some(tdx.valid_until)),
            Claims::Tpm(tpm) => (None, tpm.ak.valid_until()),
        };
        [reference.valid_until, too_old, invalid].into_iter().flatten().fold(binding.not_after, UnixTime::min)
    }
}

impl PlatformName {
    fn spelled(&self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn of(platform: &Claims) -> Self {
        match platform {
            Claims::Azure(_) => Self::Azure,
            Claims::Snp(_) => Self::Snp,
            Claims::Tdx(_) => Self::Tdx,
            Claims::Tpm(_) => Self::Tpm,
        }
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Admission => "admission",
        Purpose::Ionet => "ionet",
        Purpose::Preview => "preview",
        Purpose::Session => "session",
    }
}

#[cfg(test)]
mod tests;
