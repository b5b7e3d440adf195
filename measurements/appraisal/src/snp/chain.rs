//! From a pinned ARK over the ASK or ASVK to the VCEK or VLEK, and from there to reports.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use blf_evidence::endorsements::SnpEndorsements;
use blf_evidence::snp::{Family, Report};
use blf_evidence::{Base64, UnixTime};

use super::vek::Vek;
use super::{Claims, Root, Signer, read};
use crate::authenticate::Authentic;
use crate::check::{CheckId, Checks, Rejected};
use crate::crl::Crl;
use crate::crypto::{Algorithm, CryptoProvider};
use crate::x509::{Certificate, RootKind, after};

/// A VCEK or VLEK that a pinned ARK vouches for, whatever the time: it can authenticate any number of reports.
///
/// Holds no secret and nothing of a report. Whoever keeps one keeps it for exactly these endorsements and roots.
#[derive(Clone, Debug)]
pub struct Chain {
    vek: Vek,
    roots: RootKind,
    /// When all certificates are valid at once.
    validity: RangeInclusive<u64>,
    crl: Option<Crl>,
    /// Those that [`Self::verify`] made.
    checks: Checks,
}

impl Chain {
    /// Checks the certificates and the revocation list, all but their dates.
    ///
    /// # Errors
    /// [`Rejected`] with the first check that fails.
    pub fn verify(
        endorsements: &SnpEndorsements,
        roots: &[Root],
        crypto: &dyn CryptoProvider,
    ) -> Result<Self, Box<Rejected>> {
        let mut checks = Checks::default();
        let chain = Self::build(endorsements, roots, crypto, &mut checks)?;
        Ok(Self { checks, ..chain })
    }

    /// Checks that a report is genuine, as [`super::authenticate`] does, without checking the chain's signatures again.
    ///
    /// # Errors
    /// [`Rejected`] with the first check that fails.
    pub fn authenticate(
        &self,
        report: &[u8],
        now: UnixTime,
        crypto: &dyn CryptoProvider,
    ) -> Result<Authentic<Claims>, Box<Rejected>> {
        let mut checks = Checks::default();
        let parsed = read(report, &mut checks)?;
        checks.append(&self.checks);
        let claims = self.vouch(parsed, report, now, crypto, &mut checks)?;
        Ok(Authentic { claims, now, checks })
    }

    pub(super) fn build(
        endorsements: &SnpEndorsements,
        roots: &[Root],
        crypto: &dyn CryptoProvider,
        checks: &mut Checks,
    ) -> Result<Self, Box<Rejected>> {
        let Some(Base64(vek)) = &endorsements.vek else {
            return Err(checks.reject(CheckId::VekPresent, "a certificate", "none"));
        };
        checks.require(CheckId::VekPresent, "a certificate", "a certificate", true)?;
        let vek = checks.parsed(CheckId::Vek, "the certificate of a VCEK or VLEK", Vek::parse(vek))?;
        let mut attempts = roots
            .iter()
            .filter(|root| root.family == vek.family)
            .map(|root| issuer(&vek, root, endorsements, crypto).map(|issuer| (root, issuer)));
        let Some(first) = attempts.next() else {
            return Err(checks.reject(CheckId::ReportFamily, "a family whose ARK is believed", vek.family));
        };
        // Roots of one family, e.g. AMD's and one for development: the complaint is about the first.
        let found = first.or_else(|error| attempts.find_map(Result::ok).ok_or(error));
        let (root, issuer) = checks.parsed(CheckId::VekChain, chain_name(&vek.signer), found)?;
        let crl = match &endorsements.crl {
            None => None,
            Some(der) => {
                let crl = checks.parsed(CheckId::Crl, "a CRL by the ARK", Crl::parse(&der.0, &root.ark, crypto))?;
                let revoked = crl.revoked(&[&root.ark, &issuer]);
                let got = revoked.map_or_else(|| "none of them".into(), |serial| format!("serial number {serial}"));
                checks.require(CheckId::CrlRevoked, "neither the ARK nor its ASK or ASVK", got, revoked.is_none())?;
                Some(crl)
            }
        };
        let validity = [&root.ark, &issuer, &vek.certificate].map(Certificate::validity);
        let from = validity.iter().map(RangeInclusive::start).max();
        let until = validity.iter().map(RangeInclusive::end).min();
        let validity = from.copied().unwrap_or(u64::MAX)..=until.copied().unwrap_or(0);
        Ok(Self { vek, roots: root.kind, validity, crl, checks: Checks::default() })
    }

