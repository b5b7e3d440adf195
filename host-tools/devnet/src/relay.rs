//! Evidence on demand: a user's nonce goes to the node with its next poll, the node's answer back to the user.
//!
//! The ICL only carries: the nonce and the audience are the user's, and the user appraises. A question without a nonce is
//! for cached evidence, which stays with the certificate: it is long, and anybody may ask for it often.

use blf_evidence::icl::{AskEvidence, AskEvidenceReply, EvidenceReply, EvidenceRequest, FreshEvidence};
use blf_evidence::statement::{Binding, Purpose};
use blf_evidence::{Address, Hex, UnixTime};
use rusqlite::OptionalExtension as _;

use crate::admission;
use crate::event::EventKind;
use crate::random;
use crate::refusal::{Refused, Result};
use crate::state::{Turn, parse, sql, time};

/// Seconds that a user's question waits for the node, and its answer for the user.
const LIFE: u64 = 600;
/// Seconds after which a question is shown to the node again, in case the reply that carried it was lost.
const SHOW_AGAIN: u64 = 30;
/// Seconds after its end that a question is kept, so that a late node learns that it is late.
const LATE: u64 = 60;
/// Questions that may wait for one node, and that one user may have, answered ones included.
const OPEN: u32 = 32;

/// A user asks for evidence, fresh with a nonce or cached with an age.
pub(crate) fn ask(turn: &mut Turn<'_>, user: Address, node: Address, ask: &AskEvidence) -> Result<AskEvidenceReply> {
    admission::live(turn, node)?;
    let open: u32 = turn.tx.query_row(
        // What is answered costs the node nothing more: counted, it would shut out everybody else.
        "SELECT COUNT(*) FROM evidence_requests
         WHERE (node = ?1 AND nonce IS NOT NULL AND evidence IS NULL OR user = ?2) AND expires_at >= ?3",
        (node.to_string(), user.to_string(), sql(turn.now)),
        |row| row.get(0),
    )?;
    if open >= OPEN {
        let detail = format!("evidence: wanted at most {OPEN} open questions, got {open}");
        return Err(Refused::too_many("TOO_MANY_QUESTIONS", detail, LIFE));
    }
    match (ask.nonce, ask.max_age) {
        (Some(_), 0) => {}
        (None, max_age @ 1..) => {
            let age = age(turn, cached(turn, node)?.1);
            if age > max_age {
                let detail = format!("evidence: wanted at most {max_age} seconds old, got {age}");
                return Err(Refused::not_found("NO_CACHED_EVIDENCE", detail));
            }
        }
        _ => return Err(Refused::malformed("wanted a nonce and max_age 0, or no nonce and a max_age in seconds")),
    }
    let request_id = Hex(random::<16>().map_err(Refused::internal)?).to_string();
    turn.tx.execute(
        "INSERT INTO evidence_requests VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL, NULL)",
        (
            &request_id,
            user.to_string(),
            node.to_string(),
            ask.nonce.map(|nonce| nonce.to_string()),
            sql(turn.now.plus(LIFE)),
        ),
    )?;
    turn.tell(EventKind::EvidenceAsked { node, user });
    Ok(AskEvidenceReply { request_id })
}

