//! Every check by name, and what is handed out when one fails.

use std::fmt::{self, Display};

use blf_evidence::json::excerpt;
use serde::{Serialize, Serializer};

/// The checks, in the order in which they are made. The first that fails ends the appraisal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckId {
    /// The binding is RFC 8785 canonical JSON with exactly the known members.
    Binding,
    /// The evidence is one whole `blf.evidence/v1` document.
    Document,
    /// The AK is a key of known form.
    AkPublic,
    /// The AK is restricted to sign what the TPM made, cannot leave it, and cannot decrypt.
    AkAttributes,
    /// The quote is a quote.
    Quote,
    /// The quote's `extraData` is SHA-256(statement).
    Statement,
    /// The AK signed the quote.
    QuoteSignature,
    /// The quote covers all 24 PCRs of the SHA-256 bank.
    PcrSelection,
    /// The listed PCRs are those quoted.
    PcrDigest,
    /// Firmware measured a boot at all: PCR 0 to 7 are not zero.
    MeasuredBoot,
    /// The binding names every key that a user will seal to.
    Keys,
    /// The public configuration has the digest that the binding commits to.
    Config,
    /// The event log is a TCG event log.
    EventLog,
    /// The event log's replay gives the quoted PCRs.
    EventLogReplay,
    /// The event log shows a whole boot: one separator in each of PCR 0 to 7, and the hand-over to the system.
    EventLogSequence,
    /// The AK certificate is an X.509 certificate.
    AkCertificate,
    /// A given root issued the AK certificate, by name.
    AkCertificateIssuer,
    /// That root signed the AK certificate.
    AkCertificateSignature,
    /// The AK certificate and its root are valid now.
    AkCertificateValidity,
    /// The root may issue, the AK certificate may not, and neither demands what we do not know.
    AkCertificateUsage,
    /// The AK certificate is for this AK.
    AkCertificateKey,
    /// The nonce is the one we chose.
    Nonce,
    /// The evidence was made for us.
    Audience,
    /// The evidence was made for this purpose.
    Purpose,
    /// The binding has not expired.
    NotAfter,
    /// The binding does not claim to last longer than the policy allows.
    Validity,
    /// The binding names a block that dates it, where the policy wants one.
    Anchor,
    /// The release was built from exactly the locked inputs, where the policy wants that.
    ReleaseLocked,
    /// The release's profile is one that the policy accepts.
    ReleaseProfile,
    /// The binding names the profile of the release.
    Profile,
    /// PCR 4: firmware started this image.
    Pcr4,
    /// PCR 9: the kernel got this command line and this initrd.
    Pcr9,
    /// PCR 11: the image consists of these sections.
    Pcr11,
    /// PCR 12 is zero: nobody overrode the command line or handed in credentials.
    Pcr12,
    /// PCR 13 is zero: nobody handed in system extensions.
    Pcr13,
    /// The models are among those the policy accepts.
    Models,
    /// The numeric profile is among those the policy accepts.
    NumericProfile,
    /// No GPU is claimed: this release cannot check one.
    Gpu,
    /// Somebody whom we believe vouches for the AK, where the policy wants that.
    Ak,
    /// There is an event log, where the policy wants one.
    EventLogPresent,
    /// The tier is at least what the policy wants.
    Tier,
}

impl CheckId {
    /// Every check, in order.
    pub const ALL: [Self; 41] = [
        Self::Binding,
        Self::Document,
        Self::AkPublic,
        Self::AkAttributes,
        Self::Quote,
        Self::Statement,
        Self::QuoteSignature,
        Self::PcrSelection,
        Self::PcrDigest,
        Self::MeasuredBoot,
        Self::Keys,
        Self::Config,
        Self::EventLog,
        Self::EventLogReplay,
        Self::EventLogSequence,
        Self::AkCertificate,
        Self::AkCertificateIssuer,
        Self::AkCertificateSignature,
        Self::AkCertificateValidity,
        Self::AkCertificateUsage,
        Self::AkCertificateKey,
        Self::Nonce,
        Self::Audience,
        Self::Purpose,
        Self::NotAfter,
        Self::Validity,
        Self::Anchor,
        Self::ReleaseLocked,
        Self::ReleaseProfile,
        Self::Profile,
        Self::Pcr4,
        Self::Pcr9,
        Self::Pcr11,
        Self::Pcr12,
        Self::Pcr13,
        Self::Models,
        Self::NumericProfile,
        Self::Gpu,
        Self::Ak,
        Self::EventLogPresent,
        Self::Tier,
    ];

