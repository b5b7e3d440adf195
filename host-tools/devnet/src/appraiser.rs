//! Who decides about evidence. The devnet's own is `blf-appraisal`, with a release, a policy and the AK roots it is given.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::{Endorsers, Expectations, Policy, References, Release, Root, RootKind, authenticate};
use blf_evidence::UnixTime;
use blf_evidence::bundle::Evidence;

use crate::Error;
use crate::development::AK_CA;

/// What an appraiser found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Measurement id, e.g. `tpm-pcr11:` and 64 hex digits.
    pub measurement: String,
    /// Tier 0, 1 or 2 (architecture decision 3).
    pub tier: u8,
    /// From when on the same evidence would be refused.
    pub expires_at: UnixTime,
}

/// Why evidence or an enrolment is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Reason {
    /// Stable, in capitals.
    pub code: String,
    /// One line: what was wanted and what came.
    pub detail: String,
}

/// Decides whether evidence is genuine and wanted.
pub trait Appraiser: Send + Sync {
    /// Appraises evidence that was parsed and size-checked.
    ///
    /// # Errors
    /// [`Reason`]: not genuine, or not wanted.
    fn appraise(&self, evidence: &Evidence, expected: &Expectations, now: UnixTime) -> Result<Verdict, Reason>;
}

/// The real one: genuine by these endorsers, wanted by this policy for one of these images.
pub struct Appraisal {
    /// Whose word about AKs is taken.
    pub endorsers: Endorsers,
    /// What is demanded.
    pub policy: Policy,
    /// What a node may have booted.
    pub references: References,
}

impl Appraisal {
    /// For a devnet of nodes of one release: the devnet's policy, and the development AK CA as the only root for AKs.
    ///
    /// # Errors
    /// [`Error::Key`] never for the committed files.
    pub fn development(release: Release) -> Result<Self, Error> {
        let root = Root::from_pem("blf development AK CA", RootKind::Development, AK_CA);
        let root = root.map_err(|_| Error::Key("certificate of the AK CA"))?;
        let policy = Policy::parse(Policy::DEVNET.as_bytes()).map_err(|_| Error::Key("policy of a devnet"))?;
        let endorsers = Endorsers { roots: vec![root], ..Endorsers::default() };
        Ok(Self { endorsers, policy, references: References::from(&release) })
    }
}

impl Appraiser for Appraisal {
    fn appraise(&self, evidence: &Evidence, expected: &Expectations, now: UnixTime) -> Result<Verdict, Reason> {
        let result = authenticate(evidence, &self.endorsers, now, &AwsLc)
            .and_then(|authentic| self.policy.appraise(authentic, &self.references, expected));
        match result {
            Ok(result) => {
                Ok(Verdict { measurement: result.measurement_id, tier: result.tier, expires_at: result.expires_at })
            }
            Err(rejected) => {
                let failed = &rejected.failed;
                let detail = format!("{}: wanted {}, got {}", failed.id, failed.expected, failed.got);
                Err(Reason { code: rejected.code.into(), detail })
            }
        }
    }
}