    /// Checks the dates, and that the key is the report's and signed it.
    pub(super) fn vouch(
        &self,
        report: Report,
        raw: &[u8],
        now: UnixTime,
        crypto: &dyn CryptoProvider,
        checks: &mut Checks,
    ) -> Result<Claims, Box<Rejected>> {
        let got = format!("{} to {}", self.validity.start(), self.validity.end());
        let wanted = format!("valid at {now}");
        checks.require(CheckId::VekValidity, &wanted, got, self.validity.contains(&now.0))?;
        if let Some(crl) = &self.crl {
            let current = crl.this_update <= now && now < crl.next_update;
            let got = format!("{} to {}", crl.this_update, crl.next_update);
            checks.require(CheckId::CrlValidity, &wanted, got, current)?;
        }
        match self.vek.differs(&report) {
            None => checks.require(CheckId::VekIdentity, "the report's", "the report's", true)?,
            Some((wanted, got)) => return Err(checks.reject(CheckId::VekIdentity, wanted, got)),
        }
        let signed = Report::signed_part(raw);
        let by_vek = signed.is_some_and(|signed| {
            crypto.verify(Algorithm::EcdsaP384Sha384Fixed, &self.vek.point, signed, &report.signature.0)
        });
        let got = if by_vek { "by the certified key" } else { "by another key or over other bytes" };
        checks.require(CheckId::ReportSignature, "by the certified key", got, by_vek)?;
        Ok(Claims {
            report,
            family: self.vek.family,
            signer: self.vek.signer.clone(),
            crl_this_update: self.crl.as_ref().map(|crl| crl.this_update),
            valid_until: self.crl.iter().fold(after(*self.validity.end()), |end, crl| end.min(crl.next_update)),
            roots: self.roots,
        })
    }
}

/// The ASK or ASVK that came, or the one that the root carries, as the issuer of the VEK. An ARK that came must be the
/// root's: it adds nothing.
fn issuer<'a>(
    vek: &Vek,
    root: &'a Root,
    endorsements: &SnpEndorsements,
    crypto: &dyn CryptoProvider,
) -> Result<Cow<'a, Certificate>, String> {
    if endorsements.ark.as_ref().is_some_and(|ark| ark.0 != root.ark.der()) {
        return Err(format!("another ARK than {}'s", root.family));
    }
    let carried = match vek.signer {
        Signer::Vcek => &root.ask,
        Signer::Vlek { .. } => &root.asvk,
    };
    let issuer = match &endorsements.ask {
        Some(came) if came.0 != carried.der() => {
            Cow::Owned(Certificate::parse_canonical(&came.0).map_err(|error| error.to_string())?)
        }
        _ => Cow::Borrowed(carried),
    };
    signatures(vek, &issuer, root, crypto)?;
    Ok(issuer)
}

/// ARK → ASK → VCEK or ARK → ASVK → VLEK, by name, by what each may do, and by signature.
fn signatures(vek: &Vek, issuer: &Certificate, root: &Root, crypto: &dyn CryptoProvider) -> Result<(), String> {
    let name = issuer_name(&vek.signer, root.family);
    if issuer.common_name() != name {
        return Err(format!("{} instead of {name}", issuer.common_name()));
    }
    let (ark, vek) = (&root.ark, &vek.certificate);
    if issuer.tbs().issuer() != ark.tbs().subject() || vek.tbs().issuer() != issuer.tbs().subject() {
        return Err("certificates that name other issuers".into());
    }
    if (ark.may_issue(), issuer.may_issue()) != (Some(true), Some(true)) {
        return Err(format!("{name} or its ARK, which may not issue"));
    }
    if !ark.signed(issuer, crypto) {
        return Err(format!("{name} signed by another key than the ARK"));
    }
    if !issuer.signed(vek, crypto) {
        return Err(format!("a certificate signed by another key than {name}"));
    }
    Ok(())
}

/// The common name of the certificate that an ARK gives to the key that certifies such keys.
fn issuer_name(signer: &Signer, family: Family) -> String {
    match signer {
        Signer::Vcek => format!("SEV-{family}"),
        Signer::Vlek { .. } => format!("SEV-VLEK-{family}"),
    }
}

fn chain_name(signer: &Signer) -> &'static str {
    match signer {
        Signer::Vcek => "ARK, ASK, VCEK",
        Signer::Vlek { .. } => "ARK, ASVK, VLEK",
    }
}
