//! Messages of the strict ICL: endpoints and member names of the existing network where it has them, with what it
//! lacks: authentication of every request, enrolment, evidence on demand, commit-then-reveal.
//!
//! Every request of a node or a user carries the headers [`HEADER_ADDRESS`], [`HEADER_TIMESTAMP`],
//! [`HEADER_NONCE`] and [`HEADER_SIGNATURE`]; the signed text is [`crate::eip191::request_text`]. Its host is the ICL's
//! DNS name without a port (the `audience` of an admission), its path the request target verbatim, query included.
//!
//! Every document is at most [`BODY_CAP`] long. What an ICL says that is shown to people or put into a path is bounded
//! further: a name is 1 to [`NAME_CAP`] characters of `[A-Za-z0-9._:-]`, a text at most [`TEXT_CAP`] bytes without
//! control characters.
//!
//! | method, path | body | reply |
//! |---|---|---|
//! | GET `/internal/time?nonce=` | – | [`Time`] |
//! | GET `/internal/challenge/{address}` | – | [`Challenge`] |
//! | POST `/internal/enroll` | [`Enroll`] | [`EnrollReply`] |
//! | POST `/internal/enroll/activate` | [`Activate`] | [`ActivateReply`] |
//! | POST `/internal/attestation/verify` | [`Attest`] | [`AttestReply`] |
//! | GET `/internal/assignments/{address}` | – | [`Assignments`] |
//! | POST `/internal/evidence` | [`FreshEvidence`] | [`Done`] |
//! | POST `/internal/task/claim` | [`Claim`] | [`ClaimReply`] |
//! | POST `/internal/task/commit` | [`Commit`] | [`Done`] |
//! | POST `/internal/task/result` | [`LeaderResult`] | [`Done`] |
//! | POST `/internal/task/verify` | [`VerifierResult`] | [`Done`] |
//! | POST `/internal/task/fail` | [`Fail`] | [`Done`] |
//! | GET `/internal/jobs/{job}/status` | – | [`JobStatus`] |
//! | POST `/internal/heartbeat` | [`Heartbeat`] | [`Done`] |
//! | GET `/v1/inference/quorum-preview?model_id=&verifier_count=&spares=` | – | [`QuorumPreview`] |
//! | POST `/v1/nodes/{address}/evidence` | [`AskEvidence`] | [`AskEvidenceReply`] |
//! | GET `/v1/evidence/{request}` | – | [`EvidenceReply`] |
//! | POST `/v1/inference/requests` | [`Submit`] | [`Done`] |
//! | GET `/v1/inference/{job}` | – | [`RequestStatus`] |

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::bundle::Evidence;
use crate::eip191::Signature;
use crate::job::{Answer, JobContext, Role, Share, Verdict};
use crate::statement::{Keys, Model, Purpose};
use crate::{Address, Base64, Hex, UnixTime};

/// Header with the EIP-55 address that signs.
pub const HEADER_ADDRESS: &str = "x-node-address";
/// Header with Unix seconds, decimal.
pub const HEADER_TIMESTAMP: &str = "x-timestamp";
/// Header with 32 hex digits, never used twice within [`CLOCK_SKEW`].
pub const HEADER_NONCE: &str = "x-nonce";
/// Header with the EIP-191 signature.
pub const HEADER_SIGNATURE: &str = "x-signature";
/// Seconds by which a request's time may differ from the ICL's.
pub const CLOCK_SKEW: u64 = 300;
/// Longest request or reply body, in bytes.
pub const BODY_CAP: usize = 1024 * 1024;
/// Longest name that an ICL gives to a challenge, an enrolment or a request, in characters.
pub const NAME_CAP: usize = 128;
/// Longest text that an ICL has for people, in bytes.
pub const TEXT_CAP: usize = 1024;

/// The ICL's time, signed by its account over `blf.time/v1\n{nonce}\n{time}` (architecture decision 14).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// The nonce of the request.
    pub nonce: Hex<32>,
    /// Signature of the ICL's account.
    pub signature: Signature,
    /// Now.
    pub time: UnixTime,
}

