//! The chain as relying party: which contracts the network runs on, by name, and what is said to them.
//!
//! ```text
//! call data ─ eth_call ─→ returned bytes ─→ values
//! call data ─ Transaction ─ signature ─→ raw transaction ─→ receipt: logs ─→ KeyStored
//! ```
//!
//! No I/O: what an RPC answers comes in as bytes and is hostile. The addresses are those of the network's own
//! documentation and of the published node 0.3.5.

#![forbid(unsafe_code)]

pub mod cofhe;
pub mod prompt_key_store;
pub mod transaction;

use alloy_primitives::{Address, address};

/// The contracts of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Network {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `NodeRegistry`, proxy.
    pub node_registry: Address,
    /// `BlindferenceStaking`.
    pub staking: Address,
    /// `BLIND`, ERC-20 with 18 decimals.
    pub blind: Address,
    /// `NodeAttestationRegistry`.
    pub node_attestation_registry: Address,
    /// `ExecutionCommitmentRegistry`.
    pub execution_commitment_registry: Address,
    /// `ResultRegistry`.
    pub result_registry: Address,
}

/// Arbitrum Sepolia.
pub const ARBITRUM_SEPOLIA: Network = Network {
    chain_id: 421_614,
    node_registry: address!("72C0Ead949Fd2C346598a30AF1A69c3c5Cb86082"),
    staking: address!("222Ac74201Ed58915e42Ee5be626d939fd234D0b"),
    blind: address!("232D5470DaaC7AD552a42d876aDEF1f778033cE0"),
    node_attestation_registry: address!("B54e019e9717a8Ed4746bA9d7F1A3F83cf0a35E0"),
    execution_commitment_registry: address!("cd45aefE9a16772528fa30B7d47958a95e83440C"),
    result_registry: address!("Cebd831eCd00915E299b8Ef2666cAbf942dc7150"),
};

/// Why bytes of the chain are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AbiError {
    /// An event of another kind.
    #[error("{what}: another event")]
    Event {
        /// Which event was wanted.
        what: &'static str,
    },
    /// Not the ABI encoding of the wanted types.
    #[error("{what}: {error}")]
    Malformed {
        /// Which answer or event.
        what: &'static str,
        /// The decoder's words.
        error: String,
    },
}

impl AbiError {
    fn malformed(what: &'static str) -> impl FnOnce(alloy_sol_types::Error) -> Self {
        move |error| Self::Malformed { what, error: blf_evidence::json::excerpt(&error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The network compares addresses as text, so a typo must not survive: each is as its EIP-55 checksum spells it.
    #[test]
    fn checksums() {
        let n = ARBITRUM_SEPOLIA;
        for (address, text) in [
            (n.node_registry, "0x72C0Ead949Fd2C346598a30AF1A69c3c5Cb86082"),
            (n.staking, "0x222Ac74201Ed58915e42Ee5be626d939fd234D0b"),
            (n.blind, "0x232D5470DaaC7AD552a42d876aDEF1f778033cE0"),
            (n.node_attestation_registry, "0xB54e019e9717a8Ed4746bA9d7F1A3F83cf0a35E0"),
            (n.execution_commitment_registry, "0xcd45aefE9a16772528fa30B7d47958a95e83440C"),
            (n.result_registry, "0xCebd831eCd00915E299b8Ef2666cAbf942dc7150"),
        ] {
            assert_eq!(address.to_checksum(None), text);
        }
    }
}
