//! Admission: the ICL's time, an enrolled AK, a challenge answered with evidence, a certificate; and all of it again
//! before the certificate ends, with new keys.

use std::borrow::Cow;
use std::time::Duration;

use blf_evidence::Base64;
use blf_evidence::bundle::Evidence;
use blf_evidence::icl::{Activate, Attest, Enroll};
use blf_evidence::json::JsonError;
use blf_evidence::statement::Purpose;
use blf_evidence::telemetry::Event;
use tokio::time::Instant;

use super::vault::CallError;
use crate::backoff::{Backoff, below};
use crate::daemon::{Admitted, Node};
use crate::frames::{FromVault, ToVault};
use crate::icl::{IclError, Outcome};
use crate::tunnel::Tunnel;

/// How long the vault may take for what needs no device.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
/// How long the vault may take with a TPM that is slow, or a software one beside an emulated guest.
const DEVICE: Duration = Duration::from_secs(180);

/// Why the node is not admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    /// Evidence for somebody else, to be relayed: never.
    #[error("challenge: wanted the ICL's own name as audience")]
    Audience,
    #[error(transparent)]
    Evidence(#[from] JsonError),
    #[error(transparent)]
    Icl(#[from] IclError),
    #[error(transparent)]
    Vault(#[from] CallError),
}

/// What is done once for each boot, and when it was last tried.
#[derive(Default)]
struct State {
    /// The ICL certified the AK, or there is none.
    enrolled: bool,
    attested: Option<Instant>,
    /// It was admitted before.
    admitted: bool,
}

/// Keeps the node admitted, for ever.
pub(crate) async fn keep<T: Tunnel>(node: &Node<T>) {
    let mut state = State::default();
    let mut silent = Backoff::new(node.timings.least, node.timings.most_probe);
    let mut refused = Backoff::new(node.timings.readmit, node.timings.most);
    loop {
        let before = state.attested;
        match admit(node, &mut state).await {
            Ok((tier, admitted, life)) => {
                let not_after = admitted.until;
                let again = std::mem::replace(&mut state.admitted, true);
                node.telemetry.say(if again {
                    Event::Renewed { tier, not_after }
                } else {
                    Event::Certified { tier, not_after }
                });
                silent.succeeded();
                refused.succeeded();
                node.admit(admitted);
                // With less than a quarter of its life left, and not in the same second as everybody else.
                let renew = (life.mul_f64(0.75) + below(life / 16)).max(node.timings.least);
                tokio::select! {
                    () = tokio::time::sleep(renew) => {}
                    () = node.not_admitted() => {
                        // Whoever lost the node has most likely lost its AK as well.
                        state.enrolled = false;
                        // An ICL that lost its state forgets a thousand nodes in the same seconds: they come back spread
                        // over a minute. And at most one attestation a minute, however often it forgets.
                        let readmit = node.timings.readmit;
                        let soonest = state.attested.map_or_else(Instant::now, |attested| attested + readmit);
                        tokio::time::sleep_until(soonest.max(Instant::now() + below(readmit))).await;
                    }
                }
            }
            Err(error) => {
                // Without a certificate this loop is the one that notices when the ICL is back. But evidence is shown
                // at most once a minute, and what was refused will need time, or somebody, to be accepted.
                if error.is_refusal() || state.attested != before {
                    let delay = refused.failed(error.retry_after());
                    node.telemetry.trouble(&error.code(), delay);
                    tokio::time::sleep(delay).await;
                } else {
                    let delay = silent.failed(error.retry_after());
                    node.telemetry.trouble(&error.code(), delay);
                    node.pause(delay).await;
                }
            }
        }
    }
}

/// Seeks admission once. Gives the tier, the certificate, and how long that lasts.
async fn admit<T: Tunnel>(node: &Node<T>, state: &mut State) -> Result<(u8, Admitted, Duration), AdmissionError> {
    #[cfg(not(feature = "production"))]
    if let Some(network) = &node.legacy {
        return super::legacy::admission::admit(node, &network.icl, || state.attested = Some(Instant::now())).await;
    }
    let Node { icl, vault, identity, .. } = node;
    let FromVault::TimeNonce(nonce) = vault.call(ToVault::TimeNonce, QUICK).await? else {
        return Err(CallError::Unexpected.into());
    };
    let time = icl.time(&nonce).await?;
    let now = time.time;
    vault.done(ToVault::SetTime(time), QUICK).await?;
    // The vault verified it. What was connected before is judged again by the new time.
    node.clock.advance(now);
    node.renew();
    if identity.backend == "tpm" && !state.enrolled {
        enroll(node).await?;
        state.enrolled = true;
    }
    let challenge = icl.challenge().await?;
    if challenge.audience != icl.name() {
        return Err(AdmissionError::Audience);
    }
    vault.done(ToVault::Rotate, QUICK).await?;
    let evidence = vault.attest(Purpose::Admission, challenge.audience, challenge.nonce, DEVICE).await?;
    let attest = Attest {
        node_address: identity.node,
        backend_type: identity.backend.clone(),
        challenge_id: challenge.challenge_id,
        evidence: Evidence::parse(evidence.as_bytes())?,
    };
    state.attested = Some(Instant::now());
    let reply = icl.attest(&attest).await.inspect_err(|error| {
        // The ICL may have lost the AK, or may want another.
        state.enrolled &= error.outcome() == Outcome::Later;
    })?;
    let certificate = ToVault::Certificate { certificate: reply.certificate, signature: reply.signature };
    let FromVault::Certified { tier, not_after, now } = vault.call(certificate, QUICK).await? else {
        return Err(CallError::Unexpected.into());
    };
    node.clock.advance(now);
    Ok((tier, Admitted { until: not_after }, Duration::from_secs(not_after.0.saturating_sub(now.0))))
}

/// Has the ICL certify the AK by credential activation (TPM 2.0 Part 1, section 24).
async fn enroll<T: Tunnel>(node: &Node<T>) -> Result<(), AdmissionError> {
    let Node { icl, vault, identity, .. } = node;
    let FromVault::Enrolment { ek_public, ek_certificate, ak_public } = vault.call(ToVault::Enrolment, DEVICE).await?
    else {
        return Err(CallError::Unexpected.into());
    };
    let enroll = Enroll {
        node_address: identity.node,
        ek_public: Base64(ek_public),
        ek_certificate: ek_certificate.map(Base64),
        ak_public: Base64(ak_public),
    };
    let reply = icl.enroll(&enroll).await?;
    let activate =
        ToVault::Activate { credential_blob: reply.credential_blob.0, encrypted_secret: reply.encrypted_secret.0 };
    let FromVault::Activated(secret) = vault.call(activate, DEVICE).await? else {
        return Err(CallError::Unexpected.into());
    };
    let activate = Activate { node_address: identity.node, enrolment_id: reply.enrolment_id, secret };
    let certificate = icl.activate(&activate).await?.ak_certificate;
    Ok(vault.done(ToVault::SetAkCertificate(certificate.0), QUICK).await?)
}

impl AdmissionError {
    fn code(&self) -> Cow<'_, str> {
        match self {
            Self::Audience => "CHALLENGE_AUDIENCE".into(),
            Self::Evidence(_) => "EVIDENCE_MALFORMED".into(),
            Self::Icl(error) => error.code(),
            Self::Vault(error) => error.code().into(),
        }
    }

    /// Somebody said no.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Audience | Self::Evidence(_) => true,
            Self::Icl(error) => error.outcome() != Outcome::Later,
            Self::Vault(error) => matches!(error, CallError::Refused { .. }),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Icl(error) => error.retry_after(),
            _ => None,
        }
    }
}
