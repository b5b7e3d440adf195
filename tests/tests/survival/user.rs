//! A user who seals a job to nodes of their choice, waits for how it ends, and opens the answer.

use std::time::{Duration, Instant};

use blf::failure::Failure;
use blf::icl::{User, now};
use blf_bridge::prompt::{open_answer, seal_prompt};
use blf_bridge::release::{open_output_key, seal_share};
use blf_bridge::{HpkeKey, Key, Secret, cid, commitment};
use blf_evidence::icl::{Done, Phase, RequestStatus, Submit};
use blf_evidence::job::{CofheShare, JobContext, Share};
use blf_evidence::network::Network;
use blf_evidence::{Address, Hex};
use blf_tests::network::profile;
use blf_tests::wallet::Wallet;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use crate::machine::MEASUREMENT;

/// How long a job may take, whatever happens.
const DEADLINE: u64 = 25;

pub(crate) struct Asker {
    pub(crate) wallet: Wallet,
    token: String,
}

/// The share of a prompt key that CoFHE holds, and who does not need to ask for it: its user.
pub(crate) struct Shared {
    pub(crate) share: CofheShare,
    pub(crate) key: Key,
}

/// A submitted job: what only the user holds.
pub(crate) struct Job {
    pub(crate) id: Hex<32>,
    pub(crate) context: String,
    pub(crate) blob: Vec<u8>,
    pub(crate) shares: Vec<Share>,
    prompt_key: Key,
    reply: HpkeKey,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The opened answer.
    Answer(String),
    /// Why there is none, in the coordinator's words.
    Failure(String),
}

impl Asker {
    /// A user of the network with an account of their own.
    pub(crate) fn new(network: &Network) -> Self {
        let wallet = Wallet::new(profile(), network.resolve.clone());
        Self { wallet, token: network.pinning_token.clone() }
    }

