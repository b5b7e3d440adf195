//! Permits (`PermissionedV2` of cofhe-contracts): what the threshold network and the ACL take as proof of who asks.
//!
//! ```text
//! self       the issuer signs everything, the sealing key included, and asks
//! sharing    the issuer signs for a recipient and exports the permit
//! recipient  who imports it adds a sealing key of its own, signs that with the issuer's signature, and asks
//! ```
//!
//! Access is the issuer's in all three. Digests are EIP-712 over the domain of the ACL contract.

use alloy_primitives::U256;
use alloy_sol_types::{Eip712Domain, SolStruct, sol};
use blf_evidence::eip191::Signature;
use blf_evidence::json::{self, JsonError};
use blf_evidence::{Address, Hex, UnixTime};
use serde::{Deserialize, Serialize};

use super::prefixed;

/// Longest permit that is imported, in bytes.
const SHARING_CAP: usize = 16 * 1024;

/// The EIP-712 domain of the ACL contract: from the measured profile, never from an RPC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `ACL` where it is known.
    pub name: String,
    /// The ACL contract.
    pub verifying_contract: Address,
    /// `1` where it is known.
    pub version: String,
}

/// What is sent with a request, and what contracts check: the Solidity struct `Permission`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Permission {
    /// Whose access is used.
    pub issuer: Address,
    /// Refused after this time.
    pub expiration: UnixTime,
    /// Who may use it; zero for the issuer itself.
    pub recipient: Address,
    /// Id by which `validator_contract` can disable the permit; zero for none.
    pub validator_id: u64,
    /// The contract that can; zero for none.
    pub validator_contract: Address,
    /// X25519 key to which answers are sealed.
    #[serde(with = "prefixed")]
    pub sealing_key: [u8; 32],
    /// 65 bytes for an account with a key.
    #[serde(with = "prefixed")]
    pub issuer_signature: Vec<u8>,
    /// Empty without recipient.
    #[serde(with = "prefixed")]
    pub recipient_signature: Vec<u8>,
}

/// A permit on its way from issuer to recipient, as the SDK exports it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sharing {
    /// What the issuer calls it; nobody signs this.
    pub name: String,
    #[serde(rename = "type")]
    kind: Kind,
    /// Whose access is given.
    pub issuer: Address,
    /// Refused after this time.
    pub expiration: UnixTime,
    /// Who may use it.
    pub recipient: Address,
    /// As in [`Permission`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub validator_id: u64,
    /// As in [`Permission`].
    #[serde(default = "nobody", skip_serializing_if = "is_nobody")]
    pub validator_contract: Address,
    /// 65 bytes for an account with a key.
    #[serde(with = "prefixed")]
    pub issuer_signature: Vec<u8>,
}

/// Why a permit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// Not a permit in the form of the SDK.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is for somebody else.
    #[error("permit: wanted recipient {wanted}, got {got}")]
    Recipient {
        /// Who asks.
        wanted: Address,
        /// Whom it names.
        got: Address,
    },
}

impl Permission {
    /// A permit of `issuer` for itself; `sign` gets the EIP-712 digest.
    pub fn issue_self(
        domain: &Domain,
        issuer: Address,
        expiration: UnixTime,
        sealing_key: Hex<32>,
        sign: impl FnOnce(&[u8; 32]) -> Signature,
    ) -> Self {
        let mut permission = Self::unsigned(issuer, expiration, NOBODY, sealing_key);
        permission.issuer_signature = sign(&permission.self_digest(domain)).0.to_vec();
        permission
    }

    /// What the issuer of a permit for itself signs.
    pub fn self_digest(&self, domain: &Domain) -> [u8; 32] {
        domain.digest(&PermissionedV2IssuerSelf {
            issuer: self.issuer.0.into(),
            expiration: self.expiration.0,
            recipient: self.recipient.0.into(),
            validatorId: U256::from(self.validator_id),
            validatorContract: self.validator_contract.0.into(),
            sealingKey: self.sealing_key.into(),
        })
    }

    /// What the issuer of a permit for somebody else signs.
    pub fn shared_digest(&self, domain: &Domain) -> [u8; 32] {
        domain.digest(&PermissionedV2IssuerShared {
            issuer: self.issuer.0.into(),
            expiration: self.expiration.0,
            recipient: self.recipient.0.into(),
            validatorId: U256::from(self.validator_id),
            validatorContract: self.validator_contract.0.into(),
        })
    }

