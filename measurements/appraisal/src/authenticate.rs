//! Is it genuine? From [`Evidence`] to [`Authentic`].
//!
//! Says nothing about whether anybody wants what the evidence proves: not its nonce, not its image.

use blf_evidence::bundle::{Evidence, PCRS, Platform, TpmEvidence};
use blf_evidence::eventlog::{EV_EFI_ACTION, EV_SEPARATOR, EventLog};
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::tpm::{
    self, HashAlg, ObjectAttributes, PcrSelection, Public, PublicKey, Quote, Scheme, Signature, left_pad,
};
use blf_evidence::{Hex, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::check::{AppraisalError, CheckId, Checks};
use crate::crypto::{Algorithm, CryptoProvider};
use crate::x509::{Root, RootKind, check_ak_certificate};

/// Whom the relying party believes about AKs.
#[derive(Clone, Debug, Default)]
pub struct Endorsers {
    /// Issuers of AK certificates.
    pub roots: Vec<Root>,
    /// Names (`nameAlg ‖ digest`) of AKs that the relying party itself activated a credential for.
    pub activated: Vec<Vec<u8>>,
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
    },
    /// The relying party itself, by credential activation.
    Activated,
    /// Nobody: any program could have made this key. Only a policy that says so accepts it, as tier 0.
    Nobody,
}

/// Evidence that its platform made and that nobody altered since. Only [`authenticate`] makes one.
#[derive(Clone, Debug)]
pub struct Authentic {
    pub(crate) binding: Binding,
    pub(crate) pcrs: [Hex<32>; PCRS],
    pub(crate) ak: AkEndorsement,
    pub(crate) ak_name: Vec<u8>,
    pub(crate) event_log: bool,
    pub(crate) now: UnixTime,
    pub(crate) checks: Checks,
}

impl Authentic {
    /// What the node says.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// PCR 0 to 23, SHA-256 bank.
    #[must_use]
    pub fn pcrs(&self) -> &[Hex<32>; PCRS] {
        &self.pcrs
    }

    /// Who vouches for the AK.
    #[must_use]
    pub fn ak(&self) -> &AkEndorsement {
        &self.ak
    }
}

/// Checks that evidence is genuine: every signature, digest and format from the platform's root to the binding.
///
/// `now` is the relying party's clock, by which certificates are judged here and the binding later. A certificate that
/// is present must be good, even where an uncertified AK would do.
///
/// # Errors
/// [`AppraisalError::Rejected`] with the first check that fails; [`AppraisalError::Unsupported`] for SEV-SNP and TDX.
pub fn authenticate(
    evidence: &Evidence,
    endorsers: &Endorsers,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
) -> Result<Authentic, AppraisalError> {
    let mut checks = Checks::default();
    let raw = evidence.binding.as_bytes();
    let binding = checks.parsed(CheckId::Binding, "RFC 8785 canonical blf.binding/v1", Binding::parse(raw))?;
    checks.parsed(CheckId::Document, "blf.evidence/v1, each part within its cap", evidence.check())?;
    let tpm = match &evidence.platform {
        Platform::Snp(_) => return Err(AppraisalError::Unsupported("snp")),
        Platform::Tdx(_) => return Err(AppraisalError::Unsupported("tdx")),
        Platform::Tpm(tpm) => tpm,
    };
    let statement = Statement::new(binding.keys.node, raw);
    let (ak, pcrs) = check_quote(tpm, &statement, crypto, &mut checks)?;
    let keys = &binding.keys;
    let all = [&keys.node.0[..], &keys.response.0, &keys.hpke.0, &keys.cofhe_sealing.0, &keys.tls_spki_sha256.0];
    let present = all.iter().filter(|key| key.iter().any(|byte| *byte != 0)).count();
    checks.require(CheckId::Keys, "5 keys that are not zero", format!("{present} keys"), present == all.len())?;
    checks.equal(CheckId::Config, binding.config_sha256, sha256(evidence.config.as_bytes()))?;
    check_event_log(tpm, &pcrs, &mut checks)?;
    let endorsement = check_endorsement(tpm, &ak, endorsers, now, crypto, &mut checks)?;
    Ok(Authentic {
        binding,
        pcrs,
        ak: endorsement,
        ak_name: ak.name(),
        event_log: tpm.event_log.is_some(),
        now,
        checks,
    })
}

