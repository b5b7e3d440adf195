//! Intel's collateral: what it signed of platforms and enclaves, and which certificates it revoked.
//!
//! Signatures cover the texts as they came, and no text is read before its signature was good. The issuer chain of the
//! PCK's revocation list is not read at all: its issuer is the CA in the quote's own chain.

use blf_evidence::UnixTime;
use blf_evidence::endorsements::TdxEndorsements;
use blf_evidence::tdx::pem;

use super::Root;
use super::pck::{PckChain, has_signed, is_root, issued};
use super::tcb::{QeIdentity, TcbInfo};
use crate::check::{CheckId, Checks, Rejected};
use crate::crl::Crl;
use crate::crypto::CryptoProvider;
use crate::x509::{Certificate, after};

/// Common name of the certificate that signs TCB info and QE identity.
const TCB_SIGNING_NAME: &str = "Intel SGX TCB Signing";

/// Collateral that Intel signed, that is valid now, and that revokes nothing which the quote rests on.
pub(super) struct Collateral {
    pub(super) tcb_info: TcbInfo,
    pub(super) qe_identity: QeIdentity,
    /// The earliest `issueDate` or `thisUpdate` of what Intel issues anew every month: all but the root's CRL.
    pub(super) issued: UnixTime,
    /// When the first part, or the first certificate, is no longer valid.
    pub(super) valid_until: UnixTime,
}

/// Checks signatures, form, dates, and revocation, in this order.
pub(super) fn check(
    endorsements: &TdxEndorsements,
    chain: &PckChain,
    root: &Root,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
    checks: &mut Checks,
) -> Result<Collateral, Box<Rejected>> {
    let signed = Signed::check(endorsements, chain, root, crypto);
    let signed = checks.parsed(CheckId::CollateralSignature, "each part by its issuer below the root", signed)?;
    let parse =
        || Ok::<_, String>((TcbInfo::parse(&endorsements.tcb_info)?, QeIdentity::parse(&endorsements.qe_identity)?));
    let wanted = "TCB info of TDX, version 3, and QE identity of TD_QE, version 2";
    let (tcb_info, qe_identity) = checks.parsed(CheckId::CollateralForm, wanted, parse())?;

    let mut dates = signed.dates(chain, root);
    dates.push(("TCB info", tcb_info.issue_date, tcb_info.next_update));
    dates.push(("QE identity", qe_identity.issue_date, qe_identity.next_update));
    let invalid = dates.iter().find(|(_, from, to)| !(*from..=*to).contains(&now));
    let (got, ok) = match invalid {
        Some((name, from, to)) => (format!("{name} of {from} to {to}"), false),
        None => (format!("{} parts that are", dates.len()), true),
    };
    checks.require(CheckId::CollateralValidity, format!("valid at {now}"), got, ok)?;

    let revoked = signed.revoked(chain, root);
    let got = revoked.as_deref().unwrap_or("none");
    checks.require(CheckId::PckRevoked, "none", got, revoked.is_none())?;
    let issued = signed.pck_crl.this_update.min(tcb_info.issue_date).min(qe_identity.issue_date);
    let last = dates.iter().map(|(_, _, to)| to.0).min().unwrap_or_default();
    Ok(Collateral { tcb_info, qe_identity, issued, valid_until: after(last) })
}

/// That all signatures are good, and the certificates and lists that this took.
struct Signed {
    root_crl: Crl,
    pck_crl: Crl,
    /// Of TCB info and of QE identity; usually one.
    signers: Vec<Certificate>,
}

impl Signed {
    fn check(
        endorsements: &TdxEndorsements,
        chain: &PckChain,
        root: &Root,
        crypto: &dyn CryptoProvider,
    ) -> Result<Self, String> {
        let TdxEndorsements { tcb_info, tcb_info_issuer_chain, qe_identity, qe_identity_issuer_chain, .. } =
            endorsements;
        let tcb_signer = signer("TCB info", tcb_info_issuer_chain, root, crypto)?;
        if !has_signed(&tcb_signer, tcb_info.as_bytes(), &endorsements.tcb_info_signature, crypto) {
            return Err("TCB info: signed by another key, or another text".into());
        }
        let mut signers = vec![tcb_signer];
        if qe_identity_issuer_chain != tcb_info_issuer_chain {
            signers.push(signer("QE identity", qe_identity_issuer_chain, root, crypto)?);
        }
        let qe_signer = &signers[signers.len() - 1];
        if !has_signed(qe_signer, qe_identity.as_bytes(), &endorsements.qe_identity_signature, crypto) {
            return Err("QE identity: signed by another key, or another text".into());
        }
        let crl = |name: &str, der: &[u8], issuer: &Certificate| {
            Crl::parse(der, issuer, crypto).map_err(|error| format!("{name}: {error}"))
        };
        let root_crl = crl("root CRL", &endorsements.root_ca_crl.0, &root.certificate)?;
        let pck_crl = crl("PCK CRL", &endorsements.pck_crl.0, &chain.ca)?;
        Ok(Self { root_crl, pck_crl, signers })
    }

    /// First and last second of the validity of each list and certificate, by name.
    fn dates(&self, chain: &PckChain, root: &Root) -> Vec<(&'static str, UnixTime, UnixTime)> {
        let mut dates = vec![
            ("root CRL", self.root_crl.this_update, self.root_crl.next_update),
            ("PCK CRL", self.pck_crl.this_update, self.pck_crl.next_update),
        ];
        let signers = self.signers.iter().map(|signer| ("TCB signing certificate", signer));
        let chain = [("PCK certificate", &chain.pck), ("PCK CA", &chain.ca), ("root", &root.certificate)];
        for (name, certificate) in chain.into_iter().chain(signers) {
            let validity = certificate.validity();
            dates.push((name, UnixTime(*validity.start()), UnixTime(*validity.end())));
        }
        dates
    }

    /// The certificate that is revoked, if any.
    fn revoked(&self, chain: &PckChain, root: &Root) -> Option<String> {
        let mut by_root = vec![&chain.ca, &root.certificate];
        by_root.extend(&self.signers);
        let serial = self.pck_crl.revoked(&[&chain.pck]).or_else(|| self.root_crl.revoked(&by_root))?;
        Some(format!("the certificate of serial number {serial}"))
    }
}

/// The certificate of an issuer chain that signs TCB info and QE identity: directly below the root.
fn signer(of: &str, text: &str, root: &Root, crypto: &dyn CryptoProvider) -> Result<Certificate, String> {
    let parse = || {
        let [signing, top] = pem::chain(text.as_bytes()).map_err(|error| error.to_string())?;
        is_root(&top, root)?;
        issued(&root.certificate, &signing, &[TCB_SIGNING_NAME], false, crypto)
    };
    parse().map_err(|error| format!("issuer chain of {of}: {error}"))
}
