//! The Attestation Result: what a relying party may now believe, and on whose word.

mod claims;

use blf_evidence::UnixTime;
use blf_evidence::statement::Binding;
use serde::Serialize;

pub use self::claims::{HardwareClaims, PlatformClaims, SnpClaims, SnpTcbs, TdxClaims, TpmClaims};
use crate::authenticate::Claims;
use crate::azure::Hardware;
use crate::check::Check;
use crate::snp::Signer;
use crate::tpm::AkEndorsement;
use crate::x509::RootKind;

/// Evidence was genuine and wanted.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AttestationResult {
    /// 0 to 2, derived from [`Self::trust`] and the profile (architecture decision 3).
    pub tier: u8,
    /// What the tier was derived from.
    pub trust: TrustVector,
    /// What the image measures to.
    pub measurement_id: String,
    /// The release's image.
    pub image_id: String,
    /// The release's version.
    pub version: String,
    /// Whether the image was built from locked inputs.
    pub locked_release: bool,
    /// When this result ends: the first moment at which the same evidence would be refused, by the binding's `not_after`,
    /// the Reference Value's end, the end of a certificate, revocation list or part of the collateral, or their age that
    /// the policy allows.
    pub expires_at: UnixTime,
    /// What the platform says of itself, now believed.
    pub claims: PlatformClaims,
    /// What the node says, now believed: keys, models, profile, nonce, audience, purpose.
    pub binding: Binding,
    /// Every check, in order.
    pub checks: Vec<Check>,
}

/// Five answers that are not mixed into one number before they are looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TrustVector {
    /// Is memory kept from the operator?
    pub memory: Memory,
    /// Who measured the image?
    pub image: ImageIdentity,
    /// Whom must one believe?
    pub tcb: Vec<Party>,
    /// Is a GPU attested?
    pub gpu: Gpu,
    /// Whose roots does it rest on?
    pub roots: Roots,
}

/// Whether the operator can read the guest's memory, as its platform says; [`TrustVector::roots`] says who says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Encrypted and isolated by the processor.
    HardwareIsolated,
    /// In the clear for whoever runs the machine.
    ReadableByOperator,
}

/// By what the image is identified.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageIdentity {
    /// SEV-SNP launch digest, by the processor.
    LaunchDigest,
    /// TPM PCRs, by firmware.
    Pcr,
    /// TDX MRTD and RTMRs, by the processor and firmware.
    Rtmr,
}

/// Somebody who could lie without being noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The processor's maker.
    ChipMaker,
    /// The cloud that runs firmware and vTPM.
    Cloud,
    /// Whoever runs the machine.
    Operator,
    /// The TPM's maker.
    TpmMaker,
}

/// What is known about a GPU.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gpu {
    /// Attested, in confidential mode.
    Attested,
    /// None is claimed.
    None,
}

/// Whose word stands at the end of the chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Roots {
    /// This relying party activated a credential itself, and cannot say who made the TPM.
    Activated,
    /// Development roots, whose keys are public.
    Development,
    /// Nobody's.
    None,
    /// Production roots.
    Production,
}

impl TrustVector {
    /// What the evidence of a platform is worth.
    pub(crate) fn of(platform: &Claims) -> Self {
        match platform {
            // The paravisor is the cloud's, runs inside and holds the AK.
            Claims::Azure(azure) => Self {
                image: ImageIdentity::Pcr,
                ..match &azure.hardware {
                    Hardware::Snp(snp) => Self::isolated(ImageIdentity::LaunchDigest, snp.roots, true),
                    Hardware::Tdx(tdx) => Self::isolated(ImageIdentity::Rtmr, tdx.roots, true),
                }
            },
            // A cloud that has a VLEK may say with it what it likes.
            Claims::Snp(snp) => {
                let cloud = matches!(snp.signer, Signer::Vlek { .. });
                Self::isolated(ImageIdentity::LaunchDigest, snp.roots, cloud)
            }
            Claims::Tdx(tdx) => Self::isolated(ImageIdentity::Rtmr, tdx.roots, false),
            Claims::Tpm(tpm) => Self::of_tpm(&tpm.ak),
        }
    }

    fn isolated(image: ImageIdentity, roots: RootKind, cloud: bool) -> Self {
        let (roots, signer) = match roots {
            RootKind::Production => (Roots::Production, Party::ChipMaker),
            // Everybody has the keys.
            RootKind::Development => (Roots::Development, Party::Operator),
        };
        let tcb = [Some(signer), cloud.then_some(Party::Cloud)].into_iter().flatten().collect();
        Self { memory: Memory::HardwareIsolated, image, tcb, gpu: Gpu::None, roots }
    }

    /// What a TPM's quote is worth. It proves which software was booted, if the TPM is real; it hides nothing.
    fn of_tpm(ak: &AkEndorsement) -> Self {
        let (roots, maker) = match ak {
            AkEndorsement::Certified { kind: RootKind::Production, .. } => (Roots::Production, Some(Party::TpmMaker)),
            AkEndorsement::Certified { kind: RootKind::Development, .. } => (Roots::Development, None),
            AkEndorsement::Activated => (Roots::Activated, None),
            AkEndorsement::Nobody | AkEndorsement::Paravisor => (Roots::None, None),
        };
        let tcb = [Some(Party::Operator), maker].into_iter().flatten().collect();
        Self { memory: Memory::ReadableByOperator, image: ImageIdentity::Pcr, tcb, gpu: Gpu::None, roots }
    }

    /// The tier (architecture decision 3), for evidence of the profile of this name.
    ///
    /// 2: isolated memory, production roots and the production profile. 1: production roots vouch for the software, and
    /// the profile is not for development. 0: everything else; swtpm is here, since only development roots certify it.
    #[must_use]
    pub fn tier(&self, profile: &str) -> u8 {
        match (self.roots, self.memory, profile) {
            (Roots::Production, Memory::HardwareIsolated, "production") => 2,
            (Roots::Production, _, "production" | "insecure") => 1,
            _ => 0,
        }
    }
}

impl AttestationResult {
    /// What the tier means, in one sentence for people.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self.tier {
            2 => {
                "tier 2: the processor keeps the operator out of the memory that holds your prompt, and this image runs in it"
            }
            1 => {
                "tier 1: a genuine chip vouches for this image; whoever owns the machine may have deceived it, and may read its memory"
            }
            _ => "tier 0: development only; the operator, or anybody who imitates one, can read everything",
        }
    }
}
