//! One job, from claim to the quorum's decision, as the courier sees it: ciphertext, hashes and deadlines.
//!
//! ```text
//! claim → fetch → run (vault) → commit ─┬ leader:   store answer → all committed?   → reveal ─┬→ accepted? → forget
//!                                       └ verifier:                leader revealed? → reveal ─┘
//! ```
//!
//! Every step is tried again while that can help and its deadline allows. Before the commit a failure hands the job
//! back, so that a spare can take it.

use std::borrow::Cow;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::Hex;
use blf_evidence::icl::{JobStatus, Phase};
use blf_evidence::job::Role;
use blf_evidence::telemetry::{Event, JobState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cofhe::CofheError;
use super::vault::CallError;
use crate::assignment::Assignment;
use crate::backoff::{Backoff, jitter};
use crate::blob::BlobError;
use crate::daemon::{Node, raised};
use crate::frames::{FromVault, ToVault};
use crate::icl::{IclError, Outcome};
use crate::telemetry::closed;
use crate::tunnel::Tunnel;

/// Why a job ended without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[cfg(not(feature = "production"))]
    #[error(transparent)]
    Chain(#[from] super::legacy::chain::ChainError),
    #[error(transparent)]
    Cofhe(#[from] CofheError),
    /// By this node, in this boot; to hand it back now would undo it.
    #[error("job: done before")]
    DoneBefore,
    #[error("job: ended as {0:?}")]
    Ended(Phase),
    #[error(transparent)]
    Icl(#[from] IclError),
    #[error("job: not done in time")]
    Late,
    #[cfg(not(feature = "production"))]
    #[error("job: no result of the leader in time")]
    LeaderSilent,
    /// The context asks for CoFHE, which the measured profile does not know.
    #[error("job: the network profile has no CoFHE")]
    NoCofhe,
    #[cfg(not(feature = "production"))]
    #[error("job: the coordinator gives no handles of a key")]
    NoKey,
    #[error("job: the node stops")]
    Stopping,
    #[error(transparent)]
    Vault(#[from] CallError),
}

/// How far it came, for whoever cleans up.
#[derive(Default)]
struct Progress {
    /// The ICL may count on this node.
    claimed: bool,
    /// The ICL may have the result or verdict.
    revealed: bool,
    /// The vault knows the job.
    run: bool,
}

/// How long the vault may take for what needs no inference.
pub(crate) const QUICK: Duration = Duration::from_secs(30);

/// Does the job; says how it ended. `stop` forbids claims, `hand_back` ends it early.
pub(crate) async fn work<T: Tunnel>(
    node: Arc<Node<T>>,
    assignment: Assignment,
    stop: watch::Receiver<bool>,
    mut hand_back: watch::Receiver<bool>,
) {
    let job = assignment.job();
    let mut progress = Progress::default();
    let ended = tokio::select! {
        ended = carry_out(&node, &assignment, stop, &mut progress) => ended,
        () = raised(&mut hand_back) => Err(JobError::Stopping),
    };
    if let Err(error) = ended {
        let code = error.code();
        if let Some(code) = closed(&code) {
            node.telemetry.say(Event::JobFailed { job, code });
        }
        // After the commit too: nobody then waits for a reveal that will not come.
        if progress.claimed && !progress.revealed && !matches!(error, JobError::Ended(_)) {
            give_back(&node, job, &code).await;
        }
    }
    if progress.run {
        forget(&node, job).await;
    }
}

/// After a panic in [`work`], which may have left the job anywhere.
pub(crate) async fn clean_up<T: Tunnel>(node: Arc<Node<T>>, job: Hex<32>) {
    if node.is_strict() {
        give_back(&node, job, "JOB_PANICKED").await;
    }
    forget(&node, job).await;
}

async fn carry_out<T: Tunnel>(
    node: &Node<T>,
    assignment: &Assignment,
    mut stop: watch::Receiver<bool>,
    progress: &mut Progress,
) -> Result<(), JobError> {
    let Assignment { wire, context } = assignment;
    let (start, job, role) = (Instant::now(), assignment.job(), assignment.role());
    let Node { icl, vault, timings, .. } = node;
    let say = |state| {
        let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        node.telemetry.say(Event::Job { job, state, millis });
    };
    node.telemetry.say(Event::Assigned { job, role });

    if context.cofhe.is_some() && node.cofhe.is_none() {
        return Err(JobError::NoCofhe);
    }
    // A claim whose reply is lost counts with the ICL.
    progress.claimed = true;
    let claim = tokio::select! {
        biased;
        () = raised(&mut stop) => return Err(JobError::Stopping),
        // One attempt at least, however late it is by our clock.
        claim = persist(node, node.at(wire.claim_by).max(start + timings.step), || icl.claim(job)) => claim,
    };
    let claim = claim.and_then(|claim| claim.ok_or(JobError::DoneBefore));
    let claim = claim.inspect_err(|error| progress.claimed = !error.is_refusal())?;
    say(JobState::Claimed);

    let commit_by = node.at(claim.claim_deadline).min(start + timings.job);
    let blob = async {
        let blob = retry(node, commit_by, || node.blobs.fetch(&wire.prompt_cid)).await?;
        say(JobState::PromptFetched);
        Ok(blob)
    };
    let boxes = async {
        let (Some(share), Some(cofhe)) = (&context.cofhe, &node.cofhe) else { return Ok(None) };
        let handles = [share.high.into(), share.low.into()];
        let boxes = cofhe.boxes(vault, Some(claim.share.hpke), handles, commit_by).await?;
        say(JobState::KeyReceived);
        Ok::<_, JobError>(Some(boxes))
    };
    let (blob, boxes) = tokio::try_join!(blob, boxes)?;

    progress.run = true;
    let run = ToVault::Run { context: wire.context.clone(), role, share: claim.share, boxes, blob: blob.into() };
    say(JobState::Running);
    let run = vault.call(run, commit_by.saturating_duration_since(Instant::now())).await;
    let FromVault::Committed { commit, sealed_answer } = ran(run)? else { return Err(CallError::Unexpected.into()) };
    persist(node, commit_by, || icl.commit(job, commit)).await?;
    say(JobState::Committed);

    let end = node.at(context.not_after).min(Instant::now() + timings.reveal);
    match role {
        Role::Leader => {
            let (cid, blob) = sealed_answer.ok_or(CallError::Unexpected)?;
            retry(node, end, || node.blobs.pin(&cid, &blob)).await?;
            say(JobState::AnswerStored);
            reach(node, job, end, |status| !matches!(status.phase, Phase::Queued | Phase::Committing)).await?;
            let FromVault::Leader(result) = vault.call(ToVault::RevealLeader { job }, QUICK).await? else {
                return Err(CallError::Unexpected.into());
            };
            progress.revealed = true;
            persist(node, end, || icl.result(&result)).await?;
        }
        Role::Verifier => {
            let status = reach(node, job, end, |status| status.leader_commitment.is_some()).await?;
            let leader_commitment = status.leader_commitment.ok_or(CallError::Unexpected)?;
            let reveal = ToVault::RevealVerifier { job, leader_commitment };
            let FromVault::Verifier(result) = vault.call(reveal, QUICK).await? else {
                return Err(CallError::Unexpected.into());
            };
            progress.revealed = true;
            persist(node, end, || icl.verify(&result)).await?;
        }
    }
    say(JobState::Revealed);
    reach(node, job, end, |status| status.phase == Phase::Accepted).await?;
    say(JobState::Accepted);
    Ok(())
}

/// What became of a run: a vault that does not answer by the job's deadline is at work, not gone.
pub(crate) fn ran(run: Result<FromVault, CallError>) -> Result<FromVault, JobError> {
    run.map_err(|error| match error {
        CallError::Silent(_) => JobError::Late,
        error => error.into(),
    })
}

/// Asks for the job's status until it is as wanted.
async fn reach<T: Tunnel>(
    node: &Node<T>,
    job: Hex<32>,
    end: Instant,
    wanted: impl Fn(&JobStatus) -> bool,
) -> Result<JobStatus, JobError> {
    loop {
        let status = persist(node, end, || node.icl.status(job)).await?.ok_or(JobError::Late)?;
        if wanted(&status) {
            return Ok(status);
        }
        if matches!(status.phase, Phase::Accepted | Phase::Rejected | Phase::Failed) {
            return Err(JobError::Ended(status.phase));
        }
        let pause = jitter(node.timings.status);
        if Instant::now() + pause >= end {
            return Err(JobError::Late);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks the ICL until it did it, refuses for good, or `end` comes. `None`: it was done before.
pub(crate) async fn persist<T, F, R>(
    node: &Node<T>,
    end: Instant,
    mut ask: impl FnMut() -> F,
) -> Result<Option<R>, JobError>
where
    T: Tunnel,
    F: Future<Output = Result<R, IclError>>,
{
    let attempt = || {
        let asked = ask();
        async move {
            let admitted = node.admitted().await;
            let error = match asked.await {
                Ok(reply) => return Break(Ok(Some(reply))),
                Err(error) => error,
            };
            match error.outcome() {
                Outcome::AlreadyDone => return Break(Ok(None)),
                Outcome::Final => return Break(Err(error.into())),
                Outcome::Forgotten => node.forgotten(admitted),
                Outcome::Later => {}
            }
            Continue((error.retry_after(), error.into()))
        }
    };
    again(node, end, attempt).await
}

/// Asks any other service until it did it, will not, or `end` comes.
pub(crate) async fn retry<T, F, R, E>(node: &Node<T>, end: Instant, mut ask: impl FnMut() -> F) -> Result<R, JobError>
where
    T: Tunnel,
    F: Future<Output = Result<R, E>>,
    JobError: From<E>,
{
    let attempt = || {
        let asked = ask();
        async move {
            match asked.await.map_err(JobError::from) {
                Err(error) if error.is_transient() => Continue((error.retry_after(), error)),
                done => Break(done),
            }
        }
    };
    again(node, end, attempt).await
}

/// Attempts with growing delays until one says how it ended, or `end` comes. The others say why, and when the service wants to
/// be asked again.
async fn again<T, F, R>(node: &Node<T>, end: Instant, mut attempt: impl FnMut() -> F) -> Result<R, JobError>
where
    T: Tunnel,
    F: Future<Output = ControlFlow<Result<R, JobError>, (Option<Duration>, JobError)>>,
{
    let mut backoff = Backoff::new(node.timings.least, node.timings.step);
    let mut last = JobError::Late;
    let attempts = async {
        loop {
            match attempt().await {
                Break(done) => return done,
                Continue((asked, error)) => {
                    last = error;
                    tokio::time::sleep(backoff.failed(asked)).await;
                }
            }
        }
    };
    let done = tokio::time::timeout_at(end, attempts).await;
    done.unwrap_or(Err(last))
}

async fn give_back<T: Tunnel>(node: &Node<T>, job: Hex<32>, code: &str) {
    let end = Instant::now() + node.timings.hand_back;
    let given = persist(node, end, || node.icl.fail(job, code.to_owned())).await;
    if let Err(error) = given {
        node.telemetry.trouble(&error.code(), Duration::ZERO);
    }
}

/// The vault keeps no more of the job than that it was done.
pub(crate) async fn forget<T: Tunnel>(node: &Node<T>, job: Hex<32>) {
    if let Err(error) = node.vault.done(ToVault::Forget { job }, QUICK).await {
        node.telemetry.trouble(error.code(), Duration::ZERO);
    }
}

impl JobError {
    pub(crate) fn code(&self) -> Cow<'_, str> {
        match self {
            Self::Blob(error) => error.code().into(),
            #[cfg(not(feature = "production"))]
            Self::Chain(error) => error.code().into(),
            Self::Cofhe(error) => error.code().into(),
            Self::DoneBefore => "JOB_DONE_BEFORE".into(),
            Self::Ended(Phase::Rejected) => "JOB_REJECTED".into(),
            Self::Ended(_) => "JOB_FAILED".into(),
            Self::Icl(error) => error.code(),
            Self::Late => "JOB_LATE".into(),
            #[cfg(not(feature = "production"))]
            Self::LeaderSilent => "LEADER_SILENT".into(),
            Self::NoCofhe => "NO_COFHE".into(),
            #[cfg(not(feature = "production"))]
            Self::NoKey => "NO_KEY_HANDLES".into(),
            Self::Stopping => "NODE_STOPPING".into(),
            Self::Vault(error) => error.code().into(),
        }
    }

    /// Of a service other than the ICL: nobody judged anything yet, so that another attempt may do.
    fn is_transient(&self) -> bool {
        match self {
            Self::Blob(error) => error.is_transient(),
            #[cfg(not(feature = "production"))]
            Self::Chain(error) => error.is_transient(),
            Self::Cofhe(error) => error.is_transient(),
            _ => false,
        }
    }

    /// When that service wants to be asked again.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Blob(error) => error.retry_after(),
            #[cfg(not(feature = "production"))]
            Self::Chain(error) => error.retry_after(),
            _ => None,
        }
    }

    /// The ICL said no, so that it does not count on this claim.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::DoneBefore => true,
            Self::Icl(error) => error.outcome() == Outcome::Final,
            _ => false,
        }
    }
}
