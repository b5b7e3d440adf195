//! Transactions: EIP-1559 calls that move no money.
//!
//! ```text
//! unsigned = 0x02 ‖ rlp([chain id, nonce, max priority fee, max fee, gas limit, to, value 0, input, access list []])
//! raw      = 0x02 ‖ rlp([…, y parity, r, s])       hash = keccak256(raw)
//! ```

use alloy_primitives::keccak256;
use alloy_rlp::{Encodable as _, Header};
use blf_evidence::Address;
use blf_evidence::eip191::Signature;

/// A call of a contract, to be signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The sender's.
    pub nonce: u64,
    /// In wei.
    pub max_priority_fee_per_gas: u128,
    /// In wei, the priority fee included.
    pub max_fee_per_gas: u128,
    /// Most gas to spend.
    pub gas_limit: u64,
    /// The contract.
    pub to: Address,
    /// Call data.
    pub input: Vec<u8>,
}

/// A transaction that `eth_sendRawTransaction` takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// The bytes to send.
    pub raw: Vec<u8>,
    /// What it is known by.
    pub hash: [u8; 32],
}

/// The fees the network's own tools offer: priority fee as the chain suggests it, 2,000,000 wei if it does not, and
/// room for the base fee to double. Returns the priority fee and the whole.
pub fn fees(base_fee: u128, priority_fee: Option<u128>) -> (u128, u128) {
    let priority_fee = priority_fee.unwrap_or(2_000_000);
    (priority_fee, base_fee.saturating_mul(2).saturating_add(priority_fee).saturating_add(1_000_000))
}

impl Transaction {
    /// What the sender signs, without the prefix of EIP-191.
    pub fn digest(&self) -> [u8; 32] {
        keccak256(envelope(&self.fields())).0
    }

    /// With a signature over [`Self::digest`].
    pub fn signed(&self, signature: &Signature) -> Signed {
        let mut fields = self.fields();
        let [rs @ .., v] = &signature.0;
        let (r, s) = rs.split_at(32);
        (*v == 28).encode(&mut fields);
        for integer in [r, s] {
            let zeros = integer.iter().take_while(|byte| **byte == 0).count();
            integer[zeros..].encode(&mut fields);
        }
        let raw = envelope(&fields);
        let hash = keccak256(&raw).0;
        Signed { raw, hash }
    }

    /// What is signed, encoded one after the other.
    fn fields(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.input.len());
        self.chain_id.encode(&mut out);
        self.nonce.encode(&mut out);
        self.max_priority_fee_per_gas.encode(&mut out);
        self.max_fee_per_gas.encode(&mut out);
        self.gas_limit.encode(&mut out);
        self.to.0.encode(&mut out);
        VALUE.encode(&mut out);
        self.input.as_slice().encode(&mut out);
        Header { list: true, payload_length: 0 }.encode(&mut out);
        out
    }
}

/// Type of a transaction with a dynamic fee (EIP-1559).
const DYNAMIC_FEE: u8 = 2;
const VALUE: u8 = 0;

fn envelope(fields: &[u8]) -> Vec<u8> {
    let mut out = vec![DYNAMIC_FEE];
    Header { list: true, payload_length: fields.len() }.encode(&mut out);
    out.extend_from_slice(fields);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_are_those_of_the_published_bridge() {
        assert_eq!(fees(100_000_000, Some(7)), (7, 201_000_007));
        assert_eq!(fees(100_000_000, None), (2_000_000, 203_000_000));
        assert_eq!(fees(u128::MAX, Some(u128::MAX)), (u128::MAX, u128::MAX), "a hostile chain does not overflow");
    }
}
