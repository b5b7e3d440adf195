//! The operator's own look at a guest: does it run the image it was started from, with the model it was given?
//!
//! The AK of session evidence is not certified yet, so anybody who can imitate a TPM could make it: tier 0. That is
//! enough here. Whoever relies on the node appraises it again, with a root for the AK.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::{
    Accept, AttestationResult, Check, Demand, Endorsers, Expectations, Policy, References, Rejected, Release,
    authenticate,
};
use blf_evidence::bundle::Evidence;
use blf_evidence::statement::{Model, Purpose};

use crate::error::{Error, Exit};
use crate::launch::{Judge, Judged, Question, Refused};
use crate::notice::Finding;

/// Judges guests by the release they were started from.
pub struct Appraiser {
    references: References,
    policy: Policy,
}

impl Appraiser {
    /// Wants this release and this model, and no other; else what a devnet wants.
    ///
    /// # Errors
    /// [`Exit::Failed`] never for the policy that blf ships.
    pub fn new(release: &Release, model: Model) -> Result<Self, Error> {
        let shipped = Policy::parse(Policy::DEVNET.as_bytes());
        let policy = Policy {
            ak_endorsement: Demand::Any,
            // The guest has no authenticated time yet and dates its evidence without end; our nonce makes it fresh.
            max_validity_s: u64::MAX,
            models: Accept::Only(vec![model]),
            profiles: Accept::Only(vec![release.profile.name.clone()]),
            ..shipped.map_err(|e| Error::new(Exit::Failed, "POLICY", e))?
        };
        Ok(Self { references: References::from(release), policy })
    }

    fn appraise(&self, evidence: &Evidence, question: &Question<'_>) -> Result<AttestationResult, Box<Rejected>> {
        let expected = Expectations {
            audience: question.audience.into(),
            head: None,
            nonce: question.nonce,
            purpose: Purpose::Session,
        };
        let authentic = authenticate(evidence, &Endorsers::default(), question.now, &AwsLc)?;
        self.policy.appraise(authentic, &self.references, &expected)
    }
}

impl Judge for Appraiser {
    fn judge(&self, evidence: &Evidence, question: &Question<'_>) -> Result<Judged, Box<Refused>> {
        match self.appraise(evidence, question) {
            Ok(result) => Ok(Judged {
                address: result.binding.keys.node,
                tier: result.tier,
                measurement: result.measurement_id,
                findings: result.checks.into_iter().map(finding).collect(),
            }),
            Err(rejected) => {
                let error = Error::rejected(rejected.code, &rejected);
                let all = rejected.passed.into_iter().chain([rejected.failed]);
                Err(Box::new(Refused { findings: all.map(finding).collect(), error }))
            }
        }
    }
}

fn finding(Check { id, expected, got, ok }: Check) -> Finding {
    Finding { id: id.to_string(), expected, got, ok }
}
