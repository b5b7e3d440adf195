//! What happens on the devnet, for whoever shows it. Names and counts only; contents never pass here.

use std::fmt;

use blf_evidence::icl::Phase;
use blf_evidence::{Address, Hex, UnixTime};
use serde::Serialize;

/// One thing that happened, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, by the devnet's clock.
    pub time: UnixTime,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The things that happen. In JSON the member `event` names the kind, e.g. `node_admitted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A blob was pinned.
    BlobPinned {
        /// Its CID.
        cid: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A user wants a node's evidence.
    EvidenceAsked {
        /// The node.
        node: Address,
        /// The user.
        user: Address,
    },
    /// A node answered a user's nonce.
    EvidenceGiven {
        /// The node.
        node: Address,
        /// The user.
        user: Address,
    },
    /// The devnet itself failed at something; whoever asked was answered 5xx.
    Fault {
        /// What failed.
        detail: String,
    },
    /// A node lives.
    Heartbeat {
        /// The node.
        node: Address,
        /// True for its last one.
        stopping: bool,
    },
    /// A job moved.
    Job {
        /// The job.
        job: Hex<32>,
        /// Where it is now.
        phase: Phase,
        /// Nodes in its quorum; one means a devnet quorum of one: nobody checks the leader.
        quorum: usize,
        /// Why it was rejected or failed.
        reason: Option<String>,
    },
    /// A node claimed its part in a job.
    JobClaimed {
        /// The job.
        job: Hex<32>,
        /// The node.
        node: Address,
    },
    /// A spare replaced a member.
    JobReassigned {
        /// The job.
        job: Hex<32>,
        /// The member that is out.
        from: Address,
        /// The spare that is in.
        to: Address,
        /// Why.
        reason: String,
    },
    /// A node attested, whatever that means, to a legacy coordinator.
    LegacyAttested {
        /// The node.
        node: Address,
        /// What it calls its platform.
        backend: String,
        /// The tier it was given.
        tier: u8,
        /// End of the certificate.
        not_after: UnixTime,
    },
    /// A node claimed its part in a legacy job.
    LegacyClaimed {
        /// The nodes' id of the job.
        job: String,
        /// The node.
        node: Address,
    },
    /// A legacy job moved.
    LegacyJob {
        /// The nodes' id of the job.
        job: String,
        /// Where it is now.
        status: String,
        /// Why it was rejected.
        reason: Option<String>,
    },
    /// A node claimed a legacy job and did not deliver.
    LegacyNodeFailed {
        /// The nodes' id of the job.
        job: String,
        /// The node.
        node: Address,
    },
    /// Evidence was appraised and a certificate issued.
    NodeAdmitted {
        /// The node.
        node: Address,
        /// Measurement id.
        measurement: String,
        /// Tier 0, 1 or 2.
        tier: u8,
        /// End of the certificate.
        not_after: UnixTime,
    },
    /// A TPM opened its credential and its AK was certified.
    NodeEnrolled {
        /// The node.
        node: Address,
    },
    /// Enrolment or evidence was refused.
    NodeRefused {
        /// The node.
        node: Address,
        /// Code of the refusal.
        code: String,
        /// What was wanted and what came.
        detail: String,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlobPinned { cid, bytes } => write!(f, "blob {cid} pinned, {bytes} bytes"),
            Self::EvidenceAsked { node, user } => write!(f, "node {node}: user {user} wants its evidence"),
            Self::EvidenceGiven { node, user } => write!(f, "node {node}: answered the nonce of user {user}"),
            Self::Fault { detail } => write!(f, "devnet at fault: {detail}"),
            Self::Heartbeat { node, stopping: false } => write!(f, "node {node}: heartbeat"),
            Self::Heartbeat { node, stopping: true } => write!(f, "node {node}: last heartbeat, it stops"),
            Self::Job { job, phase, quorum, reason } => {
                let phase = format!("{phase:?}").to_lowercase();
                match quorum {
                    1 => write!(f, "job {job}: {phase} (devnet quorum of one, nobody checks the leader)")?,
                    _ => write!(f, "job {job}: {phase} (quorum of {quorum})")?,
                }
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            Self::JobClaimed { job, node } => write!(f, "job {job}: claimed by {node}"),
            Self::JobReassigned { job, from, to, reason } => write!(f, "job {job}: {to} replaces {from}: {reason}"),
            Self::LegacyAttested { node, backend, tier, not_after } => {
                write!(f, "node {node}: attested as {backend:?}, not looked at, tier {tier}, until {not_after}")
            }
            Self::LegacyClaimed { job, node } => write!(f, "job {job:?}: claimed by {node}"),
            Self::LegacyJob { job, status, reason } => {
                write!(f, "job {job:?}: {status}")?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
            }
            Self::LegacyNodeFailed { job, node } => write!(f, "job {job:?}: {node} claimed it and is late"),
            Self::NodeAdmitted { node, measurement, tier, not_after } => {
                write!(f, "node {node}: admitted, tier {tier}, {measurement}, until {not_after}")
            }
            Self::NodeEnrolled { node } => write!(f, "node {node}: its TPM's AK is certified (development root)"),
            Self::NodeRefused { node, code, detail } => write!(f, "node {node}: refused, {code}: {detail}"),
        }
    }
}
