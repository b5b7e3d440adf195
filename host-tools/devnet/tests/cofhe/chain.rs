//! The chain's JSON-RPC: transactions that other libraries signed, what is refused, and the contracts' rules.

use alloy_sol_types::SolCall as _;
use alloy_sol_types::private::{FixedBytes, U256, keccak256};
use blf_devnet::chain::TASK_MANAGER;
use blf_devnet::cofhe::BODY_CAP;
use blf_evidence::Address;
use serde_json::{Value, json};

use crate::net::{
    Account, Draft, JOB, Net, START, VALUES, aclCall, document, eip712DomainCall, getEncryptedKeyCall,
    grantDecryptAccessCall, hexed, iclCall, isAllowedCall, outputKeysCall, setICLCall, store_key, storeOutputKeyCall,
};

fn get_key() -> Vec<u8> {
    getEncryptedKeyCall { jobId: FixedBytes(JOB) }.abi_encode()
}

fn send(net: &Net, raw: &[u8]) -> Result<Value, String> {
    let request = json!({ "jsonrpc": "2.0", "id": 7, "method": "eth_sendRawTransaction", "params": [hexed(raw)] });
    let answer = document(&net.chain.rpc("POST", "/", request.to_string().as_bytes()));
    assert_eq!(answer["id"], 7);
    match answer.get("result") {
        Some(hash) => Ok(hash.clone()),
        None => Err(answer["error"]["message"].as_str().unwrap().into()),
    }
}

#[test]
fn transactions_of_another_wallet() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/transactions.json")).unwrap();
    let net = Net::new();
    let account = Account::of_number(1001);
    assert_eq!(vectors["address"], account.address().to_string());
    for (kind, wanted, nonce) in [("legacy", "0x0", 0), ("dynamic_fee", "0x2", 5)] {
        while net.draft(&account, Vec::new()).nonce < nonce {
            net.send(&account, get_key());
        }
        let hash = net.rpc("eth_sendRawTransaction", json!([vectors[kind]["raw"]]));
        assert_eq!(hash, vectors[kind]["hash"], "{kind}");
        let receipt = net.rpc("eth_getTransactionReceipt", json!([hash]));
        assert_eq!((&receipt["from"], &receipt["type"]), (&vectors["address"], &wanted.into()));
        assert_eq!((&receipt["status"], &receipt["transactionHash"]), (&"0x1".into(), &hash));
        assert_eq!(receipt["to"], net.contracts.prompt_key_store.to_string());
    }
    assert_eq!(net.draft(&account, Vec::new()).nonce, 6);
}

#[test]
fn transactions_that_are_not_taken() {
    let net = Net::new();
    let account = Account::new(1);
    let good = net.draft(&account, get_key());
    let with = |change: &dyn Fn(&mut Draft)| {
        let mut draft = good.clone();
        change(&mut draft);
        send(&net, &draft.sign(&account)).unwrap_err()
    };
    let short = [0xf8, 0x4c].as_slice(); // a legacy head without its list
    let mut nothing = [0; 65];
    nothing[64] = 27;
    for (error, says) in [
        (with(&|draft| draft.chain_id = 1), "invalid chain id for signer: have 1 want 421614"),
        (with(&|draft| draft.nonce = 1), "nonce too high: next nonce 0, tx nonce 1"),
        (with(&|draft| draft.max_fee = 99_999_999), "max fee per gas less than block base fee"),
        (with(&|draft| draft.tip = draft.max_fee + 1), "max priority fee per gas higher than max fee per gas"),
        (with(&|draft| draft.gas = 21_000), "intrinsic gas too low: gas 21000"),
        (with(&|draft| draft.to = vec![5; 20]), "to: wanted PromptKeyStore 0x"),
        (with(&|draft| draft.to = Vec::new()), "to: wanted a contract of this devnet (20 bytes), got 0 bytes"),
        (with(&|draft| draft.data = vec![1, 2, 3, 4]), "data: wanted a function of PromptKeyStore, one of storeKey("),
        (with(&|draft| draft.data = Vec::new()), "data: wanted a function of PromptKeyStore"),
        (send(&net, &[1, 0xc0]).unwrap_err(), "transaction type: wanted legacy or 2 (EIP-1559), got Some(1)"),
        (send(&net, &[2, 0xc0]).unwrap_err(), "transaction: wanted 12 fields, got 0"),
        (send(&net, &[0xc0]).unwrap_err(), "transaction: wanted 9 fields, got 0"),
        (send(&net, &[]).unwrap_err(), "transaction type: wanted legacy or 2 (EIP-1559), got None"),
        (send(&net, short).unwrap_err(), "rlp: "),
        (send(&net, &good.with(nothing)).unwrap_err(), "signature: wanted r, low s"),
    ] {
        assert!(error.starts_with(says), "{error}: wanted {says}");
    }
    assert_eq!(net.draft(&account, Vec::new()).nonce, 0, "none of them counts");
    let raw = good.sign(&account);
    send(&net, &raw).unwrap();
    assert_eq!(send(&net, &raw).unwrap_err(), "already known");
    assert_eq!(with(&|draft| draft.gas += 1), "nonce too low: next nonce 1, tx nonce 0");
}

