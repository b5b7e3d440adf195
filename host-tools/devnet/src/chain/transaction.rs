//! Signed transactions: legacy with replay protection (EIP-155) and EIP-1559.
//!
//! ```text
//! legacy:   rlp([nonce, gasPrice, gas, to, value, data, v, r, s]), v = 35 + 2 * chainId + parity
//! EIP-1559: 2 ‖ rlp([chainId, nonce, tip, maxFee, gas, to, value, data, accessList, parity, r, s])
//! ```

use alloy_primitives::keccak256;
use blf_evidence::Address;

use super::account;
use super::rlp::{self, Item};

/// Type of an EIP-1559 transaction.
const DYNAMIC_FEE: u8 = 2;

/// A transaction whose signature holds.
#[derive(Debug, PartialEq)]
pub(super) struct Transaction {
    pub(super) hash: [u8; 32],
    /// 0 or 2.
    pub(super) kind: u8,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) nonce: u64,
    pub(super) gas: u64,
    pub(super) max_fee: u128,
    pub(super) tip: u128,
    pub(super) has_value: bool,
    pub(super) data: Vec<u8>,
}

impl Transaction {
    /// Reads what a wallet sends to `eth_sendRawTransaction`; the error names the field.
    pub(super) fn parse(raw: &[u8], chain_id: u64) -> Result<Self, String> {
        match raw.first() {
            Some(&DYNAMIC_FEE) => Self::dynamic_fee(raw, chain_id),
            Some(0xc0..) => Self::legacy(raw, chain_id),
            other => Err(format!("transaction type: wanted legacy or 2 (EIP-1559), got {other:?}")),
        }
    }

    fn dynamic_fee(raw: &[u8], chain_id: u64) -> Result<Self, String> {
        let fields = fields::<12>(&raw[1..])?;
        let [chain, nonce, tip, max_fee, gas, to, value, data, access_list, parity, r, s] = fields;
        same_chain(u64::from_be_bytes(chain.number("chain id")?), chain_id)?;
        if !access_list.list("access list")?.is_empty() {
            return Err("access list: wanted an empty one".into());
        }
        let unsigned = rlp::list(&fields[..9].iter().flat_map(|field| field.encoded).copied().collect::<Vec<_>>());
        let digest = keccak256([&[DYNAMIC_FEE][..], &unsigned].concat()).0;
        let [parity] = parity.number("parity")?;
        let from = signer(&digest, r, s, parity)?;
        let fees = [u128::from_be_bytes(max_fee.number("max fee")?), u128::from_be_bytes(tip.number("tip")?)];
        Self::new(raw, DYNAMIC_FEE, from, fees, [nonce, gas, to, value, data])
    }

    fn legacy(raw: &[u8], chain_id: u64) -> Result<Self, String> {
        let fields = fields::<9>(raw)?;
        let [nonce, gas_price, gas, to, value, data, v, r, s] = fields;
        let v = u64::from_be_bytes(v.number("v")?);
        let Some(v) = v.checked_sub(35) else {
            return Err(format!("v: wanted one with the chain id (EIP-155), got {v}"));
        };
        same_chain(v / 2, chain_id)?;
        let mut unsigned: Vec<u8> = fields[..6].iter().flat_map(|field| field.encoded).copied().collect();
        unsigned.extend([rlp::number(chain_id), rlp::number(0), rlp::number(0)].concat());
        let from = signer(&keccak256(rlp::list(&unsigned)).0, r, s, u8::from(v % 2 == 1))?;
        let price = u128::from_be_bytes(gas_price.number("gas price")?);
        Self::new(raw, 0, from, [price, price], [nonce, gas, to, value, data])
    }

    fn new(
        raw: &[u8],
        kind: u8,
        from: Address,
        [max_fee, tip]: [u128; 2],
        [nonce, gas, to, value, data]: [Item<'_>; 5],
    ) -> Result<Self, String> {
        if tip > max_fee {
            return Err(format!("max priority fee per gas higher than max fee per gas: {tip} and {max_fee}"));
        }
        let to = to.bytes("to")?;
        let Ok(to) = <[u8; 20]>::try_from(to) else {
            return Err(format!("to: wanted a contract of this devnet (20 bytes), got {} bytes", to.len()));
        };
        Ok(Self {
            hash: keccak256(raw).0,
            kind,
            from,
            to: Address(to),
            nonce: u64::from_be_bytes(nonce.number("nonce")?),
            gas: u64::from_be_bytes(gas.number("gas")?),
            max_fee,
            tip,
            has_value: value.number::<32>("value")? != [0; 32],
            data: data.bytes("data")?.to_vec(),
        })
    }
}

fn fields<const N: usize>(bytes: &[u8]) -> Result<[Item<'_>; N], String> {
    let items = rlp::item(bytes)?.list("transaction")?;
    let count = items.len();
    items.try_into().map_err(|_| format!("transaction: wanted {N} fields, got {count}"))
}

fn same_chain(got: u64, wanted: u64) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("invalid chain id for signer: have {got} want {wanted}")) }
}

fn signer(digest: &[u8; 32], r: Item<'_>, s: Item<'_>, parity: u8) -> Result<Address, String> {
    let signature = [&r.number::<32>("r")?[..], &s.number::<32>("s")?, &[parity.saturating_add(27)]].concat();
    account::signer(digest, &signature).ok_or_else(|| "signature: wanted r, low s and a parity of 0 or 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signed by another library for one account: nothing of it can be changed or left out.
    #[test]
    fn every_bit_is_signed() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/cofhe/vectors/transactions.json")).unwrap();
        let account = vectors["address"].as_str().and_then(account::address).unwrap();
        for kind in ["dynamic_fee", "legacy"] {
            let raw = hex::decode(&vectors[kind]["raw"].as_str().unwrap()[2..]).unwrap();
            assert_eq!(Transaction::parse(&raw, 421_614).unwrap().from, account);
            for bit in 0..8 * raw.len() {
                let mut changed = raw.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let parsed = Transaction::parse(&changed, 421_614);
                assert!(parsed.is_err() || parsed.unwrap().from != account, "{kind}: bit {bit}");
            }
            for length in 0..raw.len() {
                assert!(Transaction::parse(&raw[..length], 421_614).is_err(), "{kind}: {length} bytes");
            }
            assert!(Transaction::parse(&[&raw[..], &[0]].concat(), 421_614).is_err(), "{kind}: a byte more");
        }
    }
}