/// A nonce to be answered once, within its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Challenge {
    /// Names the challenge.
    #[serde(deserialize_with = "name")]
    pub challenge_id: String,
    /// `nonce` of the binding.
    pub nonce: Hex<32>,
    /// `audience` of the binding.
    #[serde(deserialize_with = "text")]
    pub audience: String,
    /// After this the challenge is void.
    pub expires_at: UnixTime,
}

/// A TPM asks to have its AK certified (credential activation, TPM 2.0 Part 1, section 24).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Enroll {
    /// The node that asks.
    pub node_address: Address,
    /// TPMT_PUBLIC of the EK.
    pub ek_public: Base64,
    /// The EK's certificate (DER) if the TPM carries one.
    pub ek_certificate: Option<Base64>,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Base64,
}

/// A secret that only the TPM with this EK and this AK can open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EnrollReply {
    /// Names the enrolment.
    #[serde(deserialize_with = "name")]
    pub enrolment_id: String,
    /// TPM2B_ID_OBJECT.
    pub credential_blob: Base64,
    /// TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Base64,
}

/// The opened secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Activate {
    /// The node that asks.
    pub node_address: Address,
    /// From [`EnrollReply`].
    pub enrolment_id: String,
    /// What TPM2_ActivateCredential returned.
    pub secret: Hex<32>,
}

/// The AK's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ActivateReply {
    /// X.509, DER.
    pub ak_certificate: Base64,
}

/// Evidence for admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attest {
    /// The node that asks.
    pub node_address: Address,
    /// `tpm`, `sev` or `tdx`.
    pub backend_type: String,
    /// From [`Challenge`].
    pub challenge_id: String,
    /// Purpose `admission`, the challenge's nonce and audience.
    pub evidence: Evidence,
}

/// The ICL's certificate for the keys it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AttestReply {
    /// The certificate, canonical JSON of [`Certificate`], verbatim.
    pub certificate: String,
    /// The ICL's account over `blf.certificate/v1\n{certificate}`.
    pub signature: Signature,
}

/// What the ICL vouches for. Certificates are bound to keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// SHA-256 of the appraised binding.
    pub binding_sha256: Hex<32>,
    /// When it was issued: an authenticated time for the guest's clock.
    pub issued_at: UnixTime,
    /// The keys it vouches for.
    pub keys: Keys,
    /// Measurement id that was appraised.
    pub measurement: String,
    /// When it ends, at most 24 h later.
    pub not_after: UnixTime,
    /// Tier 0, 1 or 2 (architecture decision 3).
    pub tier: u8,
    /// Version of this document, 1.
    pub v: u8,
}

/// What waits for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Assignments {
    /// Jobs to claim.
    pub assignments: Vec<Assignment>,
    /// Users who want fresh evidence.
    pub evidence_requests: Vec<EvidenceRequest>,
}

/// One job for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Assignment {
    /// The job.
    pub job_id: Hex<32>,
    /// The node's part.
    pub role: Role,
    /// The model's id.
    pub model_id: String,
    /// The job context, canonical JSON, verbatim.
    pub context: String,
    /// CID of the sealed prompt.
    pub prompt_cid: String,
    /// Claim before this.
    pub claim_by: UnixTime,
}

/// A user's nonce, relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EvidenceRequest {
    /// Names the request.
    #[serde(deserialize_with = "name")]
    pub request_id: String,
    /// `nonce` of the binding.
    pub nonce: Hex<32>,
    /// `audience` of the binding: the user's address.
    #[serde(deserialize_with = "text")]
    pub audience: String,
    /// `purpose` of the binding.
    pub purpose: Purpose,
}

/// The answer to an [`EvidenceRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FreshEvidence {
    /// The node that answers.
    pub node_address: Address,
    /// From [`EvidenceRequest`].
    pub request_id: String,
    /// The evidence.
    pub evidence: Evidence,
}

/// A node takes a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Claim {
    /// The job.
    pub job_id: Hex<32>,
    /// The node that claims.
    pub node_address: Address,
}

/// The claimed node's key share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClaimReply {
    /// The share sealed to this node.
    pub share: Share,
    /// Commit before this.
    pub claim_deadline: UnixTime,
}

