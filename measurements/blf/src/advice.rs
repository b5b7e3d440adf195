//! What to do next about a verdict that is not the wanted one, by its code.

use crate::failure::Failure;

/// The page on which every code of an appraisal stands, one row each: code, stage, check, what to do, source.
const CODES: &str = include_str!("../../appraisal/CODES.md");
/// Where nothing better is known.
pub(crate) const ASK_AGAIN: &str = "ask the node for fresh evidence; if that fails as well, do not rely on it";
/// Codes of this program, which knows how evidence and answers came.
const OWN: [(&[&str], &str); 8] = [
    (
        &[
            "ANSWER",
            "ANSWER_CID",
            "ANSWER_COMMITMENT",
            "ANSWER_JOB",
            "ANSWER_KEY",
            "ANSWER_KEY_UNKNOWN",
            "ANSWER_LEADER",
            "ANSWER_MISSING",
            "ANSWER_SIGNATURE",
            "ANSWER_TAG",
            "ANSWER_TEXT",
            "VERDICT_SIGNATURE",
        ],
        "there is no answer to rely on: ask again; if that fails as well, tell the operator of the ICL",
    ),
    (&["ANSWER_BLOB"], "the answer was accepted, its store does not hand it out: tell the store's operator, ask again"),
    (
        &["MODEL_DIFFERS", "MODEL_UNKNOWN"],
        "these nodes do not hold the weights that were wanted: name others with --model, or ask at another ICL",
    ),
    (&["NODE_MISMATCH"], "do not use this answer: it is the evidence of another node than the one that was asked"),
    (&["NO_EVIDENCE"], "ask again in a minute; if the node stays silent, choose another"),
    (
        &["QUORUM_DUPLICATE", "QUORUM_SIZE", "QUORUM_STRANGER"],
        "this is not the quorum that was asked for: ask again; if that fails as well, tell the operator of the ICL",
    ),
    (
        &["QUORUM_REJECTED", "QUORUM_VERDICTS"],
        "the nodes did not agree: ask again, or with more verifiers; a node that often differs is to be avoided",
    ),
    (&["TLS_KEY_MISMATCH"], "do not use this connection: whoever answered is not the guest whose evidence this is"),
];
/// Codes that another time may cure.
const TIMES: [&str; 8] = [
    "AK_CERTIFICATE_EXPIRED",
    "COLLATERAL_TOO_OLD",
    "CRL_EXPIRED",
    "CRL_TOO_OLD",
    "EXPIRED",
    "REFERENCE_EXPIRED",
    "STALE_COLLATERAL",
    "VEK_EXPIRED",
];

/// The same failure with what to do next, where that is known and not said already.
pub(crate) fn with_hint(failure: Failure) -> Failure {
    match next(&failure.code) {
        Some(hint) if failure.hint.is_none() => failure.hint(hint),
        _ => failure,
    }
}

/// Where a code is explained.
pub(crate) fn documented(code: &str) -> String {
    let page = if row(code).is_some() { "measurements/appraisal/CODES.md" } else { "docs/verifying.md" };
    format!("{code} in {page}")
}

fn next(code: &str) -> Option<String> {
    let own = OWN.iter().find(|(own, _)| own.contains(&code)).map(|(_, advice)| (*advice).to_owned());
    let advice = own.or_else(|| row(code))?;
    if TIMES.contains(&code) {
        return Some(format!("{advice} Kept evidence: --at, as of when it was relied on."));
    }
    Some(advice)
}

/// What the page says is to be done.
fn row(code: &str) -> Option<String> {
    let start = format!("| `{code}` |");
    let row = CODES.lines().find(|line| line.starts_with(&start))?;
    Some(row.split('|').nth(4)?.trim().replace('`', ""))
}

#[cfg(test)]
mod tests {
    use blf_appraisal::CheckId;

    use super::*;

    #[test]
    fn every_code_has_advice() {
        for (_, code) in CheckId::ALL.map(CheckId::names) {
            assert!(row(code).is_some_and(|advice| advice.len() > 10), "{code}");
        }
        assert!(TIMES.iter().all(|code| row(code).is_some()));
        assert!(OWN.iter().flat_map(|(codes, _)| *codes).all(|code| row(code).is_none() && next(code).is_some()));
    }

    /// The page for those who rely on a node names no code that nobody will ever see.
    #[test]
    fn codes_of_the_page_exist() {
        let page = include_str!("../../../docs/verifying.md");
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let codes = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
        let code = |text: &&str| {
            text.contains('_') && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        };
        let codes: Vec<&str> = codes.filter(code).collect();
        assert!(codes.len() > 20, "{codes:?}");
        let known = |code: &str| next(code).is_some();
        assert_eq!(codes.into_iter().find(|code| !known(code)), None);
    }
}
