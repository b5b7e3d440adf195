//! What today's coordinator and its nodes send each other, the node's half.
//!
//! Replies are read leniently, because versions differ in what they add: unknown members are ignored and an assignment that
//! cannot be read leaves the others alone. Sizes, depth and alphabets are bounded all the same. A body is written member by
//! member in the order of the published node; its bytes are what is signed.

use std::fmt;

use blf_bridge::cofhe::{EncryptedInput, Handle, output_key_job_id};
use blf_evidence::icl::{BODY_CAP, NAME_CAP, TEXT_CAP};
use blf_evidence::job::{Role, Verdict};
use blf_evidence::json::{self, JsonError, excerpt};
use blf_evidence::{Address, Hex, UnixTime};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Most assignments that one reply may carry; the rest is shown again.
pub const ASSIGNMENTS_CAP: usize = 64;
/// Longest nonce of a challenge, in bytes; 32 come.
const NONCE_CAP: usize = 64;

/// A job as this network names it: opaque text, 1 to [`NAME_CAP`] characters of `[A-Za-z0-9._:-]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// What a challenge asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenge {
    /// Names it.
    pub id: String,
    /// What the quote covers.
    pub nonce: Vec<u8>,
    /// When the coordinator made it: [`LIFETIME`] before it ends. Its only word about the time.
    pub made_at: UnixTime,
}

/// Seconds between a challenge and its end.
pub const LIFETIME: u64 = 300;

/// What an attestation gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Attested {
    /// When the node must attest again.
    pub expiry: UnixTime,
    /// What the coordinator calls the node; self-declared, and 0 for this one.
    #[serde(default)]
    pub tier: u8,
}

/// A job for this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The node's part.
    pub role: Role,
    /// The model's id.
    pub model: String,
    /// CID of the sealed prompt.
    pub prompt_cid: String,
    /// Who may open the answer; none if it is missing, zero or no address.
    pub user: Option<Address>,
    /// Handles of the prompt key, high first; none if they are missing or zero.
    pub key: Option<[Handle; 2]>,
}

/// A reply to the poll.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assignments {
    /// Those that can be read.
    pub good: Vec<Assignment>,
    /// How many could not.
    pub malformed: usize,
}

/// What a job's status says of its leader's result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderOutput {
    /// CID of the sealed answer, as the leader wrote it.
    pub cid: String,
    /// The leader's commitment, as it wrote it.
    pub commitment: String,
}

/// POST `/internal/attestation/verify`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttestBody {
    /// The node.
    pub node_address: Address,
    /// `mock`.
    pub backend_type: &'static str,
    /// HMAC over the nonce.
    pub quote: Hex<32>,
    /// What the published nodes say.
    pub runtime_hash: Hex<32>,
    /// From [`Challenge`].
    pub challenge_id: String,
    /// The models of this node.
    pub supported_model_ids: Vec<String>,
}

/// POST `/internal/task/claim`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimBody {
    /// The job.
    pub job_id: JobId,
    /// The node.
    pub node_address: Address,
}

/// POST `/internal/heartbeat`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatBody {
    /// The node.
    pub node_address: Address,
    /// Unix seconds, as text.
    #[serde(serialize_with = "as_text")]
    pub timestamp: UnixTime,
}

/// POST `/internal/task/result`.
#[derive(Serialize)]
pub struct ResultBody {
    /// The job.
    #[serde(rename = "jobId")]
    pub job_id: JobId,
    /// CID of the sealed answer.
    pub output_cid: String,
    /// Bare hex: the coordinator compares texts.
    pub commitment_hash: Hex<32>,
    /// `ctHash` of the high half, decimal text.
    pub encrypted_output_key_high: Handle,
    /// `ctHash` of the low half.
    pub encrypted_output_key_low: Handle,
    /// Both in full.
    pub encrypted_output_key_inputs: Inputs,
    /// Hash of the transaction that stored them, `0x` and 64 digits.
    pub output_key_store_tx: String,
    /// Under which job id they are stored, `0x` and 64 digits.
    pub output_key_store_job_id: String,
}

/// The encrypted halves of an output key.
#[derive(Serialize)]
pub struct Inputs {
    /// The first 16 bytes.
    pub high: EncryptedInput,
    /// The last 16 bytes.
    pub low: EncryptedInput,
}

