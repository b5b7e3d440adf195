//! Accounts as they stand in requests and calldata.

use blf_evidence::Address;
use blf_evidence::eip191::Signature;

/// The address whose key signed `digest`, if these are the 65 bytes of a canonical signature.
pub(crate) fn signer(digest: &[u8; 32], signature: &[u8]) -> Option<Address> {
    let signature = Signature(signature.try_into().ok()?);
    signature.recover_digest(digest).ok()
}

/// An address in any case of its digits: wallets and SDKs write it with and without the EIP-55 checksum.
pub(crate) fn address(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("0x")?;
    let mut bytes = [0; 20];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(Address(bytes))
}
