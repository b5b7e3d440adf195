//! `blf verify`: evidence from a file or fresh from a node, appraised, every check shown in order.
//!
//! A node is asked over TLS, and its evidence names the key with which the session must have ended: so whoever holds that
//! key, inside the attested guest, is who was asked, and nobody stood in between.

use std::path::Path;

use blf_appraisal::check::{AppraisalError, Check};
use blf_appraisal::policy::Expectations;
use blf_appraisal::result::AttestationResult;
use blf_evidence::bundle::{EVIDENCE_CAP, Evidence};
use blf_evidence::icl::{BODY_CAP, Refusal};
use blf_evidence::profile::Host;
use blf_evidence::statement::Purpose;
use blf_evidence::{Address, Hex, UnixTime, json};
use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, Uri};
use serde::Serialize;

use crate::cli::VerifyArgs;
use crate::client::Client;
use crate::failure::{Exit, Failure, read_file};
use crate::nodes::{Known, refused};
use crate::terminal::Terminal;

/// The verdict on evidence that is genuine and wanted.
#[derive(Serialize)]
pub struct Report {
    /// `blf.verify/v1`.
    pub schema: &'static str,
    /// What that tier means.
    pub meaning: &'static str,
    /// The attestation result, every check included.
    pub result: AttestationResult,
    /// The key in the evidence, with which the session ended that brought it; none for a file.
    pub tls_spki_sha256: Option<Hex<32>>,
}

/// Evidence, and the key (SHA-256 of its SPKI) with which the session ended that brought it.
struct Brought {
    evidence: Evidence,
    tls_spki_sha256: Option<Hex<32>>,
}

/// Appraises and shows each check.
///
/// # Errors
/// [`Exit::Rejected`], [`Exit::NoVerdict`], [`Exit::Config`] for files, [`Exit::Usage`] for arguments; for a node also
/// [`Exit::Environment`] if it cannot be reached and [`Exit::Failed`] if it gives none.
pub fn run(args: &VerifyArgs, terminal: &Terminal) -> Result<Report, Failure> {
    let expected = expectations(args)?;
    let known = Known::read(args.network.as_deref(), args.policy.as_deref())?;
    let Brought { evidence, tls_spki_sha256 } = match node(&args.target)? {
        Some(host) => ask(&host, &expected)?,
        None => Brought {
            evidence: parse(&read_file(Path::new(&args.target), EVIDENCE_CAP as u64)?)?,
            tls_spki_sha256: None,
        },
    };
    let now = args.at.map_or_else(crate::icl::now, UnixTime);
    match known.reference.appraise(&evidence, &expected, now) {
        Ok(result) => {
            show(&result.checks, terminal);
            if let Some(got) = tls_spki_sha256 {
                ends_in_the_guest(result.binding.keys.tls_spki_sha256, got, terminal)?;
            }
            Ok(Report { schema: "blf.verify/v1", meaning: result.meaning(), result, tls_spki_sha256 })
        }
        Err(error) => {
            if let AppraisalError::Rejected(rejected) = &error {
                show(&rejected.passed, terminal);
                show(std::slice::from_ref(&rejected.failed), terminal);
            }
            Err(refused(&error, &args.target))
        }
    }
}

/// The node of a URL; `None` for the name of a file.
fn node(target: &str) -> Result<Option<Host>, Failure> {
    if !target.starts_with("https://") {
        return Ok(None);
    }
    let wrong = || Failure::new(Exit::Usage, "URL", format!("{target}: wanted https://HOST:PORT"));
    let url: Uri = target.parse().map_err(|_| wrong())?;
    let authority = url.authority().ok_or_else(wrong)?;
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    if url.path() != "/" || url.query().is_some() || authority.as_str().contains('@') || name.is_empty() {
        return Err(wrong());
    }
    let port = match authority.port_u16() {
        None if authority.as_str() == authority.host() => 443,
        port => port.ok_or_else(wrong)?,
    };
    Ok(Some(Host { name: name.into(), port }))
}

