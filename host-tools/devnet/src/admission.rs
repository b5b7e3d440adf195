//! How a node comes in: time, challenge, enrolment of its TPM, evidence, certificate, heartbeat.

use blf_appraisal::Expectations;
use blf_appraisal::credential::{CredentialError, make_credential};
use blf_evidence::bundle::{Evidence, Platform};
use blf_evidence::eip191::Signature;
use blf_evidence::icl::{
    Activate, ActivateReply, Attest, AttestReply, Certificate, Challenge, Enroll, EnrollReply, Heartbeat, Time,
};
use blf_evidence::json;
use blf_evidence::statement::{Binding, Keys, Model, Purpose};
use blf_evidence::tpm::Public;
use blf_evidence::{Address, Base64, Hex, UnixTime};
use rusqlite::OptionalExtension as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::appraiser::{Appraiser, Reason, Verdict};
use crate::event::EventKind;
use crate::refusal::{Refused, Result, one_line};
use crate::state::{State, Turn, parse, sql, time};
use crate::{Settings, random};

/// Seconds that a challenge or a credential waits for its answer.
const CHALLENGE_LIFE: u64 = 300;
/// Challenges, and credentials, that one node may have open.
const OPEN: u32 = 8;
/// Longest EK certificate, in bytes.
const EK_CERTIFICATE_CAP: usize = 8 * 1024;
/// Certificates kept of one node: the current one and the one before.
const CERTIFICATES: u32 = 2;

/// A node's certificate and what it was given for.
pub(crate) struct Admitted {
    pub(crate) keys: Keys,
    pub(crate) models: Vec<Model>,
    pub(crate) tier: u8,
    pub(crate) not_after: UnixTime,
}

/// The time, signed (architecture decision 14).
pub(crate) fn signed_time(settings: &Settings, nonce: Hex<32>) -> Time {
    let time = (settings.clock)();
    let signature = Signature::sign(&settings.key, Time::signed_text(&nonce, time).as_bytes());
    Time { nonce, signature, time }
}

/// A stored, single-use challenge.
pub(crate) fn challenge(turn: &Turn<'_>, node: Address) -> Result<Challenge> {
    make_room(turn, "challenges", node)?;
    let challenge = Challenge {
        challenge_id: Hex(random::<16>().map_err(Refused::internal)?).to_string(),
        nonce: Hex(random().map_err(Refused::internal)?),
        audience: turn.settings.audience().to_owned(),
        expires_at: turn.now.plus(CHALLENGE_LIFE),
    };
    turn.tx.execute(
        "INSERT INTO challenges VALUES (?1, ?2, ?3, ?4)",
        (&challenge.challenge_id, node.to_string(), challenge.nonce.to_string(), sql(challenge.expires_at)),
    )?;
    Ok(challenge)
}

/// Gives a TPM a credential to open. Any EK is taken: this is a devnet, and the AK root says so.
pub(crate) async fn enroll(state: &State, request: Enroll) -> Result<EnrollReply> {
    let node = request.node_address;
    let parse = |code: &str, bytes: &[u8]| {
        Public::parse(bytes).map_err(|e| Reason { code: code.into(), detail: format!("TPMT_PUBLIC: {e}") })
    };
    let secret: [u8; 32] = random().map_err(Refused::internal)?;
    let credential = parse("EK_REFUSED", &request.ek_public.0).and_then(|ek| {
        let ak = parse("AK_REFUSED", &request.ak_public.0)?;
        make_credential(&ek, &ak, &secret).map_err(|e| {
            let code = if matches!(e, CredentialError::Ak { .. }) { "AK_REFUSED" } else { "EK_REFUSED" };
            Reason { code: code.into(), detail: e.to_string() }
        })
    });
    let credential = match credential {
        Ok(credential) => credential,
        Err(reason) => return Err(refuse_node(state, node, reason).await),
    };
    if request.ek_certificate.as_ref().is_some_and(|c| c.0.len() > EK_CERTIFICATE_CAP) {
        return Err(Refused::malformed(format!("ekCertificate: wanted at most {EK_CERTIFICATE_CAP} bytes")));
    }
    let enrolment_id = Hex(random::<16>().map_err(Refused::internal)?).to_string();
    let id = enrolment_id.clone();
    state
        .turn(move |turn| {
            make_room(turn, "enrolments", node)?;
            turn.tx.execute(
                "INSERT INTO enrolments VALUES (?1, ?2, ?3, ?4, ?5)",
                (id, node.to_string(), request.ak_public.0, secret, sql(turn.now.plus(CHALLENGE_LIFE))),
            )?;
            Ok(())
        })
        .await?;
    Ok(EnrollReply {
        enrolment_id,
        credential_blob: Base64(credential.id_object.to_bytes()),
        encrypted_secret: Base64(credential.encrypted_secret.to_bytes()),
    })
}