/// First half of commit-then-reveal: SHA-256(`"blf.commit/v1"` ‖ 0x00 ‖ job ‖ node ‖ commitment ‖ salt).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Commit {
    /// The job.
    pub job_id: Hex<32>,
    /// The node that commits.
    pub node_address: Address,
    /// The hash.
    pub commit: Hex<32>,
}

/// The leader reveals. Accepted once all of the quorum committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LeaderResult {
    /// The job.
    pub job_id: Hex<32>,
    /// The node that reveals.
    pub node_address: Address,
    /// The answer, its commitment revealed.
    pub answer: Answer,
    /// Opens the [`Commit`].
    pub salt: Hex<32>,
    /// The response key over [`Answer::signed_text`].
    pub signature: Signature,
}

/// A verifier reveals and judges. Accepted once the leader revealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VerifierResult {
    /// The job.
    pub job_id: Hex<32>,
    /// The node that reveals.
    pub node_address: Address,
    /// Its own commitment.
    pub commitment: Hex<32>,
    /// Opens the [`Commit`].
    pub salt: Hex<32>,
    /// CONFIRM if its commitment equals the leader's, else REJECT.
    pub verdict: Verdict,
    /// The response key over [`Verdict::signed_text`] of the leader's commitment.
    pub signature: Signature,
}

/// A node hands a job back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fail {
    /// The job.
    pub job_id: Hex<32>,
    /// The node that hands back.
    pub node_address: Address,
    /// A code of the agent's error list; never content.
    pub reason: String,
}

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waiting for claims.
    Queued,
    /// Claimed; waiting for every commit.
    Committing,
    /// All committed; the leader may reveal.
    Revealing,
    /// The leader revealed; verifiers may.
    Verifying,
    /// Quorum reached.
    Accepted,
    /// No quorum.
    Rejected,
    /// Nobody could do it in time.
    Failed,
}

/// What a node of the quorum may know of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct JobStatus {
    /// The job.
    pub job_id: Hex<32>,
    /// How far it is.
    pub phase: Phase,
    /// The leader's commitment, null until it revealed.
    pub leader_commitment: Option<Hex<32>>,
    /// Why it was rejected or failed.
    #[serde(deserialize_with = "optional_text")]
    pub reason: Option<String>,
}

/// A node lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Heartbeat {
    /// The node.
    pub node_address: Address,
    /// True for the last one before a stop: no more assignments, please.
    pub stopping: bool,
    /// The node's time.
    pub timestamp: UnixTime,
}

/// Accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Always `ok`.
    pub status: String,
}

/// A refusal, as the existing ICL spells it, with a stable code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Stable, in capitals, e.g. `NONCE_REUSED`.
    #[serde(deserialize_with = "name")]
    pub code: String,
    /// One line: what was wanted and what came.
    #[serde(deserialize_with = "text")]
    pub detail: String,
}

/// Nodes a user may choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumPreview {
    /// Suggested leader.
    pub leader: Candidate,
    /// Suggested verifiers.
    pub verifiers: Vec<Candidate>,
    /// Suggested spares, used only if a member fails before it claims.
    pub spares: Vec<Candidate>,
}

/// A node as the ICL knows it. A claim, not evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The node.
    pub address: Address,
    /// Tier in its certificate.
    pub tier: u8,
    /// Models it holds.
    pub models: Vec<Model>,
}

/// A user wants a node's evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskEvidence {
    /// The user's own nonce, or null if cached evidence will do.
    pub nonce: Option<Hex<32>>,
    /// Oldest cached evidence accepted, in seconds; 0 for fresh.
    pub max_age: u64,
}

/// Where to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskEvidenceReply {
    /// For GET `/v1/evidence/{request}`.
    #[serde(deserialize_with = "name")]
    pub request_id: String,
}

/// The evidence, or null while the node has not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceReply {
    /// The evidence, null while pending.
    pub evidence: Option<Evidence>,
    /// Seconds since it was taken.
    pub age: u64,
}

