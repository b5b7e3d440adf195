//! CoFHE permits as the ACL contract checks them: who may see, until when, sealed to which key.
//!
//! Two kinds reach the ACL. *Self*: the issuer signs the sealing key too. *Shared*: the issuer names a recipient, who
//! signs the sealing key and the issuer's signature. Access is looked up for the issuer in both.

use alloy_primitives::keccak256;
use blf_evidence::Address;

use super::NOBODY;
use super::abi::{self, Frame, Malformed, Word};
use super::account;
use super::eip712::Domain;

const SELF: &str = "PermissionedV2IssuerSelf(address issuer,uint64 expiration,address recipient,uint256 validatorId,\
                    address validatorContract,bytes32 sealingKey)";
const SHARED: &str = "PermissionedV2IssuerShared(address issuer,uint64 expiration,address recipient,uint256 validatorId,\
                      address validatorContract)";
const RECIPIENT: &str = "PermissionedV2Recipient(bytes32 sealingKey,bytes issuerSignature)";

/// A permit as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    pub(crate) issuer: Address,
    /// Unix seconds.
    pub(crate) expiration: u64,
    pub(crate) recipient: Address,
    pub(crate) validator_id: Word,
    pub(crate) validator_contract: Address,
    pub(crate) sealing_key: [u8; 32],
    pub(crate) issuer_signature: Vec<u8>,
    pub(crate) recipient_signature: Vec<u8>,
}

/// Why a permit is refused: the ACL's own errors.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("PermissionInvalid_Disabled")]
    Disabled,
    #[error("PermissionInvalid_Expired")]
    Expired,
    #[error("PermissionInvalid_IssuerSignature")]
    IssuerSignature,
    #[error("PermissionInvalid_RecipientSignature")]
    RecipientSignature,
}

impl Permission {
    /// The struct in calldata.
    pub(super) fn decode(frame: Frame<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            issuer: frame.address(0)?,
            expiration: frame.u64(1)?,
            recipient: frame.address(2)?,
            validator_id: frame.word(3)?,
            validator_contract: frame.address(4)?,
            sealing_key: frame.word(5)?,
            issuer_signature: frame.bytes(6)?.to_vec(),
            recipient_signature: frame.bytes(7)?.to_vec(),
        })
    }

    /// Checks time, signatures and validator, in the contract's order.
    pub(crate) fn check(&self, domain: &Domain, now: u64) -> Result<(), Invalid> {
        if self.expiration < now {
            return Err(Invalid::Expired);
        }
        let mut members = vec![
            abi::address(self.issuer),
            abi::uint(self.expiration.into()),
            abi::address(self.recipient),
            self.validator_id,
            abi::address(self.validator_contract),
        ];
        let is_shared = self.recipient != NOBODY;
        if !is_shared {
            members.push(self.sealing_key);
        }
        let digest = domain.digest(if is_shared { SHARED } else { SELF }, &members);
        if account::signer(&digest, &self.issuer_signature) != Some(self.issuer) {
            return Err(Invalid::IssuerSignature);
        }
        if is_shared {
            let digest = domain.digest(RECIPIENT, &[self.sealing_key, keccak256(&self.issuer_signature).0]);
            if account::signer(&digest, &self.recipient_signature) != Some(self.recipient) {
                return Err(Invalid::RecipientSignature);
            }
        }
        // The contract asks a validator only if both are set; this chain has no contract that could answer.
        if self.validator_id != [0; 32] && self.validator_contract != NOBODY {
            return Err(Invalid::Disabled);
        }
        Ok(())
    }
}