/// Certifies the AK if the TPM opened the credential. One attempt for each credential.
pub(crate) async fn activate(state: &State, request: Activate) -> Result<ActivateReply> {
    let (id, node) = (request.enrolment_id, request.node_address);
    type Row = (Vec<u8>, [u8; 32], i64);
    let row: Option<Row> = state
        .turn(move |turn| {
            let row = turn.tx.query_row(
                "DELETE FROM enrolments WHERE id = ?1 AND node = ?2 RETURNING ak_public, secret, expires_at",
                (id, node.to_string()),
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            );
            Ok(row.optional()?)
        })
        .await?;
    let Some((ak_public, secret, expires_at)) = row else {
        return Err(Refused::not_found("UNKNOWN_ENROLMENT", "enrolmentId: wanted one that is open for this node"));
    };
    if !bool::from(secret.ct_eq(&request.secret.0)) {
        let detail = "secret: wanted what the credential holds: this TPM has not both the EK and the AK";
        return Err(refuse_node(state, node, Reason { code: "WRONG_SECRET".into(), detail: detail.into() }).await);
    }
    let ak = Public::parse(&ak_public).map_err(Refused::internal)?;
    state
        .turn(move |turn| {
            if turn.now > time(expires_at) {
                let detail = format!("secret: wanted by {expires_at}, got {}", turn.now);
                return Err(Refused::forbidden("ENROLMENT_EXPIRED", detail));
            }
            let certificate = turn.settings.ak_authority.attestation_key(&ak, turn.now).map_err(Refused::internal)?;
            turn.tell(EventKind::NodeEnrolled { node });
            Ok(ActivateReply { ak_certificate: Base64(certificate.to_vec()) })
        })
        .await
}

/// Appraises evidence and issues the certificate. The challenge is spent whatever comes of it.
pub(crate) async fn attest(
    state: &State,
    settings: &Settings,
    appraiser: &dyn Appraiser,
    request: Attest,
) -> Result<AttestReply> {
    let node = request.node_address;
    let id = request.challenge_id.clone();
    let nonce = state.turn(move |turn| take_challenge(turn, &id, node)).await?;
    let now = (settings.clock)();
    let appraised = nonce.and_then(|nonce| appraise(settings, appraiser, &request, nonce, now));
    let (binding, verdict) = match appraised {
        Ok(found) => found,
        Err(reason) => return Err(refuse_node(state, node, reason).await),
    };
    let evidence = request.evidence;
    state.turn(move |turn| certify(turn, &binding, &evidence, verdict)).await
}

/// A node lives, or stops.
pub(crate) fn heartbeat(turn: &mut Turn<'_>, request: &Heartbeat) -> Result<()> {
    let node = request.node_address;
    live(turn, node)?;
    seen(turn, node, request.stopping)?;
    turn.tell(EventKind::Heartbeat { node, stopping: request.stopping });
    Ok(())
}

