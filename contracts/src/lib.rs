//! The chain as relying party: which contracts the network runs on, by name.
//!
//! The addresses are those of the network's own documentation and of the published node 0.3.5. Calls and typed
//! bindings come with the release that talks to the chain; until then this crate holds what other documents name.

#![forbid(unsafe_code)]

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
