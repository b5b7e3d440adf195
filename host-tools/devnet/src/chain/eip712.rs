//! EIP-712: digests of typed data.

use alloy_primitives::keccak256;
use blf_evidence::Address;

use super::abi::{self, Word};

/// Whom a signature is for.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) chain_id: u64,
    pub(crate) contract: Address,
}

impl Domain {
    /// What is signed: `keccak256(0x1901 ‖ domain separator ‖ keccak256(typehash ‖ members))`.
    pub(crate) fn digest(&self, kind: &str, members: &[Word]) -> Word {
        let separator = hash_struct(
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
            &[
                keccak256(&self.name).0,
                keccak256(&self.version).0,
                abi::uint(self.chain_id.into()),
                abi::address(self.contract),
            ],
        );
        keccak256([&b"\x19\x01"[..], &separator, &hash_struct(kind, members)].concat()).0
    }
}

/// `hashStruct` of members that are one word each; dynamic ones are hashed by the caller.
fn hash_struct(kind: &str, members: &[Word]) -> Word {
    keccak256([keccak256(kind).0.as_slice(), members.as_flattened()].concat()).0
}
