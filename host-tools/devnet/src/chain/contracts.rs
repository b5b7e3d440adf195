//! The three contracts: TaskManager, ACL and PromptKeyStore, as far as keys are concerned.
//!
//! `storeKey` checks the verifier's signature over each input *for its sender*, derives a new handle from the input's
//! hash, and lets itself and the named nodes use it. It asks nobody whose job it is: anyone overwrites any job's key.

use alloy_primitives::{address, keccak256};
use blf_evidence::Address;

use super::abi::{self, Frame, Malformed, Token, Word};
use super::account;
use super::permit::{Invalid, Permission};
use super::world::{Keys, World};
use super::{Error, Input, NOBODY};

/// TaskManager, the same on every chain.
pub const TASK_MANAGER: Address = Address(address!("eA30c4B8b44078Bbf8a6ef5b9f1eC1626C7848D9").into_array());

/// utype of euint128.
pub(crate) const UINT128: u8 = 6;
/// Gas of a call, roughly as measured on a local chain: without what a transaction costs anyway, and for each node.
const GAS: u64 = 250_000;
const GAS_EACH_NODE: u64 = 48_000;

const STORE_KEY: &str = "storeKey(bytes32,(uint256,uint8,uint8,bytes),(uint256,uint8,uint8,bytes),address[])";
const GRANT: &str = "grantDecryptAccess(bytes32,address)";
const STORE_OUTPUT_KEY: &str = "storeOutputKey(bytes32,uint256,uint256,address)";
const SET_ICL: &str = "setICL(address)";
const ICL: &str = "icl()";
const GET_KEY: &str = "getEncryptedKey(bytes32)";
const OUTPUT_KEYS: &str = "outputKeys(bytes32)";
const KEY_STORE: [&str; 7] = [STORE_KEY, GRANT, STORE_OUTPUT_KEY, SET_ICL, ICL, GET_KEY, OUTPUT_KEYS];

const DOMAIN: &str = "eip712Domain()";
const IS_ALLOWED: &str = "isAllowed(uint256,address)";
const CHECK: &str = "checkPermitValidity((address,uint64,address,uint256,address,bytes32,bytes,bytes))";
const IS_ALLOWED_WITH: &str =
    "isAllowedWithPermission((address,uint64,address,uint256,address,bytes32,bytes,bytes),uint256)";
const ACL: [&str; 4] = [DOMAIN, IS_ALLOWED, CHECK, IS_ALLOWED_WITH];

const TASKS: [&str; 2] = ["acl()", IS_ALLOWED];

/// Calls a contract: what it returns, and its gas.
pub(super) fn call(world: &mut World<'_>, to: Address, data: &[u8]) -> Result<(Vec<u8>, u64), Error> {
    let (name, functions) = if to == world.network.prompt_key_store {
        ("PromptKeyStore", &KEY_STORE[..])
    } else if to == world.network.domain.contract {
        ("ACL", &ACL[..])
    } else if to == TASK_MANAGER {
        ("TaskManager", &TASKS[..])
    } else {
        let [store, acl] = [world.network.prompt_key_store, world.network.domain.contract];
        let detail = format!("to: wanted PromptKeyStore {store}, ACL {acl} or TaskManager {TASK_MANAGER}, got {to}");
        return Err(Error::Unsupported(detail));
    };
    let Some((function, arguments)) = abi::function(data, functions) else {
        let got = hex::encode(data.get(..4).unwrap_or(data));
        let detail = format!("data: wanted a function of {name}, one of {}, got selector 0x{got}", functions.join(" "));
        return Err(Error::Unsupported(detail));
    };
    let malformed = |Malformed(what)| revert(&format!("{name}.{function}: {what}"), Vec::new());
    // Wrong arguments revert without data, as Solidity's decoder does; the reason is for whoever reads the answer.
    let arguments = Arguments::read(function, arguments).map_err(malformed)?;
    let gas = match &arguments {
        Arguments::StoreKey { nodes, .. } => GAS + GAS_EACH_NODE * nodes.len() as u64,
        _ => GAS,
    };
    Ok((run(world, arguments)?, gas))
}

/// Stores a key: its two stored handles.
pub(super) fn store_key(
    world: &mut World<'_>,
    job: Word,
    [high, low]: [&Input; 2],
    nodes: &[Address],
) -> Result<[Word; 2], Error> {
    let contract = world.network.prompt_key_store;
    let handles = [verify_input(world, high)?, verify_input(world, low)?];
    for handle in handles {
        world.allow(handle, contract)?;
        for node in nodes {
            world.allow(handle, *node)?;
        }
    }
    world.set_key(Keys::Prompt, job, handles)?;
    let [high, low] = handles.map(Token::Word);
    let nodes = nodes.iter().map(|node| abi::address(*node)).collect();
    let event = "KeyStored(bytes32,address,uint256,uint256,address[])";
    let indexed = [job, abi::address(world.sender)];
    world.emit(contract, event, &indexed, &[high, low, Token::Array(nodes)]);
    Ok(handles)
}

