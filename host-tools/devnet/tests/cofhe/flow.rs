//! A prompt key's whole way: encrypted by a user, stored by their transaction, shown to the node it is for.

use alloy_sol_types::private::{FixedBytes, LogData, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use crypto_box::SecretKey;
use serde_json::Value;

use crate::net::{
    Account, JOB, KeyStored, Net, VALUES, document, getEncryptedKeyCall, store_key, trimmed, unhexed, unseal,
};

#[test]
fn from_a_user_to_the_node_they_chose() {
    let net = Net::new();
    let (user, node, stranger) = (Account::new(1), Account::new(2), Account::new(3));
    let inputs = net.encrypt(user.address(), VALUES);
    let receipt = net.send(&user, store_key(&inputs, &[node.address()]));
    assert_eq!((&receipt["status"], &receipt["from"]), (&"0x1".into(), &user.address().to_string().into()));

    // The handles are in the event, and they are not the hashes of the inputs.
    let log = &receipt["logs"][0];
    assert_eq!(log["address"], net.contracts.prompt_key_store.to_string());
    let topics = log["topics"].as_array().unwrap().iter().map(|topic| FixedBytes::from_slice(&unhexed(topic)));
    let stored = KeyStored::decode_log_data(&LogData::new_unchecked(topics.collect(), unhexed(&log["data"]).into()));
    let stored = stored.unwrap();
    assert_eq!((stored.jobId.0, stored.submitter.into_array()), (JOB, user.address().0));
    assert_eq!(stored.allowedNodes, [node.address().0]);
    let handles = [stored.highHandle, stored.lowHandle].map(|handle| handle.to_be_bytes::<32>());
    for (handle, input) in handles.iter().zip(&inputs) {
        assert_eq!(handle[..30], input.ct_hash[..30]);
        assert_eq!((&handle[30..], handle == &input.ct_hash), (&[6, 0][..], false));
    }

    // Anyone reads them from the contract.
    let call = getEncryptedKeyCall { jobId: FixedBytes(JOB) }.abi_encode();
    let output = net.call(net.contracts.prompt_key_store, &call).unwrap();
    let read = getEncryptedKeyCall::abi_decode_returns(&output).unwrap();
    assert_eq!([read.high, read.low], handles.map(U256::from_be_bytes));

    // The node's permit opens both halves; the user's and a stranger's open nothing, and the hash is not a handle.
    let secret = SecretKey::from([9; 32]);
    let permit = node.permit(&net, &secret);
    for (handle, value) in handles.into_iter().zip(VALUES) {
        let submitted = document(&net.submit(handle, &permit));
        let path = format!("/v2/sealoutput/{}", submitted["request_id"].as_str().unwrap());
        let poll = || -> Value { document(&net.cofhe.threshold("GET", &path, b"")) };
        assert_eq!(poll()["status"], "PROCESSING");
        let done = poll();
        assert_eq!((&done["status"], &done["is_succeed"]), (&"COMPLETED".into(), &true.into()));
        assert_eq!(unseal(&secret, &done["sealed"]).unwrap(), trimmed(value));
        assert_eq!(net.submit(handle, &stranger.permit(&net, &secret)).status, 403);
        assert_eq!(net.submit(handle, &user.permit(&net, &secret)).status, 403);
    }
    assert_eq!(net.submit(inputs[0].ct_hash, &permit).status, 403);
}

#[test]
fn anyone_overwrites_any_jobs_key() {
    let net = Net::new();
    let (user, stranger, node) = (Account::new(1), Account::new(3), Account::new(2));
    let first = net.store(&user, &[node.address()]);
    let second = net.store(&stranger, &[]);
    assert_ne!(first, second);
    assert!(net.chain.is_allowed(first[0], node.address()).unwrap(), "what was allowed stays allowed");
    assert!(!net.chain.is_allowed(second[0], node.address()).unwrap());
}

/// What a devnet knew when it was killed it knows when it is back.
#[test]
fn the_chain_outlives_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain");
    let (user, node) = (Account::new(1), Account::new(2));
    let net = Net::at(Some(&path));
    let handles = net.store(&user, &[node.address()]);
    drop(net);
    let net = Net::at(Some(&path));
    assert_eq!(net.chain.encrypted_key(JOB).unwrap(), Some(handles));
    assert_eq!(net.draft(&user, Vec::new()).nonce, 1);
    let secret = SecretKey::from([9; 32]);
    assert_eq!(net.submit(handles[0], &node.permit(&net, &secret)).status, 200);
}