/// The twin of a signature, which other keys' owners could make, is not one.
#[test]
fn signatures_with_a_high_s_are_refused() {
    let net = Net::new();
    let account = Account::new(1);
    let draft = net.draft(&account, get_key());
    let raw = draft.sign(&account);
    let (r, s): ([u8; 32], [u8; 32]) = {
        let tail = &raw[raw.len() - 65..];
        assert_eq!(tail[32], 0xa0, "neither r nor s begins with a zero here");
        (tail[..32].try_into().unwrap(), tail[33..].try_into().unwrap())
    };
    let parity = raw[raw.len() - 67];
    let order = U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
    let twin = (order - U256::from_be_bytes(s)).to_be_bytes::<32>();
    let v = if parity == 1 { 27 } else { 28 };
    let forged = draft.with([&r[..], &twin, &[v]].concat().try_into().unwrap());
    assert_ne!(forged, raw);
    assert_eq!(send(&net, &forged).unwrap_err(), "signature: wanted r, low s and a parity of 0 or 1");
    send(&net, &raw).unwrap();
}

/// Mined, and failed: what pays, and what runs out of gas.
#[test]
fn transactions_that_fail() {
    let net = Net::new();
    let account = Account::new(1);
    let inputs = net.encrypt(account.address(), VALUES);
    let good = net.draft(&account, store_key(&inputs, &[]));
    let changes: [fn(&mut Draft); 2] = [|draft| draft.value = 1, |draft| draft.gas = 60_000];
    for (nonce, change) in (0..).zip(changes) {
        let mut draft = Draft { nonce, ..good.clone() };
        change(&mut draft);
        let hash = send(&net, &draft.sign(&account)).unwrap();
        let receipt = net.rpc("eth_getTransactionReceipt", json!([hash]));
        assert_eq!((&receipt["status"], &receipt["logs"]), (&"0x0".into(), &json!([])));
        assert_eq!(receipt["gasUsed"], format!("0x{:x}", draft.gas));
        assert_eq!(net.chain.encrypted_key(JOB).unwrap(), None);
    }
    let raw = Draft { nonce: 2, ..good }.sign(&account);
    send(&net, &raw).unwrap();
    assert!(net.chain.encrypted_key(JOB).unwrap().is_some());
}

#[test]
fn the_icls_functions() {
    let net = Net::new();
    let (user, icl, node, stranger) = (Account::new(1), Account::new(4), Account::new(2), Account::new(3));
    let store = net.contracts.prompt_key_store;
    let set = |icl: &Account| setICLCall { icl: icl.address().0.into() }.abi_encode();
    let grant = grantDecryptAccessCall { jobId: FixedBytes(JOB), node: node.address().0.into() }.abi_encode();
    let status = |account: &Account, data: &[u8]| net.send(account, data.to_vec())["status"].clone();
    assert_eq!(status(&icl, &grant), "0x0", "nobody is the ICL yet");
    assert_eq!(status(&icl, &setICLCall { icl: [0; 20].into() }.abi_encode()), "0x0", "not the zero address");
    assert_eq!(status(&icl, &set(&icl)), "0x1", "the first caller wins");
    assert_eq!(status(&stranger, &set(&stranger)), "0x0");
    assert_eq!(
        iclCall::abi_decode_returns(&net.call(store, &iclCall {}.abi_encode()).unwrap()).unwrap(),
        icl.address().0
    );
    assert_eq!(status(&icl, &grant), "0x0", "no such job");

    let handles = net.store(&user, &[]);
    assert!(!net.chain.is_allowed(handles[0], node.address()).unwrap());
    assert_eq!(status(&stranger, &grant), "0x0");
    let receipt = net.send(&icl, grant);
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(receipt["logs"][0]["topics"][0], hexed(&keccak256("DecryptAccessGranted(bytes32,address)")[..]));
    assert!(handles.iter().all(|handle| net.chain.is_allowed(*handle, node.address()).unwrap()));

    // Only handles that the contract may use can be passed on.
    let output = |handles: [[u8; 32]; 2]| {
        let [high, low] = handles.map(U256::from_be_bytes);
        let user = user.address().0.into();
        storeOutputKeyCall { jobId: FixedBytes(JOB), koHighHandle: high, koLowHandle: low, userAddress: user }
            .abi_encode()
    };
    assert_eq!(status(&icl, &output([[1; 32]; 2])), "0x0");
    assert_eq!(net.chain.output_key(JOB).unwrap(), None, "a revert undoes all of it");
    assert_eq!(status(&stranger, &output(handles)), "0x0");
    assert_eq!(status(&icl, &output(handles)), "0x1");
    assert_eq!(net.chain.output_key(JOB).unwrap(), Some(handles));
    let read = net.call(store, &outputKeysCall { jobId: FixedBytes(JOB) }.abi_encode()).unwrap();
    assert_eq!(read, handles.concat());
    assert!(net.chain.is_allowed(handles[1], user.address()).unwrap());
}

