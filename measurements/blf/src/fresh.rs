//! Fresh evidence of nodes, asked for at their ICL: each answers a nonce of its own.

use std::time::Duration;

use blf_evidence::bundle::Evidence;
use blf_evidence::icl::{AskEvidence, AskEvidenceReply, EvidenceReply};
use blf_evidence::{Address, Hex};
use tokio::time::{Instant, sleep};

use crate::failure::{Exit, Failure};
use crate::icl::{POLL, User, poll};

/// Evidence is fresh within one poll interval of a node; this allows for several.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node that was asked.
pub(crate) struct Asked {
    /// The node.
    pub(crate) node: Address,
    /// The nonce it must answer.
    pub(crate) nonce: Hex<32>,
    request: String,
}

/// Has the ICL ask `node` for evidence on `nonce`, made for the user.
///
/// # Errors
/// [`Failure`], with the ICL's own code where it refuses.
pub(crate) async fn ask(user: &User<'_>, node: Address, nonce: Hex<32>) -> Result<Asked, Failure> {
    let path = format!("/v1/nodes/{node}/evidence");
    let reply: AskEvidenceReply = user.post(&path, &AskEvidence { nonce: Some(nonce), max_age: 0 }).await?;
    Ok(Asked { node, nonce, request: reply.request_id })
}

/// Hands what each node answers to `take`, as it comes.
///
/// # Errors
/// [`Exit::NoVerdict`] naming the nodes that did not answer in time; what `take` fails with.
pub(crate) async fn collect(
    user: &User<'_>,
    mut asked: Vec<Asked>,
    mut take: impl FnMut(&Asked, Evidence) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + DEADLINE;
    while !asked.is_empty() {
        if Instant::now() > deadline {
            let missing: Vec<String> = asked.iter().map(|asked| asked.node.to_string()).collect();
            let message = format!("evidence: wanted within {DEADLINE:?}, none from {}", missing.join(", "));
            return Err(Failure::new(Exit::NoVerdict, "NO_EVIDENCE", message)
                .hint("ask again: the ICL will propose nodes that are alive"));
        }
        let mut still = Vec::new();
        for asked in asked {
            let path = format!("/v1/evidence/{}", asked.request);
            let reply: EvidenceReply = poll(deadline, async || user.get(&path).await).await?;
            match reply.evidence {
                Some(evidence) => take(&asked, evidence)?,
                None => still.push(asked),
            }
        }
        asked = still;
        if !asked.is_empty() {
            sleep(POLL).await;
        }
    }
    Ok(())
}