/// The node's certificate, if it is still good.
///
/// 404 means that this ICL does not know the node, 401 that its certificate ended: in both cases it attests again.
pub(crate) fn live(turn: &Turn<'_>, node: Address) -> Result<Admitted> {
    let Some(newest) = certificates(turn, node)?.into_iter().next() else {
        return Err(Refused::not_found("UNKNOWN_NODE", format!("node: wanted one with a certificate, got {node}")));
    };
    if turn.now >= newest.not_after {
        let detail =
            format!("certificate: wanted one that is good at {}, got an end at {}", turn.now, newest.not_after);
        return Err(Refused::unauthorized("CERTIFICATE_EXPIRED", detail));
    }
    Ok(newest)
}

/// The current certificate and the one before, newest first, ended ones included.
pub(crate) fn certificates(turn: &Turn<'_>, node: Address) -> Result<Vec<Admitted>> {
    let mut query = turn
        .tx
        .prepare_cached("SELECT certificate, models FROM certificates WHERE node = ?1 ORDER BY serial DESC LIMIT ?2")?;
    let rows = query
        .query_map((node.to_string(), CERTIFICATES), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (certificate, models) = row?;
        let certificate: Certificate = serde_json::from_str(&certificate)?;
        let models = serde_json::from_str(&models)?;
        let Certificate { keys, tier, not_after, .. } = certificate;
        found.push(Admitted { keys, models, tier, not_after });
    }
    Ok(found)
}

/// Notes that the node is there.
pub(crate) fn seen(turn: &Turn<'_>, node: Address, stopping: bool) -> Result<()> {
    turn.tx.execute(
        "INSERT INTO nodes VALUES (?1, ?2, ?3)
         ON CONFLICT (address) DO UPDATE SET seen_at = ?2, stopping = ?3",
        (node.to_string(), sql(turn.now), stopping),
    )?;
    Ok(())
}

/// Forgets what nobody can answer any more, and certificates long ended.
pub(crate) fn sweep(turn: &Turn<'_>) -> Result<()> {
    let now = sql(turn.now);
    turn.tx.execute("DELETE FROM challenges WHERE expires_at < ?1", [now])?;
    turn.tx.execute("DELETE FROM enrolments WHERE expires_at < ?1", [now])?;
    let week_ago = sql(UnixTime(turn.now.0.saturating_sub(7 * 86_400)));
    turn.tx.execute("DELETE FROM certificates WHERE not_after < ?1", [week_ago])?;
    turn.tx.execute(
        "DELETE FROM nodes WHERE address NOT IN (SELECT node FROM certificates) AND seen_at < ?1",
        [week_ago],
    )?;
    Ok(())
}

/// Spends a challenge, if there is one for this node that is not too old.
fn take_challenge(turn: &Turn<'_>, id: &str, node: Address) -> Result<std::result::Result<Hex<32>, Reason>> {
    let reason = |code: &str, detail: String| Ok(Err(Reason { code: code.into(), detail }));
    let row = turn.tx.query_row(
        "DELETE FROM challenges WHERE id = ?1 AND node = ?2 RETURNING nonce, expires_at",
        (id, node.to_string()),
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)),
    );
    match row.optional()? {
        Some((nonce, expires_at)) if turn.now <= time(expires_at) => Ok(Ok(parse(&nonce)?)),
        Some((_, by)) => reason("CHALLENGE_EXPIRED", format!("challengeId: wanted by {by}, got {}", turn.now)),
        None => reason("CHALLENGE_UNKNOWN", "challengeId: wanted one that is open for this node".into()),
    }
}

