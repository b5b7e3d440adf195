//! AMD SEV-SNP: a report, the certificate of the key that signed it, and the way from there to a pinned ARK.
//!
//! ```text
//! ARK ─► ASK  ─► VCEK ─┐                        read ─► Chain ─► Claims
//!    └─► ASVK ─► VLEK ─┴─► report
//! ```
//!
//! What the guest policy, the TCB or the measurement should be is no question here: see [`crate::policy`].

use blf_evidence::bundle::SnpEvidence;
use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{CertificateTable, Family, Report, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK};
use blf_evidence::statement::Statement;
use blf_evidence::{Base64, UnixTime};

use crate::authenticate::{Authentic, Context};
use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::CryptoProvider;
use crate::x509::{Certificate, CertificateError, RootKind};

mod chain;
mod vek;

pub use chain::Chain;

/// A trust anchor: the ARK of a family, and the two keys that it certified for it.
#[derive(Clone, Debug)]
pub struct Root {
    /// Whose chips it is for.
    pub family: Family,
    /// What believing it means.
    pub kind: RootKind,
    /// Certifies the other two, itself, and revocation lists.
    ark: Certificate,
    /// Certifies VCEKs.
    ask: Certificate,
    /// Certifies VLEKs.
    asvk: Certificate,
}

/// What an SEV-SNP report says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The report.
    pub report: Report,
    /// The family of the chip that made it.
    pub family: Family,
    /// Whose key signed it.
    pub signer: Signer,
    /// When the revocation list was made, if there was one.
    pub crl_this_update: Option<UnixTime>,
    /// When the first certificate of the chain, or the revocation list, is no longer valid.
    pub valid_until: UnixTime,
    /// What believing the ARK means.
    pub roots: RootKind,
}

/// The key that signed a report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Signer {
    /// Versioned chip endorsement key: of one chip.
    Vcek,
    /// Versioned loaded endorsement key: of a cloud.
    Vlek {
        /// The cloud, as the certificate names it (`CSP_ID`).
        csp_id: String,
    },
}

impl Root {
    /// AMD's ARKs, one for each family.
    #[must_use]
    pub fn pinned() -> Vec<Self> {
        macro_rules! root {
            ($family:ident, $name:literal) => {
                Self::new(
                    Family::$family,
                    RootKind::Production,
                    include_bytes!(concat!("../roots/amd/", $name, "-ark.der")),
                    include_bytes!(concat!("../roots/amd/", $name, "-ask.der")),
                    include_bytes!(concat!("../roots/amd/", $name, "-asvk.der")),
                )
                .expect("this crate's own certificates")
            };
        }
        vec![root!(Milan, "milan"), root!(Genoa, "genoa"), root!(Turin, "turin")]
    }

    /// A root from certificates in DER. Whether the ARK certified the others is found out when they are used.
    ///
    /// # Errors
    /// [`CertificateError`] for one that is none.
    pub fn new(family: Family, kind: RootKind, ark: &[u8], ask: &[u8], asvk: &[u8]) -> Result<Self, CertificateError> {
        let [ark, ask, asvk] = [ark, ask, asvk].map(Certificate::parse_canonical);
        Ok(Self { family, kind, ark: ark?, ask: ask?, asvk: asvk? })
    }
}

/// Checks that a report is genuine: made and signed by a chip, or with a cloud's key, that one of `roots` vouches for.
///
/// Only `endorsements.vek` must be there. To check many reports of one chip, keep a [`Chain`].
///
/// # Errors
/// [`Rejected`] with the first check that fails.
pub fn authenticate(
    report: &[u8],
    endorsements: &SnpEndorsements,
    roots: &[Root],
    now: UnixTime,
    crypto: &dyn CryptoProvider,
) -> Result<Authentic<Claims>, Box<Rejected>> {
    let mut checks = Checks::default();
    let claims = check_report(report, endorsements, roots, now, crypto, &mut checks)?;
    Ok(Authentic { claims, now, checks })
}

/// Checks the report and its chain, and that it vouches for the statement.
pub(crate) fn check(
    evidence: &SnpEvidence,
    statement: &Statement,
    context: &Context<'_>,
    checks: &mut Checks,
) -> Result<Claims, Box<Rejected>> {
    let mut endorsements = context.endorsements.snp.clone().unwrap_or_default();
    if let (None, Some(table)) = (&endorsements.vek, &evidence.certificates) {
        let table = CertificateTable::parse(&table.0);
        let table = table.map_err(|error| checks.reject(CheckId::Vek, "a GHCB certificate table", error))?;
        let report = Report::parse(&evidence.report.0);
        let by_cloud = report.is_ok_and(|report| report.signing_key == SIGNING_KEY_VLEK);
        let vek = if by_cloud { table.vlek } else { table.vcek };
        endorsements.vek = vek.map(|der| Base64(der.to_vec()));
    }
    let Context { endorsers, now, crypto, .. } = context;
    let claims = check_report(&evidence.report.0, &endorsements, &endorsers.amd, *now, *crypto, checks)?;
    checks.equal(CheckId::ReportData, statement.0, claims.report.report_data)?;
    Ok(claims)
}

/// Checks the report and its chain.
pub(crate) fn check_report(
    raw: &[u8],
    endorsements: &SnpEndorsements,
    roots: &[Root],
    now: UnixTime,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<Claims, Box<Rejected>> {
    let report = read(raw, checks)?;
    Chain::build(endorsements, roots, crypto, checks)?.vouch(report, raw, now, crypto, checks)
}

/// What a report must be before it is worth looking at certificates.
fn read(raw: &[u8], checks: &mut Checks) -> Result<Report, Box<Rejected>> {
    let report = checks.parsed(CheckId::Report, "ATTESTATION_REPORT of version 2, 3 or 5", Report::parse(raw))?;
    let (got, known) = match report.cpuid {
        None => ("version 2, which does not say".into(), true),
        Some(cpuid @ [family, model, _]) => match Family::of_cpuid(cpuid) {
            None => (format!("CPUID family {family:x}h, model {model:x}h"), false),
            Some(family) => (family.to_string(), true),
        },
    };
    checks.require(CheckId::ReportFamily, "Milan, Genoa or Turin", got, known)?;
    let signed = matches!(report.signing_key, SIGNING_KEY_VCEK | SIGNING_KEY_VLEK) && !report.mask_chip_key;
    let got = format!("SIGNING_KEY {}, MASK_CHIP_KEY {}", report.signing_key, u8::from(report.mask_chip_key));
    checks.require(CheckId::ReportSigner, "SIGNING_KEY 0 (VCEK) or 1 (VLEK), MASK_CHIP_KEY 0", got, signed)?;
    Ok(report)
}
