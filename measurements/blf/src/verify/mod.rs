//! `blf verify`: evidence from a file or fresh from a node, appraised.
//!
//! A node is asked at its ICL, or over TLS. Over TLS its evidence names the key with which the session must have ended:
//! so whoever holds that key, inside the attested guest, is who was asked, and nobody stood in between.

use blf_appraisal::policy::Expectations;
use blf_evidence::bundle::{EVIDENCE_CAP, Evidence};
use blf_evidence::icl::{BODY_CAP, Refusal};
use blf_evidence::profile::Host;
use blf_evidence::statement::Purpose;
use blf_evidence::{Address, Hex, UnixTime, json};
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;

use crate::account::account;
use crate::cli::VerifyArgs;
use crate::client::{Client, block_on};
use crate::failure::{Exit, Failure, read_file};
use crate::fresh;
use crate::icl::{User, now, random};
use crate::nodes::{Known, Reference};
use crate::terminal::escaped;

mod report;
mod target;

use report::Case;
pub use report::{Report, Verdict};
use target::Target;

/// Evidence, what it must answer, and how it came.
struct Brought {
    evidence: Evidence,
    expected: Expectations,
    /// The node that was asked by its address, or that the evidence must be of.
    node: Option<Address>,
    /// With which key the session ended: SHA-256 of its SPKI.
    tls_spki_sha256: Option<Hex<32>>,
}

/// Appraises what the target gives. Whatever is known of the evidence is a [`Report`], also if that is a refusal.
///
/// # Errors
/// When there was nothing to appraise: [`Exit::Usage`] for arguments, [`Exit::Config`] for files, [`Exit::Environment`]
/// for a host that cannot be reached, [`Exit::Failed`] for one that refuses.
pub fn run(args: &VerifyArgs) -> Result<Report, Failure> {
    let target = Target::parse(&args.target)?;
    let at = time(args, &target)?;
    match appraise(args, &target, at) {
        Err(failure) if matches!(failure.exit, Exit::Rejected | Exit::NoVerdict) => {
            Ok(Report::failed(Case { target: &args.target, at, policy: None }, failure, Vec::new()))
        }
        other => other,
    }
}

fn appraise(args: &VerifyArgs, target: &Target, at: UnixTime) -> Result<Report, Failure> {
    let (reference, brought) = match target {
        Target::File(file) => {
            let expected = asked_before(args)?;
            let reference = dated(args, reference(args)?)?;
            let evidence = parse(&read_file(file, EVIDENCE_CAP as u64)?)?;
            (reference, Brought { evidence, expected, node: args.node, tls_spki_sha256: None })
        }
        Target::Node(node) => {
            let mut known = Known::read(args.network.as_deref(), args.policy.as_deref())?;
            known.reference = dated(args, known.reference.with(args.references.as_deref())?)?;
            let brought = block_on(ask_icl(args, *node, &known))?;
            (known.reference, brought)
        }
        Target::Url(host) => {
            let reference = dated(args, reference(args)?)?;
            (reference, block_on(ask_node(args, host))?)
        }
    };
    let case = Case { target: &args.target, at, policy: Some(reference.policy_name()) };
    let result = match reference.appraise(&brought.evidence, &brought.expected, at) {
        Ok(result) => result,
        Err(error) => return Ok(Report::refused(case, &error)),
    };
    let keys = &result.binding.keys;
    let stranger = match (brought.node, brought.tls_spki_sha256) {
        (Some(wanted), _) if wanted != keys.node => {
            Some(("NODE_MISMATCH", format!("evidence of another node: wanted {wanted}, got {}", keys.node)))
        }
        (_, Some(got)) if got != keys.tls_spki_sha256 => {
            let difference = format!("wanted {}, got {got}", keys.tls_spki_sha256);
            Some(("TLS_KEY_MISMATCH", format!("the session ended before the guest did: tls.key: {difference}")))
        }
        _ => None,
    };
    Ok(match stranger {
        Some((code, message)) => Report::failed(case, Failure::new(Exit::Rejected, code, message), result.checks),
        None => Report::verified(case, result, brought.tls_spki_sha256),
    })
}

/// By which evidence is judged: the relying party's clock, or the time it names for a file.
fn time(args: &VerifyArgs, target: &Target) -> Result<UnixTime, Failure> {
    match (args.at, target) {
        (None, _) => Ok(now()),
        (Some(at), Target::File(_)) => Ok(at),
        (Some(_), _) => {
            Err(Failure::new(Exit::Usage, "AT", "--at: wanted with a file; a node is asked and judged now"))
        }
    }
}

/// Reference Values, roots and policy. Whoever names the first needs no network document.
fn reference(args: &VerifyArgs) -> Result<Reference, Failure> {
    match (&args.references, &args.network) {
        (Some(references), None) => Reference::offline(references, args.policy.as_deref()),
        (references, network) => {
            Known::read(network.as_deref(), args.policy.as_deref())?.reference.with(references.as_deref())
        }
    }
}

