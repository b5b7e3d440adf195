//! The chain's JSON-RPC: the methods that wallets, nodes and users of this network need.

use alloy_primitives::{Bloom, BloomInput, keccak256};
use blf_evidence::Address;
use serde_json::{Value, json};

use super::abi::Word;
use super::transaction::Transaction;
use super::world::{Log, World};
use super::{Chain, Error, NOBODY, contracts};
use crate::cofhe::{Answer, Fault, jsonrpc};

/// Wei per gas of every block.
const BASE_FEE: u128 = 100_000_000;
/// Suggested tip, wei per gas.
const TIP: u128 = 1_000_000;
/// Unix time of block 0; a block comes every second.
const GENESIS: u64 = 1_700_000_000;
/// Gas of a block.
const BLOCK_GAS: u64 = 30_000_000;
/// Gas of every transaction (EIP-2028, without access lists).
const TRANSACTION_GAS: u64 = 21_000;

/// Code of errors that a node of the real network gives for transactions it does not take.
const REFUSED: i64 = -32_000;
/// Code of a call that reverts.
const REVERTED: i64 = 3;

const METHODS: [&str; 10] = [
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_gasPrice",
    "eth_getBlockByNumber",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_sendRawTransaction",
];

impl Chain {
    /// Answers one JSON-RPC request over HTTP.
    #[must_use]
    pub fn rpc(&self, method: &str, _path: &str, body: &[u8]) -> Answer {
        let mut lost = false;
        let answer = jsonrpc::answer(method, body, |name, params| {
            lost = self.loses(name);
            self.answer(name, params)
        });
        if lost { Answer { status: 502, body: Vec::new(), ..answer } } else { answer }
    }

    fn answer(&self, name: &str, params: &[Value]) -> Result<Value, Fault> {
        match (name, params) {
            ("eth_chainId", []) => Ok(quantity(self.domain().chain_id)),
            ("eth_blockNumber", []) => Ok(quantity(self.block())),
            ("eth_gasPrice", []) => Ok(quantity(BASE_FEE + TIP)),
            ("eth_maxPriorityFeePerGas", []) => Ok(quantity(TIP)),
            ("eth_getBlockByNumber", [tag, whole]) => self.block_by_number(tag, whole),
            ("eth_getTransactionCount", [account, tag]) => {
                let account = address("account", account)?;
                self.latest(tag)?;
                Ok(quantity(self.view(|world| world.nonce(account))?))
            }
            ("eth_getTransactionReceipt", [hash]) => self.receipt(hash),
            ("eth_call" | "eth_estimateGas", [call, tag @ ..]) if tag.len() < 2 => {
                tag.first().map_or(Ok(()), |tag| self.latest(tag))?;
                let (output, gas) = self.call(call)?;
                Ok(if name == "eth_call" { data(&output) } else { quantity(gas) })
            }
            ("eth_sendRawTransaction", [raw]) => self.send(raw),
            (name, _) if METHODS.contains(&name) => Err(Fault::params(format!("{name}: wanted other parameters"))),
            _ => Err(Fault::method(name, &METHODS)),
        }
    }

    /// Counts an answer that is to be lost.
    fn loses(&self, name: &str) -> bool {
        let mut lost = self.inner.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let loses = lost.0 == name && lost.1 > 0;
        lost.1 -= u32::from(loses);
        loses
    }

    /// Number of the latest block.
    fn block(&self) -> u64 {
        self.now().saturating_sub(GENESIS)
    }

    /// State is kept for the latest block only.
    fn latest(&self, tag: &Value) -> Result<(), Fault> {
        if self.number(tag)? == self.block() {
            Ok(())
        } else {
            Err(Fault::params("block: wanted \"latest\"; older state is not kept"))
        }
    }

    fn number(&self, tag: &Value) -> Result<u64, Fault> {
        match tag.as_str() {
            Some("latest" | "pending" | "safe" | "finalized") => Ok(self.block()),
            Some("earliest") => Ok(0),
            Some(text) => text
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or_else(|| Fault::params("block: wanted a tag or a quantity")),
            None => Err(Fault::params("block: wanted a tag or a quantity as text")),
        }
    }

