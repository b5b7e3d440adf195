//! What is known of a network before anything is sent to it, and what a node must prove before it is relied on.

use std::path::{Path, PathBuf};

use blf_appraisal::authenticate::{Endorsers, authenticate};
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::check::Rejected;
use blf_appraisal::policy::{Expectations, Limit, POLICY_CAP, Policy};
use blf_appraisal::references::{REFERENCES_CAP, References};
use blf_appraisal::release::{RELEASE_CAP, Release};
use blf_appraisal::result::AttestationResult;
use blf_appraisal::x509::{Root, RootKind};
use blf_evidence::bundle::Evidence;
use blf_evidence::network::{NETWORK_CAP, Network};
use blf_evidence::profile::{NetworkProfile, PROFILE_CAP};
use blf_evidence::statement::{Keys, Model, Purpose};
use blf_evidence::{Address, Hex, UnixTime};

use crate::advice::with_hint;
use crate::failure::{Exit, Failure, read_file};

/// The profile of a network that serves the public.
const PRODUCTION: &str = "production";
/// Policies that need no file.
pub(crate) const POLICIES: [(&str, &str); 3] =
    [("confidential", Policy::CONFIDENTIAL), ("devnet", Policy::DEVNET), ("released", Policy::RELEASED)];
/// Codes that say what is missing or too old of the endorsements: with newer ones the same evidence may do.
const WANTING: [&str; 6] =
    ["COLLATERAL_MISSING", "COLLATERAL_TOO_OLD", "CRL_EXPIRED", "CRL_TOO_OLD", "STALE_COLLATERAL", "VEK_MISSING"];

/// A network as its document and the files beside it describe it.
pub struct Known {
    /// How to reach it.
    pub network: Network,
    /// Whom to believe.
    pub profile: NetworkProfile,
    /// What a node may run.
    pub reference: Reference,
}

/// What a node is compared with.
pub struct Reference {
    references: References,
    endorsers: Endorsers,
    policy: Policy,
    /// As it was chosen: a file or a name.
    policy_name: String,
}

/// A node whose evidence was genuine and wanted.
#[derive(Clone, Debug)]
pub struct Node {
    /// The node.
    pub address: Address,
    /// The nonce that it answered.
    pub nonce: Hex<32>,
    /// The time by which that was judged.
    pub at: UnixTime,
    /// Its keys.
    pub keys: Keys,
    /// The models it holds.
    pub models: Vec<Model>,
    /// Its measurement id.
    pub measurement: String,
    /// Its tier.
    pub tier: u8,
    /// What that means.
    pub meaning: &'static str,
    /// How many checks it passed.
    pub checks: usize,
}

impl Known {
    /// Reads the document at `path`, or the one a local devnet wrote, and the files it names.
    ///
    /// # Errors
    /// [`Exit::Config`] naming the file and what is wrong with it.
    pub fn read(path: Option<&Path>, policy: Option<&Path>) -> Result<Self, Failure> {
        let path = path.map_or_else(default_network, |p| Ok(p.to_path_buf()))?;
        let wrong = |file: &Path, e: &dyn std::fmt::Display| {
            Failure::new(Exit::Config, "NETWORK", format!("{}: {e}", file.display()))
        };
        let network = read_file(&path, NETWORK_CAP as u64)
            .map_err(|f| f.hint("name the network with --network FILE, or start one: blf-host launch --devnet"))?;
        let network = Network::parse(&network).map_err(|e| wrong(&path, &e))?;
        let beside = |name: &str| path.with_file_name(name);
        let file = beside(&network.profile);
        let profile = NetworkProfile::parse(&read_file(&file, PROFILE_CAP as u64)?).map_err(|e| wrong(&file, &e))?;
        let file = beside(&network.release);
        let release = Release::parse(&read_file(&file, RELEASE_CAP as u64)?).map_err(|e| wrong(&file, &e))?;
        let (policy_name, policy) = self::policy(policy, &profile.name)?;
        let mut endorsers = Endorsers::default();
        for root in &network.ak_roots {
            let kind = if root.development { RootKind::Development } else { RootKind::Production };
            endorsers.roots.push(Root::from_pem(&root.name, kind, &root.pem).map_err(|e| wrong(&path, &e))?);
        }
        let references = References::from(&release);
        Ok(Self { network, profile, reference: Reference { references, endorsers, policy, policy_name } })
    }
}

impl Reference {
    /// Without a network: the Reference Values of a file, the chip makers' roots, and a policy.
    ///
    /// # Errors
    /// [`Exit::Config`] naming the file and what is wrong with it.
    pub fn offline(references: &Path, policy: Option<&Path>) -> Result<Self, Failure> {
        let (references, endorsers) = (read_references(references)?, Endorsers::default());
        let (policy_name, policy) = self::policy(policy, PRODUCTION)?;
        Ok(Self { references, endorsers, policy, policy_name })
    }