#[test]
fn contracts_say_who_they_are() {
    let net = Net::new();
    let acl = net.call(TASK_MANAGER, &aclCall {}.abi_encode()).unwrap();
    assert_eq!(aclCall::abi_decode_returns(&acl).unwrap(), net.contracts.acl.0);
    let domain = net.call(net.contracts.acl, &eip712DomainCall {}.abi_encode()).unwrap();
    let domain = eip712DomainCall::abi_decode_returns(&domain).unwrap();
    assert_eq!((&*domain.name, &*domain.version, domain.chainId), ("ACL", "1", U256::from(421_614)));
    assert_eq!((domain.fields.0, domain.verifyingContract.into_array()), ([0x0f], net.contracts.acl.0));
    let [handle, _] = net.store(&Account::new(1), &[Address([5; 20])]);
    for (account, wanted) in [([5; 20], true), ([6; 20], false), (net.contracts.prompt_key_store.0, true)] {
        let call = isAllowedCall { handle: U256::from_be_bytes(handle), account: account.into() }.abi_encode();
        for to in [TASK_MANAGER, net.contracts.acl] {
            assert_eq!(isAllowedCall::abi_decode_returns(&net.call(to, &call).unwrap()).unwrap(), wanted);
        }
    }
    let empty =
        net.call(net.contracts.prompt_key_store, &getEncryptedKeyCall { jobId: FixedBytes([7; 32]) }.abi_encode());
    assert_eq!(empty.unwrap(), [0; 64], "no key: zeros");
}

#[test]
fn a_revert_says_why() {
    let net = Net::new();
    let stranger = Account::new(3).address();
    let [high, low] = net.encrypt(stranger, VALUES);
    let data = store_key(&[high, low], &[]);
    // Nobody in particular calls, for whom the inputs were not signed.
    let (message, revert) = net.call(net.contracts.prompt_key_store, &data).unwrap_err();
    assert!(message.starts_with("execution reverted: InvalidSigner("), "{message}");
    assert_eq!(revert[..4], keccak256("InvalidSigner(address,address)")[..4]);
    let set = setICLCall { icl: [0; 20].into() }.abi_encode();
    let (message, revert) = net.call(net.contracts.prompt_key_store, &set).unwrap_err();
    assert_eq!(message, "execution reverted: Invalid ICL address");
    assert_eq!(revert[..4], keccak256("Error(string)")[..4]);
    let (message, revert) = net.call(net.contracts.prompt_key_store, &data[..100]).unwrap_err();
    assert!(message.starts_with("execution reverted: PromptKeyStore.storeKey"), "{message}");
    assert!(revert.is_empty());
    // As its signer it would pass, and a call changes nothing.
    let call = json!({ "from": stranger, "to": net.contracts.prompt_key_store, "data": hexed(&data) });
    net.rpc("eth_call", json!([call, "latest"]));
    let gas = net.rpc("eth_estimateGas", json!([call]));
    assert_eq!(net.chain.encrypted_key(JOB).unwrap(), None);
    let receipt = net.send(&Account::new(3), data);
    assert_eq!((&receipt["gasUsed"], &receipt["status"]), (&gas, &"0x1".into()));
}