    /// What its recipient signs.
    pub fn recipient_digest(&self, domain: &Domain) -> [u8; 32] {
        domain.digest(&PermissionedV2Recipient {
            sealingKey: self.sealing_key.into(),
            issuerSignature: self.issuer_signature.clone().into(),
        })
    }

    fn unsigned(issuer: Address, expiration: UnixTime, recipient: Address, sealing_key: Hex<32>) -> Self {
        Self {
            issuer,
            expiration,
            recipient,
            validator_id: 0,
            validator_contract: NOBODY,
            sealing_key: sealing_key.0,
            issuer_signature: Vec::new(),
            recipient_signature: Vec::new(),
        }
    }
}

impl Sharing {
    /// A permit of `issuer` for `recipient`; `sign` gets the EIP-712 digest.
    pub fn issue(
        domain: &Domain,
        name: &str,
        issuer: Address,
        expiration: UnixTime,
        recipient: Address,
        sign: impl FnOnce(&[u8; 32]) -> Signature,
    ) -> Self {
        let permission = Permission::unsigned(issuer, expiration, recipient, Hex([0; 32]));
        Self {
            name: name.into(),
            kind: Kind::Sharing,
            issuer,
            expiration,
            recipient,
            validator_id: 0,
            validator_contract: NOBODY,
            issuer_signature: sign(&permission.shared_digest(domain)).0.to_vec(),
        }
    }

    /// Parses an exported permit.
    ///
    /// # Errors
    /// [`PermitError::Json`].
    pub fn parse(text: &str) -> Result<Self, PermitError> {
        let permit: Self = json::parse(WHAT, text.as_bytes(), SHARING_CAP)?;
        if (permit.validator_id == 0) != (permit.validator_contract == NOBODY) {
            let error = "validatorId and validatorContract: wanted both or neither".into();
            return Err(JsonError::Malformed { what: WHAT, error }.into());
        }
        Ok(permit)
    }

    /// The text that the SDK exports and imports.
    ///
    /// # Errors
    /// [`PermitError::Json`], for no value of these types.
    pub fn to_json(&self) -> Result<String, PermitError> {
        let malformed = |e: serde_json::Error| JsonError::Malformed { what: WHAT, error: e.to_string() };
        Ok(serde_json::to_string_pretty(self).map_err(malformed)?)
    }

    /// The permit that `recipient` can ask with; `sign` gets the EIP-712 digest. The issuer's signature is for the
    /// threshold network to check.
    ///
    /// # Errors
    /// [`PermitError::Recipient`].
    pub fn receive(
        self,
        domain: &Domain,
        recipient: Address,
        sealing_key: Hex<32>,
        sign: impl FnOnce(&[u8; 32]) -> Signature,
    ) -> Result<Permission, PermitError> {
        if self.recipient != recipient {
            return Err(PermitError::Recipient { wanted: recipient, got: self.recipient });
        }
        let mut permission = Permission {
            validator_id: self.validator_id,
            validator_contract: self.validator_contract,
            issuer_signature: self.issuer_signature,
            ..Permission::unsigned(self.issuer, self.expiration, recipient, sealing_key)
        };
        permission.recipient_signature = sign(&permission.recipient_digest(domain)).0.to_vec();
        Ok(permission)
    }
}

impl Domain {
    fn digest(&self, value: &impl SolStruct) -> [u8; 32] {
        let domain = Eip712Domain {
            name: Some(self.name.clone().into()),
            version: Some(self.version.clone().into()),
            chain_id: Some(U256::from(self.chain_id)),
            verifying_contract: Some(self.verifying_contract.0.into()),
            salt: None,
        };
        value.eip712_signing_hash(&domain).0
    }
}

// Names and order of members are part of the type hashes.
sol! {
    struct PermissionedV2IssuerSelf {
        address issuer;
        uint64 expiration;
        address recipient;
        uint256 validatorId;
        address validatorContract;
        bytes32 sealingKey;
    }

    struct PermissionedV2IssuerShared {
        address issuer;
        uint64 expiration;
        address recipient;
        uint256 validatorId;
        address validatorContract;
    }

    struct PermissionedV2Recipient {
        bytes32 sealingKey;
        bytes issuerSignature;
    }
}

const WHAT: &str = "sharing permit";
const NOBODY: Address = Address([0; 20]);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Sharing,
}

fn nobody() -> Address {
    NOBODY
}

fn is_nobody(address: &Address) -> bool {
    *address == NOBODY
}

fn is_zero(id: &u64) -> bool {
    *id == 0
}
