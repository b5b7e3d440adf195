//! A node of the existing network without a VM: the agent's own vault, courier and engine in one ordinary process.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blf_agent::attester::AttestError;
use blf_agent::clock::{self, Clock};
use blf_agent::courier::Limits;
use blf_agent::engine::{Engine, EngineError};
use blf_agent::keys::Keys;
use blf_agent::release::HeldModel;
use blf_agent::vault::{AttestingEnvironment, Ended, Parts, Vault};
use blf_bridge::Secret;
use blf_evidence::Address;
use blf_evidence::bundle::Platform;
use blf_evidence::config::Credentials;
use blf_evidence::pack::Header;
use blf_evidence::profile::{NetworkProfile, Protocol};
use blf_evidence::statement::Statement;
use blf_evidence::telemetry::Event;

use crate::node::{self, Say};

/// What a node is started with.
pub struct Setup {
    /// Where every host of the profile answers.
    pub devnet: SocketAddr,
    /// Its network.
    pub profile: NetworkProfile,
    /// Its model beside the mock.
    pub pack: Option<(File, Header)>,
    /// Bearer token of the pinning service.
    pub pinning_token: String,
    /// Path at the chain's RPC, if it is not `/`.
    pub rpc_path: Option<String>,
    /// Jobs side by side.
    pub max_jobs: u8,
    /// Of the courier.
    pub limits: Limits,
    /// Whether to keep every byte between vault and courier.
    pub record: bool,
    /// Gets the telemetry.
    pub say: Say,
}

/// A running node.
pub struct LegacyNode {
    /// Its address.
    pub address: Address,
    /// Every byte between vault and courier, both ways, if that was recorded.
    pub courier_saw: Option<Arc<Mutex<Vec<u8>>>>,
    vault: Arc<Vault>,
    courier: JoinHandle<()>,
    served: JoinHandle<Ended>,
}

/// The devnet's profile for a coordinator as today's.
pub fn profile() -> NetworkProfile {
    NetworkProfile { protocol: Protocol::Legacy, ..crate::network::profile() }
}

impl Setup {
    /// A node of a legacy devnet at `devnet`, with the mock only.
    pub fn new(devnet: SocketAddr, say: Say) -> Self {
        Self {
            devnet,
            profile: profile(),
            pack: None,
            pinning_token: "development".into(),
            rpc_path: None,
            max_jobs: 2,
            limits: Limits::default(),
            record: false,
            say,
        }
    }
}

impl LegacyNode {
    /// Starts a node whose keys are born now.
    pub fn start(setup: Setup) -> Self {
        let Setup { devnet, profile, pack, pinning_token, rpc_path, max_jobs, limits, record, say } = setup;
        let held = pack.as_ref().map(|(_, header)| HeldModel {
            manifest_sha256: header.digest,
            id: header.manifest.id.clone(),
            max_new_tokens: header.manifest.max_new_tokens,
        });
        let numeric_profile =
            pack.as_ref().map_or_else(|| "mock".into(), |(_, header)| header.manifest.numeric_profile.clone());
        let engine: Arc<dyn Engine> = match pack {
            Some((file, _)) => node::engine_process(file),
            None => Arc::new(NoModel),
        };
        let parts = Parts {
            profile: profile.clone(),
            config: format!(r#"{{"max_jobs":{max_jobs},"name":"legacy","v":1}}"#),
            credentials: Credentials { pinning_token, rpc_path, v: 1 },
            endorsements: None,
            attester: Box::new(NoDevice),
            measurement: "none".into(),
            models: held.into_iter().collect(),
            numeric_profile,
            engine,
            clock: Clock::new(clock::build_date(), clock::boottime),
            keys: Keys::generate().unwrap(),
        };
        let vault = Arc::new(Vault::new(parts).unwrap());
        let (served, socket, courier_saw) = if record {
            let (served, socket, seen) = node::serve(&vault);
            (served, socket, Some(seen))
        } else {
            let (vault_end, courier_end) = UnixStream::pair().unwrap();
            let serving = Arc::clone(&vault);
            (thread::spawn(move || serving.serve(vault_end)), courier_end, None)
        };
        let courier = thread::spawn(move || node::run_courier(socket, devnet, node::door(), &profile, limits, say));
        Self { address: vault.node(), courier_saw, vault, courier, served }
    }

    /// Asks the node to drain and stop, and waits until it did.
    pub fn stop(self) -> Ended {
        self.vault.stop();
        let ended = self.served.join().unwrap();
        self.courier.join().unwrap();
        ended
    }
}

/// An ordinary process has no device that could attest, and this network asks for none.
struct NoDevice;

impl AttestingEnvironment for NoDevice {
    fn platform(&self) -> &'static str {
        "tpm"
    }

    fn attest(&mut self, _: &Statement) -> Result<Platform, AttestError> {
        Err(AttestError::NoDevice { tsm_reports: PathBuf::new(), tpm: PathBuf::new() })
    }

    fn measurement_id(&mut self) -> Result<String, AttestError> {
        Err(AttestError::NoDevice { tsm_reports: PathBuf::new(), tpm: PathBuf::new() })
    }
}

/// For a node that has the mock only; no job leads here.
struct NoModel;

impl Engine for NoModel {
    fn answer(&self, _: &Secret, _: u32, _: Duration) -> Result<Secret, EngineError> {
        Err(EngineError::Gone)
    }
}

/// Puts telemetry onto standard error, a line each.
pub fn to_stderr() -> Say {
    Arc::new(|event: &Event| eprintln!("{}", event.to_line().unwrap()))
}
