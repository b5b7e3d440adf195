//! The blob store as a gateway and as a pinning service.

use blf_devnet::BLOB_CAP;
use bytes::Bytes;

use crate::client::{BLOBS, Draft, ICL, Reply};
use crate::nodes::{Net, START};

/// `hello world` as every IPFS implementation names it (raw leaf, CIDv1).
const HELLO: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

async fn pin(net: &Net, token: &str, file: &[u8]) -> Reply {
    let head = b"--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"blob\"\r\n\r\n";
    let body = Bytes::from([head, file, b"\r\n--xyz--\r\n"].concat());
    let draft = Draft::new("POST", BLOBS, "/pinning/pinFileToIPFS", body)
        .with("authorization", format!("Bearer {token}"))
        .with("content-type", "multipart/form-data; boundary=xyz");
    draft.send(net.running.address).await
}

async fn get(net: &Net, cid: &str) -> Reply {
    Draft::new("GET", BLOBS, &format!("/ipfs/{cid}"), Bytes::new()).send(net.running.address).await
}

#[tokio::test]
async fn what_is_pinned_is_there_under_its_cid() {
    let net = Net::start().await;
    assert_eq!(get(&net, HELLO).await.refused(), (404, "UNKNOWN_BLOB".into()));
    for _ in 0..2 {
        let reply: serde_json::Value = pin(&net, "development", b"hello world").await.ok();
        let wanted = serde_json::json!({"IpfsHash": HELLO, "PinSize": 11, "Timestamp": "2026-11-20T09:08:08Z"});
        assert_eq!((reply, START), (wanted, 1_795_165_688));
    }
    let reply = get(&net, HELLO).await;
    assert_eq!(
        (&reply.body[..], &reply.headers["content-type"]),
        (&b"hello world"[..], &"application/octet-stream".parse().unwrap())
    );
    net.stop().await;
}

#[tokio::test]
async fn only_with_the_token() {
    let net = Net::with(|options| options.pinning_token = "secret".into()).await;
    for token in ["development", "", "secre", "secrett"] {
        assert_eq!(pin(&net, token, b"x").await.refused(), (401, "WRONG_TOKEN".into()), "{token}");
    }
    let bare = Draft::new("POST", BLOBS, "/pinning/pinFileToIPFS", Bytes::new());
    assert_eq!(bare.send(net.running.address).await.refused(), (401, "WRONG_TOKEN".into()));
    pin(&net, "secret", b"x").await.ok::<serde_json::Value>();
    net.stop().await;
}

#[tokio::test]
async fn caps_and_spellings() {
    let net = Net::start().await;
    pin(&net, "development", &vec![0; BLOB_CAP]).await.ok::<serde_json::Value>();
    assert_eq!(pin(&net, "development", &vec![0; BLOB_CAP + 1]).await.refused(), (413, "TOO_LARGE".into()));
    assert_eq!(pin(&net, "development", &vec![0; 2 * BLOB_CAP]).await.refused(), (413, "TOO_LARGE".into()));
    let upper = HELLO.to_uppercase();
    for bad in ["x", &upper, "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnNHcM", ".."] {
        assert_eq!(get(&net, bad).await.refused(), (400, "MALFORMED".into()), "{bad}");
    }
    let odd = Draft::new("POST", BLOBS, "/pinning/pinFileToIPFS", Bytes::from_static(b"x"))
        .with("authorization", "Bearer development");
    assert_eq!(odd.send(net.running.address).await.refused(), (400, "MALFORMED".into()), "not multipart");
    let icl = Draft::new("GET", ICL, &format!("/ipfs/{HELLO}"), Bytes::new());
    assert_eq!(icl.send(net.running.address).await.refused(), (401, "NOT_SIGNED".into()), "the ICL is another peer");
    net.stop().await;
}