    fn user(&self) -> User<'_> {
        User::new(&self.wallet.client, self.wallet.profile.icl.clone(), self.wallet.key.clone())
    }

    /// Seals and submits a job to `members`, leader first, and `spares`; the second value of each is its HPKE key.
    pub(crate) async fn submit(
        &self,
        model: (&str, Hex<32>),
        members: &[(Address, Hex<32>)],
        spares: &[(Address, Hex<32>)],
    ) -> Result<Job, Failure> {
        self.submit_sharing(Hex(*Key::random().unwrap().expose()), model, members, spares, None).await
    }

    /// Has CoFHE keep a key under the id of a job to come, for `readers`.
    pub(crate) async fn share(&self, id: Hex<32>, readers: &[Address]) -> Shared {
        let key = Key::random().unwrap();
        self.wallet.store(id, &key, readers).await;
        let [high, low] = self.wallet.stored(id).await.map(|handle| Hex(handle.0));
        Shared { share: CofheShare { high, low }, key }
    }

    /// As [`Self::submit`], under this id; of a key that CoFHE shares, the nodes get the other share.
    pub(crate) async fn submit_sharing(
        &self,
        id: Hex<32>,
        model: (&str, Hex<32>),
        members: &[(Address, Hex<32>)],
        spares: &[(Address, Hex<32>)],
        shared: Option<&Shared>,
    ) -> Result<Job, Failure> {
        let (prompt_key, reply) = (Key::random().unwrap(), HpkeKey::generate().unwrap());
        let context = JobContext {
            cofhe: shared.map(|shared| shared.share),
            job_id: id,
            measurements: vec![MEASUREMENT.into()],
            max_new_tokens: 4,
            model_manifest_sha256: model.1,
            not_after: now().plus(DEADLINE),
            reply_hpke: reply.public(),
            user: self.user().address(),
            v: 1,
        };
        let blob = seal_prompt(&prompt_key, &context, &Secret::new(b"What survives?".to_vec())).unwrap();
        let prompt_cid = self.pin(&blob).await?;
        let context = context.to_canonical().unwrap();
        let theirs = shared.map(|shared| prompt_key.xor(&shared.key));
        let key = theirs.as_ref().unwrap_or(&prompt_key);
        let nodes = members.iter().chain(spares);
        let shares = nodes.map(|(node, hpke)| seal_share(key, *node, *hpke, &context).unwrap());
        let submit = Submit {
            context: context.clone(),
            leader: members[0].0,
            model_id: model.0.into(),
            prompt_cid,
            shares: shares.collect(),
            spares: spares.iter().map(|s| s.0).collect(),
            verifiers: members[1..].iter().map(|m| m.0).collect(),
        };
        persist(async || match self.user().post::<Done>("/v1/inference/requests", &submit).await {
            // The one before arrived, its reply did not.
            Err(failure) if failure.code == "ALREADY_SUBMITTED" => Ok(()),
            other => other.map(drop),
        })
        .await?;
        Ok(Job { id, context, blob, shares: submit.shares, prompt_key, reply })
    }

    pub(crate) async fn status(&self, job: Hex<32>) -> Result<RequestStatus, Failure> {
        persist(async || self.user().get(&format!("/v1/inference/{job}")).await).await
    }

    /// Waits for the job's end, which must come.
    pub(crate) async fn end(&self, job: &Job) -> End {
        let until = Instant::now() + Duration::from_secs(DEADLINE * 3);
        let status = loop {
            let status = self.status(job.id).await.unwrap();
            if matches!(status.phase, Phase::Accepted | Phase::Rejected | Phase::Failed) {
                break status;
            }
            assert!(Instant::now() < until, "job {} is lost: {status:?}", job.id);
            tokio::time::sleep(Duration::from_millis(150)).await;
        };
        if status.phase == Phase::Accepted { End::Answer(self.open(job, status).await) } else { failure(&status) }
    }

    async fn open(&self, job: &Job, status: RequestStatus) -> String {
        let (answer, signature) = (status.answer.unwrap(), status.signature.unwrap());
        assert_eq!(answer.job_id, job.id);
        signature.verify(answer.signed_text().unwrap().as_bytes(), answer.response).unwrap();
        let path = format!("/ipfs/{}", answer.output_cid);
        let blob = persist(async || self.blob(Method::GET, &path, HeaderMap::new(), Bytes::new()).await).await.unwrap();
        cid::check(&answer.output_cid, &blob).unwrap();
        let key = open_output_key(&job.reply, &answer.output_key, &job.id, &answer.output_cid).unwrap();
        let text = open_answer(&key, &blob).unwrap();
        assert_eq!(commitment::commitment(&job.prompt_key, &job.id, &text), answer.commitment);
        String::from_utf8(text.expose().to_vec()).unwrap()
    }

    /// Stores a blob; its CID.
    pub(crate) async fn pin(&self, blob: &[u8]) -> Result<String, Failure> {
        let boundary = format!("blf-{}", cid::of(blob));
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"blob\"\r\n\r\n";
        let mut body = format!("--{boundary}\r\n{head}").into_bytes();
        body.extend_from_slice(blob);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let body = Bytes::from(body);
        let mut headers = HeaderMap::new();
        let form = format!("multipart/form-data; boundary={boundary}");
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(&form).unwrap());
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", self.token)).unwrap());
        let path = "/pinning/pinFileToIPFS";
        persist(async || self.blob(Method::POST, path, headers.clone(), body.clone()).await).await?;
        Ok(cid::of(blob))
    }

    async fn blob(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Result<Bytes, Failure> {
        let host = &self.wallet.profile.blob_pinning;
        let cap = blf_bridge::blob::BLOB_CAP;
        let reply = self.wallet.client.request(host, method, path, headers, body, cap).await?;
        if reply.status == StatusCode::OK {
            return Ok(reply.body);
        }
        let code = format!("HTTP_{}", reply.status.as_u16());
        let words = String::from_utf8_lossy(&reply.body).into_owned();
        Err(Failure::new(blf::failure::Exit::Failed, &code, words))
    }
}

fn failure(status: &RequestStatus) -> End {
    assert!(status.answer.is_none(), "a failed job shows no answer");
    let reason = status.reason.clone().unwrap_or_default();
    assert!(!reason.is_empty(), "a job that ended without a reason: {status:?}");
    End::Failure(reason)
}

/// What passes when the devnet is there again; the last two are a devnet that is just being taken down.
const PASSING: [&str; 5] = ["UNREACHABLE", "NO_REPLY", "TIMEOUT", "INTERNAL", "HTTP_500"];

/// Asks again while the network is being restarted.
async fn persist<T>(ask: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match ask().await {
            Err(failure) if PASSING.contains(&failure.code.as_str()) && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}