/// A user submits a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The job context, canonical JSON, verbatim.
    pub context: String,
    /// The leader, the verifiers, the spares; the ICL may reassign only among them.
    pub leader: Address,
    /// The model's id.
    pub model_id: String,
    /// CID of the sealed prompt.
    pub prompt_cid: String,
    /// One share for each node named here.
    pub shares: Vec<Share>,
    /// Nodes that may replace a member before it claims.
    pub spares: Vec<Address>,
    /// Verifiers.
    pub verifiers: Vec<Address>,
}

/// What a user may know of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestStatus {
    /// The job.
    pub job_id: Hex<32>,
    /// How far it is.
    pub phase: Phase,
    /// The leader's answer, null until accepted.
    pub answer: Option<Answer>,
    /// The leader's signature over the answer, null until accepted.
    pub signature: Option<Signature>,
    /// Verdicts so far.
    pub verdicts: Vec<NodeVerdict>,
    /// The quorum as it stands, leader first.
    pub quorum: Vec<Address>,
    /// Why it was rejected or failed.
    #[serde(deserialize_with = "optional_text")]
    pub reason: Option<String>,
}

/// One verifier's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeVerdict {
    /// The verifier.
    pub node: Address,
    /// What it said.
    pub verdict: Verdict,
    /// The verifier's response key over [`Verdict::signed_text`] of the leader's commitment.
    pub signature: Signature,
}

impl Time {
    /// The text that the ICL signs.
    pub fn signed_text(nonce: &Hex<32>, time: UnixTime) -> String {
        format!("blf.time/v1\n{nonce}\n{time}")
    }
}

impl Certificate {
    /// The text that the ICL signs over the verbatim certificate.
    pub fn signed_text(certificate: &str) -> String {
        format!("blf.certificate/v1\n{certificate}")
    }
}

impl Submit {
    /// The parsed context.
    ///
    /// # Errors
    /// As [`JobContext::parse`].
    pub fn context(&self) -> Result<JobContext, crate::json::JsonError> {
        JobContext::parse(self.context.as_bytes())
    }
}

pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    if !(1..=NAME_CAP).contains(&text.len()) || !text.bytes().all(good) {
        return Err(de::Error::custom(format_args!("name: wanted 1 to {NAME_CAP} characters of [A-Za-z0-9._:-]")));
    }
    Ok(text)
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(String::deserialize(deserializer)?)
}

fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(checked).transpose()
}

fn checked<E: de::Error>(text: String) -> Result<String, E> {
    if text.len() > TEXT_CAP || text.chars().any(char::is_control) {
        return Err(E::custom(format_args!("text: wanted at most {TEXT_CAP} bytes without control characters")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn refusal(code: &str, detail: &str) -> Result<Refusal, json::JsonError> {
        let refusal = Refusal { code: code.into(), detail: detail.into() };
        json::parse("refusal", json::canonical("refusal", &refusal).unwrap().as_bytes(), BODY_CAP)
    }

    #[test]
    fn what_people_see_is_bounded() {
        assert!(refusal("NONCE_REUSED", "wanted é").is_ok());
        assert!(refusal(&"A".repeat(NAME_CAP), &"x".repeat(TEXT_CAP)).is_ok());
        for (code, detail) in [
            ("", "x"),
            ("a b", "x"),
            ("../x", "x"),
            ("A", "\u{1b}[2J"),
            ("A", "two\nlines"),
            ("A", "\u{9b}2J"),
            (&"A".repeat(NAME_CAP + 1), "x"),
            ("A", &"x".repeat(TEXT_CAP + 1)),
        ] {
            assert!(refusal(code, detail).is_err(), "{code:?} {detail:?}");
        }
        let status = r#"{"jobId":"JOB","phase":"failed","leaderCommitment":null,"reason":REASON}"#;
        let status = status.replace("JOB", &Hex([1; 32]).to_string());
        let parse =
            |reason: &str| json::parse::<JobStatus>("status", status.replace("REASON", reason).as_bytes(), 4096);
        assert!(parse("null").is_ok() && parse("\"late\"").is_ok());
        assert!(parse("\"\\u001b[2J\"").is_err());
        let ask =
            |id: &str| json::parse::<AskEvidenceReply>("r", format!(r#"{{"request_id":"{id}"}}"#).as_bytes(), 4096);
        assert!(ask("0a1b").is_ok() && ask("../nodes").is_err() && ask("a?b").is_err());
    }
}