/// Our own checks, which need the challenge and the caller, and then the appraiser's.
fn appraise(
    settings: &Settings,
    appraiser: &dyn Appraiser,
    request: &Attest,
    nonce: Hex<32>,
    now: UnixTime,
) -> std::result::Result<(Binding, Verdict), Reason> {
    let reason = |code: &str, detail: String| Reason { code: code.into(), detail };
    let evidence = &request.evidence;
    evidence.check().map_err(|e| reason("EVIDENCE_MALFORMED", e.to_string()))?;
    let binding =
        Binding::parse(evidence.binding.as_bytes()).map_err(|e| reason("EVIDENCE_MALFORMED", e.to_string()))?;
    if binding.keys.node != request.node_address {
        let (wanted, got) = (request.node_address, binding.keys.node);
        return Err(reason("OTHER_NODE", format!("binding keys.node: wanted {wanted}, got {got}")));
    }
    let backend = match evidence.platform {
        Platform::Azure(_) => "azure",
        Platform::Snp(_) => "sev",
        Platform::Tdx(_) => "tdx",
        Platform::Tpm(_) => "tpm",
    };
    if request.backend_type != backend {
        let got = request.backend_type.chars().take(16).collect::<String>();
        return Err(reason("EVIDENCE_MALFORMED", format!("backendType: wanted {backend}, got {got}")));
    }
    let audience = settings.audience().to_owned();
    let expected = Expectations { audience, head: None, nonce, purpose: Purpose::Admission };
    let verdict = appraiser.appraise(evidence, &expected, now)?;
    Ok((binding, verdict))
}

/// Issues and stores the certificate.
fn certify(turn: &mut Turn<'_>, binding: &Binding, evidence: &Evidence, verdict: Verdict) -> Result<AttestReply> {
    let node = binding.keys.node;
    let not_after = turn.now.plus(turn.settings.certificate_life).min(verdict.expires_at);
    let certificate = Certificate {
        binding_sha256: Hex(Sha256::digest(evidence.binding.as_bytes()).into()),
        issued_at: turn.now,
        keys: binding.keys.clone(),
        measurement: verdict.measurement.clone(),
        not_after,
        tier: verdict.tier,
        v: 1,
    };
    let certificate = json::canonical("certificate", &certificate).map_err(Refused::internal)?;
    let signature = Signature::sign(&turn.settings.key, Certificate::signed_text(&certificate).as_bytes());
    let evidence = evidence.to_json().map_err(Refused::internal)?;
    let models = serde_json::to_string(&binding.models)?;
    turn.tx.execute(
        "INSERT INTO certificates (node, certificate, not_after, models, evidence, taken_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (node.to_string(), &certificate, sql(not_after), models, evidence, sql(turn.now)),
    )?;
    turn.tx.execute(
        "DELETE FROM certificates WHERE node = ?1 AND serial NOT IN
         (SELECT serial FROM certificates WHERE node = ?1 ORDER BY serial DESC LIMIT ?2)",
        (node.to_string(), CERTIFICATES),
    )?;
    seen(turn, node, false)?;
    let Verdict { measurement, tier, .. } = verdict;
    turn.tell(EventKind::NodeAdmitted { node, measurement, tier, not_after });
    Ok(AttestReply { certificate, signature })
}

/// Tells of a refusal and gives it back as 403.
async fn refuse_node(state: &State, node: Address, reason: Reason) -> Refused {
    let Reason { code, detail } = reason;
    let detail = one_line(&detail);
    let event = EventKind::NodeRefused { node, code: code.clone(), detail: detail.clone() };
    let told = state
        .turn(move |turn| {
            turn.tell(event);
            Ok(())
        })
        .await;
    match told {
        Ok(()) => Refused::new(hyper::StatusCode::FORBIDDEN, code, detail),
        Err(error) => error,
    }
}

/// Keeps at most [`OPEN`] rows of a node, its newest.
fn make_room(turn: &Turn<'_>, table: &'static str, node: Address) -> Result<()> {
    turn.tx.execute(
        &format!(
            "DELETE FROM {table} WHERE node = ?1 AND rowid NOT IN
             (SELECT rowid FROM {table} WHERE node = ?1 ORDER BY rowid DESC LIMIT ?2)"
        ),
        (node.to_string(), OPEN - 1),
    )?;
    Ok(())
}