    /// The same with the Reference Values of a file instead, if there is one.
    ///
    /// # Errors
    /// [`Exit::Config`] naming the file and what is wrong with it.
    pub fn with(self, references: Option<&Path>) -> Result<Self, Failure> {
        let references = references.map(read_references).transpose()?.unwrap_or(self.references);
        Ok(Self { references, ..self })
    }

    /// The policy's file or name.
    pub fn policy_name(&self) -> &str {
        &self.policy_name
    }

    /// Whether the policy asks how old the block is that dates the evidence.
    pub fn limits_anchors(&self) -> bool {
        self.policy.anchor_age_blocks != Limit::Any
    }

    /// Appraises evidence: genuine first, wanted second.
    ///
    /// # Errors
    /// [`Rejected`], the first check that fails.
    pub fn appraise(
        &self,
        evidence: &Evidence,
        expected: &Expectations,
        now: UnixTime,
    ) -> Result<AttestationResult, Box<Rejected>> {
        let authentic = authenticate(evidence, &self.endorsers, now, &AwsLc)?;
        self.policy.appraise(authentic, &self.references, expected)
    }

    /// Appraises what `node` answered to the nonce of `user`.
    ///
    /// # Errors
    /// [`Exit::Rejected`] with the first check that fails, [`Exit::NoVerdict`] for a platform not supported.
    pub fn appraise_preview(
        &self,
        evidence: &Evidence,
        node: Address,
        user: Address,
        nonce: Hex<32>,
        now: UnixTime,
    ) -> Result<Node, Failure> {
        let expected = Expectations { audience: user.to_string(), head: None, nonce, purpose: Purpose::Preview };
        let result = self.appraise(evidence, &expected, now).map_err(|e| refused(&e, &format!("node {node}")))?;
        if result.binding.keys.node != node {
            let message = format!("node {node}: its evidence is of another node, {}", result.binding.keys.node);
            return Err(Failure::new(Exit::Rejected, "NODE_MISMATCH", message));
        }
        Ok(Node {
            address: node,
            nonce,
            at: now,
            meaning: result.meaning(),
            keys: result.binding.keys,
            models: result.binding.models,
            measurement: result.measurement_id,
            tier: result.tier,
            checks: result.checks.len(),
        })
    }

    /// The measurement ids that a job may name.
    pub fn measurements(&self) -> Vec<String> {
        self.references.measurement_ids()
    }
}

/// An appraisal that did not end well, as the command reports it.
pub fn refused(rejected: &Rejected, whose: &str) -> Failure {
    if WANTING.contains(&rejected.code) {
        let message = format!("{whose} cannot be judged: {rejected}");
        return with_hint(Failure::new(Exit::NoVerdict, rejected.code, message));
    }
    with_hint(Failure::new(Exit::Rejected, rejected.code, format!("{whose} is rejected: {rejected}")))
}

/// The policy of a file, of a name that this crate knows, or the one that fits the network's profile: the stricter the
/// more the profile promises.
///
/// # Errors
/// [`Exit::Config`] naming the file and what is wrong with it.
fn policy(chosen: Option<&Path>, profile: &str) -> Result<(String, Policy), Failure> {
    let name = match chosen {
        Some(file) => file.to_str().unwrap_or_default(),
        None if profile == PRODUCTION => "confidential",
        None if profile == "devnet" => "devnet",
        None => "released",
    };
    let own = POLICIES.iter().find(|(known, _)| *known == name);
    let wrong = |e: &dyn std::fmt::Display| Failure::new(Exit::Config, "POLICY", format!("{name}: {e}"));
    let text = match (own, chosen) {
        (None, Some(file)) => read_file(file, POLICY_CAP as u64)
            .map_err(|f| f.hint(format!("a file, or one of {}", POLICIES.map(|(name, _)| name).join(", "))))?,
        (own, _) => own.map_or("", |(_, text)| text).into(),
    };
    Ok((name.into(), Policy::parse(&text).map_err(|e| wrong(&e))?))
}

fn read_references(file: &Path) -> Result<References, Failure> {
    let wrong =
        |e: &dyn std::fmt::Display| Failure::new(Exit::Config, "REFERENCES", format!("{}: {e}", file.display()));
    References::parse(&read_file(file, REFERENCES_CAP as u64)?).map_err(|e| wrong(&e))
}

/// `network.json` where a local devnet leaves it.
fn default_network() -> Result<PathBuf, Failure> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|s| !s.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|state| state.join("blf/network.json")).ok_or_else(|| {
        Failure::new(Exit::Usage, "NETWORK", "which network? wanted --network FILE, and HOME is not set either")
    })
}
