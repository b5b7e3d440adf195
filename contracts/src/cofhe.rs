//! CoFHE's `TaskManager` and `ACL`: where the ACL is, the domain of its permits, who may open what.
//!
//! For tools that compare a profile with a chain. A node takes the ACL and its domain from its measured profile: an RPC
//! that names another contract would have it sign permits for that one.

use alloy_primitives::U256;
use alloy_sol_types::{SolCall as _, sol};
use blf_evidence::Address;

use crate::AbiError;

/// `TaskManager`, at one address on every chain.
pub const TASK_MANAGER: alloy_primitives::Address =
    alloy_primitives::address!("eA30c4B8b44078Bbf8a6ef5b9f1eC1626C7848D9");

/// The EIP-712 domain of a contract (EIP-5267).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// `name`.
    pub name: String,
    /// `version`.
    pub version: String,
    /// `chainId`, big-endian.
    pub chain_id: [u8; 32],
    /// `verifyingContract`.
    pub verifying_contract: Address,
}

/// Call data that asks the `TaskManager` for its ACL.
pub fn acl() -> Vec<u8> {
    TaskManager::aclCall {}.abi_encode()
}

/// The answer to [`acl`].
///
/// # Errors
/// [`AbiError::Malformed`].
pub fn acl_address(returned: &[u8]) -> Result<Address, AbiError> {
    let acl = TaskManager::aclCall::abi_decode_returns_validate(returned).map_err(AbiError::malformed("acl"))?;
    Ok(Address(acl.into_array()))
}

/// Call data that asks the ACL for its domain.
pub fn eip712_domain() -> Vec<u8> {
    Acl::eip712DomainCall {}.abi_encode()
}

/// The answer to [`eip712_domain`].
///
/// # Errors
/// [`AbiError::Malformed`].
pub fn domain(returned: &[u8]) -> Result<Domain, AbiError> {
    let domain =
        Acl::eip712DomainCall::abi_decode_returns_validate(returned).map_err(AbiError::malformed("eip712Domain"))?;
    Ok(Domain {
        name: domain.name,
        version: domain.version,
        chain_id: domain.chainId.to_be_bytes(),
        verifying_contract: Address(domain.verifyingContract.into_array()),
    })
}

/// Call data that asks the ACL whether `account` may open `handle`.
pub fn is_allowed(handle: [u8; 32], account: Address) -> Vec<u8> {
    Acl::isAllowedCall { handle: U256::from_be_bytes(handle), account: account.0.into() }.abi_encode()
}

/// The answer to [`is_allowed`].
///
/// # Errors
/// [`AbiError::Malformed`].
pub fn allowed(returned: &[u8]) -> Result<bool, AbiError> {
    Acl::isAllowedCall::abi_decode_returns_validate(returned).map_err(AbiError::malformed("isAllowed"))
}

sol! {
    interface TaskManager {
        function acl() external view returns (address);
    }

    interface Acl {
        function eip712Domain() external view returns (
            bytes1 fields,
            string name,
            string version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] extensions
        );
        function isAllowed(uint256 handle, address account) external view returns (bool);
    }
}