/// POST `/internal/task/verify`.
#[derive(Serialize)]
pub struct VerdictBody {
    /// The job.
    #[serde(rename = "jobId")]
    pub job_id: JobId,
    /// The node.
    pub verifier_address: Address,
    /// Equal to the leader's only with CONFIRM.
    pub commitment_hash: Hex<32>,
    /// CONFIRM or REJECT.
    pub verdict: Verdict,
    /// Of 100.
    pub confidence: u8,
}

impl ResultBody {
    /// The result of `job`, whose output key is stored as `inputs` by `transaction`.
    pub fn new(
        job: JobId,
        output_cid: String,
        commitment: Hex<32>,
        inputs: [EncryptedInput; 2],
        transaction: Hex<32>,
    ) -> Self {
        let [high, low] = inputs;
        Self {
            output_cid,
            commitment_hash: commitment,
            encrypted_output_key_high: high.ct_hash,
            encrypted_output_key_low: low.ct_hash,
            encrypted_output_key_inputs: Inputs { high, low },
            output_key_store_tx: format!("0x{transaction}"),
            output_key_store_job_id: format!("0x{}", output_key_job_id(job.as_str())),
            job_id: job,
        }
    }
}

impl JobId {
    /// What names the job elsewhere, in telemetry and among the jobs that were done: the 32 bytes that the text spells
    /// with or without 0x, else SHA-256 of the text.
    pub fn digest(&self) -> Hex<32> {
        let digits = self.0.strip_prefix("0x").unwrap_or(&self.0);
        digits.parse().unwrap_or_else(|_| Hex(Sha256::digest(&self.0).into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if plain(&text) {
            Ok(Self(text))
        } else {
            Err(format!("job id: wanted 1 to {NAME_CAP} characters of A-Z a-z 0-9 . _ : -, got {}", excerpt(&text)))
        }
    }
}

impl From<JobId> for String {
    fn from(job: JobId) -> Self {
        job.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Challenge {
    /// Reads the reply to GET `/internal/challenge/{address}`.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            challenge_id: String,
            nonce: String,
            expires_at: u64,
        }
        const WHAT: &str = "challenge";
        let malformed = |error: String| JsonError::Malformed { what: WHAT, error };
        let reply: Reply = json::parse(WHAT, bytes, BODY_CAP)?;
        if !plain(&reply.challenge_id) {
            return Err(malformed(format!("challengeId: wanted a plain name, got {}", excerpt(&reply.challenge_id))));
        }
        let digits = reply.nonce.strip_prefix("0x").unwrap_or(&reply.nonce);
        let nonce = (digits.len() <= 2 * NONCE_CAP).then(|| hex::decode(digits).ok()).flatten();
        let nonce = nonce.ok_or_else(|| {
            malformed(format!("nonce: wanted hex of at most {NONCE_CAP} bytes, got {}", excerpt(&reply.nonce)))
        })?;
        let made_at = reply.expires_at.checked_sub(LIFETIME).filter(|time| *time < 1 << 53);
        let made_at =
            made_at.ok_or_else(|| malformed(format!("expiresAt: wanted Unix seconds, got {}", reply.expires_at)))?;
        Ok(Self { id: reply.challenge_id, nonce, made_at: UnixTime(made_at) })
    }
}

impl Attested {
    /// Reads the reply to POST `/internal/attestation/verify`.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        json::parse("attestation reply", bytes, BODY_CAP)
    }
}

impl Assignments {
    /// Reads the reply to GET `/internal/assignments/{address}`.
    ///
    /// # Errors
    /// [`JsonError`], for a reply that holds no list at all.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        #[derive(Deserialize)]
        struct Reply {
            assignments: Vec<Box<RawValue>>,
        }
        let reply: Reply = json::parse("assignments", bytes, BODY_CAP)?;
        let mut assignments = Self::default();
        for raw in reply.assignments.into_iter().take(ASSIGNMENTS_CAP) {
            match Assignment::parse(raw.get().as_bytes()) {
                Ok(assignment) => assignments.good.push(assignment),
                Err(_) => assignments.malformed += 1,
            }
        }
        Ok(assignments)
    }
}

