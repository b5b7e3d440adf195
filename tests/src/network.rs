//! A devnet in this process with its nodes, and the files by which a user knows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blf_appraisal::Release;
use blf_appraisal::release::{Pcrs, SCHEMA, Source, Toolchain, measurement_id};
use blf_devnet::{Appraisal, Devnet, Options};
use blf_evidence::Hex;
use blf_evidence::profile::NetworkProfile;
use blf_evidence::statement::Profile;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::node::Node;

/// The event log and the registers of a recorded boot (see `measurements/appraisal/tests/vectors`).
pub struct Boot {
    /// `binary_bios_measurements`.
    pub log: Vec<u8>,
    /// The file that holds it.
    pub log_file: PathBuf,
    /// What an image that boots so would be released as.
    pub release: Release,
}

impl Boot {
    /// A boot by QEMU's `-kernel` of a release with the devnet profile.
    pub fn recorded() -> Self {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../measurements/appraisal/tests/vectors/boot");
        let log_file = vectors.join("kernel.log");
        let boot: serde_json::Value =
            serde_json::from_slice(&std::fs::read(vectors.join("pcrs.json")).unwrap()).unwrap();
        let pcr = |value: &serde_json::Value| value.as_str().unwrap().parse::<Hex<32>>().unwrap();
        let predicted = &boot["predicted"];
        let (pcr4, pcr9, pcr11) = (&predicted["4"], pcr(&predicted["9"]), pcr(&predicted["11"]));
        let zero = Hex([0; 32]);
        let profile = profile();
        let release = Release {
            schema: SCHEMA.into(),
            measurement_id: measurement_id(pcr11),
            pcrs: Pcrs { pcr4: [pcr(&pcr4[0]), pcr(&pcr4[1])], pcr9, pcr11, pcr12: zero, pcr13: zero },
            profile: Profile { id: profile.id().unwrap(), name: profile.name },
            image_id: "blf".into(),
            version: "0.1.0".into(),
            kernel: "recorded".into(),
            locked: true,
            date: "2026-11-20".into(),
            source: Source { commit: "0".repeat(40), agent_sha256: zero, cargo_lock_sha256: zero },
            rust: Toolchain { version: "1.95.0".into(), commit: "0".repeat(40), sha256: zero },
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        Self { log: std::fs::read(&log_file).unwrap(), log_file, release }
    }
}

/// A devnet with nodes, and the document by which a user finds it.
pub struct Net {
    pub runtime: Runtime,
    pub nodes: Vec<Node>,
    pub dir: tempfile::TempDir,
    pub network: PathBuf,
    stop: oneshot::Sender<()>,
    pub running: blf_devnet::Running,
}

impl Net {
    /// None where swtpm is missing; the reason is on standard error.
    pub fn start(count: usize) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let boot = Boot::recorded();
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut options = Options::new(Arc::new(Appraisal::development(boot.release.clone()).unwrap())).unwrap();
        options.state = Some(dir.path().join("devnet.sqlite"));
        let running = runtime.block_on(Devnet::start(options, async { drop(stopped.await) })).unwrap();
        let network = describe(dir.path(), &boot.release, &running);
        let nodes: Option<Vec<Node>> =
            (0..count).map(|n| Node::start(&boot, &format!("node-{n}"), running.address)).collect();
        Some(Self { nodes: nodes?, runtime, dir, network, stop, running })
    }

    /// Stops everything in order and returns what the courier of each node saw, and the devnet's files.
    pub fn end(self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut seen = Vec::new();
        for node in self.nodes {
            let bytes = Arc::clone(&node.courier_saw);
            assert_eq!(node.stop(), blf_agent::vault::Ended::PowerOff);
            seen.push(std::mem::take(&mut *bytes.lock().unwrap()));
        }
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.running.stopped());
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                files.extend(std::fs::read(entry.path()).unwrap());
            }
        }
        (seen, files)
    }
}

/// The devnet's profile, as the agent has it compiled in.
pub fn profile() -> NetworkProfile {
    blf_agent::profile::network().unwrap()
}

/// Writes `network.json` and what it names into `dir`; returns its path.
pub fn describe(dir: &Path, release: &Release, running: &blf_devnet::Running) -> PathBuf {
    std::fs::write(dir.join("profile.json"), serde_json::to_vec(&profile()).unwrap()).unwrap();
    std::fs::write(dir.join("release.json"), release.to_json().unwrap()).unwrap();
    let network = running.network("profile.json", "release.json", "blf-tiny-1".parse().unwrap());
    let path = dir.join("network.json");
    std::fs::write(&path, serde_json::to_vec(&network).unwrap()).unwrap();
    path
}