/// With a block to date the evidence by, a policy that wants to know.
fn dated(args: &VerifyArgs, reference: Reference) -> Result<Reference, Failure> {
    if args.head.is_none() || reference.limits_anchors() {
        return Ok(reference);
    }
    let message = format!("--head: the policy {} does not ask how old a block is", reference.policy_name());
    Err(Failure::new(Exit::Usage, "HEAD", message).hint("a policy whose anchor_age_blocks is {\"at_most\": N}"))
}

/// What the evidence of a file must answer: only whoever asked for it knows.
fn asked_before(args: &VerifyArgs) -> Result<Expectations, Failure> {
    let wanted = |what: &str| Failure::new(Exit::Usage, &what.to_uppercase(), format!("--{what}: wanted with a file"));
    let nonce = nonce(args)?.ok_or_else(|| wanted("nonce"))?;
    let audience = args.audience.clone().ok_or_else(|| wanted("audience"))?;
    let purpose = match args.purpose.as_str() {
        "admission" => Purpose::Admission,
        "ionet" => Purpose::Ionet,
        "session" => Purpose::Session,
        _ => Purpose::Preview,
    };
    Ok(Expectations { audience, head: args.head, nonce, purpose })
}

/// What a node is asked that answers now: a nonce of our own unless one was given.
fn asked_now(args: &VerifyArgs, audience: Address) -> Result<Expectations, Failure> {
    if args.purpose != "preview" {
        return Err(Failure::new(
            Exit::Usage,
            "PURPOSE",
            "--purpose: wanted with a file; a node is asked for a preview",
        ));
    }
    let nonce = match nonce(args)? {
        Some(nonce) => nonce,
        None => Hex(random()?),
    };
    Ok(Expectations { audience: audience.to_string(), head: args.head, nonce, purpose: Purpose::Preview })
}

fn nonce(args: &VerifyArgs) -> Result<Option<Hex<32>>, Failure> {
    let parsed = args.nonce.as_ref().map(|nonce| nonce.parse()).transpose();
    parsed.map_err(|e| Failure::new(Exit::Usage, "NONCE", format!("--nonce: {e}")))
}

/// Through the ICL of the network, in the name of the user's account.
async fn ask_icl(args: &VerifyArgs, node: Address, known: &Known) -> Result<Brought, Failure> {
    if args.audience.is_some() {
        let message = "--audience: wanted with a file or URL; an ICL is asked with --key";
        return Err(Failure::new(Exit::Usage, "AUDIENCE", message));
    }
    if args.node.is_some() {
        let message = "--node: wanted with a file or URL; an ICL is asked for one by its address";
        return Err(Failure::new(Exit::Usage, "NODE", message));
    }
    let client = Client::new(&known.profile.tls_roots, known.network.resolve.clone())?;
    let user = User::new(&client, known.profile.icl.clone(), account(args.key.as_deref())?);
    let expected = asked_now(args, user.address())?;
    let asked = vec![fresh::ask(&user, node, expected.nonce).await?];
    let mut evidence = None;
    fresh::collect(&user, asked, |_, came| {
        evidence = Some(came);
        Ok(())
    })
    .await?;
    let evidence =
        evidence.ok_or_else(|| Failure::new(Exit::NoVerdict, "NO_EVIDENCE", format!("{node}: no evidence")))?;
    Ok(Brought { evidence, expected, node: Some(node), tls_spki_sha256: None })
}

/// Over TLS, with whatever key the other side has.
async fn ask_node(args: &VerifyArgs, host: &Host) -> Result<Brought, Failure> {
    let audience = match &args.audience {
        Some(audience) => {
            audience.parse().map_err(|e| Failure::new(Exit::Usage, "AUDIENCE", format!("--audience: {e}")))?
        }
        None => Address(random()?),
    };
    let expected = asked_now(args, audience)?;
    let path = format!("/v1/evidence?nonce={}&audience={audience}", expected.nonce);
    let client = Client::of_node()?;
    let request = client.request(host, Method::GET, &path, HeaderMap::new(), Bytes::new(), EVIDENCE_CAP);
    let reply = request.await.map_err(|f| f.hint("does its operator launch it with --api?"))?;
    if reply.status.is_success() {
        let tls_spki_sha256 = Some(reply.tls_spki_sha256);
        return Ok(Brought { evidence: parse(&reply.body)?, expected, node: args.node, tls_spki_sha256 });
    }
    Err(match json::parse::<Refusal>("refusal", &reply.body, BODY_CAP) {
        Ok(refusal) => {
            Failure::new(Exit::Failed, &refusal.code, format!("the node refused: {}", escaped(&refusal.detail)))
        }
        Err(_) => Failure::new(Exit::Failed, "BAD_REPLY", format!("{}: HTTP {}", host.name, reply.status)),
    })
}

fn parse(bytes: &[u8]) -> Result<Evidence, Failure> {
    Evidence::parse(bytes).map_err(|e| Failure::new(Exit::Rejected, "EVIDENCE_MALFORMED", e))
}