    /// The check's name in results and the code of its failure. Both are stable.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Binding => ("binding", "BINDING_MALFORMED"),
            Self::Document => ("document", "EVIDENCE_MALFORMED"),
            Self::AkPublic => ("ak", "AK_MALFORMED"),
            Self::AkAttributes => ("ak.attributes", "AK_ATTRIBUTES"),
            Self::Quote => ("quote", "QUOTE_MALFORMED"),
            Self::Statement => ("quote.statement", "STATEMENT_MISMATCH"),
            Self::QuoteSignature => ("quote.signature", "QUOTE_SIGNATURE"),
            Self::PcrSelection => ("quote.pcr_select", "PCR_SELECTION"),
            Self::PcrDigest => ("quote.pcr_digest", "PCR_DIGEST_MISMATCH"),
            Self::MeasuredBoot => ("pcr.measured", "NOTHING_MEASURED"),
            Self::Keys => ("keys", "KEY_MISSING"),
            Self::Config => ("config", "CONFIG_MISMATCH"),
            Self::EventLog => ("event_log", "EVENT_LOG_MALFORMED"),
            Self::EventLogReplay => ("event_log.replay", "EVENT_LOG_MISMATCH"),
            Self::EventLogSequence => ("event_log.sequence", "EVENT_LOG_INCOMPLETE"),
            Self::AkCertificate => ("ak.certificate", "AK_CERTIFICATE_MALFORMED"),
            Self::AkCertificateIssuer => ("ak.certificate.issuer", "AK_CERTIFICATE_ROOT"),
            Self::AkCertificateSignature => ("ak.certificate.signature", "AK_CERTIFICATE_SIGNATURE"),
            Self::AkCertificateValidity => ("ak.certificate.validity", "AK_CERTIFICATE_EXPIRED"),
            Self::AkCertificateUsage => ("ak.certificate.usage", "AK_CERTIFICATE_USAGE"),
            Self::AkCertificateKey => ("ak.certificate.key", "AK_CERTIFICATE_KEY"),
            Self::Nonce => ("nonce", "NONCE_MISMATCH"),
            Self::Audience => ("audience", "AUDIENCE_MISMATCH"),
            Self::Purpose => ("purpose", "PURPOSE_MISMATCH"),
            Self::NotAfter => ("not_after", "EXPIRED"),
            Self::Validity => ("validity", "VALIDITY_TOO_LONG"),
            Self::Anchor => ("anchor", "ANCHOR_MISSING"),
            Self::ReleaseLocked => ("release.locked", "RELEASE_NOT_LOCKED"),
            Self::ReleaseProfile => ("release.profile", "PROFILE_REFUSED"),
            Self::Profile => ("profile", "PROFILE_MISMATCH"),
            Self::Pcr4 => ("pcr.4", "PCR4_MISMATCH"),
            Self::Pcr9 => ("pcr.9", "PCR9_MISMATCH"),
            Self::Pcr11 => ("pcr.11", "PCR11_MISMATCH"),
            Self::Pcr12 => ("pcr.12", "PCR12_MISMATCH"),
            Self::Pcr13 => ("pcr.13", "PCR13_MISMATCH"),
            Self::Models => ("models", "MODEL_REFUSED"),
            Self::NumericProfile => ("numeric_profile", "NUMERIC_PROFILE_REFUSED"),
            Self::Gpu => ("gpu", "GPU_UNSUPPORTED"),
            Self::Ak => ("ak.endorsed", "AK_NOT_ENDORSED"),
            Self::EventLogPresent => ("event_log.present", "EVENT_LOG_MISSING"),
            Self::Tier => ("tier", "TIER_TOO_LOW"),
        }
    }

    /// Which question the check belongs to.
    #[must_use]
    pub fn stage(self) -> Stage {
        if (self as u8) < Self::Nonce as u8 { Stage::Genuine } else { Stage::Wanted }
    }
}