impl Assignment {
    fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry {
            job_id: JobId,
            role: Role,
            model_id: String,
            prompt_cid: String,
            user_address: Option<String>,
            kp_high_handle: Option<Handle>,
            kp_low_handle: Option<Handle>,
        }
        let entry: Entry = json::parse("assignment", bytes, BODY_CAP)?;
        let text = [("modelId", &entry.model_id), ("promptCid", &entry.prompt_cid)];
        if let Some((member, got)) = text.into_iter().find(|(_, text)| text.len() > TEXT_CAP) {
            let error = format!("{member}: wanted at most {TEXT_CAP} bytes, got {}", got.len());
            return Err(JsonError::Malformed { what: "assignment", error });
        }
        let user = entry.user_address.and_then(|text| text.parse().ok());
        Ok(Self {
            job: entry.job_id,
            role: entry.role,
            model: entry.model_id,
            prompt_cid: entry.prompt_cid,
            user: user.filter(|user| *user != Address([0; 20])),
            key: handles(entry.kp_high_handle, entry.kp_low_handle),
        })
    }
}

/// Reads the reply to POST `/internal/task/claim`: the handles of the prompt key, if there are any.
///
/// # Errors
/// [`JsonError`].
pub fn claimed(bytes: &[u8]) -> Result<Option<[Handle; 2]>, JsonError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Reply {
        kp_high_handle: Option<Handle>,
        kp_low_handle: Option<Handle>,
    }
    let reply: Reply = json::parse("claim reply", bytes, BODY_CAP)?;
    Ok(handles(reply.kp_high_handle, reply.kp_low_handle))
}

impl LeaderOutput {
    /// Reads the reply to GET `/internal/jobs/{job}/status`: none while the leader has no result.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, JsonError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            output_cid: Option<String>,
            leader_commitment: Option<String>,
        }
        let reply: Reply = json::parse("job status", bytes, BODY_CAP)?;
        // The coordinator writes "None" for a result that named no CID.
        let given = |text: Option<String>| text.filter(|text| !matches!(text.as_str(), "" | "None"));
        let (Some(cid), Some(commitment)) = (given(reply.output_cid), given(reply.leader_commitment)) else {
            return Ok(None);
        };
        match cid.len().max(commitment.len()) {
            got if got > TEXT_CAP => Err(JsonError::TooLong { what: "job status", cap: TEXT_CAP, got }),
            _ => Ok(Some(Self { cid, commitment })),
        }
    }
}

/// Reads a reply of which only the status counts.
///
/// # Errors
/// [`JsonError`].
pub fn done(bytes: &[u8]) -> Result<(), JsonError> {
    #[derive(Deserialize)]
    struct Reply {}
    json::parse::<Reply>("reply", bytes, BODY_CAP).map(|Reply {}| ())
}

/// Zero means that there is no key, and half a key is none.
fn handles(high: Option<Handle>, low: Option<Handle>) -> Option<[Handle; 2]> {
    let handles = [high?, low?];
    (!handles.iter().any(Handle::is_zero)).then_some(handles)
}