/// Questions that wait for `node`. Each is shown once, and again after a while.
pub(crate) fn waiting(turn: &Turn<'_>, node: Address) -> Result<Vec<EvidenceRequest>> {
    let shown_before = sql(UnixTime(turn.now.0.saturating_sub(SHOW_AGAIN)));
    let mut query = turn.tx.prepare_cached(
        "UPDATE evidence_requests SET shown_at = ?2
         WHERE node = ?1 AND nonce IS NOT NULL AND evidence IS NULL AND expires_at >= ?2
             AND (shown_at IS NULL OR shown_at <= ?3)
         RETURNING id, user, nonce",
    )?;
    let rows = query.query_map((node.to_string(), sql(turn.now), shown_before), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    rows.map(|row| {
        let (request_id, audience, nonce) = row?;
        Ok(EvidenceRequest { request_id, nonce: parse(&nonce)?, audience, purpose: Purpose::Preview })
    })
    .collect()
}

/// A node answers. What can be seen without appraising is checked, so that a node learns of its mistakes.
pub(crate) fn answer(turn: &mut Turn<'_>, request: &FreshEvidence) -> Result<()> {
    let node = request.node_address;
    admission::live(turn, node)?;
    let row = turn.tx.query_row(
        "SELECT user, nonce, expires_at, evidence IS NOT NULL FROM evidence_requests
         WHERE id = ?1 AND node = ?2 AND nonce IS NOT NULL",
        (&request.request_id, node.to_string()),
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get(3)?)),
    );
    let (user, nonce, by, answered): (_, _, _, bool) =
        row.optional()?.ok_or_else(|| unknown("requestId: wanted one that waits for this node"))?;
    if answered {
        return Err(Refused::conflict("ALREADY_ANSWERED", "evidence: this question was answered before"));
    }
    if turn.now > time(by) {
        return Err(Refused::conflict("EVIDENCE_TOO_LATE", format!("evidence: wanted by {by}, got {}", turn.now)));
    }
    let malformed = |detail: String| Refused::unprocessable("EVIDENCE_MALFORMED", detail);
    request.evidence.check().map_err(|e| malformed(e.to_string()))?;
    let binding = Binding::parse(request.evidence.binding.as_bytes()).map_err(|e| malformed(e.to_string()))?;
    let answers = [
        ("keys.node", node.to_string(), binding.keys.node.to_string()),
        ("nonce", nonce, binding.nonce.to_string()),
        ("audience", user.clone(), binding.audience.chars().take(64).collect()),
        ("purpose", format!("{:?}", Purpose::Preview), format!("{:?}", binding.purpose)),
    ];
    for (member, wanted, got) in answers {
        if wanted != got {
            return Err(malformed(format!("binding {member}: wanted {wanted}, got {got}")));
        }
    }
    let evidence = request.evidence.to_json().map_err(Refused::internal)?;
    turn.tx.execute(
        "UPDATE evidence_requests SET evidence = ?2, taken_at = ?3 WHERE id = ?1",
        (&request.request_id, evidence, sql(turn.now)),
    )?;
    turn.tell(EventKind::EvidenceGiven { node, user: parse(&user)? });
    Ok(())
}

/// What the node answered, null while it has not; or what it was last admitted with, which may be newer than asked for.
pub(crate) fn reply(turn: &Turn<'_>, user: Address, request_id: &str) -> Result<EvidenceReply> {
    type Row = (String, bool, Option<String>, Option<i64>, i64);
    let row: rusqlite::Result<Row> = turn.tx.query_row(
        "SELECT node, nonce IS NULL, evidence, taken_at, expires_at FROM evidence_requests WHERE id = ?1 AND user = ?2",
        (request_id, user.to_string()),
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
    );
    let (node, is_for_cached, evidence, taken_at, by) =
        row.optional()?.ok_or_else(|| unknown("request: wanted one of this user"))?;
    if turn.now > time(by) {
        return Err(unknown("request: wanted one that is not too old"));
    }
    let given = if is_for_cached { Some(cached(turn, parse(&node)?)?) } else { evidence.zip(taken_at) };
    let Some((evidence, taken_at)) = given else { return Ok(EvidenceReply { evidence: None, age: 0 }) };
    Ok(EvidenceReply { evidence: Some(serde_json::from_str(&evidence)?), age: age(turn, taken_at) })
}

/// Forgets questions that are long over.
pub(crate) fn sweep(turn: &Turn<'_>) -> Result<()> {
    let before = UnixTime(turn.now.0.saturating_sub(LATE));
    turn.tx.execute("DELETE FROM evidence_requests WHERE expires_at < ?1", [sql(before)])?;
    Ok(())
}

/// The evidence that the node was last admitted with, and when it came.
fn cached(turn: &Turn<'_>, node: Address) -> Result<(String, i64)> {
    let row = turn.tx.query_row(
        "SELECT evidence, taken_at FROM certificates WHERE node = ?1 ORDER BY serial DESC LIMIT 1",
        [node.to_string()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    let missing =
        || Refused::not_found("NO_CACHED_EVIDENCE", format!("evidence: wanted a certificate of {node}, got none"));
    row.optional()?.ok_or_else(missing)
}

/// Seconds since then.
fn age(turn: &Turn<'_>, taken_at: i64) -> u64 {
    turn.now.0.saturating_sub(time(taken_at).0)
}

fn unknown(detail: &str) -> Refused {
    Refused::not_found("UNKNOWN_REQUEST", detail)
}