/// Lets `node` use a job's key.
pub(super) fn grant(world: &mut World<'_>, job: Word, node: Address) -> Result<(), Error> {
    only_icl(world)?;
    let Some(handles) = world.key(Keys::Prompt, job)? else { return Err(require("Job keys not set")) };
    for handle in handles {
        allow(world, handle, node)?;
    }
    let indexed = [job, abi::address(node)];
    world.emit(world.network.prompt_key_store, "DecryptAccessGranted(bytes32,address)", &indexed, &[]);
    Ok(())
}

/// The first caller chooses the ICL; then only the ICL does.
pub(super) fn set_icl(world: &World<'_>, icl: Address) -> Result<(), Error> {
    if world.icl()?.is_some_and(|icl| icl != world.sender) {
        return Err(require("ICL already set by non-owner"));
    }
    if icl == NOBODY {
        return Err(require("Invalid ICL address"));
    }
    world.set_icl(icl)
}

/// What the verifier signs so that `sender` may store this input: `ctHash ‖ utype ‖ zone ‖ sender ‖ chain id`, packed.
pub(crate) fn input_digest(input: &Input, sender: Address, chain_id: u64) -> Word {
    let chain_id = abi::uint(chain_id.into());
    keccak256([&input.ct_hash[..], &[input.utype, input.security_zone], &sender.0, &chain_id].concat()).0
}

/// The handle of a ciphertext: its hash, with type and security zone in place of the last two bytes.
pub(crate) fn handle(mut hash: Word, utype: u8, security_zone: u8) -> Word {
    hash[30] = utype;
    hash[31] = security_zone;
    hash
}

enum Arguments {
    StoreKey { job: Word, high: Input, low: Input, nodes: Vec<Address> },
    Grant { job: Word, node: Address },
    StoreOutputKey { job: Word, handles: [Word; 2], user: Address },
    SetIcl(Address),
    Icl,
    Key(Keys, Word),
    Domain,
    IsAllowed { handle: Word, account: Address },
    Check(Permission),
    IsAllowedWith(Permission, Word),
    Acl,
}

impl Arguments {
    fn read(function: &str, frame: Frame<'_>) -> Result<Self, Malformed> {
        Ok(match function {
            STORE_KEY => Self::StoreKey {
                job: frame.word(0)?,
                high: input(frame.structure(1)?)?,
                low: input(frame.structure(2)?)?,
                nodes: frame.addresses(3)?,
            },
            GRANT => Self::Grant { job: frame.word(0)?, node: frame.address(1)? },
            STORE_OUTPUT_KEY => Self::StoreOutputKey {
                job: frame.word(0)?,
                handles: [frame.word(1)?, frame.word(2)?],
                user: frame.address(3)?,
            },
            SET_ICL => Self::SetIcl(frame.address(0)?),
            ICL => Self::Icl,
            GET_KEY => Self::Key(Keys::Prompt, frame.word(0)?),
            OUTPUT_KEYS => Self::Key(Keys::Output, frame.word(0)?),
            DOMAIN => Self::Domain,
            IS_ALLOWED => Self::IsAllowed { handle: frame.word(0)?, account: frame.address(1)? },
            CHECK => Self::Check(Permission::decode(frame.structure(0)?)?),
            IS_ALLOWED_WITH => Self::IsAllowedWith(Permission::decode(frame.structure(0)?)?, frame.word(1)?),
            _ => Self::Acl,
        })
    }
}

fn input(frame: Frame<'_>) -> Result<Input, Malformed> {
    Ok(Input {
        ct_hash: frame.word(0)?,
        security_zone: frame.u8(1)?,
        utype: frame.u8(2)?,
        signature: frame.bytes(3)?.to_vec(),
    })
}