#[test]
fn blocks_and_fees() {
    let net = Net::new();
    assert_eq!(net.rpc("eth_chainId", json!([])), "0x66eee");
    let number = net.rpc("eth_blockNumber", json!([]));
    let latest = net.rpc("eth_getBlockByNumber", json!(["latest", false]));
    assert_eq!((&latest["number"], &latest["timestamp"]), (&number, &format!("0x{START:x}").into()));
    assert_eq!(latest["baseFeePerGas"], "0x5f5e100");
    assert_eq!(net.rpc("eth_maxPriorityFeePerGas", json!([])), "0xf4240");
    assert_eq!(net.rpc("eth_gasPrice", json!([])), "0x6052340");
    let receipt = net.send(&Account::new(1), get_key());
    assert_eq!((&receipt["blockNumber"], &receipt["blockHash"]), (&number, &latest["hash"]));
    net.set_clock(START + 1);
    let next = net.rpc("eth_getBlockByNumber", json!(["latest", false]));
    assert_eq!((&next["parentHash"], &next["transactions"]), (&latest["hash"], &json!([])));
    let block = net.rpc("eth_getBlockByNumber", json!([number, false]));
    assert_eq!(block["transactions"], json!([receipt["transactionHash"]]));
    assert_eq!(net.rpc("eth_getBlockByNumber", json!(["0xffffffffff", false])), Value::Null);
}

#[test]
fn receipts_can_be_slow() {
    let net = Net::new();
    net.chain.slow_receipts(2);
    let raw = net.draft(&Account::new(1), get_key()).sign(&Account::new(1));
    let hash = send(&net, &raw).unwrap();
    let look = || net.rpc("eth_getTransactionReceipt", json!([hash]));
    assert_eq!([look(), look()], [Value::Null, Value::Null]);
    assert_eq!(look()["status"], "0x1");
    assert_eq!(net.rpc("eth_getTransactionReceipt", json!([hexed(&[1; 32])])), Value::Null);
}

#[test]
fn requests_that_are_wrong() {
    let net = Net::new();
    for (method, params, code, says) in [
        ("eth_getLogs", json!([{}]), -32_601, "method eth_getLogs: this devnet has eth_blockNumber, eth_call,"),
        ("eth_chainId", json!([1]), -32_602, "eth_chainId: wanted other parameters"),
        ("eth_getTransactionCount", json!(["0x1", "latest"]), -32_602, "account: wanted 0x and 40 hex digits"),
        ("eth_getTransactionCount", json!([hexed(&[1; 20]), "0x1"]), -32_602, "block: wanted \"latest\""),
        ("eth_getTransactionReceipt", json!(["0x1234"]), -32_602, "hash: wanted 32 bytes"),
        ("eth_getBlockByNumber", json!(["latest", true]), -32_602, "full transactions: wanted false"),
        ("eth_getBlockByNumber", json!(["newest", false]), -32_602, "block: wanted a tag or a quantity"),
        ("eth_call", json!([{ "to": hexed(&[1; 20]), "data": "0x" }]), -32_602, "to: wanted PromptKeyStore 0x"),
        (
            "eth_call",
            json!([{ "to": net.contracts.acl, "data": "0x01" }]),
            -32_602,
            "data: wanted a function of ACL, one of eip712Domain()",
        ),
        ("eth_call", json!([{ "to": net.contracts.acl }]), -32_602, "data: wanted it once"),
        ("eth_sendRawTransaction", json!(["00"]), -32_602, "raw transaction: wanted 0x and hex digits"),
    ] {
        let (got, message) = net.rpc_error(method, params);
        assert_eq!(got, code, "{message}");
        assert!(message.starts_with(says), "{message}: wanted {says}");
    }
    for (body, code) in [
        ("[]", -32_600),
        ("{", -32_700),
        ("{}", -32_600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}"#, -32_600),
        (r#"{"jsonrpc":"2.0","id":[],"method":"eth_chainId"}"#, -32_600),
        (&" ".repeat(BODY_CAP + 1), -32_600),
    ] {
        let answer = net.chain.rpc("POST", "/", body.as_bytes());
        assert_eq!((answer.status, &document(&answer)["error"]["code"]), (200, &code.into()), "{body:.60}");
    }
    assert_eq!(net.chain.rpc("GET", "/", b"").status, 405);
}
