//! What to do next about a verdict that is not the wanted one, by its code.

use crate::failure::Failure;

/// The page on which every code of an appraisal stands, one row each: code, stage, check, what to do, source.
const CODES: &str = include_str!("../../../appraisal/CODES.md");
/// Where nothing better is known.
pub(super) const ASK_AGAIN: &str = "ask the node for fresh evidence; if that fails as well, do not rely on it";
/// Codes of this command, which knows how evidence came.
const OWN: [(&str, &str); 3] = [
    ("NODE_MISMATCH", "do not use this answer: it is the evidence of another node than the one that was asked"),
    ("NO_EVIDENCE", "ask again in a minute; if the node stays silent, choose another"),
    ("TLS_KEY_MISMATCH", "do not use this connection: whoever answered is not the guest whose evidence this is"),
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

/// The same failure with what to do next, unless it says so already.
pub(super) fn with_hint(failure: Failure) -> Failure {
    if failure.hint.is_some() {
        return failure;
    }
    let hint = next(&failure.code);
    failure.hint(hint)
}

/// Where a code is explained.
pub(super) fn documented(code: &str) -> String {
    let page = if row(code).is_some() { "measurements/appraisal/CODES.md" } else { "docs/verifying.md" };
    format!("{code} in {page}")
}

fn next(code: &str) -> String {
    let own = OWN.iter().find(|(own, _)| *own == code).map(|(_, advice)| (*advice).to_owned());
    let advice = own.or_else(|| row(code)).unwrap_or_else(|| ASK_AGAIN.into());
    if TIMES.contains(&code) { format!("{advice} Kept evidence: --at, as of when it was relied on.") } else { advice }
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
        assert!(OWN.iter().all(|(code, _)| row(code).is_none() && next(code) != ASK_AGAIN));
    }

    /// The page for those who rely on a node names no code that nobody will ever see.
    #[test]
    fn codes_of_the_page_exist() {
        let page = include_str!("../../../../docs/verifying.md");
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let codes = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
        let code = |text: &&str| {
            text.contains('_') && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        };
        let codes: Vec<&str> = codes.filter(code).collect();
        assert!(codes.len() > 20, "{codes:?}");
        let known = |code: &str| row(code).is_some() || OWN.iter().any(|(own, _)| *own == code);
        assert_eq!(codes.into_iter().find(|code| !known(code)), None);
    }
}
