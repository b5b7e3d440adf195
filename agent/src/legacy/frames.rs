//! What courier and vault say to each other about the existing network; frames are those of [`crate::frames`].

use blf_bridge::cofhe::{EncryptedInput, output_key_job_id};
use blf_contracts::prompt_key_store;
use blf_evidence::eip191::Signature;
use blf_evidence::job::Role;
use blf_evidence::{Address, Hex, UnixTime};
use serde::{Deserialize, Serialize};

use super::wire::JobId;
use crate::frames::Boxes;

/// What the courier asks.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    /// It is now this late: what the coordinator's challenge implies, which came through TLS. → `Done`
    Time(UnixTime),
    /// Write and authenticate a request. → [`Told::Signed`]
    Sign(Request),
    /// The coordinator took the attestation: the next generation of keys opens jobs until then. → `Done`
    Attested {
        /// What the coordinator says; a day counts at most.
        expiry: UnixTime,
    },
    /// Open the halves and the prompt, have the model answer. Takes as long as inference. → [`Told::Ran`]
    Run(Run),
    /// Write and sign the transaction that stores the output key (leader). → [`Told::Transaction`]
    StoreKey(StoreKey),
    /// Write and authenticate the result (leader); once. → [`Told::Signed`]
    Result {
        /// The job.
        job: Hex<32>,
    },
    /// Compare with the leader's commitment, write and authenticate the verdict; once. → [`Told::Signed`]
    Judge(Judge),
}

/// Requests that the node key signs with a body of the vault's own.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// Any GET: the signed text is the time alone.
    Get,
    /// POST `/internal/attestation/verify`.
    Attest {
        /// Names the challenge.
        challenge: String,
        /// Its nonce.
        nonce: Vec<u8>,
    },
    /// POST `/internal/task/claim`.
    Claim(JobId),
    /// POST `/internal/heartbeat`.
    Heartbeat,
}

/// A job that was claimed.
#[derive(Serialize, Deserialize)]
pub struct Run {
    /// The job.
    pub job: JobId,
    /// The node's part.
    pub role: Role,
    /// The model's id.
    pub model: String,
    /// Who may open the answer.
    pub user: Address,
    /// The prompt key, sealed to this guest.
    pub boxes: Boxes,
    /// The sealed prompt, already checked against its CID.
    pub blob: Vec<u8>,
}

/// What a chain wants of a transaction beside what it does. Nothing of it decides what is called.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoreKey {
    /// The job.
    pub job: Hex<32>,
    /// The verifier's inputs, high first.
    pub inputs: [Input; 2],
    /// The account's.
    pub nonce: u64,
    /// `maxFeePerGas`, in wei.
    pub max_fee: u128,
    /// `maxPriorityFeePerGas`, in wei.
    pub max_priority_fee: u128,
    /// Gas limit.
    pub gas: u64,
}

/// [`EncryptedInput`], as frames carry it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Input {
    ct_hash: Hex<32>,
    security_zone: u8,
    utype: u8,
    signature: Vec<u8>,
}

/// What is known of the leader when a verifier judges.
#[derive(Serialize, Deserialize)]
pub struct Judge {
    /// The job.
    pub job: Hex<32>,
    /// CID of the leader's output, as the leader wrote it.
    pub cid: String,
    /// Whether bytes that match the CID could be had.
    pub stored: bool,
    /// The leader's commitment, as it wrote it.
    pub commitment: String,
}

/// What the vault answers.
#[derive(Serialize, Deserialize)]
pub enum Told {
    /// A request, written and signed.
    Signed(Signed),
    /// The model has run.
    Ran(Option<Output>),
    /// A transaction.
    Transaction {
        /// For `eth_sendRawTransaction`.
        raw: Vec<u8>,
        /// Its hash.
        hash: Hex<32>,
    },
}

/// An authenticated request. It may be sent again as it is.
#[derive(Clone, Serialize, Deserialize)]
pub struct Signed {
    /// The body; empty for GET.
    pub body: Vec<u8>,
    /// `X-Timestamp`.
    pub time: UnixTime,
    /// `X-Signature`.
    pub signature: Signature,
}

/// What a leader has to store.
#[derive(Serialize, Deserialize)]
pub struct Output {
    /// CID of `blob`.
    pub cid: String,
    /// The sealed answer.
    pub blob: Vec<u8>,
    /// Body of the request to CoFHE's verifier: the output key, encrypted unless the profile says `clear`.
    pub verify: Vec<u8>,
}

impl From<EncryptedInput> for Input {
    fn from(input: EncryptedInput) -> Self {
        let EncryptedInput { ct_hash, security_zone, utype, signature } = input;
        Self { ct_hash: ct_hash.into(), security_zone, utype, signature }
    }
}

impl From<Input> for EncryptedInput {
    fn from(input: Input) -> Self {
        let Input { ct_hash, security_zone, utype, signature } = input;
        Self { ct_hash: ct_hash.into(), security_zone, utype, signature }
    }
}

/// What stores the output key of `job` for `user`.
pub(crate) fn store_key_call(job: &JobId, inputs: &[Input; 2], user: Address) -> Vec<u8> {
    let [high, low] = inputs.each_ref().map(|input| prompt_key_store::Input {
        ct_hash: input.ct_hash.0,
        security_zone: input.security_zone,
        utype: input.utype,
        signature: input.signature.clone(),
    });
    prompt_key_store::store_key(output_key_job_id(job.as_str()).0, &high, &low, &[user])
}