    fn block_by_number(&self, tag: &Value, whole: &Value) -> Result<Value, Fault> {
        if *whole != Value::Bool(false) {
            return Err(Fault::params("full transactions: wanted false"));
        }
        let number = self.number(tag)?;
        if number > self.block() {
            return Ok(Value::Null);
        }
        let hashes = self.view(|world| world.transactions(number))?;
        Ok(json!({
            "number": quantity(number),
            "hash": data(&block_hash(number)),
            "parentHash": data(&number.checked_sub(1).map_or([0; 32], block_hash)),
            "timestamp": quantity(GENESIS + number),
            "baseFeePerGas": quantity(BASE_FEE),
            "gasLimit": quantity(BLOCK_GAS),
            "gasUsed": quantity(0_u64),
            "miner": data(&[0; 20]),
            "extraData": "0x",
            "difficulty": "0x0",
            "transactions": hashes.iter().map(|hash| data(hash)).collect::<Vec<_>>(),
        }))
    }

    fn receipt(&self, hash: &Value) -> Result<Value, Fault> {
        let hash = bytes("hash", hash)?;
        let Ok(hash) = <Word>::try_from(hash.as_slice()) else { return Err(Fault::params("hash: wanted 32 bytes")) };
        let slow = self.inner.slow_receipts.load(std::sync::atomic::Ordering::Relaxed);
        match self.view(|world| world.receipt(hash))? {
            Some((receipt, looked)) if looked >= slow => {
                serde_json::from_str(&receipt).map_err(|e| Fault::internal(e.to_string()))
            }
            _ => Ok(Value::Null),
        }
    }

    /// Runs a call and undoes it: what it returns, and the gas of a transaction that did the same.
    fn call(&self, call: &Value) -> Result<(Vec<u8>, u64), Fault> {
        let field = |name| call.get(name).filter(|value| !value.is_null());
        let from = field("from").map_or(Ok(NOBODY), |from| address("from", from))?;
        let to = address("to", field("to").unwrap_or(&Value::Null))?;
        let input = match (field("data"), field("input")) {
            (Some(data), None) | (None, Some(data)) => bytes("data", data)?,
            (Some(data), Some(input)) if data == input => bytes("data", data)?,
            _ => return Err(Fault::params("data: wanted it once, as data or input")),
        };
        let mut came = None;
        let undone = self.turn(from, |world| {
            came = Some(contracts::call(world, to, &input)?);
            Err::<(), _>(Error::Reverted { reason: String::new(), data: Vec::new() })
        });
        match (came, undone) {
            (Some((output, gas)), _) => Ok((output, gas + intrinsic_gas(&input))),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(())) => Err(Fault::internal("call: neither done nor undone")),
        }
    }

    fn send(&self, raw: &Value) -> Result<Value, Fault> {
        let raw = bytes("raw transaction", raw)?;
        let refused = |message: String| Fault::new(REFUSED, message);
        let tx = Transaction::parse(&raw, self.domain().chain_id).map_err(refused)?;
        let block = self.block();
        let sent = self.turn(tx.from, |world| Ok(mine(world, &tx, block)?.map(|()| tx.hash)))?;
        sent.map(|hash| data(&hash)).map_err(refused)
    }
}

