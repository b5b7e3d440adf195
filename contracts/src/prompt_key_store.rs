//! `PromptKeyStore`: the handles of prompt keys and output keys, and who may open them.
//!
//! Anyone can store a key under any job's id, over one that is there: believe the event of one's own transaction.

use alloy_primitives::{B256, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _, sol};
use blf_evidence::Address;

use crate::AbiError;

/// An encrypted `uint128` with the verifier's signature: Solidity's `InEuint128`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// Hash of the ciphertext, `uint256` big-endian.
    pub ct_hash: [u8; 32],
    /// Security zone.
    pub security_zone: u8,
    /// Type: 6 for `uint128`.
    pub utype: u8,
    /// r ‖ s ‖ v.
    pub signature: Vec<u8>,
}

/// The event of a key that was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyStored {
    /// Under which id.
    pub job: [u8; 32],
    /// Who sent the transaction.
    pub submitter: Address,
    /// Handle of the first half, `uint256` big-endian.
    pub high: [u8; 32],
    /// Handle of the second half.
    pub low: [u8; 32],
    /// Who may open both.
    pub allowed: Vec<Address>,
}

/// Call data that stores a key under `job` for `allowed` to open. The sender must be the account the inputs were
/// verified for.
pub fn store_key(job: [u8; 32], high: &Input, low: &Input, allowed: &[Address]) -> Vec<u8> {
    let call = PromptKeyStore::storeKeyCall {
        jobId: job.into(),
        encHigh: high.into(),
        encLow: low.into(),
        allowedNodes: allowed.iter().map(|a| a.0.into()).collect(),
    };
    call.abi_encode()
}

/// Call data that asks for the handles under `job`.
pub fn get_encrypted_key(job: [u8; 32]) -> Vec<u8> {
    PromptKeyStore::getEncryptedKeyCall { jobId: job.into() }.abi_encode()
}

/// The answer to [`get_encrypted_key`]: handles of the halves, high first; zero where there are none.
///
/// # Errors
/// [`AbiError::Malformed`].
pub fn encrypted_key(returned: &[u8]) -> Result<[[u8; 32]; 2], AbiError> {
    let handles = PromptKeyStore::getEncryptedKeyCall::abi_decode_returns_validate(returned)
        .map_err(AbiError::malformed("getEncryptedKey"))?;
    Ok([handles._0.to_be_bytes(), handles._1.to_be_bytes()])
}

impl KeyStored {
    /// Reads a log. That the store emitted it, for the wanted job and submitter, is for the caller to compare.
    ///
    /// # Errors
    /// [`AbiError::Event`] for another event, [`AbiError::Malformed`].
    pub fn decode(topics: &[[u8; 32]], data: &[u8]) -> Result<Self, AbiError> {
        if topics.first() != Some(&PromptKeyStore::KeyStored::SIGNATURE_HASH.0) {
            return Err(AbiError::Event { what: "KeyStored" });
        }
        let topics = topics.iter().map(|topic| B256::new(*topic));
        let event = PromptKeyStore::KeyStored::decode_raw_log_validate(topics, data)
            .map_err(AbiError::malformed("KeyStored"))?;
        Ok(Self {
            job: event.jobId.0,
            submitter: Address(event.submitter.into_array()),
            high: event.highHandle.to_be_bytes(),
            low: event.lowHandle.to_be_bytes(),
            allowed: event.allowedNodes.into_iter().map(|a| Address(a.into_array())).collect(),
        })
    }
}

impl From<&Input> for InEuint128 {
    fn from(input: &Input) -> Self {
        Self {
            ctHash: U256::from_be_bytes(input.ct_hash),
            securityZone: input.security_zone,
            utype: input.utype,
            signature: input.signature.clone().into(),
        }
    }
}

// Names and types as in the ABI that the published node ships.
sol! {
    struct InEuint128 {
        uint256 ctHash;
        uint8 securityZone;
        uint8 utype;
        bytes signature;
    }

    interface PromptKeyStore {
        event KeyStored(
            bytes32 indexed jobId,
            address indexed submitter,
            uint256 highHandle,
            uint256 lowHandle,
            address[] allowedNodes
        );

        function storeKey(
            bytes32 jobId,
            InEuint128 encHigh,
            InEuint128 encLow,
            address[] allowedNodes
        ) external;
        function getEncryptedKey(bytes32 jobId) external view returns (uint256, uint256);
    }
}