/// The AK may sign only what its TPM made, and it signed the statement together with exactly these PCRs.
fn check_quote(
    evidence: &TpmEvidence,
    statement: &Statement,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<(Public, [Hex<32>; PCRS]), AppraisalError> {
    let ak =
        checks.parsed(CheckId::AkPublic, "TPMT_PUBLIC, RSA 2048 or P-256", Public::parse(&evidence.ak_public.0))?;
    let wanted = format!("{}, not decrypt, with SHA-256", tpm::AK_REQUIRED);
    let (PublicKey::Rsa2048 { scheme, .. } | PublicKey::EccP256 { scheme, .. }) = &ak.key;
    let right = ak.attributes.contains(tpm::AK_REQUIRED)
        && !ak.attributes.contains(ObjectAttributes::DECRYPT)
        && *scheme == Scheme::Signing(HashAlg::Sha256);
    checks.require(CheckId::AkAttributes, wanted, format!("{}, {scheme:?}", ak.attributes), right)?;

    let raw = &evidence.quote.0;
    let quote = checks.parsed(CheckId::Quote, "TPMS_ATTEST of type quote", Quote::parse(raw))?;
    let wanted = hex::encode(statement.qualifying_data());
    checks.equal(CheckId::Statement, wanted, hex::encode(&quote.extra_data))?;
    let signature = Signature::parse(&evidence.signature.0);
    let by_ak = match &signature {
        Ok(signature) => signed_by(&ak, raw, signature, crypto),
        Err(error) => Err(error.to_string()),
    };
    let (ok, got) = by_ak.map_or_else(|error| (false, error), |()| (true, "by the AK".into()));
    checks.require(CheckId::QuoteSignature, "by the AK", got, ok)?;

    let select = format!("{:?} of {:?}", hex::encode(quote.pcr_select.select), quote.pcr_select.hash);
    let all = quote.pcr_select == PcrSelection::ALL_SHA256;
    checks.require(CheckId::PcrSelection, "\"ffffff\" of Sha256", select, all)?;
    // `Evidence::check` demanded 24 of them.
    let mut pcrs = [Hex([0; 32]); PCRS];
    pcrs.iter_mut().zip(&evidence.pcrs).for_each(|(pcr, listed)| *pcr = *listed);
    let listed = sha256(&pcrs.iter().flat_map(|pcr| pcr.0).collect::<Vec<_>>());
    checks.equal(CheckId::PcrDigest, hex::encode(&quote.pcr_digest), listed.to_string())?;
    let zero: Vec<_> = (0..8).filter(|index| pcrs[*index].0 == [0; 32]).collect();
    let got = if zero.is_empty() { "none zero".into() } else { format!("zero: {zero:?}") };
    checks.require(CheckId::MeasuredBoot, "none of PCR 0 to 7 zero", got, zero.is_empty())?;
    Ok((ak, pcrs))
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
fn check_event_log(evidence: &TpmEvidence, pcrs: &[Hex<32>; PCRS], checks: &mut Checks) -> Result<(), AppraisalError> {
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
    let separator = (4, sha256(&[0; 4]).0);
    let unseparated = (0..8).find(|pcr| {
        let mut separators = log.extended(*pcr).filter(|event| event.kind == EV_SEPARATOR);
        let first = separators.next().map(|event| (event.data.len(), event.sha256.unwrap_or_default()));
        first != Some(separator) || separators.next().is_some()
    });
    let handed_over = log
        .extended(5)
        .any(|event| event.kind == EV_EFI_ACTION && event.data == b"Exit Boot Services Returned with Success");
    let (got, ok) = match (unseparated, handed_over) {
        (Some(pcr), _) => (format!("PCR {pcr} without exactly one"), false),
        (None, false) => ("no exit from boot services".into(), false),
        (None, true) => ("both".into(), true),
    };
    checks.require(CheckId::EventLogSequence, "one separator in PCR 0 to 7 and the exit from boot services", got, ok)
}

fn check_endorsement(
    evidence: &TpmEvidence,
    ak: &Public,
    endorsers: &Endorsers,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<AkEndorsement, AppraisalError> {
    if let Some(der) = &evidence.ak_certificate {
        let spki = ak.subject_public_key_info().unwrap_or_default();
        let root = check_ak_certificate(&der.0, &spki, &endorsers.roots, now, crypto, checks)?;
        return Ok(AkEndorsement::Certified { root: root.name().into(), kind: root.kind() });
    }
    let activated = endorsers.activated.contains(&ak.name());
    Ok(if activated { AkEndorsement::Activated } else { AkEndorsement::Nobody })
}

fn sha256(data: &[u8]) -> Hex<32> {
    Hex(Sha256::digest(data).into())
}
