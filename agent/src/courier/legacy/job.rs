//! One job of the existing network, from claim to result or verdict: ciphertext, handles and deadlines.
//!
//! ```text
//! claim ─┬ both halves, sealed ─┬ run (vault) ─┬ leader:   pin → verify inputs → storeKey → result
//!        └ prompt ──────────────┘              └ verifier: the leader's CID → its blob → verdict
//! ```
//!
//! There is no way to hand a job back: a node that fails says so to its operator, and the coordinator finds out after five
//! minutes. So everything that can be known before the claim is judged before the claim.

use std::sync::Arc;
use std::time::Duration;

use blf_evidence::Address;
use blf_evidence::job::Role;
use blf_evidence::profile::Inputs;
use blf_evidence::telemetry::{Event, JobState};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::chain::Chain;
use super::icl::Icl;
use crate::blob::{self, BlobError};
use crate::courier::https::HttpError;
use crate::courier::job::{JobError, QUICK, forget, persist, ran, retry};
use crate::courier::vault::CallError;
use crate::daemon::{Node, raised};
use crate::frames::{FromVault, ToVault};
use crate::legacy::frames::{Ask, Judge, Output, Run, Signed, Told};
use crate::legacy::mock;
use crate::legacy::wire::{Assignment, LeaderOutput};
use crate::telemetry::closed;
use crate::tunnel::Tunnel;

/// How long a claim may take.
const CLAIM: Duration = Duration::from_secs(60);
/// How long a verifier waits for the leader.
const LEADER: Duration = Duration::from_secs(120);
/// Between two looks for the leader's result: doubles up to the second.
const LOOK: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];
/// How long the leader's blob may take to be found.
const LEADER_BLOB: Duration = Duration::from_secs(30);

/// Says why a job is not to be claimed.
pub(crate) fn judge<T: Tunnel>(node: &Node<T>, assignment: &Assignment) -> Result<(), &'static str> {
    let leads = assignment.role == Role::Leader;
    if assignment.model != mock::MODEL && !node.identity.models.iter().any(|model| model.id == assignment.model) {
        return Err("MODEL_UNKNOWN");
    }
    match node.legacy.as_ref().and_then(|network| network.chain.as_ref()).map(Chain::inputs) {
        None => return Err("NO_COFHE"),
        // The key of an answer could not be given to the user.
        Some(Inputs::Tfhe) if leads => return Err("NO_TFHE_INPUTS"),
        Some(_) => {}
    }
    if leads && assignment.user.is_none() {
        return Err("ASSIGNMENT_USER");
    }
    if leads && node.identity.pinning_token.is_empty() {
        return Err("NO_PINNING_TOKEN");
    }
    blob::is_cid(&assignment.prompt_cid).map_err(|_| "ASSIGNMENT_CID")
}

/// Does the job; says how it ended. `stop` forbids claims, `hand_back` ends it early. True if it can be taken again: nobody
/// answered the claim, and a seat that is not claimed is offered for ever.
pub(crate) async fn work<T: Tunnel>(
    node: Arc<Node<T>>,
    assignment: Assignment,
    stop: watch::Receiver<bool>,
    mut hand_back: watch::Receiver<bool>,
) -> bool {
    let job = assignment.job.digest();
    let mut claimed = false;
    let ended = tokio::select! {
        ended = carry_out(&node, &assignment, stop, &mut claimed) => ended,
        () = raised(&mut hand_back) => Err(JobError::Stopping),
    };
    let Err(error) = ended else { return false };
    if let Some(code) = closed(&error.code()) {
        node.telemetry.say(Event::JobFailed { job, code });
    }
    forget(&node, job).await;
    !claimed && !error.is_refusal()
}

