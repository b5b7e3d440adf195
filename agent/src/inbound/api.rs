//! What may be asked: fresh evidence, and whether the node is up. Answers are JSON; a refusal has a code.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::bundle::Evidence;
use blf_evidence::icl::Refusal;
use blf_evidence::json;
use blf_evidence::statement::{Binding, Purpose};
use blf_evidence::telemetry::Event;
use blf_evidence::{Address, Hex};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use crate::courier::evidence::DEVICE;
use crate::daemon::Node;
use crate::tunnel::Tunnel;

/// The API of one node.
pub(super) struct Api<T> {
    node: Arc<Node<T>>,
    /// When the next evidence may be made: one after another, with the pause of those that the ICL relays.
    turn: Arc<Mutex<Instant>>,
}

/// How long a client may wait for its turn.
const TURN: Duration = Duration::from_secs(10);

/// `GET /v1/health`
#[derive(Serialize)]
struct Health {
    /// Whether a certificate of the ICL is in force.
    certified: bool,
    node: Address,
    schema: &'static str,
}

/// A status and a code.
type Refused = (StatusCode, String, &'static str);

impl<T: Tunnel> Api<T> {
    pub(super) fn new(node: Arc<Node<T>>) -> Self {
        Self { node, turn: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Answers one request that came in a session with `key`. Its body is not read.
    pub(super) async fn answer(
        &self,
        key: Hex<32>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let answered = match (request.method(), request.uri().path(), request.uri().query()) {
            (&Method::GET, "/v1/evidence", query) => self.evidence(key, query.unwrap_or_default()).await,
            (&Method::GET, "/v1/health", None) => self.health(),
            _ => Err((StatusCode::NOT_FOUND, "NOT_FOUND".into(), "wanted GET /v1/evidence or GET /v1/health")),
        };
        Ok(match answered {
            Ok(body) => response(StatusCode::OK, body),
            Err((status, code, detail)) => {
                let refusal = Refusal { code, detail: detail.into() };
                response(status, json::canonical("refusal", &refusal).unwrap_or_default())
            }
        })
    }

    async fn evidence(&self, key: Hex<32>, query: &str) -> Result<String, Refused> {
        let (nonce, audience) = question(query).ok_or_else(|| {
            let wanted = "wanted nonce=<64 hex digits>&audience=<address>";
            (StatusCode::BAD_REQUEST, "BAD_QUERY".into(), wanted)
        })?;
        let busy = |code: &str, detail| (StatusCode::SERVICE_UNAVAILABLE, code.to_owned(), detail);
        let mut turn = timeout(TURN, async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            sleep_until(*turn).await;
            turn
        })
        .await
        .map_err(|_| busy("BUSY", "too many ask; come again"))?;
        // In a task of its own: a client that hangs up ends neither what the vault does for it nor its turn.
        let node = Arc::clone(&self.node);
        let making = tokio::spawn(async move {
            let made = node.vault.attest(Purpose::Preview, audience.to_string(), nonce, DEVICE).await;
            *turn = Instant::now() + node.timings.evidence;
            made
        });
        let made = making.await.map_err(|_| busy("INTERNAL", "no evidence now"))?;
        let text = made.map_err(|error| busy(error.code(), "no evidence now"))?;
        // What ends elsewhere would look like a session that does.
        if tls_key(&text) != Some(key) {
            return Err(busy("KEYS_ROTATED", "the keys have changed since the handshake; come again"));
        }
        self.node.telemetry.say(Event::EvidenceGiven {});
        Ok(text)
    }

    fn health(&self) -> Result<String, Refused> {
        let admitted = *self.node.admission.borrow();
        let health = Health {
            certified: admitted.is_some_and(|admitted| self.node.clock.now() < admitted.until),
            node: self.node.identity.node,
            schema: "blf.health/v1",
        };
        json::canonical("health", &health)
            .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL".into(), "no answer"))
    }
}

/// Nonce and audience, each once and in no other spelling.
fn question(query: &str) -> Option<(Hex<32>, Address)> {
    let (first, second) = query.split_once('&')?;
    let (nonce, audience) = if first.starts_with("nonce=") { (first, second) } else { (second, first) };
    let nonce = nonce.strip_prefix("nonce=")?.parse().ok()?;
    Some((nonce, audience.strip_prefix("audience=")?.parse().ok()?))
}

fn tls_key(evidence: &str) -> Option<Hex<32>> {
    let evidence = Evidence::parse(evidence.as_bytes()).ok()?;
    Some(Binding::parse(evidence.binding.as_bytes()).ok()?.keys.tls_spki_sha256)
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::courier::vault::Vault;
    use crate::daemon::tests::node_of;
    use crate::frames::{self, FromVault, HEADER};

    /// The id of the next frame to the vault.
    async fn asked(vault: &mut DuplexStream) -> u32 {
        let mut header = [0; HEADER];
        vault.read_exact(&mut header).await.unwrap();
        let (id, length) = frames::parse_header(header).unwrap();
        vault.read_exact(&mut vec![0; length]).await.unwrap();
        id
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_takes_no_turn_from_others_and_gains_none() {
        let (ours, mut vault) = tokio::io::duplex(64 * 1024);
        let (link, work) = Vault::connect(ours);
        tokio::spawn(work);
        let api = Arc::new(Api::new(node_of(link)));
        let ask = || {
            let api = Arc::clone(&api);
            let query = format!("nonce={}&audience={}", Hex([7; 32]), Address([9; 20]));
            tokio::spawn(async move { api.evidence(Hex([0; 32]), &query).await })
        };
        let first = ask();
        let id = asked(&mut vault).await;
        first.abort();
        let second = ask();
        let early = timeout(TURN / 2, asked(&mut vault)).await;
        assert!(early.is_err(), "the device is still at work for the first");
        let busy = FromVault::Refused { code: "TPM_BUSY".into() };
        vault.write_all(&frames::encode(id, &busy).unwrap()).await.unwrap();
        let id = asked(&mut vault).await;
        vault.write_all(&frames::encode(id, &busy).unwrap()).await.unwrap();
        assert_eq!(second.await.unwrap().unwrap_err().1, "TPM_BUSY");
    }

    #[test]
    fn a_question_has_both_members_once() {
        let nonce = format!("nonce={}", Hex([7; 32]));
        let audience = format!("audience={}", Address([9; 20]));
        let wanted = Some((Hex([7; 32]), Address([9; 20])));
        assert_eq!(question(&format!("{nonce}&{audience}")), wanted);
        assert_eq!(question(&format!("{audience}&{nonce}")), wanted);
        for bad in [
            String::new(),
            nonce.clone(),
            audience.clone(),
            format!("{nonce}&{nonce}"),
            format!("{nonce}&{audience}&{nonce}"),
            format!("{nonce}&{audience}&x=1"),
            format!("{nonce}00&{audience}"),
            format!("{}&{audience}", nonce.replace("07", "%30")),
            format!("{nonce}&audience=icl.test"),
            format!("{nonce}&{audience}&"),
        ] {
            assert_eq!(question(&bad), None, "{bad}");
        }
    }
}