/// Takes a transaction and mines it; the inner error is why it is not taken.
fn mine(world: &mut World<'_>, tx: &Transaction, block: u64) -> Result<Result<(), String>, Error> {
    if world.has_receipt(tx.hash)? {
        return Ok(Err("already known".into()));
    }
    let wanted = world.nonce(tx.from)?;
    if tx.nonce != wanted {
        let which = if tx.nonce < wanted { "low" } else { "high" };
        return Ok(Err(format!("nonce too {which}: next nonce {wanted}, tx nonce {}", tx.nonce)));
    }
    if tx.max_fee < BASE_FEE {
        let fee = tx.max_fee;
        let detail = format!("max fee per gas less than block base fee: maxFeePerGas: {fee}, baseFee: {BASE_FEE}");
        return Ok(Err(detail));
    }
    let intrinsic = intrinsic_gas(&tx.data);
    if tx.gas < intrinsic {
        return Ok(Err(format!("intrinsic gas too low: gas {}, minimum needed {intrinsic}", tx.gas)));
    }
    world.set_nonce(tx.from, tx.nonce + 1)?;
    world.db.execute_batch("SAVEPOINT call")?;
    let called = match contracts::call(world, tx.to, &tx.data) {
        Ok((_, gas)) if tx.gas >= gas + intrinsic && !tx.has_value => Some(gas + intrinsic),
        Ok(_) | Err(Error::Reverted { .. }) => None, // out of gas, a payment that nothing takes, or a refusal
        Err(error) => return Err(error),
    };
    if called.is_none() {
        world.db.execute_batch("ROLLBACK TO call")?;
        world.logs.clear();
    }
    world.db.execute_batch("RELEASE call")?;
    let index = world.transactions(block)?.len() as u64;
    let receipt = receipt(tx, called, &world.logs, block, index);
    world.keep_receipt(tx.hash, block, &receipt.to_string())?;
    Ok(Ok(()))
}

fn receipt(tx: &Transaction, gas: Option<u64>, logs: &[Log], block: u64, index: u64) -> Value {
    let gas_used = quantity(gas.unwrap_or(tx.gas));
    let mut bloom = Bloom::ZERO;
    for log in logs {
        bloom.accrue(BloomInput::Raw(&log.address.0));
        log.topics.iter().for_each(|topic| bloom.accrue(BloomInput::Raw(topic)));
    }
    let logs = (index..).zip(logs).map(|(at, log)| {
        json!({
            "address": log.address,
            "topics": log.topics.iter().map(|topic| data(topic)).collect::<Vec<_>>(),
            "data": data(&log.data),
            "blockNumber": quantity(block),
            "blockHash": data(&block_hash(block)),
            "transactionHash": data(&tx.hash),
            "transactionIndex": quantity(index),
            "logIndex": quantity(at), // a call emits at most one
            "removed": false,
        })
    });
    json!({
        "transactionHash": data(&tx.hash),
        "transactionIndex": quantity(index),
        "blockNumber": quantity(block),
        "blockHash": data(&block_hash(block)),
        "from": tx.from,
        "to": tx.to,
        "type": quantity(tx.kind),
        "status": quantity(u8::from(gas.is_some())),
        "gasUsed": gas_used,
        "cumulativeGasUsed": gas_used,
        "effectiveGasPrice": quantity(tx.max_fee.min(BASE_FEE.saturating_add(tx.tip))),
        "contractAddress": null,
        "logs": logs.collect::<Vec<_>>(),
        "logsBloom": data(bloom.as_slice()),
    })
}

/// Before anything is called: 16 gas a byte, 4 a zero.
fn intrinsic_gas(data: &[u8]) -> u64 {
    TRANSACTION_GAS + data.iter().map(|byte| if *byte == 0 { 4 } else { 16 }).sum::<u64>()
}

fn block_hash(number: u64) -> Word {
    keccak256([&b"blf devnet block"[..], &number.to_be_bytes()].concat()).0
}

fn quantity(number: impl Into<u128>) -> Value {
    format!("0x{:x}", number.into()).into()
}

fn data(bytes: &[u8]) -> Value {
    format!("0x{}", hex::encode(bytes)).into()
}

fn bytes(name: &str, value: &Value) -> Result<Vec<u8>, Fault> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    let bytes = digits.and_then(|digits| hex::decode(digits).ok());
    bytes.ok_or_else(|| Fault::params(format!("{name}: wanted 0x and hex digits")))
}

fn address(name: &str, value: &Value) -> Result<Address, Fault> {
    let address = value.as_str().and_then(super::address);
    address.ok_or_else(|| Fault::params(format!("{name}: wanted 0x and 40 hex digits")))
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Reverted { ref data, .. } => {
                let data = format!("0x{}", hex::encode(data));
                Self { data: Some(data), ..Self::new(REVERTED, error.to_string()) }
            }
            Error::Full => Self::new(REFUSED, error.to_string()),
            Error::Unsupported(detail) => Self::params(detail),
            Error::Random(_) | Error::State(_) => Self::internal(error.to_string()),
        }
    }
}
