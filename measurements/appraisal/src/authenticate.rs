//! Is it genuine? From [`Evidence`] to [`Authentic`].
//!
//! Says nothing about whether anybody wants what the evidence proves: not its nonce, not its image.

use std::ops::Deref;

use blf_evidence::bundle::{Evidence, Platform};
use blf_evidence::endorsements::Endorsements;
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::{Hex, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::CryptoProvider;
use crate::x509::Root;
use crate::{azure, snp, tdx, tpm};

/// Whom the relying party believes. By default the chip makers, by the roots that this crate carries, and nobody else.
#[derive(Clone, Debug)]
pub struct Endorsers {
    /// Issuers of AK certificates.
    pub roots: Vec<Root>,
    /// Names (`nameAlg ‖ digest`) of AKs that the relying party itself activated a credential for.
    pub activated: Vec<Vec<u8>>,
    /// AMD's, one for each family of chips.
    pub amd: Vec<snp::Root>,
    /// Intel's.
    pub intel: tdx::Root,
}

impl Default for Endorsers {
    fn default() -> Self {
        Self { roots: Vec::new(), activated: Vec::new(), amd: snp::Root::pinned(), intel: tdx::Root::pinned() }
    }
}

/// Genuine: made by its platform at a time when that was valid, and altered by nobody since.
///
/// Only this crate makes one: [`authenticate()`] for evidence of a node, `authenticate` of [`crate::snp`], [`crate::tdx`],
/// [`crate::azure`] and [`crate::tpm`] for what a platform signed by itself.
#[derive(Clone, Debug)]
pub struct Authentic<T> {
    pub(crate) claims: T,
    pub(crate) now: UnixTime,
    pub(crate) checks: Checks,
}

impl<T> Deref for Authentic<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.claims
    }
}

/// What a node says, and what its platform says.
#[derive(Clone, Debug)]
pub struct Node {
    /// The node's own words.
    pub binding: Binding,
    /// What the platform signed along with them.
    pub platform: Claims,
}

/// Claims of one platform.
#[derive(Clone, Debug)]
pub enum Claims {
    /// Azure: SEV-SNP or TDX below a paravisor, and the paravisor's vTPM.
    Azure(Box<azure::Claims>),
    /// AMD SEV-SNP.
    Snp(Box<snp::Claims>),
    /// Intel TDX.
    Tdx(Box<tdx::Claims>),
    /// TPM 2.0.
    Tpm(Box<tpm::Claims>),
}

/// What the modules of the platforms are given beside their part of the evidence.
pub(crate) struct Context<'a> {
    pub(crate) endorsers: &'a Endorsers,
    pub(crate) endorsements: Endorsements,
    pub(crate) now: UnixTime,
    pub(crate) crypto: &'a dyn CryptoProvider,
}

/// Checks that evidence is genuine: every signature, digest and format from the platform's root to the binding.
///
/// `now` is the relying party's clock, by which certificates are judged here and the binding later. A certificate that
/// is present must be good, even where an uncertified AK would do.
///
/// # Errors
/// [`Rejected`] with the first check that fails.
pub fn authenticate(
    evidence: &Evidence,
    endorsers: &Endorsers,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
) -> Result<Authentic<Node>, Box<Rejected>> {
    let mut checks = Checks::default();
    let raw = evidence.binding.as_bytes();
    let binding = checks.parsed(CheckId::Binding, "RFC 8785 canonical blf.binding/v1", Binding::parse(raw))?;
    checks.parsed(CheckId::Document, "blf.evidence/v1, each part within its cap", evidence.check())?;
    let endorsements = match &evidence.endorsements {
        None => Endorsements::default(),
        Some(stapled) => {
            checks.parsed(CheckId::Endorsements, "blf.endorsements/v1", Endorsements::parse(&stapled.0))?
        }
    };
    let context = Context { endorsers, endorsements, now, crypto };
    let statement = Statement::new(binding.keys.node, raw);
    let extra_data = &statement.qualifying_data();
    let platform = match &evidence.platform {
        Platform::Azure(azure) => Claims::Azure(azure::check(azure, extra_data, &context, &mut checks)?.into()),
        Platform::Snp(snp) => Claims::Snp(snp::check(snp, &statement, &context, &mut checks)?.into()),
        Platform::Tdx(tdx) => Claims::Tdx(tdx::check(tdx, &statement, &context, &mut checks)?.into()),
        Platform::Tpm(tpm) => Claims::Tpm(tpm::check(tpm, extra_data, &context, &mut checks)?.into()),
    };
    let keys = &binding.keys;
    let all = [&keys.node.0[..], &keys.response.0, &keys.hpke.0, &keys.cofhe_sealing.0, &keys.tls_spki_sha256.0];
    let present = all.iter().filter(|key| key.iter().any(|byte| *byte != 0)).count();
    checks.require(CheckId::Keys, "5 keys that are not zero", format!("{present} keys"), present == all.len())?;
    checks.equal(CheckId::Config, binding.config_sha256, sha256(evidence.config.as_bytes()))?;
    Ok(Authentic { claims: Node { binding, platform }, now, checks })
}

pub(crate) fn sha256(data: &[u8]) -> Hex<32> {
    Hex(Sha256::digest(data).into())
}
