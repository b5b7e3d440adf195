//! TPM 2.0: a quote by an AK that somebody believed vouches for, over PCRs that the firmware's event log explains.
//!
//! Signed are the quote and, through its digest, the PCRs; the PCRs cover the event log's digests, and these its data
//! where a check reads them. Not signed, and so never a key of a cache or a replay list, is how an ECDSA signature is
//! written: a TPM may leave leading zeros away, and s has two values.

use blf_evidence::bundle::{PCRS, TpmEvidence};
use blf_evidence::endorsements::Endorsements;
use blf_evidence::eventlog::{EV_EFI_ACTION, EV_SEPARATOR, Event, EventLog};
use blf_evidence::tpm::{
    self, HashAlg, ObjectAttributes, PcrSelection, Public, PublicKey, Quote, Scheme, Signature, left_pad,
};
use blf_evidence::{Hex, UnixTime};

use crate::authenticate::{Authentic, Context, Endorsers, sha256};
use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::{Algorithm, CryptoProvider};
use crate::x509::{RootKind, check_ak_certificate};

/// What a TPM says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// PCR 0 to 23, SHA-256 bank.
    pub pcrs: [Hex<32>; PCRS],
    /// Who vouches for the AK.
    pub ak: AkEndorsement,
    /// The AK's Name (`nameAlg ‖ digest`).
    pub ak_name: Vec<u8>,
    /// Whether the firmware's event log explains the PCRs.
    pub event_log: bool,
}

/// Who vouches that the AK lives in a TPM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AkEndorsement {
    /// A root, through a certificate.
    Certified {
        /// The root's name.
        root: String,
        /// What believing it means.
        kind: RootKind,
        /// When the certificate or the root is no longer valid.
        valid_until: UnixTime,
    },
    /// The relying party itself, by credential activation.
    Activated,
    /// The paravisor below the guest, whose own report was checked.
    Paravisor,
    /// Nobody: any program could have made this key. Only a policy that says so accepts it, as tier 0.
    Nobody,
}

impl AkEndorsement {
    /// When a certificate that vouches is no longer valid.
    pub(crate) fn valid_until(&self) -> Option<UnixTime> {
        match self {
            Self::Certified { valid_until, .. } => Some(*valid_until),
            Self::Activated | Self::Paravisor | Self::Nobody => None,
        }
    }
}

/// Checks that a TPM quoted these PCRs together with `extra_data`: evidence of a TPM alone, with no words of a node.
///
/// # Errors
/// [`Rejected`] with the first check that fails; also for empty `extra_data`, which anybody could replay.
pub fn authenticate(
    evidence: &TpmEvidence,
    extra_data: &[u8],
    endorsers: &Endorsers,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
) -> Result<Authentic<Claims>, Box<Rejected>> {
    let context = Context { endorsers, endorsements: Endorsements::default(), now, crypto };
    let mut checks = Checks::default();
    let claims = check(evidence, extra_data, &context, &mut checks)?;
    Ok(Authentic { claims, now, checks })
}

/// Checks the quote of `extra_data`, the event log and the AK certificate.
pub(crate) fn check(
    evidence: &TpmEvidence,
    extra_data: &[u8],
    context: &Context<'_>,
    checks: &mut Checks,
) -> Result<Claims, Box<Rejected>> {
    let ak = check_ak(evidence, checks)?;
    let quote = check_quote(evidence, &ak, extra_data, context.crypto, checks)?;
    let pcrs = check_pcrs(evidence, &quote, checks)?;
    check_event_log(evidence, &pcrs, checks)?;
    let endorsement = check_endorsement(evidence, &ak, context, checks)?;
    Ok(Claims { pcrs, ak: endorsement, ak_name: ak.name(), event_log: evidence.event_log.is_some() })
}