impl Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names().0)
    }
}

impl Serialize for CheckId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.names().0)
    }
}

/// The two questions, in their order (architecture decision 17).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Did a platform make this evidence, as it says?
    Genuine,
    /// Is it what this relying party asked for?
    Wanted,
}

impl Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Genuine => "genuine",
            Self::Wanted => "wanted",
        })
    }
}

/// One comparison, as text for people and for `--json`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// What was compared.
    pub id: CheckId,
    /// What was wanted.
    pub expected: String,
    /// What was there.
    pub got: String,
    /// Whether it will do.
    pub ok: bool,
}

/// The verdict that evidence is refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{code}: {}: wanted {}, got {}", failed.id, failed.expected, failed.got)]
pub struct Rejected {
    /// The question that was answered with no.
    pub stage: Stage,
    /// A stable word for the failure, e.g. `NONCE_MISMATCH`.
    pub code: &'static str,
    /// The check that failed.
    pub failed: Check,
    /// The checks passed before it.
    pub passed: Vec<Check>,
}

/// Why there is no attestation result.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppraisalError {
    /// Refused.
    #[error(transparent)]
    Rejected(Box<Rejected>),
    /// No verdict: the evidence is of a platform that this release cannot appraise.
    #[error("platform: wanted tpm, got {0}, which is not supported by this release")]
    Unsupported(&'static str),
}

/// The checks passed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Records a check, or ends the appraisal with it.
    pub(crate) fn require(
        &mut self,
        id: CheckId,
        expected: impl Display,
        got: impl Display,
        ok: bool,
    ) -> Result<(), AppraisalError> {
        if !ok {
            return Err(self.reject(id, expected, got));
        }
        self.0.push(check(id, expected, got, ok));
        Ok(())
    }

    /// Ends the appraisal with a check that failed.
    pub(crate) fn reject(&mut self, id: CheckId, expected: impl Display, got: impl Display) -> AppraisalError {
        let failed = check(id, expected, got, false);
        let passed = std::mem::take(&mut self.0);
        AppraisalError::Rejected(Box::new(Rejected { stage: id.stage(), code: id.names().1, failed, passed }))
    }

    /// Records that both are equal, or ends the appraisal.
    pub(crate) fn equal<T: Display + PartialEq>(
        &mut self,
        id: CheckId,
        expected: T,
        got: T,
    ) -> Result<(), AppraisalError> {
        let ok = expected == got;
        self.require(id, expected, got, ok)
    }

    /// Takes the value of a parser, recording that it parsed, or ends the appraisal with its complaint.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        id: CheckId,
        expected: &str,
        result: Result<T, E>,
    ) -> Result<T, AppraisalError> {
        match result {
            Ok(value) => {
                self.require(id, expected, expected, true)?;
                Ok(value)
            }
            Err(error) => Err(self.reject(id, expected, error)),
        }
    }

    pub(crate) fn into_inner(self) -> Vec<Check> {
        self.0
    }
}

/// A check as text that can be shown: what was there is foreign, what was expected may be as well.
fn check(id: CheckId, expected: impl Display, got: impl Display, ok: bool) -> Check {
    Check { id, expected: excerpt(&expected.to_string()), got: excerpt(&got.to_string()), ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README lists every check, in order, with the words that results and refusals use.
    #[test]
    fn readme_names_every_check() {
        let readme = include_str!("../README.md");
        let listed = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
        let listed: Vec<_> = listed.map(|(id, rest)| (id, rest.split('`').next().unwrap_or_default())).collect();
        assert_eq!(listed, CheckId::ALL.map(CheckId::names));
        assert!(CheckId::ALL.windows(2).all(|pair| (pair[0] as u8) + 1 == pair[1] as u8), "ALL is in order");
        assert_eq!((CheckId::EventLogSequence.stage(), CheckId::Nonce.stage()), (Stage::Genuine, Stage::Wanted));
    }
}