/// What evidence must answer. Only for a file somebody asked before.
fn expectations(args: &VerifyArgs) -> Result<Expectations, Failure> {
    let from_node = node(&args.target)?.is_some();
    let wanted = |what: &str| Failure::new(Exit::Usage, &what.to_uppercase(), format!("--{what}: wanted with a file"));
    let nonce = match &args.nonce {
        Some(nonce) => nonce.parse().map_err(|e| Failure::new(Exit::Usage, "NONCE", format!("--nonce: {e}")))?,
        None if from_node => Hex(random()?),
        None => return Err(wanted("nonce")),
    };
    let audience = match &args.audience {
        Some(audience) => audience.clone(),
        None if from_node => Address(random()?).to_string(),
        None => return Err(wanted("audience")),
    };
    let purpose = match args.purpose.as_str() {
        "admission" => Purpose::Admission,
        "ionet" => Purpose::Ionet,
        "session" => Purpose::Session,
        _ => Purpose::Preview,
    };
    Ok(Expectations { audience, head: None, nonce, purpose })
}

fn ask(host: &Host, expected: &Expectations) -> Result<Brought, Failure> {
    let audience: Address =
        expected.audience.parse().map_err(|e| Failure::new(Exit::Usage, "AUDIENCE", format!("--audience: {e}")))?;
    let path = format!("/v1/evidence?nonce={}&audience={audience}", expected.nonce);
    let client = Client::of_node()?;
    let request = client.request(host, Method::GET, &path, HeaderMap::new(), Bytes::new(), EVIDENCE_CAP);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Environment, "RUNTIME", e))?;
    let reply = runtime.block_on(request).map_err(|f| f.hint("does its operator launch it with --api?"))?;
    if reply.status.is_success() {
        return Ok(Brought { evidence: parse(&reply.body)?, tls_spki_sha256: Some(reply.tls_spki_sha256) });
    }
    Err(match json::parse::<Refusal>("refusal", &reply.body, BODY_CAP) {
        Ok(refusal) => Failure::new(Exit::Failed, &refusal.code, format!("the node refused: {}", refusal.detail)),
        Err(_) => Failure::new(Exit::Failed, "BAD_REPLY", format!("{}: HTTP {}", host.name, reply.status)),
    })
}

/// Whether the session ended with the key that the guest has.
fn ends_in_the_guest(wanted: Hex<32>, got: Hex<32>, terminal: &Terminal) -> Result<(), Failure> {
    if wanted == got {
        terminal.check(true, format!("tls.key: {got}"));
        return Ok(());
    }
    let difference = format!("tls.key: wanted {wanted}, got {got}");
    terminal.check(false, &difference);
    let message = format!("the session ended before the guest did: {difference}");
    Err(Failure::new(Exit::Rejected, "TLS_KEY_MISMATCH", message))
}

fn parse(bytes: &[u8]) -> Result<Evidence, Failure> {
    Evidence::parse(bytes).map_err(|e| Failure::new(Exit::Rejected, "EVIDENCE_MALFORMED", e))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Failure::new(Exit::Environment, "RANDOMNESS", e))?;
    Ok(bytes)
}

fn show(checks: &[Check], terminal: &Terminal) {
    for check in checks {
        if check.ok {
            terminal.check(true, format!("{}: {}", check.id, check.got));
        } else {
            terminal.check(false, format!("{}: wanted {}, got {}", check.id, check.expected, check.got));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_spelling() {
        let host = |name: &str, port| Some(Host { name: name.into(), port });
        assert_eq!(node("https://node.test:7443").unwrap(), host("node.test", 7443));
        assert_eq!(node("https://node.test/").unwrap(), host("node.test", 443));
        assert_eq!(node("https://[::1]:7443").unwrap(), host("::1", 7443));
        assert_eq!(node("evidence.json").unwrap(), None);
        for bad in ["https://", "https://a:b", "https://u@a:1", "https://a:1/v1", "https://a:1/?x", "https://a b"] {
            assert_eq!(node(bad).unwrap_err().code, "URL", "{bad}");
        }
    }
}
