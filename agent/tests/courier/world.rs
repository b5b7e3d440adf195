//! A node, an ICL and a blob store, wired up.

use std::sync::Arc;
use std::time::Duration;

use blf_agent::courier::{self, CourierError, Limits};
use blf_evidence::job::{CofheShare, JobContext, Role};
use blf_evidence::profile::{CofheProfile, Host, Inputs, NetworkProfile, Protocol};
use blf_evidence::telemetry::{Event, JobState};
use blf_evidence::{Address, Hex, UnixTime, icl as wire};
use bytes::Bytes;
use tokio::io::duplex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::icl::{self, BLOBS, ICL, Job, THRESHOLD};
use crate::net::Net;
use crate::pki::Authority;
use crate::vault;

/// When the guest was built, and how much later it is.
pub const BUILT: u64 = 1_700_000_000;
pub const NOW: u64 = BUILT + 10_000_000;

pub struct World {
    pub icl: Arc<icl::Double>,
    pub vault: vault::Double,
    pub net: Net,
    pub authority: Authority,
    pub profile: NetworkProfile,
    pub limits: Limits,
}

impl World {
    pub fn new() -> Self {
        Self::on("tdx")
    }

    pub fn on(backend: &'static str) -> Self {
        let authority = Authority::new();
        let icl = Arc::new(icl::Double::new(NOW));
        let profile = profile(&authority, icl.account());
        let tls = authority.server(&[ICL, BLOBS, THRESHOLD], NOW - 1000, NOW + 100_000_000);
        let net = Net::new(tls, Arc::clone(&icl) as _);
        let vault = vault::Double::new(BUILT, icl.account(), backend);
        Self { icl, vault, net, authority, profile, limits: Limits::default() }
    }

    /// Boots the courier.
    pub fn start(&self) -> JoinHandle<Result<(), CourierError>> {
        self.boot(&self.vault)
    }

    /// Boots the courier of another node.
    pub fn boot(&self, vault: &vault::Double) -> JoinHandle<Result<(), CourierError>> {
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(vault.clone().serve(far));
        let (net, profile, limits) = (self.net.clone(), self.profile.clone(), self.limits);
        tokio::spawn(async move { courier::serve(near, net, &profile, limits).await })
    }

    /// A job for this node, and its sealed prompt.
    pub fn assign(&self, number: u8, role: Role) -> Hex<32> {
        self.assign_sharing(number, role, None)
    }

    /// The same; CoFHE may hold a share of its key.
    pub fn assign_sharing(&self, number: u8, role: Role, cofhe: Option<CofheShare>) -> Hex<32> {
        let blob = Bytes::from(vec![number; 64]);
        let cid = blf_bridge::cid::of(&blob);
        let job = Hex([number; 32]);
        let context = JobContext {
            cofhe,
            job_id: job,
            measurements: vec!["tpm-pcr11:00".into()],
            max_new_tokens: 8,
            model_manifest_sha256: vault::MANIFEST,
            not_after: UnixTime(NOW + 10_000_000),
            reply_hpke: Hex([1; 32]),
            user: self.vault.node(),
            v: 1,
        };
        let assignment = wire::Assignment {
            job_id: job,
            role,
            model_id: "tiny".into(),
            context: context.to_canonical().unwrap(),
            prompt_cid: cid.clone(),
            claim_by: self.icl.now().plus(60),
        };
        self.icl.with(|s| {
            s.blobs.insert(cid, blob);
            s.assignments.push(assignment);
            s.jobs.insert(job, if role == Role::Leader { Job::lead() } else { Job::verify(vault::COMMITMENT) });
        });
        job
    }

    /// Waits, in virtual time and for at most an hour of it, until `is` holds.
    pub async fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        for _ in 0..36_000 {
            if is(self) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("waited in vain for {what}; events: {:#?}", self.net.events());
    }

    /// States that a job went through.
    pub fn states(&self, job: Hex<32>) -> Vec<JobState> {
        let state = |event| match event {
            Event::Job { job: of, state, .. } if of == job => Some(state),
            _ => None,
        };
        self.net.events().into_iter().filter_map(state).collect()
    }

    /// How a job failed.
    pub fn failure(&self, job: Hex<32>) -> Option<String> {
        self.net.events().into_iter().find_map(|event| match event {
            Event::JobFailed { job: of, code } if of == job => Some(code.to_string()),
            _ => None,
        })
    }

    /// Codes of the troubles so far.
    pub fn troubles(&self) -> Vec<String> {
        let code = |event| match event {
            Event::Trouble { code, .. } => Some(code.to_string()),
            _ => None,
        };
        self.net.events().into_iter().filter_map(code).collect()
    }
}

pub fn profile(authority: &Authority, icl_account: Address) -> NetworkProfile {
    let host = |name: &str| Host { name: name.into(), port: 443 };
    NetworkProfile {
        blob_gateway: host(BLOBS),
        blob_pinning: host(BLOBS),
        chain_id: 1,
        cofhe: Some(CofheProfile {
            acl: icl_account,
            acl_name: "ACL".into(),
            acl_version: "1".into(),
            coordinator: host("coordinator.test"),
            crs_sha256: None,
            inputs: Inputs::Clear,
            prompt_key_store: icl_account,
            public_key_sha256: None,
            rpc: host("rpc.test"),
            threshold: host(THRESHOLD),
            verifier: host("verifier.test"),
        }),
        icl: host(ICL),
        icl_account,
        name: "devnet".into(),
        protocol: Protocol::Strict,
        tls_roots: authority.pem.clone(),
        v: 1,
    }
}