fn run(world: &mut World<'_>, arguments: Arguments) -> Result<Vec<u8>, Error> {
    match arguments {
        Arguments::StoreKey { job, high, low, nodes } => {
            store_key(world, job, [&high, &low], &nodes)?;
            Ok(Vec::new())
        }
        Arguments::Grant { job, node } => grant(world, job, node).map(|()| Vec::new()),
        Arguments::StoreOutputKey { job, handles, user } => {
            only_icl(world)?;
            world.set_key(Keys::Output, job, handles)?;
            for handle in handles {
                allow(world, handle, user)?;
            }
            let event = "OutputKeyStored(bytes32,uint256,uint256,address)";
            let indexed = [job, abi::address(user)];
            world.emit(world.network.prompt_key_store, event, &indexed, &handles.map(Token::Word));
            Ok(Vec::new())
        }
        Arguments::SetIcl(icl) => set_icl(world, icl).map(|()| Vec::new()),
        Arguments::Icl => Ok(abi::address(world.icl()?.unwrap_or(NOBODY)).to_vec()),
        Arguments::Key(keys, job) => Ok(world.key(keys, job)?.unwrap_or_default().concat()),
        Arguments::Domain => {
            let domain = &world.network.domain;
            let mut fields = [0; 32];
            fields[0] = 0x0f; // name, version, chainId, verifyingContract (ERC-5267)
            Ok(abi::encode(&[
                Token::Word(fields),
                Token::Bytes(domain.name.as_bytes()),
                Token::Bytes(domain.version.as_bytes()),
                Token::Word(abi::uint(domain.chain_id.into())),
                Token::Word(abi::address(domain.contract)),
                Token::Word([0; 32]),
                Token::Array(Vec::new()),
            ]))
        }
        Arguments::IsAllowed { handle, account } => Ok(abi::boolean(world.is_allowed(handle, account)?).to_vec()),
        Arguments::Check(permission) => {
            permission.check(&world.network.domain, world.now).map_err(invalid)?;
            Ok(abi::boolean(true).to_vec())
        }
        Arguments::IsAllowedWith(permission, handle) => {
            permission.check(&world.network.domain, world.now).map_err(invalid)?;
            Ok(abi::boolean(world.is_allowed(handle, permission.issuer)?).to_vec())
        }
        Arguments::Acl => Ok(abi::address(world.network.domain.contract).to_vec()),
    }
}

/// `FHE.asEuint128` and `TaskManager.verifyInput`: the handle under which the input is stored.
fn verify_input(world: &World<'_>, input: &Input) -> Result<Word, Error> {
    if input.utype != UINT128 {
        let (got, wanted) = (u128::from(input.utype), u128::from(UINT128));
        return Err(custom("InvalidEncryptedInput(uint8,uint8)", &[abi::uint(got), abi::uint(wanted)]));
    }
    if input.security_zone != 0 {
        let zone = abi::uint(input.security_zone.into());
        return Err(custom("InvalidSecurityZone(int32,int32,int32)", &[zone, [0; 32], [0; 32]]));
    }
    let digest = input_digest(input, world.sender, world.network.domain.chain_id);
    match account::signer(&digest, &input.signature) {
        Some(signer) if signer == world.network.verifier => Ok(handle(input.ct_hash, UINT128, 0)),
        Some(signer) => {
            let signers = [abi::address(signer), abi::address(world.network.verifier)];
            Err(custom("InvalidSigner(address,address)", &signers))
        }
        None => Err(custom("InvalidSignature()", &[])),
    }
}

/// `FHE.allow` by the PromptKeyStore, which must be allowed itself.
fn allow(world: &World<'_>, handle: Word, account: Address) -> Result<(), Error> {
    let contract = world.network.prompt_key_store;
    if !world.is_allowed(handle, contract)? {
        return Err(custom("SenderNotAllowed(address)", &[abi::address(contract)]));
    }
    world.allow(handle, account)
}

fn only_icl(world: &World<'_>) -> Result<(), Error> {
    if world.icl()? == Some(world.sender) { Ok(()) } else { Err(require("Only ICL")) }
}

fn invalid(error: Invalid) -> Error {
    custom(&format!("{error}()"), &[])
}

/// Solidity's `require` with a reason.
fn require(reason: &str) -> Error {
    let data = [&abi::selector("Error(string)")[..], &abi::encode(&[Token::Bytes(reason.as_bytes())])].concat();
    revert(reason, data)
}

/// Solidity's custom errors.
fn custom(signature: &str, words: &[Word]) -> Error {
    let values: Vec<String> = words.iter().map(|word| format!("0x{}", hex::encode(word))).collect();
    let name = signature.split('(').next().unwrap_or(signature);
    let data = [&abi::selector(signature)[..], words.as_flattened()].concat();
    revert(&format!("{name}({})", values.join(", ")), data)
}

fn revert(reason: &str, data: Vec<u8>) -> Error {
    Error::Reverted { reason: reason.into(), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Selectors that the network's documentation and the compiled contracts carry.
    #[test]
    fn selectors() {
        for (signature, wanted) in [
            (STORE_KEY, "e6e58979"),
            (GET_KEY, "533688bb"),
            (STORE_OUTPUT_KEY, "6bd4cf9f"),
            (GRANT, "789dd44d"),
            (OUTPUT_KEYS, "734a569b"),
            ("acl()", "de287359"),
            (DOMAIN, "84b0196e"),
        ] {
            assert_eq!(hex::encode(abi::selector(signature)), wanted, "{signature}");
        }
    }
}
