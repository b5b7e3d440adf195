//! The chain by JSON-RPC, as far as storing a key needs it. What an RPC says is believed by nobody: the vault signs one call
//! to one contract at a bounded price, and a lie about the rest costs the job.

use std::time::Duration;

use blf_bridge::cofhe::EncryptedInput;
use blf_contracts::transaction::fees;
use blf_evidence::json::{self, JsonError};
use blf_evidence::profile::{Host, Inputs, NetworkProfile};
use blf_evidence::{Address, Hex};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::courier::cofhe::post;
use crate::courier::https::{HttpError, Https, Reply};
use crate::courier::job::{JobError, retry};
use crate::courier::vault::CallError;
use crate::daemon::Node;
use crate::frames::{FromVault, ToVault};
use crate::legacy::frames::{Ask, Input, StoreKey, Told, store_key_call};
use crate::legacy::wire::JobId;
use crate::tunnel::Tunnel;

/// The chain, and this node's account on it.
pub(crate) struct Chain<T> {
    rpc: Https<T>,
    /// With whatever the operator's account there needs: never said.
    path: String,
    account: Address,
    prompt_key_store: Address,
    inputs: Inputs,
    /// One transaction at a time: two would have the same nonce.
    turn: Mutex<()>,
}

/// Why a key is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    /// No reply.
    #[error("rpc: {0}")]
    Http(#[from] HttpError),
    /// Another reply than asked for.
    #[error(transparent)]
    Malformed(#[from] JsonError),
    /// The RPC says no.
    #[error("rpc: {method}: error {code}")]
    Refused {
        /// Which method.
        method: &'static str,
        /// JSON-RPC's code.
        code: i64,
    },
    /// The transaction failed on the chain.
    #[error("transaction: reverted")]
    Reverted,
    /// Another status than 200.
    #[error("rpc: wanted 200, got {status}")]
    Status {
        /// HTTP status.
        status: StatusCode,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// No receipt.
    #[error("transaction: no receipt within {} s", RECEIPT.as_secs())]
    Unmined,
}

/// Longest reply that is read, in bytes; a receipt of this contract takes a few thousand.
const REPLY_CAP: usize = 256 * 1024;
/// Attempts at one transaction: as many as the vault signs.
const ATTEMPTS: u8 = 3;
/// How long a transaction may take to be mined.
const RECEIPT: Duration = Duration::from_secs(60);
/// Between the first two looks for a receipt: Arbitrum has a block every quarter of a second. Doubles up to [`LOOK`].
const BLOCK: Duration = Duration::from_millis(250);
/// Between two later ones, and between two attempts.
const LOOK: Duration = Duration::from_secs(1);
const SIGN: Duration = Duration::from_secs(10);
/// The one method that changes something.
const SEND: &str = "eth_sendRawTransaction";

impl<T: Tunnel> Chain<T> {
    /// The chain that `profile` names, asked at `path`, reached by what `server` makes.
    pub(crate) fn new(
        profile: &NetworkProfile,
        account: Address,
        path: String,
        server: impl FnOnce(Host) -> Https<T>,
    ) -> Option<Self> {
        let cofhe = profile.cofhe.as_ref()?;
        let rpc = server(cofhe.rpc.clone());
        Some(Self {
            rpc,
            path,
            account,
            prompt_key_store: cofhe.prompt_key_store,
            inputs: cofhe.inputs,
            turn: Mutex::default(),
        })
    }

    /// How inputs are encrypted.
    pub(crate) fn inputs(&self) -> Inputs {
        self.inputs
    }

    /// Uses no connection made before.
    pub(crate) fn renew(&self) {
        self.rpc.renew();
    }

    /// Stores the output key of `job` for `user`, and waits until it is mined.
    pub(crate) async fn store_key(
        &self,
        node: &Node<T>,
        end: Instant,
        job: &JobId,
        user: Address,
        inputs: [EncryptedInput; 2],
    ) -> Result<(), JobError> {
        let _turn = self.turn.lock().await;
        let inputs = inputs.map(Into::into);
        let data = store_key_call(job, &inputs, user);
        let mut attempt = 1;
        loop {
            match self.attempt(node, end, job, &data, inputs.clone()).await {
                // Somebody's transaction came before ours, or the price went up.
                Err(JobError::Chain(ChainError::Refused { method: SEND, .. })) if attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
            sleep(LOOK).await;
        }
    }

    async fn attempt(
        &self,
        node: &Node<T>,
        end: Instant,
        job: &JobId,
        data: &[u8],
        inputs: [Input; 2],
    ) -> Result<(), JobError> {
        let account = self.account.to_string();
        let call = json!({
            "from": account, "to": self.prompt_key_store.to_string(), "data": format!("0x{}", hex::encode(data)), "value": "0x0",
        });
        let ask = |method, params: Value| retry(node, end, move || self.quantity(method, params.clone()));
        let nonce = ask("eth_getTransactionCount", json!([account, "pending"])).await?;
        let base = retry(node, end, || self.ask::<Block>("eth_getBlockByNumber", json!(["latest", false]))).await?;
        let tip = match ask("eth_maxPriorityFeePerGas", json!([])).await {
            Err(JobError::Chain(ChainError::Refused { .. })) => None,
            tip => Some(tip?.into()),
        };
        let (max_priority_fee, max_fee) = fees(quantity(&base.base_fee_per_gas)?.into(), tip);
        let gas = ask("eth_estimateGas", json!([call])).await?;
        let store = StoreKey {
            job: job.digest(),
            inputs,
            nonce,
            max_fee,
            max_priority_fee,
            // An estimate holds for the state it was made on.
            gas: gas.saturating_add(gas / 4),
        };
        let FromVault::Legacy(Told::Transaction { raw, hash }) =
            node.vault.call(ToVault::Legacy(Ask::StoreKey(store)), SIGN).await?
        else {
            return Err(CallError::Unexpected.into());
        };
        self.send(node, end, &raw).await?;
        Ok(self.mined(hash).await?)
    }

    /// Sends one transaction, which can be mined only once, however often it is sent.
    async fn send(&self, node: &Node<T>, end: Instant, raw: &[u8]) -> Result<(), JobError> {
        let raw = format!("0x{}", hex::encode(raw));
        let mut sent = 0;
        let send = || {
            sent += 1;
            self.ask::<String>(SEND, json!([raw]))
        };
        match retry(node, end, send).await {
            // Known already: the reply to an earlier attempt was lost. If it was not, no receipt will come.
            Err(JobError::Chain(ChainError::Refused { .. })) if sent > 1 => Ok(()),
            done => done.map(drop),
        }
    }

    async fn mined(&self, hash: Hex<32>) -> Result<(), ChainError> {
        let end = Instant::now() + RECEIPT;
        let mut pause = BLOCK;
        loop {
            let receipt: Result<Option<Receipt>, _> =
                self.ask("eth_getTransactionReceipt", json!([format!("0x{hash}")])).await;
            match receipt {
                Ok(Some(Receipt { status })) if status == "0x1" => return Ok(()),
                Ok(Some(_)) => return Err(ChainError::Reverted),
                // The transaction is out: whatever goes wrong with looking, it may be mined all the same.
                _ if Instant::now() < end => {}
                Ok(None) => return Err(ChainError::Unmined),
                Err(error) => return Err(error),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    }

    async fn quantity(&self, method: &'static str, params: Value) -> Result<u64, ChainError> {
        quantity(&self.ask::<String>(method, params).await?)
    }

    /// One call of JSON-RPC 2.0.
    async fn ask<R: serde::de::DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<R, ChainError> {
        #[derive(Deserialize)]
        struct Answer {
            error: Option<Fault>,
            #[serde(default)]
            result: Value,
        }
        #[derive(Deserialize)]
        struct Fault {
            code: i64,
        }
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let outgoing = post(self.path.clone(), request.to_string().into());
        let Reply { status, retry_after, body } = self.rpc.send(outgoing, REPLY_CAP).await?;
        if status != StatusCode::OK {
            return Err(ChainError::Status { status, retry_after });
        }
        let answer: Answer = json::parse("rpc answer", &body, REPLY_CAP)?;
        if let Some(Fault { code }) = answer.error {
            return Err(ChainError::Refused { method, code });
        }
        let malformed = |error: serde_json::Error| malformed(&error.to_string());
        serde_json::from_value(answer.result).map_err(malformed)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    base_fee_per_gas: String,
}

#[derive(Deserialize)]
struct Receipt {
    status: String,
}

/// A quantity as Ethereum's JSON-RPC writes it: `0x` and hex digits without leading zeros.
fn quantity(text: &str) -> Result<u64, ChainError> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| malformed("wanted a 0x quantity"))
}

fn malformed(error: &str) -> ChainError {
    JsonError::Malformed { what: "rpc answer", error: json::excerpt(error) }.into()
}

impl ChainError {
    /// Stable, in capitals.
    pub(crate) fn code(&self) -> String {
        match self {
            Self::Http(error) => error.code().into(),
            Self::Malformed(_) => "RPC_REPLY".into(),
            Self::Refused { method, .. } => format!("RPC_{}", method.trim_start_matches("eth_").to_ascii_uppercase()),
            Self::Reverted => "TRANSACTION_REVERTED".into(),
            Self::Status { status, .. } => format!("RPC_HTTP_{}", status.as_u16()),
            Self::Unmined => "TRANSACTION_UNMINED".into(),
        }
    }

    /// Worth another attempt: nobody judged anything yet.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Http(HttpError::BodyTooLong { .. }) => false,
            Self::Http(_) => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// When the RPC wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