async fn carry_out<T: Tunnel>(
    node: &Node<T>,
    assignment: &Assignment,
    mut stop: watch::Receiver<bool>,
    is_claimed: &mut bool,
) -> Result<(), JobError> {
    let Assignment { job: name, role, model, prompt_cid, user, key } = assignment;
    let (start, job, role) = (Instant::now(), name.digest(), *role);
    // Both are there: `judge` saw them.
    let (Some(network), Some(cofhe)) = (&node.legacy, &node.cofhe) else { return Err(JobError::NoCofhe) };
    let chain = network.chain.as_ref().ok_or(JobError::NoCofhe)?;
    let icl = &network.icl;
    let say = |state| {
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        node.telemetry.say(Event::Job { job, state, millis });
    };
    node.telemetry.say(Event::Assigned { job, role });

    let claimed = tokio::select! {
        biased;
        () = raised(&mut stop) => return Err(JobError::Stopping),
        claimed = persist(node, start + CLAIM, || icl.claim(name.clone())) => claimed?,
    };
    *is_claimed = true;
    say(JobState::Claimed);
    let end = start + node.timings.job;
    // The claim's are those that the contract stored; an assignment may still have others.
    let handles = claimed.flatten().or(*key).ok_or(JobError::NoKey)?;

    let boxes = async {
        let boxes = cofhe.boxes(&node.vault, None, handles, end).await?;
        say(JobState::KeyReceived);
        Ok::<_, JobError>(boxes)
    };
    let blob = async {
        let blob = retry(node, end, || node.blobs.fetch(prompt_cid)).await?;
        say(JobState::PromptFetched);
        Ok(blob)
    };
    let (boxes, blob) = tokio::try_join!(boxes, blob)?;

    let user = user.unwrap_or(Address([0; 20]));
    let run = Run { job: name.clone(), role, model: model.clone(), user, boxes, blob: blob.into() };
    say(JobState::Running);
    let left = end.saturating_duration_since(Instant::now());
    let FromVault::Legacy(Told::Ran(output)) = ran(node.vault.call(ToVault::Legacy(Ask::Run(run)), left).await)? else {
        return Err(CallError::Unexpected.into());
    };
    match (role, output) {
        (Role::Leader, Some(Output { cid, blob, verify })) => {
            let lead = async {
                retry(node, end, || node.blobs.pin(&cid, &blob)).await?;
                say(JobState::AnswerStored);
                let verify = Bytes::from(verify);
                let inputs = retry(node, end, || cofhe.verify(verify.clone())).await?;
                chain.store_key(node, end, &assignment.job, user, inputs).await?;
                say(JobState::KeyPublished);
                let signed = signed(node, Ask::Result { job }).await?;
                persist(node, end, || icl.result(&signed)).await
            };
            timeout_at(end, lead).await
        }
        (Role::Verifier, None) => {
            let verify = async {
                let signed = verdict(node, icl, assignment).await?;
                persist(node, end, || icl.verdict(&signed)).await
            };
            timeout_at(end, verify).await
        }
        _ => Ok(Err(CallError::Unexpected.into())),
    }
    .unwrap_or(Err(JobError::Late))?;
    say(JobState::Revealed);
    Ok(())
}

/// Judges what the leader published.
async fn verdict<T: Tunnel>(node: &Node<T>, icl: &Icl<T>, assignment: &Assignment) -> Result<Signed, JobError> {
    let LeaderOutput { cid, commitment } = leader(node, icl, assignment).await?;
    let stored = !is_missing(&retry(node, Instant::now() + LEADER_BLOB, || node.blobs.fetch(&cid)).await);
    signed(node, Ask::Judge(Judge { job: assignment.job.digest(), cid, stored, commitment })).await
}

/// Whether the gateway's answer speaks against the leader: it has no such bytes, or others. One that is away or overloaded
/// speaks of itself, and the network compares texts alone.
fn is_missing(fetched: &Result<Bytes, JobError>) -> bool {
    match fetched {
        Err(JobError::Blob(BlobError::Cid(_) | BlobError::Http(HttpError::BodyTooLong { .. }))) => true,
        Err(JobError::Blob(BlobError::Status { status, .. })) => matches!(status.as_u16(), 404 | 410),
        _ => false,
    }
}

async fn signed<T: Tunnel>(node: &Node<T>, ask: Ask) -> Result<Signed, JobError> {
    match node.vault.call(ToVault::Legacy(ask), QUICK).await? {
        FromVault::Legacy(Told::Signed(signed)) => Ok(signed),
        _ => Err(CallError::Unexpected.into()),
    }
}

/// Waits for the leader's result.
async fn leader<T: Tunnel>(node: &Node<T>, icl: &Icl<T>, assignment: &Assignment) -> Result<LeaderOutput, JobError> {
    let end = Instant::now() + LEADER;
    let [mut pause, longest] = LOOK;
    loop {
        let looked = persist(node, end, || icl.leader_output(&assignment.job)).await?;
        if let Some(output) = looked.flatten() {
            return Ok(output);
        }
        if Instant::now() + pause >= end {
            return Err(JobError::LeaderSilent);
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use blf_bridge::cid;
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn a_gateway_that_is_unwell_says_nothing_about_the_leader() {
        let status = |status| BlobError::Status { status: StatusCode::from_u16(status).unwrap(), retry_after: None };
        let other = cid::check(&cid::of(b"answer"), b"another").unwrap_err();
        for missing in [BlobError::Cid(other), HttpError::BodyTooLong { cap: 1 }.into(), status(404), status(410)] {
            assert!(is_missing(&Err(missing.clone().into())), "{missing}");
        }
        let silent = HttpError::Silent { stage: "reply head", within: LEADER_BLOB };
        let unwell = [301, 403, 429, 500, 503, 504].map(status).into_iter().chain([silent.into()]);
        for error in unwell {
            assert!(!is_missing(&Err(error.clone().into())), "{error}");
        }
        assert!(!is_missing(&Ok(Bytes::new())));
    }
}