/// The AK may sign only what its TPM made.
pub(crate) fn check_ak(evidence: &TpmEvidence, checks: &mut Checks) -> Result<Public, Box<Rejected>> {
    let ak =
        checks.parsed(CheckId::AkPublic, "TPMT_PUBLIC, RSA 2048 or P-256", Public::parse(&evidence.ak_public.0))?;
    let wanted = format!("{}, not decrypt, with SHA-256", tpm::AK_REQUIRED);
    let (PublicKey::Rsa2048 { scheme, .. } | PublicKey::EccP256 { scheme, .. }) = &ak.key;
    let right = ak.attributes.contains(tpm::AK_REQUIRED)
        && !ak.attributes.contains(ObjectAttributes::DECRYPT)
        && *scheme == Scheme::Signing(HashAlg::Sha256);
    checks.require(CheckId::AkAttributes, wanted, format!("{}, {scheme:?}", ak.attributes), right)?;
    Ok(ak)
}

/// The AK signed `extra_data` together with what the TPM said.
pub(crate) fn check_quote(
    evidence: &TpmEvidence,
    ak: &Public,
    extra_data: &[u8],
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<Quote, Box<Rejected>> {
    let raw = &evidence.quote.0;
    let quote = checks.parsed(CheckId::Quote, "TPMS_ATTEST of type quote", Quote::parse(raw))?;
    let wanted = if extra_data.is_empty() { "extraData that was chosen".into() } else { hex::encode(extra_data) };
    let same = !extra_data.is_empty() && quote.extra_data == extra_data;
    checks.require(CheckId::Statement, wanted, hex::encode(&quote.extra_data), same)?;
    let signature = Signature::parse(&evidence.signature.0);
    let by_ak = match &signature {
        Ok(signature) => signed_by(ak, raw, signature, crypto),
        Err(error) => Err(error.to_string()),
    };
    let (ok, got) = by_ak.map_or_else(|error| (false, error), |()| (true, "by the AK".into()));
    checks.require(CheckId::QuoteSignature, "by the AK", got, ok)?;
    Ok(quote)
}

/// The listed PCRs are those quoted, all of them, and firmware measured something.
pub(crate) fn check_pcrs(
    evidence: &TpmEvidence,
    quote: &Quote,
    checks: &mut Checks,
) -> Result<[Hex<32>; PCRS], Box<Rejected>> {
    let selected = |select: PcrSelection| format!("{} of {:?}", hex::encode(select.select), select.hash);
    let (wanted, got) = (PcrSelection::ALL_SHA256, quote.pcr_select);
    checks.require(CheckId::PcrSelection, selected(wanted), selected(got), got == wanted)?;
    let listed = sha256(&evidence.pcrs.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>());
    let digest = hex::encode(&quote.pcr_digest);
    let Ok(pcrs) = <[Hex<32>; PCRS]>::try_from(&evidence.pcrs[..]) else {
        let got = format!("{} PCRs", evidence.pcrs.len());
        return Err(checks.reject(CheckId::PcrDigest, format!("{PCRS} PCRs, {digest}"), got));
    };
    checks.equal(CheckId::PcrDigest, digest, listed.to_string())?;
    let zero: Vec<_> = (0..8).filter(|index| pcrs[*index].0 == [0; 32]).collect();
    let got = if zero.is_empty() { "none zero".into() } else { format!("zero: {zero:?}") };
    checks.require(CheckId::MeasuredBoot, "none of PCR 0 to 7 zero", got, zero.is_empty())?;
    Ok(pcrs)
}

/// `Err` says why not.
fn signed_by(ak: &Public, message: &[u8], signature: &Signature, crypto: &dyn CryptoProvider) -> Result<(), String> {
    if signature.hash() != HashAlg::Sha256 {
        return Err("a signature over SHA-384".into());
    }
    let numbers = ak.point_or_modulus().ok_or("an AK without a key")?;
    let good = match (&ak.key, signature) {
        (PublicKey::EccP256 { .. }, Signature::Ecdsa { r, s, .. }) => {
            let r = left_pad::<32>(r).ok_or("r longer than P-256")?;
            let s = left_pad::<32>(s).ok_or("s longer than P-256")?;
            crypto.verify(Algorithm::EcdsaP256Sha256Fixed, &numbers, message, &[r, s].concat())
        }
        (PublicKey::Rsa2048 { .. }, Signature::Rsassa { signature, .. }) => {
            let spki = ak.subject_public_key_info().ok_or("a modulus below 2048 bits")?;
            // Behind the fixed head of a 2048-bit SubjectPublicKeyInfo stands the RSAPublicKey.
            crypto.verify(Algorithm::RsaPkcs1Sha256, &spki[24..], message, signature)
        }
        _ => return Err("a signature of another kind of key".into()),
    };
    good.then_some(()).ok_or_else(|| "by another key or over other bytes".into())
}

/// The log explains the quoted PCRs. PCR 10 is the kernel's own (IMA) and never in the firmware's log; 16 and 23 may be
/// reset by anybody; 17 to 22 belong to a dynamic launch. None of these is used by any policy.
pub(crate) fn check_event_log(
    evidence: &TpmEvidence,
    pcrs: &[Hex<32>; PCRS],
    checks: &mut Checks,
) -> Result<(), Box<Rejected>> {
    let Some(raw) = &evidence.event_log else { return Ok(()) };
    let log = checks.parsed(CheckId::EventLog, "a crypto-agile TCG event log", EventLog::parse(&raw.0))?;
    let replay = log.replay_sha256();
    let differs = |replay: &[[u8; 32]; PCRS]| (0..16).find(|index| *index != 10 && replay[*index] != pcrs[*index].0);
    let (wanted, got, ok) = match &replay {
        None => ("a SHA-256 bank".into(), "a log without one".into(), false),
        Some(replay) => match differs(replay) {
            Some(index) => (format!("PCR {index} {}", pcrs[index]), Hex(replay[index]).to_string(), false),
            None => (
                "PCR 0 to 9 and 11 to 15 as quoted".into(),
                format!("{} events that give them", log.events.len()),
                true,
            ),
        },
    };
    checks.require(CheckId::EventLogReplay, wanted, got, ok)?;
    let unseparated = (0..8).find(|pcr| {
        let mut separators = log.extended(*pcr).filter(|event| event.kind == EV_SEPARATOR);
        !separators.next().is_some_and(|event| says(event, &[0; 4])) || separators.next().is_some()
    });
    let handed_over = log
        .extended(5)
        .any(|event| event.kind == EV_EFI_ACTION && says(event, b"Exit Boot Services Returned with Success"));
    let (got, ok) = match (unseparated, handed_over) {
        (Some(pcr), _) => (format!("PCR {pcr} without exactly one"), false),
        (None, false) => ("no exit from boot services".into(), false),
        (None, true) => ("both".into(), true),
    };
    checks.require(CheckId::EventLogSequence, "one separator in PCR 0 to 7 and the exit from boot services", got, ok)
}

/// Whether the event's data is this, and its digest of it: the PCRs cover the digest alone.
fn says(event: &Event<'_>, data: &[u8]) -> bool {
    event.data == data && event.sha256 == Some(sha256(data).0)
}

pub(crate) fn check_endorsement(
    evidence: &TpmEvidence,
    ak: &Public,
    context: &Context<'_>,
    checks: &mut Checks,
) -> Result<AkEndorsement, Box<Rejected>> {
    let endorsers = context.endorsers;
    if let Some(der) = &evidence.ak_certificate {
        let spki = ak.subject_public_key_info().unwrap_or_default();
        return check_ak_certificate(&der.0, &spki, &endorsers.roots, context.now, context.crypto, checks);
    }
    let activated = endorsers.activated.contains(&ak.name());
    Ok(if activated { AkEndorsement::Activated } else { AkEndorsement::Nobody })
}