fn plain(name: &str) -> bool {
    (1..=NAME_CAP).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

fn as_text<S: Serializer>(time: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0xabababababababababababababababababababababababababababababababab";
    const HUGE: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

    fn job(text: &str) -> Result<JobId, String> {
        JobId::try_from(text.to_owned())
    }

    #[test]
    fn a_job_is_plain_text_and_has_one_digest() {
        let ab = Hex([0xab; 32]);
        assert_eq!(job(JOB).unwrap().digest(), ab);
        assert_eq!(job(&JOB[2..]).unwrap().digest(), ab);
        assert_eq!(job(JOB).unwrap().to_string(), JOB);
        let uuid = job("11111111-2222-3333-4444-555555555555").unwrap();
        assert_eq!(uuid.digest(), Hex(Sha256::digest(uuid.as_str()).into()));
        for bad in ["", "a/b", "a b", "a?b", "é", &"a".repeat(NAME_CAP + 1)] {
            assert!(job(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_challenge_says_the_time() {
        let good = format!(
            r#"{{"challengeId":"11111111-2222-3333-4444-555555555555","nonce":"0x{}","expiresAt":1795158273,"x":1}}"#,
            "00ff".repeat(16)
        );
        let challenge = Challenge::parse(good.as_bytes()).unwrap();
        assert_eq!(challenge.made_at, UnixTime(1_795_157_973));
        assert_eq!(challenge.nonce, [0, 0xff].repeat(16));
        assert_eq!(Challenge::parse(good.replace("0x", "").as_bytes()), Ok(challenge));
        for (what, bad) in [
            ("too early", good.replace("1795158273", "299")),
            ("no number of seconds", good.replace("1795158273", "18446744073709551615")),
            ("half a byte", good.replace("0x00", "0x0")),
            ("no hex", good.replace("0x00", "0x+0")),
            ("long", good.replace("0x", &"00".repeat(NONCE_CAP))),
            ("a path", good.replace("11111111-", "../")),
        ] {
            assert_ne!(bad, good);
            assert!(Challenge::parse(bad.as_bytes()).is_err(), "{what}");
        }
    }

    #[test]
    fn one_bad_assignment_leaves_the_others() {
        let entry = |handle: &str| {
            format!(
                r#"{{"jobId":"{JOB}","role":"leader","modelId":"mock","promptCid":"QmX","deadline":1,"insuranceOptIn":false,
                "userAddress":"0x5935897A39AFABbedA5a599D38236E7Df151C8b8","kpHighHandle":{handle},"kpLowHandle":"0x1",
                "permit":null,"nested":{{"a":[1,{{}}]}}}}"#
            )
        };
        let good = [HUGE.to_owned(), format!("\"{HUGE}\""), "null".into(), "0".into()].map(|handle| entry(&handle));
        let bad = [entry("true"), entry("1e3"), "{}".into(), "7".into(), entry("1").replace("leader", "boss")];
        let list = [&good[..], &bad[..]].concat().join(",");
        let read = Assignments::parse(format!(r#"{{"assignments":[{list}],"x":null}}"#).as_bytes()).unwrap();
        assert_eq!((read.good.len(), read.malformed), (good.len(), bad.len()));
        let key = Some([Handle([0xff; 32]), "1".parse().unwrap()]);
        assert_eq!(read.good.iter().map(|a| a.key).collect::<Vec<_>>(), [key, key, None, None]);
        assert!(read.good.iter().all(|a| a.user.is_some() && a.role == Role::Leader));
        for none in ["0x0000000000000000000000000000000000000000", "", "0x5935897a39afabbeda5a599d38236e7df151c8b8"] {
            let entry = entry("1").replace("0x5935897A39AFABbedA5a599D38236E7Df151C8b8", none);
            assert_eq!(Assignment::parse(entry.as_bytes()).unwrap().user, None, "{none}");
        }
        for bad in ["[]", "{}", r#"{"assignments":{}}"#, &format!(r#"{{"assignments":{}"#, "[".repeat(100_000))] {
            assert!(Assignments::parse(bad.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_claim_gives_handles_or_none() {
        let read = |high: &str, low: &str| {
            claimed(format!(r#"{{"kpHighHandle":{high},"kpLowHandle":{low},"outputKeyGranted":true}}"#).as_bytes())
        };
        assert_eq!(read(HUGE, "\"0x1\"").unwrap(), Some([Handle([0xff; 32]), "1".parse().unwrap()]));
        for (high, low) in [("0", "0"), (HUGE, "0"), ("null", HUGE)] {
            assert_eq!(read(high, low).unwrap(), None);
        }
        assert!(read("1.5", "1").is_err());
    }

    #[test]
    fn a_status_without_output_has_none() {
        let read = |cid: &str| {
            LeaderOutput::parse(
                format!(r#"{{"jobId":"x","outputCid":{cid},"leaderCommitment":"aa","nodeAssignments":{{}}}}"#)
                    .as_bytes(),
            )
        };
        assert_eq!(read("\"QmX\"").unwrap(), Some(LeaderOutput { cid: "QmX".into(), commitment: "aa".into() }));
        for none in ["null", "\"None\"", "\"\""] {
            assert_eq!(read(none).unwrap(), None);
        }
        assert!(read(&format!("\"{}\"", "a".repeat(TEXT_CAP + 1))).is_err());
    }

    #[test]
    fn bodies_keep_their_order() {
        let node = "0x5935897A39AFABbedA5a599D38236E7Df151C8b8".parse().unwrap();
        let heartbeat = HeartbeatBody { node_address: node, timestamp: UnixTime(1_795_157_973) };
        assert_eq!(
            serde_json::to_string(&heartbeat).unwrap(),
            r#"{"nodeAddress":"0x5935897A39AFABbedA5a599D38236E7Df151C8b8","timestamp":"1795157973"}"#
        );
        let verdict = VerdictBody {
            job_id: job("j").unwrap(),
            verifier_address: node,
            commitment_hash: Hex([1; 32]),
            verdict: Verdict::Confirm,
            confidence: 100,
        };
        let wanted = format!(
            r#"{{"jobId":"j","verifier_address":"{node}","commitment_hash":"{}","verdict":"CONFIRM","confidence":100}}"#,
            "01".repeat(32)
        );
        assert_eq!(serde_json::to_string(&verdict).unwrap(), wanted);
    }
}
