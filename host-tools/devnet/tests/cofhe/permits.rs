//! Permits made by the network's own SDK, as the ACL contract and the threshold network take them.

use alloy_sol_types::SolCall as _;
use alloy_sol_types::private::{FixedBytes, U256, keccak256};
use blf_devnet::cofhe::{Knobs, Shape, Submit};
use crypto_box::SecretKey;
use serde_json::Value;

use crate::net::{
    Account, Net, Permission, VALUES, checkPermitValidityCall, document, isAllowedWithPermissionCall, trimmed, unhexed,
    unseal,
};

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/permits.json")).unwrap()
}

fn permission(case: &Value) -> Permission {
    let permission = &case["permission"];
    let address = |name: &str| FixedBytes::<20>::from_slice(&unhexed(&permission[name])).into();
    Permission {
        issuer: address("issuer"),
        expiration: permission["expiration"].as_u64().unwrap(),
        recipient: address("recipient"),
        validatorId: U256::from(permission["validatorId"].as_u64().unwrap()),
        validatorContract: address("validatorContract"),
        sealingKey: FixedBytes::from_slice(&unhexed(&permission["sealingKey"])),
        issuerSignature: unhexed(&permission["issuerSignature"]).into(),
        recipientSignature: unhexed(&permission["recipientSignature"]).into(),
    }
}

/// What the contract says: nothing, or the name of its error.
fn check(net: &Net, permission: Permission) -> Result<(), &'static str> {
    let refusals = ["Disabled", "Expired", "IssuerSignature", "RecipientSignature"];
    match net.call(net.contracts.acl, &checkPermitValidityCall { permission }.abi_encode()) {
        Ok(output) => {
            assert!(checkPermitValidityCall::abi_decode_returns(&output).unwrap());
            Ok(())
        }
        Err((_, data)) => {
            let is = |name: &&&str| keccak256(format!("PermissionInvalid_{name}()"))[..4] == data[..];
            Err(refusals.iter().find(is).unwrap())
        }
    }
}

#[test]
fn the_contract_takes_the_sdks_permits() {
    let net = Net::new();
    let vectors = vectors();
    assert_eq!(vectors["domain"]["verifyingContract"], net.contracts.acl.to_string());
    for (at, kind, wanted) in [(0, "self", Ok(())), (1, "sharing", Err("RecipientSignature")), (2, "recipient", Ok(()))]
    {
        let case = &vectors["cases"][at];
        assert_eq!(case["type"], kind);
        assert_eq!(check(&net, permission(case)), wanted, "{kind}");
    }
}

#[test]
fn nothing_in_a_permit_can_be_changed() {
    let net = Net::new();
    let vectors = vectors();
    let (own, taken) = (&vectors["cases"][0], &vectors["cases"][2]);
    let mutate = |case: &Value, change: fn(&mut Permission)| {
        let mut changed = permission(case);
        change(&mut changed);
        check(&net, changed)
    };
    let changes: [fn(&mut Permission); 6] = [
        |p| p.issuer = [5; 20].into(),
        |p| p.expiration += 1,
        |p| p.recipient = [5; 20].into(),
        |p| p.validatorId = U256::from(1),
        |p| p.validatorContract = [5; 20].into(),
        |p| p.issuerSignature = vec![1; 65].into(),
    ];
    for (member, change) in changes.into_iter().enumerate() {
        assert_eq!(mutate(own, change), Err("IssuerSignature"), "self: {member}");
        assert_eq!(mutate(taken, change), Err("IssuerSignature"), "recipient: {member}");
    }
    assert_eq!(mutate(own, |p| p.sealingKey = [5; 32].into()), Err("IssuerSignature"));
    assert_eq!(mutate(taken, |p| p.sealingKey = [5; 32].into()), Err("RecipientSignature"));
    assert_eq!(mutate(taken, |p| p.recipientSignature = vec![1; 65].into()), Err("RecipientSignature"));
    assert_eq!(mutate(own, |p| p.recipientSignature = vec![1; 65].into()), Ok(()), "a self permit has no recipient");
    assert_eq!(mutate(own, |p| p.issuerSignature = vec![].into()), Err("IssuerSignature"));
}

#[test]
fn permits_end() {
    let net = Net::new();
    let own = &vectors()["cases"][0];
    net.set_clock(1_800_000_000);
    assert_eq!(check(&net, permission(own)), Ok(()), "the last second counts");
    net.set_clock(1_800_000_001);
    assert_eq!(check(&net, permission(own)), Err("Expired"));
}

/// The SDK's permits as it sends them, for a key that the first development account may use.
#[test]
fn the_threshold_network_seals_to_the_sdks_keys() {
    let net = Net::new();
    net.cofhe.set(Knobs { submits: vec![Submit::AtOnce(Shape::Nested)], ..Knobs::default() });
    let vectors = vectors();
    let issuer = vectors["cases"][0]["permission"]["issuer"].as_str().unwrap().parse().unwrap();
    let [handle, _] = net.store(&Account::new(1), &[issuer]);
    for (at, wanted) in [(0, 200), (1, 403), (2, 200)] {
        let case = &vectors["cases"][at];
        let answer = net.submit(handle, &case["permission"]);
        assert_eq!(answer.status, wanted, "{}", document(&answer));
        let call = isAllowedWithPermissionCall { permission: permission(case), handle: U256::from_be_bytes(handle) };
        let output = net.call(net.contracts.acl, &call.abi_encode());
        assert_eq!(output.is_ok(), wanted == 200);
        if wanted == 200 {
            let secret: [u8; 32] = hex::decode(case["sealing_sk"].as_str().unwrap()).unwrap().try_into().unwrap();
            let value = unseal(&SecretKey::from(secret), &document(&answer)["sealed"]).unwrap();
            assert_eq!(value, trimmed(VALUES[0]));
            assert!(isAllowedWithPermissionCall::abi_decode_returns(&output.unwrap()).unwrap());
        }
    }
    // Access is the issuer's alone: the recipient of a shared permit has none without it.
    let [other, _] = net.store(&Account::new(1), &[]);
    let answer = net.submit(other, &vectors["cases"][2]["permission"]);
    assert_eq!(answer.status, 403);
    assert!(document(&answer)["message"].as_str().unwrap().contains("is not allowed to use handle"));
}
